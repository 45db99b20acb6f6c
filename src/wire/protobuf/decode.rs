//! The decoder from a protobuf body to JSON text.

use std::error::Error;
use std::fmt;

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use super::MESSAGE_DEPTH_MAX;
use super::message_type::{Field, FieldOption, Kind, MessageType, TypeIndex};
use super::schema::Schema;
use crate::wire::number::{INTEGER_EXACT_MAX, push_js_number};
use crate::wire::varint::LONG_BYTES_MAX;

impl Schema {
    /// Appends the body `input` to `out` as the compact JSON that `JSON.stringify` prints for it.
    ///
    /// Members stand in the order of their first occurrence. A later value replaces an earlier one,
    /// and several runs of a repeated field form one array. An empty body is `{}`, as decoding
    /// requires no member. Numbers that JSON cannot hold become `null`, and bytes that are not
    /// UTF-8 become U+FFFD; only minus zero, in a float or double, keeps its sign (`-0.0`). A text
    /// cut short by the end of the body is accepted as it is, as in Pomelo.
    ///
    /// # Errors
    ///
    /// The body does not follow the schema; the client is at fault. `out` is left as it was.
    pub fn decode_to_json(&self, input: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
        self.decode_to_json_within(usize::MAX, input, out)
    }

    /// The same with at most `bytes_max` bytes of JSON, as the names of fields are longer than
    /// their tags.
    ///
    /// # Errors
    ///
    /// The same, and [`DecodeError::TooLong`].
    pub fn decode_to_json_within(
        &self,
        bytes_max: usize,
        input: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        let start = out.len();
        let len_max = start.saturating_add(bytes_max);
        let mut decoder = Decoder { types: &self.types, input, at: 0, len_max };
        let result =
            decoder.message(self.root, input.len(), 1, out).and_then(|()| decoder.fits(out));
        if result.is_err() {
            out.truncate(start);
        }
        result
    }
}

/// Appends a double. Pomelo passes the number to the handler without a text between, which keeps
/// minus zero.
fn push_double(number: f64, out: &mut Vec<u8>) {
    if number == 0.0 && number.is_sign_negative() {
        out.extend_from_slice(b"-0.0");
    } else {
        push_js_number(number, out);
    }
}

/// A body that does not follow its schema; the client is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body ends inside a field.
    Truncated,
    /// A varint is longer than ten bytes.
    VarintTooLong,
    /// The schema has no field with this tag. Plain JSON on a route with a schema gives this error.
    UnknownTag,
    /// A run announces more elements than the rest of the body can hold.
    TooManyElements,
    /// Messages nest beyond [`MESSAGE_DEPTH_MAX`].
    TooDeep,
    /// The JSON would be longer than allowed.
    TooLong,
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the body ends inside a field",
            Self::VarintTooLong => "a varint is longer than ten bytes",
            Self::UnknownTag => "the schema has no such tag",
            Self::TooManyElements => "a run announces more elements than the body can hold",
            Self::TooDeep => "messages nest too deep",
            Self::TooLong => "the JSON of the body is too long",
        })
    }
}

impl Error for DecodeError {}

struct Decoder<'a> {
    types: &'a [MessageType],
    input: &'a [u8],
    /// The offset of the next byte. It passes the end of the input if a text was cut short.
    at: usize,
    /// The longest output allowed.
    len_max: usize,
}

