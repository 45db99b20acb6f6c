//! The servers under test, each in a process of its own, pinned to the first core.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shaddock::{Builder, Driver, Engine, Handlers, Reply, Shards, Workers};

use crate::allocations;
use crate::common::ceiling::{self, Variant};
use crate::common::pomelo::Conversation;
use crate::common::{OTHER_CORE, SERVER_CORE, child, listen, pin};

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
    /// The original, if `.ci/oracle` has installed it.
    Pomelo,
}

impl Server {
    pub(crate) const CEILING: Self = Self::Ceiling(Variant::Plain);
    /// The servers measured by default; [`Self::Pomelo`] is added where it is installed.
    pub(crate) const ALL: [Self; 7] = [
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
            Self::Pomelo => "pomelo",
        }
    }

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let variants = Variant::ALL.into_iter().map(Self::Ceiling);
        let all = Self::ALL.into_iter().chain(Self::TYPED);
        let mut servers = all.chain(variants).chain([Self::Pomelo]);
        servers.find(|server| server.name() == name)
    }

    pub(crate) fn route(self) -> &'static str {
        match self {
            Self::ShaddockForward => FORWARD,
            _ => LOCAL,
        }
    }
}

const LOCAL: &str = "connector.entryHandler.echo";
const FORWARD: &str = "chat.chatHandler.echo";
/// The most connections of the ceiling.
const CEILING_SOCKETS: u32 = 16_384;

pub(crate) fn pin_client() {
    pin(&[OTHER_CORE]);
}

/// Runs a server until standard input ends. Prints its address first, and its number of allocations
/// for each line it reads.
pub(crate) fn serve(server: Server) {
    pin(match server {
        Server::ShaddockForward => &[SERVER_CORE, OTHER_CORE],
        _ => &[SERVER_CORE],
    });
    match server {
        Server::Ceiling(variant) => bare(move |listener| {
            ceiling::serve(&[listener], variant, CEILING_SOCKETS).expect("the ring works");
        }),
        Server::Glommio => bare(glommio),
        Server::Tokio => bare(tokio),
        Server::Shaddock | Server::ShaddockWebSocket | Server::ShaddockForward => {
            shaddock(echo(Engine::builder()).driver(Driver::Ring));
        }
        Server::ShaddockPoll => shaddock(echo(Engine::builder()).driver(Driver::Poll)),
        Server::ShaddockByHand | Server::ShaddockTyped | Server::ShaddockBorrowed => {
            shaddock(typed(server, Engine::builder()).driver(Driver::Ring));
        }
        Server::Pomelo => unreachable!("it is started by its own script"),
    }
}

fn bare(run: impl FnOnce(TcpListener) + Send + 'static) {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let listener = listen(any_port).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(|| run(listener));
    obey(address);
}

fn obey(address: SocketAddr) {
    child::obey(&[address], |_| allocations::count().to_string());
}

fn tokio(listener: TcpListener) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    listener.set_nonblocking(true).expect("a socket");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    runtime.expect("a runtime").block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        loop {
            let Ok((mut stream, _)) = listener.accept().await else { continue };
            stream.set_nodelay(true).ok();
            tokio::spawn(async move {
                let (mut conversation, mut out) = (Conversation::default(), Vec::new());
                let mut input = vec![0; 16 * 1024];
                while let Ok(len @ 1..) = stream.read(&mut input).await {
                    conversation.handle(&input[..len], &mut out);
                    if stream.write_all(&out).await.is_err() {
                        return;
                    }
                    out.clear();
                }
            });
        }
    });
}

fn glommio(listener: TcpListener) {
    use futures_lite::{AsyncReadExt as _, AsyncWriteExt as _};
    let address = listener.local_addr().expect("it is bound");
    drop(listener);
    let executor = glommio::LocalExecutorBuilder::new(glommio::Placement::Fixed(SERVER_CORE));
    let executor = executor.spawn(move || async move {
        let listener = glommio::net::TcpListener::bind(address).expect("the port is free again");
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

fn shaddock(builder: Builder) {
    let engine = builder
        .listen("127.0.0.1:0")
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
    obey(engine.local_addr());
}
