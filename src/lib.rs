//! The connector tier of a Pomelo game cluster, on io_uring or epoll, with one thread per core.
//!
//! Shaddock accepts game clients over TCP and WebSocket on one port, implements Pomelo's wire
//! protocol byte for byte, and keeps the clients' sessions. Each message passes filters and reaches
//! a handler of this process or a worker thread; the answer returns the same way.
//!
//! ```no_run
//! use shaddock::{Engine, Reply, StartError};
//!
//! fn main() -> Result<(), StartError> {
//!     let engine = Engine::builder()
//!         .listen("127.0.0.1:3010")
//!         .handler("connector.entryHandler.hello", |_request, session| {
//!             Reply::json(&format!("hello, number {}", session.number()))
//!         })
//!         .start()?;
//!     println!("listening on {}", engine.local_addr());
//!     loop {
//!         std::thread::park(); // An engine that is dropped closes every connection.
//!     }
//! }
//! ```
//!
//! The default features are those of the binary, which an embedder turns off:
//!
//! ```toml
//! [dependencies]
//! serde_json = "1"
//! shaddock = { version = "0.1", default-features = false, features = ["engine"] }
//!
//! [dev-dependencies]
//! shaddock = { version = "0.1", default-features = false, features = ["testing"] }
//! ```
//!
//! It runs on Linux from 5.4 on: by io_uring from 6.1 on, where that is allowed, else by epoll
//! ([`Driver`]). The build asks for a C compiler and git. In the crate's folder `docs/embedding.md`
//! builds a game step by step, `docs/runtimes.md` has handlers that call HTTP services and
//! databases, `docs/README.md` lists the other documents, and `examples/` has programs.
//!
//! # Contents
//! - [`Engine::builder`] describes an engine; [`Builder::start`] starts its threads, and
//!   [`StartError`] tells what is wrong with the description or the machine.
//! - A handler receives a [`Request`] and a [`Session`] and returns a [`Reply`]. It runs on the
//!   shard that owns the session. Async handlers and [`Session::defer`] answer later.
//! - [`Builder::forward`] sends a server type's messages to [`Workers`]: threads with handlers of
//!   their own.
//! - [`Builder::call`] takes handlers from one type to another, with a [`Fault`] as their error.
//!   [`Workers::stateful`] has handlers, ticks and receivers of messages share a state as `&mut S`.
//! - [`Filter`]s run before and after handlers; [`Serial`], [`Timeout`], [`Time`] and [`TooBusy`]
//!   are Pomelo's.
//! - [`Context`] pushes, broadcasts, kicks, sleeps, and keeps [`Channel`]s; [`Handle`] does so for
//!   other threads.
//! - [`Limits`] bounds every queue and buffer, and [`metrics`] has a counter for each bound.
//! - [`wire`] and [`route`] are the protocol alone, without I/O.
//! - The feature `testing` adds a kit by which all of that is tested in one thread and in virtual
//!   time.
#![cfg_attr(
    feature = "admin",
    doc = "- [`AdminOptions`] has an admin server run beside it: metrics, sessions, kicks, drain."
)]
#![cfg_attr(
    all(feature = "pitaya", feature = "pomelo"),
    doc = "- [`PomeloCluster`] and [`PitayaCluster`] forward to servers of other processes."
)]
#![cfg_attr(
    feature = "client",
    doc = "- [`client`] is a client for tests, bots and tools, for any executor."
)]
//!
//! # Features
//! - `engine` is the connector, all that is named above `wire`. An embedder asks for it by
//!   `default-features = false, features = ["engine"]`.
//! - `cli`, the default, is the `shaddock` binary, with the engine and all features but `client`
//!   and `testing`.
//! - `tls` adds TLS and WSS, `crypto` signed requests, `pomelo` and `pitaya` the backends of such
//!   clusters.
//! - `client` adds a client. It needs neither the engine nor a runtime.
//! - `testing` adds the kit for tests, `admin` the admin server, `traces` spans for a collector of
//!   OpenTelemetry, `load` the load client.
//! - `internals` is for the crate's own benches, fuzz targets and simulation: no part of the
//!   interface.
//!
//! The libraries whose types stand in signatures are here as [`serde_json`] and `bytes`.
//!
//! Cargo gives a library the features that anybody in the program asks for. This crate asks
//! `serde_json` for two, as JavaScript does what they do: `preserve_order`, so that the members of
//! an object stay in order and its map is slower for who removes members, and `float_roundtrip`, so
//! that a number comes out as it was written. `pomelo` adds `raw_value`, `pitaya` adds
//! `unbounded_depth`, which changes nothing unless a deserializer asks for it.
//!
//! # What may grow
//! Structs that an embedder fills in, such as [`Limits`], get new members in any release: they are
//! written with `..Default::default()`. What the crate fills in is `#[non_exhaustive]`. The parts
//! of [`wire`] that are the frozen protocol itself, packages and messages, are neither.
//!
//! # Threads
//! A shard is a thread pinned to a core, with its own ring and its own sessions. Shards share
//! nothing while they process a message. Handlers run on the shard, so a handler that blocks delays
//! the shard's clients, although no session is closed for it. An async handler waits by
//! [`Context::sleep`] and by futures that other threads wake. With [`Driver::Ring`] the shard is
//! also a glommio executor, and the handler may use glommio's timers and files.
//!
//! # Panics
//! A handler or filter that panics answers its request with 500 and affects no other request; a
//! spawned future that panics ends, and nothing else does. Each is counted, and logged with its
//! route or name. This needs `panic = "unwind"`, Rust's default.
//!
//! # The end
//! An engine that is dropped closes everything at once. [`Engine::shutdown`] with a [`Drain`]
//! waits, within its time, for answers and for the futures that are owed: async handlers,
//! [`Context::spawn_owed`], what [`Handlers::on_session_closed`] spawns, and the hooks of
//! [`Handlers::on_shutdown`].

