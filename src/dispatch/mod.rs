//! `globalHandle`: from a decoded message to its answer, through filters and handlers.

pub(crate) mod at_end;
mod background;
pub(crate) mod chain;
mod channel;
mod codes;
pub(crate) mod context;
pub(crate) mod denied_hosts;
pub(crate) mod entry;
mod failure;
mod fault;
mod filter;
mod filters;
pub(crate) mod handler_thread;
mod handlers;
pub(crate) mod handshake;
mod host_filter;
#[cfg(all(test, shaddock_loom))]
mod loom_tests;
pub(crate) mod last_call;
#[cfg(doctest)]
mod must_use;
mod panics;
pub(crate) mod mail;
pub(crate) mod pending;
pub(crate) mod reply;
mod request;
mod session;
mod stateful;
mod statistics;
mod task;
pub(crate) mod tasks;
pub(crate) mod verdict;
pub use channel::Channel;
pub use codes::Codes;
pub(crate) use codes::FailureBodies;
pub use context::{Audience, Context, TaskBuilder};
pub(crate) use failure::Failure;
mod typed;
mod written;
mod ticks;
mod timers;
pub(crate) use background::Undelivered;
pub use denied_hosts::DeniedHost;
pub use entry::{BadVersion, ClientRules, ClientVersion, Maintenance};
pub use fault::Fault;
pub use filter::{Filter, Verdict};
pub use filters::{Serial, Time, Timeout, TooBusy};
pub use handlers::Handlers;
pub(crate) use handlers::Registry;
pub use handshake::Handshake;
pub use host_filter::{HostFilter, HostFilterError, HostRule};
pub use mail::{MailError, WorkerPick};
pub use pending::{Pending, Responder};
pub use reply::Reply;
pub use request::{OwnedRequest, Request};
pub use session::{Bind, Session};
pub use stateful::{Routes, Shared, StateTaken};
pub(crate) use statistics::Logins;
pub use statistics::{Login, Statistics};
pub use task::{Task, TaskError};
pub use ticks::Missed;
pub use typed::handler_fn;
pub use verdict::{Refusal, Welcome};

pub(crate) use handlers::Register;

use crate::session::Uid;

/// The reason why a session was not bound or unbound. The texts are Pomelo's, which games show.
///
/// ```
/// use shaddock::{BindError, Fault, Session, Uid};
///
/// async fn login(uid: Uid, mut session: Session) -> Result<(), Fault> {
///     match session.bind(uid).await {
///         Err(BindError::InUse(uid)) => Err(Fault::new(409, format!("{uid} plays already"))),
///         bound => Ok(bound?),
///     }
/// }
/// # let _ = shaddock::Engine::builder().call_async("connector.entry.login", login);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BindError {
    /// The session has been closed (by its client, or by a kick).
    Gone {
        /// The id that clients and backends see.
        number: u64,
    },
    /// It is bound to somebody else (made by the embedder's handler).
    BoundToOther(Uid),
    /// Another session has the uid, and a second one is refused by
    /// [`OnSecondBind::Refuse`](crate::OnSecondBind) (made by the player).
    InUse(Uid),
    /// The uid to unbind is not the session's.
    NotBound(Uid),
    /// The uid is `""` or `0`, or longer than `uid_bytes_max`.
    BadUid,
    /// Too many look-ups are waiting for another shard; see
    /// [`Limits::backlog_len_max`](crate::Limits).
    Busy,
}

impl std::fmt::Display for BindError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Gone { number } => write!(f, "session does not exist, sid: {number}"),
            Self::BoundToOther(uid) => write!(f, "session has already bind with {}", uid.text()),
            Self::InUse(uid) => write!(
                f,
                "singleSession is enabled, and session has already bind with uid: {}",
                uid.text()
            ),
            Self::NotBound(uid) => write!(f, "session has not bind with {}", uid.text()),
            Self::BadUid => f.write_str("uid is empty or too long"),
            Self::Busy => f.write_str("too many binds at once"),
        }
    }
}

impl std::error::Error for BindError {}
