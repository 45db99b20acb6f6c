//! Handlers of a thread that share a state.

use std::any::{Any, type_name_of_val};
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::context::Context;
use super::fault::Fault;
use super::handlers::Handlers;
use super::reply::Reply;
use super::request::Request;
use super::session::Session;
use super::ticks::Missed;
use crate::route::registration::Mistake;
use crate::session::SessionView;

/// The state of one shard or worker, for code that can't be handed `&mut S`: an async handler,
/// which gives the thread to others while it waits.
///
/// Cheap to clone, and bound to its thread.
///
/// ```
/// use shaddock::{Fault, Session, Shared};
///
/// #[derive(Default)]
/// struct Rooms {
///     waiting: Vec<u64>,
/// }
///
/// async fn join(rooms: Shared<Rooms>, (): (), session: Session) -> Result<usize, Fault> {
///     rooms.with(|rooms| rooms.waiting.push(session.number()))?;
///     session.context().sleep(std::time::Duration::from_secs(1)).await;
///     // Whoever has come meanwhile is there, too.
///     Ok(rooms.with(|rooms| rooms.waiting.len())?)
/// }
/// ```
pub struct Shared<S>(Rc<RefCell<S>>);

impl<S> Clone for Shared<S> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<S> fmt::Debug for Shared<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("is_taken", &self.0.try_borrow().is_err()).finish()
    }
}

/// A state was asked for by code that runs inside a call that has it (made by the embedder). Pass
/// on the `&mut S` of that call instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // The name says all there is to say.
pub struct StateTaken;

impl fmt::Display for StateTaken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call that has the state asks for it again: pass its `&mut` on instead")
    }
}

impl std::error::Error for StateTaken {}

impl From<StateTaken> for Fault {
    fn from(error: StateTaken) -> Self {
        Self::internal(error)
    }
}

impl<S> Shared<S> {
    fn new(state: S) -> Self {
        Self(Rc::new(RefCell::new(state)))
    }

    /// Calls `code` with the state.
    ///
    /// # Errors
    /// The call is nested in another one that has the state; `code` has not run then. In a handler
    /// `?` makes a 500 of it, which is logged.
    pub fn with<T>(&self, code: impl FnOnce(&mut S) -> T) -> Result<T, StateTaken> {
        let mut state = self.0.try_borrow_mut().map_err(|_| StateTaken)?;
        Ok(code(&mut state))
    }

    /// The same for code whose caller can't be told.
    fn with_or_log(&self, code: impl FnOnce(&mut S)) {
        if let Err(error) = self.with(code) {
            crate::log::seldom!(error, %error, "a function with a state was not called");
        }
    }
}

/// The handlers of a shard or worker that share the state `S`, on their way to it: made by
/// [`Workers::stateful`](crate::Workers::stateful), [`Builder::stateful`](crate::Builder::stateful)
/// and [`Handlers::stateful`].
///
/// Paths are routes without the server type, which is implied: `roomHandler.enter` on a worker of
/// `room` is the route `room.roomHandler.enter`.
pub struct Routes<S> {
    handlers: Handlers,
    state: Shared<S>,
}

impl<S> fmt::Debug for Routes<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("handlers", &self.handlers).finish_non_exhaustive()
    }
}

impl Handlers {
    /// Adds handlers that share a state, which is made here, on the thread that it stays on.
    ///
    /// ```
    /// use shaddock::{Engine, Routes};
    ///
    /// let builder = Engine::builder().register(|handlers| {
    ///     handlers.stateful(|_context| 0_u64, |routes: &mut Routes<u64>| {
    ///         routes.call("entryHandler.count", |count, (), _session| {
    ///             *count += 1;
    ///             Ok(*count)
    ///         });
    ///     });
    /// });
    /// ```
    pub fn stateful<S: 'static>(
        &mut self,
        make: impl FnOnce(&Context) -> S,
        routes: impl FnOnce(&mut Routes<S>),
    ) -> &mut Self {
        let state = Shared::new(make(self.context()));
        let mut stateful = Routes { handlers: self.take(), state };
        routes(&mut stateful);
        *self = stateful.handlers;
        self
    }
}

