//! Typed handlers, and those with a state, in an engine's description.

use std::future::Future;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::builder::Builder;
use crate::dispatch::{Context, Fault, Reply, Request, Routes, Session};

/// Typed and stateful handlers.
impl Builder {
    /// Handles a route by a function from one type to another, on every shard; see
    /// [`Handlers::call`](crate::Handlers::call).
    ///
    /// ```
    /// use shaddock::{Engine, Fault};
    ///
    /// let builder = Engine::builder()
    ///     .call("connector.mathHandler.divide", |(a, b): (i64, i64), _session| {
    ///         a.checked_div(b).ok_or(Fault::new(400, "not by that"))
    ///     });
    /// ```
    pub fn call<Q, A, F>(self, route: impl Into<String>, handler: F) -> Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(Q, &mut Session) -> Result<A, Fault> + Send + Sync + 'static,
    {
        let (route, handler) = (route.into(), Arc::new(handler));
        self.routes([route.clone()]).register(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.call(&route, move |query, session: &mut Session| handler(query, session));
        })
    }

    /// Handles a route by a future from one type to another, on every shard; see
    /// [`Handlers::call_async`](crate::Handlers::call_async).
    ///
    /// ```
    /// use shaddock::{Engine, Session, Uid};
    ///
    /// let builder = Engine::builder().call_async(
    ///     "connector.entryHandler.enter",
    ///     async |uid: Uid, mut session: Session| {
    ///         session.bind(uid.clone()).await?;
    ///         Ok(uid)
    ///     },
    /// );
    /// ```
    pub fn call_async<Q, A, F, R>(self, route: impl Into<String>, handler: F) -> Self
    where
        Q: DeserializeOwned,
        A: Serialize,
        F: Fn(Q, Session) -> R + Send + Sync + 'static,
        R: Future<Output = Result<A, Fault>> + 'static,
    {
        let (route, handler) = (route.into(), Arc::new(handler));
        self.routes([route.clone()]).register(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.call_async(&route, move |query, session| handler(query, session));
        })
    }

    /// Handles a route by a function that may fail, and that reads and writes types which borrow
    /// from the request, on every shard; see
    /// [`Handlers::try_handler`](crate::Handlers::try_handler).
    ///
    /// ```
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().try_handler("connector.chatHandler.len", |request, _| {
    ///     let text: &str = request.json()?;
    ///     Ok(Reply::json(&text.len()))
    /// });
    /// ```
    pub fn try_handler<F>(self, route: impl Into<String>, handler: F) -> Self
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Result<Reply<'a>, Fault>
            + Send
            + Sync
            + 'static,
    {
        let (route, handler) = (route.into(), Arc::new(handler));
        self.routes([route.clone()]).register(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.try_handler(&route, move |request, session| handler(request, session));
        })
    }

    /// Adds handlers that share a state, one for each shard, made there by `make`; see
    /// [`Workers::stateful`](crate::Workers::stateful), which is the same for workers. Mail is for
    /// workers alone.
    ///
    /// ```
    /// use shaddock::{Engine, Routes};
    ///
    /// let builder = Engine::builder().stateful(|_context| 0_u64, |routes: &mut Routes<u64>| {
    ///     routes.call("entryHandler.count", |count, (), _session| {
    ///         *count += 1;
    ///         Ok(*count)
    ///     });
    /// });
    /// ```
    pub fn stateful<S: 'static>(
        self,
        make: impl Fn(&Context) -> S + Send + Sync + 'static,
        routes: impl Fn(&mut Routes<S>) + Send + Sync + 'static,
    ) -> Self {
        self.register(move |handlers| {
            handlers.stateful(&make, &routes);
        })
    }
}
