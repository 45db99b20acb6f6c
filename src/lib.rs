//! Shaddock, the connector tier of a Pomelo game cluster.

mod dispatch;
mod engine;
mod error;
mod forward;
mod limits;
pub mod metrics;
pub mod route;
mod session;
mod shard;
mod wheel;
pub mod wire;

pub use dispatch::{
    Audience, Bind, BindError, Channel, Context, Filter, Handlers, HostFilter, HostFilterError,
    HostRule, Login, OwnedRequest, Pending, Reply, Request, Responder, Serial, Session, Statistics,
    Time, Timeout, TooBusy, Verdict,
};
pub use engine::{Builder, Drain, Engine, Handle, Metrics, Shards, ShutdownReport};
pub use error::{HandleError, StartError};
pub use forward::{ServerId, Workers};
pub use limits::{LimitError, Limits};
pub use session::{SessionData, SessionId, SessionView, ShardIndex, Uid, UidError};
pub use shard::HandshakeRefusal;
