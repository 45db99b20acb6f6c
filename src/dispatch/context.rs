//! The context of code on a shard or worker: pushes, kicks, sleeps, futures and channels.

use std::any::{Any, type_name};
use std::borrow::Cow;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use smallvec::SmallVec;

use super::BindError;
use super::at_end::AtEnd;
use super::last_call::LastCall;
use super::mail::{MailError, Post, WorkerPick};
use super::pending::{Completion, Pending};
use super::reply::{LocalFuture, Reply};
use super::request::OwnedRequest;
use super::task::{self, OfThread, Task};
use super::timers::Timers;
use super::verdict::Admitted;
use crate::metrics::Counters;
use crate::route::PushError;
use crate::route::edition::Edition;
use crate::route::push::Push;
use crate::route::table::RouteTable;
use crate::session::{SessionId, SessionSnapshot, SessionView, Uid};

/// Something that handlers, filters and tasks ask of their shard or worker. It is done, in order,
/// as soon as the code that asked has returned or waits.
pub(crate) enum Op {
    Session(SessionOp),
    Spawn {
        future: LocalFuture<()>,
        at_end: AtEnd,
    },
    /// An async handler has answered.
    Answer {
        call: Call,
        reply: Reply<'static>,
    },
    /// The global before filters, one of which waited, have come to a verdict.
    Admit {
        client: ClientCall,
        held: Box<HeldRequest>,
        admitted: Result<(), Reply<'static>>,
    },
    /// The embedder's future has come to a verdict on a client's handshake.
    Welcome {
        session: SessionId,
        admitted: Admitted,
    },
}

/// Something that is asked of sessions, whichever shards they live on.
pub(crate) enum SessionOp {
    Bind { session: SessionId, uid: Uid, done: Completion<Result<(), BindError>> },
    Unbind { session: SessionId, uid: Uid, done: Completion<Result<(), BindError>> },
    Set { session: SessionId, settings: Map<String, Value>, done: Completion<bool> },
    Kick { session: SessionId, reason: Option<Arc<str>> },
    KickUid { uid: Uid, reason: Option<Arc<str>>, done: Completion<usize> },
    Push { uids: Vec<Uid>, push: Arc<Push>, done: Completion<Vec<Uid>> },
    Send { session: SessionId, push: Arc<Push> },
    Broadcast { push: Arc<Push>, audience: Audience },
}

impl SessionOp {
    /// The push of those that push.
    pub(crate) fn push(&self) -> Option<&Arc<Push>> {
        match self {
            Self::Push { push, .. } | Self::Send { push, .. } | Self::Broadcast { push, .. } => {
                Some(push)
            }
            _ => None,
        }
    }
}

/// A request that is not answered in place.
pub(crate) struct Call {
    pub(crate) origin: Origin,
    /// For the global after filters, where there are any.
    pub(crate) held: Option<Box<HeldRequest>>,
}

/// A request and its snapshot, kept for the filters that see it once it is answered; made by
/// [`Session::hold`](super::Session). Its thread is not part of it, as the thread may keep it.
pub(crate) struct HeldRequest {
    pub(super) request: OwnedRequest,
    pub(super) session: SessionId,
    pub(super) data: SessionSnapshot,
    pub(super) marks: Marks,
}

/// Notes of filters about one message, by keys of their own.
pub(super) type Marks = SmallVec<[(usize, u64); 1]>;

/// The origin of a message that a handler is called for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Origin {
    /// A client of this shard.
    Client(ClientCall),
    /// A shard that forwarded, by the token that its answer carries. The bytes of the message count
    /// for the lane until it is answered.
    Shard { session: SessionId, token: u64, bytes: u32 },
    /// A shard that forwarded it in a batch.
    Batch { session: SessionId, part: BatchPart },
}

