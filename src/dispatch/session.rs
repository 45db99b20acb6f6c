//! A session, as the code that handles one of its messages sees it.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll};

use serde_json::{Map, Value};

use super::BindError;
use super::at_end::AtEnd;
use super::context::{Context, HeldRequest, Marks, SessionOp, ThreadState};
use super::pending::{Pending, Responder};
use super::reply::Reply;
use super::request::OwnedRequest;
use crate::metrics::Counters;
use crate::route::PushError;
use crate::session::{SessionData, SessionId, SessionSnapshot, SessionView, Uid};

/// A snapshot of a session, made for one message: Pomelo's `FrontendSession` on the connector and
/// `BackendSession` on a worker, which behave alike (docs/protocol/sessions.md,
/// "Local handling").
///
/// [`set`](Self::set) changes only the snapshot; [`store_setting`](Self::store_setting) and
/// [`store_settings`](Self::store_settings) write to the real session, the last writer wins. Pomelo
/// calls these `push` and `pushAll`; to push a message to the client is [`send`](Self::send).
/// [`bind`](Self::bind) and [`unbind`](Self::unbind) act on the real session and, if they succeed,
/// on the snapshot.
///
/// ```
/// use serde_json::json;
/// use shaddock::{Engine, Fault, Session, testing};
///
/// fn me((): (), session: &mut Session) -> Result<String, Fault> {
///     let uid = session.uid().ok_or(Fault::new(401, "log in first"))?;
///     let room = session.get("room").and_then(|room| room.as_str()).unwrap_or("nowhere");
///     Ok(format!("{uid} from {} is in {room}", session.peer().ip()))
/// }
///
/// let t = testing::Engine::new(Engine::builder().call("connector.a.me", me));
/// let amy = t.client().uid("amy").setting("room", "lobby").connect();
/// assert_eq!(amy.request("connector.a.me", json!({})), "amy from 127.0.0.1 is in lobby");
/// ```
#[derive(Clone)]
pub struct Session {
    id: SessionId,
    data: SessionSnapshot,
    thread: Rc<ThreadState>,
    /// Notes of filters about this one message.
    marks: Marks,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(id: SessionId, data: SessionSnapshot, thread: Rc<ThreadState>) -> Self {
        Self { id, data, thread, marks: Marks::new() }
    }

    /// Makes it what [`Self::new`] would make for the next message, if nothing but marks has to go
    /// for that; whether it is now.
    #[inline]
    pub(crate) fn renew(&mut self, id: SessionId, data: &SessionSnapshot) -> bool {
        let is_unchanged = self.id == id && self.data.is_same(data);
        if is_unchanged && !self.marks.is_empty() {
            self.marks.clear();
        }
        is_unchanged
    }

    /// Keeps it with its request, for filters that see both later.
    pub(crate) fn hold(self, request: OwnedRequest) -> Box<HeldRequest> {
        let Self { id: session, data, marks, .. } = self;
        Box::new(HeldRequest { request, session, data, marks })
    }

    /// Takes up again what was kept by [`Self::hold`].
    pub(crate) fn resume(held: HeldRequest, thread: &Rc<ThreadState>) -> (OwnedRequest, Self) {
        let HeldRequest { request, session: id, data, marks } = held;
        (request, Self { id, data, thread: Rc::clone(thread), marks })
    }

    pub(crate) fn counters(&self) -> &Counters {
        &self.thread.counters
    }

    pub(super) fn thread(&self) -> &Rc<ThreadState> {
        &self.thread
    }

    pub(crate) fn data(&self) -> &SessionSnapshot {
        &self.data
    }

    /// The data as a worker has got it.
    pub(crate) fn into_shared(self) -> Option<Arc<SessionData>> {
        self.data.into_shared()
    }

