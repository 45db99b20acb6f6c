//! The servers under test, each in a process of its own, pinned to the first core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde::Serialize;
use shaddock::load::Transport;
use shaddock::{Audience, Engine, Reply, Shards};

use crate::common::ceiling::{self, Variant};
use crate::common::child::{self, Child};
use crate::common::{SERVER_CORE, listen, pin};

/// A server under test and its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    /// A bare ring.
    Ceiling,
    Shaddock,
    ShaddockWebSocket,
}

impl Server {
    pub(crate) const ALL: [Self; 3] = [Self::Ceiling, Self::Shaddock, Self::ShaddockWebSocket];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Shaddock => "shaddock",
            Self::ShaddockWebSocket => "shaddock-ws",
        }
    }

    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::ShaddockWebSocket => Transport::WebSocket,
            _ => Transport::Tcp,
        }
    }
}

/// The settings of a server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    /// The number of rings, each with a shard if there is an engine; all on one core.
    pub(crate) rings: u16,
    /// The number of ports, on each of which every ring listens.
    pub(crate) ports: u16,
    /// The heartbeat interval in seconds, 0 for none.
    pub(crate) heartbeat_s: u64,
}

pub(crate) const ECHO: &str = "connector.entryHandler.echo";
/// Answers like the echo, and pushes the body to everyone.
pub(crate) const TO_ALL: &str = "connector.entryHandler.toAll";
const PUSH_ROUTE: &str = "onAll";
/// The largest share of the descriptor limit for one table of sockets.
const SOCKETS_PER_RING_MAX: u64 = 1 << 20;

/// The engine's counters.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Figures {
    pub(crate) handshakes: u64,
    pub(crate) heartbeat_closes: u64,
}

/// Starts a server.
pub(crate) fn start(server: Server, setting: Setting) -> std::io::Result<Child> {
    let Setting { rings, ports, heartbeat_s } = setting;
    let numbers = [u64::from(rings), u64::from(ports), heartbeat_s].map(|n| n.to_string());
    Child::start(&["--serve", server.name(), &numbers[0], &numbers[1], &numbers[2]])
}

/// Requests an engine's counters.
pub(crate) fn figures(child: &mut Child) -> std::io::Result<Figures> {
    let line = child.ask("")?;
    let numbers: Option<Vec<u64>> = line.split(' ').map(|word| word.parse().ok()).collect();
    match numbers.as_deref() {
        Some([handshakes, heartbeat_closes]) => {
            Ok(Figures { handshakes: *handshakes, heartbeat_closes: *heartbeat_closes })
        }
        _ => Err(std::io::Error::other(format!("a server says: {line}"))),
    }
}

/// Serves by `arguments` until standard input ends. `None` if they are not valid.
pub(crate) fn serve(arguments: &[String]) -> Option<()> {
    let [name, rings, ports, heartbeat_s] = arguments else { return None };
    let server = Server::ALL.into_iter().find(|server| server.name() == *name)?;
    let setting = Setting {
        rings: rings.parse().ok()?,
        ports: ports.parse().ok()?,
        heartbeat_s: heartbeat_s.parse().ok()?,
    };
    pin(&[SERVER_CORE]);
    match server {
        Server::Ceiling => bare(setting),
        Server::Shaddock | Server::ShaddockWebSocket => engine(setting),
    }
    Some(())
}

fn bare(setting: Setting) {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let sockets = limit.unwrap_or(u64::MAX).min(SOCKETS_PER_RING_MAX) as u32;
    let mut addresses = Vec::new();
    let mut by_ring: Vec<Vec<TcpListener>> = Vec::new();
    by_ring.resize_with(setting.rings.into(), Vec::new);
    for _ in 0..setting.ports {
        let mut address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        for listeners in &mut by_ring {
            let listener = listen(address).expect("a free port");
            address = listener.local_addr().expect("it is bound");
            listeners.push(listener);
        }
        addresses.push(address);
    }
    for listeners in by_ring {
        std::thread::spawn(move || {
            ceiling::serve(&listeners, Variant::PushToAll, sockets).expect("the ring works");
        });
    }
    child::obey(&addresses, |_| "0 0".into());
}

fn engine(setting: Setting) {
    let mut builder = Engine::builder().shards(Shards::Count(setting.rings));
    for _ in 0..setting.ports {
        builder = builder.listen("127.0.0.1:0");
    }
    if setting.heartbeat_s > 0 {
        builder = builder.heartbeat(Duration::from_secs(setting.heartbeat_s));
    }
    let engine = builder
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(TO_ALL, |request, session| {
            let to_all = session.context().broadcast(PUSH_ROUTE, request.body(), Audience::all());
            to_all.expect("a short body");
            Reply::borrowed(request.body())
        })
        .start()
        .expect("the engine starts");
    let handle = engine.handle();
    child::obey(engine.local_addrs(), |_| {
        let counters = handle.counters();
        format!("{} {}", counters.handshakes, counters.closed_heartbeat_timeout)
    });
}
