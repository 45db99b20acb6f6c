//! Runs the golden vectors of Pomelo's protobuf, recorded from pomelo-protobuf 0.4.0, through the
//! public API; then damages and invents bodies, which may fail but must do nothing worse.

use std::fs;

use serde_json::{Map, Value, json};
use shaddock::wire::number::push_js_number;
use shaddock::wire::protobuf::{EncodeError, ProtoTable, Protos, Schema, SchemaErrorKind};
use shaddock::wire::surrogate::parse_json;

/// What an encode case has to give: a body, or an error.
type Encoded = Result<Vec<u8>, EncodeError>;

#[test]
fn messages_encode_as_recorded() {
    let cases = cases("protobuf.json", "encode");
    assert_eq!(cases.len(), 191);
    for case in &cases {
        let name = text(&case["name"]);
        let Some(schema) = schema(case) else { continue };
        let mut out = Vec::new();
        let encoded = schema.encode_json(&message(&case["msg"]), &mut out).map(|()| out);
        match recommended(name).unwrap_or_else(|| recorded(case)) {
            // The recordings do not say which error it is.
            Err(EncodeError::NotJson) => assert!(encoded.is_err(), "{name}: {encoded:x?}"),
            expected => assert_eq!(encoded, expected, "{name}"),
        }
        if let (Ok(body), Ok(recorded)) = (&encoded, recorded(case))
            && *body == recorded
        {
            assert_eq!(decode(&schema, body), Some(print(&case["decoded"])), "{name}, decoded");
        }
    }
}

