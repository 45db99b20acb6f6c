//! One connection of a shard.

use std::net::SocketAddr;

use super::session::SessionRecord;
use crate::route::table::RouteId;
use crate::session::{Outbox, SessionSnapshot, Uid};
use crate::shard::listener_config::{Dialect, ListenerConfig, ListenerIndex};
use crate::shard::shell::SocketIndex;
use crate::wire::websocket::Fragments;

/// The progress of a connection.
///
/// ```text
/// Sniff -> Http -> Inited -> WaitAck -> Working -> Closing -> Lingering -> Dead
///      \___________^           (any of these)  \___________\___________^
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing has come yet that tells TCP from HTTP.
    Sniff,
    /// The head of an HTTP request is coming in.
    Http,
    /// Ready for the handshake.
    Inited,
    /// The handshake is answered.
    WaitAck,
    /// The handshake is done; what counts from here on is the listener's dialect. It stands here
    /// because the state is what every message looks at anyway.
    Working(Dialect),
    /// Nothing is read any more; the outbox is being sent.
    Closing,
    /// All is sent and the writing side is closed; the client has yet to close its own.
    Lingering,
    /// The shell has been told to close the socket.
    Dead,
}

impl State {
    /// True if what the client sends still counts.
    pub(crate) fn is_reading(self) -> bool {
        matches!(self, Self::Sniff | Self::Http | Self::Inited | Self::WaitAck | Self::Working(_))
    }

    /// True from the answer to the handshake until the session ends.
    pub(crate) fn knows_edition(self) -> bool {
        matches!(self, Self::WaitAck | Self::Working(_))
    }

    /// True if the handshake is done and the session has not ended, in whatever dialect.
    #[inline]
    pub(crate) fn is_working(self) -> bool {
        matches!(self, Self::Working(_))
    }
}

// It is looked at by every message.
const _: () = assert!(size_of::<State>() == 1);

/// The carrier of the packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    WebSocket,
}

/// The shard's lists of outboxes to look at in which a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(crate) enum Listed {
    Not,
    /// Among those who have got nothing but pushes. They may be many.
    Pushed,
    /// Something else was appended, or has to be sent.
    Dirty,
    /// It is in both lists.
    Both,
    /// It was dirty in the turn before, and left for this one.
    Deferred,
    /// It was dirty, and has much to send.
    Long,
}

impl Listed {
    /// True if more than pushes is to be listed.
    #[inline]
    pub(crate) fn is_dirty(self) -> bool {
        self >= Self::Dirty
    }

    /// It gets into the list of those that are dirty.
    #[inline]
    pub(crate) fn with_dirty(self) -> Self {
        if self == Self::Pushed { Self::Both } else { Self::Dirty }
    }
}

/// The layer below the client's own bytes; mostly none, and then it costs nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layer {
    Plain,
    /// A PROXY header has to come first; what has come of it is the connection's partial.
    Proxy,
    /// None, but what comes and goes is recorded.
    #[cfg(feature = "admin")]
    Recorded,
    #[cfg(feature = "tls")]
    Tls,
    /// TLS, and what comes and goes in it is recorded.
    #[cfg(all(feature = "admin", feature = "tls"))]
    RecordedTls,
}

impl Layer {
    /// The layer that a new connection starts with.
    pub(in crate::shard) fn first(listener: &ListenerConfig) -> Self {
        if listener.expects_proxy { Self::Proxy } else { Self::behind_proxy(listener) }
    }

    /// True if the bytes of the socket are those of TLS.
    #[cfg(any(feature = "admin", feature = "tls"))]
    #[inline]
    pub(in crate::shard) fn has_tls(self) -> bool {
        match self {
            #[cfg(feature = "tls")]
            Self::Tls => true,
            #[cfg(all(feature = "admin", feature = "tls"))]
            Self::RecordedTls => true,
            _ => false,
        }
    }

    /// The same layer with a recording, unless it has one; none where the session has yet to be
    /// told from its proxy.
    #[cfg(feature = "admin")]
    pub(in crate::shard) fn recorded(self) -> Option<Self> {
        match self {
            Self::Plain => Some(Self::Recorded),
            #[cfg(feature = "tls")]
            Self::Tls => Some(Self::RecordedTls),
            _ => None,
        }
    }

    /// The same layer without a recording.
    #[cfg(feature = "admin")]
    pub(in crate::shard) fn unrecorded(self) -> Self {
        match self {
            Self::Recorded => Self::Plain,
            #[cfg(feature = "tls")]
            Self::RecordedTls => Self::Tls,
            layer => layer,
        }
    }