/// A message of a batch whose answer comes later.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchPart {
    /// The batch's.
    pub(crate) token: u64,
    /// Its place in the batch.
    pub(crate) index: u8,
    /// The client's request id; 0 for a notify.
    pub(crate) id: u32,
    pub(crate) is_websocket: bool,
    /// Set where the shard is told of it, whatever it is.
    pub(crate) tells_all: bool,
    /// Bytes that it counts for its lane until it is answered.
    pub(crate) bytes: u32,
}

/// A client's request, as a shard keeps it until it is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClientCall {
    pub(crate) session: SessionId,
    pub(crate) id: u32,
    pub(crate) route: Option<crate::route::table::RouteId>,
    /// Bytes that it counts for while in flight, against `in_flight_bytes_per_session_max` and
    /// `shard_bytes_max`.
    pub(crate) bytes: u32,
    /// The time at which it came, in microseconds of the shard's clock.
    pub(crate) started_us: u64,
}

/// A choice of the sessions that get a broadcast.
pub(crate) type BroadcastFilter = Arc<dyn Fn(&SessionView<'_>) -> bool + Send + Sync>;

/// The sessions that get a broadcast.
///
/// ```
/// use shaddock::{Audience, Engine, testing};
///
/// let t = testing::Engine::new(Engine::builder());
/// let players = ["red", "blue"].map(|team| t.client().setting("team", team).connect());
/// let red = Audience::all().filter(|session| session.setting("team") == Some(&"red".into()));
/// t.handle().broadcast("onWon", r#"{"team":"red"}"#, red).unwrap();
/// t.handle().broadcast("onMail", "{}", Audience::bound()).unwrap(); // Nobody has logged in.
/// assert_eq!(players.map(|player| player.pushes().len()), [1, 0]);
/// ```
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Audience {
    pub(crate) bound_only: bool,
    pub(crate) filter: Option<BroadcastFilter>,
}

impl Audience {
    /// Every working session.
    #[must_use]
    pub fn all() -> Self {
        Self::default()
    }

    /// Every session that is bound to a uid; one with several gets one copy for each session.
    #[must_use]
    pub fn bound() -> Self {
        Self { bound_only: true, filter: None }
    }

    /// Of these, the ones that `keep` says yes to. It runs on each shard for each session.
    #[must_use]
    pub fn filter(self, keep: impl Fn(&SessionView<'_>) -> bool + Send + Sync + 'static) -> Self {
        Self { filter: Some(Arc::new(keep)), ..self }
    }
}

impl std::fmt::Debug for Audience {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Audience")
            .field("bound_only", &self.bound_only)
            .field("filter", &self.filter.is_some())
            .finish()
    }
}

/// The handle of the engine that a thread is of, as the part below the engine keeps it.
pub(crate) type Host = Arc<dyn Any + Send + Sync>;

/// The members of a channel, shared by all who hold it.
pub(crate) type Members = Rc<RefCell<Vec<Uid>>>;

/// The state that code on one thread shares with its shard or worker.
pub(crate) struct ThreadState {
    pub(crate) server_id: Arc<str>,
    pub(crate) frontend_id: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    /// The newest; what pushes are laid out for.
    pub(crate) edition: RefCell<Arc<Edition>>,
    ops: RefCell<Vec<Op>>,
    /// Empty: memory for the next ones.
    spare_ops: RefCell<Vec<Op>>,
    pub(crate) now_us: Cell<u64>,
    pub(crate) lag_us: Cell<u64>,
    timers: Timers,
    channels: RefCell<HashMap<Box<str>, Members>>,
    /// The fate of the futures that are spawned now, unless they say so themselves.
    at_end: Cell<AtEnd>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) last_call: Rc<LastCall>,
    /// The ways to workers, once the thread has been told.
    pub(crate) post: OnceCell<Arc<Post>>,
    /// There on the threads of an engine.
    pub(crate) host: OnceCell<Host>,
}

