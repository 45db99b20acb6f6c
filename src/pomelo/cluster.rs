//! A Pomelo cluster, as the embedder describes it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::master::Registration;
use super::router::Router;
use super::rpc::RemoteName;
use super::servers::Server;
use crate::forward::ServerId;

/// Joins a Pomelo cluster in the place of one of its Node frontends: what clients send to backend
/// types is forwarded to the Node servers there are, and they bind, push and kick as ever
/// (docs/protocol/rpc.md; docs/pomelo.md tells how a running game is moved over).
///
/// ```no_run
/// use std::time::Duration;
/// use shaddock::{Engine, PomeloCluster, Router};
///
/// # fn main() -> Result<(), shaddock::StartError> {
/// let cluster = PomeloCluster::new("127.0.0.1:3005")
///     .token("agarxhqb98rpajloaxn34ga8xrunpagkjwlaw3ruxnpaagl29w4rxn")
///     .listen("127.0.0.1:4050")
///     .server_type("chat", Router::Default)
///     .server_type("area", Router::LeastActive)
///     .call_timeout(Duration::from_secs(10));
/// let engine = Engine::builder()
///     .listen("127.0.0.1:3010")
///     .server_type("connector")
///     .server_id("connector-server-1")
///     .pomelo(cluster)
///     .start()?;
/// # Ok(())
/// # }
/// ```
///
/// Neither the master's connection nor those between servers know any authentication in Pomelo but
/// the token: keep [`listen`](Self::listen) on an address that only the cluster reaches.
///
/// The rest of what a cluster may be told, on a machine with an address of its own for players:
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Engine, PomeloCluster, PomeloLimits, Router};
///
/// let (stop, _stopped) = std::sync::mpsc::channel();
/// let cluster = PomeloCluster::new("10.0.0.1:3005")
///     .env("development")
///     .listen("0.0.0.0:4050")
///     .advertise("10.0.0.5") // To backends.
///     .client_host("eu-1.game.example") // To players.
///     .client_port(443)
///     .server_info("region", "eu")
///     .server_type("chat", Router::ConsistentHash)
///     .keepalive(Duration::from_secs(5))
///     .limits(PomeloLimits { calls_max: 10_000, ..PomeloLimits::default() })
///     .on_stop(move || _ = stop.send(()));
/// Engine::builder().listen("127.0.0.1:3010").pomelo(cluster).check()?;
/// # Ok::<(), shaddock::StartError>(())
/// ```
#[derive(Clone)]
#[must_use = "a cluster is joined by `Builder::pomelo`"]
pub struct PomeloCluster {
    /// The master's address; none if the cluster is fixed.
    master: Option<String>,
    servers: Vec<FixedServer>,
    token: String,
    env: String,
    listen: String,
    advertise: Option<String>,
    client_host: Option<String>,
    client_port: Option<u16>,
    server_info: Map<String, Value>,
    pub(crate) server_types: Vec<(String, Router)>,
    pub(crate) call_timeout: Duration,
    pub(crate) keepalive: Duration,
    pub(crate) limits: PomeloLimits,
    pub(crate) hooks: Vec<(Occasion, String, Vec<ClosedArg>)>,
    pub(crate) on_stop: Option<StopHook>,
}

/// The occasions on which a remote of the game's is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Occasion {
    Bound,
    Closed,
}

/// A function that runs when the master asks the server to stop.
#[derive(Clone)]
pub(crate) struct StopHook(pub(crate) Arc<dyn Fn() + Send + Sync>);

impl fmt::Debug for StopHook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StopHook")
    }
}

/// Without the token.
impl std::fmt::Debug for PomeloCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PomeloCluster")
            .field("master", &self.master)
            .field("servers", &self.servers)
            .field("listen", &self.listen)
            .field("server_types", &self.server_types)
            .finish_non_exhaustive()
    }
}

/// A server that nobody announces.
#[derive(Debug, Clone)]
struct FixedServer {
    id: String,
    server_type: String,
    address: String,
    weight: u32,
}

