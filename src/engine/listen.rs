//! Listening sockets: one for each shard and listener, those of one listener all on its address.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use socket2::{Domain, Protocol, Socket, Type};

use super::tcp_options::{Refused, TcpOptions};
use crate::dispatch::HostRule;
use crate::error::{EngineOption, StartError};
use crate::shard::{Dialect, ListenerConfig};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::wire::pitaya::{Compression, Serializer};

/// One address where an engine listens. Text is enough for most: [`Builder::listen`] takes it too.
///
/// ```
/// use shaddock::{Engine, Listener};
///
/// let builder = Engine::builder().listen("0.0.0.0:3010").listen(Listener::new("[::1]:3011"));
/// ```
///
/// Behind a balancer or reverse proxy a listener is told how to learn the clients' addresses, and
/// whose word to take:
///
/// ```
/// use shaddock::Listener;
///
/// let listener = Listener::new("0.0.0.0:3010")
///     .trusted_proxies(["10.0.0.0/8".parse()?])
///     .real_ip_header("X-Forwarded-For");
/// # Ok::<(), shaddock::HostFilterError>(())
/// ```
///
/// [`Builder::listen`]: crate::Builder::listen
#[derive(Debug, Clone)]
pub struct Listener {
    address: String,
    pub(super) config: ListenerConfig,
    tcp: TcpOptions,
}

