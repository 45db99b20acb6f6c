//! The encoder from JSON to a protobuf body.

use std::error::Error;
use std::fmt;

use serde_json::{Map, Value};

use super::MESSAGE_DEPTH_MAX;
use super::integer::{parse_int, parse_int_of_number};
use super::message_type::{Field, FieldOption, Kind, MessageType, TypeIndex};
use super::schema::Schema;
use crate::wire::number::js_number_from_text;
use crate::wire::surrogate::parse_json;
use crate::wire::truthy::is_truthy;
use crate::wire::varint::to_bytes;

impl Schema {
    /// Appends `message` to `out` as a protobuf body.
    ///
    /// Fields follow the order of the message; members unknown to the schema are skipped. Integers
    /// accept what JavaScript's `parseInt` accepts, floats and doubles what its `Number()` accepts.
    /// An optional integer, text or message that is `null` counts as absent; the original throws,
    /// or sends an empty body.
    ///
    /// # Errors
    ///
    /// [`EncodeError`]. A Pomelo server logs each of them and sends an empty body. `out` is left as
    /// it was.
    pub fn encode_json(&self, message: &Value, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let start = out.len();
        let mut encoder = Encoder { types: &self.types, out };
        let result = match message {
            Value::Object(members) => encoder.message(self.root, members, 1),
            _ => Err(EncodeError::Nothing),
        };
        match result {
            Ok(()) if out.len() > start => Ok(()),
            result => {
                out.truncate(start);
                result.and(Err(EncodeError::Nothing))
            }
        }
    }

    /// Appends the message in the JSON `text` to `out` as a protobuf body.
    ///
    /// # Errors
    ///
    /// The errors of [`Schema::encode_json`], and [`EncodeError::NotJson`].
    pub fn encode_json_text(&self, text: &[u8], out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let message = parse_json(text).map_err(|_| EncodeError::NotJson)?;
        self.encode_json(&message, out)
    }
}

/// A message without a protobuf body; the handler is at fault, or meant to send nothing.
///
/// The tag is that of the field in its own message, which may be nested.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EncodeError {
    /// A required member is missing, or no field was written: the body is empty.
    Nothing,
    /// The value of a field is not of the field's type.
    WrongType {
        /// The field.
        tag: u32,
    },
    /// The value of an integer field is infinite, or negative where the type has no sign.
    OutOfRange {
        /// The field.
        tag: u32,
    },
    /// Messages nest beyond [`MESSAGE_DEPTH_MAX`].
    TooDeep,
    /// The text is not JSON.
    NotJson,
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("a required member is missing, or nothing was written"),
            Self::WrongType { tag } => write!(f, "the value of tag {tag} has the wrong type"),
            Self::OutOfRange { tag } => write!(f, "the value of tag {tag} is out of range"),
            Self::TooDeep => f.write_str("messages nest too deep"),
            Self::NotJson => f.write_str("the message is not JSON"),
        }
    }
}

impl Error for EncodeError {}

