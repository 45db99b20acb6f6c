//! An embedder's description of an engine.

pub(super) mod checks;
mod forwards;
mod route_latency;

use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::attachment::Attachment;
use super::listen::Listener;
use super::network::NetworkForwarder;
use super::running::Engine;
use super::threads::ThreadCounts;
use crate::dispatch::denied_hosts::DeniedHosts;
use crate::dispatch::handshake::HandshakeCheck;
use crate::dispatch::{
    ClientRules, Codes, FailureBodies, Filter, Handlers, Handshake, HostFilter, Maintenance,
    OwnedRequest, Refusal, Register, Reply, Request, Session, Welcome,
};
use crate::forward::{LaneFull, Route, ServerType, Workers};
use crate::io::Driver;
use crate::limits::Limits;
use crate::metrics::Figures;
use crate::route::edition::{Edition, EditionId};
use crate::route::schemas::Schemas;
use crate::route::table::RouteTable;
use crate::route::{Dictionary, SlowConsumer};
use crate::session::OnSecondBind;
use crate::shard::{
    Changing, CheckClient, Heartbeat, KeptAliveBy, ShardConfig, Subscribers, measured_routes,
};
use crate::span::SpanQueues;
use crate::wire::protobuf::ProtoTable;

/// The number of an engine's shards. Each is a thread, pinned to a core as far as there are any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shards {
    /// One for each core that the process may run on.
    PerCore,
    /// That many, at least 1.
    Count(u16),
}

/// Shards and workers of one engine, at most.
const PARTIES_MAX: usize = 1024;

/// Describes an engine, and starts it.
///
/// Defaults: one shard for each core, [`Driver::Auto`], server type `connector` and id
/// `connector-1`, no heartbeat, no dictionary, no protobuf, several sessions for each uid, the
/// default [`Limits`].
///
/// ```
/// use std::time::Duration;
///
/// use shaddock::route::Dictionary;
/// use shaddock::{Builder, Engine, Fault, Limits, Reply, Serial, Session, Shards, Workers};
///
/// fn game() -> Result<Builder, Box<dyn std::error::Error>> {
///     let rooms = Workers::new(2, |handlers| {
///         handlers.call("room.door.enter", |(), session: &mut Session| {
///             session.uid().cloned().ok_or(Fault::new(401, "log in first"))
///         });
///     });
///     Ok(Engine::builder()
///         .shards(Shards::Count(2))
///         .heartbeat(Duration::from_secs(10))
///         .dictionary(Dictionary::new(["room.door.enter"], ["onState"])?)
///         .limits(Limits { messages_per_second: 50, ..Limits::default() })
///         .global_filter(Serial::default) // One for each shard.
///         .handler("connector.entry.echo", |request, _| Reply::borrowed(request.body()))
///         .register(|handlers| {
///             // On each shard's own thread.
///             handlers.on_session_opened(|session, _| println!("{} is here", session.peer()));
///         })
///         .forward("room", rooms)
///         .shutdown_kick("maintenance"))
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let builder = game()?.listen("127.0.0.1:3010"); // A test has no use for addresses.
/// builder.check()?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a builder does nothing until `start`"]
pub struct Builder {
    pub(super) listeners: Vec<Listener>,
    pub(super) shards: Shards,
    driver: Driver,
    balances: bool,
    server_type: String,
    server_id: String,
    heartbeat: Option<Duration>,
    heartbeat_timeout: Option<Duration>,
    kept_alive_by: KeptAliveBy,
    dictionary: Option<Dictionary>,
    protos: Option<ProtoTable>,
    host_filter: HostFilter,
    client_rules: ClientRules,
    maintenance: Option<Maintenance>,
    on_second_bind: Option<OnSecondBind>,
    shutdown_kick: Option<Arc<str>>,
    address_setting: Option<String>,
    health_path: Option<String>,
    #[cfg(feature = "crypto")]
    use_crypto: bool,
    limits: Limits,
    codes: Codes,
    measures_routes: bool,
    check_client: Option<CheckClient>,
    handshake: Option<HandshakeCheck>,
    /// Both kinds of look at handshakes were given.
    has_two_handshakes: bool,
    routes: Vec<String>,
    registers: Vec<Register>,
    pub(super) forwards: Vec<(String, Workers)>,
    pub(super) networks: Vec<Box<dyn NetworkForwarder>>,
    routers: Vec<(String, Route)>,
    lanes_full: Vec<(String, LaneFull)>,
    push_policies: Vec<(String, SlowConsumer)>,
    attachments: Vec<Box<dyn Attachment>>,
    /// One forwarded message in so many is traced, if any is.
    sample_every: Option<u64>,
    /// The attachment that takes the spans, by its index.
    #[cfg(feature = "traces")]
    exporter: Option<usize>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("listeners", &self.listeners)
            .field("shards", &self.shards)
            .field("server_id", &self.server_id)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Describes a new engine, which needs an address by [`Builder::listen`]; all else has a
    /// default, see [`Builder`].
    pub fn builder() -> Builder {
        Builder::new()
    }
}