    /// The layer that stands behind a PROXY header.
    pub(in crate::shard) fn behind_proxy(listener: &ListenerConfig) -> Self {
        #[cfg(feature = "tls")]
        if listener.tls.is_some() {
            return Self::Tls;
        }
        let _ = listener;
        Self::Plain
    }
}

/// The reason why a session ends; each has its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    Peer,
    Kick,
    HeartbeatTimeout,
    Idle,
    HandshakeTimeout,
    Protocol,
    /// Counted as a refusal already.
    Refused,
    SlowConsumer,
    OutboxAge,
    Shutdown,
    /// More was kept for it than is left of `shard_bytes_max`.
    Memory,
}

/// One connection, and its session. An idle one owns no buffer.
pub(crate) struct Connection {
    pub(crate) socket: SocketIndex,
    pub(crate) state: State,
    pub(crate) transport: Transport,
    pub(crate) listed: Listed,
    pub(crate) layer: Layer,
    /// The listener that it came in by.
    pub(crate) listener: ListenerIndex,
    /// True if the client has closed its writing side.
    pub(crate) is_read_to_end: bool,
    /// The bytes counted of its input and output.
    pub(crate) io_bytes: u32,
    pub(crate) traffic: Traffic,
    pub(crate) peer: SocketAddr,
    /// The time at which the client last said what keeps it alive, on the shard's patient clock.
    /// Until it works that is its accept, and nothing else it says; later by the time that it was
    /// held back.
    pub(crate) heard_ms: u64,
    pub(crate) outbox: Outbox,
    /// The start of a package, frame or head whose rest has not come yet.
    pub(crate) partial: Option<Box<Partial>>,
    /// A WebSocket message whose last fragment has not come yet.
    pub(crate) message: Option<Box<FragmentedMessage>>,
    pub(crate) session: SessionRecord,
}

// A hundred thousand of these idle on a machine.
const _: () = assert!(size_of::<Connection>() <= 200);

/// The traffic of a connection, for those who look at it: plain sums, of what its shard has at hand
/// when it adds to them.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(not(feature = "admin"), allow(dead_code))] // Nobody looks then.
pub(crate) struct Traffic {
    /// Bytes of the socket.
    pub(crate) received_bytes: u64,
    pub(crate) sent_bytes: u64,
    /// Requests and notifies. It wraps.
    pub(crate) received_messages: u32,
    /// Answers and pushes. It wraps.
    pub(crate) sent_messages: u32,
    /// The route of the last message of the client's; none where it is in no table.
    pub(crate) last_route: Option<RouteId>,
}

impl Traffic {
    /// Counts messages that have come, and the answers that they have got.
    #[inline]
    pub(crate) fn note(&mut self, messages: u64, answers: u64, last_route: Option<RouteId>) {
        self.received_messages = self.received_messages.wrapping_add(messages as u32);
        self.note_sent(answers as u32);
        self.last_route = last_route;
    }

    #[inline]
    pub(crate) fn note_sent(&mut self, messages: u32) {
        self.sent_messages = self.sent_messages.wrapping_add(messages);
    }
}

/// Bytes kept until the rest has come.
pub(crate) struct Partial {
    pub(crate) buffer: Vec<u8>,
    /// The length at which it makes sense to look again.
    pub(crate) needed: usize,
}

/// The fragments so far.
pub(crate) struct FragmentedMessage {
    pub(crate) fragments: Fragments,
    pub(crate) payload: Vec<u8>,
}

impl Connection {
    /// A connection of the first listener with nothing below its bytes.
    pub(crate) fn new(socket: SocketIndex, peer: SocketAddr, now_ms: u64) -> Self {
        Self {
            socket,
            state: State::Sniff,
            transport: Transport::Tcp,
            listed: Listed::Not,
            layer: Layer::Plain,
            listener: ListenerIndex(0),
            is_read_to_end: false,
            io_bytes: 0,
            traffic: Traffic::default(),
            peer,
            heard_ms: now_ms,
            outbox: Outbox::default(),
            partial: None,
            message: None,
            session: SessionRecord::default(),
        }
    }

    /// The data of the session; made when it is first asked for.
    #[inline]
    pub(crate) fn data(&mut self) -> &mut SessionSnapshot {
        self.session.data(self.peer)
    }

    /// The uid that the session is bound to.
    pub(crate) fn uid(&self) -> Option<&Uid> {
        self.session.data.as_ref()?.uid.as_ref()
    }
}