struct Encoder<'a> {
    types: &'a [MessageType],
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    /// Writes the fields of one message, without its length.
    fn message(
        &mut self,
        message: TypeIndex,
        members: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), EncodeError> {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(EncodeError::TooDeep);
        }
        let types = self.types;
        let message = &types[message.0];
        let mut required = 0;
        let mut likely = 0;
        for (name, value) in members {
            let Some(index) = message.field_by_name(name, likely) else { continue };
            likely = index + 1;
            let field = &message.fields[index];
            match field.option {
                FieldOption::Repeated => self.array(field, value, depth)?,
                FieldOption::Optional if value.is_null() && !is_fraction(field.kind) => {}
                FieldOption::Required | FieldOption::Optional => {
                    required += usize::from(field.option == FieldOption::Required);
                    self.key(field);
                    self.value(field, value, depth)?;
                }
            }
        }
        // Names are unique in an object, so the count shows whether one is missing.
        if required == message.required { Ok(()) } else { Err(EncodeError::Nothing) }
    }

    /// Writes a repeated field. Numbers have one key, the count of elements, then the elements;
    /// texts and messages have a key each. An empty array writes nothing.
    fn array(&mut self, field: &Field, value: &Value, depth: usize) -> Result<(), EncodeError> {
        let len = match value {
            Value::Array(elements) => elements.len(),
            // JavaScript iterates over a text's code units.
            Value::String(text) => text.encode_utf16().count(),
            // A value without a length is not an array; Pomelo skips it.
            _ => 0,
        };
        if len == 0 {
            return Ok(());
        }
        let counted = field.kind.counted_bytes_min().is_some();
        if counted {
            self.key(field);
            self.varint(len as u64);
        }
        let mut element = |element: &Value| {
            if !counted {
                self.key(field);
            }
            self.value(field, element, depth)
        };
        match value {
            Value::String(text) => text
                .encode_utf16()
                .try_for_each(|unit| element(&String::from_utf16_lossy(&[unit]).into())),
            Value::Array(elements) => elements.iter().try_for_each(element),
            _ => Ok(()),
        }
    }

    fn value(&mut self, field: &Field, value: &Value, depth: usize) -> Result<(), EncodeError> {
        match field.kind {
            Kind::UInt32 => self.integer(unsigned(value, field.tag)?),
            Kind::SInt32 => self.integer(zigzag(value, field.tag)?),
            // A value out of a float's range becomes infinite, as in JavaScript.
            Kind::Float => self.out.extend_from_slice(&(double(value) as f32).to_le_bytes()),
            Kind::Double => self.out.extend_from_slice(&double(value).to_le_bytes()),
            Kind::Text => {
                let text = value.as_str().ok_or(EncodeError::WrongType { tag: field.tag })?;
                self.varint(text.len() as u64);
                self.out.extend_from_slice(text.as_bytes());
            }
            Kind::Message(inner) => return self.nested(inner, value, depth),
        }
        Ok(())
    }

    /// Writes a message behind its length.
    fn nested(
        &mut self,
        message: TypeIndex,
        value: &Value,
        depth: usize,
    ) -> Result<(), EncodeError> {
        // The length precedes bytes that are not written yet. One byte is reserved for it, which is
        // mostly enough; for a longer length the message is moved.
        let length_at = self.out.len();
        self.out.push(0);
        match value {
            Value::Object(members) => self.message(message, members, depth + 1)?,
            // Pomelo's check refuses falsy values and finds no members in the others.
            _ if !is_truthy(value) || self.types[message.0].required > 0 => {
                return Err(EncodeError::Nothing);
            }
            _ => {}
        }
        let length = self.out.len() - length_at - 1;
        if length < 0x80 {
            self.out[length_at] = length as u8;
        } else {
            let (bytes, len) = to_bytes(length as u64);
            self.out.splice(length_at..=length_at, bytes[..len].iter().copied());
        }
        Ok(())
    }

    fn key(&mut self, field: &Field) {
        self.varint(u64::from(field.tag << 3 | field.kind.wire_type()));
    }

    /// Writes an integer that is not negative; it takes ten bytes up to 2^64 and may take 147.
    fn integer(&mut self, mut integer: f64) {
        debug_assert!(integer >= 0.0 && integer.is_finite());
        while integer >= UNSIGNED_END {
            self.out.push((integer % 128.0) as u8 | 0x80);
            integer = (integer / 128.0).floor();
        }
        // The cast is exact, as the rest is an integer of 64 bits.
        self.varint(integer as u64);
    }

    fn varint(&mut self, value: u64) {
        let (bytes, len) = to_bytes(value);
        self.out.extend_from_slice(&bytes[..len]);
    }
}

fn integer(value: &Value, tag: u32) -> Result<f64, EncodeError> {
    parse_int(value).ok_or(EncodeError::WrongType { tag })
}

fn unsigned(value: &Value, tag: u32) -> Result<f64, EncodeError> {
    let number = integer(value, tag)?;
    // An infinite value would put the original into an endless loop.
    let in_range = (0.0..f64::INFINITY).contains(&number);
    if in_range { Ok(number) } else { Err(EncodeError::OutOfRange { tag }) }
}

/// Maps n to 2n, and -n to 2n - 1, in doubles and by way of a text once more.
fn zigzag(value: &Value, tag: u32) -> Result<f64, EncodeError> {
    let number = integer(value, tag)?;
    let doubled = if number < 0.0 { number.abs() * 2.0 - 1.0 } else { number * 2.0 };
    let number = parse_int_of_number(doubled);
    if number.is_finite() { Ok(number) } else { Err(EncodeError::OutOfRange { tag }) }
}

/// The result of JavaScript's `Number(value)`; it never fails.
fn double(value: &Value) -> f64 {
    match value {
        Value::Bool(set) => f64::from(u8::from(*set)),
        value => double_of_text(value),
    }
}

/// The result of `Number()` for a value's text, and for a number itself.
fn double_of_text(mut value: &Value) -> f64 {
    loop {
        match value {
            Value::Number(number) => return number.as_f64().unwrap_or(f64::NAN),
            Value::String(text) => return js_number_from_text(text),
            Value::Null => return 0.0,
            // The text of an array of one element is that element's; an empty array has the empty
            // text, which is 0.
            Value::Array(elements) => match &elements[..] {
                [] => return 0.0,
                [one] => value = one,
                _ => return f64::NAN,
            },
            Value::Bool(_) | Value::Object(_) => return f64::NAN,
        }
    }
}

/// True if a value is written as a float or double, for which `null` counts as 0.
fn is_fraction(kind: Kind) -> bool {
    matches!(kind, Kind::Float | Kind::Double)
}

