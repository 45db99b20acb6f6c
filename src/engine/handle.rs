//! A running engine, and the handle by which any thread asks things of it.

use std::any::Any;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use super::attached::Attached;
use super::drain::Drain;
use super::threads::{Join, Threads, is_of_engine};
use crate::dispatch::context::Host;
use crate::dispatch::mail::Post;
use crate::dispatch::{Audience, MailError, Statistics, WorkerPick};
use crate::error::HandleError;
use crate::forward::mail::{Mail, Report, ReportKind};
use crate::forward::reports::Reports;
use crate::forward::scatter::by_home;
use crate::io::{Chosen, Driver};
use crate::metrics::CounterSnapshot;
use crate::route::Dictionary;
use crate::route::push::Push;
use crate::route::schemas::known_schemas;
use crate::session::{SessionId, ShardIndex, Uid};
use crate::shard::ShardConfig;
#[cfg(feature = "tls")]
use crate::tls::TlsError;
use crate::wire::protobuf::ProtoTable;

/// A running engine. Dropped without [`Engine::shutdown`], it closes every connection at once.
///
/// An engine that has ended leaves nothing behind but one eventfd for each shard that was on a
/// ring, which glommio 0.9 never closes.
pub struct Engine {
    handle: Handle,
    /// The same for the code on its threads.
    host: Host,
    addresses: Vec<SocketAddr>,
    shards: Vec<Join>,
    workers: Vec<Join>,
    attached: Vec<Box<dyn Attached>>,
}

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

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handle").field("server_id", &self.config.server_id).finish_non_exhaustive()
    }
}

/// The outcome of a shutdown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// The time that it took.
    pub took: Duration,
    /// Futures that were owed and that the drain has had no time for, such as saves; see
    /// [`Context::spawn_owed`](crate::Context::spawn_owed).
    pub futures_lost: u64,
    /// The counters at the end.
    pub counters: CounterSnapshot,
}

/// The time between two looks whether a drain still serves sessions.
const SERVING_LOOK_EVERY: Duration = Duration::from_millis(5);
/// The time in which a shard has to report. A turn lasts far less unless a handler blocks.
const REPORT_PATIENCE: Duration = Duration::from_secs(5);

impl Engine {
    pub(super) fn new(
        config: Arc<ShardConfig>,
        threads: Arc<Threads>,
        driver: Chosen,
        addresses: Vec<SocketAddr>,
    ) -> Self {
        assert!(!addresses.is_empty(), "an engine listens somewhere");
        #[cfg(feature = "admin")]
        config.recorder.set_addresses(&addresses);
        let handle = Handle::new(config, threads, driver);
        let host = handle.host();
        let (shards, workers, attached) = (Vec::new(), Vec::new(), Vec::new());
        Self { handle, host, addresses, shards, workers, attached }
    }

    /// Configuration and state that its threads share, and the address where clients connect.
    pub(super) fn parts(&self) -> (Arc<ShardConfig>, Arc<Threads>, SocketAddr) {
        (Arc::clone(&self.handle.config), Arc::clone(&self.handle.threads), self.local_addr())
    }

    pub(super) fn add_shard(&mut self, shard: Join) {
        self.shards.push(shard);
    }

    pub(super) fn add_worker(&mut self, worker: Join) {
        self.workers.push(worker);
    }

    /// Keeps something that runs beside the engine, until it has stopped.
    pub(super) fn attach(&mut self, attached: Box<dyn Attached>) {
        self.attached.push(attached);
    }

