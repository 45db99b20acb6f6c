//! A push as its client has got it.

use serde_json::Value;

/// A push that has reached a client.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Push {
    /// The route, expanded if it came as a code of the dictionary.
    pub route: String,
    /// The body; `null` where it is no JSON. A protobuf body of Pomelo's has been turned into JSON.
    pub body: Value,
    /// The body as bytes.
    pub bytes: Vec<u8>,
}

impl Push {
    pub(super) fn new(route: String, bytes: Vec<u8>) -> Self {
        let body = serde_json::from_slice(&bytes).unwrap_or_default();
        Self { route, body, bytes }
    }
}