impl<S: 'static> Routes<S> {
    /// The shard or worker that these are for.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::{Missed, Routes};
    /// # fn register(routes: &mut Routes<Vec<u64>>) {
    /// let name = routes.context().server_id().to_owned();
    /// routes.every(Duration::from_secs(60), Missed::Skip, move |members| {
    ///     println!("{name} has {} members", members.len());
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn context(&self) -> &Context {
        self.handlers.context()
    }

    /// The state, for futures and for handlers without it.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::Routes;
    /// # fn register(routes: &mut Routes<Vec<u64>>) {
    /// let (members, context) = (routes.state(), routes.context().clone());
    /// routes.context().spawn(async move {
    ///     context.sleep(Duration::from_secs(3600)).await;
    ///     let _ = members.with(|members| members.clear());
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn state(&self) -> Shared<S> {
        self.state.clone()
    }

    /// The handlers, filters and ticks without the state, by full routes.
    ///
    /// ```
    /// # use shaddock::{Routes, Time};
    /// # fn register(routes: &mut Routes<Vec<u64>>) {
    /// routes.handlers().filter(Time::default()).call("room.a.ping", |(), _session| Ok(()));
    /// # }
    /// ```
    pub fn handlers(&mut self) -> &mut Handlers {
        &mut self.handlers
    }

    /// Handles a path by a function of the state that gets the request as it came; see
    /// [`Handlers::handler`].
    ///
    /// ```
    /// # use shaddock::{Reply, Routes};
    /// # fn register(routes: &mut Routes<u64>) {
    /// routes.handler("roomHandler.echo", |count, request, _session| {
    ///     *count += 1;
    ///     Reply::borrowed(request.body())
    /// });
    /// # }
    /// ```
    pub fn handler<F>(&mut self, path: &str, handler: F) -> &mut Self
    where
        F: for<'a> Fn(&mut S, &Request<'a>, &mut Session) -> Reply<'a> + 'static,
    {
        let Some(route) = self.route(path) else { return self };
        let state = self.state();
        self.handlers.handler(&route, move |request, session| {
            match state.with(|state| handler(state, request, session)) {
                Ok(reply) => reply,
                Err(error) => Fault::from(error).into(),
            }
        });
        self
    }

    /// Handles a path by a function of the state from one type to another; see [`Handlers::call`].
    ///
    /// ```
    /// # use shaddock::{Fault, Routes, Session};
    /// #[derive(Default)]
    /// struct Rooms {
    ///     members: Vec<u64>,
    /// }
    ///
    /// impl Rooms {
    ///     fn enter(&mut self, room: u32, session: &mut Session) -> Result<usize, Fault> {
    ///         if room != 7 {
    ///             return Err(Fault::new(404, "no room"));
    ///         }
    ///         self.members.push(session.number());
    ///         Ok(self.members.len())
    ///     }
    /// }
    ///
    /// fn register(routes: &mut Routes<Rooms>) {
    ///     routes.call("roomHandler.enter", Rooms::enter);
    /// }
    /// ```
    pub fn call<Q, A, F>(&mut self, path: &str, handler: F) -> &mut Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(&mut S, Q, &mut Session) -> Result<A, Fault> + 'static,
    {
        let Some(route) = self.route(path) else { return self };
        let state = self.state();
        self.handlers.call(&route, move |query: Q, session: &mut Session| {
            state.with(|state| handler(state, query, session))?
        });
        self
    }

    /// Handles a path by a function of the state that may fail, and whose types may borrow from the
    /// request; see [`Handlers::try_handler`].
    ///
    /// ```
    /// # use shaddock::{Reply, Routes};
    /// # fn register(routes: &mut Routes<u64>) {
    /// routes.try_handler("roomHandler.say", |count, request, _session| {
    ///     let text: &str = request.json()?;
    ///     *count += text.chars().count() as u64;
    ///     Ok(Reply::json(&*count))
    /// });
    /// # }
    /// ```
    pub fn try_handler<F>(&mut self, path: &str, handler: F) -> &mut Self
    where
        F: for<'a> Fn(&mut S, &Request<'a>, &mut Session) -> Result<Reply<'a>, Fault> + 'static,
    {
        let Some(route) = self.route(path) else { return self };
        let state = self.state();
        self.handlers.try_handler(&route, move |request, session| {
            state.with(|state| handler(state, request, session))?
        });
        self
    }

    /// Handles a path by a future, which reaches the state between its waits; see [`Shared`] and
    /// [`Handlers::call_async`].
    ///
    /// ```
    /// # use shaddock::{Fault, Routes, Session, Shared};
    /// async fn later(count: Shared<u64>, add: u64, session: Session) -> Result<u64, Fault> {
    ///     session.context().sleep(std::time::Duration::from_millis(10)).await;
    ///     Ok(count.with(|count| {
    ///         *count += add;
    ///         *count
    ///     })?)
    /// }
    ///
    /// fn register(routes: &mut Routes<u64>) {
    ///     routes.call_async("roomHandler.later", later);
    /// }
    /// ```
    pub fn call_async<Q, A, F, R>(&mut self, path: &str, handler: F) -> &mut Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(Shared<S>, Q, Session) -> R + 'static,
        R: Future<Output = Result<A, Fault>> + 'static,
    {
        let Some(route) = self.route(path) else { return self };
        let state = self.state();
        self.handlers
            .call_async(&route, move |query: Q, session| handler(state.clone(), query, session));
        self
    }

    /// Calls a function of the state at an interval; see [`Handlers::every`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::{Missed, Routes};
    /// # fn register(routes: &mut Routes<u64>) {
    /// routes.every(Duration::from_millis(50), Missed::Skip, |steps| *steps += 1);
    /// # }
    /// ```
    pub fn every(
        &mut self,
        period: Duration,
        missed: Missed,
        tick: impl Fn(&mut S) + 'static,
    ) -> &mut Self {
        let (name, state) = (type_name_of_val(&tick), self.state());
        let run = Box::new(move || state.with_or_log(&tick));
        self.handlers.add_tick(period, missed, name, run);
        self
    }

    /// Receives messages of one type that others send to this worker; see [`Handlers::mail`].
    ///
    /// ```
    /// # use shaddock::Routes;
    /// struct Add(u64);
    ///
    /// fn register(routes: &mut Routes<u64>) {
    ///     routes.mail(|count, Add(more)| *count += more);
    /// }
    /// ```
    pub fn mail<M: Any>(&mut self, receive: impl Fn(&mut S, M) + 'static) -> &mut Self {
        let state = self.state();
        self.handlers.mail(move |message: M, _| {
            state.with_or_log(|state| receive(state, message));
        });
        self
    }

    /// Is told of each session that closes; see [`Handlers::on_session_closed`].
    ///
    /// ```
    /// # use shaddock::Routes;
    /// # fn register(routes: &mut Routes<Vec<u64>>) {
    /// routes.on_session_closed(|members, session| {
    ///     members.retain(|member| *member != session.number());
    /// });
    /// # }
    /// ```
    pub fn on_session_closed(
        &mut self,
        told: impl Fn(&mut S, &SessionView<'_>) + 'static,
    ) -> &mut Self {
        let state = self.state();
        self.handlers.on_session_closed(move |session, _| {
            state.with_or_log(|state| told(state, session));
        });
        self
    }

    /// Runs a hook once when the engine stops, behind the ends of all sessions; see
    /// [`Handlers::on_shutdown`]. It reaches the state between its waits.
    ///
    /// ```
    /// # use shaddock::Routes;
    /// # async fn save(_: u64) {}
    /// # fn register(routes: &mut Routes<u64>) {
    /// routes.on_shutdown(async |count, _context| {
    ///     let Ok(count) = count.with(|count| *count) else { return };
    ///     save(count).await;
    /// });
    /// # }
    /// ```
    pub fn on_shutdown<F, R>(&mut self, hook: F) -> &mut Self
    where
        F: FnOnce(Shared<S>, Context) -> R + 'static,
        R: Future<Output = ()> + 'static,
    {
        let state = self.state();
        self.handlers.on_shutdown(move |context| hook(state, context));
        self
    }

    /// The route of a path, unless it is none.
    fn route(&self, path: &str) -> Option<String> {
        let is_path = path.split('.').count() == 2 && path.split('.').all(|part| !part.is_empty());
        if !is_path {
            self.handlers.add_mistake(path, Mistake::NoPath);
            return None;
        }
        Some(format!("{}.{path}", self.handlers.server_type()))
    }
}
