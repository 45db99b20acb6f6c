//! A schema file and a body that may follow it.

use serde_json::Value;
use shaddock::wire::protobuf::{Protos, Schema};

/// The first line is a schema file, and the rest a body for each of its routes. If the line is not
/// a schema, the whole input is a body for [`EVERYTHING`].
pub fn check(input: &[u8]) {
    let line_end = input.iter().position(|&byte| byte == b'\n');
    let (line, body) = input.split_at(line_end.unwrap_or(0));
    match std::str::from_utf8(line).map(Protos::parse_text) {
        Ok(Ok(protos)) if line_end.is_some() => {
            let parsed: Value = serde_json::from_str(protos.to_json()).expect("its form is JSON");
            assert!(parsed.is_object());
            for route in protos.routes() {
                check_body(protos.schema(route).expect("it is listed"), &body[1..]);
            }
        }
        _ => {
            let protos = Protos::parse_text(EVERYTHING).expect("a valid schema");
            check_body(protos.schema("r").expect("it is declared"), input);
        }
    }
}

/// A body gives JSON of a bounded size, or leaves the output alone. The body that this JSON encodes
/// to is stable: it decodes and encodes to itself.
fn check_body(schema: &Schema, body: &[u8]) {
    let Some(json) = decode(schema, body) else { return };
    let value: Value = serde_json::from_slice(&json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&json)));
    assert!(value.is_object());
    let Some(encoded) = encode(schema, &json) else { return };
    let again = decode(schema, &encoded).expect("what was encoded decodes");
    assert_eq!(encode(schema, &again), Some(encoded), "{}", String::from_utf8_lossy(&json));
}

fn decode(schema: &Schema, body: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let decoded = schema.decode_to_json(body, &mut out);
    let json = out.strip_prefix(b"before").expect("JSON is appended").to_vec();
    assert!(decoded.is_ok() || json.is_empty(), "an error leaves the output as it was");
    decoded.is_ok().then_some(json)
}

fn encode(schema: &Schema, json: &[u8]) -> Option<Vec<u8>> {
    let mut out = b"before".to_vec();
    let encoded = schema.encode_json_text(json, &mut out);
    let body = out.strip_prefix(b"before").expect("a body is appended").to_vec();
    assert_eq!(encoded.is_err(), body.is_empty(), "{encoded:?}");
    encoded.is_ok().then_some(body)
}

/// A schema with a field of every kind, and a message that contains itself.
const EVERYTHING: &str = r#"{
    "r": {
        "optional uInt32 u": 1, "optional int32 i": 2, "optional float f": 3,
        "optional double d": 4, "optional string s": 5, "repeated uInt32 us": 6,
        "repeated sInt32 is": 7, "repeated float fs": 8, "repeated double ds": 9,
        "repeated string ss": 10, "optional M m": 11, "repeated M ms": 12
    },
    "message M": {
        "required uInt32 u": 1, "repeated int32 is": 2, "repeated M ms": 3, "optional M m": 300
    }
}"#;
