//! Filters and handler in Pomelo's order.
//!
//! ```text
//! before 1 -> before 2 -> handler -> after 2 -> after 1 -> answer
//!      \___________\____________________^
//!         refused: the handler is left out, the after filters are not
//! ```

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::context::ThreadState;
use super::failure::Failure;
use super::filter::{Filter, Verdict};
use super::handlers::Registry;
use super::panics::{Panic, caught};
pub(crate) use super::panics::{guarded, guarded_uncounted};
use super::reply::{LocalFuture, Reply, ReplyBody};
use super::request::{OwnedRequest, Request};
use super::session::Session;
use crate::log::Excerpt;
use crate::metrics::Counters;
use crate::session::SessionId;

/// The reason why a message is not handled, or not yet.
pub(crate) enum Stop {
    Refused(Reply<'static>),
    /// The filter at `index` waits.
    Waiting {
        index: usize,
        verdict: LocalFuture<Verdict>,
    },
}

/// Runs the before filters from `first` on.
#[inline]
pub(crate) fn before(
    filters: &[Rc<dyn Filter>],
    first: usize,
    request: &Request<'_>,
    session: &mut Session,
) -> Result<(), Stop> {
    for (index, filter) in filters.iter().enumerate().skip(first) {
        match caught(|| filter.before(request, session)) {
            Ok(Verdict::Continue) => {}
            Ok(Verdict::Refuse(reply)) => return Err(Stop::Refused(reply)),
            Ok(Verdict::Wait(verdict)) => return Err(Stop::Waiting { index, verdict }),
            Err(panic) => return Err(Stop::Refused(filter_panicked(request, session, &panic))),
        }
    }
    Ok(())
}

/// Waits for the filter at `index`, and for those behind it.
pub(crate) async fn wait(
    filters: &[Rc<dyn Filter>],
    mut index: usize,
    mut verdict: LocalFuture<Verdict>,
    request: &OwnedRequest,
    session: &mut Session,
) -> Result<(), Reply<'static>> {
    loop {
        match Guarded(verdict).await {
            Ok(Verdict::Continue) => {}
            Ok(Verdict::Refuse(reply)) => return Err(reply),
            Ok(Verdict::Wait(again)) => {
                verdict = again;
                continue;
            }
            Err(panic) => return Err(filter_panicked(&request.get(), session, &panic)),
        }
        match before(filters, index + 1, &request.get(), session) {
            Ok(()) => return Ok(()),
            Err(Stop::Refused(reply)) => return Err(reply),
            Err(Stop::Waiting { index: next, verdict: again }) => (index, verdict) = (next, again),
        }
    }
}

/// Runs the after filters, the last one first. One that panics makes the reply an error.
pub(crate) fn after(
    filters: &[Rc<dyn Filter>],
    request: &Request<'_>,
    session: &mut Session,
    reply: &mut Reply<'_>,
) {
    for filter in filters.iter().rev() {
        if let Err(panic) = caught(|| filter.after(request, session, reply)) {
            *reply = filter_panicked(request, session, &panic);
        }
    }
}

/// Lets the global after filters see what was answered. What they change of it concerns nobody any
/// more.
pub(crate) fn after_answer(
    filters: &[Rc<dyn Filter>],
    request: &Request<'_>,
    session: &mut Session,
    reply: &Reply<'_>,
) {
    let body = reply.body().map_or(ReplyBody::None, ReplyBody::Borrowed);
    after(filters, request, session, &mut Reply { body, failed: reply.failed });
}

/// Handles a message on this thread. `handler` is `None` for a route that nobody handles.
///
/// The reply is written where its reader has it. Handed back by value it is copied right after its
/// fields were stored one by one, and a load of two of them at once has to wait for both stores.
#[inline(always)] // Every message comes by here.
pub(crate) fn handle<'a>(
    registry: &Rc<Registry>,
    handler: Option<usize>,
    request: &Request<'a>,
    session: &mut Session,
    reply: &mut Reply<'a>,
) {
    if registry.filters.is_empty() {
        call(registry, handler, request, session, reply);
    } else {
        *reply = handle_filtered(registry, handler, request, session);
    }
}