impl Decoder<'_> {
    fn fits(&self, out: &[u8]) -> Result<(), DecodeError> {
        if out.len() <= self.len_max { Ok(()) } else { Err(DecodeError::TooLong) }
    }

    /// Reads fields until `end` and prints them as one object.
    ///
    /// A field that begins before `end` is read whole even if it crosses `end`, as in Pomelo. Every
    /// iteration reads at least a key, so the body bounds the work.
    fn message(
        &mut self,
        message: TypeIndex,
        end: usize,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), DecodeError> {
        if depth > MESSAGE_DEPTH_MAX {
            return Err(DecodeError::TooDeep);
        }
        let types = self.types;
        let message = &types[message.0];
        out.push(b'{');
        let mut members = Members::new(out.len());
        while self.at < end {
            self.fits(out)?;
            let tag = tag_of(self.varint()?).ok_or(DecodeError::UnknownTag)?;
            let index = message.field_by_tag(tag).ok_or(DecodeError::UnknownTag)?;
            let field = &message.fields[index];
            members.begin(index, field, out);
            match field.option {
                FieldOption::Repeated => {
                    self.elements(field.kind, depth, out)?;
                    out.push(b']');
                }
                FieldOption::Required | FieldOption::Optional => {
                    self.value(field.kind, depth, out)?;
                }
            }
        }
        if members.mixed {
            members.gather(message, out);
        }
        out.push(b'}');
        Ok(())
    }

    /// Reads one occurrence of a repeated field: a counted run of numbers, or a single other
    /// element.
    fn elements(&mut self, kind: Kind, depth: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        let Some(bytes_min) = kind.counted_bytes_min() else {
            separate(out);
            return self.value(kind, depth, out);
        };
        let count = self.length()?;
        let rest = self.input.len().saturating_sub(self.at);
        if count > rest / bytes_min {
            return Err(DecodeError::TooManyElements);
        }
        for _ in 0..count {
            self.fits(out)?;
            separate(out);
            self.value(kind, depth, out)?;
        }
        Ok(())
    }

    fn value(&mut self, kind: Kind, depth: usize, out: &mut Vec<u8>) -> Result<(), DecodeError> {
        match kind {
            Kind::UInt32 => push_js_number(self.varint()?, out),
            Kind::SInt32 => push_js_number(unzigzag(self.varint()?), out),
            Kind::Float => push_double(f32::from_le_bytes(self.take()?).into(), out),
            Kind::Double => push_double(f64::from_le_bytes(self.take()?), out),
            Kind::Text => {
                let end = self.length()?.saturating_add(self.at);
                // The length was read before `at`, so `at` is inside the input or at its end.
                push_text(&self.input[self.at..end.min(self.input.len())], out);
                self.at = end;
            }
            Kind::Message(inner) => {
                let end = self.length()?.saturating_add(self.at);
                self.message(inner, end, depth + 1, out)?;
            }
        }
        Ok(())
    }

    /// Reads a varint as JavaScript does: a double, exact up to 2^53.
    fn varint(&mut self) -> Result<f64, DecodeError> {
        let mut exact = 0;
        for shift in (0..7 * EXACT_BYTES_MAX).step_by(7) {
            let [byte] = self.take()?;
            exact |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(exact as f64);
            }
        }
        // From here on the value is summed in doubles, in the order that rounds as the original
        // does.
        let mut value = exact as f64;
        for index in EXACT_BYTES_MAX..LONG_BYTES_MAX {
            let [byte] = self.take()?;
            value += f64::from(byte & 0x7f) * (1_u128 << (7 * index)) as f64;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::VarintTooLong)
    }

    /// Reads a length or count; one beyond the address space becomes the largest.
    fn length(&mut self) -> Result<usize, DecodeError> {
        Ok(self.varint()? as usize)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let rest = self.input.get(self.at..).ok_or(DecodeError::Truncated)?;
        let taken = rest.first_chunk().ok_or(DecodeError::Truncated)?;
        self.at += N;
        Ok(*taken)
    }
}

/// The members of one object while it is printed.
///
/// Each occurrence of a field is printed where it is read, which is correct as long as the
/// occurrences of a field follow each other. A body that mixes them, which no known client sends,
/// is put in order at the end.
struct Members {
    /// The field's index and the start of its text. A comma stands between a text and the next
    /// start.
    texts: SmallVec<[(usize, usize); MEMBERS_INLINE]>,
    /// The start of the first text.
    start: usize,
    /// True if a field has occurred again after another one.
    mixed: bool,
}

impl Members {
    fn new(start: usize) -> Self {
        Self { texts: SmallVec::new(), start, mixed: false }
    }

    /// Prints the bytes in front of the value, or of the first element, of the field `index`.
    fn begin(&mut self, index: usize, field: &Field, out: &mut Vec<u8>) {
        let repeated = field.option == FieldOption::Repeated;
        match self.texts.last() {
            Some(&(last, _)) if last == index && repeated => {
                let bracket = out.pop();
                debug_assert_eq!(bracket, Some(b']'), "the last text is a closed array");
            }
            Some(&(last, start)) if last == index => out.truncate(start + field.member.len()),
            last => {
                if last.is_some() {
                    out.push(b',');
                }
                // The search ends once `mixed` is set, or a hostile body would make this quadratic.
                // Until then there are at most as many texts as the schema has fields.
                self.mixed = self.mixed || self.texts.iter().any(|&(seen, _)| seen == index);
                self.texts.push((index, out.len()));
                out.extend_from_slice(&field.member);
                if repeated {
                    out.push(b'[');
                }
            }
        }
    }