#![cfg_attr(docsrs, feature(doc_cfg))]

// Each module uses only those above it: `MODULE_ORDER` in `tests/tidy/main.rs`.
#[cfg(test)]
mod test_cases;
#[cfg(feature = "engine")]
mod sync;
#[cfg(feature = "engine")]
mod log;
#[cfg(feature = "engine")]
mod files;
pub mod wire;
#[cfg(feature = "engine")]
mod limits;
#[cfg(feature = "engine")]
pub mod metrics;
pub mod route;
#[cfg(feature = "client")]
pub mod client;
#[cfg(feature = "engine")]
mod error;
#[cfg(all(feature = "engine", feature = "tls"))]
mod tls;
#[cfg(feature = "engine")]
mod session;
#[cfg(feature = "admin")]
mod record;
#[cfg(feature = "engine")]
// Without `traces` no span is ever made, and without a cluster nobody is told of one.
#[cfg_attr(
    not(all(feature = "traces", any(feature = "pitaya", feature = "pomelo"))),
    allow(dead_code)
)]
mod span;
#[cfg(feature = "engine")]
mod dispatch;
#[cfg(feature = "engine")]
mod forward;
#[cfg(feature = "pitaya")]
mod pitaya;
#[cfg(feature = "pomelo")]
mod pomelo;
#[cfg(feature = "engine")]
mod wheel;
#[cfg(feature = "engine")]
mod shard;
#[cfg(feature = "testing")]
// Public for `internals` alone, where the simulation sees more of it than the kit needs.
#[cfg_attr(not(feature = "internals"), allow(dead_code, unreachable_pub))]
mod simulated;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
#[cfg(feature = "engine")]
mod io;
#[cfg(feature = "load")]
pub mod load;
#[cfg(feature = "engine")]
mod engine;
#[cfg(feature = "traces")]
mod traces;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "admin")]
mod admin;

#[cfg(feature = "admin")]
pub use admin::AdminOptions;
/// The library whose `Bytes` are in [`Reply::shared`] and [`OwnedRequest::bytes`].
#[cfg(feature = "engine")]
#[doc(no_inline)]
pub use bytes;
#[cfg(feature = "engine")]
pub use dispatch::{
    Audience, BadVersion, Bind, BindError, Channel, ClientRules, ClientVersion, Codes, Context,
    DeniedHost, Fault, Filter, Handlers, Handshake, HostFilter, HostFilterError, HostRule, Login,
    MailError, Maintenance, Missed, OwnedRequest, Pending, Refusal, Reply, Request, Responder,
    Routes, Serial, Session, Shared, StateTaken, Statistics, Task, TaskBuilder, TaskError, Time,
    Timeout, TooBusy, Verdict, Welcome, WorkerPick, handler_fn,
};
#[cfg(feature = "engine")]
pub use engine::{
    Builder, ClusterMetrics, Drain, Engine, Handle, Listener, Metrics, RouteMetrics,
    ServerTypeMetrics, ShardMetrics, Shards, ShutdownReport, SpanMetrics, TcpOptions,
    WorkerMetrics, return_free_memory, return_large_memory,
};
#[cfg(feature = "engine")]
pub use error::{EngineOption, HandleError, IoUringBlock, StartError};
#[cfg(feature = "engine")]
pub use files::{FILE_BYTES_MAX, SECRET_BYTES_MAX, read_file, read_text_file};
#[cfg(feature = "engine")]
pub use forward::{LaneFull, ServerId, Workers};
#[cfg(feature = "engine")]
pub use io::{Driver, raise_descriptor_limit};
#[cfg(feature = "engine")]
pub use limits::{Limit, LimitError, LimitNumber, LimitVisitor, Limits};
#[cfg(feature = "engine")]
pub use log::redact_credentials;
#[cfg(feature = "pitaya")]
pub use pitaya::{ClusterTls, PitayaCluster, PitayaLimits};
#[cfg(feature = "pomelo")]
pub use pomelo::{ClosedArg, CustomRouter, PomeloCluster, PomeloLimits, Router};
#[cfg(feature = "engine")]
pub use route::SlowConsumer;
#[cfg(feature = "engine")]
pub use route::registration::{Misregistration, Mistake};
#[cfg(feature = "engine")]
pub use session::{OnSecondBind, SessionData, SessionId, SessionView, ShardIndex, Uid, UidError};
#[cfg(feature = "engine")]
pub use shard::Dialect;
#[cfg(all(feature = "engine", feature = "tls"))]
pub use tls::{CertificateFault, Tls, TlsError};
#[cfg(feature = "traces")]
pub use traces::Traces;

/// The library whose values are in handshakes, settings and requests.
#[doc(no_inline)]
pub use serde_json;

/// Runs the README's program through the compiler.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;

/// Runs the program of that document through the compiler.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../docs/quick-start.md")]
struct QuickStart;

/// Runs the listings of that document through the compiler, and tests that are in it.
#[cfg(all(doctest, feature = "testing"))]
#[doc = include_str!("../docs/runtimes.md")]
struct Runtimes;

/// Runs the listings of that guide through the compiler, and their assertions.
#[cfg(all(doctest, feature = "admin", feature = "testing"))]
#[doc = include_str!("../docs/embedding.md")]
struct Embedding;
