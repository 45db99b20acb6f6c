//! Signed requests: the original's option `useCrypto` (docs/protocol/sessions.md, "Crypto").
//!
//! A client sends its RSA key in the handshake and a signature in each body. This proves that one
//! client has sent all of them. It hides nothing, and does not prevent replay.

use std::borrow::Cow;
use std::fmt;

use ring::signature::{
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RsaPublicKeyComponents,
};
use serde_json::Value;

use super::member_order::in_js_order;
use super::number::push_js_number;
use super::surrogate::parse_json;

/// The shortest key accepted, in bits; the stock client makes keys of 1,024.
pub const KEY_BITS_MIN: usize = 1024;
/// The longest key accepted, in bits. A longer one would take more time per request than a client
/// may cause. A wrong signature takes 40 microseconds with 2,048 bits, and 160 with 4,096.
pub const KEY_BITS_MAX: usize = 2048;
/// The largest exponent accepted, which is the stock client's; each bit of a longer one takes more
/// time.
pub const EXPONENT_MAX: u32 = 65_537;

/// A client's public key.
///
/// ```
/// use serde_json::json;
/// use shaddock::wire::signature::{PublicKey, SignatureError};
///
/// let rsa = json!({"rsa_n": "d".repeat(256), "rsa_e": "10001"}); // 1,024 bits.
/// let key = PublicKey::from_handshake(&rsa).unwrap();
/// assert_eq!(key.verify_work(b""), 2048);
/// let body = br#"{"text":"hi"}"#;
/// assert_eq!(key.verify(body), Err(SignatureError::Missing));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    /// Big-endian without leading zeros. INVARIANT: odd, and [`KEY_BITS_MIN`] to [`KEY_BITS_MAX`]
    /// long, rounded up to whole bytes.
    modulus: Box<[u8]>,
    /// Big-endian without leading zeros. INVARIANT: odd, from 3 to [`EXPONENT_MAX`].
    exponent: Box<[u8]>,
}

impl PublicKey {
    /// Reads `sys.rsa` of a handshake: `rsa_n`, the modulus in hexadecimal digits, and `rsa_e`, the
    /// exponent as a number, or in hexadecimal digits.
    ///
    /// `None` for anything else, and for a key out of bounds. The original keeps any key and then
    /// refuses each request.
    #[must_use]
    pub fn from_handshake(rsa: &Value) -> Option<Self> {
        let modulus = without_zeros(&from_hex(rsa.get("rsa_n")?.as_str()?)?);
        let exponent = match rsa.get("rsa_e")? {
            Value::String(text) => from_hex(text)?,
            number => u32::try_from(number.as_u64()?).ok()?.to_be_bytes().to_vec(),
        };
        let exponent = without_zeros(&exponent);
        let bits = modulus.len() * 8;
        let is_odd = |number: &[u8]| number.last().is_some_and(|byte| byte % 2 == 1);
        let value = exponent.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        let fits = (KEY_BITS_MIN..=KEY_BITS_MAX).contains(&bits)
            && is_odd(&modulus)
            && is_odd(&exponent)
            && exponent.len() <= size_of::<u32>()
            && (3..=u64::from(EXPONENT_MAX)).contains(&value);
        fits.then_some(Self { modulus, exponent })
    }

    /// The work of checking `body`, in bytes whose inflation takes as long: 2 KiB for a key of
    /// 1,024 bits, four times as much for twice the length, plus the body's JSON.
    #[must_use]
    pub fn verify_work(&self, body: &[u8]) -> usize {
        self.modulus.len() * self.modulus.len() / 8 + JSON_WORK * body.len()
    }

    /// Checks a body that this key must have signed, and returns it without the signature: the JSON
    /// text that the client signed.
    ///
    /// # Errors
    /// [`SignatureError`]; the body must not be handled then.
    pub fn verify(&self, body: &[u8]) -> Result<Vec<u8>, SignatureError> {
        let signed = Signed::parse(body)?;
        // The original checks this too: a signature is as long as the key.
        let signature = from_hex(&signed.signature).ok_or(SignatureError::Malformed)?;
        if signed.signature.len() != 2 * self.modulus.len() {
            return Err(SignatureError::Malformed);
        }
        let key = RsaPublicKeyComponents { n: &self.modulus, e: &self.exponent };
        let text = hashed_bytes(&signed.text);
        // The signature names its hash; the stock client uses the first of these.
        [
            &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
            &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
        ]
        .into_iter()
        .any(|parameters| key.verify(parameters, &text, &signature).is_ok())
        .then(|| signed.text.into_bytes())
        .ok_or(SignatureError::Wrong)
    }
}