    /// Prints the members again, with all values of a field where its first one stood.
    fn gather(&self, message: &MessageType, out: &mut Vec<u8>) {
        let printed = out.split_off(self.start);
        let mut groups: Vec<(usize, Vec<&[u8]>)> = Vec::new();
        let mut group_of = FxHashMap::default();
        for (at, &(index, start)) in self.texts.iter().enumerate() {
            let end = match self.texts.get(at + 1) {
                Some(&(_, next)) => next - 1,
                None => self.start + printed.len(),
            };
            let name_len = message.fields[index].member.len();
            let value = &printed[start - self.start + name_len..end - self.start];
            let group = *group_of.entry(index).or_insert_with(|| {
                groups.push((index, Vec::new()));
                groups.len() - 1
            });
            groups[group].1.push(value);
        }
        for (at, (index, values)) in groups.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            let field = &message.fields[*index];
            out.extend_from_slice(&field.member);
            if field.option == FieldOption::Repeated {
                out.push(b'[');
                for array in values.iter().filter(|array| array.len() > "[]".len()) {
                    separate(out);
                    out.extend_from_slice(&array[1..array.len() - 1]);
                }
                out.push(b']');
            } else {
                out.extend_from_slice(values.last().expect("a group begins with a value"));
            }
        }
    }
}

/// Prints the comma before an element, unless the array has just been opened. No element ends with
/// an open bracket.
fn separate(out: &mut Vec<u8>) {
    if out.last() != Some(&b'[') {
        out.push(b',');
    }
}

/// Prints a text as `JSON.stringify` does.
fn push_text(text: &[u8], out: &mut Vec<u8>) {
    let printed = match std::str::from_utf8(text) {
        Ok(text) => serde_json::to_writer(out, text),
        Err(_) => serde_json::to_writer(out, &*String::from_utf8_lossy(text)),
    };
    printed.expect("a text prints, and a Vec takes every byte");
}

/// The tag of a key; the wire type in its low bits is not needed beside the schema.
fn tag_of(key: f64) -> Option<u32> {
    (key <= f64::from(u32::MAX)).then_some(key as u32 >> 3)
}

/// Maps 2n to n, and 2n - 1 to -n.
fn unzigzag(value: f64) -> f64 {
    if value >= INTEGER_EXACT_MAX {
        // All doubles of this size are even.
        return value / 2.0;
    }
    let value = value as u64;
    let magnitude = value.div_ceil(2) as f64;
    if value % 2 == 1 { -magnitude } else { magnitude }
}