impl ThreadState {
    pub(crate) fn new(
        server_id: Arc<str>,
        frontend_id: Arc<str>,
        routes: Arc<RouteTable>,
        edition: Arc<Edition>,
        counters: Arc<Counters>,
    ) -> Rc<Self> {
        Rc::new(Self {
            server_id,
            frontend_id,
            routes,
            edition: RefCell::new(edition),
            ops: RefCell::default(),
            spare_ops: RefCell::default(),
            now_us: Cell::new(0),
            lag_us: Cell::new(0),
            timers: Timers::default(),
            channels: RefCell::default(),
            at_end: Cell::new(AtEnd::Drop),
            counters,
            last_call: Rc::default(),
            post: OnceCell::new(),
            host: OnceCell::new(),
        })
    }

    fn encode_push(&self, route: &str, body: &[u8]) -> Result<Arc<Push>, PushError> {
        Push::encode(&self.routes, &self.edition.borrow(), route, body)
    }

    /// True if anything has been asked for.
    #[inline]
    pub(crate) fn has_ops(&self) -> bool {
        !self.ops.borrow().is_empty()
    }

    /// All that has been asked for since the last time, if anything.
    #[inline]
    pub(crate) fn take_ops(&self) -> Option<Vec<Op>> {
        self.has_ops().then(|| self.ops.replace(self.spare_ops.take()))
    }

    /// Takes back the memory of what has been done.
    pub(crate) fn reuse(&self, ops: Vec<Op>) {
        debug_assert!(ops.is_empty());
        self.spare_ops.replace(ops);
    }

    pub(crate) fn ask(&self, op: Op) {
        self.ops.borrow_mut().push(op);
    }

    pub(super) fn ask_session(&self, op: SessionOp) {
        self.ask(Op::Session(op));
    }

    /// Runs code whose futures a drain waits for.
    pub(super) fn owing<T>(&self, code: impl FnOnce() -> T) -> T {
        let before = self.at_end.replace(AtEnd::Wait);
        let value = code();
        self.at_end.set(before);
        value
    }

    /// Ends the sleeps that are due, and tells when the next one is.
    pub(crate) fn handle_time(&self, now_us: u64) -> Option<u64> {
        self.now_us.set(now_us);
        self.timers.handle_time(now_us)
    }

    pub(crate) fn next_timer_us(&self) -> Option<u64> {
        self.timers.next_us()
    }

    #[cfg(feature = "internals")]
    pub(crate) fn timers_len(&self) -> usize {
        self.timers.len()
    }

    pub(crate) fn channel(&self, name: &str) -> Option<Members> {
        self.channels.borrow().get(name).map(Rc::clone)
    }

    pub(crate) fn channel_or_new(&self, name: &str) -> Members {
        Rc::clone(self.channels.borrow_mut().entry(name.into()).or_default())
    }

    pub(crate) fn destroy_channel(&self, name: &str) {
        self.channels.borrow_mut().remove(name);
    }
}

/// The shard or worker that code runs on, and through it the whole engine.
///
/// Cheap to clone, and bound to its thread.
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Context, Fault, Session, Uid, WorkerPick};
///
/// async fn after_the_match(context: Context, players: Vec<Uid>) -> Result<(), Fault> {
///     let _ = context.push(players.clone(), "onOver", b"{}")?.await;
///     context.sleep(Duration::from_secs(10)).await;
///     context.mail("match", WorkerPick::index(0), players)?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Context {
    pub(crate) thread: Rc<ThreadState>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("server_id", &self.thread.server_id).finish_non_exhaustive()
    }
}

impl Context {
    /// The id of the server that this is: the connector's, or the worker's own.
    #[must_use]
    pub fn server_id(&self) -> &str {
        &self.thread.server_id
    }

    /// The connector's server id.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Reply, Workers, testing};
    ///
    /// let t = testing::Engine::workers("room", Workers::new(1, |handlers| {
    ///     handlers.handler("room.a.where", |_, session| {
    ///         let context = session.context();
    ///         Reply::json(&(context.server_id(), context.frontend_id()))
    ///     });
    /// }));
    /// let names = t.connect().request("room.a.where", json!({}));
    /// assert_eq!(names, json!(["room-1", "connector-1"]));
    /// ```
    #[must_use]
    pub fn frontend_id(&self) -> &str {
        &self.thread.frontend_id
    }

