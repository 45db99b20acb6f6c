//! The engine under test, as its test has it.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::client::Client;
use super::connect::Connect;
use super::shared::Shared;
use super::world::World;
use crate::dispatch::{Register, Reply, Request, Session};
use crate::engine::{Builder, Drain, Engine as RealEngine, Handle};
use crate::error::StartError;
use crate::forward::Workers;
use crate::metrics::CounterSnapshot;

/// An engine that runs in the test's own thread, in virtual time; see the [module](super).
///
/// ```
/// use std::time::Duration;
/// use shaddock::testing;
///
/// let t = testing::Engine::new(shaddock::Engine::builder());
/// let begin = t.now();
/// t.advance(Duration::from_secs(3600)); // In no time.
/// assert_eq!(t.now() - begin, Duration::from_secs(3600));
/// ```
pub struct Engine {
    shared: Rc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("now", &self.now()).finish_non_exhaustive()
    }
}

impl Engine {
    /// Runs what `builder` describes; [`Setup`] has more to say about it.
    ///
    /// # Panics
    /// The description is wrong, in the words of [`StartError`](crate::StartError).
    #[must_use]
    #[track_caller]
    pub fn new(builder: Builder) -> Self {
        Setup::new(builder).start()
    }

    /// Runs the workers of one server type by themselves: a room's logic without the connector's.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Reply, Workers, testing};
    ///
    /// let rooms = Workers::new(1, |handlers| {
    ///     handlers.handler("room.arena.enter", |_, session| {
    ///         Reply::json(&json!({ "code": 200, "room": session.get("room") }))
    ///     });
    /// });
    /// let t = testing::Engine::workers("room", rooms);
    /// let amy = t.client().uid("amy").setting("room", 7).connect();
    /// assert_eq!(amy.request("room.arena.enter", json!({}))["room"], 7);
    /// ```
    ///
    /// # Panics
    /// See [`Self::new`].
    #[must_use]
    #[track_caller]
    pub fn workers(server_type: impl Into<String>, workers: Workers) -> Self {
        Self::new(RealEngine::builder().forward(server_type, workers))
    }

    /// Connects a client, its handshake and all. The engine's shards get clients in turn.
    ///
    /// # Panics
    /// It is refused; see [`Connect::try_connect`].
    #[must_use]
    #[track_caller]
    pub fn connect(&self) -> Client {
        self.client().connect()
    }

    /// Describes a client with more to it: its handshake, or a uid and settings, without the way
    /// by which players get them.
    pub fn client(&self) -> Connect {
        Connect::new(Rc::clone(&self.shared))
    }

    /// Lets time pass: whatever is due meanwhile happens in its order, with everything that follows
    /// from it.
    pub fn advance(&self, by: Duration) {
        self.shared.advance(by, |_| true);
    }

