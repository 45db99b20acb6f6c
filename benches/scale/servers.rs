//! The servers under test, each in a process of its own, pinned to the first core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde::Serialize;
use shaddock::load::Transport;
use shaddock::{AdminOptions, Audience, Driver, Engine, Reply, Shards};

use crate::common::ceiling::{self, Variant};
use crate::common::child::{self, Child};
use crate::common::pomelo::Conversation;
use crate::common::{SERVER_CORE, listen, pin};

/// A server under test and its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Server {
    /// A bare ring.
    Ceiling,
    Shaddock,
    /// By epoll.
    ShaddockPoll,
    ShaddockWebSocket,
    /// A fixed echo by epoll, one task per connection.
    Tokio,
    /// With an admin server, which the order `admin` tells the address of.
    ShaddockWatched,
}

impl Server {
    pub(crate) const ALL: [Self; 3] = [Self::Ceiling, Self::Shaddock, Self::ShaddockWebSocket];
    /// Those whose memory is compared.
    pub(crate) const OF_MEMORY: [Self; 5] =
        [Self::Ceiling, Self::Shaddock, Self::ShaddockWebSocket, Self::ShaddockPoll, Self::Tokio];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceiling => "ceiling",
            Self::Shaddock => "shaddock",
            Self::ShaddockPoll => "shaddock-poll",
            Self::ShaddockWebSocket => "shaddock-ws",
            Self::Tokio => "tokio",
            Self::ShaddockWatched => "shaddock-watched",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::OF_MEMORY.into_iter().find(|server| server.name() == name)
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
/// The order that asks for the address of the admin server.
pub(crate) const ADMIN: &str = "admin";
/// The token of the admin server.
pub(crate) const TOKEN: &str = "of-no-use-0123456789";
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
    let mut servers = Server::OF_MEMORY.into_iter().chain([Server::ShaddockWatched]);
    let server = servers.find(|server| server.name() == *name)?;
    let setting = Setting {
        rings: rings.parse().ok()?,
        ports: ports.parse().ok()?,
        heartbeat_s: heartbeat_s.parse().ok()?,
    };
    pin(&[SERVER_CORE]);
    match server {
        Server::Ceiling => {
            let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
            let sockets = limit.unwrap_or(u64::MAX).min(SOCKETS_PER_RING_MAX) as u32;
            bare(setting, move |listeners| {
                ceiling::serve(&listeners, Variant::PushToAll, sockets).expect("the ring works");
            });
        }
        Server::Tokio => bare(setting, tokio),
        Server::Shaddock | Server::ShaddockWebSocket => engine(setting, Driver::Ring, None),
        Server::ShaddockPoll => engine(setting, Driver::Poll, None),
        Server::ShaddockWatched => {
            let admin = AdminOptions::new().listen("127.0.0.1:0").token(TOKEN);
            engine(setting, Driver::Ring, Some(admin));
        }
    }
    Some(())
}

fn bare(setting: Setting, run: impl FnOnce(Vec<TcpListener>) + Clone + Send + 'static) {
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
        let run = run.clone();
        std::thread::spawn(move || run(listeners));
    }
    child::obey(&addresses, |_| "0 0".into());
}

/// The answers to what a socket has, none if it has ended.
fn answers(
    stream: &tokio::net::TcpStream,
    conversation: &mut Conversation,
) -> std::io::Result<Option<Vec<u8>>> {
    let (mut input, mut out) = ([0; 16 * 1024], Vec::new());
    match stream.try_read(&mut input) {
        Ok(0) => return Ok(None),
        Ok(len) => conversation.handle(&input[..len], &mut out),
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(error),
    }
    Ok(Some(out))
}

/// One task per connection, which has no buffer while it waits.
fn tokio(listeners: Vec<TcpListener>) {
    async fn converse(stream: tokio::net::TcpStream) -> std::io::Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let (mut stream, mut conversation) = (stream, Conversation::default());
        loop {
            stream.readable().await?;
            let Some(out) = answers(&stream, &mut conversation)? else { return Ok(()) };
            stream.write_all(&out).await?;
        }
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let tasks = tokio::task::LocalSet::new();
    for listener in listeners {
        tasks.spawn_local(async move {
            listener.set_nonblocking(true).expect("a socket");
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                stream.set_nodelay(true).ok();
                tokio::task::spawn_local(converse(stream));
            }
        });
    }
    tasks.block_on(&runtime.expect("a runtime"), std::future::pending::<()>());
}

fn engine(setting: Setting, driver: Driver, admin: Option<AdminOptions>) {
    let mut builder = Engine::builder().driver(driver).shards(Shards::Count(setting.rings));
    if let Some(admin) = admin {
        builder = builder.admin(admin);
    }
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
    child::obey(engine.local_addrs(), |order| {
        if order == ADMIN {
            return engine.admin_addr().map_or_else(String::new, |address| address.to_string());
        }
        let counters = handle.counters();
        format!("{} {}", counters.handshakes, counters.closed_heartbeat_timeout)
    });
}
