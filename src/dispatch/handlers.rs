//! The handlers and filters of one shard or worker.

use std::any::{Any, TypeId};
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::context::{Context, ThreadState};
use super::filter::Filter;
use super::panics::guarded;
use super::reply::{LocalFuture, Reply, ReplyBody};
use super::request::{OwnedRequest, Request};
use super::session::Session;
use super::ticks::Ticks;
use crate::route::registration::{Misregistration, Mistake, Mistakes, mistake_of};
use crate::session::SessionView;

/// A handler of one route; it writes its reply where the caller has it.
pub(crate) type Handler = Box<dyn for<'a> Fn(&Request<'a>, &mut Session, &mut Reply<'a>)>;

/// Runs once, when the engine stops.
pub(crate) type OnShutdown = Box<dyn FnOnce(Context) -> LocalFuture<()>>;

/// Is told of each session that opens, or of each that closes.
pub(crate) type OnSession = Box<dyn Fn(&SessionView<'_>, &Context)>;

/// Receives messages of one type.
pub(super) struct Receiver {
    pub(super) receive: Box<dyn Fn(Box<dyn Any + Send>)>,
    /// That of the messages' type.
    pub(super) type_name: &'static str,
}

/// Fills in the handlers of a thread; runs there, once.
pub(crate) type Register = Arc<dyn Fn(&mut Handlers) + Send + Sync>;

/// Handlers and filters on their way into a shard or worker.
///
/// The function that gets it runs on the shard's or worker's own thread, so that handlers may
/// share state of that thread by `Rc` and `RefCell`.
///
/// ```
/// use std::cell::Cell;
/// use std::rc::Rc;
///
/// use serde_json::json;
/// use shaddock::{Engine, Handlers, Reply, Shards, testing};
///
/// fn register(handlers: &mut Handlers) {
///     let count = Rc::new(Cell::new(0));
///     let counted = Rc::clone(&count);
///     handlers
///         .handler("connector.a.count", move |_, _| {
///             counted.set(counted.get() + 1);
///             Reply::empty()
///         })
///         .handler("connector.a.tell", move |_, _| Reply::json(&count.get()));
/// }
///
/// let t = testing::Engine::new(Engine::builder().shards(Shards::Count(1)).register(register));
/// let amy = t.connect();
/// amy.notify("connector.a.count", json!({}));
/// assert_eq!(amy.request("connector.a.tell", json!({})), 1);
/// ```
pub struct Handlers {
    context: Context,
    /// That of the shards or workers that these are for.
    server_type: Arc<str>,
    registry: Registry,
    mistakes: Arc<Mistakes>,
}

/// The handlers and filters of a thread, ready to be called.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) handlers: Vec<Handler>,
    by_route: FxHashMap<Box<str>, usize>,
    /// The handler of every other route, if there is one.
    fallback: Option<usize>,
    pub(crate) filters: Vec<Rc<dyn Filter>>,
    pub(crate) global_filters: Vec<Rc<dyn Filter>>,
    pub(crate) on_opened: Vec<OnSession>,
    pub(crate) on_closed: Vec<OnSession>,
    /// Taken out when they run.
    pub(crate) on_shutdown: RefCell<Vec<OnShutdown>>,
    pub(crate) ticks: Ticks,
    /// The receivers of messages, by the type of these.
    pub(super) mail: FxHashMap<TypeId, Receiver>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers")
            .field("routes", &self.registry.by_route.keys())
            .finish_non_exhaustive()
    }
}

