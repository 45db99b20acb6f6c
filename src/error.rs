//! Errors of an engine that is started, or asked for something.

use std::net::SocketAddr;

use crate::limits::LimitError;
use crate::route::registration::Misregistration;

/// The reason why an engine did not start. The text says what to do, also as `Debug` prints it,
/// which is what a `main` that returns the error shows.
#[non_exhaustive]
pub enum StartError {
    /// A bound that can't hold (made by the embedder).
    Limits(LimitError),
    /// An option that can't hold (made by the embedder).
    Option {
        /// The option.
        option: EngineOption,
        /// The values that may be given there.
        expected: String,
    },
    /// Handlers or schemas that nobody could reach, all of them (made by the embedder). They are
    /// found while the threads are set up, as handlers are registered there.
    ///
    /// ```no_run
    /// use shaddock::{Engine, Reply, StartError};
    ///
    /// let started = Engine::builder()
    ///     .listen("127.0.0.1:3010")
    ///     .handler("entryHandler.hello", |_, _| Reply::empty())
    ///     .start();
    /// let Err(StartError::Handlers(mistakes)) = started else { panic!("it starts") };
    /// assert_eq!(
    ///     mistakes[0].to_string(),
    ///     "`entryHandler.hello` on `connector` is no route of three parts: \
    ///      write `connector.entryHandler.hello`"
    /// );
    /// ```
    Handlers(Vec<Misregistration>),
    /// Not an address that can be listened on (made by the embedder).
    BadAddress {
        /// The text that was given.
        address: String,
        /// The reason why it is none.
        why: String,
    },
    /// Another process listens there.
    AddressInUse(SocketAddr),
    /// The address can't be listened on, for another reason of the system's.
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's error.
        error: std::io::Error,
    },
    /// The kernel refuses io_uring to this process.
    IoUringBlocked {
        /// The part that refuses it, as far as that shows.
        by: IoUringBlock,
        /// The system's error.
        error: std::io::Error,
    },
    /// The kernel has no memory for a ring, or may not take more for this user.
    RingMemory {
        /// The ring, by whose it is.
        what: &'static str,
        /// Bytes that the rings of all threads take.
        bytes_min: u64,
        /// `RLIMIT_MEMLOCK`, in bytes; none if there is no limit.
        limit: Option<u64>,
    },
    /// The kernel has no io_uring, or one without what the engine needs.
    KernelTooOld {
        /// The missing piece.
        missing: &'static str,
    },
    /// `RLIMIT_MEMLOCK` is too low.
    MemLock {
        /// In force.
        bytes: u64,
        /// Needed.
        bytes_min: u64,
    },
    /// `RLIMIT_NOFILE` is too low.
    Descriptors {
        /// In force.
        limit: u64,
        /// Needed.
        limit_min: u64,
    },
    /// A ring, a buffer or a thread could not be made.
    System {
        /// The thing that was to be made.
        what: &'static str,
        /// The system's error.
        error: std::io::Error,
    },
}

/// An option of an engine's description: mostly a method of [`Builder`](crate::Builder) or
/// [`Listener`](crate::Listener), by whose name it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum EngineOption {
    /// `Builder::listen`.
    Listen,
    /// `Builder::shards`.
    Shards,
    /// `Builder::shards` and the workers of `Builder::forward`, counted together.
    ShardsAndWorkers,
    /// `Builder::driver`.
    Driver,
    /// `Builder::forward`.
    Forward,
    /// `Builder::route`.
    Route,
    /// `Builder::lane_full`.
    LaneFull,
    /// `Builder::heartbeat`.
    Heartbeat,
    /// `Builder::heartbeat_timeout`.
    HeartbeatTimeout,
    /// `Builder::health_path`.
    HealthPath,
    /// `Builder::on_handshake`.
    OnHandshake,
    /// `Builder::use_crypto`.
    UseCrypto,
    /// `Listener::proxy_protocol`.
    ProxyProtocol,
    /// `Listener::trusted_proxies`.
    TrustedProxies,
    /// `Listener::real_ip_header`.
    RealIpHeader,
    /// `Listener::origins`.
    Origins,
    /// An option of `Listener::tcp`, by its name.
    Tcp(&'static str),
    /// `Listener::serializer`.
    Serializer,
    /// `Listener::compression`.
    Compression,
    /// An option of the admin server, by its name: `admin.listen`.
    Admin(&'static str),
    /// An option of the traces, by its name: `traces.endpoint`, or the variable of the environment
    /// that gives it.
    Traces(&'static str),
    /// An option of a cluster, by the cluster's kind and the option's name: `pomelo.keepalive`.
    Cluster(&'static str),
}

impl std::fmt::Display for EngineOption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Listen => "listen",
            Self::Shards => "shards",
            Self::ShardsAndWorkers => "shards and workers",
            Self::Driver => "driver",
            Self::Forward => "forward",
            Self::Route => "route",
            Self::LaneFull => "lane_full",
            Self::Heartbeat => "heartbeat",
            Self::HeartbeatTimeout => "heartbeat_timeout",
            Self::HealthPath => "health_path",
            Self::OnHandshake => "on_handshake",
            Self::UseCrypto => "use_crypto",
            Self::ProxyProtocol => "proxy_protocol",
            Self::TrustedProxies => "trusted_proxies",
            Self::RealIpHeader => "real_ip_header",
            Self::Origins => "origins",
            Self::Tcp(name) => return write!(f, "tcp.{name}"),
            Self::Serializer => "serializer",
            Self::Compression => "compression",
            Self::Admin(name) | Self::Traces(name) | Self::Cluster(name) => name,
        })
    }
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Limits(error) => error.fmt(f),
            Self::Option { option, expected } => write!(f, "option `{option}` must be {expected}"),
            Self::Handlers(mistakes) => {
                f.write_str("handlers and schemas are registered wrongly:")?;
                mistakes.iter().try_for_each(|mistake| write!(f, "\n- {mistake}"))
            }
            Self::BadAddress { address, why } => {
                write!(f, "can't listen on `{address}`: {why}; give an address like 127.0.0.1:3010")
            }
            Self::AddressInUse(address) => {
                write!(f, "another process listens on {address}; stop it or choose another port")
            }
            Self::Listen { address, error } => write!(f, "can't listen on {address}: {error}"),
            Self::IoUringBlocked { by, error } => {
                write!(f, "io_uring is blocked for this process by {by} ({error})")
            }
            Self::RingMemory { what, bytes_min, limit } => {
                write!(f, "the kernel has no memory for {what}: all rings take {bytes_min} bytes")?;
                match limit {
                    Some(limit) => write!(f, ", and the limit of locked memory is {limit}")?,
                    None => f.write_str(", and there is no limit of locked memory")?,
                }
                f.write_str(
                    "; raise it with `ulimit -l` or LimitMEMLOCK=, or give the container more memory",
                )
            }
            Self::KernelTooOld { missing } => {
                write!(f, "the kernel's io_uring lacks {missing}; Linux 6.1 or newer is needed")
            }
            Self::MemLock { bytes, bytes_min } => write!(
                f,
                "the limit of locked memory is {bytes} bytes and must be {bytes_min} at least; \
                 raise it with `ulimit -l` or LimitMEMLOCK="
            ),
            Self::Descriptors { limit, limit_min } => write!(
                f,
                "the limit of open descriptors is {limit} and must be {limit_min} at least; raise \
                 it with `ulimit -n` or LimitNOFILE="
            ),
            Self::System { what, error } => write!(f, "can't make {what}: {error}"),
        }
    }
}

