//! Handlers that read and write JSON by serde.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fault::Fault;
use super::handlers::Handlers;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;

/// Typed handlers.
impl Handlers {
    /// Handles a route by a function from one type to another: the body is read as `Q`, as by
    /// [`Request::json`], and `A` is written as the answer. A body that does not fit is answered
    /// 400 with the reason; [`Fault`] tells what becomes of errors.
    ///
    /// ```
    /// use serde::{Deserialize, Serialize};
    /// use shaddock::{Fault, Handlers, Session};
    ///
    /// #[derive(Deserialize)]
    /// struct Enter {
    ///     room: u32,
    /// }
    ///
    /// #[derive(Serialize)]
    /// struct Entered {
    ///     members: usize,
    /// }
    ///
    /// fn enter(query: Enter, session: &mut Session) -> Result<Entered, Fault> {
    ///     match query.room {
    ///         7 => Ok(Entered { members: 1 }),
    ///         _ => Err(Fault::new(404, "no room")),
    ///     }
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers
    ///         .call("connector.roomHandler.enter", enter)
    ///         .call("connector.roomHandler.add", |(a, b): (i64, i64), _| Ok(a + b))
    ///         .call("connector.roomHandler.ping", |(), _| Ok(()));
    /// }
    /// # let _ = shaddock::Engine::builder().register(register);
    /// ```
    ///
    /// `Q` owns what it holds. [`Self::try_handler`] is for types that borrow text from the body.
    /// Nothing is allocated for a message but what `Q` and `A` do themselves.
    pub fn call<Q, A, F>(&mut self, route: &str, handler: F) -> &mut Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(Q, &mut Session) -> Result<A, Fault> + 'static,
    {
        self.handler(route, move |request, session| match request.json() {
            Ok(query) => answer(handler(query, session)),
            Err(error) => Fault::from(error).into(),
        })
    }

    /// Handles a route by a future from one type to another, which runs on the same thread; see
    /// [`Self::call`].
    ///
    /// ```
    /// # use shaddock::{Fault, Handlers, Session, Uid};
    /// async fn enter(uid: Uid, mut session: Session) -> Result<Uid, Fault> {
    ///     session.bind(uid.clone()).await?;
    ///     Ok(uid)
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers
    ///         .call_async("connector.entryHandler.enter", enter)
    ///         .call_async("connector.entryHandler.leave", async |(), mut session: Session| {
    ///             let uid = session.uid().cloned().ok_or(Fault::new(401, "log in first"))?;
    ///             session.unbind(uid).await?;
    ///             Ok(())
    ///         });
    /// }
    /// # let _ = shaddock::Engine::builder().register(register);
    /// ```
    pub fn call_async<Q, A, F, R>(&mut self, route: &str, handler: F) -> &mut Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(Q, Session) -> R + 'static,
        R: Future<Output = Result<A, Fault>> + 'static,
    {
        self.handler(route, move |request, session| match request.json() {
            Ok(query) => {
                let answered = handler(query, session.clone());
                Reply::later(async move { answer(answered.await) })
            }
            Err(error) => Fault::from(error).into(),
        })
    }

    /// Handles a route by a function that may fail: one of [`Self::handler`] with `?` in it. The
    /// types that it reads and writes may borrow from the request.
    ///
    /// ```
    /// use std::borrow::Cow;
    ///
    /// use serde::{Deserialize, Serialize};
    /// use shaddock::{Fault, Handlers, Reply, Request, Session};
    ///
    /// #[derive(Deserialize, Serialize)]
    /// struct Say<'a> {
    ///     #[serde(borrow)]
    ///     text: Cow<'a, str>,
    /// }
    ///
    /// fn say<'a>(request: &Request<'a>, session: &mut Session) -> Result<Reply<'a>, Fault> {
    ///     let say: Say<'_> = request.json()?;
    ///     session.uid().ok_or(Fault::new(401, "log in first"))?;
    ///     Ok(Reply::json(&say))
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers.try_handler("connector.chatHandler.say", say).try_handler(
    ///         "connector.chatHandler.len",
    ///         |request, _| {
    ///             let say: Say<'_> = request.json()?;
    ///             Ok(Reply::json(&say.text.len()))
    ///         },
    ///     );
    /// }
    /// # let _ = shaddock::Engine::builder().register(register);
    /// ```
    pub fn try_handler<F>(&mut self, route: &str, handler: F) -> &mut Self
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Result<Reply<'a>, Fault> + 'static,
    {
        self.handler(route, move |request, session| match handler(request, session) {
            Ok(reply) => reply,
            Err(fault) => fault.into(),
        })
    }
}

/// Gives a closure back as it is, for [`Handlers::handler`] and
/// [`Builder::handler`](crate::Builder::handler): in a variable, a closure is only taken for a
/// handler where this says that it is one.
///
/// ```
/// use shaddock::{Engine, Reply, handler_fn};
///
/// let echo = handler_fn(|request, _session| Reply::borrowed(request.body()));
/// let builder = Engine::builder()
///     .handler("connector.entryHandler.echo", echo)
///     .handler("connector.entryHandler.repeat", echo);
/// ```
pub fn handler_fn<F>(handler: F) -> F
where
    F: for<'a> Fn(&Request<'a>, &mut Session) -> Reply<'a>,
{
    handler
}

fn answer<A: Serialize>(answered: Result<A, Fault>) -> Reply<'static> {
    match answered {
        Ok(answer) => Reply::json(&answer),
        Err(fault) => fault.into(),
    }
}