#[inline(never)] // Without filters nobody has to save what it needs.
fn handle_filtered<'a>(
    registry: &Rc<Registry>,
    handler: Option<usize>,
    request: &Request<'a>,
    session: &mut Session,
) -> Reply<'a> {
    let mut reply = Reply::error();
    match before(&registry.filters, 0, request, session) {
        Ok(()) => call(registry, handler, request, session, &mut reply),
        Err(Stop::Refused(refusal)) => reply = refusal,
        Err(Stop::Waiting { index, verdict }) => {
            let mut unfinished = Unfinished::new(registry, request, session);
            return Reply::later(async move {
                let Unfinished { registry, request, session, .. } = &mut unfinished;
                let admitted = wait(&registry.filters, index, verdict, request, session).await;
                let reply = match admitted {
                    Ok(()) => {
                        let mut reply = Reply::error();
                        call(registry, handler, &request.get(), session, &mut reply);
                        reply.into_owned()
                    }
                    Err(reply) => reply,
                };
                let (id, thread) = (session.id(), session.thread());
                let reply = settle(reply, registry, handler, id, thread).await;
                unfinished.finish(reply)
            });
        }
    }
    if let ReplyBody::Later(_) = reply.body {
        let unfinished = Unfinished::new(registry, request, session);
        let (at_end, reply) = (reply.at_end(), reply.into_owned());
        let future = async move {
            let Unfinished { registry, session, .. } = &unfinished;
            let (id, thread) = (session.id(), session.thread());
            let reply = settle(reply, registry, handler, id, thread).await;
            unfinished.finish(reply)
        };
        return Reply::later_at_end(future, at_end);
    }
    after(&registry.filters, request, session, &mut reply);
    reply
}

/// A message whose after filters have yet to run. They run even if it is dropped, because there
/// was no room for its future: a filter that let it in must hear of its end.
struct Unfinished {
    registry: Rc<Registry>,
    request: OwnedRequest,
    session: Session,
    is_finished: bool,
}

impl Unfinished {
    fn new(registry: &Rc<Registry>, request: &Request<'_>, session: &Session) -> Self {
        let (registry, request) = (Rc::clone(registry), request.to_owned());
        Self { registry, request, session: session.clone(), is_finished: false }
    }

    fn finish(mut self, mut reply: Reply<'static>) -> Reply<'static> {
        self.run_after(&mut reply);
        reply
    }

    fn run_after(&mut self, reply: &mut Reply<'static>) {
        self.is_finished = true;
        after(&self.registry.filters, &self.request.get(), &mut self.session, reply);
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            self.run_after(&mut Reply::error());
        }
    }
}

/// The reply itself, once it is there. A future that panics makes it an error.
pub(crate) async fn settle(
    mut reply: Reply<'static>,
    registry: &Registry,
    handler: Option<usize>,
    session: SessionId,
    thread: &ThreadState,
) -> Reply<'static> {
    while let ReplyBody::Later(later) = reply.body {
        let mut future = Guarded(later.future);
        let polled = poll_fn(|context| {
            if let Some(handler) = handler {
                thread.last_call.note_answer(handler);
            }
            Pin::new(&mut future).poll(context)
        });
        reply = match polled.await {
            Ok(reply) => reply,
            Err(panic) => {
                let route = handler.map_or("", |handler| registry.route_of(handler));
                handler_panicked(route, session, &thread.counters, &panic)
            }
        };
    }
    reply
}

/// Calls a handler, without any filter.
#[inline(always)] // Every message comes by here.
pub(crate) fn call<'a>(
    registry: &Registry,
    handler: Option<usize>,
    request: &Request<'a>,
    session: &mut Session,
    reply: &mut Reply<'a>,
) {
    let Some(handler) = handler.map(|index| &registry.handlers[index]) else {
        *reply = no_handler(request, session);
        return;
    };
    if let Err(panic) = caught(|| handler(request, session, reply)) {
        *reply = handler_panicked(request.route(), session.id(), session.counters(), &panic);
    }
}

/// Answers a message whose route leads here, where nobody handles it.
#[cold]
fn no_handler(request: &Request<'_>, session: &Session) -> Reply<'static> {
    tell_unknown_route(request.route(), session.id(), session.counters());
    Reply::failure(Failure::NoHandler)
}

/// Counts a message whose route nobody handles, and logs it.
#[cold]
pub(crate) fn tell_unknown_route(route: &str, session: SessionId, counters: &Counters) {
    counters.unknown_route.one();
    let route = Excerpt(route);
    crate::log::seldom!(warn, %route, ?session, "nobody handles a route");
}

#[cold]
fn handler_panicked(
    route: &str,
    session: SessionId,
    counters: &Counters,
    panic: &Panic,
) -> Reply<'static> {
    counters.handler_panics.one();
    let excerpt = Excerpt(route);
    crate::log::seldom!(
        of route,
        error,
        route = %excerpt,
        ?session,
        %panic,
        "a handler has panicked"
    );
    Reply::failure(Failure::Panicked)
}

#[cold]
fn filter_panicked(request: &Request<'_>, session: &Session, panic: &Panic) -> Reply<'static> {
    session.counters().filter_panics.one();
    let (route, session) = (request.route(), session.id());
    let excerpt = Excerpt(route);
    crate::log::seldom!(
        of route,
        error,
        route = %excerpt,
        ?session,
        %panic,
        "a filter has panicked"
    );
    Reply::failure(Failure::Panicked)
}

/// A future of the embedder's, whose panic is its outcome.
struct Guarded<T>(LocalFuture<T>);

impl<T> Future for Guarded<T> {
    type Output = Result<T, Panic>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match caught(|| self.0.as_mut().poll(context)) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    }
}