/// The bytes of a varint that are summed as an integer; their 49 bits are also exact in a double.
const EXACT_BYTES_MAX: usize = 7;
/// The members of an object that are recorded without allocating.
const MEMBERS_INLINE: usize = 16;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::DecodeError;
    use crate::wire::protobuf::{MESSAGE_DEPTH_MAX, Protos, Schema};

    fn schema() -> Schema {
        let file = json!({
            "r": {
                "optional uInt32 a": 1,
                "optional string s": 2,
                "repeated sInt32 k": 3,
                "repeated string t": 4,
                "optional Node n": 5,
                "repeated double d": 6,
                "optional uInt32 \"q\"": 400,
            },
            "message Node": {"optional Node n": 5, "optional uInt32 a": 1, "repeated Node l": 2},
        });
        Protos::parse(&file).expect("valid schema").schema("r").expect("declared").clone()
    }

    fn decode(body: &[u8]) -> Result<String, DecodeError> {
        let mut out = b"before".to_vec();
        let result = schema().decode_to_json(body, &mut out);
        if result.is_err() {
            assert_eq!(out, b"before", "an error leaves the output as it was");
        }
        result.map(|()| String::from_utf8(out.split_off(6)).expect("JSON is UTF-8"))
    }

    #[test]
    fn no_more_comes_of_a_body_than_is_allowed() {
        let body = [&b"\x18\x7f"[..], &[2; 127], b"\x08\x01"].concat();
        let json = decode(&body).unwrap();
        for bytes_max in 0..json.len() + 2 {
            let mut out = b"before".to_vec();
            let result = schema().decode_to_json_within(bytes_max, &body, &mut out);
            match bytes_max < json.len() {
                true => assert_eq!((result, &out[..]), (Err(DecodeError::TooLong), &b"before"[..])),
                false => assert_eq!((result, &out[6..]), (Ok(()), json.as_bytes())),
            }
            // A field may end above it.
            assert!(out.capacity() <= 64 + 4 * (6 + bytes_max), "{}", out.capacity());
        }
    }

    #[test]
    fn members_stand_where_they_first_occur() {
        for (body, json) in [
            (&b""[..], "{}"),
            (b"\x12\x01x\x08\x01", r#"{"s":"x","a":1}"#),
            (b"\x08\x01\x08\x02\x12\x01x", r#"{"a":2,"s":"x"}"#),
            (b"\x08\x01\x12\x01x\x08\x02", r#"{"a":2,"s":"x"}"#),
            (b"\x18\x01\x02\x18\x01\x04", r#"{"k":[1,2]}"#),
            (b"\x18\x01\x02\x18\x00\x18\x01\x04", r#"{"k":[1,2]}"#),
            (b"\x18\x00\x08\x01\x18\x00", r#"{"k":[],"a":1}"#),
            (b"\x18\x00\x08\x01\x18\x02\x02\x01\x18\x01\x04", r#"{"k":[1,-1,2],"a":1}"#),
            (b"\x22\x01]\x08\x01\x22\x01[\x08\x02\x22\x00", r#"{"t":["]","[",""],"a":2}"#),
            (b"\x80\x19\x07", r#"{"\"q\"":7}"#),
        ] {
            assert_eq!(decode(body).as_deref(), Ok(json), "{body:x?}");
        }
    }

    #[test]
    fn mixed_members_are_gathered_inside_messages_too() {
        let body = b"\x2a\x0a\x12\x02\x08\x07\x08\x01\x12\x00\x08\x02\x08\x03\x2a\x00";
        assert_eq!(decode(body).as_deref(), Ok(r#"{"n":{},"a":3}"#));
        let body = b"\x08\x05\x2a\x0a\x12\x02\x08\x07\x08\x01\x12\x00\x08\x02";
        assert_eq!(decode(body).as_deref(), Ok(r#"{"a":5,"n":{"l":[{"a":7},{}],"a":2}}"#));
    }

    #[test]
    fn a_text_cut_by_the_end_is_taken_and_escaped() {
        assert_eq!(decode(b"\x12\x0aab").as_deref(), Ok(r#"{"s":"ab"}"#));
        assert_eq!(
            decode(b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").as_deref(),
            Ok(r#"{"s":""}"#)
        );
        let json = "{\"s\":\"\\u001f\\\"\u{7f}\u{fffd}\"}";
        assert_eq!(decode(b"\x12\x04\x1f\"\x7f\xff").as_deref(), Ok(json));
    }

    #[test]
    fn hostile_bodies_are_errors() {
        for (body, error) in [
            (&b"\x08"[..], DecodeError::Truncated),
            (b"\x88", DecodeError::Truncated),
            (b"\x32\x01\x00", DecodeError::TooManyElements),
            (b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", DecodeError::TooManyElements),
            (b"\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00", DecodeError::VarintTooLong),
            (b"\x00", DecodeError::UnknownTag),
            (b"\x88\x80\x80\x80\x10\x01", DecodeError::UnknownTag),
            (br#"{"a":1}"#, DecodeError::UnknownTag),
            (b"\x2a\x05\x08\x02", DecodeError::Truncated),
        ] {
            assert_eq!(decode(body), Err(error), "{body:x?}");
        }
    }

    #[test]
    fn messages_nest_to_a_limit() {
        let nest = |levels| {
            let inner = (1..levels).fold(Vec::new(), |inner: Vec<u8>, _| {
                let mut outer = vec![0x2a, inner.len() as u8];
                outer.extend(inner);
                outer
            });
            decode(&inner)
        };
        assert!(nest(MESSAGE_DEPTH_MAX).is_ok());
        assert_eq!(nest(MESSAGE_DEPTH_MAX + 1), Err(DecodeError::TooDeep));
    }

    #[test]
    fn a_long_mixed_body_takes_linear_work() {
        let count = crate::test_cases::repetitions(100_000) as usize;
        let body = b"\x22\x01x\x08\x01".repeat(count);
        let json = decode(&body).expect("valid body");
        assert_eq!(json.matches(r#""x""#).count(), count);
        assert!(json.ends_with(r#""x"],"a":1}"#));
    }
}