impl Handlers {
    /// Runs registrations; what is wrong with them goes to `mistakes`.
    pub(crate) fn collect<'a>(
        thread: &Rc<ThreadState>,
        server_type: &Arc<str>,
        registers: impl IntoIterator<Item = &'a Register>,
        mistakes: &Arc<Mistakes>,
    ) -> Rc<Registry> {
        let mut handlers = Self {
            context: Context { thread: Rc::clone(thread) },
            server_type: Arc::clone(server_type),
            registry: Registry::default(),
            mistakes: Arc::clone(mistakes),
        };
        registers.into_iter().for_each(|register| register(&mut handlers));
        Rc::new(handlers.registry)
    }

    /// The shard or worker that these are for.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Handles a route, given in full (`type.handler.method`).
    ///
    /// A route that is not of three parts, is of another server type than this thread's, or has a
    /// handler already, keeps the engine from starting: see
    /// [`StartError::Handlers`](crate::StartError::Handlers).
    ///
    /// This is the fast way: the request is borrowed from the receive buffer, and a reply may
    /// borrow from the request. [`Self::call`] reads and writes JSON, and takes `?`. A closure is
    /// written in place, or made by [`handler_fn`](crate::handler_fn); a named function is like
    ///
    /// ```
    /// use shaddock::{Handlers, Reply, Request, Session};
    ///
    /// fn echo<'a>(request: &Request<'a>, _session: &mut Session) -> Reply<'a> {
    ///     Reply::borrowed(request.body())
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers.handler("connector.entryHandler.echo", echo);
    /// }
    /// # let _ = shaddock::Engine::builder().register(register);
    /// ```
    pub fn handler<F>(&mut self, route: &str, handler: F) -> &mut Self
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Reply<'a> + 'static,
    {
        let index = self.registry.handlers.len();
        let handler: Handler = Box::new(move |request, session, reply| {
            let blank = std::mem::replace(reply, handler(request, session));
            // It holds nothing: to look what there is to drop takes longer than all else here.
            debug_assert!(matches!(blank.body, ReplyBody::None));
            std::mem::forget(blank);
        });
        self.registry.handlers.push(handler);
        if let Some(mistake) = mistake_of(&self.server_type, route) {
            self.add_mistake(route, mistake);
        }
        if self.registry.by_route.insert(route.into(), index).is_some() {
            self.add_mistake(route, Mistake::Duplicate);
        }
        self
    }

    /// All of them, to be added to elsewhere and put back.
    pub(super) fn take(&mut self) -> Self {
        Self {
            context: self.context.clone(),
            server_type: Arc::clone(&self.server_type),
            registry: std::mem::take(&mut self.registry),
            mistakes: Arc::clone(&self.mistakes),
        }
    }

    pub(super) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    pub(super) fn server_type(&self) -> &str {
        &self.server_type
    }

    pub(super) fn add_mistake(&self, route: &str, mistake: Mistake) {
        let (server_type, route) = (Arc::clone(&self.server_type), route.to_owned());
        self.mistakes.add(Misregistration { server_type, route, mistake });
    }

    /// Handles a route by a future, which runs on the same thread.
    ///
    /// ```
    /// # use shaddock::{Handlers, OwnedRequest, Reply, Session};
    /// async fn later(request: OwnedRequest, session: Session) -> Reply<'static> {
    ///     session.context().sleep(std::time::Duration::from_millis(50)).await;
    ///     Reply::bytes(request.get().body())
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers.async_handler("connector.entryHandler.later", later);
    /// }
    /// ```
    pub fn async_handler<F, R>(&mut self, route: &str, handler: F) -> &mut Self
    where
        F: Fn(OwnedRequest, Session) -> R + 'static,
        R: Future<Output = Reply<'static>> + 'static,
    {
        self.handler(route, move |request, session| {
            Reply::later(handler(request.to_owned(), session.clone()))
        })
    }

    /// Handles each route that has no other handler, as the kit's stand-in for a server does.
    #[cfg(feature = "testing")]
    pub(crate) fn fallback<F>(&mut self, handler: F)
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Reply<'a> + 'static,
    {
        self.registry.fallback = Some(self.registry.handlers.len());
        self.registry.handlers.push(Box::new(move |request, session, reply| {
            *reply = handler(request, session);
        }));
    }

    /// Runs a filter round the handlers of this thread.
    ///
    /// ```
    /// # use shaddock::{Filter, Handlers, Reply, Request, Session};
    /// /// Counts errors by what they answer.
    /// struct Errors(std::cell::Cell<u64>);
    ///
    /// impl Filter for Errors {
    ///     fn after(&self, _: &Request<'_>, _: &mut Session, reply: &mut Reply<'_>) {
    ///         self.0.set(self.0.get() + u64::from(reply.is_error()));
    ///     }
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers.filter(Errors(Default::default()));
    /// }
    /// ```
    pub fn filter(&mut self, filter: impl Filter) -> &mut Self {
        self.registry.filters.push(Rc::new(filter));
        self
    }

    /// Runs a filter round everything that comes from clients. A worker sees no more than its own
    /// messages, so there it keeps the engine from starting
    /// ([`Mistake::GlobalFilter`](crate::Mistake)): [`Self::filter`] is for workers.
    ///
    /// ```
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// handlers.global_filter(shaddock::Serial::default());
    /// # }
    /// ```
    pub fn global_filter(&mut self, filter: impl Filter) -> &mut Self {
        self.registry.global_filters.push(Rc::new(filter));
        self
    }

    /// Is told of each session that opens: the client has acknowledged the answer to its handshake,
    /// and can be pushed to. Each session that this is told of,
    /// [`on_session_closed`](Self::on_session_closed) is told of too, later. It runs on the shard
    /// of the session. A worker is told of no session that opens, so there it keeps the engine from
    /// starting ([`Mistake::OpenedOnWorker`](crate::Mistake)).
    ///
    /// ```
    /// use shaddock::Engine;
    ///
    /// let builder = Engine::builder().register(|handlers| {
    ///     handlers.on_session_opened(|session, context| {
    ///         context.send(session.id, "onNews", r#"{"text":"hi"}"#).ok();
    ///     });
    /// });
    /// ```
    pub fn on_session_opened(
        &mut self,
        told: impl Fn(&SessionView<'_>, &Context) + 'static,
    ) -> &mut Self {
        self.registry.on_opened.push(Box::new(told));
        self
    }

    /// Is told of each session that closes: on a shard of its own sessions, on a worker of those
    /// that it has seen a message of.
    ///
    /// A future that it spawns is owed: a drain waits for it as for one of
    /// [`Context::spawn_owed`]. What does not end by itself is spawned by
    /// [`TaskBuilder::not_owed`](crate::TaskBuilder::not_owed), or elsewhere.
    ///
    /// ```
    /// # async fn save(_: shaddock::Uid) {}
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// handlers.on_session_closed(|session, context| {
    ///     if let Some(uid) = session.uid() {
    ///         context.task("save").spawn(save(uid.clone()));
    ///     }
    /// });
    /// # }
    /// ```
    pub fn on_session_closed(
        &mut self,
        told: impl Fn(&SessionView<'_>, &Context) + 'static,
    ) -> &mut Self {
        self.registry.on_closed.push(Box::new(told));
        self
    }

    /// Runs a hook once, on this thread, when the engine stops: behind the ends of all sessions,
    /// and behind what [`Self::on_session_closed`] was told of them.
    ///
    /// A drain waits for its future, and for those that it spawns by [`Context::spawn_owed`], as
    /// long as it has time; [`Drain::now`](crate::Drain::now) has none, and runs a hook to its
    /// first wait.
    ///
    /// Sessions are gone by then: what is pushed reaches nobody.
    ///
    /// ```
    /// # async fn save_world() {}
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// handlers.on_shutdown(async |_context| save_world().await);
    /// # }
    /// ```
    pub fn on_shutdown<F, R>(&mut self, hook: F) -> &mut Self
    where
        F: FnOnce(Context) -> R + 'static,
        R: Future<Output = ()> + 'static,
    {
        let hook: OnShutdown = Box::new(move |context| Box::pin(hook(context)));
        self.registry.on_shutdown.get_mut().push(hook);
        self
    }
}

impl Registry {
    /// Finds what has no effect on a worker.
    pub(crate) fn check_of_worker(&self, server_type: &Arc<str>, mistakes: &Mistakes) {
        let add = |route: &str, mistake| {
            let (server_type, route) = (Arc::clone(server_type), route.to_owned());
            mistakes.add(Misregistration { server_type, route, mistake });
        };
        if !self.global_filters.is_empty() {
            add("global_filter", Mistake::GlobalFilter);
        }
        if !self.on_opened.is_empty() {
            add("on_session_opened", Mistake::OpenedOnWorker);
        }
    }

    /// Finds what has no effect on a shard.
    pub(crate) fn check_of_shard(&self, server_type: &Arc<str>, mistakes: &Mistakes) {
        for Receiver { type_name, .. } in self.mail.values() {
            let (server_type, route) = (Arc::clone(server_type), (*type_name).to_owned());
            mistakes.add(Misregistration { server_type, route, mistake: Mistake::MailOnShard });
        }
    }

    /// Tells of a session that has closed. Futures that are spawned for it are owed.
    pub(crate) fn tell_closed(&self, thread: &Rc<ThreadState>, view: &SessionView<'_>) {
        let context = Context { thread: Rc::clone(thread) };
        for told in &self.on_closed {
            let counters = &thread.counters;
            thread.last_call.note_callback("on_session_closed");
            thread.owing(|| guarded("on_session_closed", counters, || told(view, &context)));
            thread.last_call.end();
        }
    }

    /// The route of a handler, by its place.
    #[cold]
    pub(super) fn route_of(&self, handler: usize) -> &str {
        let found = self.by_route.iter().find(|(_, place)| **place == handler);
        found.map_or("", |(route, _)| route)
    }

    pub(crate) fn find(&self, route: &str) -> Option<usize> {
        self.by_route.get(route).map_or(self.fallback, |index| Some(*index))
    }
}