/// The first double that does not fit into 64 bits, 2^64.
const UNSIGNED_END: f64 = 18_446_744_073_709_551_616.0;

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::EncodeError;
    use crate::wire::protobuf::{MESSAGE_DEPTH_MAX, Protos, Schema};

    fn schema(message: Value) -> Schema {
        let file = json!({"r": message, "message Node": {"repeated Node n": 1}});
        Protos::parse(&file).expect("valid schema").schema("r").expect("declared").clone()
    }

    fn encode(schema: &Schema, message: &Value) -> Result<Vec<u8>, EncodeError> {
        let mut out = b"before".to_vec();
        let result = schema.encode_json(message, &mut out);
        if result.is_err() {
            assert_eq!(out, b"before", "an error leaves the output as it was");
        }
        result.map(|()| out.split_off(6))
    }

    #[test]
    fn integers_are_read_as_javascript_does() {
        let schema = schema(json!({"optional uInt32 u": 1, "optional int32 i": 2}));
        for (message, body) in [
            (json!({"u": 3.7}), &b"\x08\x03"[..]),
            (json!({"u": -0.5}), b"\x08\x00"),
            (json!({"u": 1e-7}), b"\x08\x01"),
            (json!({"u": 1e21}), b"\x08\x01"),
            (json!({"u": " 12.5 "}), b"\x08\x0c"),
            (json!({"i": -3.7}), b"\x10\x05"),
            (json!({"i": "-0x2"}), b"\x10\x03"),
            (json!({"u": 1, "i": null}), b"\x08\x01"),
            (json!({"u": 1u64 << 63}), b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),
            (json!({"u": u64::MAX}), b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x02"),
        ] {
            assert_eq!(encode(&schema, &message).as_deref(), Ok(body), "{message}");
        }
        for (message, error) in [
            (json!({"u": -1}), EncodeError::OutOfRange { tag: 1 }),
            (json!({"u": "1".repeat(400)}), EncodeError::OutOfRange { tag: 1 }),
            (json!({"i": "1".repeat(400)}), EncodeError::OutOfRange { tag: 2 }),
            (json!({"i": "x12"}), EncodeError::WrongType { tag: 2 }),
            (json!({"i": ""}), EncodeError::WrongType { tag: 2 }),
            (json!({"i": true}), EncodeError::WrongType { tag: 2 }),
        ] {
            assert_eq!(encode(&schema, &message), Err(error), "{message}");
        }
    }

    #[test]
    fn doubles_take_what_javascript_takes() {
        let schema = schema(json!({"required double d": 1}));
        for (value, number) in
            [(json!("2.5"), 2.5_f64), (json!(null), 0.0), (json!(true), 1.0), (json!(""), 0.0)]
        {
            let body = encode(&schema, &json!({"d": value})).expect("any value is a double");
            assert_eq!(body[1..], number.to_le_bytes(), "{value}");
        }
        let body = encode(&schema, &json!({"d": {}})).expect("any value is a double");
        assert_eq!(body[1..], f64::NAN.to_le_bytes());
    }

    #[test]
    fn what_is_no_array_is_skipped_and_text_is_one_of_its_characters() {
        let schema = schema(json!({"repeated string t": 1, "optional uInt32 u": 2}));
        for value in [json!(null), json!(5), json!({}), json!(""), json!([])] {
            let message = json!({"t": value, "u": 1});
            assert_eq!(encode(&schema, &message).as_deref(), Ok(&b"\x10\x01"[..]), "{message}");
        }
        let characters = encode(&schema, &json!({"t": "ab"}));
        assert_eq!(characters.as_deref(), Ok(&b"\x0a\x01a\x0a\x01b"[..]));
    }

    #[test]
    fn nothing_to_say_is_told_apart() {
        let schema = schema(json!({"message P": {"optional uInt32 x": 1}, "optional P p": 1}));
        for message in
            [json!({}), json!(null), json!(5), json!([1]), json!({"p": 0}), json!({"z": 1})]
        {
            assert_eq!(encode(&schema, &message), Err(EncodeError::Nothing), "{message}");
        }
        assert_eq!(encode(&schema, &json!({"p": 5})).as_deref(), Ok(&b"\x0a\x00"[..]));
    }

    #[test]
    fn messages_nest_to_a_limit() {
        let schema = schema(json!({"repeated Node n": 1}));
        // Moved, as `json!` would copy the content at each level.
        let outer = |inner, _| Value::from_iter([("n", vec![inner])]);
        let nest = |levels| (1..levels).fold(json!({}), outer);
        assert!(encode(&schema, &nest(MESSAGE_DEPTH_MAX)).is_ok());
        assert_eq!(encode(&schema, &nest(MESSAGE_DEPTH_MAX + 1)), Err(EncodeError::TooDeep));
    }

    #[test]
    fn text_is_parsed_as_javascript_does() {
        let mut out = Vec::new();
        let double = schema(json!({"required double a": 1}));
        assert_eq!(double.encode_json_text(br#"{"a":3.4028234663852886e+38}"#, &mut out), Ok(()));
        assert_eq!(out[1..], f64::from(f32::MAX).to_le_bytes(), "to the last bit");

        out.clear();
        let schema = schema(json!({"required string a": 1}));
        assert_eq!(schema.encode_json_text(br#"{"a":"\ud800"}"#, &mut out), Ok(()));
        assert_eq!(out, b"\x0a\x03\xef\xbf\xbd");
        assert_eq!(schema.encode_json_text(b"", &mut out), Err(EncodeError::NotJson));
    }
}
