//! The connector tier of a Pomelo game cluster, on io_uring, with one thread per core.
//!
//! Shaddock accepts game clients over TCP and WebSocket on one port, implements Pomelo's wire
//! protocol byte for byte, and keeps the clients' sessions. Each message passes filters and reaches
//! a handler of this process or a worker thread; the answer returns the same way.
//!
//! ```no_run
//! use shaddock::{Engine, Reply};
//!
//! # fn main() -> Result<(), shaddock::StartError> {
//! let engine = Engine::builder()
//!     .listen("127.0.0.1:3010")
//!     .handler("connector.entryHandler.hello", |_request, session| {
//!         Reply::json(&format!("hello, number {}", session.number()))
//!     })
//!     .start()?;
//! println!("listening on {}", engine.local_addr());
//! # Ok(())
//! # }
//! ```
//!
//! # Contents
//! - [`Engine::builder`] describes an engine; [`Builder::start`] starts its threads.
//! - A handler receives a [`Request`] and a [`Session`] and returns a [`Reply`]. It runs on the
//!   shard that owns the session. Async handlers and [`Session::defer`] answer later.
//! - [`Builder::forward`] sends a server type's messages to [`Workers`]: threads with handlers of
//!   their own.
//! - [`Filter`]s run before and after handlers; [`Serial`], [`Timeout`], [`Time`] and [`TooBusy`]
//!   are Pomelo's.
//! - [`Context`] pushes, broadcasts, kicks, sleeps, and keeps [`Channel`]s; [`Handle`] does so for
//!   other threads.
//! - [`Limits`] bounds every queue and buffer, and [`metrics`] has a counter for each bound.
//! - [`wire`] and [`route`] are the protocol alone, without I/O.
//! - The feature `testing` adds a kit by which all of that is tested in one thread and in virtual
//!   time.
//!
//! # Threads
//! A shard is a thread pinned to a core, with its own ring and its own sessions. Shards share
//! nothing while they process a message. Handlers run on the shard, so a handler that blocks delays
//! the shard's clients, although no session is closed for it. The shard is also a glommio executor:
//! an async handler may use glommio's timers and files.
//!
//! # Panics
//! A handler or filter that panics answers its request with 500 and affects no other request. This
//! needs `panic = "unwind"`, Rust's default.

// Each module uses only those above it: `MODULE_ORDER` in `tests/tidy/main.rs`.
#[cfg(test)]
mod test_cases;
mod sync;
mod log;
pub mod wire;
mod limits;
pub mod metrics;
pub mod route;
mod error;
#[cfg(feature = "tls")]
mod tls;
mod session;
mod dispatch;
mod forward;
#[cfg(feature = "pitaya")]
mod pitaya;
#[cfg(feature = "pomelo")]
mod pomelo;
mod wheel;
mod shard;
#[cfg(feature = "testing")]
// Public for `internals` alone, where the simulation sees more of it than the kit needs.
#[cfg_attr(not(feature = "internals"), allow(dead_code, unreachable_pub))]
mod simulated;
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals;
mod uring;
#[cfg(feature = "load")]
pub mod load;
mod engine;
#[cfg(feature = "testing")]
pub mod testing;

pub use dispatch::{
    Audience, Bind, BindError, Channel, Codes, Context, Fault, Filter, Handlers, Handshake,
    HostFilter, HostFilterError, HostRule, Login, OwnedRequest, Pending, Refusal, Reply, Request,
    Responder, Serial, Session, Statistics, Task, TaskBuilder, TaskError, Time, Timeout, TooBusy,
    Verdict, Welcome, handler_fn,
};
pub use engine::{
    Builder, Drain, Engine, Handle, Listener, Metrics, Shards, ShutdownReport, return_free_memory,
    return_large_memory,
};
pub use error::{EngineOption, HandleError, IoUringBlock, StartError};
pub use forward::{LaneFull, ServerId, Workers};
pub use limits::{Limit, LimitError, LimitNumber, LimitVisitor, Limits};
pub use log::redact_credentials;
#[cfg(feature = "pitaya")]
pub use pitaya::{ClusterTls, PitayaCluster, PitayaLimits};
#[cfg(feature = "pomelo")]
pub use pomelo::{ClosedArg, CustomRouter, PomeloCluster, PomeloLimits, Router};
pub use route::SlowConsumer;
pub use route::registration::{Misregistration, Mistake};
pub use session::{OnSecondBind, SessionData, SessionId, SessionView, ShardIndex, Uid, UidError};
pub use shard::Dialect;
#[cfg(feature = "tls")]
pub use tls::{CertificateFault, Tls, TlsError};
pub use uring::raise_descriptor_limit;

/// Runs the README's program through the compiler.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
