//! JSON text whose escapes spell half of a surrogate pair.

use serde_json::Value;

/// Reads JSON as `JSON.parse` does, where `"\ud800"` alone is text too.
///
/// JavaScript prints half of a surrogate pair as an escape; UTF-8 and a Rust `String` have no
/// place for it. It becomes U+FFFD here, which is what a JavaScript server puts on the wire for it.
///
/// # Errors
///
/// The error of `serde_json` if `text` is no JSON at all.
///
/// # Examples
///
/// ```
/// use shaddock::wire::surrogate::parse_json;
///
/// assert_eq!(parse_json(br#""a\ud800""#).unwrap(), "a\u{fffd}");
/// ```
pub fn parse_json(text: &[u8]) -> serde_json::Result<Value> {
    // Such text is rare, so it alone pays for the second look.
    serde_json::from_slice(text).or_else(|error| {
        let mended = mend(text).ok_or(error)?;
        serde_json::from_slice(&mended)
    })
}

/// `text` with every unpaired surrogate escape turned into `\ufffd`; `None` if there is none.
fn mend(text: &[u8]) -> Option<Vec<u8>> {
    let mut mended: Option<Vec<u8>> = None;
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
                let mended = mended.get_or_insert_with(|| text.to_vec());
                mended[at..at + ESCAPE_BYTES].copy_from_slice(br"\ufffd");
                at += ESCAPE_BYTES;
            }
            // A backslash and what it escapes, so that an escaped backslash starts nothing.
            _ => at += 2,
        }
    }
    mended
}

/// The UTF-16 unit that an escape `\uXXXX` at `at` spells.
fn escaped_unit(text: &[u8], at: usize) -> Option<u16> {
    let digits = text.get(at..at + ESCAPE_BYTES)?.strip_prefix(br"\u")?;
    digits.iter().try_fold(0, |unit, &digit| {
        let digit = char::from(digit).to_digit(16)?;
        Some(unit << 4 | digit as u16)
    })
}

/// Bytes of `\uXXXX`.
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
    fn what_is_no_json_stays_an_error() {
        for text in [r#""\ud800"#, r#""\ud8"#, r"\", "{", r#"{"a":"\ud800",}"#] {
            assert!(parse_json(text.as_bytes()).is_err(), "{text}");
        }
    }
}
