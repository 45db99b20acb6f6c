//! The handle by which any thread asks things of an engine.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::drain::Drain;
use super::threads::Threads;
use crate::dispatch::mail::Post;
use crate::dispatch::{Audience, MailError, WorkerPick};
use crate::error::HandleError;
use crate::forward::mail::Mail;
use crate::forward::scatter::by_home;
use crate::io::{Chosen, Driver};
use crate::route::push::Push;
use crate::session::{SessionId, ShardIndex, Uid};
use crate::shard::ShardConfig;

/// Asks things of an engine, from any thread. Cheap to clone; outlives the engine, and then says
/// [`HandleError::Stopped`].
///
/// ```no_run
/// use std::time::Duration;
/// use shaddock::Engine;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let engine = Engine::builder().listen("127.0.0.1:3010").start()?;
/// let handle = engine.handle();
/// println!("by {}", handle.driver());
/// std::thread::spawn(move || {
///     // Until the engine has stopped.
///     while handle.push("amy", "onTime", "{}").is_ok() {
///         std::thread::sleep(Duration::from_secs(1));
///     }
///     println!("{}", handle.failure().unwrap_or("it was shut down"));
/// });
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    pub(super) config: Arc<ShardConfig>,
    pub(super) threads: Arc<Threads>,
    driver: Chosen,
    is_stopped: Arc<AtomicBool>,
    post: Arc<Post>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("server_id", &self.config.server_id).finish_non_exhaustive()
    }
}

impl Handle {
    pub(super) fn new(config: Arc<ShardConfig>, threads: Arc<Threads>, driver: Chosen) -> Self {
        let post = threads.hub.post(&config.server_types);
        Self { config, threads, driver, is_stopped: Arc::default(), post }
    }

    /// Begins a drain: balancers are told from here on, and behind the delay sessions are closed
    /// and the engine's threads end. Whoever has the engine calls [`Engine::shutdown`] then, which
    /// waits for them ([`Self::is_closing`] tells the time). Of two drains whose delays are not
    /// over, the one that closes sooner holds.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Drain, Engine};
    ///
    /// let engine = Engine::builder().listen("127.0.0.1:0").start().unwrap();
    /// let handle = engine.handle();
    /// handle.drain(Drain::within(Duration::from_secs(5)).delay(Duration::from_secs(60)))?;
    /// assert!(handle.is_draining() && !handle.is_closing());
    /// assert!(handle.undrain() && !handle.is_draining());
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// [`HandleError::Stopped`] if it stops or has failed already.
    ///
    /// [`Engine::shutdown`]: crate::Engine::shutdown
    pub fn drain(&self, drain: Drain) -> Result<(), HandleError> {
        if self.is_stopped() {
            return Err(HandleError::Stopped);
        }
        self.tell_of_drain(drain);
        self.threads.drain(drain);
        Ok(())
    }

    /// Calls a drain off, and tells balancers so; also what [`Self::set_draining`] has told them.
    /// False if sessions are closed already, or [`Engine::shutdown`] was called: the engine ends
    /// then, and has to be started again.
    ///
    /// [`Engine::shutdown`]: crate::Engine::shutdown
    #[must_use = "it may be too late"]
    pub fn undrain(&self) -> bool {
        if self.is_stopped() || !self.threads.undrain() {
            return false;
        }
        self.config.figures.set_draining(false);
        self.config.figures.set_refuses_logins(false);
        true
    }