impl Listener {
    /// Listens on an address with its port, like `0.0.0.0:3010` or `[::]:3010`; `localhost:3010`
    /// and other names stand for the first of their addresses, IPv4 before IPv6, and `:3010` or
    /// `3010` for all of the machine's. A port of 0 stands for a free one; see
    /// [`Engine::local_addr`](crate::Engine::local_addr).
    ///
    /// `[::]` takes IPv4 clients too, unless another listener has the port for IPv4.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            config: ListenerConfig::default(),
            tcp: TcpOptions::default(),
        }
    }

    /// Expects each connection to start with a PROXY header (version 1 or 2), and takes the
    /// client's address from it.
    ///
    /// Peers that are no [`trusted_proxies`](Self::trusted_proxies) are closed at once
    /// (`refused_proxy`), and so is a connection that starts with anything else (`bad_proxy`).
    /// Clients that come without a proxy need a listener of their own.
    ///
    /// ```
    /// use shaddock::Listener;
    ///
    /// let listener = Listener::new("0.0.0.0:3011")
    ///     .proxy_protocol()
    ///     .trusted_proxies(["10.0.0.0/8".parse()?]);
    /// # Ok::<(), shaddock::HostFilterError>(())
    /// ```
    #[must_use]
    pub fn proxy_protocol(mut self) -> Self {
        self.config.expects_proxy = true;
        self
    }

    /// Takes the client's address from a header of the request that opens a WebSocket, like
    /// `X-Forwarded-For` or `X-Real-IP`.
    ///
    /// Only [`trusted_proxies`](Self::trusted_proxies) are believed. Of a list, the address counts
    /// that stands furthest to the right and is none of theirs; see
    /// [`client_address`](crate::wire::forwarded::client_address).
    #[must_use]
    pub fn real_ip_header(mut self, name: impl Into<String>) -> Self {
        self.config.real_ip_header = Some(name.into().into());
        self
    }

    /// Lets browsers open a WebSocket from pages of these origins only, like
    /// `https://game.example`; from others they are answered 403 (`refused_origin`). 64 at most.
    ///
    /// Without it pages of any site may connect in their visitors' name. A request without the
    /// header `Origin` is accepted: browsers always send one, and other clients may send any.
    ///
    /// ```
    /// use shaddock::Listener;
    ///
    /// let listener = Listener::new("0.0.0.0:3010").origins(["https://game.example"]);
    /// ```
    #[must_use]
    pub fn origins<T: Into<String>>(mut self, origins: impl IntoIterator<Item = T>) -> Self {
        self.config.origins = origins.into_iter().map(|origin| origin.into().into()).collect();
        self
    }

    /// Sets options of the kernel's TCP for its connections; see [`TcpOptions`].
    ///
    /// ```
    /// use shaddock::{Listener, TcpOptions};
    ///
    /// let listener = Listener::new("0.0.0.0:3010").tcp(TcpOptions::new().thin(true));
    /// ```
    #[must_use]
    pub fn tcp(mut self, options: TcpOptions) -> Self {
        self.tcp = options;
        self
    }

    /// Speaks TLS: raw TCP inside it, or WebSocket (WSS), as on a plain listener.
    ///
    /// ```no_run
    /// use shaddock::{Listener, Tls};
    ///
    /// # fn main() -> Result<(), shaddock::TlsError> {
    /// let tls = Tls::from_files("/etc/game/fullchain.pem", "/etc/game/key.pem")?;
    /// let listener = Listener::new("0.0.0.0:3443").tls(tls);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.config.tls = Some(tls);
        self
    }

    /// The addresses and blocks of the proxies whose word on the client's address is taken.
    /// 1,024 at most.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: impl IntoIterator<Item = HostRule>) -> Self {
        self.config.trusted_proxies = proxies.into_iter().collect();
        self
    }

    /// Speaks another dialect of the protocol with its clients: Pitaya's (docs/protocol/pitaya.md,
    /// "Client dialect").
    ///
    /// Everything else is as on any listener, and sessions of both dialects meet in one engine:
    /// a push or broadcast reaches each in its own.
    ///
    /// ```
    /// use shaddock::wire::pitaya::Serializer;
    /// use shaddock::{Dialect, Engine, Listener};
    ///
    /// let builder = Engine::builder()
    ///     .listen("0.0.0.0:3010")
    ///     .listen(Listener::new("0.0.0.0:3250").dialect(Dialect::Pitaya))
    ///     .listen(
    ///         Listener::new("0.0.0.0:3251")
    ///             .dialect(Dialect::Pitaya)
    ///             .serializer(Serializer::Protobuf),
    ///     );
    /// ```
    #[must_use]
    pub fn dialect(mut self, dialect: Dialect) -> Self {
        self.config.dialect = dialect;
        self
    }

    /// Writes bodies another way in Pitaya's dialect than in JSON. It is told to clients, and
    /// errors are written that way; other bodies are what handlers and backends make them.
    #[must_use]
    pub fn serializer(mut self, serializer: Serializer) -> Self {
        self.config.serializer = serializer;
        self
    }

    /// Compresses bodies in Pitaya's dialect or leaves them; by default they are compressed where
    /// that makes them shorter and they are long enough to be tried:
    /// [`COMPRESS_BYTES_MIN`](crate::wire::pitaya::COMPRESS_BYTES_MIN) or more.
    ///
    /// ```
    /// use shaddock::wire::pitaya::Compression;
    /// use shaddock::{Dialect, Listener};
    ///
    /// let listener = Listener::new("0.0.0.0:3250")
    ///     .dialect(Dialect::Pitaya)
    ///     .compression(Compression::Off);
    /// ```
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.config.compression = compression;
        self
    }

    /// True if its clients speak Pitaya's dialect, and so know nothing of signatures.
    #[cfg(feature = "crypto")]
    pub(super) fn is_pitaya(&self) -> bool {
        self.config.dialect == Dialect::Pitaya
    }

    /// Checks that its options fit together.
    pub(super) fn check(&self) -> Result<(), StartError> {
        let bad = |option, expected: &str| {
            Err(StartError::Option { option, expected: format!("{expected} ({})", self.address) })
        };
        let ListenerConfig { expects_proxy, trusted_proxies, real_ip_header, .. } = &self.config;
        if trusted_proxies.len() > TRUSTED_PROXIES_MAX {
            return bad(EngineOption::TrustedProxies, "1024 rules at most");
        }
        if *expects_proxy && trusted_proxies.is_empty() {
            return bad(EngineOption::ProxyProtocol, "given together with trusted_proxies");
        }
        if self.config.origins.len() > ORIGINS_MAX {
            return bad(EngineOption::Origins, "64 at most");
        }
        if !self.config.origins.iter().all(|origin| is_origin(origin)) {
            return bad(
                EngineOption::Origins,
                "each a scheme and a host, like https://game.example",
            );
        }
        let is_pomelo = self.config.dialect == Dialect::Pomelo;
        if is_pomelo && self.config.serializer != Serializer::default() {
            return bad(EngineOption::Serializer, "given together with Pitaya's dialect");
        }
        if is_pomelo && self.config.compression != Compression::default() {
            return bad(EngineOption::Compression, "given together with Pitaya's dialect");
        }
        let Some(name) = real_ip_header else { return Ok(()) };
        if trusted_proxies.is_empty() {
            return bad(EngineOption::RealIpHeader, "given together with trusted_proxies");
        }
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_name) {
            return bad(EngineOption::RealIpHeader, "a header's name like X-Forwarded-For");
        }
        Ok(())
    }
}