    /// The address where the admin server listens, with the port that was found if it was 0; none
    /// where it listens on none.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.attached.iter().find_map(|attached| attached.address())
    }

    /// The address where clients connect, with the port that was found if it was 0; the first if
    /// there are several.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// All addresses where clients connect, in the order they were given.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), shaddock::StartError> {
    /// let engine = shaddock::Engine::builder().listen("[::]:0").listen("127.0.0.1:0").start()?;
    /// println!("{}, of {:?}", engine.local_addr(), engine.local_addrs());
    /// if let Some(admin) = engine.admin_addr() {
    ///     println!("http://{admin}/metrics");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A handle for other threads.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Stops the engine, and waits until its threads have ended.
    ///
    /// [`Handle`]s work until the last session was to be closed. A drain that [`Handle::drain`] has
    /// begun, and that closes sessions already, goes on as it was, unless this is [`Drain::now`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Drain, Engine};
    ///
    /// # fn stop(engine: Engine) {
    /// let report = engine.shutdown(Drain::within(Duration::from_secs(10)));
    /// if report.futures_lost > 0 {
    ///     eprintln!("{} saves were lost", report.futures_lost);
    /// }
    /// # }
    /// ```
    ///
    /// # Panics
    /// It is called on a shard or worker, which would wait for itself. [`Handle::drain`] is for
    /// code there. An engine that is dropped there ends at once, too, but is not waited for.
    #[track_caller]
    pub fn shutdown(mut self, drain: Drain) -> ShutdownReport {
        assert!(
            !is_of_engine(),
            "`Engine::shutdown` waits for the engine's threads, so none of them can call it: call \
             `Handle::drain` there"
        );
        self.stop(drain)
    }

    fn stop(&mut self, drain: Drain) -> ShutdownReport {
        let start = Instant::now();
        self.handle.tell_of_drain(drain);
        let threads = &self.handle.threads;
        threads.drain_for_good(drain);
        while threads.has_to_serve() {
            thread::sleep(SERVING_LOOK_EVERY);
        }
        self.handle.set_stopped();
        self.shards.drain(..).for_each(|join| join());
        threads.stop_workers();
        self.workers.drain(..).for_each(|join| join());
        self.attached.clear();
        let counters = self.handle.counters();
        ShutdownReport { took: start.elapsed(), futures_lost: counters.futures_lost, counters }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if self.shards.is_empty() && self.workers.is_empty() {
            return;
        }
        if !is_of_engine() {
            self.stop(Drain::now());
            return;
        }
        // A shard can't wait for itself. Where there is no thread that could, nobody waits.
        let (handle, host) = (self.handle.clone(), Arc::clone(&self.host));
        let threads = (std::mem::take(&mut self.shards), std::mem::take(&mut self.workers));
        let attached = std::mem::take(&mut self.attached);
        let stop = move || {
            let ((shards, workers), addresses) = (threads, Vec::new());
            drop(Self { handle, host, addresses, shards, workers, attached });
        };
        thread::Builder::new().name("shaddock-stop".into()).spawn(stop).ok();
    }
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
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

    /// Uses another dictionary, or none, from the next handshake on. A session that works keeps
    /// the one it was told of until it ends: in both directions each gets its own codes.
    ///
    /// A route that was not known when the engine started is taken apart with each message, which
    /// takes a little longer than a look at a table.
    ///
    /// ```
    /// # fn change(handle: &shaddock::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// use shaddock::route::Dictionary;
    ///
    /// handle.set_dictionary(Dictionary::new(["connector.a.echo"], ["onChat", "onNews"])?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]. If a shard is [`Busy`](HandleError::Busy), those before it have got
    /// it; to ask again is safe.
    pub fn set_dictionary(
        &self,
        dictionary: impl Into<Option<Dictionary>>,
    ) -> Result<(), HandleError> {
        // Held until all have got it, so that shards get editions in their order.
        let _changing = self.config.changing();
        let edition = self.config.with_dictionary(dictionary.into());
        self.tell_all(|| Mail::Edition(Arc::clone(&edition)))
    }

    /// Uses other schemas, or none, from the next handshake on. A session that works keeps those
    /// it was told of until it ends: bodies are read and written by each session's own.
    ///
    /// Gives the routes whose schemas are left out, as no handler, schema, dictionary or
    /// [`Builder::routes`](crate::Builder::routes) named them when the engine started: their
    /// messages stay JSON until it starts again, and clients are told of no schema for them.
    ///
    /// # Errors
    /// As [`Self::set_dictionary`].
    ///
    /// # Examples
    /// ```no_run
    /// use shaddock::wire::protobuf::{ProtoTable, Protos};
    ///
    /// # fn reload(handle: &shaddock::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Protos::parse_text(&std::fs::read_to_string("serverProtos.json")?)?;
    /// let left_out = handle.set_protos(ProtoTable::new(Protos::default(), server))?;
    /// assert!(left_out.is_empty(), "these need another start: {left_out:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_protos(
        &self,
        protos: impl Into<Option<ProtoTable>>,
    ) -> Result<Vec<String>, HandleError> {
        let _changing = self.config.changing();
        let known = protos.into().map(|protos| known_schemas(&protos, &self.config.routes));
        let (protos, left_out) = known.unzip();
        let edition = self.config.with_protos(protos);
        self.tell_all(|| Mail::Edition(Arc::clone(&edition)))?;
        Ok(left_out.unwrap_or_default())
    }

    /// Sends the same mail to all shards.
    pub(super) fn tell_all(&self, mail: impl Fn() -> Mail) -> Result<(), HandleError> {
        (0..self.shards()).map(ShardIndex).try_for_each(|shard| self.tell(shard, mail()))
    }

    /// Reads the certificates of all listeners from their files again. New connections get them;
    /// open ones keep what they have, and tickets stay good. Gives the number of listeners that
    /// have one. It reads files, so a shard or worker leaves it to another thread.
    ///
    /// ```
    /// # fn renewed(handle: &shaddock::Handle) {
    /// match handle.reload_certificates() {
    ///     Ok(listeners) => println!("{listeners} listeners have the new certificate"),
    ///     Err(error) => println!("the old one stays: {error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first file that is wrong: nothing has changed then. [`TlsError::Engine`] if an engine
    /// has stopped or a shard is busy, or if this is the thread of a shard or worker
    /// ([`HandleError::OnShard`]).
    #[cfg(feature = "tls")]
    pub fn reload_certificates(&self) -> Result<usize, TlsError> {
        if is_of_engine() {
            return Err(TlsError::Engine(HandleError::OnShard));
        }
        let mut fresh = Vec::new();
        for (listener, described) in (0_u8..).zip(&self.config.listeners) {
            if let Some(tls) = &described.tls {
                fresh.push((listener, tls.reload()?));
            }
        }
        for shard in (0..self.shards()).map(ShardIndex) {
            for (listener, config) in &fresh {
                let (listener, config) = (*listener, Arc::clone(config));
                self.tell(shard, Mail::Certificate { listener, config })?;
            }
        }
        Ok(fresh.len())
    }

    /// The number of connections, and the sessions that are logged in.
    ///
    /// ```no_run
    /// # fn print(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// for login in handle.statistics()?.logins {
    ///     println!("{} from {}", login.uid, login.address);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn statistics(&self) -> Result<Statistics, HandleError> {
        self.reports(ReportKind::Logins, REPORT_PATIENCE).map(|reports| self.statistics_of(reports))
    }

    /// The same as a future, which any executor can await, and a handler or a future on a shard.
    /// The shards are asked at once. It waits for as long as they take.
    ///
    /// ```
    /// # async fn logged_in(handle: &shaddock::Handle) -> Result<usize, shaddock::HandleError> {
    /// Ok(handle.statistics_async().await?.login_count)
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn statistics_async(
        &self,
    ) -> impl Future<Output = Result<Statistics, HandleError>> + Send + use<> {
        let (handle, asked) = (self.clone(), self.ask(ReportKind::Logins));
        async move {
            let reports = asked?.await.ok_or(HandleError::Stopped)?;
            Ok(handle.statistics_of(reports))
        }
    }

    fn statistics_of(&self, reports: Vec<Report>) -> Statistics {
        let connections = reports.iter().map(|report| report.connections).sum();
        let mut statistics = Statistics {
            server_id: self.config.server_id.to_string(),
            connections,
            login_count: 0,
            logins: Vec::new(),
        };
        // A uid with sessions on several shards has one entry, as in Pomelo.
        let mut seen = HashSet::new();
        for login in reports.into_iter().flat_map(|report| report.logins) {
            if seen.insert(login.uid.text().to_owned()) {
                statistics.logins.push(login);
            }
        }
        statistics.login_count = statistics.logins.len();
        statistics
    }

    /// The counters of all shards, without asking them for anything.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let _amy = t.connect();
    /// assert_eq!(t.handle().counters().connections_accepted, 1);
    /// ```
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        let mut sum = CounterSnapshot::default();
        for counters in &self.config.counters {
            sum += counters.snapshot();
        }
        sum
    }

    /// Waits until every shard has ended a turn, as a watchdog does: a handler that never returns
    /// holds all sessions of its shard, and nothing else may tell that.
    ///
    /// # Errors
    /// [`HandleError::TimedOut`] if a shard has not done so within that time,
    /// [`Busy`](HandleError::Busy) if it takes no mail, [`OnShard`](HandleError::OnShard) where a
    /// shard or worker asks ([`Self::wait_for_turns_async`] is for
    /// those), and [`HandleError::Stopped`] if the engine has ended.
    ///
    /// # Examples
    /// ```no_run
    /// use std::time::Duration;
    ///
    /// # fn check(handle: &shaddock::Handle) -> Result<(), shaddock::HandleError> {
    /// handle.wait_for_turns(Duration::from_secs(5))?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn wait_for_turns(&self, within: Duration) -> Result<(), HandleError> {
        self.reports(ReportKind::Presence, within).map(drop)
    }

    /// The same as a future, which any executor can await, and a handler or a future on a shard:
    /// it is done once every shard has ended the turn that it is in. It waits for as long as they
    /// take.
    ///
    /// ```
    /// # use shaddock::{Handle, HandleError};
    /// # async fn all_have_seen_it(handle: &Handle) -> Result<(), HandleError> {
    /// handle.push("amy", "onNews", "{}")?;
    /// handle.wait_for_turns_async().await
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn wait_for_turns_async(
        &self,
    ) -> impl Future<Output = Result<(), HandleError>> + Send + use<> {
        let asked = self.ask(ReportKind::Presence);
        async move { asked?.await.map(drop).ok_or(HandleError::Stopped) }
    }

    /// Asks all shards for a report.
    fn ask(&self, kind: ReportKind) -> Result<Reports<Report>, HandleError> {
        let (reports, places) = Reports::new(self.shards().into());
        for (shard, to) in (0..).map(ShardIndex).zip(places) {
            self.tell(shard, Mail::Report { to, kind })?;
        }
        Ok(reports)
    }

    /// Waits for the reports of all shards.
    fn reports(&self, kind: ReportKind, within: Duration) -> Result<Vec<Report>, HandleError> {
        if is_of_engine() {
            return Err(HandleError::OnShard);
        }
        let mut reports = self.ask(kind)?;
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let deadline = Instant::now() + within;
        loop {
            let patience = deadline.saturating_duration_since(Instant::now());
            match Pin::new(&mut reports).poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(all) => return all.ok_or(HandleError::Stopped),
                Poll::Pending if !patience.is_zero() => thread::park_timeout(patience),
                Poll::Pending if self.is_stopped() => return Err(HandleError::Stopped),
                Poll::Pending => return Err(HandleError::TimedOut),
            }
        }
    }

    /// The failure that has ended the engine, if that was not [`Engine::shutdown`]: a ring that the
    /// kernel refuses for good, or has refused for 10 s. Every client has been closed then, and
    /// everything asked of this handle is answered [`HandleError::Stopped`].
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
}