/// A part of the system that refuses io_uring. The text says what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum IoUringBlock {
    /// The sysctl `kernel.io_uring_disabled`, which is 1 or 2.
    Sysctl {
        /// Its value.
        disabled: u8,
        /// The group that may have io_uring all the same where it is 1: `kernel.io_uring_group`.
        /// None where no group may.
        group: Option<u32>,
    },
    /// A seccomp filter, as containers and service managers set them.
    Seccomp,
    /// Neither of them is seen: a security module, perhaps.
    Unknown,
}

impl std::fmt::Display for IoUringBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sysctl { disabled: 1, group } => {
                f.write_str("the sysctl kernel.io_uring_disabled, which is 1; set it to 0, or ")?;
                match group {
                    Some(group) => write!(
                        f,
                        "run as a member of the group {group}, which is kernel.io_uring_group"
                    ),
                    None => f.write_str(
                        "set kernel.io_uring_group, which is no group yet, to one of this user's",
                    ),
                }
            }
            Self::Sysctl { disabled, .. } => {
                write!(f, "the sysctl kernel.io_uring_disabled, which is {disabled}; set it to 0")
            }
            Self::Seccomp => f.write_str(
                "a seccomp filter; allow the system calls io_uring_setup, io_uring_enter and \
                 io_uring_register in the container's profile or the unit's SystemCallFilter=",
            ),
            Self::Unknown => f.write_str(
                "the system; allow io_uring_setup, io_uring_enter and io_uring_register, and look \
                 at its security modules",
            ),
        }
    }
}

impl std::fmt::Debug for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// The text holds the error behind it, so there is no source that would be printed once more.
impl std::error::Error for StartError {}

impl From<LimitError> for StartError {
    fn from(error: LimitError) -> Self {
        Self::Limits(error)
    }
}

/// The reason why an engine did not do what its handle asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// A shard's inbox is full; see [`Limits::inbox_len`](crate::Limits). Try again.
    Busy,
    /// It would block, and this is the thread of a shard or worker (made by the embedder). Await
    /// the async form there, such as
    /// [`Handle::statistics_async`](crate::Handle::statistics_async); what has none is for another
    /// thread.
    OnShard,
    /// A shard has not reported within 5 s: a handler on it blocks, or the machine is too busy.
    TimedOut,
    /// The engine has been shut down, or has [failed](crate::Handle::failure).
    Stopped,
    /// A message that can't be pushed (made by the embedder).
    Push(crate::route::PushError),
    /// More rules than a host filter holds: 65,536 without an end, and as many for a while.
    TooManyHosts,
}

impl std::fmt::Display for HandleError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Busy => f.write_str("a shard's inbox is full; try again later"),
            Self::OnShard => f.write_str(
                "it would block a shard or worker; await the async form, or ask on another thread",
            ),
            Self::TimedOut => f.write_str("a shard has not reported in time"),
            Self::Stopped => f.write_str("the engine has been shut down"),
            Self::Push(error) => error.fmt(f),
            Self::TooManyHosts => f.write_str("a host filter holds at most 65536 rules"),
        }
    }
}

impl std::error::Error for HandleError {}

impl From<crate::route::PushError> for HandleError {
    fn from(error: crate::route::PushError) -> Self {
        Self::Push(error)
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    /// As `anyhow` and others print an error: with all that is behind it.
    #[test]
    fn the_reason_of_an_error_is_printed_once() {
        let limits = crate::Limits { tasks_max: 0, ..crate::Limits::default() };
        let refused = StartError::Limits(limits.check().unwrap_err());
        let system = StartError::System { what: "a ring", error: std::io::Error::other("no") };
        for error in [refused, system] {
            assert!(error.source().is_none(), "{error}");
        }
    }
}