impl From<&str> for Listener {
    fn from(address: &str) -> Self {
        Self::new(address)
    }
}

impl From<String> for Listener {
    fn from(address: String) -> Self {
        Self::new(address)
    }
}

impl From<&String> for Listener {
    fn from(address: &String) -> Self {
        Self::new(address)
    }
}

impl From<SocketAddr> for Listener {
    fn from(address: SocketAddr) -> Self {
        Self::new(address.to_string())
    }
}

/// True if it is written as browsers do (RFC 6454, section 6.2): nothing behind host and
/// port.
fn is_origin(text: &str) -> bool {
    let Some((scheme, host)) = text.split_once("://") else { return text == "null" };
    let is_in_host = |byte: u8| byte.is_ascii_graphic() && !b"/?#@,".contains(&byte);
    !scheme.is_empty()
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        && !host.is_empty()
        && host.bytes().all(is_in_host)
}

/// Each new WebSocket's is compared with all of them.
const ORIGINS_MAX: usize = 64;

/// Each new connection is compared with all of them.
const TRUSTED_PROXIES_MAX: usize = 1024;

/// Listeners of one engine, at most; each has a socket on every shard.
pub(super) const LISTENERS_MAX: usize = 64;

/// The sockets of an engine.
#[derive(Debug)]
pub(super) struct Listening {
    /// For each shard one socket of every listener, in order.
    pub(super) by_shard: Vec<Vec<Socket>>,
    /// The address of each listener, with the port that was found.
    pub(super) addresses: Vec<SocketAddr>,
}

impl Listening {
    /// Has nobody connect any more, though a ring that is taken apart holds a socket for a while.
    pub(super) fn stop(&self) {
        for socket in self.by_shard.iter().flatten() {
            if let Err(error) = socket.shutdown(std::net::Shutdown::Both) {
                tracing::error!(%error, "a socket goes on listening");
            }
        }
    }
}

/// Listens on all addresses, once for each shard.
pub(super) fn listen(
    listeners: &[Listener],
    shards: usize,
    backlog: u32,
) -> Result<Listening, StartError> {
    let wanted = resolve_all(listeners)?;
    let mut listening = Listening { by_shard: Vec::new(), addresses: Vec::new() };
    listening.by_shard.resize_with(shards, Vec::new);
    for (address, listener) in wanted.iter().zip(listeners) {
        let family = match wanted.iter().any(|other| is_ipv4_beside(*other, *address)) {
            true => Family::Ipv6Alone,
            false => Family::OfAddress,
        };
        let (sockets, bound) = listen_on(*address, family, shards, backlog, &listener.tcp)?;
        for (sockets, socket) in listening.by_shard.iter_mut().zip(sockets) {
            sockets.push(socket);
        }
        listening.addresses.push(bound);
    }
    Ok(listening)
}

/// The addresses to listen on.
pub(super) fn resolve_all(listeners: &[Listener]) -> Result<Vec<SocketAddr>, StartError> {
    let mut addresses = Vec::with_capacity(listeners.len());
    for listener in listeners {
        let address = resolve(&listener.address)?;
        // Only a fixed port can be asked for twice.
        if address.port() != 0 && addresses.contains(&address) {
            let expected = format!("another one, as {address} is given twice");
            return Err(StartError::Option { option: EngineOption::Listen, expected });
        }
        addresses.push(address);
    }
    Ok(addresses)
}

/// True if a listener for IPv4 has the port that one for IPv6 would else take for both.
fn is_ipv4_beside(other: SocketAddr, address: SocketAddr) -> bool {
    address.is_ipv6() && other.is_ipv4() && address.port() == other.port()
}

/// The clients that an address takes, by family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    /// Those of its own family; `[::]` those of both.
    OfAddress,
    Ipv6Alone,
}

/// Turns text into the address to listen on.
fn resolve(text: &str) -> Result<SocketAddr, StartError> {
    let bad = |why: String| StartError::BadAddress { address: text.to_owned(), why };
    // A port by itself stands for all of the machine's addresses, as in Node and in Go.
    if let Ok(port) = text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        return Ok(everywhere(port));
    }
    let addresses = text.to_socket_addrs().map_err(|error| bad(error.to_string()))?;
    let addresses: Vec<SocketAddr> = addresses.collect();
    // A name with addresses of both families, such as localhost: most clients mean the older one.
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| bad("the name has no address".to_owned()))
}

