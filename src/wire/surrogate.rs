//! JSON text that JavaScript reads and Rust does not: escapes of half a surrogate pair, and numbers
//! beyond the largest double.

use serde_json::Value;

/// Reads JSON as `JSON.parse` does, including a lone `"\ud800"`, and `1e400` as a number.
///
/// JavaScript prints half of a surrogate pair as an escape; UTF-8, and so a Rust `String`, cannot
/// hold it. It becomes U+FFFD, which a JavaScript server sends for it. A number beyond the largest
/// double is infinite in JavaScript, and becomes that double here.
///
/// # Errors
///
/// The error of `serde_json` if `text` is not JSON.
///
/// # Examples
///
/// ```
/// use shaddock::wire::surrogate::parse_json;
///
/// assert_eq!(parse_json(br#""a\ud800""#).unwrap(), "a\u{fffd}");
/// ```
pub fn parse_json(text: &[u8]) -> serde_json::Result<Value> {
    // Such text is rare, so only it pays for the second attempt.
    serde_json::from_slice(text).or_else(|error| {
        let readable = replace_unreadable(text).ok_or(error)?;
        serde_json::from_slice(&readable)
    })
}

/// Replaces every unpaired surrogate escape in `text` by `\ufffd`, and every number beyond the
/// largest double by that double. `None` if there is neither.
fn replace_unreadable(text: &[u8]) -> Option<Vec<u8>> {
    let escapes = replace_unpaired(text);
    let text = escapes.as_deref().unwrap_or(text);
    replace_numbers(text).or(escapes)
}

fn replace_numbers(text: &[u8]) -> Option<Vec<u8>> {
    let mut readable = Vec::new();
    let mut copied = 0;
    let mut at = 0;
    let mut is_text = false;
    while at < text.len() {
        match text[at] {
            b'"' => is_text = !is_text,
            // A backslash and the character it escapes, which may be a quote.
            b'\\' if is_text => at += 1,
            b'0'..=b'9' if !is_text => {
                let is_part =
                    |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                let rest = &text[at..];
                let end = at + rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
                if is_infinite(&text[at..end]) {
                    readable.extend_from_slice(&text[copied..at]);
                    readable.extend_from_slice(NUMBER_MAX);
                    copied = end;
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return None;
    }
    readable.extend_from_slice(&text[copied..]);
    Some(readable)
}

/// True if this is a JSON number beyond the largest double.
fn is_infinite(number: &[u8]) -> bool {
    // Rust reads leading zeros, and a point without digits behind it; JSON does not.
    let has_leading_zero =
        number.starts_with(b"0") && number.get(1).is_some_and(u8::is_ascii_digit);
    let has_bare_point = number.windows(2).any(|two| two[0] == b'.' && !two[1].is_ascii_digit());
    let is_json = !has_leading_zero && !has_bare_point;
    is_json
        && std::str::from_utf8(number)
            .is_ok_and(|number| number.parse::<f64>().is_ok_and(f64::is_infinite))
}

/// The largest double.
const NUMBER_MAX: &[u8] = b"1.7976931348623157e308";

/// Replaces every unpaired surrogate escape in `text` by `\ufffd`. `None` if there is none.
fn replace_unpaired(text: &[u8]) -> Option<Vec<u8>> {
    let mut readable: Option<Vec<u8>> = None;
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'\\' {
            at += 1;
            continue;
        }
        match escaped_unit(text, at) {
            Some(0xd800..=0xdbff)
                if matches!(escaped_unit(text, at + ESCAPE_BYTES), Some(0xdc00..=0xdfff)) =>
            {
                at += 2 * ESCAPE_BYTES;
            }
            Some(0xd800..=0xdfff) => {
                let readable = readable.get_or_insert_with(|| text.to_vec());
                readable[at..at + ESCAPE_BYTES].copy_from_slice(br"\ufffd");
                at += ESCAPE_BYTES;
            }
            // A backslash and the character it escapes, so that an escaped backslash starts
            // nothing.
            _ => at += 2,
        }
    }
    readable
}

/// The UTF-16 unit of an escape `\uXXXX` at `at`.
fn escaped_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE_BYTES)?.strip_prefix(br"\u")?;
    digits.iter().try_fold(0, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

/// The length of `\uXXXX`.
const ESCAPE_BYTES: usize = 6;

#[cfg(test)]
mod tests {
    use super::parse_json;

    #[test]
    fn an_unpaired_surrogate_becomes_the_replacement_character() {
        for (text, expected) in [
            (r#""\ud800""#, "\u{fffd}"),
            (r#""\udc00\ud800""#, "\u{fffd}\u{fffd}"),
            (r#""\ud800\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (r#""\\ud800\uD800x""#, "\\ud800\u{fffd}x"),
            (r#""\ud800\n""#, "\u{fffd}\n"),
            (r#""\ud83d\ude00""#, "\u{1f600}"),
        ] {
            assert_eq!(parse_json(text.as_bytes()).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn a_number_beyond_the_largest_is_the_largest() {
        for (text, expected) in [
            ("1e400", serde_json::json!(f64::MAX)),
            ("[-2.5E+999,3]", serde_json::json!([-f64::MAX, 3])),
            (
                r#"{"1e400":"\"1e400\\","a":"\ud800","b":1e309}"#,
                serde_json::json!({
                    "1e400": "\"1e400\\", "a": "\u{fffd}", "b": f64::MAX,
                }),
            ),
        ] {
            assert_eq!(parse_json(text.as_bytes()).expect(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_json_stays_an_error() {
        for text in [
            "01e400",
            "1e400.",
            "1e4-00",
            "1.e400",
            "[1e400",
            "1e400e",
            r#""\ud800"#,
            r#""\ud8"#,
            r"\",
            "{",
            r#"{"a":"\ud800",}"#,
        ] {
            assert!(parse_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
