//! The handlers and filters of one shard or worker.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::context::{Context, ThreadState};
use super::filter::Filter;
use super::reply::{Reply, ReplyBody};
use super::request::{OwnedRequest, Request};
use super::session::Session;
use crate::session::SessionView;

/// A handler of one route; it writes its reply where the caller has it.
pub(crate) type Handler = Box<dyn for<'a> Fn(&Request<'a>, &mut Session, &mut Reply<'a>)>;

/// Is told of each session that closes.
pub(crate) type OnClosed = Box<dyn Fn(&SessionView<'_>, &Context)>;

/// Fills in the handlers of a thread; runs there, once.
pub(crate) type Register = Arc<dyn Fn(&mut Handlers) + Send + Sync>;

/// Handlers and filters on their way into a shard or worker.
///
/// The function that gets it runs on the shard's or worker's own thread, so that handlers may
/// share state of that thread by `Rc` and `RefCell`.
pub struct Handlers {
    context: Context,
    registry: Registry,
}

/// The handlers and filters of a thread, ready to be called.
#[derive(Default)]
pub(crate) struct Registry {
    pub(crate) handlers: Vec<Handler>,
    by_route: FxHashMap<Box<str>, usize>,
    pub(crate) filters: Vec<Rc<dyn Filter>>,
    pub(crate) global_filters: Vec<Rc<dyn Filter>>,
    pub(crate) on_closed: Vec<OnClosed>,
}

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handlers")
            .field("routes", &self.registry.by_route.keys())
            .finish_non_exhaustive()
    }
}

impl Handlers {
    pub(crate) fn collect<'a>(
        thread: &Rc<ThreadState>,
        registers: impl IntoIterator<Item = &'a Register>,
    ) -> Rc<Registry> {
        let context = Context { thread: Rc::clone(thread) };
        let mut handlers = Self { context, registry: Registry::default() };
        registers.into_iter().for_each(|register| register(&mut handlers));
        Rc::new(handlers.registry)
    }

    /// The shard or worker that these are for.
    #[must_use]
    pub fn context(&self) -> &Context {
        &self.context
    }

    /// Handles a route, given in full (`type.handler.method`). The last handler of a route counts.
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
        self.registry.by_route.insert(route.into(), index);
        self
    }

    /// Handles a route by a future, which runs on the same thread.
    pub fn async_handler<F, R>(&mut self, route: &str, handler: F) -> &mut Self
    where
        F: Fn(OwnedRequest, Session) -> R + 'static,
        R: Future<Output = Reply<'static>> + 'static,
    {
        self.handler(route, move |request, session| {
            Reply::later(handler(request.to_owned(), session.clone()))
        })
    }

    /// Runs a filter round the handlers of this thread.
    pub fn filter(&mut self, filter: impl Filter) -> &mut Self {
        self.registry.filters.push(Rc::new(filter));
        self
    }

    /// Runs a filter round everything that comes from clients. Without effect on a worker.
    pub fn global_filter(&mut self, filter: impl Filter) -> &mut Self {
        self.registry.global_filters.push(Rc::new(filter));
        self
    }

    /// Is told of each session that closes: on a shard of its own sessions, on a worker of those
    /// that it has seen a message of.
    pub fn on_session_closed(
        &mut self,
        told: impl Fn(&SessionView<'_>, &Context) + 'static,
    ) -> &mut Self {
        self.registry.on_closed.push(Box::new(told));
        self
    }
}

impl Registry {
    pub(crate) fn find(&self, route: &str) -> Option<usize> {
        self.by_route.get(route).copied()
    }
}
