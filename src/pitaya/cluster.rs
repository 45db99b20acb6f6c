//! A Pitaya cluster, as the embedder describes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::nats::{NatsAddress, NatsLogin};
use super::servers::{Entry, ServerName};
use super::subjects;
use super::tls::ClusterTls;
use crate::files::{SECRET_BYTES_MAX, read_text_file};
use crate::log::redact_credentials;

/// Joins a Pitaya cluster as one of its frontends, over NATS and etcd: what clients send to backend
/// types is forwarded to the servers there are, and they bind, push and kick as ever
/// (docs/protocol/pitaya.md; docs/pitaya.md tells how a running game is moved over).
///
/// ```no_run
/// use shaddock::{Engine, PitayaCluster};
///
/// # fn main() -> Result<(), shaddock::StartError> {
/// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
///     .server_type("room")
///     .server_type("area");
/// let engine = Engine::builder()
///     .listen("127.0.0.1:3250")
///     .server_type("connector")
///     .pitaya(cluster)
///     .start()?;
/// # Ok(())
/// # }
/// ```
///
/// Whoever can publish on the cluster's NATS can bind, push and kick: keep it away from outsiders.
///
/// The rest of what a cluster may be told:
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Engine, PitayaCluster, PitayaLimits};
///
/// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
///     .server_type("room")
///     .prefix("game/") // As the backends have it.
///     .server_id("connector-1")
///     .hostname("10.0.0.5")
///     .metadata("region", "eu")
///     .request_timeout(Duration::from_secs(10))
///     .heartbeat_ttl(Duration::from_secs(30))
///     .resync(Duration::from_secs(60))
///     .unique_session(false)
///     .threads(2)
///     .limits(PitayaLimits { window: 50, ..PitayaLimits::default() });
/// Engine::builder().listen("127.0.0.1:3250").pitaya(cluster).check()?;
/// # Ok::<(), shaddock::StartError>(())
/// ```
#[derive(Clone)]
#[must_use = "a cluster is joined by `Builder::pitaya`"]
pub struct PitayaCluster {
    pub(crate) nats: Vec<String>,
    pub(crate) nats_login: Option<NatsLogin>,
    pub(crate) nats_tls: Option<ClusterTls>,
    pub(crate) etcd: Vec<String>,
    pub(crate) etcd_login: Option<(String, String)>,
    pub(crate) etcd_tls: Option<ClusterTls>,
    pub(crate) prefix: String,
    pub(crate) server_id: Option<String>,
    hostname: Option<String>,
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) server_types: Vec<String>,
    pub(crate) request_timeout: Duration,
    pub(crate) heartbeat_ttl: Duration,
    pub(crate) resync: Duration,
    pub(crate) unique_session: bool,
    pub(crate) threads: u16,
    pub(crate) limits: PitayaLimits,
}

/// Without the logins, which also stand in addresses.
impl std::fmt::Debug for PitayaCluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let without = |addresses: &[String]| -> Vec<String> {
            addresses.iter().map(|address| redact_credentials(address).into_owned()).collect()
        };
        f.debug_struct("PitayaCluster")
            .field("nats", &without(&self.nats))
            .field("etcd", &without(&self.etcd))
            .field("prefix", &self.prefix)
            .field("server_id", &self.server_id)
            .field("server_types", &self.server_types)
            .finish_non_exhaustive()
    }
}

/// The bounds of what one frontend keeps for its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // Built with `..PitayaLimits::default()` by every embedder.
pub struct PitayaLimits {
    /// Messages under way at one server: requests until they are answered, notifies until they are
    /// acknowledged, and both until `request_timeout` has passed since they were sent. What is
    /// above waits in order (`cluster_waits`), for `request_timeout` at most.
    ///
    /// A server of Pitaya's drops without a word what its channel of
    /// `pitaya.cluster.rpc.server.nats.buffer.messages`, which are 75, has no room for; all
    /// frontends share that. Default 25, as Pitaya's `pitaya.concurrency.handler.dispatch`.
    pub window: usize,
    /// Requests and notifies that wait or are under way. One more is refused: a request is
    /// answered PIT-500 at once, a notify dropped (`forward_rejects`). Default 262,144.
    pub calls_max: usize,
    /// Those of one server; one more is refused likewise, so that a server that is stuck leaves
    /// room for the others. Default 65,536.
    pub calls_per_server_max: usize,
    /// Bytes of what waits for one server's window, with 256 more for each message; what would be
    /// more is refused likewise. Default 8 MiB.
    pub queue_bytes_max: usize,
    /// Bytes of what waits and is under way at all servers, with 256 more for each message; what
    /// would be more is refused likewise. The connection to NATS holds copies of 1 MiB of them and
    /// of one message at most. Default 64 MiB.
    pub bytes_max: usize,
    /// Messages that wait to be sent, because NATS does not read. A request that would be one more
    /// is refused likewise, a notify and an answer to a backend are dropped (`forward_rejects`).
    /// Default 16,384.
    pub queue_len_max: usize,
    /// Calls of backends that wait for a shard. One more is answered PIT-500. Default 16,384.
    pub callers_max: usize,
    /// Servers that are called. More are left out, with a warning. Default 1,024.
    pub servers_max: usize,
    /// Bytes of the list of servers, as etcd sends it. A longer one is not read, with a warning.
    /// Default 4 MiB.
    pub list_bytes_max: usize,
}