    /// Pushes a message to all sessions of the given uids, on every shard. Encoded once.
    ///
    /// Yields the uids that have no session.
    ///
    /// ```
    /// # use shaddock::{Context, Uid};
    /// async fn invite(context: Context, friends: Vec<Uid>) -> usize {
    ///     let invited = friends.len();
    ///     match context.push(friends, "onInvite", br#"{"room":7}"#) {
    ///         Ok(pushed) => invited - pushed.await.len(),
    ///         Err(_) => 0,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// A message that can't be pushed; nobody has got anything then.
    pub fn push(
        &self,
        uids: impl IntoIterator<Item = Uid>,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<Pending<Vec<Uid>>, PushError> {
        let push = self.thread.encode_push(route, body.as_ref())?;
        let uids: Vec<Uid> = uids.into_iter().collect();
        if uids.is_empty() {
            return Ok(Pending::ready(uids));
        }
        let (done, pending) = Pending::new();
        self.thread.ask_session(SessionOp::Push { uids, push, done });
        Ok(pending)
    }

    /// Pushes a message to one session, on any shard, bound to a uid or not.
    ///
    /// A session that has ended, or whose handshake is not done, gets nothing.
    ///
    /// # Errors
    /// A message that can't be pushed.
    ///
    /// # Examples
    /// A question that is answered by a push, from a worker or a shard:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().handler("connector.match.join", |_, session| {
    ///     let (context, player) = (session.context(), session.id());
    ///     session.context().spawn(async move {
    ///         context.sleep(Duration::from_secs(1)).await;
    ///         context.send(player, "onMatch", r#"{"room":7}"#).ok();
    ///     });
    ///     Reply::bytes(r#"{"code":200}"#)
    /// });
    /// ```
    pub fn send(
        &self,
        session: SessionId,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<(), PushError> {
        let push = self.thread.encode_push(route, body.as_ref())?;
        self.thread.ask_session(SessionOp::Send { session, push });
        Ok(())
    }

    /// Pushes a message to all sessions of an audience, on every shard. Encoded once.
    ///
    /// ```
    /// # use shaddock::{Audience, Handlers};
    /// # use std::time::Duration;
    /// # fn register(handlers: &mut Handlers) {
    /// handlers.every(Duration::from_secs(60), shaddock::Missed::Skip, |context| {
    ///     let _ = context.broadcast("onNews", br#"{"text":"tea time"}"#, Audience::bound());
    /// });
    /// # }
    /// ```
    ///
    /// # Errors
    /// A message that can't be pushed.
    pub fn broadcast(
        &self,
        route: &str,
        body: impl AsRef<[u8]>,
        audience: Audience,
    ) -> Result<(), PushError> {
        let push = self.thread.encode_push(route, body.as_ref())?;
        self.thread.ask_session(SessionOp::Broadcast { push, audience });
        Ok(())
    }

    /// Closes all sessions of a uid, on every shard; with a KICK package if there is a reason.
    ///
    /// Yields how many there were. By then none of them is bound any more.
    ///
    /// ```
    /// # use shaddock::{Fault, Handlers, Session, Uid};
    /// async fn ban(uid: Uid, session: Session) -> Result<usize, Fault> {
    ///     Ok(session.context().kick_uid(uid, Some("banned")).await)
    /// }
    ///
    /// fn register(handlers: &mut Handlers) {
    ///     handlers.call_async("connector.gm.ban", ban);
    /// }
    /// ```
    pub fn kick_uid(&self, uid: Uid, reason: Option<&str>) -> Pending<usize> {
        let (done, pending) = Pending::new();
        let reason = reason.map(Arc::from);
        self.thread.ask_session(SessionOp::KickUid { uid, reason, done });
        pending
    }

    /// Closes a session, on any shard; with a KICK package if there is a reason.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::{Engine, testing};
    /// // A session that nobody has logged in on within 10 s is closed.
    /// let builder = Engine::builder().register(|handlers| {
    ///     handlers
    ///         .on_session_opened(|session, context| {
    ///             let (id, context) = (session.id, context.clone());
    ///             context.clone().spawn(async move {
    ///                 context.sleep(Duration::from_secs(10)).await;
    ///                 context.kick(id, Some("too slow"));
    ///             });
    ///         });
    /// });
    /// let t = testing::Engine::new(builder);
    /// let client = t.connect();
    /// t.advance(Duration::from_secs(10));
    /// assert_eq!(client.kicked().as_deref(), Some("too slow"));
    /// ```
    pub fn kick(&self, session: SessionId, reason: Option<&str>) {
        self.thread.ask_session(SessionOp::Kick { session, reason: reason.map(Arc::from) });
    }

    /// Sends a message of the game's own to one worker of a server type, from any shard or worker.
    /// It is received there by what [`Handlers::mail`](crate::Handlers::mail) or
    /// [`Routes::mail`](crate::Routes::mail) has for its type. Messages from one thread to one
    /// worker arrive in order.
    ///
    /// A message that nobody receives there is dropped, logged and counted
    /// (`worker_mail_unhandled`).
    ///
    /// ```
    /// use shaddock::{Fault, Handlers, Session, WorkerPick};
    ///
    /// /// To the worker that has the room.
    /// struct Open {
    ///     room: u32,
    ///     owner: u64,
    /// }
    ///
    /// fn open(room: u32, session: &mut Session) -> Result<(), Fault> {
    ///     let open = Open { room, owner: session.number() };
    ///     session.context().mail("room", WorkerPick::key(room), open)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// See [`MailError`]; the message is dropped then.
    pub fn mail<M: Any + Send>(
        &self,
        server_type: &str,
        to: WorkerPick,
        message: M,
    ) -> Result<(), MailError> {
        let post = self.thread.post.get().ok_or(MailError::NoWorkers)?;
        post.send(server_type, to, message)
    }

    /// Ends after a while, at the earliest turn after it. No timer of the runtime is involved. One
    /// that is dropped before, as when it is raced against something, takes no room until then.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use shaddock::{Handlers, Reply};
    /// # fn register(handlers: &mut Handlers) {
    /// handlers.async_handler("connector.entryHandler.later", |_, session| async move {
    ///     session.context().sleep(Duration::from_millis(50)).await;
    ///     Reply::empty()
    /// });
    /// # }
    /// ```
    #[must_use = "a sleep holds nobody up unless it is awaited: `.await` it in an async handler"]
    pub fn sleep(&self, duration: Duration) -> Pending<()> {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.thread.timers.sleep_until(self.now_us().saturating_add(us))
    }

    /// The time at which the turn began, in microseconds of the thread's clock.
    pub(crate) fn now_us(&self) -> u64 {
        self.thread.now_us.get()
    }

    /// The length of the thread's last turn: the time in which nobody else was served. The log
    /// tells of one above [`Limits::turn_warning`](crate::Limits::turn_warning).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn draw_the_map() {}
    /// # fn tick(context: &shaddock::Context) {
    /// if context.lag() < Duration::from_millis(20) {
    ///     draw_the_map(); // It can wait for a quiet moment.
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn lag(&self) -> Duration {
        Duration::from_micros(self.thread.lag_us.get())
    }

    /// Runs a future on this thread until it ends. The [`Task`] awaits or aborts it; dropped, it
    /// leaves the future running.
    ///
    /// A future that panics ends, and nothing else does: the panic is logged with the future's name
    /// and counted ([`task_panics`](crate::metrics::CounterSnapshot::task_panics)), and the thread
    /// goes on.
    ///
    /// When the engine stops it is dropped, unless it was spawned by a function given to
    /// [`Handlers::on_session_closed`](crate::Handlers::on_session_closed): then it is owed, as by
    /// [`Self::spawn_owed`].
    ///
    /// ```
    /// # use std::time::Duration;
    /// # fn regenerate() {}
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// let context = handlers.context().clone();
    /// handlers.context().spawn(async move {
    ///     loop {
    ///         context.sleep(Duration::from_secs(1)).await;
    ///         regenerate();
    ///     }
    /// });
    /// # }
    /// ```
    pub fn spawn<F: Future + 'static>(&self, future: F) -> Task<F::Output> {
        self.spawn_at_end(type_name::<F>().into(), self.thread.at_end.get(), future)
    }

    /// Runs a future that is owed: when the engine stops, the thread waits for it within the time
    /// of its [`Drain`](crate::Drain). It is what others are owed, such as a save, and has to end.
    ///
    /// One that has not ended by then is dropped and counted
    /// ([`futures_lost`](crate::metrics::CounterSnapshot::futures_lost)).
    ///
    /// ```
    /// # async fn save(_: u64) {}
    /// # fn register(handlers: &mut shaddock::Handlers) {
    /// handlers.handler("room.market.buy", |request, session| {
    ///     session.context().spawn_owed(save(session.number()));
    ///     shaddock::Reply::empty()
    /// });
    /// # }
    /// ```
    pub fn spawn_owed<F: Future + 'static>(&self, future: F) -> Task<F::Output> {
        self.spawn_at_end(type_name::<F>().into(), AtEnd::Wait, future)
    }

