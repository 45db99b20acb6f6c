//! Numbers as JavaScript reads and prints them.

use std::fmt::{self, Write as _};

/// Appends `number` as `JSON.stringify` prints it.
///
/// The digits are the fewest that read back as the same double. Below 1e21 and from 1e-6 on they
/// are written out, otherwise with an exponent (`1e+21`, `1.5e-7`). Minus zero is `0`. NaN and the
/// infinities, which JSON cannot hold, are `null`.
///
/// # Examples
///
/// ```
/// use shaddock::wire::number::push_js_number;
///
/// let mut text = Vec::new();
/// push_js_number(1e21, &mut text);
/// assert_eq!(text, b"1e+21");
/// ```
pub fn push_js_number(number: f64, out: &mut Vec<u8>) {
    if !number.is_finite() {
        out.extend_from_slice(b"null");
        return;
    }
    if number < 0.0 {
        out.push(b'-');
    }
    let magnitude = number.abs();
    if magnitude < INTEGER_EXACT_MAX && magnitude.trunc() == magnitude {
        push_integer(magnitude as u64, out);
    } else {
        push_shortest(magnitude, out);
    }
}

/// The result of JavaScript's `Number(text)`, which is NaN if `text` is not a number.
///
/// White space around the number is ignored, the empty text is 0, and `Infinity` is a number, as
/// are `0x10`, `0o17` and `0b11`.
///
/// # Examples
///
/// ```
/// use shaddock::wire::number::js_number_from_text;
///
/// assert_eq!(js_number_from_text(" 2.5 "), 2.5);
/// assert!(js_number_from_text("2,5").is_nan());
/// ```
#[must_use]
pub fn js_number_from_text(text: &str) -> f64 {
    let text = js_trim(text);
    match text {
        "" => 0.0,
        "Infinity" | "+Infinity" => f64::INFINITY,
        "-Infinity" => f64::NEG_INFINITY,
        // Rust would also read words such as `inf`, so only the decimal alphabet passes.
        _ if text
            .bytes()
            .all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E')) =>
        {
            text.parse().unwrap_or(f64::NAN)
        }
        _ => prefixed(text).unwrap_or(f64::NAN),
    }
}

/// The text without the characters around it that JavaScript considers white space, a set that
/// differs from Unicode's.
pub(crate) fn js_trim(text: &str) -> &str {
    text.trim_matches(|c: char| c == '\u{feff}' || (c.is_whitespace() && c != '\u{85}'))
}

/// The value of `0x10`, `0o17` or `0b11`; such a number has no sign.
fn prefixed(text: &str) -> Option<f64> {
    let (prefix, digits) = text.split_at_checked(2)?;
    let radix = match prefix {
        "0x" | "0X" => 16,
        "0o" | "0O" => 8,
        "0b" | "0B" => 2,
        _ => return None,
    };
    let all = (!digits.is_empty()).then_some(digits)?;
    all.chars().try_fold(0.0, |number, digit| {
        Some(number * f64::from(radix) + f64::from(digit.to_digit(radix)?))
    })
}