impl Builder {
    fn new() -> Self {
        Self {
            listeners: Vec::new(),
            shards: Shards::PerCore,
            driver: Driver::Auto,
            balances: true,
            server_type: "connector".into(),
            server_id: "connector-1".into(),
            heartbeat: None,
            heartbeat_timeout: None,
            kept_alive_by: KeptAliveBy::Heartbeats,
            dictionary: None,
            protos: None,
            host_filter: HostFilter::default(),
            client_rules: ClientRules::default(),
            maintenance: None,
            on_second_bind: None,
            shutdown_kick: None,
            address_setting: None,
            health_path: None,
            #[cfg(feature = "crypto")]
            use_crypto: false,
            limits: Limits::default(),
            codes: Codes::pomelo(),
            measures_routes: false,
            check_client: None,
            handshake: None,
            has_two_handshakes: false,
            routes: Vec::new(),
            registers: Vec::new(),
            forwards: Vec::new(),
            networks: Vec::new(),
            routers: Vec::new(),
            lanes_full: Vec::new(),
            push_policies: Vec::new(),
            attachments: Vec::new(),
            sample_every: None,
            #[cfg(feature = "traces")]
            exporter: None,
        }
    }

    /// Listens on an address, for TCP and WebSocket alike, e.g. `0.0.0.0:3010`. Given several
    /// times, the engine listens on all of them, with each shard.
    ///
    /// ```
    /// use shaddock::Engine;
    ///
    /// // By IPv6 and IPv4, and on a port for the machine's own proxy.
    /// let builder = Engine::builder().listen("[::]:3010").listen("127.0.0.1:3011");
    /// ```
    pub fn listen(mut self, listener: impl Into<Listener>) -> Self {
        self.listeners.push(listener.into());
        self
    }

    /// Sets the number of shards.
    pub fn shards(mut self, shards: Shards) -> Self {
        self.shards = shards;
        self
    }

    /// Sets the way in which shards and workers do their I/O; see [`Driver`].
    ///
    /// ```
    /// use shaddock::{Driver, Engine};
    ///
    /// // Without io_uring, also where it may be had.
    /// let builder = Engine::builder().driver(Driver::Poll);
    /// ```
    pub fn driver(mut self, driver: Driver) -> Self {
        self.driver = driver;
        self
    }

    /// Spreads new connections over the shards by how busy these are, as by default, or by the
    /// kernel's hash alone.
    ///
    /// The hash is for ports that another process listens on as well, such as the next release's
    /// while this one drains: the kernel counts the sockets of both, and a program of one engine
    /// knows its own only.
    ///
    /// ```
    /// use shaddock::Engine;
    ///
    /// let builder = Engine::builder().balance(false);
    /// ```
    pub fn balance(mut self, balance: bool) -> Self {
        self.balances = balance;
        self
    }