    /// Begins a future with a name, by which the log tells of it.
    ///
    /// ```
    /// # async fn save() {}
    /// # fn play(context: &shaddock::Context) {
    /// context.task("save").owed().spawn(save());
    /// # }
    /// ```
    pub fn task(&self, name: impl Into<Cow<'static, str>>) -> TaskBuilder {
        let at_end = self.thread.at_end.get();
        TaskBuilder { context: self.clone(), name: name.into(), at_end }
    }

    fn spawn_at_end<F: Future + 'static>(
        &self,
        name: Cow<'static, str>,
        at_end: AtEnd,
        future: F,
    ) -> Task<F::Output> {
        let ThreadState { counters, last_call, .. } = &*self.thread;
        let of_thread =
            OfThread { counters: Arc::clone(counters), last_call: Rc::clone(last_call) };
        let (future, task) = task::task(future, Rc::from(&*name), at_end, of_thread);
        self.thread.ask(Op::Spawn { future: Box::pin(future), at_end });
        task
    }
}

/// A future that is about to be spawned; made by [`Context::task`].
///
/// ```
/// # async fn save() {}
/// # async fn recompute_ranking() {}
/// # fn register(handlers: &mut shaddock::Handlers) {
/// handlers.on_session_opened(|_, context| {
///     context.task("save").owed().spawn(save());
/// });
/// handlers.on_session_closed(|_, context| {
///     context.task("ranking").not_owed().spawn(recompute_ranking());
/// });
/// # }
/// ```
#[derive(Debug, Clone)]
#[must_use = "nothing runs until `spawn`"]
pub struct TaskBuilder {
    context: Context,
    name: Cow<'static, str>,
    at_end: AtEnd,
}

impl TaskBuilder {
    /// Has a drain wait for it, as by [`Context::spawn_owed`].
    pub fn owed(self) -> Self {
        Self { at_end: AtEnd::Wait, ..self }
    }

    /// Has it dropped when the engine stops, even if it is spawned when a session has closed.
    pub fn not_owed(self) -> Self {
        Self { at_end: AtEnd::Drop, ..self }
    }

    /// Runs a future, as [`Context::spawn`] does.
    pub fn spawn<F: Future + 'static>(self, future: F) -> Task<F::Output> {
        self.context.spawn_at_end(self.name, self.at_end, future)
    }
}