impl Default for PitayaLimits {
    fn default() -> Self {
        Self {
            window: 25,
            calls_max: 262_144,
            calls_per_server_max: 65_536,
            queue_bytes_max: 8 * 1024 * 1024,
            bytes_max: 64 * 1024 * 1024,
            queue_len_max: 16_384,
            callers_max: 16_384,
            servers_max: 1_024,
            list_bytes_max: 4 * 1024 * 1024,
        }
    }
}

/// Pitaya's own.
const PREFIX: &str = "pitaya/";
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
const HEARTBEAT_TTL: Duration = Duration::from_secs(60);
const RESYNC: Duration = Duration::from_secs(120);

impl PitayaCluster {
    /// The cluster of some NATS and etcd servers, by their addresses: `nats://host:port`, or
    /// `tls://host:port` with TLS; and `http://host:port` or `host:port`, or `https://host:port`
    /// with TLS. Names are looked up for each connection, and all their addresses tried in turn.
    pub fn new<N: Into<String>, E: Into<String>>(
        nats: impl IntoIterator<Item = N>,
        etcd: impl IntoIterator<Item = E>,
    ) -> Self {
        Self {
            nats: nats.into_iter().map(Into::into).collect(),
            nats_login: None,
            nats_tls: None,
            etcd: etcd.into_iter().map(Into::into).collect(),
            etcd_login: None,
            etcd_tls: None,
            prefix: PREFIX.into(),
            server_id: None,
            hostname: None,
            metadata: BTreeMap::new(),
            server_types: Vec::new(),
            request_timeout: REQUEST_TIMEOUT,
            heartbeat_ttl: HEARTBEAT_TTL,
            resync: RESYNC,
            unique_session: true,
            threads: 1,
            limits: PitayaLimits::default(),
        }
    }