/// The bounds of what one frontend keeps for its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Built with `..PomeloLimits::default()` by every embedder.
pub struct PomeloLimits {
    /// Calls that wait for one server's answers. A request that would be one more is answered 500
    /// at once, a notify is dropped (`forward_rejects`). Default 262,144.
    pub calls_max: usize,
    /// Calls made to one server while its connection is being made; one more is refused likewise.
    /// Default 10,000, Pomelo's `pendingSize`.
    pub queue_len_max: usize,
    /// Bytes waiting to be sent on one connection. A call to a server that does not read is
    /// refused above it likewise; a backend that calls and does not read its answers is cut off
    /// (`cluster_overflows`). Default 32 MiB.
    pub output_bytes_max: usize,
    /// Bytes of memory for what waits to be sent on all connections together, beside 64 KiB that
    /// each may always have. A call that would be above it is refused likewise, and a backend that
    /// does not read its answers is cut off likewise. Default 256 MiB.
    pub output_total_bytes_max: usize,
    /// Bytes of one packet from a server. A longer one ends the connection
    /// (`cluster_bad_packets`). Memory is taken as the bytes come. Default 32 MiB, for the master
    /// 4 MiB at most.
    pub packet_bytes_max: usize,
    /// Bytes of memory for packets that have come in part on all connections together, beside
    /// 64 KiB that each may always have. A connection that needs more is closed
    /// (`cluster_overflows`). Default 256 MiB.
    pub input_total_bytes_max: usize,
    /// Uids of one push. A push to more is refused with an error. Default 1,048,576.
    pub push_uids_max: usize,
    /// Connections of backends that call us. One more is closed at once. Default 1,024.
    pub callers_max: usize,
    /// Servers of the list that are called. More are left out, with a warning. Default 1,024.
    pub servers_max: usize,
    /// Names that are looked up at a time, each on a thread of its own; others wait for their turn
    /// (`lookup_waits`), those whose last look-up failed behind all others. Default 4.
    pub lookups_max: usize,
}

impl Default for PomeloLimits {
    fn default() -> Self {
        Self {
            calls_max: 262_144,
            queue_len_max: 10_000,
            output_bytes_max: 32 * 1024 * 1024,
            output_total_bytes_max: 256 * 1024 * 1024,
            packet_bytes_max: 32 * 1024 * 1024,
            input_total_bytes_max: 256 * 1024 * 1024,
            push_uids_max: 1_048_576,
            callers_max: 1_024,
            servers_max: 1_024,
            lookups_max: 4,
        }
    }
}

/// An argument of a backend's remote that is told of sessions that end, or get a uid.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClosedArg {
    /// Its uid.
    Uid,
    /// Its number, which backends know as `session.id`.
    SessionId,
    /// The id of the frontend it was on.
    FrontendId,
    /// One of its settings; `null` if it had none of that name.
    Setting(String),
    /// All of it: `{"id","frontendId","uid","settings"}`.
    Session,
}

/// Pomelo's own.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
const KEEPALIVE: Duration = Duration::from_secs(10);
const TOKEN_WITHOUT_FILE: &str = "ok";
/// The members of a server's entry that the cluster's description says otherwise.
const OWN_INFO: [&str; 8] =
    ["id", "serverType", "host", "port", "clientHost", "clientPort", "frontend", "env"];
/// The default of [`PomeloCluster::listen`].
const LISTEN_ANYWHERE: &str = "127.0.0.1:0";

impl PomeloCluster {
    /// The cluster of a master, by its `host:port` from the game's `master.json`.
    pub fn new(master: impl Into<String>) -> Self {
        Self::of(Some(master.into()))
    }

    /// A cluster without a master: its servers are named by [`server`](Self::server), and have to
    /// know this frontend's id, host and port from elsewhere to call it.
    ///
    /// ```
    /// use shaddock::{Engine, PomeloCluster, Router};
    ///
    /// let cluster = PomeloCluster::fixed()
    ///     .server("chat-1", "chat", "10.0.0.7:6050")
    ///     .weighted_server("area-1", "area", "10.0.0.8:6150", 1)
    ///     .weighted_server("area-2", "area", "10.0.0.9:6150", 3) // A larger machine.
    ///     .server_type("chat", Router::Default)
    ///     .server_type("area", Router::Weighted);
    /// Engine::builder().listen("127.0.0.1:3010").pomelo(cluster).check()?;
    /// # Ok::<(), shaddock::StartError>(())
    /// ```
    pub fn fixed() -> Self {
        Self::of(None)
    }

    fn of(master: Option<String>) -> Self {
        Self {
            master,
            servers: Vec::new(),
            token: TOKEN_WITHOUT_FILE.into(),
            env: "production".into(),
            listen: LISTEN_ANYWHERE.into(),
            advertise: None,
            client_host: None,
            client_port: None,
            server_info: Map::new(),
            server_types: Vec::new(),
            call_timeout: CALL_TIMEOUT,
            keepalive: KEEPALIVE,
            limits: PomeloLimits::default(),
            hooks: Vec::new(),
            on_stop: None,
        }
    }

