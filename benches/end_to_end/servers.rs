//! The servers under test, each in a process of its own, pinned to the first core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shaddock::load::Transport;
use shaddock::{Builder, Driver, Engine, Handlers, Listener, Reply, Shards, Tls, Workers};

use crate::certificate::Certificate;
use crate::common::ceiling::{self, Variant};
use crate::common::pomelo::Conversation;
use crate::common::{OTHER_CORE, SERVER_CORE, bind, child, listen, pin};
use crate::{allocations, peers};

/// A server under test and its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Server {
    Ceiling(Variant),
    Glommio,
    Tokio,
    Shaddock,
    /// By epoll.
    ShaddockPoll,
    ShaddockWebSocket,
    ShaddockForward,
    /// Bodies read and written as JSON by the handler itself.
    ShaddockByHand,
    /// Bodies read and written by a typed handler: `call`.
    ShaddockTyped,
    /// The same by types that borrow from the body: `try_handler`.
    ShaddockBorrowed,
    /// TCP inside TLS.
    ShaddockTls,
    /// WebSocket inside TLS.
    ShaddockWss,
    /// The fixed echo over WebSocket, by tokio and the crate of that name.
    FastWebSockets,
    /// The same by tokio-tungstenite.
    Tungstenite,
    /// The same by Bun, in JavaScript and uWebSockets, if it is installed.
    Bun,
    /// The fixed echo inside TLS, by tokio-rustls.
    TokioTls,
    /// WebSocket inside TLS by Bun.
    BunWss,
    /// The original, if `.ci/oracle` has installed it.
    Pomelo,
}

impl Server {
    pub(crate) const CEILING: Self = Self::Ceiling(Variant::Plain);
    const PLAIN: [Self; 7] = [
        Self::CEILING,
        Self::Glommio,
        Self::Tokio,
        Self::Shaddock,
        Self::ShaddockPoll,
        Self::ShaddockWebSocket,
        Self::ShaddockForward,
    ];

    /// Servers whose handlers look into bodies, beside [`Self::Shaddock`] which gives them back as
    /// they are. They are measured where they are named.
    pub(crate) const TYPED: [Self; 3] =
        [Self::ShaddockByHand, Self::ShaddockTyped, Self::ShaddockBorrowed];

    /// Servers that speak WebSocket, beside [`Self::ShaddockWebSocket`].
    const PEERS: [Self; 3] = [Self::FastWebSockets, Self::Tungstenite, Self::Bun];

    const TLS: [Self; 4] = [Self::ShaddockTls, Self::TokioTls, Self::ShaddockWss, Self::BunWss];

    /// The servers measured by default; [`Self::Pomelo`] is added where it is installed.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::PLAIN.into_iter().chain(Self::PEERS).chain(Self::TLS)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ceiling(variant) => variant.name(),
            Self::Glommio => "glommio",
            Self::Tokio => "tokio",
            Self::Shaddock => "shaddock",
            Self::ShaddockPoll => "shaddock-poll",
            Self::ShaddockWebSocket => "shaddock-ws",
            Self::ShaddockForward => "shaddock-forward",
            Self::ShaddockByHand => "shaddock-by-hand",
            Self::ShaddockTyped => "shaddock-typed",
            Self::ShaddockBorrowed => "shaddock-borrowed",
            Self::ShaddockTls => "shaddock-tls",
            Self::ShaddockWss => "shaddock-wss",
            Self::FastWebSockets => "fastwebsockets",
            Self::Tungstenite => "tungstenite",
            Self::Bun => "bun",
            Self::TokioTls => "tokio-tls",
            Self::BunWss => "bun-wss",
            Self::Pomelo => "pomelo",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let variants = Variant::ALL.into_iter().map(Self::Ceiling);
        let mut servers = Self::all().chain(Self::TYPED).chain(variants).chain([Self::Pomelo]);
        servers.find(|server| server.name() == name)
    }

    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::ShaddockForward => FORWARD,
            _ => LOCAL,
        }
    }

    pub(crate) fn transport(self) -> Transport {
        match self {
            Self::ShaddockWebSocket | Self::ShaddockWss | Self::BunWss => Transport::WebSocket,
            _ if Self::PEERS.contains(&self) => Transport::WebSocket,
            _ => Transport::Tcp,
        }
    }

    pub(crate) fn is_tls(self) -> bool {
        Self::TLS.contains(&self)
    }

    /// True if its code is compiled while it runs, so that it is slow at first.
    pub(crate) fn is_compiled_late(self) -> bool {
        matches!(self, Self::Bun | Self::BunWss)
    }

    /// The reason why it can't be measured here, with advice.
    pub(crate) fn obstacle(self) -> Option<String> {
        match self {
            Self::Bun | Self::BunWss => peers::bun_obstacle(),
            _ => None,
        }
    }
}

const LOCAL: &str = "connector.entryHandler.echo";
const ANY_PORT: &str = "127.0.0.1:0";
const FORWARD: &str = "chat.chatHandler.echo";
/// The most connections of the ceiling.
const CEILING_SOCKETS: u32 = 16_384;

pub(crate) fn pin_client() {
    pin(&[OTHER_CORE]);
}