    /// The user and password for NATS, if they do not stand in its addresses.
    ///
    /// ```
    /// # use shaddock::PitayaCluster;
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
    ///     .nats_login("connector", "correct horse battery staple");
    /// ```
    pub fn nats_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.nats_login = Some(NatsLogin::User { user: user.into(), password: password.into() });
        self
    }

    /// The token for NATS, if it does not stand in its addresses.
    ///
    /// ```
    /// # use shaddock::PitayaCluster;
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
    ///     .nats_token("correct horse battery staple");
    /// ```
    pub fn nats_token(mut self, token: impl Into<String>) -> Self {
        self.nats_login = Some(NatsLogin::Token(token.into()));
        self
    }

    /// The seed of the NKey by which this server logs in at NATS; it begins with `SU`.
    ///
    /// ```no_run
    /// # use shaddock::PitayaCluster;
    /// # fn main() -> std::io::Result<()> {
    /// let seed = std::fs::read_to_string("/etc/game/nats.seed")?;
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
    ///     .nats_nkey(seed.trim());
    /// # Ok(())
    /// # }
    /// ```
    pub fn nats_nkey(mut self, seed: impl Into<String>) -> Self {
        self.nats_login = Some(NatsLogin::NKey(seed.into()));
        self
    }

    /// The file with a JWT and the seed of its NKey by which this server logs in at NATS, as `nsc`
    /// writes it. It is read again for each connection.
    ///
    /// ```
    /// # use shaddock::PitayaCluster;
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
    ///     .nats_credentials_file("/etc/game/connector.creds");
    /// ```
    pub fn nats_credentials_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.nats_login = Some(NatsLogin::CredentialsFile(path.into()));
        self
    }

    /// TLS to NATS, whatever its addresses begin with. Without it an address with `tls://`, and a
    /// server that wants TLS, get [`ClusterTls::new`].
    ///
    /// ```
    /// use shaddock::{ClusterTls, PitayaCluster};
    ///
    /// let tls = ClusterTls::new().ca_file("/etc/game/authority.pem");
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["https://10.0.0.3:2379"])
    ///     .nats_tls(tls.clone())
    ///     .etcd_tls(tls);
    /// ```
    pub fn nats_tls(mut self, tls: ClusterTls) -> Self {
        self.nats_tls = Some(tls);
        self
    }

    /// TLS to etcd, whose addresses all begin with `https://` then. Without it such an address gets
    /// [`ClusterTls::new`].
    pub fn etcd_tls(mut self, tls: ClusterTls) -> Self {
        self.etcd_tls = Some(tls);
        self
    }

    /// The user and password for etcd.
    ///
    /// ```
    /// # use shaddock::PitayaCluster;
    /// let cluster = PitayaCluster::new(["nats://10.0.0.2:4222"], ["http://10.0.0.3:2379"])
    ///     .etcd_login("connector", "correct horse battery staple");
    /// ```
    pub fn etcd_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.etcd_login = Some((user.into(), password.into()));
        self
    }

    /// The prefix of all keys in etcd. Default `pitaya/`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// This server's id in the cluster, where no other one may have it. Default a new UUID for each
    /// start.
    pub fn server_id(mut self, id: impl Into<String>) -> Self {
        self.server_id = Some(id.into());
        self
    }

    /// The host that this server is announced with. Default the machine's name.
    pub fn hostname(mut self, hostname: impl Into<String>) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// One more thing that others are told of this server.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// Forwards a server type to the cluster. A type that is not named here is not forwarded,
    /// whatever servers there are of it. Each message goes to a server at random, as in Pitaya;
    /// [`Builder::route`](crate::Builder::route) sets a router.
    pub fn server_type(mut self, name: impl Into<String>) -> Self {
        self.server_types.push(name.into());
        self
    }

    /// The time after which a request is answered PIT-408, to the millisecond, from when it
    /// has come, so with what it waits for its server's [`PitayaLimits::window`]; a later
    /// answer is dropped (`forward_timeouts`). Backends are told. At most
    /// [`Limits::forward_timeout`](crate::Limits). Default 5 s.
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The time that etcd remembers this server while it is silent, in whole seconds. It is
    /// told three times in that time that the server lives. Default 60 s.
    pub fn heartbeat_ttl(mut self, ttl: Duration) -> Self {
        self.heartbeat_ttl = ttl;
        self
    }

    /// The interval at which the whole list of servers is read, besides its changes. Default 120 s.
    pub fn resync(mut self, interval: Duration) -> Self {
        self.resync = interval;
        self
    }

    /// Sets whether a uid may have one session only, at all frontends of this type: Pitaya's
    /// `pitaya.session.unique`. A session whose uid is bound again, here or at another frontend, is
    /// kicked. Without it an older session at the same frontend closes without a kick, and those
    /// at others stay. What happens at the same frontend is
    /// [`Builder::single_session`](crate::Builder::single_session)'s to say where that is set.
    /// Default yes, as in Pitaya.
    pub fn unique_session(mut self, unique: bool) -> Self {
        self.unique_session = unique;
        self
    }

    /// The threads that talk to the cluster, at least 1, of which no more start than there are
    /// shards. Each has a connection to NATS and serves a part of the shards; to the cluster they
    /// are one server. The bounds of [`PitayaLimits`] are those of all threads together, in equal
    /// parts: with two threads a server gets 13 messages at a time from the one and 12 from the
    /// other. So there may be no more threads than the least of them.
    ///
    /// One thread carries what one to three busy shards forward (docs/pitaya.md, "One thread or
    /// several"). Default 1.
    pub fn threads(mut self, threads: u16) -> Self {
        self.threads = threads;
        self
    }

    /// The bounds of what is kept for the cluster.
    pub fn limits(mut self, limits: PitayaLimits) -> Self {
        self.limits = limits;
        self
    }

    /// The name that this server is announced by.
    pub(crate) fn entry(&self, server_type: &str, id: &str) -> Entry {
        Entry {
            id: id.into(),
            server_type: server_type.into(),
            metadata: self.metadata.clone(),
            frontend: true,
            hostname: self.hostname.clone().unwrap_or_else(hostname),
        }
    }

    pub(crate) fn name(server_type: &str, id: &str) -> ServerName {
        ServerName { server_type: server_type.into(), id: id.into() }
    }

    /// The fault of the description: an option, and what it must be.
    pub(crate) fn check(&self, forward_timeout: Duration) -> Result<(), (&'static str, String)> {
        let bad = |option, expected: &str| Err((option, expected.to_owned()));
        if self.server_types.is_empty() {
            return bad("pitaya.server_type", "given at least once");
        }
        if let Some(name) = self.server_types.iter().find(|name| !subjects::is_server_name(name)) {
            let expected = format!("a name without spaces and `/`, not `{name}`");
            return Err(("pitaya.server_type", expected));
        }
        if self.server_id.as_ref().is_some_and(|id| !subjects::is_server_name(id)) {
            return bad("pitaya.server_id", "a name without spaces and `/`");
        }
        if self.prefix.is_empty() {
            return bad("pitaya.prefix", "what keys begin with, such as pitaya/");
        }
        if self.nats.is_empty() || !self.nats.iter().all(|url| NatsAddress::parse(url).is_some()) {
            return bad("pitaya.nats", "addresses like nats://127.0.0.1:4222 or tls://nats-1:4222");
        }
        if let Some(Err(error)) = self.nats_login.as_ref().map(NatsLogin::check) {
            return Err(("pitaya.nats_nkey", format!("usable: {error}")));
        }
        if let Some(NatsLogin::CredentialsFile(path)) = &self.nats_login
            && let Err(error) = read_text_file(path, SECRET_BYTES_MAX)
        {
            let expected = format!("a file that can be read, not {}: {error}", path.display());
            return Err(("pitaya.nats_credentials", expected));
        }
        if self.etcd.is_empty() || !self.etcd.iter().all(|url| etcd_uri(url).is_some()) {
            return bad("pitaya.etcd", "addresses like http://127.0.0.1:2379");
        }
        let is_encrypted = |address: &String| address.starts_with("https://");
        if self.etcd_tls.is_some() && !self.etcd.iter().all(is_encrypted) {
            return bad("pitaya.etcd", "addresses like https://etcd-1:2379, as TLS is asked for");
        }
        for (option, tls) in
            [("pitaya.nats_ca", &self.nats_tls), ("pitaya.etcd_ca", &self.etcd_tls)]
        {
            if let Some(Err(error)) = tls.as_ref().map(ClusterTls::client_config) {
                return Err((option, format!("files of certificates and keys: {error}")));
            }
        }
        if self.request_timeout.as_millis() == 0 || self.request_timeout > forward_timeout {
            let max_ms = forward_timeout.as_millis();
            let expected = format!("1 ms to {max_ms} ms, which is the limit forward_timeout");
            return Err(("pitaya.request_timeout", expected));
        }
        if self.heartbeat_ttl.as_secs() == 0 {
            return bad("pitaya.heartbeat_ttl", "1 s or more");
        }
        if self.resync.as_millis() == 0 {
            return bad("pitaya.resync", "1 ms or more");
        }
        self.check_limits()
    }

    fn check_limits(&self) -> Result<(), (&'static str, String)> {
        let limits = &self.limits;
        // Bounds of which each thread has a part.
        let divided = [
            ("pitaya.window", limits.window),
            ("pitaya.calls_max", limits.calls_max),
            ("pitaya.calls_per_server_max", limits.calls_per_server_max),
            ("pitaya.queue_bytes_max", limits.queue_bytes_max),
            ("pitaya.bytes_max", limits.bytes_max),
            ("pitaya.queue_len_max", limits.queue_len_max),
            ("pitaya.callers_max", limits.callers_max),
        ];
        let whole = [
            ("pitaya.servers_max", limits.servers_max),
            ("pitaya.list_bytes_max", limits.list_bytes_max),
        ];
        if let Some((option, _)) = divided.iter().chain(&whole).find(|(_, limit)| *limit == 0) {
            return Err((option, "at least 1".to_owned()));
        }
        let threads_max = divided.iter().min_by_key(|(_, limit)| *limit);
        if let Some((option, limit)) = threads_max
            && !(1..=*limit).contains(&self.threads.into())
        {
            let expected = format!("1 to {limit}, as each has a part of {option}");
            return Err(("pitaya.threads", expected));
        }
        Ok(())
    }
}