    /// The time that has passed since the engine was started.
    #[must_use]
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.shared.world().now_us)
    }

    /// Runs until nobody has anything to do at this time. All calls of clients do so themselves; it
    /// is for what the test has asked of the [`Handle`].
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let _amy = t.client().uid("amy").connect();
    /// t.handle().kick("amy", None)?;
    /// t.run_until_idle();
    /// assert_eq!(t.handle().counters().closed_by_kick, 1);
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    pub fn run_until_idle(&self) {
        drop(self.shared.settled());
    }

    /// Runs until something is true that other threads bring about, such as a runtime's. Time
    /// stands still in the engine meanwhile.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use shaddock::{Engine, testing};
    ///
    /// static IS_SAVED: AtomicBool = AtomicBool::new(false);
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// std::thread::spawn(|| IS_SAVED.store(true, Ordering::Relaxed)); // By another runtime, say.
    /// t.run_until(|| IS_SAVED.load(Ordering::Relaxed));
    /// ```
    ///
    /// # Panics
    /// It is not true after [`Setup::patience`].
    #[track_caller]
    pub fn run_until(&self, mut is_true: impl FnMut() -> bool) {
        if self.shared.wait(|| is_true().then_some(()), |_| true).is_none() {
            panic!("it is not true after {:?} (`Setup::patience`)", self.shared.patience());
        }
    }

    /// Runs the engine until a future of the test's own is ready. Time stands still in the engine
    /// meanwhile.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let _amy = t.client().uid("amy").connect();
    /// let statistics = t.block_on(t.handle().statistics_async())?;
    /// assert_eq!(statistics.logins[0].uid, "amy".into());
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    ///
    /// # Panics
    /// It is not ready after [`Setup::patience`].
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        match self.shared.block_on(future) {
            Some(output) => output,
            None => panic!("a future waits for longer than {:?}", self.shared.patience()),
        }
    }

    /// The handle of the engine: pushes, broadcasts, kicks, the host filter, the dictionary. What
    /// it asks for is done at the next call of the engine's or a client's.
    ///
    /// The methods of it that wait for shards can't be waited for in the thread that runs them:
    /// ask for [`Self::counters`] here.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.client().uid("amy").connect();
    /// t.handle().push("amy", "onMail", r#"{"from":"bob"}"#).unwrap();
    /// assert_eq!(amy.pushes()[0].body["from"], "bob");
    /// t.handle().kick("amy", Some("goodbye")).unwrap();
    /// assert_eq!(amy.kicked().unwrap(), "goodbye");
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.shared.world().handle.clone()
    }

    /// The counters of all shards and workers.
    #[must_use]
    pub fn counters(&self) -> CounterSnapshot {
        self.shared.settled().handle.counters()
    }

    /// Stops the engine as [`Engine::shutdown`](crate::Engine::shutdown) does, in virtual time: no
    /// client can connect any more, what is pending is answered, every session is closed. Gives
    /// the time that it took. A [`Drain`], or the time within which it is over.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder().shutdown_kick("maintenance"));
    /// let amy = t.connect();
    /// assert!(t.drain(Duration::from_secs(5)) < Duration::from_secs(1));
    /// assert_eq!(amy.kicked().unwrap(), "maintenance");
    /// ```
    pub fn drain(&self, drain: impl Into<Drain>) -> Duration {
        self.shared.world().drain(drain.into())
    }
}

/// Describes a test of an engine, where [`Engine::new`] does not say enough.
#[must_use = "an engine runs once it is started"]
pub struct Setup {
    builder: Builder,
    backends: Vec<(String, Register)>,
    patience: Duration,
}

impl std::fmt::Debug for Setup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Setup").field("builder", &self.builder).finish_non_exhaustive()
    }
}

/// The time that other threads have by default.
const PATIENCE: Duration = Duration::from_secs(10);

impl Setup {
    /// Runs what `builder` describes.
    ///
    /// Addresses, TLS, PROXY headers and signatures are left out: clients speak plain Pomelo. An
    /// engine with one shard for each core has two.
    pub fn new(builder: Builder) -> Self {
        Self { builder, backends: Vec::new(), patience: PATIENCE }
    }

    /// Stands in for the servers of one type, which the description leaves to a Pomelo or Pitaya
    /// cluster: each message for them comes here, on a thread of the engine's that is one server,
    /// `type-1`. Each type of a cluster's needs one.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let t = testing::Setup::new(Engine::builder())
    ///     .backend("chat", |request, session| match request.route() {
    ///         "chat.chatHandler.who" => Reply::json(&json!({ "uid": session.uid() })),
    ///         _ => Reply::error(),
    ///     })
    ///     .start();
    /// let amy = t.client().uid("amy").connect();
    /// assert_eq!(amy.request("chat.chatHandler.who", json!({}))["uid"], "amy");
    /// ```
    pub fn backend<F>(mut self, server_type: impl Into<String>, handler: F) -> Self
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Reply<'a> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        let register: Register = Arc::new(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.fallback(move |request, session| handler(request, session));
        });
        self.backends.push((server_type.into(), register));
        self
    }

    /// The real time for which a test waits for other threads before it fails; 10 s by default.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, testing};
    ///
    /// // Its handlers ask a database that has to start first.
    /// let t = testing::Setup::new(Engine::builder()).patience(Duration::from_secs(60)).start();
    /// ```
    pub fn patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Starts the engine.
    ///
    /// # Panics
    /// The description is wrong, in the words of [`StartError`](crate::StartError).
    #[must_use]
    #[track_caller]
    pub fn start(self) -> Engine {
        let started = self.builder.plan_test(self.backends).and_then(|plan| {
            let world = World::new(plan);
            let mistakes = world.config.mistakes.take();
            if mistakes.is_empty() { Ok(world) } else { Err(StartError::Handlers(mistakes)) }
        });
        match started {
            Ok(world) => Engine { shared: Rc::new(Shared::new(world, self.patience)) },
            Err(error) => panic!("the engine can't be started: {error}"),
        }
    }
}
