//! The choice of a backend server of a type for a session.

use std::borrow::Cow;

use serde_json::Value;

use crate::wire::number::push_js_number;

/// Pomelo's default route: the index, among `servers` servers of a type, of the one that serves the
/// session of `uid_text`. `None` if there is no server.
///
/// It is the CRC-32 of the text as a signed number, without its sign, modulo the number of servers
/// in the order they became known. The text of an unbound session is empty, which gives the first
/// server. The checksum uses the low eight bits of each UTF-16 unit.
///
/// # Examples
///
/// ```
/// use shaddock::route::default_route;
///
/// assert_eq!(default_route("alice", 4), Some(3));
/// assert_eq!(default_route("", 4), Some(0));
/// assert_eq!(default_route("alice", 0), None);
/// ```
#[must_use]
pub fn default_route(uid_text: &str, servers: usize) -> Option<usize> {
    let checksum = if uid_text.is_ascii() {
        crc32fast::hash(uid_text.as_bytes())
    } else {
        let mut hasher = crc32fast::Hasher::new();
        for unit in uid_text.encode_utf16() {
            hasher.update(&[unit as u8]);
        }
        hasher.finalize()
    };
    let distance = checksum.cast_signed().unsigned_abs() as usize;
    distance.checked_rem(servers)
}

/// The uid text that [`default_route`] takes: JavaScript's text of the uid, and the empty text for
/// a falsy uid (none, `0`, `""`, `false`).
///
/// # Examples
///
/// ```
/// use serde_json::json;
/// use shaddock::route::uid_text;
///
/// assert_eq!(uid_text(&json!(42)), "42");
/// assert_eq!(uid_text(&json!(0)), "");
/// ```
#[must_use]
pub fn uid_text(uid: &Value) -> Cow<'_, str> {
    match uid {
        Value::Null | Value::Bool(false) => "".into(),
        Value::Bool(true) => "true".into(),
        Value::String(text) => text.into(),
        Value::Number(number) => match number.as_f64() {
            None | Some(0.0) => "".into(),
            Some(number) => {
                let mut text = Vec::new();
                push_js_number(number, &mut text);
                String::from_utf8(text).expect("a number prints as ASCII").into()
            }
        },
        // Neither is a valid uid; JavaScript prints this text.
        Value::Array(_) | Value::Object(_) => "[object Object]".into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{default_route, uid_text};

    #[test]
    fn the_sign_of_the_checksum_is_dropped() {
        // The checksum of "1" is -2082672713 as a signed number.
        assert_eq!(default_route("1", usize::MAX), Some(2_082_672_713));
        assert_eq!(default_route("1", 16), Some(9));
    }

    #[test]
    fn only_the_low_byte_of_a_unit_counts() {
        assert_eq!(default_route("\u{141}\u{142}", 1000), default_route("AB", 1000));
    }

    #[test]
    fn uids_print_as_in_javascript() {
        for (uid, text) in [
            (json!("a"), "a"),
            (json!(""), ""),
            (json!(null), ""),
            (json!(false), ""),
            (json!(true), "true"),
            (json!(0), ""),
            (json!(-0.0), ""),
            (json!(10001), "10001"),
            (json!(-1.5), "-1.5"),
            (json!(1e21), "1e+21"),
        ] {
            assert_eq!(uid_text(&uid), text, "{uid}");
        }
    }
}
