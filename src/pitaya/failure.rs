//! Errors that clients and backends are told of
//! (docs/protocol/pitaya.md, "Error codes").

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::messages::Error;
use crate::metrics::ForwardEnd;

/// The reason why a request has no answer of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failure {
    /// There is no server of its type.
    NoServer,
    /// There is no connection to NATS.
    NoConnection,
    /// A bound of [`PitayaLimits`](super::PitayaLimits) is reached.
    Busy,
    /// NATS would not carry it.
    TooLong,
    /// Nobody listens on the server's subject.
    NoResponders,
    /// The server has not answered in time.
    Timeout,
    /// The server's answer can't be read.
    BadAnswer,
}

/// The code of an error that names none.
const UNKNOWN: &str = "PIT-000";

impl Failure {
    pub(super) fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::NoServer => ("PIT-500", "no servers available of this type"),
            Self::NoConnection => ("PIT-500", "no connection to the cluster"),
            Self::Busy => ("PIT-500", "too many requests are under way"),
            Self::TooLong => ("PIT-400", "the message is too long for the cluster"),
            Self::NoResponders => (UNKNOWN, "nats: no responders available for request"),
            Self::Timeout => ("PIT-408", "rpc client: request timeout"),
            Self::BadAnswer => ("PIT-500", "the server's answer can't be read"),
        }
    }

    /// The end that it counts as.
    pub(super) fn end(self) -> ForwardEnd {
        match self {
            Self::Busy | Self::TooLong => ForwardEnd::Rejected,
            Self::Timeout => ForwardEnd::TimedOut,
            Self::BadAnswer => ForwardEnd::Failed,
            Self::NoServer | Self::NoConnection | Self::NoResponders => ForwardEnd::Lost,
        }
    }

    /// The answer's body.
    pub(super) fn body(self) -> Bytes {
        let (code, msg) = self.parts();
        error(code, msg).into_body()
    }
}

/// An error as servers send it.
pub(super) fn error(code: &str, msg: impl Into<String>) -> Error {
    Error { code: code.into(), msg: msg.into(), ..Error::default() }
}

/// An error of a kind that has no code of its own.
pub(super) fn unknown(msg: impl Into<String>) -> Error {
    error(UNKNOWN, msg)
}

impl Error {
    /// The JSON that a client gets: what is empty is left out, but for the code.
    pub(super) fn into_body(self) -> Bytes {
        let Self { code, msg, metadata } = self;
        let code = if code.is_empty() { UNKNOWN.into() } else { code };
        let mut object = Map::from_iter([("code".to_owned(), Value::String(code))]);
        if !msg.is_empty() {
            object.insert("msg".into(), msg.into());
        }
        if !metadata.is_empty() {
            // Go writes a map's keys in order.
            let metadata = BTreeMap::from_iter(metadata);
            let metadata = metadata.into_iter().map(|(key, value)| (key, value.into()));
            object.insert("metadata".into(), Value::Object(metadata.collect()));
        }
        Value::Object(object).to_string().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_json() {
        assert_eq!(
            Failure::NoServer.body(),
            "{\"code\":\"PIT-500\",\"msg\":\"no servers available of this type\"}"
        );
        assert_eq!(Error::default().into_body(), "{\"code\":\"PIT-000\"}");
        let metadata = [("route".to_owned(), "a.b".to_owned())].into();
        let error = Error { metadata, ..error("PIT-404", "route not found") };
        assert_eq!(
            error.into_body(),
            "{\"code\":\"PIT-404\",\"msg\":\"route not found\",\"metadata\":{\"route\":\"a.b\"}}"
        );
    }
}