    /// A server of a fixed cluster: its id, its type and the `host:port` of its RPC.
    pub fn server(
        self,
        id: impl Into<String>,
        server_type: impl Into<String>,
        address: impl Into<String>,
    ) -> Self {
        self.weighted_server(id, server_type, address, 1)
    }

    /// A server of a fixed cluster, with the weight that [`Router::Weighted`] gives it.
    pub fn weighted_server(
        mut self,
        id: impl Into<String>,
        server_type: impl Into<String>,
        address: impl Into<String>,
        weight: u32,
    ) -> Self {
        let (id, server_type, address) = (id.into(), server_type.into(), address.into());
        self.servers.push(FixedServer { id, server_type, address, weight });
        self
    }

    /// The token of this server type in the game's `adminServer.json`; `ok` if there is no such
    /// file.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = token.into();
        self
    }

    /// The environment that this server is announced with. Default `production`.
    pub fn env(mut self, env: impl Into<String>) -> Self {
        self.env = env.into();
        self
    }

    /// The address at which backends call this frontend, as `host:port`: Pomelo's `port`. Default a
    /// free port of 127.0.0.1.
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = address.into();
        self
    }

    /// The host by which others reach this machine, if that is not the one that it listens on:
    /// needed where that is `0.0.0.0`.
    pub fn advertise(mut self, host: impl Into<String>) -> Self {
        self.advertise = Some(host.into());
        self
    }

    /// The host that gates hand to players: `clientHost` in this server's entry. Default the first
    /// listener's address, or where it listens on all of them, the host that backends call.
    pub fn client_host(mut self, host: impl Into<String>) -> Self {
        self.client_host = Some(host.into());
        self
    }

    /// The port that gates hand to players, if that is not the first listener's: `clientPort` in
    /// this server's entry.
    pub fn client_port(mut self, port: u16) -> Self {
        self.client_port = Some(port);
        self
    }

    /// One more member of this server's entry, for gates and whoever else reads it: what a game
    /// has in its `servers.json` beside Pomelo's own members, such as `wsHost` or `region`.
    pub fn server_info(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.server_info.insert(name.into(), value.into());
        self
    }

    /// Forwards a server type to the cluster. A type that is not named here is not forwarded,
    /// whatever servers there are of it. [`Builder::route`](crate::Builder::route) may replace the
    /// router.
    pub fn server_type(mut self, name: impl Into<String>, router: Router) -> Self {
        self.server_types.push((name.into(), router));
        self
    }

    /// The time after which a call's request is answered 500, to the millisecond; a
    /// later answer is dropped (`forward_timeouts`). At most
    /// [`Limits::forward_timeout`](crate::Limits). Default 30 s.
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The interval of pings on a connection; one that does not answer for twice as long is closed.
    /// Default 10 s.
    pub fn keepalive(mut self, interval: Duration) -> Self {
        self.keepalive = interval;
        self
    }

    /// The bounds of what is kept for the cluster.
    pub fn limits(mut self, limits: PomeloLimits) -> Self {
        self.limits = limits;
        self
    }

    /// Calls a remote of the game's, named `serverType.service.method`, for every bound session
    /// that ends, on the server that the type's router gives for it. Pomelo has no such thing: its
    /// games listen in the frontend's own code (docs/protocol/differences.md, "Compatibility",
    /// C23).
    ///
    /// Nobody waits for the answer. A call that finds no connection is lost (`forward_lost`).
    ///
    /// ```
    /// use shaddock::{ClosedArg, Engine, PomeloCluster, Router};
    ///
    /// let room = ClosedArg::Setting("room".into());
    /// let cluster = PomeloCluster::new("127.0.0.1:3005")
    ///     .server_type("chat", Router::Default)
    ///     .on_bound("chat.userRemote.enter", [ClosedArg::Uid, ClosedArg::FrontendId])
    ///     .on_closed("chat.userRemote.leave", [ClosedArg::Uid, room]);
    /// Engine::builder().listen("127.0.0.1:3010").pomelo(cluster).check()?;
    /// # Ok::<(), shaddock::StartError>(())
    /// ```
    pub fn on_closed(
        mut self,
        remote: impl Into<String>,
        args: impl IntoIterator<Item = ClosedArg>,
    ) -> Self {
        self.hooks.push((Occasion::Closed, remote.into(), args.into_iter().collect()));
        self
    }

    /// Calls a remote likewise for every session that gets a uid, whoever has bound it.
    pub fn on_bound(
        mut self,
        remote: impl Into<String>,
        args: impl IntoIterator<Item = ClosedArg>,
    ) -> Self {
        self.hooks.push((Occasion::Bound, remote.into(), args.into_iter().collect()));
        self
    }

    /// Does something when `pomelo stop` or `pomelo kill` asks this server to stop, such as to tell
    /// the thread that will call [`Engine::shutdown`](crate::Engine::shutdown). It runs on the
    /// thread that talks to the cluster, so it must not block. Without it such a request is logged
    /// and nothing else.
    pub fn on_stop(mut self, stop: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_stop = Some(StopHook(Arc::new(stop)));
        self
    }

    /// The server types that are forwarded.
    pub(crate) fn server_types(&self) -> impl Iterator<Item = &str> {
        self.server_types.iter().map(|(name, _)| name.as_str())
    }

    /// True if anybody is told of sessions that end.
    pub(crate) fn wants_ends(&self) -> bool {
        self.hooks.iter().any(|(occasion, ..)| *occasion == Occasion::Closed)
    }

    /// True if anybody is told of sessions that get a uid.
    pub(crate) fn wants_logins(&self) -> bool {
        self.hooks.iter().any(|(occasion, ..)| *occasion == Occasion::Bound)
    }

    pub(crate) fn rpc_address(&self) -> &str {
        &self.listen
    }

    pub(crate) fn master(&self) -> Option<&str> {
        self.master.as_deref()
    }

    /// The fault of the description: an option, and what it must be.
    pub(crate) fn check(&self, forward_timeout: Duration) -> Result<(), (&'static str, String)> {
        let bad = |option, expected: &str| Err((option, expected.to_owned()));
        if self.server_types.is_empty() {
            return bad("pomelo.server_type", "given at least once");
        }
        if self.call_timeout.as_millis() == 0 || self.call_timeout > forward_timeout {
            let max_ms = forward_timeout.as_millis();
            let expected = format!("1 ms to {max_ms} ms, which is the limit forward_timeout");
            return Err(("pomelo.call_timeout", expected));
        }
        if self.keepalive.as_millis() == 0 {
            return bad("pomelo.keepalive", "1 ms or more");
        }
        let limits = &self.limits;
        for (option, limit) in [
            ("pomelo.calls_max", limits.calls_max),
            ("pomelo.queue_len_max", limits.queue_len_max),
            ("pomelo.output_bytes_max", limits.output_bytes_max),
            ("pomelo.output_total_bytes_max", limits.output_total_bytes_max),
            ("pomelo.packet_bytes_max", limits.packet_bytes_max),
            ("pomelo.input_total_bytes_max", limits.input_total_bytes_max),
            ("pomelo.push_uids_max", limits.push_uids_max),
            ("pomelo.callers_max", limits.callers_max),
            ("pomelo.servers_max", limits.servers_max),
            ("pomelo.lookups_max", limits.lookups_max),
        ] {
            if limit == 0 {
                return bad(option, "at least 1");
            }
        }
        if self.client_port == Some(0) {
            return bad("pomelo.client_port", "1 to 65535");
        }
        if let Some(name) = self.server_info.keys().find(|name| OWN_INFO.contains(&name.as_str())) {
            let expected = format!("without `{name}`, which is told of other keys");
            return Err(("pomelo.server_info", expected));
        }
        for (occasion, remote, _) in &self.hooks {
            let name = RemoteName::parse(remote);
            if !name.is_some_and(|name| self.server_types().any(|other| other == name.server_type))
            {
                let expected = format!(
                    "serverType.service.method of a type that is forwarded, not `{remote}`"
                );
                let option = match occasion {
                    Occasion::Bound => "pomelo.on_bound",
                    Occasion::Closed => "pomelo.on_closed",
                };
                return Err((option, expected));
            }
        }
        match &self.master {
            Some(master) if host_and_port(master).is_none() => {
                return bad("pomelo.master", "an address like 127.0.0.1:3005");
            }
            Some(_) if !self.servers.is_empty() => {
                return bad("pomelo.server", "left out where there is a master");
            }
            _ => {}
        }
        self.fixed_servers().map(drop).map_err(|address| {
            ("pomelo.server", format!("at an address like 127.0.0.1:6050, not `{address}`"))
        })
    }

    /// True if others learn a host to call this server at, if it listens there.
    pub(crate) fn is_reachable(&self, listen: SocketAddr) -> bool {
        self.master.is_none() || self.advertise.is_some() || !listen.ip().is_unspecified()
    }

    /// The servers of a fixed cluster; or the address that is none.
    pub(crate) fn fixed_servers(&self) -> Result<Vec<Server>, String> {
        let server = |server: &FixedServer| {
            let address = &server.address;
            let (host, port) = host_and_port(address).ok_or_else(|| address.clone())?;
            let (id, server_type) = (ServerId::from(&*server.id), server.server_type.clone());
            Ok(Server { id, server_type, host, port, weight: server.weight })
        };
        self.servers.iter().map(server).collect()
    }

    /// The registration at the master, once it is known where backends and clients connect.
    pub(crate) fn registration(
        &self,
        id: &str,
        server_type: &str,
        rpc: SocketAddr,
        clients: SocketAddr,
        resident_bytes: fn() -> u64,
    ) -> Registration {
        let host = self.advertise.clone().unwrap_or_else(|| rpc.ip().to_string());
        // `frontend` has to be text: others test for it.
        let client_host = match (&self.client_host, clients.ip()) {
            (Some(host), _) => host.clone(),
            (None, ip) if ip.is_unspecified() => host.clone(),
            (None, ip) => ip.to_string(),
        };
        let mut info: Value = json!({
            "id": id,
            "serverType": server_type,
            "host": host,
            "port": rpc.port(),
            "clientHost": client_host,
            "clientPort": self.client_port.unwrap_or_else(|| clients.port()),
            "frontend": "true",
            "env": self.env,
        });
        for (name, value) in &self.server_info {
            info[name.as_str()] = value.clone();
        }
        Registration {
            id: id.into(),
            server_type: server_type.into(),
            token: self.token.clone(),
            pid: std::process::id(),
            info,
            resident_bytes,
        }
    }
}

