//! The ends of a connection and the failures of a call.

use std::{error, fmt, io};

use super::address::AddressError;
use crate::route::DictionaryError;
use crate::wire::message::{self, MessageError};
use crate::wire::package::{PackageError, PackageType};
use crate::wire::protobuf::{DecodeError, EncodeError, SchemaError};
use crate::wire::websocket::FrameError;

/// The reason why a connection is over.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Closed {
    /// The program has closed it, by [`Client::close`](super::Client::close) or by dropping the
    /// last clone of the client.
    ByClient,
    /// The server has closed it without a word.
    ByServer,
    /// The server has kicked this session.
    Kicked {
        /// The server's reason, such as `"kick"`; `None` if it gave none.
        reason: Option<String>,
    },
    /// The server has refused the handshake.
    Refused {
        /// The code: 500 for a handshake it does not take, 501 for a client that is too old, or one
        /// of the game's own.
        code: i64,
    },
    /// The connection was not made, or the handshake not answered, within
    /// [`connect_timeout`](super::Options::connect_timeout).
    ConnectTimeout,
    /// The server has sent nothing for two intervals of its heartbeat.
    Silent,
    /// The socket has failed.
    Io(io::ErrorKind),
    /// The host's name has no address.
    NameNotFound,
    /// The server has answered the WebSocket's upgrade with another status than 101.
    Upgrade {
        /// The status of HTTP.
        status: u16,
    },
    /// TLS has failed, as the text says; mostly a certificate that is not trusted.
    Tls(String),
    /// The server has sent what the protocol does not allow, or more than the options do.
    Fault(Fault),
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ByClient => f.write_str("the client has closed the connection"),
            Self::ByServer => f.write_str("the server has closed the connection"),
            Self::Kicked { reason: Some(reason) } => write!(f, "kicked by the server: {reason}"),
            Self::Kicked { reason: None } => f.write_str("kicked by the server"),
            Self::Refused { code } => write!(f, "the handshake was refused with code {code}"),
            Self::ConnectTimeout => f.write_str("the handshake was not done in connect_timeout"),
            Self::Silent => f.write_str("the server was silent for two heartbeats"),
            Self::Io(kind) => write!(f, "the socket has failed: {kind}"),
            Self::NameNotFound => f.write_str("the host's name has no address"),
            Self::Upgrade { status } => write!(f, "the upgrade was answered with status {status}"),
            Self::Tls(text) => write!(f, "TLS has failed: {text}"),
            Self::Fault(fault) => write!(f, "the server broke the protocol: {fault}"),
        }
    }
}

impl error::Error for Closed {}

impl From<Fault> for Closed {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// A break of the protocol; the server is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The answer to the upgrade is not HTTP, is longer than 16 KiB, or does not agree to it.
    Upgrade,
    /// A WebSocket frame that no server may send.
    Frame(FrameError),
    /// A package of an unknown type, or longer than
    /// [`package_bytes_max`](super::Options::package_bytes_max), or than
    /// [`handshake_bytes_max`](super::Options::handshake_bytes_max) before the handshake is done.
    Package(PackageError),
    /// A package that has no place there, such as data before the handshake's answer.
    Unexpected(PackageType),
    /// The answer of the handshake is not the JSON that it should be.
    Handshake,
    /// The dictionary in the handshake contradicts itself.
    Dictionary(DictionaryError),
    /// The schemas in the handshake can't be compiled.
    Schemas(SchemaError),
    /// A message that is cut off or of a type that no server sends.
    Message(MessageError),
    /// A push by a code that the dictionary does not have.
    UnknownCode(u16),
    /// A push whose body does not follow its route's schema, or is longer than
    /// [`package_bytes_max`](super::Options::package_bytes_max) as JSON.
    Push(DecodeError),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upgrade => f.write_str("the answer to the upgrade is malformed"),
            Self::Frame(error) => error.fmt(f),
            Self::Package(error) => error.fmt(f),
            Self::Unexpected(kind) => write!(f, "unexpected package {kind:?}"),
            Self::Handshake => f.write_str("the answer to the handshake is malformed"),
            Self::Dictionary(error) => error.fmt(f),
            Self::Schemas(error) => error.fmt(f),
            Self::Message(error) => error.fmt(f),
            Self::UnknownCode(code) => write!(f, "a push by the unknown code {code}"),
            Self::Push(error) => write!(f, "a push does not follow its schema: {error}"),
        }
    }
}

impl error::Error for Fault {}

/// The reasons why there is no connection.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectError {
    /// The address can't be read.
    Address(AddressError),
    /// The address asks for TLS, and the options do not say which certificates to trust. Name them
    /// by `Options::trust`, which needs the feature `tls`.
    TrustMissing,
    /// The thread of the clients could not be started.
    Thread(io::ErrorKind),
    /// The connection ended before it was ready.
    Closed(Closed),
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => error.fmt(f),
            Self::TrustMissing => f.write_str(
                "no certificates are trusted; name them by Options::trust (feature `tls`)",
            ),
            Self::Thread(kind) => write!(f, "the thread of the clients did not start: {kind}"),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl error::Error for ConnectError {}

/// The reasons why a request or notify has failed.
#[non_exhaustive]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestError {
    /// The handshake is not done.
    NotReady,
    /// The route is empty or longer than 255 bytes.
    Route(message::EncodeError),
    /// The body can't be written as JSON, as the text says.
    Json(String),
    /// The body does not follow the route's schema.
    Schema(EncodeError),
    /// The message is longer than [`package_bytes_max`](super::Options::package_bytes_max).
    TooLong {
        /// The length of the message in bytes.
        len: usize,
        /// The longest allowed.
        max: usize,
    },
    /// As many requests as [`requests_max`](super::Options::requests_max) wait for their answers.
    TooMany {
        /// The limit.
        max: usize,
    },
    /// As many bytes as [`output_bytes_max`](super::Options::output_bytes_max) wait for a server
    /// that does not read.
    OutputFull {
        /// The limit, in bytes.
        max: usize,
    },
    /// No answer came in time. The server may have handled the request all the same.
    TimedOut,
    /// The answer does not follow its route's schema, or is longer than
    /// [`package_bytes_max`](super::Options::package_bytes_max) as JSON.
    Answer(DecodeError),
    /// The answer came, but [`inbox_bytes_max`](super::Options::inbox_bytes_max) had no room for
    /// it.
    InboxFull {
        /// The limit, in bytes.
        max: usize,
    },
    /// The connection is over. Behind a request, the server may have handled it.
    Closed(Closed),
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("the handshake is not done"),
            Self::Route(error) => error.fmt(f),
            Self::Json(text) => write!(f, "the body can't be written as JSON: {text}"),
            Self::Schema(error) => write!(f, "the body does not follow its schema: {error}"),
            Self::TooLong { len, max } => write!(f, "a message of {len} bytes, at most {max}"),
            Self::TooMany { max } => write!(f, "{max} requests wait for their answers"),
            Self::OutputFull { max } => write!(f, "{max} bytes wait for the server"),
            Self::TimedOut => f.write_str("no answer came in time"),
            Self::Answer(error) => write!(f, "the answer does not follow its schema: {error}"),
            Self::InboxFull { max } => write!(f, "no room for the answer within {max} bytes"),
            Self::Closed(closed) => closed.fmt(f),
        }
    }
}

impl error::Error for RequestError {}