/// The URI of an etcd server.
pub(crate) fn etcd_uri(address: &str) -> Option<http::Uri> {
    let with_scheme = match address.contains("://") {
        true => address.to_owned(),
        false => format!("http://{address}"),
    };
    let uri: http::Uri = with_scheme.parse().ok()?;
    (matches!(uri.scheme_str(), Some("http" | "https")) && uri.port().is_some()).then_some(uri)
}

fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster() -> PitayaCluster {
        PitayaCluster::new(["nats://127.0.0.1:4222"], ["127.0.0.1:2379"]).server_type("room")
    }

    #[test]
    fn its_debug_text_has_no_logins() {
        let cluster = PitayaCluster::new(["nats://amy:secret@h"], ["http://amy:secret@h"])
            .nats_login("amy", "secret")
            .etcd_login("amy", "secret");
        let text = format!("{cluster:?}");
        assert!(text.contains("nats://***@h") && !text.contains("secret"), "{text}");
        for cluster in [
            cluster.clone().nats_token("secret"),
            cluster.clone().nats_nkey("SUsecret"),
            cluster.nats_credentials_file("/run/credentials"),
        ] {
            let text = format!("{cluster:?}");
            assert!(!text.contains("secret") && !text.contains("amy"), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let minute = Duration::from_secs(60);
        assert_eq!(cluster().check(minute), Ok(()));
        let of = |nats: &[&str], etcd: &[&str]| {
            let (nats, etcd) = (nats.iter().copied(), etcd.iter().copied());
            PitayaCluster::new(nats, etcd).server_type("room")
        };
        let (nats, etcd) = ("127.0.0.1:4222", "127.0.0.1:2379");
        let no_calls = PitayaLimits { calls_max: 0, ..PitayaLimits::default() };
        let one_call = PitayaLimits { calls_max: 1, ..PitayaLimits::default() };
        for (bad, option, named) in [
            (PitayaCluster::new([nats], [etcd]), "server_type", "once"),
            (cluster().server_type("a/b"), "server_type", "`a/b`"),
            (cluster().server_id("a/b"), "server_id", "`/`"),
            (cluster().prefix(""), "prefix", "pitaya/"),
            (of(&[], &[etcd]), "nats", "nats://127.0.0.1:4222"),
            (of(&["ftp://h:1"], &[etcd]), "nats", "nats://"),
            (of(&[nats], &[]), "etcd", "http://127.0.0.1:2379"),
            (of(&[nats], &["ftp://h:1"]), "etcd", "http://"),
            (of(&[nats], &[etcd]).etcd_tls(ClusterTls::new()), "etcd", "https://"),
            (cluster().nats_nkey("SUX"), "nats_nkey", "SU"),
            (cluster().nats_credentials_file("/nowhere"), "nats_credentials", "/nowhere"),
            (cluster().nats_tls(ClusterTls::new().ca_file("/nowhere")), "nats_ca", "/nowhere"),
            (of(&[nats], &["host"]), "etcd", "http://"),
            (cluster().request_timeout(Duration::ZERO), "request_timeout", "1 ms"),
            (cluster().request_timeout(minute * 2), "request_timeout", "60000 ms"),
            (cluster().heartbeat_ttl(Duration::from_millis(900)), "heartbeat_ttl", "1 s"),
            (cluster().resync(Duration::ZERO), "resync", "1 ms"),
            (cluster().limits(no_calls), "calls_max", "at least 1"),
            (cluster().threads(0), "threads", "1 to 25"),
            (cluster().threads(26), "threads", "window"),
            (
                cluster().threads(2).limits(one_call),
                "threads",
                "1 to 1, as each has a part of pitaya.calls_max",
            ),
        ] {
            let (found, expected) = bad.check(minute).unwrap_err();
            assert_eq!(found, format!("pitaya.{option}"));
            assert!(expected.contains(named), "{option}: {expected}");
        }
    }

    #[test]
    fn etcds_address_needs_no_scheme() {
        let text = |address| etcd_uri(address).map(|uri| uri.to_string());
        assert_eq!(text("h:2379").as_deref(), Some("http://h:2379/"));
        assert_eq!(text("http://[::1]:2379").as_deref(), Some("http://[::1]:2379/"));
    }
}