    /// The snapshot as routers and filters of sessions see it.
    ///
    /// ```
    /// use shaddock::{Audience, Fault, Session, SessionView};
    ///
    /// fn is_strong(session: &SessionView<'_>) -> bool {
    ///     session.setting("level").is_some_and(|level| level.as_u64() > Some(9))
    /// }
    ///
    /// fn challenge((): (), session: &mut Session) -> Result<(), Fault> {
    ///     if !is_strong(&session.view()) {
    ///         return Err(Fault::new(403, "come back stronger"));
    ///     }
    ///     let strong = Audience::all().filter(is_strong);
    ///     Ok(session.context().broadcast("onChallenge", "{}", strong)?)
    /// }
    /// # let _ = shaddock::Engine::builder().call("connector.a.challenge", challenge);
    /// ```
    #[must_use]
    pub fn view(&self) -> SessionView<'_> {
        SessionView { id: self.id, data: &self.data }
    }

    /// The session's id in this process.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.id
    }

    /// The id that clients and backends see. It grows in the order of accepting, with gaps where
    /// there are several shards (docs/protocol/wire.md, "Port switcher").
    #[must_use]
    pub fn number(&self) -> u64 {
        self.data.number
    }

    /// The address that the client connects from.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.data.peer
    }

    /// The connector's server id.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder()
    ///     .server_id("connector-7")
    ///     .handler("connector.a.where", |_, session| Reply::json(session.frontend_id()));
    /// let t = testing::Engine::new(builder);
    /// assert_eq!(t.connect().request("connector.a.where", json!({})), "connector-7");
    /// ```
    #[must_use]
    pub fn frontend_id(&self) -> &str {
        &self.thread.frontend_id
    }

    /// The shard or worker that this code runs on.
    #[must_use]
    pub fn context(&self) -> Context {
        Context { thread: Rc::clone(&self.thread) }
    }

    /// The uid that is logged in, if any.
    #[must_use]
    pub fn uid(&self) -> Option<&Uid> {
        self.data.uid.as_ref()
    }

    /// A setting of the snapshot.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.data.settings.get(key)
    }

    /// Changes a setting of the snapshot only.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder().handler("connector.a.set", |_, session| {
    ///     session.set("level", 7);
    ///     assert_eq!(session.get("level").unwrap(), 7);
    ///     Reply::empty()
    /// });
    /// let t = testing::Engine::new(builder);
    /// let amy = t.connect();
    /// amy.request("connector.a.set", json!({}));
    /// assert!(amy.session().get("level").is_none(), "nothing was stored");
    /// ```
    pub fn set(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.data_mut().settings.insert(key.into(), value.into());
    }

    /// Pushes a message to the client of this session, whether it is bound to a uid or not.
    ///
    /// It is sent once the handler has returned or waits for something, behind what the session has
    /// been asked for before. A session that has ended gets nothing.
    ///
    /// # Errors
    /// A message that can't be pushed.
    ///
    /// # Examples
    /// ```
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().handler("connector.queue.join", |_, session| {
    ///     match session.send("onQueue", r#"{"place":3}"#) {
    ///         Ok(()) => Reply::bytes(r#"{"code":200}"#),
    ///         Err(_) => Reply::error(),
    ///     }
    /// });
    /// ```
    pub fn send(&self, route: &str, body: impl AsRef<[u8]>) -> Result<(), PushError> {
        self.context().send(self.id, route, body)
    }

    /// Writes one setting of the snapshot to the real session; one that is not set, as `null`.
    ///
    /// Settings have no bound in [`Limits`](crate::Limits): check the length of what a client has
    /// sent before it becomes one.
    ///
    /// Yields whether the session was still there.
    ///
    /// # Examples
    /// ```
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().async_handler(
    ///     "connector.room.enter",
    ///     async |request: shaddock::OwnedRequest, mut session: shaddock::Session| {
    ///         session.set("room", request.value()["room"].clone());
    ///         match session.store_setting("room").await {
    ///             true => Reply::bytes(r#"{"code":200}"#),
    ///             false => Reply::error(),
    ///         }
    ///     },
    /// );
    /// ```
    pub fn store_setting(&self, key: &str) -> Pending<bool> {
        let value = self.get(key).cloned().unwrap_or(Value::Null);
        self.write(Map::from_iter([(key.to_owned(), value)]))
    }

    /// Writes all settings of the snapshot to the real session.
    ///
    /// Yields whether the session was still there.
    ///
    /// ```
    /// # use shaddock::{Fault, Session};
    /// async fn choose((level, team): (u32, String), mut session: Session) -> Result<bool, Fault> {
    ///     session.set("level", level);
    ///     session.set("team", team);
    ///     Ok(session.store_settings().await)
    /// }
    /// # let _ = shaddock::Engine::builder().call_async("connector.a.choose", choose);
    /// ```
    pub fn store_settings(&self) -> Pending<bool> {
        self.write(self.data.settings.clone())
    }

    /// Pomelo's name for [`Self::store_setting`]: it writes a setting, and sends the client
    /// nothing. For a message to the client there is [`Self::send`].
    ///
    /// ```
    /// # use shaddock::{Fault, Session};
    /// async fn choose(team: String, mut session: Session) -> Result<bool, Fault> {
    ///     session.set("team", team);
    ///     Ok(session.push("team").await)
    /// }
    /// # let _ = shaddock::Engine::builder().call_async("connector.a.choose", choose);
    /// ```
    pub fn push(&self, key: &str) -> Pending<bool> {
        self.store_setting(key)
    }

    /// Pomelo's name for [`Self::store_settings`]: it writes settings, and sends the client
    /// nothing. For a message to the client there is [`Self::send`].
    ///
    /// ```
    /// # use shaddock::{Fault, Session};
    /// async fn choose((level, team): (u32, String), mut session: Session) -> Result<bool, Fault> {
    ///     session.set("level", level);
    ///     session.set("team", team);
    ///     Ok(session.push_all().await)
    /// }
    /// # let _ = shaddock::Engine::builder().call_async("connector.a.choose", choose);
    /// ```
    pub fn push_all(&self) -> Pending<bool> {
        self.store_settings()
    }

    fn write(&self, settings: Map<String, Value>) -> Pending<bool> {
        let (done, pending) = Pending::new();
        self.thread.ask_session(SessionOp::Set { session: self.id, settings, done });
        pending
    }

    /// Binds the session to a uid: logs the player in.
    ///
    /// Yields the error that Pomelo's `session.bind` would. A session may be bound to the same
    /// uid again, never to another; several sessions may share a uid unless
    /// [`Builder::single_session`](crate::Builder::single_session) is set.
    ///
    /// ```
    /// # use shaddock::{Handlers, Reply};
    /// # fn register(handlers: &mut Handlers) {
    /// handlers.async_handler("connector.entryHandler.enter", |request, mut session| async move {
    ///     let Ok(uid) = request.json::<String>() else { return Reply::error() };
    ///     match session.bind(uid).await {
    ///         Ok(()) => Reply::json(&session.uid()),
    ///         Err(_) => Reply::error(),
    ///     }
    /// });
    /// # }
    /// ```
    #[must_use = "without `.await` a bind that fails goes unnoticed, and `uid` stays as it was"]
    pub fn bind(&mut self, uid: impl Into<Uid>) -> Bind<'_> {
        let uid = uid.into();
        let (done, pending) = Pending::new();
        self.thread.ask_session(SessionOp::Bind { session: self.id, uid: uid.clone(), done });
        Bind { uid: Some(uid), pending, session: self }
    }

    /// Takes the session off its uid again.
    ///
    /// ```
    /// # use shaddock::{Fault, Session};
    /// async fn logout((): (), mut session: Session) -> Result<(), Fault> {
    ///     let uid = session.uid().cloned().ok_or(Fault::new(401, "log in first"))?;
    ///     Ok(session.unbind(uid).await?)
    /// }
    /// # let _ = shaddock::Engine::builder().call_async("connector.a.logout", logout);
    /// ```
    #[must_use = "without `.await` an unbind that fails goes unnoticed, and `uid` stays as it was"]
    pub fn unbind(&mut self, uid: impl Into<Uid>) -> Bind<'_> {
        let (done, pending) = Pending::new();
        self.thread.ask_session(SessionOp::Unbind { session: self.id, uid: uid.into(), done });
        Bind { uid: None, pending, session: self }
    }

    /// Closes the session; with a KICK package if there is a reason. It overtakes the answer to
    /// the request being handled.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder().handler("connector.a.cheat", |_, session| {
    ///     session.kick(Some("no cheating"));
    ///     Reply::empty()
    /// }));
    /// let amy = t.connect();
    /// amy.notify("connector.a.cheat", json!({}));
    /// assert_eq!(amy.kicked().as_deref(), Some("no cheating"));
    /// ```
    pub fn kick(&self, reason: Option<&str>) {
        self.context().kick(self.id, reason);
    }

    /// Answers later, from any thread: `start` gets the responder and passes it on.
    ///
    /// Where the engine stops meanwhile its drain waits for the answer for as long as the session
    /// is there. What others are owed besides, such as a save, is spawned by
    /// [`Context::spawn_owed`].
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Responder, Routes, Reply, Workers, testing};
    ///
    /// // Everybody waits until there are two.
    /// let workers = Workers::stateful(1, |_| None, |routes: &mut Routes<Option<Responder>>| {
    ///     routes.handler("a.meet", |waiting, _, session| {
    ///         session.defer(|newcomer| match waiting.take() {
    ///             None => *waiting = Some(newcomer),
    ///             Some(first) => {
    ///                 first.answer(Reply::json("met"));
    ///                 newcomer.answer(Reply::json("met"));
    ///             }
    ///         })
    ///     });
    /// });
    /// let t = testing::Engine::workers("room", workers);
    /// let first = t.client().uid("amy").connect().send_request("room.a.meet", json!({}));
    /// assert!(!first.is_there());
    /// assert_eq!(t.client().uid("bob").connect().request("room.a.meet", json!({})), "met");
    /// assert_eq!(first.value(), "met");
    /// ```
    pub fn defer(&self, start: impl FnOnce(Responder)) -> Reply<'static> {
        let (responder, reply) = Responder::new();
        start(responder);
        // The client is owed the answer, for as long as it is there; then nobody is.
        Reply::later_at_end(reply, AtEnd::Drop)
    }

    /// Notes something about this message, under a key of the filter's own.
    pub(crate) fn mark(&mut self, key: usize, value: u64) {
        self.marks.retain(|(other, _)| *other != key);
        self.marks.push((key, value));
    }

    pub(crate) fn marked(&self, key: usize) -> Option<u64> {
        self.marks.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    fn data_mut(&mut self) -> &mut SessionData {
        self.data.make_mut()
    }
}

/// A bind or unbind under way; see [`Session::bind`]. It happens whether or not it is awaited.
#[derive(Debug)]
pub struct Bind<'a> {
    /// The snapshot's uid once it is done.
    uid: Option<Uid>,
    pending: Pending<Result<(), BindError>>,
    session: &'a mut Session,
}

impl Future for Bind<'_> {
    type Output = Result<(), BindError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::task::ready!(Pin::new(&mut this.pending).poll(context)) {
            Ok(()) => {
                this.session.data_mut().uid = this.uid.take();
                Poll::Ready(Ok(()))
            }
            // The shard has forgotten whose slot it was.
            Err(BindError::Gone { .. }) => {
                Poll::Ready(Err(BindError::Gone { number: this.session.number() }))
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}