    /// The server type that is handled here; the first part of its routes.
    ///
    /// ```
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder()
    ///     .server_type("gate")
    ///     .server_id("gate-1")
    ///     .handler("gate.gateHandler.queryEntry", |_, _| Reply::json("10.0.0.1:3010"));
    /// ```
    pub fn server_type(mut self, server_type: impl Into<String>) -> Self {
        self.server_type = server_type.into();
        self
    }

    /// The connector's server id: the `frontendId` that handlers see.
    pub fn server_id(mut self, server_id: impl Into<String>) -> Self {
        self.server_id = server_id.into();
        self
    }

    /// Has clients send heartbeats at this interval. A client that sends none for twice as long is
    /// closed. Without it there are none, as in Pomelo; a client is closed then that sends nothing
    /// for [`Limits::idle_timeout`].
    pub fn heartbeat(mut self, interval: Duration) -> Self {
        self.heartbeat = Some(interval);
        self
    }

    /// Closes clients that are silent for longer than this, instead of for twice the heartbeat's
    /// interval.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, testing};
    ///
    /// let seconds = Duration::from_secs;
    /// let builder = Engine::builder().heartbeat(seconds(10)).heartbeat_timeout(seconds(60));
    /// let t = testing::Engine::new(builder);
    /// let amy = t.connect();
    /// amy.stop_heartbeats();
    /// t.advance(seconds(59));
    /// assert!(!amy.is_closed());
    /// t.advance(seconds(10));
    /// assert!(amy.is_closed());
    /// ```
    pub fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.heartbeat_timeout = Some(timeout);
        self
    }

    /// Lets any package keep a client alive. Without it only heartbeats do, as in Pomelo: a busy
    /// client that sends no heartbeat is closed.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::Engine;
    ///
    /// let builder =
    ///     Engine::builder().heartbeat(Duration::from_secs(10)).any_package_keeps_alive();
    /// ```
    pub fn any_package_keeps_alive(mut self) -> Self {
        self.kept_alive_by = KeptAliveBy::AnyPackage;
        self
    }

    /// Uses a route dictionary: clients may send codes for routes, and pushes are sent so.
    pub fn dictionary(mut self, dictionary: Dictionary) -> Self {
        self.dictionary = Some(dictionary);
        self
    }

    /// Uses Pomelo's protobuf for the routes that have a schema. The schemas may change while the
    /// engine runs; see [`Handle::set_protos`](crate::Handle::set_protos).
    ///
    /// ```
    /// use shaddock::Engine;
    /// use shaddock::wire::protobuf::{ProtoTable, Protos};
    ///
    /// let server = Protos::parse_text(r#"{"onMove": {"required sInt32 x": 1}}"#)?;
    /// let builder = Engine::builder().protos(ProtoTable::new(Protos::default(), server));
    /// # Ok::<(), shaddock::wire::protobuf::SchemaError>(())
    /// ```
    pub fn protos(mut self, protos: ProtoTable) -> Self {
        self.protos = Some(protos);
        self
    }

    /// Turns clients away by their address. The list may change while the engine runs; see
    /// [`Handle::deny_hosts`](crate::Handle::deny_hosts).
    ///
    /// ```
    /// use shaddock::{Engine, HostFilter};
    ///
    /// let builder = Engine::builder().host_filter(HostFilter::deny(["203.0.113.0/24"])?);
    /// # Ok::<(), shaddock::HostFilterError>(())
    /// ```
    pub fn host_filter(mut self, filter: HostFilter) -> Self {
        self.host_filter = filter;
        self
    }

    /// Serves only clients of some versions and types, by what they say of themselves in their
    /// handshakes, before [`Self::check_client`] and [`Self::user_handshake`] are asked. The rules
    /// may change while the engine runs;
    /// see [`Handle::set_client_rules`](crate::Handle::set_client_rules).
    ///
    /// ```
    /// use shaddock::{ClientRules, Engine, Refusal};
    ///
    /// let too_old = Refusal::code(501).text("please update");
    /// let builder =
    ///     Engine::builder().client_rules(ClientRules::new().version_min("1.2".parse()?, too_old));
    /// # Ok::<(), shaddock::BadVersion>(())
    /// ```
    pub fn client_rules(mut self, rules: ClientRules) -> Self {
        self.client_rules = rules;
        self
    }

    /// Starts in maintenance: nobody comes in but those that it names, until
    /// [`Handle::set_maintenance`](crate::Handle::set_maintenance) ends it. It comes before all
    /// other looks at a handshake.
    ///
    /// ```
    /// use shaddock::{Engine, Maintenance, Refusal, testing};
    ///
    /// let maintenance = Maintenance::new(Refusal::code(503).text("back at ten"));
    /// let t = testing::Engine::new(Engine::builder().maintenance(maintenance));
    /// let refused = t.client().try_connect().unwrap_err();
    /// assert_eq!(refused.answer.unwrap()["msg"], "back at ten");
    /// ```
    pub fn maintenance(mut self, maintenance: impl Into<Option<Maintenance>>) -> Self {
        self.maintenance = maintenance.into();
        self
    }

    /// Allows a uid one session only, and says what happens when a second one binds it. `None`
    /// allows several, as without this.
    ///
    /// One shard decides about all sessions of a uid, in the order in which their binds come to it:
    /// of several that log in at once, one is left, the newest or the first. A session that binds
    /// its own uid again is not a second one. The session that is kicked gets the reason as from
    /// [`Context::kick`](crate::Context::kick); it counts in `sessions_replaced`.
    ///
    /// This is about the sessions of this engine, whether a handler here or a backend of a cluster
    /// binds them. Frontends of a Pomelo cluster do not tell each other who logs in; those of a
    /// Pitaya cluster do, see `PitayaCluster::unique_session`.
    ///
    /// ```
    /// use shaddock::{Engine, OnSecondBind};
    ///
    /// let builder = Engine::builder()
    ///     .single_session(OnSecondBind::KickFirst("logged in elsewhere".into()));
    /// ```
    pub fn single_session(mut self, on_second: impl Into<Option<OnSecondBind>>) -> Self {
        self.on_second_bind = on_second.into();
        self
    }

    /// Kicks every session with that reason when the engine stops, before it is closed.
    ///
    /// Without it sessions are closed only, as the original does it, and a WebSocket with the code
    /// 1001: clients take a kick for final, and connect again behind anything else. Clients of
    /// Pitaya, whose kicks have no reason, get none.
    pub fn shutdown_kick(mut self, reason: impl Into<String>) -> Self {
        self.shutdown_kick = Some(reason.into().into());
        self
    }

    /// Writes each client's IP address, as text, into this setting of its session when its
    /// handshake is answered. Settings go to backends of every kind with each message, which learn
    /// it so; behind a proxy it is the one that the proxy tells of. Handlers have it anyway.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder().address_setting("ip"));
    /// assert_eq!(t.connect().session().get("ip").unwrap(), "127.0.0.1");
    /// ```
    pub fn address_setting(mut self, name: impl Into<String>) -> Self {
        self.address_setting = Some(name.into());
        self
    }

    /// Answers a plain HTTP GET of that path, such as `/healthz`, on the ports of clients, and
    /// closes: 200 while clients may be sent here, else 503. Balancers ask there, as it shows that
    /// the very port is served. It is ready once its threads run and it has joined its clusters,
    /// until it drains ([`Handle::set_draining`](crate::Handle::set_draining)).
    ///
    /// ```
    /// let builder = shaddock::Engine::builder().listen("0.0.0.0:3010").health_path("/healthz");
    /// ```
    pub fn health_path(mut self, path: impl Into<String>) -> Self {
        self.health_path = Some(path.into());
        self
    }

    /// Lets only signed messages through: the original's option `useCrypto`.
    ///
    /// A client tells its RSA key in the handshake and signs each body; see
    /// [`wire::signature`](crate::wire::signature). A request without a good signature is answered
    /// 500 before any filter, a notify is dropped (`bad_signature`). Handlers and workers get the
    /// body without the signature. To check one takes far more of the shard's time than an ordinary
    /// message does.
    ///
    /// Clients of Pitaya sign nothing: no listener may have their dialect then.
    ///
    /// ```
    /// let builder = shaddock::Engine::builder().listen("0.0.0.0:3010").use_crypto();
    /// ```
    #[cfg(feature = "crypto")]
    pub fn use_crypto(mut self) -> Self {
        self.use_crypto = true;
        self
    }

    /// The bounds of everything.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets the codes of the answers that the engine gives by itself: 500 for everything by
    /// default, as by Pomelo.
    ///
    /// Clients of Pitaya's dialect have Pitaya's codes, whatever is set here; see
    /// `docs/pitaya-clients.md`.
    ///
    /// ```
    /// use shaddock::{Codes, Engine};
    ///
    /// let builder = Engine::builder().answer_codes(Codes::pomelo().rate_limited(429));
    /// ```
    pub fn answer_codes(mut self, codes: Codes) -> Self {
        self.codes = codes;
        self
    }

    /// Looks at each client's type and version; `false` answers 501 and closes.
    ///
    /// ```
    /// use shaddock::Engine;
    ///
    /// let builder = Engine::builder().check_client(|kind, version| {
    ///     kind == Some("unity") && version.is_some_and(|version| version.starts_with("2."))
    /// });
    /// ```
    pub fn check_client(
        mut self,
        check: impl Fn(Option<&str>, Option<&str>) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.check_client = Some(Arc::new(check));
        self
    }

    /// Looks at each handshake, and answers at once: a [`Refusal`] is sent to the client, which is
    /// closed then; a [`Welcome`] says what it is told as `user`, and what its session's settings
    /// start with. A panic refuses.
    ///
    /// It runs on the shard's thread, so it must not block: what has to wait for something is
    /// [`Self::on_handshake`]. To give both keeps the engine from starting.
    ///
    /// ```
    /// use shaddock::{Engine, Refusal, Welcome};
    ///
    /// let builder = Engine::builder().user_handshake(|handshake| {
    ///     match handshake.user().and_then(|user| user["token"].as_str()) {
    ///         Some("secret") => Ok(Welcome::new().setting("vip", true)),
    ///         _ => Err(Refusal::code(401).text("a token is missing")),
    ///     }
    /// });
    /// ```
    pub fn user_handshake(
        mut self,
        callback: impl Fn(&Handshake) -> Result<Welcome, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.has_two_handshakes |= matches!(self.handshake, Some(HandshakeCheck::Later(_)));
        self.handshake = Some(HandshakeCheck::Now(Arc::new(callback)));
        self
    }

    /// Looks at each handshake by a future, as [`Self::user_handshake`] does at once: for a
    /// question to another service. It runs on the shard's thread, which serves others meanwhile.
    ///
    /// The client waits for its answer. What it sends before that is held;
    /// [`Limits::handshake_timeout`] counts, and closes it. The future of a client that has gone is
    /// dropped. [`Limits::handshakes_waiting_bytes_max`] bounds those that wait. A session's
    /// further handshakes, which Pitaya's clients may send, are answered without it and without
    /// `user`.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use serde_json::json;
    /// use shaddock::{Engine, Handshake, Refusal, Welcome};
    ///
    /// async fn name_of(token: &str) -> Option<String> {
    ///     # let _ = token;
    ///     // Ask the service that knows.
    ///     Some("amy".to_owned())
    /// }
    ///
    /// let builder = Engine::builder().on_handshake(async |handshake: Handshake| {
    ///     let user = handshake.user().and_then(|user| user["token"].as_str());
    ///     let Some(token) = handshake.header("x-token").or(user) else {
    ///         return Err(Refusal::code(401));
    ///     };
    ///     let Some(name) = name_of(token).await else {
    ///         return Err(Refusal::code(403).text("nobody knows you"));
    ///     };
    ///     Ok(Welcome::user(json!({ "hello": name })).setting("name", name))
    /// });
    /// ```
    pub fn on_handshake(
        mut self,
        callback: impl AsyncFn(Handshake) -> Result<Welcome, Refusal> + Send + Sync + 'static,
    ) -> Self {
        self.has_two_handshakes |= matches!(self.handshake, Some(HandshakeCheck::Now(_)));
        let callback = Arc::new(callback);
        self.handshake = Some(HandshakeCheck::Later(Arc::new(move |handshake| {
            let callback = Arc::clone(&callback);
            Box::pin(async move { callback(handshake).await })
        })));
        self
    }

    /// Handles a route, given in full (`type.handler.method`), on every shard.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder()
    ///     .handler("connector.a.echo", |request, _session| Reply::borrowed(request.body()));
    /// let t = testing::Engine::new(builder);
    /// assert_eq!(t.connect().request("connector.a.echo", json!([1, 2])), json!([1, 2]));
    /// ```
    pub fn handler<F>(mut self, route: impl Into<String>, handler: F) -> Self
    where
        F: for<'a> Fn(&Request<'a>, &mut Session) -> Reply<'a> + Send + Sync + 'static,
    {
        let (route, handler) = (route.into(), Arc::new(handler));
        self.routes.push(route.clone());
        self.register(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.handler(&route, move |request, session| handler(request, session));
        })
    }

    /// Handles a route by a future, on every shard.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().async_handler("connector.a.later", async |_, session| {
    ///     session.context().sleep(Duration::from_secs(1)).await;
    ///     Reply::empty()
    /// });
    /// ```
    pub fn async_handler<F, R>(mut self, route: impl Into<String>, handler: F) -> Self
    where
        F: Fn(OwnedRequest, Session) -> R + Send + Sync + 'static,
        R: Future<Output = Reply<'static>> + 'static,
    {
        let (route, handler) = (route.into(), Arc::new(handler));
        self.routes.push(route.clone());
        self.register(move |handlers| {
            let handler = Arc::clone(&handler);
            handlers.async_handler(&route, move |request, session| handler(request, session));
        })
    }

    /// Runs a filter round the connector's own handlers; `make` makes one for each shard.
    ///
    /// ```
    /// use shaddock::{Engine, Time};
    ///
    /// let builder = Engine::builder().filter(Time::default);
    /// ```
    pub fn filter<F: Filter>(self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.register(move |handlers| {
            handlers.filter(make());
        })
    }

    /// Runs a filter round everything that clients send; `make` makes one for each shard.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, TooBusy};
    ///
    /// let builder = Engine::builder().global_filter(|| TooBusy::new(Duration::from_millis(20)));
    /// ```
    pub fn global_filter<F: Filter>(self, make: impl Fn() -> F + Send + Sync + 'static) -> Self {
        self.register(move |handlers| {
            handlers.global_filter(make());
        })
    }

    /// Sets up handlers and filters on each shard's own thread, where they may share state that
    /// is not `Send`.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use shaddock::{Engine, Reply};
    ///
    /// let builder = Engine::builder().register(|handlers| {
    ///     let count = Cell::new(0); // Of this shard alone.
    ///     handlers.handler("connector.a.count", move |_, _| {
    ///         count.set(count.get() + 1);
    ///         Reply::json(&count.get())
    ///     });
    /// });
    /// ```
    pub fn register(mut self, register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> Self {
        self.registers.push(Arc::new(register));
        self
    }

    /// Names routes that are handled elsewhere, so that they are found by a look at a table
    /// instead of being taken apart. Routes of the dictionary need not be named.
    ///
    /// ```
    /// use shaddock::{Engine, Workers};
    ///
    /// let builder = Engine::builder()
    ///     .forward("room", Workers::new(4, |_handlers| {}))
    ///     .routes(["room.roomHandler.enter", "room.roomHandler.leave"]);
    /// ```
    pub fn routes<T: Into<String>>(mut self, routes: impl IntoIterator<Item = T>) -> Self {
        self.routes.extend(routes.into_iter().map(Into::into));
        self
    }

    /// Has something start with the engine, and stop behind it.
    #[cfg_attr(not(any(feature = "admin", feature = "traces")), allow(dead_code))]
    pub(crate) fn attach(mut self, attachment: impl Attachment + 'static) -> Self {
        self.attachments.push(Box::new(attachment));
        self
    }

    /// Has one forwarded message in so many traced, and their spans taken; by one, as nobody gets
    /// a span that another has taken.
    #[cfg(feature = "traces")]
    pub(crate) fn sample(
        mut self,
        every: Option<u64>,
        exporter: impl Attachment + 'static,
    ) -> Self {
        self.sample_every = every;
        match self.exporter {
            Some(at) => {
                self.attachments[at] = Box::new(exporter);
                self
            }
            None => {
                self.exporter = Some(self.attachments.len());
                self.attach(exporter)
            }
        }
    }

    /// Sets the policy for the pushes of a route that wait for a client which does not read.
    /// Without it the client is disconnected at the bounds of its outbox; see [`SlowConsumer`].
    ///
    /// ```
    /// use shaddock::{Engine, SlowConsumer};
    ///
    /// let builder = Engine::builder()
    ///     .push_policy("onTick", SlowConsumer::KeepLatest)
    ///     .push_policy("onEffect", SlowConsumer::DropOldest);
    /// ```
    pub fn push_policy(mut self, route: impl Into<String>, policy: SlowConsumer) -> Self {
        self.push_policies.push((route.into(), policy));
        self
    }

    fn into_config(
        self,
        counts: ThreadCounts,
        server_types: Vec<ServerType>,
        subscribers: Subscribers,
    ) -> ShardConfig {
        let routes = RouteTable::new(self.routes, self.dictionary.as_ref(), self.protos.as_ref())
            .with_push_policies(self.push_policies);
        let first = EditionId::FIRST;
        let schemas = Arc::new(Schemas::new(first, self.protos, &routes));
        let edition = Edition::new(first, self.heartbeat, self.dictionary, schemas, &routes);
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let measured = || measured_routes(&routes, &self.server_type, &server_types);
        let measured_routes = self.measures_routes.then(|| Arc::new(measured()));
        ShardConfig {
            server_type: self.server_type.into(),
            server_id: self.server_id.into(),
            limits: self.limits,
            heartbeat: self.heartbeat.map(|interval| Heartbeat {
                timeout: self.heartbeat_timeout.unwrap_or(interval * 2),
                kept_alive_by: self.kept_alive_by,
            }),
            on_second_bind: self.on_second_bind,
            shutdown_kick: self.shutdown_kick,
            address_setting: self.address_setting,
            health_path: self.health_path,
            heartbeat_interval: self.heartbeat,
            failures: Arc::new(FailureBodies::new(&self.codes)),
            edition: RwLock::new(Arc::new(edition)),
            #[cfg(feature = "crypto")]
            use_crypto: self.use_crypto,
            check_client: self.check_client,
            handshake: self.handshake,
            changing: Mutex::new(Changing {
                denied_hosts: Arc::new(DeniedHosts::new(self.host_filter)),
                client_rules: Arc::new(self.client_rules),
                maintenance: self.maintenance.map(Arc::new),
            }),
            listeners: self.listeners.into_iter().map(|listener| listener.config).collect(),
            routes: Arc::new(routes),
            server_types,
            subscribers,
            registers: self.registers,
            mistakes: Arc::default(),
            host: OnceLock::new(),
            started_unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX),
            connections: AtomicUsize::new(0),
            sessions_numbered: AtomicU64::new(0),
            counters: (0..counts.parties()).map(|_| Arc::default()).collect(),
            figures: Figures::new(counts.shards, counts.networks),
            measured_routes,
            spans: self.sample_every.map(|every| Arc::new(SpanQueues::new(counts.shards, every))),
            #[cfg(feature = "admin")]
            recorder: Default::default(),
        }
    }
}
