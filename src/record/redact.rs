//! The part of a package that may be kept: never a secret, as far as it is known for one.
//!
//! Bodies that are no JSON are not kept, as there is no telling what is in them. In JSON the value
//! of a secret's name is covered by as many asterisks, so that lengths stay what they are.

use super::RecordOptions;
use crate::wire::message;
use crate::wire::package::PackageType;

/// Parts of names whose values are secret, without anything but letters.
const SECRETS: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "credential",
    "authorization",
    "cookie",
    "apikey",
    "privatekey",
];

/// Bytes of a message that its head takes at most: flag, id, route.
pub(super) const MESSAGE_HEAD_BYTES_MAX: usize =
    message::RESPONSE_HEAD_BYTES_MAX + 1 + message::ROUTE_BYTES_MAX;

/// Takes out of the beginning of a body, `len` bytes long as a whole, what may not be kept.
pub(super) fn redact(kind: PackageType, len: usize, kept: &mut Vec<u8>, options: &RecordOptions) {
    let is_whole = kept.len() == len;
    let (head_len, is_packed) = match kind {
        PackageType::Data => match message::decode(kept) {
            Ok(message) => (kept.len() - message.body.len(), message.gzip),
            Err(_) => (kept.len().min(1), true),
        },
        _ => (0, false),
    };
    let body = &mut kept[head_len..];
    if !options.has_bodies || is_packed || !is_json(body, is_whole) {
        return kept.truncate(head_len);
    }
    let is_handshake = kind == PackageType::Handshake;
    cover_secrets(body, &|name| {
        let name = plain(name);
        is_handshake && name == "user"
            || SECRETS.iter().any(|secret| name.contains(secret))
            || options.secrets.iter().any(|secret| plain(secret) == name)
    });
}

/// A name as it is compared.
fn plain(name: &str) -> String {
    name.chars().filter(|it| it.is_alphanumeric()).flat_map(char::to_lowercase).collect()
}

/// True if bytes are JSON, or its beginning. Of what is cut off only objects and lists count, as a
/// text's quotation mark may begin other formats.
fn is_json(body: &[u8], is_whole: bool) -> bool {
    if is_whole {
        return serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    }
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_text = match std::str::from_utf8(body) {
        Ok(_) => true,
        // Cut within a character.
        Err(error) => error.error_len().is_none(),
    };
    is_text && matches!(first, Some(b'{' | b'['))
}

/// Covers the values of members whose names are secret, and texts that hold such members.
fn cover_secrets(json: &mut [u8], is_secret: &dyn Fn(&str) -> bool) {
    let mut at = 0;
    while at < json.len() {
        if json[at] != b'"' {
            at += 1;
            continue;
        }
        let end = text_end(json, at);
        let colon = skip_space(json, end);
        if json.get(colon) != Some(&b':') {
            if holds_secret(&json[at..end], is_secret) {
                cover(&mut json[at..end]);
            }
            at = end;
            continue;
        }
        let value = skip_space(json, colon + 1);
        let is_covered = is_secret(&name_of(&json[at..end]));
        at = value;
        if is_covered {
            at = value_end(json, value);
            cover(&mut json[value..at]);
        }
    }
}

/// True if a text is JSON within JSON that has a secret in it.
fn holds_secret(text: &[u8], is_secret: &dyn Fn(&str) -> bool) -> bool {
    if !text.windows(2).any(|pair| pair == b"\\\"") {
        return false;
    }
    // One that is cut off can't be read, so it counts as one.
    let Ok(inner) = serde_json::from_slice::<String>(text) else { return true };
    let mut covered = inner.clone().into_bytes();
    cover_secrets(&mut covered, is_secret);
    covered != inner.as_bytes()
}

fn name_of(text: &[u8]) -> String {
    serde_json::from_slice(text).unwrap_or_else(|_| String::from_utf8_lossy(text).into_owned())
}