/// tests/vectors/protobuf_values.mjs has asked the original what it makes of each value.
#[test]
fn values_of_other_types_encode_as_in_the_original() {
    let path = format!("{}/tests/vectors/protobuf_values.json", env!("CARGO_MANIFEST_DIR"));
    let content = fs::read(&path).expect("the vectors are part of the repository");
    let vectors: Value = serde_json::from_slice(&content).expect("the vectors are JSON");
    let protos = Protos::parse(&vectors["protos"]).expect("valid schemas");
    let rows = vectors["rows"].as_array().expect("a list of rows");
    assert!(rows.len() > 2_000);
    let mut wrong = Vec::new();
    for row in rows {
        let [kind, option, value, came] = [0, 1, 2, 3].map(|at| text(&row[at]));
        let schema = protos.schema(&format!("{kind}.{option}")).expect("declared");
        let message = format!("{{\"m\":{value},\"last\":1}}");
        let mut out = Vec::new();
        let encoded = schema.encode_json_text(message.as_bytes(), &mut out).map(|()| out);
        let is_right = match came {
            // The one thing that is done better: `null` says that there is nothing.
            "nothing" | "throws" if option == "optional" && value == "null" => {
                encoded == Ok(vec![0x10, 1])
            }
            // An empty body either way; the original's exception may end it.
            "nothing" | "throws" => encoded.is_err(),
            hex => encoded == Ok(unhex(hex)),
        };
        if !is_right {
            wrong.push(format!("{kind} {option} {value}: {encoded:x?} instead of {came}"));
        }
    }
    assert!(wrong.is_empty(), "{} are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn bodies_decode_as_recorded() {
    let cases = cases("protobuf.json", "decode");
    assert_eq!(cases.len(), 30);
    for case in &cases {
        let name = text(&case["name"]);
        let Some(schema) = schema(case) else { continue };
        let expected = match case.get("decoded") {
            // Read as an inexact double by the original; the recommendation is ten bytes.
            Some(_) if name == "varint_overlong" => None,
            Some(decoded) => Some(print(decoded)),
            None => None,
        };
        assert_eq!(decode(&schema, &bytes(&case["hex"])), expected, "{name}");
    }
}

#[test]
fn schema_files_parse_as_recorded() {
    let cases = cases("protos_parse.json", "");
    assert_eq!(cases.len(), 9);
    for (place, case) in cases.iter().enumerate() {
        let client = Protos::parse(&case["clientProtos"]).expect("valid schemas");
        let server = Protos::parse(&case["serverProtos"]).expect("valid schemas");
        assert_eq!(client.to_json(), case["parsedClient"].to_string(), "case {place}");
        assert_eq!(server.to_json(), case["parsedServer"].to_string(), "case {place}");
        let table = ProtoTable::new(client, server);
        assert_eq!(table.version(), case["version"], "case {place}");
        let protos = json!({
            "server": case["parsedServer"],
            "client": case["parsedClient"],
            "version": case["version"],
        });
        assert_eq!(table.protos_json(), protos.to_string(), "case {place}");
    }
}

#[test]
fn damaged_bodies_never_panic() {
    let mut bodies = 0;
    for case in cases("protobuf.json", "") {
        let Some(schema) = schema(&case) else { continue };
        let Some(hex) = case["hex"].as_str() else { continue };
        let body = unhex(hex);
        for end in 0..body.len() {
            probe(&schema, &body[..end]);
        }
        if body.len() > 64 {
            continue;
        }
        for at in 0..body.len() {
            for byte in 0..=u8::MAX {
                let mut damaged = body.clone();
                damaged[at] = byte;
                probe(&schema, &damaged);
            }
        }
        bodies += 1;
    }
    assert!(bodies > 150, "only {bodies} bodies were damaged");
}

#[test]
fn invented_bodies_never_panic() {
    let schema = everything();
    let mut dice = Dice(0x5eed_0001);
    for _ in 0..20_000 {
        // Small bytes are keys and lengths more often than not, and so get further.
        let mask = if dice.roll(2) == 0 { 0x3f } else { 0xff };
        let body: Vec<u8> = (0..dice.roll(40)).map(|_| dice.roll(256) as u8 & mask).collect();
        probe(&schema, &body);
    }
}

#[test]
fn what_is_encoded_decodes_to_the_same_message() {
    let schema = everything();
    let mut dice = Dice(0x5eed_0002);
    for round in 0..2_000 {
        let message = dice.message(3);
        let mut body = b"before".to_vec();
        let encoded = schema.encode_json(&message, &mut body);
        encoded.unwrap_or_else(|error| panic!("round {round}: {error}, {message}"));
        assert_eq!(decode(&schema, &body[6..]), Some(print(&message)), "round {round}");
    }
}

/// The outcomes for which a vector recommends something else than was recorded.
fn recommended(name: &str) -> Option<Encoded> {
    let wrong_type = Err(EncodeError::WrongType { tag: 1 });
    let out_of_range = Err(EncodeError::OutOfRange { tag: 1 });
    Some(match name {
        // The original's buffer was too small.
        "repeated_double_overflow" => {
            let mut body = vec![0x09, 8];
            (1..=8).for_each(|double| body.extend(f64::from(double).to_le_bytes()));
            Ok(body)
        }
        // Exceptions in the original.
        "bad_neg_uInt32" => out_of_range,
        "bad_num_string" | "bad_bool_int32" | "bad_null_int32" => wrong_type,
        // An optional member that is null counts as absent, and is the only one here.
        "bad_null_string" => Err(EncodeError::Nothing),
        _ => return None,
    })
}

/// The outcome as recorded; `NotJson` stands for any exception.
fn recorded(case: &Value) -> Encoded {
    match (&case["hex"], &case["returns_null"]) {
        (Value::String(hex), _) => Ok(unhex(hex)),
        (_, Value::Bool(true)) => Err(EncodeError::Nothing),
        _ => Err(EncodeError::NotJson),
    }
}

/// The schema of a case; `None` if it is refused, which is asserted to be so where recommended.
fn schema(case: &Value) -> Option<Schema> {
    let name = text(&case["name"]);
    let refused = name.starts_with("unsupported_") || name == "nested_2deep_outer_scope";
    match Protos::parse(&case["protos"]) {
        Ok(protos) => {
            assert!(!refused, "{name} loads a schema with an unsupported type");
            Some(protos.schema(text(&case["route"])).expect(name).clone())
        }
        Err(error) => {
            assert!(refused, "{name}: {error}");
            assert_eq!(error.kind, SchemaErrorKind::UnsupportedType, "{name}");
            None
        }
    }
}

/// Decodes a body that may be anything: it fails and leaves the output alone, or prints JSON that
/// is not out of proportion.
fn probe(schema: &Schema, body: &[u8]) {
    let Some(json) = decode(schema, body) else { return };
    let value: Result<Value, _> = serde_json::from_str(&json);
    assert!(value.is_ok_and(|value| value.is_object()), "{body:x?} gave {json}");
    assert!(json.len() <= 2 + 40 * body.len(), "{body:x?} gave {} bytes", json.len());
}

fn decode(schema: &Schema, body: &[u8]) -> Option<String> {
    let mut out = b"before".to_vec();
    let result = schema.decode_to_json(body, &mut out);
    let printed = String::from_utf8(out.split_off(6)).expect("JSON is UTF-8");
    assert!(result.is_ok() || printed.is_empty(), "an error leaves the output as it was");
    result.is_ok().then_some(printed)
}

/// A schema with a field of every kind, and a message that holds itself.
fn everything() -> Schema {
    let fields = json!({
        "optional uInt32 u": 1,
        "optional int32 i": 2,
        "optional float f": 3,
        "optional double d": 4,
        "optional string s": 5,
        "repeated uInt32 us": 6,
        "repeated sInt32 is": 7,
        "repeated float fs": 8,
        "repeated double ds": 9,
        "repeated string ss": 10,
        "optional M m": 300,
        "repeated M ms": 12,
    });
    let protos = Protos::parse(&json!({"r": fields, "message M": fields})).expect("valid schema");
    protos.schema("r").expect("declared").clone()
}

/// A small deterministic source of values (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    /// A message for [`everything`] that is not empty, its members in random order.
    fn message(&mut self, depth: u32) -> Value {
        let mut names = vec!["u", "i", "f", "d", "s", "us", "is", "fs", "ds", "ss"];
        if depth > 0 {
            names.extend(["m", "ms"]);
        }
        let mut members = Map::new();
        for _ in 0..=self.roll(6) {
            let name = names[self.roll(names.len() as u64) as usize];
            let value = match name.strip_suffix('s').filter(|one| !one.is_empty()) {
                Some(one) => (0..=self.roll(4)).map(|_| self.value(one, depth)).collect(),
                None => self.value(name, depth),
            };
            members.insert(name.into(), value);
        }
        Value::Object(members)
    }

    fn value(&mut self, kind: &str, depth: u32) -> Value {
        match kind {
            "u" => json!(self.integer()),
            "i" => json!((self.integer() >> 1) as i64 * [1, -1][self.roll(2) as usize]),
            "f" => json!(f64::from(f32::from_bits(self.roll(1 << 31) as u32 % 0x7f80_0000))),
            "d" => json!(f64::from_bits(self.roll(0x7ff0 << 48))),
            "s" => (0..self.roll(8)).map(|_| self.character()).collect::<String>().into(),
            _ => self.message(depth - 1),
        }
    }

    /// Below 2^53, and small as often as large.
    fn integer(&mut self) -> u64 {
        let bits = self.roll(54);
        self.roll(1 << bits)
    }

    fn character(&mut self) -> char {
        let characters =
            ['a', '"', '\\', '\n', '\u{1}', '[', ']', 'é', '中', '\u{1f600}', '\u{2028}'];
        characters[self.roll(characters.len() as u64) as usize]
    }
}