/// Appends the decimal digits of `integer`.
pub(crate) fn push_integer(mut integer: u64, out: &mut Vec<u8>) {
    let mut digits = [0; INTEGER_DIGITS_MAX];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (integer % 10) as u8;
        integer /= 10;
        if integer == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

/// Appends a positive number that is not a small integer, by ECMAScript's `Number::toString`.
fn push_shortest(magnitude: f64, out: &mut Vec<u8>) {
    let mut text = Scratch { bytes: [0; SCRATCH_BYTES], len: 0 };
    // `{:e}` prints the shortest digits that read back as the same double: "1.2345e-7".
    write!(text, "{magnitude:e}").expect("17 digits, a point and an exponent fit the scratch");
    let text = &text.bytes[..text.len];
    let mark = text.iter().position(|&byte| byte == b'e').expect("`{:e}` prints an exponent");
    let exponent: i32 = std::str::from_utf8(&text[mark + 1..])
        .ok()
        .and_then(|exponent| exponent.parse().ok())
        .expect("`{:e}` prints the exponent as a decimal integer");
    let (first, rest) = (text[0], text.get(2..mark).unwrap_or_default());
    let digits = rest.len() as i32 + 1;

    if (0..21).contains(&exponent) {
        let whole = (exponent as usize).min(rest.len());
        out.push(first);
        out.extend_from_slice(&rest[..whole]);
        out.extend(std::iter::repeat_n(b'0', exponent as usize - whole));
        if digits > exponent + 1 {
            out.push(b'.');
            out.extend_from_slice(&rest[whole..]);
        }
    } else if (-6..0).contains(&exponent) {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.push(first);
        out.extend_from_slice(rest);
    } else {
        out.push(first);
        if !rest.is_empty() {
            out.push(b'.');
            out.extend_from_slice(rest);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        push_integer(u64::from(exponent.unsigned_abs()), out);
    }
}

/// A buffer for one printed number, without allocation.
struct Scratch {
    bytes: [u8; SCRATCH_BYTES],
    /// INVARIANT: `len <= bytes.len()`.
    len: usize,
}

impl fmt::Write for Scratch {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// The bound below which integers are exact in a double, 2^53, so their digits need no search.
pub(crate) const INTEGER_EXACT_MAX: f64 = 9_007_199_254_740_992.0;
/// Digits of `u64::MAX`.
const INTEGER_DIGITS_MAX: usize = 20;
/// The space for 17 significant digits, a point, `e-` and three digits of exponent, rounded up.
const SCRATCH_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use super::{js_number_from_text, push_js_number};

    fn print(number: f64) -> String {
        let mut out = Vec::new();
        push_js_number(number, &mut out);
        String::from_utf8(out).expect("numbers are ASCII")
    }

    /// Node 20 has printed the texts on the right.
    #[test]
    fn a_prefix_changes_the_base() {
        for (text, number) in [("0x10", 16.0), (" 0XfF ", 255.0), ("0o17", 15.0), ("0B101", 5.0)] {
            assert_eq!(js_number_from_text(text), number, "{text}");
        }
        for text in ["0x", "-0x10", "0xg", "0b2", "0o8", "1x2", "x", "\u{e9}"] {
            assert!(js_number_from_text(text).is_nan(), "{text}");
        }
    }

    #[test]
    fn numbers_print_as_in_javascript() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "0"),
            (7.0, "7"),
            (-30.0, "-30"),
            (0.1, "0.1"),
            (-1.25, "-1.25"),
            (0.000001, "0.000001"),
            (0.00000123, "0.00000123"),
            (1e-7, "1e-7"),
            (1.5e-7, "1.5e-7"),
            (5e-324, "5e-324"),
            (123456789.12345679, "123456789.12345679"),
            (9007199254740991.0, "9007199254740991"),
            (9007199254740992.0, "9007199254740992"),
            (18446744073709551616.0, "18446744073709552000"),
            (123456789012345680000.0, "123456789012345680000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5111572745182865e23, "1.5111572745182865e+23"),
            (1e300, "1e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::from(0.1_f32), "0.10000000149011612"),
            (f64::from(f32::MAX), "3.4028234663852886e+38"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
            (f64::NEG_INFINITY, "null"),
        ] {
            assert_eq!(print(number), text);
        }
    }

    #[test]
    fn printed_numbers_read_back_as_the_same_double() {
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for _ in 0..crate::test_cases::repetitions(20_000) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let number = f64::from_bits(seed);
            if number.is_finite() {
                assert_eq!(print(number).parse::<f64>(), Ok(number), "bits {seed:#x}");
            }
        }
    }

    #[test]
    fn texts_read_as_in_javascript() {
        assert_eq!(js_number_from_text("2.5"), 2.5);
        assert_eq!(js_number_from_text("  -1e3\n"), -1000.0);
        assert_eq!(js_number_from_text(""), 0.0);
        assert_eq!(js_number_from_text("-Infinity"), f64::NEG_INFINITY);
        for text in ["inf", "nan", "infinity", "12abc", "--1", "."] {
            assert!(js_number_from_text(text).is_nan(), "{text}");
        }
    }
}
