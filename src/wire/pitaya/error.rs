//! The error body that answers a failed request.

use serde::Serialize;
use serde_json::{Map, Value};

use super::Serializer;
use crate::wire::surrogate::parse_json;
use crate::wire::varint;

/// The code of an error without one.
const CODE_UNKNOWN: &str = "PIT-000";
/// The code of an error that gives no further reason.
const CODE_INTERNAL: &str = "PIT-500";

/// Pitaya's error: `Error { string code = 1; string msg = 2; map<string, string> metadata = 3 }`
/// (docs/protocol/pitaya.md, "Protobuf messages" and "Error codes").
///
/// ```
/// use shaddock::wire::pitaya::{Error, Serializer};
///
/// let error = Error::from_body(br#"{"code":404,"msg":"no such room"}"#);
/// assert_eq!(error, Error::new("PIT-404", "no such room"));
/// let mut body = Vec::new();
/// error.encode(Serializer::Json, &mut body);
/// assert_eq!(body, br#"{"code":"PIT-404","msg":"no such room"}"#);
/// ```
#[allow(clippy::exhaustive_structs)] // Complete by the protocol's definition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Error {
    /// `PIT-` and a number for Pitaya's own errors, any text for a game's.
    pub code: String,
    /// A description in words. Pitaya leaves an empty one out.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub msg: String,
    /// Further details. Pitaya leaves an empty map out.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
}

impl Error {
    /// An error without metadata.
    #[must_use]
    pub fn new(code: &str, msg: &str) -> Self {
        Self { code: code.to_owned(), msg: msg.to_owned(), metadata: Map::new() }
    }

    /// Converts a failed reply's JSON, whether it was written for Pitaya or not:
    ///
    /// | body | code | msg | metadata |
    /// |---|---|---|---|
    /// | an object, `code` a text | that; `PIT-000` if empty | its `msg` | its `metadata` |
    /// | an object, `code` a number | `PIT-` and the number | the same | the same |
    /// | any other object | `PIT-500` | the same | the same |
    /// | a text | `PIT-500` | the text | |
    /// | anything else | `PIT-500` | the body | |
    ///
    /// A `msg` that is not a text and a `metadata` that is not an object count as absent. A member
    /// of `metadata` that is not a text becomes its JSON.
    #[must_use]
    pub fn from_body(body: &[u8]) -> Self {
        let mut object = match parse_json(body) {
            Ok(Value::Object(object)) => object,
            Ok(Value::String(msg)) => {
                return Self { code: CODE_INTERNAL.to_owned(), msg, ..Self::default() };
            }
            _ => return Self::new(CODE_INTERNAL, &String::from_utf8_lossy(body)),
        };
        let code = match object.remove("code") {
            Some(Value::String(code)) if code.is_empty() => CODE_UNKNOWN.to_owned(),
            Some(Value::String(code)) => code,
            Some(Value::Number(code)) => format!("PIT-{code}"),
            _ => CODE_INTERNAL.to_owned(),
        };
        let msg = match object.remove("msg") {
            Some(Value::String(msg)) => msg,
            _ => String::new(),
        };
        let mut metadata = match object.remove("metadata") {
            Some(Value::Object(metadata)) => metadata,
            _ => Map::new(),
        };
        for value in metadata.values_mut().filter(|value| !value.is_string()) {
            *value = Value::String(value.to_string());
        }
        Self { code, msg, metadata }
    }

    /// Appends the error in a listener's serialization.
    pub fn encode(&self, serializer: Serializer, out: &mut Vec<u8>) {
        match serializer {
            Serializer::Json => {
                serde_json::to_writer(out, self).expect("texts can be written to a vector");
            }
            Serializer::Protobuf => self.encode_protobuf(out),
        }
    }

    /// Appends the error as proto3: an empty text is left out, and a map is a message of key 1 and
    /// value 2 for each entry.
    fn encode_protobuf(&self, out: &mut Vec<u8>) {
        for (number, text) in [(1, &self.code), (2, &self.msg)] {
            append_text(number, text, out);
        }
        let mut entry = Vec::new();
        for (key, value) in &self.metadata {
            entry.clear();
            append_text(1, key, &mut entry);
            append_text(2, value.as_str().unwrap_or_default(), &mut entry);
            append_bytes(3, &entry, out);
        }
    }
}

fn append_text(number: u8, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        append_bytes(number, text.as_bytes(), out);
    }
}

/// Appends a field of protobuf's wire type 2. A package can't hold more than 4 GiB.
fn append_bytes(number: u8, bytes: &[u8], out: &mut Vec<u8>) {
    out.push(number << 3 | 2);
    varint::encode(bytes.len() as u32, out);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn json_of(body: &str) -> Value {
        let mut out = Vec::new();
        Error::from_body(body.as_bytes()).encode(Serializer::Json, &mut out);
        serde_json::from_slice(&out).unwrap()
    }

    /// Each row of the table at [`Error::from_body`].
    #[test]
    fn any_failed_reply_becomes_an_error() {
        let whole = r#"{"code":"PIT-404","msg":"route not found","metadata":{"route":"a.b.c"}}"#;
        assert_eq!(json_of(whole).to_string(), whole, "one of a backend goes out as it came");
        let of = |code: &str, msg: &str| json!({"code": code, "msg": msg});
        assert_eq!(json_of(r#"{"code":"","msg":"m"}"#), of("PIT-000", "m"));
        // An empty `msg` is left out (docs/protocol/pitaya.md, "Client dialect").
        assert_eq!(json_of(r#"{"code":777,"more":1}"#), json!({"code": "PIT-777"}));
        assert_eq!(json_of(r#"{"code":null,"msg":5}"#), json!({"code": "PIT-500"}));
        assert_eq!(json_of(r#"{"a":1}"#), json!({"code": "PIT-500"}));
        assert_eq!(json_of("\"no\""), of("PIT-500", "no"));
        assert_eq!(json_of("[1]"), of("PIT-500", "[1]"));
        assert_eq!(json_of("not JSON"), of("PIT-500", "not JSON"));
        let body = r#"{"code":"X","metadata":{"n":1,"t":"u"}}"#;
        assert_eq!(json_of(body)["metadata"], json!({"n": "1", "t": "u"}));
    }

    /// The bytes were encoded by hand from the field numbers.
    #[test]
    fn protobuf_is_laid_out_as_its_schema_says() {
        let body = br#"{"code":"PIT-404","msg":"no","metadata":{"route":"a.b","e":""}}"#;
        let mut out = Vec::new();
        Error::from_body(body).encode(Serializer::Protobuf, &mut out);
        let expected = [
            &b"\x0a\x07PIT-404\x12\x02no"[..],
            b"\x1a\x0c\x0a\x05route\x12\x03a.b",
            b"\x1a\x03\x0a\x01e",
        ];
        assert_eq!(out, expected.concat());
        let mut long = Vec::new();
        Error::new("", &"m".repeat(300)).encode(Serializer::Protobuf, &mut long);
        assert_eq!((&long[..3], long.len()), (&[0x12, 0xac, 0x02][..], 303));
    }
}