/// Takes an address apart; a host in brackets is an IPv6 address.
pub(crate) fn host_and_port(address: &str) -> Option<(String, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| (host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> PomeloCluster {
        PomeloCluster::fixed().server_type("chat", Router::Default)
    }

    #[test]
    fn what_is_wrong_is_said() {
        let minute = Duration::from_secs(60);
        assert_eq!(cluster().check(minute), Ok(()));
        let no_calls = PomeloLimits { calls_max: 0, ..PomeloLimits::default() };
        let master = |address| PomeloCluster::new(address).server_type("chat", Router::Default);
        for (bad, option, named) in [
            (PomeloCluster::fixed(), "server_type", "once"),
            (cluster().call_timeout(Duration::ZERO), "call_timeout", "1 ms"),
            (cluster().call_timeout(minute * 2), "call_timeout", "60000 ms"),
            (cluster().keepalive(Duration::ZERO), "keepalive", "1 ms"),
            (cluster().on_closed("chat.drop", []), "on_closed", "`chat.drop`"),
            (
                cluster().on_closed("area.areaRemote.drop", []),
                "on_closed",
                "`area.areaRemote.drop`",
            ),
            (cluster().server("chat-1", "chat", "127.0.0.1"), "server", "`127.0.0.1`"),
            (master("master"), "master", "127.0.0.1:3005"),
            (master("h:1").server("chat-1", "chat", "h:2"), "server", "left out"),
            (cluster().limits(no_calls), "calls_max", "at least 1"),
            (cluster().client_port(0), "client_port", "65535"),
            (cluster().server_info("host", "h"), "server_info", "`host`"),
        ] {
            let (at, text) = bad.check(minute).unwrap_err();
            assert_eq!(at.strip_prefix("pomelo."), Some(option));
            assert!(text.contains(named), "{text}");
        }
        let everywhere = "0.0.0.0:4050".parse().unwrap();
        assert!(!master("h:1").is_reachable(everywhere));
        assert!(master("h:1").advertise("h").is_reachable(everywhere));
        assert!(cluster().is_reachable(everywhere));
    }

    #[test]
    fn its_debug_text_has_no_token() {
        let text = format!("{:?}", cluster().token("secret"));
        assert!(!text.contains("secret"), "{text}");
    }

    #[test]
    fn addresses_are_taken_apart() {
        let apart = |text| host_and_port(text).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(apart("127.0.0.1:3005").as_deref(), Some("127.0.0.1 3005"));
        assert_eq!(apart("[::1]:3005").as_deref(), Some("::1 3005"));
        assert_eq!(apart("backend.local:1").as_deref(), Some("backend.local 1"));
        for bad in ["", "127.0.0.1", ":1", "h:", "h:0", "h:65536", "h:x"] {
            assert_eq!(apart(bad), None, "{bad}");
        }
    }
}