/// A port of all addresses; of IPv4's alone where the system has no IPv6.
fn everywhere(port: u16) -> SocketAddr {
    match Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) {
        Ok(_) => (Ipv6Addr::UNSPECIFIED, port).into(),
        Err(_) => (Ipv4Addr::UNSPECIFIED, port).into(),
    }
}

/// Listens `count` times on an address; the kernel spreads connections over the sockets.
///
/// A port of 0 stands for a free one, the same for all.
fn listen_on(
    address: SocketAddr,
    family: Family,
    count: usize,
    backlog: u32,
    tcp: &TcpOptions,
) -> Result<(Vec<Socket>, SocketAddr), StartError> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::AddrInUse => StartError::AddressInUse(address),
        _ => StartError::Listen { address, error },
    };
    let refused = |Refused { key, expected, error }| StartError::Option {
        option: EngineOption::Tcp(key),
        expected: format!("{expected} ({address}): {error}"),
    };
    // Sockets that share a port would also share it with another process of the same user, which
    // would then get half of the clients. A socket that does not share tells.
    let probe = socket(address, family).map_err(failed)?;
    probe.bind(&address.into()).map_err(failed)?;
    drop(probe);

    let mut bound = address;
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        let socket = socket(bound, family).map_err(failed)?;
        socket.set_reuse_port(true).map_err(failed)?;
        socket.bind(&bound.into()).map_err(failed)?;
        tcp.apply(&socket).map_err(refused)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX)).map_err(failed)?;
        let local = socket.local_addr().map_err(failed)?;
        bound = local.as_socket().unwrap_or(bound);
        sockets.push(socket);
    }
    Ok((sockets, bound))
}

fn socket(address: SocketAddr, family: Family) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if family == Family::Ipv6Alone {
        socket.set_only_v6(true)?;
    }
    // Connections that have ended do not hold the port.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it: answers are batched here, not in the kernel.
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(address: &str, shards: usize) -> Result<Listening, StartError> {
        listen(&[address.into()], shards, 16)
    }

    #[test]
    fn a_port_in_use_is_told_though_ports_are_shared() {
        let listening = once("127.0.0.1:0", 2).unwrap();
        let address = listening.addresses[0];
        assert_eq!(listening.by_shard.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        assert_ne!(address.port(), 0);
        let error = once(&address.to_string(), 1).unwrap_err();
        assert!(matches!(error, StartError::AddressInUse(other) if other == address), "{error}");
        drop(listening);
        assert!(once(&address.to_string(), 1).is_ok());
    }

    #[test]
    fn one_port_can_be_listened_on_for_both_families_but_only_once_for_each() {
        let port = once("127.0.0.1:0", 1).unwrap().addresses[0].port();
        let (v4, v6) = (format!("0.0.0.0:{port}").into(), format!("[::]:{port}").into());
        let listening = listen(&[v6, v4], 2, 16).unwrap();
        assert!(listening.addresses.iter().all(|address| address.port() == port));
        assert_eq!(listening.by_shard.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        let address = listening.addresses[0];
        drop(listening);
        let twice = [Listener::from(address), address.into()];
        let error = listen(&twice, 1, 16).unwrap_err();
        assert!(
            matches!(error, StartError::Option { option: EngineOption::Listen, .. }),
            "{error}"
        );
    }

    /// Addresses as operators of Node's and Go's servers write them.
    #[test]
    fn a_port_or_a_name_will_do() {
        for text in ["3010", ":3010"] {
            let address = resolve(text).unwrap();
            assert!(address.ip().is_unspecified() && address.port() == 3010, "{address}");
        }
        assert!(once("0", 1).unwrap().addresses[0].port() != 0);
        assert_eq!(resolve("localhost:3010").unwrap(), ([127, 0, 0, 1], 3010).into());
    }

    #[test]
    fn bad_addresses_are_named() {
        for text in
            ["", ":", "127.0.0.1", "127.0.0.1:x", "127.0.0.1:99999", "99999", "no such host:1"]
        {
            let error = resolve(text).unwrap_err();
            assert!(error.to_string().contains(&format!("`{text}`")), "{error}");
        }
        let error = once("192.0.2.1:0", 1).unwrap_err();
        assert!(matches!(error, StartError::Listen { .. }), "{error}");
    }
}