/// The two parts of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Signed {
    /// The body as `JSON.stringify` prints it without the signature.
    text: String,
    /// The text of the signature.
    signature: String,
}

impl Signed {
    fn parse(body: &[u8]) -> Result<Self, SignatureError> {
        let body = String::from_utf8_lossy(body);
        let Ok(Value::Object(mut members)) = parse_json(body.as_bytes()) else {
            return Err(SignatureError::NotAnObject);
        };
        let Some(Value::String(signature)) = members.shift_remove(SIGNATURE_MEMBER) else {
            return Err(SignatureError::Missing);
        };
        let mut text = Vec::new();
        push_json(Value::Object(members), &mut text);
        let text = String::from_utf8(text).expect("JSON is printed as UTF-8");
        Ok(Self { text, signature })
    }
}

/// The reasons to refuse a body; the client is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureError {
    /// The body is not a JSON object. A `null` ends the original's process
    /// (docs/protocol/differences.md, "Hostile input", A7).
    NotAnObject,
    /// `__crypto__` is absent or not a text.
    Missing,
    /// The signature is not hexadecimal, or not as long as the key.
    Malformed,
    /// The signature is of another key or another body.
    Wrong,
}

impl fmt::Display for SignatureError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAnObject => "a signed body has to be a JSON object",
            Self::Missing => "the body has no signature",
            Self::Malformed => "the signature is malformed",
            Self::Wrong => "the signature is wrong",
        })
    }
}

impl std::error::Error for SignatureError {}

/// The bytes of a text that are hashed.
///
/// If any character lies in U+4E00 to U+9FA5, the client splits each UTF-16 unit above ASCII into
/// its bytes, takes these for characters, and encodes them as UTF-8 again.
fn hashed_bytes(text: &str) -> Cow<'_, [u8]> {
    if !text.chars().any(|character| ('\u{4e00}'..='\u{9fa5}').contains(&character)) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut twice = String::with_capacity(2 * text.len());
    for unit in text.encode_utf16() {
        let (low, middle) = (unit & 0x3f | 0x80, unit >> 6 & 0x3f | 0x80);
        let bytes: &[u16] = match unit {
            0..0x80 => &[unit],
            0x80..0x800 => &[unit >> 6 | 0xc0, low],
            // Each half of a pair is encoded by itself, which is not UTF-8.
            _ => &[unit >> 12 | 0xe0, middle, low],
        };
        twice.extend(bytes.iter().map(|&byte| char::from(byte as u8)));
    }
    Cow::Owned(twice.into_bytes())
}

/// Appends a value as `JSON.stringify` prints the result of `JSON.parse`. The parser limits the
/// depth.
fn push_json(value: Value, out: &mut Vec<u8>) {
    match value {
        Value::Number(number) => push_js_number(number.as_f64().unwrap_or(f64::NAN), out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_json(item, out);
            }
            out.push(b']');
        }
        Value::Object(members) => {
            out.push(b'{');
            for (index, (name, member)) in in_js_order(members).into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_json(Value::String(name), out);
                out.push(b':');
                push_json(member, out);
            }
            out.push(b'}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => {
            serde_json::to_writer(&mut *out, &value).expect("writing to a vector cannot fail");
        }
    }
}

/// The bytes of hexadecimal digits; an odd first digit is a byte of its own.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).map(|digit| digit as u8);
    let (first, pairs) = text.as_bytes().split_at(text.len() % 2);
    let mut bytes = Vec::with_capacity(text.len().div_ceil(2));
    for byte in first {
        bytes.push(digit(byte)?);
    }
    for pair in pairs.chunks_exact(2) {
        bytes.push(digit(&pair[0])? << 4 | digit(&pair[1])?);
    }
    Some(bytes)
}

fn without_zeros(bytes: &[u8]) -> Box<[u8]> {
    let start = bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
    bytes[start..].into()
}

/// The work of reading and printing a byte of JSON again: 35 ns where it is all members.
const JSON_WORK: usize = 4;

