//! A session's data, as backends write it and are told of it.

use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::messages::Session;
use crate::session::SessionData;

/// The deepest nesting of session data. It goes through functions that call themselves for each
/// level, on threads whose stacks are bounded; Go reads 10,000 levels.
const DEPTH_MAX: usize = 512;

/// A session as servers are told of it. Its address is no setting here, but is one in Pitaya.
pub(super) fn export(data: &SessionData) -> Bytes {
    let mut settings = data.settings.clone();
    let ip_version = if data.peer.is_ipv4() { "ipv4" } else { "ipv6" };
    settings.entry("ipversion").or_insert_with(|| ip_version.into());
    let session = Session {
        id: i64::try_from(data.number).unwrap_or(i64::MAX),
        uid: data.uid.as_ref().map_or_else(String::new, |uid| uid.text().to_owned()),
        data: Value::Object(settings).to_string().into(),
    };
    session.encode_to_vec().into()
}

/// Reads a JSON object; `None` for what is none, or is nested deeper than [`DEPTH_MAX`].
pub(super) fn parse(text: &[u8]) -> Option<Map<String, Value>> {
    if depth(text) > DEPTH_MAX {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    // Its own bound is 128 levels.
    deserializer.disable_recursion_limit();
    let map = Map::deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    Some(map)
}

/// The depth of JSON text; of what is no JSON, at least as deep as a parser gets.
fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut is_text, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_text => is_escaped = true,
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !is_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> String {
        ["{\"a\":", &"[".repeat(depth - 1), &"]".repeat(depth - 1), "}"].concat()
    }

    /// Pitaya takes 160 levels, and many more.
    #[test]
    fn data_may_be_nested_deeply_but_not_without_a_bound() {
        for depth in [2, 128, 129, 160, DEPTH_MAX] {
            let map = parse(nested(depth).as_bytes()).unwrap();
            assert_eq!(Value::Object(map.clone()).to_string(), nested(depth));
        }
        for bad in [&nested(DEPTH_MAX + 1), &nested(1_000_000), "[1]", "", "{} {}", "{\"a\":1"] {
            assert_eq!(parse(bad.as_bytes()), None);
        }
        let text = "{\"a\":\"[[[{\\\"[[\"}";
        assert_eq!(depth(text.as_bytes()), 1, "what stands in text nests nothing");
    }
}