fn skip_space(json: &[u8], from: usize) -> usize {
    let rest = json.get(from..).unwrap_or_default();
    from + rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// The end of the text that begins there, behind its quotation mark.
fn text_end(json: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(byte) = json.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    json.len()
}

/// The end of the value that begins there; all of the rest where it is cut off.
fn value_end(json: &[u8], start: usize) -> usize {
    let (mut at, mut depth) = (start, 0_usize);
    while let Some(byte) = json.get(at) {
        match byte {
            b'"' => at = text_end(json, at),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
            }
            b'}' | b']' | b',' if depth == 0 => return at,
            b'}' | b']' => {
                depth -= 1;
                at += 1;
            }
            _ => {
                at += 1;
                continue;
            }
        }
        if depth == 0 {
            return at;
        }
    }
    json.len()
}

/// Writes a text of asterisks over a value.
fn cover(value: &mut [u8]) {
    match value {
        [] => {}
        [one] => *one = b'0',
        [first, between @ .., last] => {
            between.fill(b'*');
            (*first, *last) = (b'"', b'"');
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::*;

    fn options(has_bodies: bool) -> RecordOptions {
        let secrets = Arc::from(vec!["phone_number".to_owned()]);
        RecordOptions { bytes_max: 64 * 1024, has_bodies, seconds: 1, secrets }
    }

    fn covered(text: &str) -> String {
        let mut kept = text.as_bytes().to_vec();
        redact(PackageType::Handshake, kept.len(), &mut kept, &options(true));
        assert!(kept.len() == text.len() || kept.is_empty());
        String::from_utf8(kept).unwrap()
    }

    #[test]
    fn secrets_are_covered_wherever_they_stand() {
        let secret = "hunter2";
        for text in [
            json!({"sys": {"type": "js"}, "user": {"name": secret, "list": [secret]}}),
            json!({"user": secret, "a": 1}),
            json!([{"accessToken": secret}, {"PASS_WORD": [secret, {"a": secret}]}]),
            json!({"phoneNumber": secret}),
            json!({"inner": json!({"password": secret}).to_string()}),
            json!({"token": 1234567890.5, "x": "y\"z"}),
        ] {
            let text = text.to_string();
            let covered = covered(&text);
            assert!(!covered.contains(secret) && !covered.contains("1234567"), "{covered}");
            serde_json::from_str::<Value>(&covered).unwrap();
            for spaced in
                [text.replace(':', " :\n "), text.replacen("\"user\"", "\"\\u0075ser\"", 1)]
            {
                assert!(!self::covered(&spaced).contains(secret), "{spaced}");
            }
        }
        assert_eq!(covered(r#"{"a":1,"pwd":7,"b":[]}"#), r#"{"a":1,"pwd":0,"b":[]}"#);
        assert_eq!(covered(r#"{"a":"password","b":"x"}"#), r#"{"a":"password","b":"x"}"#);
    }

    #[test]
    fn what_is_cut_off_is_covered_to_its_end() {
        let text = br#"{"a":"b","token":{"x":"hunter2"},"c":"{\"pwd\":\"hunter2\"}"}"#;
        for end in 0..text.len() {
            let mut kept = text[..end].to_vec();
            redact(PackageType::Kick, text.len(), &mut kept, &options(true));
            let kept = String::from_utf8(kept).unwrap();
            assert!(!kept.contains("hunter2") && !kept.contains("unter"), "{kept}");
        }
    }

    #[test]
    fn what_is_no_json_and_what_nobody_asked_for_is_not_kept() {
        let message = |flag: u8, body: &[u8]| [&[flag, 7, 3], &b"a.b"[..], body].concat();
        for (kept, has_bodies, expected) in [
            (message(0, b"{\"a\":1}"), true, 13),
            (message(0, b"{\"a\":1}"), false, 6),
            (message(0, b"\x08\x96\x01"), true, 6),
            (message(0x10, b"{\"a\":1}"), true, 6),
            (b"\x0f".to_vec(), true, 1),
            (Vec::new(), true, 0),
        ] {
            let mut redacted = kept.clone();
            redact(PackageType::Data, kept.len(), &mut redacted, &options(has_bodies));
            assert_eq!(redacted, &kept[..expected], "{kept:?}");
        }
        let mut kept = b"\x78\x9c\x01".to_vec();
        redact(PackageType::Handshake, 3, &mut kept, &options(true));
        assert!(kept.is_empty());
    }
}