/// Runs a server until standard input ends. Prints its address first, and its number of allocations
/// and of turns for each line it reads.
pub(crate) fn serve(server: Server) -> ExitCode {
    pin(match server {
        Server::ShaddockForward => &[SERVER_CORE, OTHER_CORE],
        _ => &[SERVER_CORE],
    });
    match server {
        Server::Ceiling(variant) => bare(Some(ceiling::turns), move |listener| {
            ceiling::serve(&[listener], variant, CEILING_SOCKETS).expect("the ring works");
        }),
        Server::Glommio => {
            // It binds by itself; nobody is to be accepted before.
            let kept = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
            let address = kept.local_addr().expect("it is bound").as_socket();
            let address = address.expect("it is an IP address");
            std::thread::spawn(move || glommio(address));
            obey(address, || None);
        }
        Server::Tokio => bare(None, peers::tokio),
        Server::TokioTls => bare(None, |it| peers::tokio_tls(it, &Certificate::open())),
        Server::FastWebSockets => bare(None, peers::fastwebsockets),
        Server::Tungstenite => bare(None, peers::tungstenite),
        Server::Bun => return peers::bun(None),
        Server::BunWss => return peers::bun(Some(&Certificate::open())),
        Server::Shaddock | Server::ShaddockWebSocket | Server::ShaddockForward => {
            shaddock(echo(Engine::builder()).driver(Driver::Ring), Listener::new(ANY_PORT));
        }
        Server::ShaddockTls | Server::ShaddockWss => {
            let certificate = Certificate::open();
            let tls = Tls::from_files(certificate.chain_path(), certificate.key_path());
            let listener = Listener::new(ANY_PORT).tls(tls.expect("it was just made"));
            shaddock(echo(Engine::builder()).driver(Driver::Ring), listener);
        }
        Server::ShaddockPoll => {
            shaddock(echo(Engine::builder()).driver(Driver::Poll), Listener::new(ANY_PORT));
        }
        Server::ShaddockByHand | Server::ShaddockTyped | Server::ShaddockBorrowed => {
            let builder = typed(server, Engine::builder()).driver(Driver::Ring);
            shaddock(builder, Listener::new(ANY_PORT));
        }
        Server::Pomelo => unreachable!("it is started by its own script"),
    }
    ExitCode::SUCCESS
}

/// Serves by `run`, which may have a count of its turns.
fn bare(turns: Option<fn() -> u64>, run: impl FnOnce(TcpListener) + Send + 'static) {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = listen(any_port).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(|| run(listener));
    obey(address, || turns.map(|turns| turns()));
}

/// Answers each line with the number of allocations and of turns; `-` stands for one that is not
/// counted.
fn obey(address: SocketAddr, turns: impl Fn() -> Option<u64>) {
    child::obey(&[address], |_| {
        let turns = turns().map_or_else(|| "-".into(), |turns| turns.to_string());
        format!("{} {turns}", allocations::count())
    });
}

fn glommio(address: SocketAddr) {
    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Fixed(SERVER_CORE));
    let executor = executor.spawn(move || async move {
        let listener = glommio::net::TcpListener::bind(address).expect("the port is shared");
        loop {
            let Ok(mut stream) = listener.accept().await else { continue };
            stream.set_nodelay(true).ok();
            glommio::spawn_local(async move {
                let (mut conversation, mut out) = (Conversation::default(), Vec::new());
                let mut input = vec![0; 16 * 1024];
                while let Ok(len @ 1..) = stream.read(&mut input).await {
                    conversation.handle(&input[..len], &mut out);
                    if stream.write_all(&out).await.is_err() {
                        return;
                    }
                    out.clear();
                }
            })
            .detach();
        }
    });
    executor.expect("an executor").join().expect("it runs for ever");
}

/// Gives bodies back as they are.
fn echo(builder: Builder) -> Builder {
    builder.handler(LOCAL, |request, _| Reply::borrowed(request.body()))
}

/// The body that the load client sends, and expects back.
#[derive(Serialize, Deserialize)]
struct Chat<T> {
    msg: T,
}

/// Reads bodies, and writes what it has read.
fn typed(server: Server, builder: Builder) -> Builder {
    match server {
        Server::ShaddockTyped => builder.call(LOCAL, |chat: Chat<String>, _| Ok(chat)),
        Server::ShaddockBorrowed => builder.try_handler(LOCAL, |request, _| {
            let chat: Chat<&str> = request.json()?;
            Ok(Reply::json(&chat))
        }),
        _ => builder.handler(LOCAL, |request, _| {
            match serde_json::from_slice::<Chat<String>>(request.body()) {
                Ok(chat) => serde_json::to_vec(&chat).map_or_else(|_| Reply::error(), Reply::bytes),
                Err(_) => Reply::error(),
            }
        }),
    }
}

fn shaddock(builder: Builder, listener: Listener) {
    let engine = builder
        .listen(listener)
        .shards(Shards::Count(1))
        .heartbeat(Duration::from_secs(30))
        .routes([FORWARD])
        .forward(
            "chat",
            Workers::new(1, |handlers: &mut Handlers| {
                // This runs on the worker's own thread.
                pin(&[OTHER_CORE]);
                handlers.handler(FORWARD, |request, _| Reply::borrowed(request.body()));
            }),
        )
        .start()
        .expect("the engine starts");
    let handle = engine.handle();
    obey(engine.local_addr(), || {
        let shards = handle.metrics().ok()?.shards;
        Some(shards.iter().map(|shard| shard.turns.requests()).sum())
    });
}
