//! A server's description of itself.

use serde::Deserialize;

/// The parts of an `INFO` that matter here. A server leaves out what is not so.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct ServerInfo {
    /// Bytes of a message, its headers included, that it takes.
    pub(crate) max_payload: usize,
    /// True if it goes on under TLS only.
    pub(crate) tls_required: bool,
    /// True if it is about to stop.
    #[serde(rename = "ldm")]
    pub(crate) is_lame: bool,
    /// The challenge that a login by an NKey signs.
    pub(crate) nonce: Option<String>,
    /// The servers of its cluster, as `host:port`.
    pub(crate) connect_urls: Vec<String>,
}

/// NATS's own `max_payload`, and the most that may be configured there.
const PAYLOAD_BYTES: usize = 1024 * 1024;
const PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Default for ServerInfo {
    fn default() -> Self {
        Self {
            max_payload: PAYLOAD_BYTES,
            tls_required: false,
            is_lame: false,
            nonce: None,
            connect_urls: Vec::new(),
        }
    }
}

impl ServerInfo {
    /// Reads the object behind `INFO`.
    ///
    /// # Errors
    /// It is no JSON object, or not one like a server's.
    pub(crate) fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let mut info: Self = serde_json::from_slice(json)?;
        info.max_payload = info.max_payload.min(PAYLOAD_BYTES_MAX);
        Ok(info)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_is_not_so() {
        let info = ServerInfo::parse(br#"{"server_id":"A","proto":1,"max_payload":9}"#).unwrap();
        assert_eq!(info, ServerInfo { max_payload: 9, ..ServerInfo::default() });
        let lame = ServerInfo::parse(br#"{"ldm":true,"connect_urls":["h:1"]}"#).unwrap();
        assert!(lame.is_lame && lame.connect_urls == ["h:1"]);
        let greedy = ServerInfo::parse(br#"{"max_payload":99999999999}"#).unwrap();
        assert_eq!(greedy.max_payload, PAYLOAD_BYTES_MAX);
        assert!(ServerInfo::parse(b"1").is_err());
    }
}