const SIGNATURE_MEMBER: &str = "__crypto__";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn signed(body: &str) -> Result<Signed, SignatureError> {
        Signed::parse(body.as_bytes())
    }

    #[test]
    fn the_signature_is_taken_out_and_the_rest_printed_as_javascript_does() {
        for (body, text) in [
            (r#"{"__crypto__":"ab"}"#, "{}"),
            (r#"{"a":1,"__crypto__":"ab","b":"x"}"#, r#"{"a":1,"b":"x"}"#),
            (
                r#"{"a" : 1.0 , "b": [1e21, -0, 0.1] ,"__crypto__":"ab"}"#,
                r#"{"a":1,"b":[1e+21,0,0.1]}"#,
            ),
            (
                r#"{"b":1,"2":{"z":0,"1":0},"1":3,"__crypto__":"ab"}"#,
                r#"{"1":3,"2":{"1":0,"z":0},"b":1}"#,
            ),
            (r#"{"a":12345678901234567890,"__crypto__":"ab"}"#, r#"{"a":12345678901234567000}"#),
            (r#"{"a":1,"b":2,"a":3,"__crypto__":"ab"}"#, r#"{"a":3,"b":2}"#),
            (r#"{"a":"\u00e9\/\u001f\n","__crypto__":"ab"}"#, r#"{"a":"é/\u001f\n"}"#),
            (r#"{"a":{"__crypto__":"in"},"__crypto__":"ab"}"#, r#"{"a":{"__crypto__":"in"}}"#),
        ] {
            let signed = signed(body).unwrap();
            assert_eq!((&*signed.text, &*signed.signature), (text, "ab"), "{body}");
        }
    }

    #[test]
    fn bodies_that_are_not_signed_are_refused() {
        for body in ["", "null", "[]", "1", "\"__crypto__\"", "{"] {
            assert_eq!(signed(body), Err(SignatureError::NotAnObject), "{body}");
        }
        for body in
            ["{}", r#"{"__crypto__":null}"#, r#"{"__crypto__":1}"#, r#"{"__CRYPTO__":"ab"}"#]
        {
            assert_eq!(signed(body), Err(SignatureError::Missing), "{body}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert_eq!(signed(&deep), Err(SignatureError::NotAnObject));
    }

    #[test]
    fn keys_have_bounds() {
        let key = |digits: usize, exponent: Value| {
            PublicKey::from_handshake(&json!({"rsa_n": "d".repeat(digits), "rsa_e": exponent}))
        };
        for digits in [256, 384, 512] {
            assert!(key(digits, json!(65537)).is_some(), "{digits}");
        }
        for digits in [0, 1, 254, 514, 1024, 100_000] {
            assert_eq!(key(digits, json!(65537)), None, "{digits}");
        }
        assert_eq!(key(256, json!("10001")), key(256, json!(65537)));
        for exponent in [json!(3), json!(17), json!("3"), json!(65535)] {
            assert!(key(256, exponent.clone()).is_some(), "{exponent}");
        }
        for exponent in [
            json!(0),
            json!(1),
            json!(4),
            json!(65539),
            json!(u32::MAX),
            json!("f".repeat(100)),
            json!(-3),
            json!(1.5),
            json!(1_u64 << 32),
            json!(null),
            json!("x"),
            json!(""),
        ] {
            assert_eq!(key(256, exponent.clone()), None, "{exponent}");
        }
        let zeros = format!("{}{}", "0".repeat(9), "d".repeat(256));
        let padded = PublicKey::from_handshake(&json!({"rsa_n": zeros, "rsa_e": 65537}));
        assert_eq!(padded, key(256, json!(65537)));
        for rsa in [
            json!({}),
            json!(null),
            json!({"rsa_n": "d".repeat(256)}),
            json!({"rsa_n": 5, "rsa_e": 3}),
            // A modulus is never even.
            json!({"rsa_n": "c".repeat(256), "rsa_e": 65537}),
        ] {
            assert_eq!(PublicKey::from_handshake(&rsa), None, "{rsa}");
        }
    }

    #[test]
    fn a_key_that_is_no_key_verifies_nothing() {
        for (modulus, exponent) in [("d", 65537), ("f", 3), ("1", 17)] {
            let rsa = json!({"rsa_n": modulus.repeat(256), "rsa_e": exponent});
            let key = PublicKey::from_handshake(&rsa).unwrap();
            let body = json!({"__crypto__": "1".repeat(256)}).to_string();
            assert_eq!(key.verify(body.as_bytes()), Err(SignatureError::Wrong));
        }
    }

    #[test]
    fn the_work_of_a_check_grows_with_key_and_body() {
        let work = |digits: usize, body: &[u8]| {
            let rsa = json!({"rsa_n": "d".repeat(digits), "rsa_e": 3});
            PublicKey::from_handshake(&rsa).unwrap().verify_work(body)
        };
        assert_eq!(work(256, b""), 2048);
        assert_eq!(work(512, b""), 8192);
        assert_eq!(work(256, &[b' '; 100]), 2048 + 400);
    }
}