    /// True if a drain closes sessions, or has: it can't be called off any more.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.is_stopped() || self.threads.drain_plan(self.threads.now_us()).is_some()
    }

    pub(crate) fn tell_of_drain(&self, drain: Drain) {
        self.config.figures.set_draining(true);
        if drain.refuses_logins {
            self.config.figures.set_refuses_logins(true);
        }
    }

    /// Answers everything with [`HandleError::Stopped`] from here on.
    pub(crate) fn set_stopped(&self) {
        self.is_stopped.store(true, Ordering::Release);
    }

    /// The driver that was taken: [`Driver::Ring`] or [`Driver::Poll`].
    #[must_use]
    pub fn driver(&self) -> Driver {
        match self.driver {
            Chosen::Ring => Driver::Ring,
            Chosen::Poll => Driver::Poll,
        }
    }

    /// Pushes a message to all sessions of a uid.
    ///
    /// It is on its way when this returns; a uid without a session gets nothing.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.client().uid("amy").connect();
    /// t.handle().push("amy", "onMail", r#"{"from":"bob"}"#)?;
    /// assert_eq!(amy.pushes()[0].body["from"], "bob");
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]; nothing was sent then.
    pub fn push(
        &self,
        uid: impl Into<Uid>,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<(), HandleError> {
        self.push_many([uid.into()], route, body)
    }

    /// Pushes a message to all sessions of many uids. Encoded once.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let players = ["amy", "bob"].map(|name| t.client().uid(name).connect());
    /// t.handle().push_many(["amy".into(), "bob".into()], "onStart", "{}")?;
    /// assert!(players.iter().all(|player| player.pushes().len() == 1));
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]. If a shard is [`Busy`](HandleError::Busy), those whose homes come
    /// before it have got it.
    pub fn push_many(
        &self,
        uids: impl IntoIterator<Item = Uid>,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<(), HandleError> {
        let push = self.encode_push(route, body.as_ref())?;
        for (home, uids) in by_home(uids.into_iter().collect(), self.shards()) {
            self.tell(home, Mail::HomePush { uids, push: Arc::clone(&push), reply_to: None })?;
        }
        Ok(())
    }

    /// Pushes a message to one session, bound to a uid or not.
    ///
    /// It is on its way when this returns; a session that has ended, or whose handshake is not
    /// done, gets nothing.
    ///
    /// # Errors
    /// See [`HandleError`]; nothing was sent then.
    ///
    /// # Examples
    /// ```no_run
    /// use std::sync::mpsc;
    ///
    /// use shaddock::{Engine, Reply, SessionId};
    ///
    /// let (sender, players) = mpsc::channel::<SessionId>();
    /// let engine = Engine::builder()
    ///     .listen("127.0.0.1:3010")
    ///     .handler("connector.match.join", move |_, session| {
    ///         sender.send(session.id()).ok();
    ///         Reply::bytes(r#"{"code":200}"#)
    ///     })
    ///     .start()?;
    /// let handle = engine.handle();
    /// for player in players {
    ///     handle.send(player, "onMatch", r#"{"room":7}"#)?;
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn send(
        &self,
        session: SessionId,
        route: &str,
        body: impl AsRef<[u8]>,
    ) -> Result<(), HandleError> {
        let push = self.encode_push(route, body.as_ref())?;
        self.tell(session.shard(), Mail::Deliver { sessions: vec![session], push })
    }

    fn encode_push(&self, route: &str, body: &[u8]) -> Result<Arc<Push>, HandleError> {
        Ok(Push::encode(&self.config.routes, &self.config.edition(), route, body)?)
    }

    /// Pushes a message to all sessions of an audience. Encoded once.
    ///
    /// ```
    /// use shaddock::{Audience, Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let [guest, amy] = [t.connect(), t.client().uid("amy").connect()];
    /// t.handle().broadcast("onNews", r#"{"text":"hi"}"#, Audience::bound())?;
    /// assert_eq!((guest.pushes().len(), amy.pushes().len()), (0, 1));
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]. If a shard is [`Busy`](HandleError::Busy), those before it have got
    /// it.
    pub fn broadcast(
        &self,
        route: &str,
        body: impl AsRef<[u8]>,
        audience: Audience,
    ) -> Result<(), HandleError> {
        let push = self.encode_push(route, body.as_ref())?;
        for shard in (0..self.shards()).map(ShardIndex) {
            let (push, audience) = (Arc::clone(&push), audience.clone());
            self.tell(shard, Mail::Broadcast { push, audience })?;
        }
        Ok(())
    }

    /// Closes all sessions of a uid; with a KICK package if there is a reason.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.client().uid("amy").connect();
    /// t.handle().kick("amy", Some("banned"))?;
    /// assert_eq!(amy.kicked().as_deref(), Some("banned"));
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn kick(&self, uid: impl Into<Uid>, reason: Option<&str>) -> Result<(), HandleError> {
        let uid = uid.into();
        let home = self.threads.hub.home(&uid);
        self.tell(home, Mail::HomeKick { uid, reason: reason.map(Arc::from), reply_to: None })
    }

    /// Closes a session; with a KICK package if there is a reason.
    ///
    /// ```
    /// # use shaddock::{Handle, HandleError, SessionId};
    /// fn cheater(handle: &Handle, session: SessionId) -> Result<(), HandleError> {
    ///     handle.kick_session(session, Some("no cheating"))
    /// }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn kick_session(
        &self,
        session: SessionId,
        reason: Option<&str>,
    ) -> Result<(), HandleError> {
        self.tell(session.shard(), Mail::Kick { session, reason: reason.map(Arc::from) })
    }

    /// Sends a message of the game's own to one worker of a server type; see
    /// [`Context::mail`](crate::Context::mail). Messages from one thread to one worker arrive in
    /// order. It never waits.
    ///
    /// ```no_run
    /// use shaddock::{Engine, Routes, WorkerPick, Workers};
    ///
    /// struct Add(u64);
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let workers = Workers::stateful(2, |_| 0, |routes: &mut Routes<u64>| {
    ///     routes.mail(|count, Add(more)| *count += more);
    /// });
    /// let engine = Engine::builder().listen("127.0.0.1:3010").forward("room", workers).start()?;
    /// engine.handle().mail("room", WorkerPick::key("lobby"), Add(7))?;
    /// # Ok(())
    /// # }
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
        if self.is_stopped() {
            return Err(MailError::Stopped);
        }
        self.post.send(server_type, to, message)
    }

    /// The failure that has ended the engine, if that was not [`Engine::shutdown`]: a ring that the
    /// kernel refuses for good, or has refused for 10 s. Every client has been closed then, and
    /// everything asked of this handle is answered [`HandleError::Stopped`].
    ///
    /// [`Engine::shutdown`]: crate::Engine::shutdown
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.threads.failure()
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire) || self.failure().is_some()
    }

    pub(super) fn shards(&self) -> u16 {
        self.threads.hub.shards()
    }

    pub(super) fn tell(&self, shard: ShardIndex, mail: Mail) -> Result<(), HandleError> {
        if self.is_stopped() {
            return Err(HandleError::Stopped);
        }
        self.threads.hub.send_from_host(shard, mail).map_err(|_| HandleError::Busy)
    }

    /// Sends the same mail to all shards.
    pub(super) fn tell_all(&self, mail: impl Fn() -> Mail) -> Result<(), HandleError> {
        (0..self.shards()).map(ShardIndex).try_for_each(|shard| self.tell(shard, mail()))
    }
}