/// A message of a vector as a handler gives it. What JSON cannot hold is given as text that reads
/// as the same number, and `undefined` as `null`, which no integer is either.
fn message(value: &Value) -> Value {
    match (special(value), value) {
        (Some("-0"), _) => json!(-0.0),
        (Some(""), _) => Value::Null,
        (Some(special), _) => special.into(),
        (None, Value::Array(elements)) => elements.iter().map(message).collect(),
        (None, Value::Object(members)) => {
            members.iter().map(|(name, value)| (name.clone(), message(value))).collect()
        }
        (None, scalar) => scalar.clone(),
    }
}

/// What `JSON.stringify` prints for a value of a vector.
fn print(value: &Value) -> String {
    match (special(value), value) {
        (Some("-0"), _) => "-0.0".into(),
        (Some(_), _) => "null".into(),
        (None, Value::Number(number)) => {
            let mut out = Vec::new();
            push_js_number(number.as_f64().expect("a double"), &mut out);
            String::from_utf8(out).expect("numbers are ASCII")
        }
        (None, Value::Array(elements)) => {
            format!("[{}]", elements.iter().map(print).collect::<Vec<_>>().join(","))
        }
        (None, Value::Object(members)) => {
            let member = |(name, value)| format!("{}:{}", Value::from(name), print(value));
            let members = members.iter().map(|(name, value)| (name.as_str(), value)).map(member);
            format!("{{{}}}", members.collect::<Vec<_>>().join(","))
        }
        (None, scalar) => scalar.to_string(),
    }
}

/// The number that JSON cannot hold; empty for `undefined`.
fn special(value: &Value) -> Option<&str> {
    let undefined = value.get("$undefined").map(|_| "");
    value.get("$num").and_then(Value::as_str).or(undefined)
}

/// The cases of a file; those of one operation if it is not empty.
fn cases(file: &str, operation: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let content = fs::read(&path).expect("the vectors are part of the repository");
    // One vector holds half of a surrogate pair.
    let mut content = parse_json(&content).expect("the vectors are JSON");
    let mut cases: Vec<Value> =
        serde_json::from_value(content["cases"].take()).expect("a list of cases");
    cases.retain(|case| operation.is_empty() || case["op"] == operation);
    cases
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn bytes(hex: &Value) -> Vec<u8> {
    unhex(text(hex))
}

fn unhex(hex: &str) -> Vec<u8> {
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex digits");
    (0..hex.len()).step_by(2).map(byte).collect()
}
