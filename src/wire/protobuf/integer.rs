//! Integers by JavaScript's `parseInt`, which accepts any value.

use serde_json::Value;

use crate::wire::number::js_trim;

/// The result of `parseInt(value)`; `None` stands for NaN.
///
/// It reads the value's *text* as far as that is an integer: 12 of `"12abc"`, 31 of `"0x1F"`, and 1
/// of 1e21 and of 1e-7, whose texts are `1e+21` and `1e-7`. The result may be infinite.
pub(super) fn parse_int(mut value: &Value) -> Option<f64> {
    loop {
        match value {
            Value::Number(number) => return number.as_f64().map(parse_int_of_number),
            Value::String(text) => return parse_int_of_text(text),
            // An array's text has its elements with commas between them, and a comma ends an
            // integer.
            Value::Array(elements) => value = elements.first()?,
            Value::Null | Value::Bool(_) | Value::Object(_) => return None,
        }
    }
}

/// The result of `parseInt` for a number's text.
pub(super) fn parse_int_of_number(number: f64) -> f64 {
    let magnitude = number.abs();
    if magnitude == 0.0 || (WRITTEN_OUT_MIN..WRITTEN_OUT_END).contains(&magnitude) {
        return number.trunc();
    }
    if !magnitude.is_finite() {
        return number;
    }
    // The digit before the point of `1.5e+21`; `{:e}` prints the same digits.
    let digit = format!("{magnitude:e}").as_bytes()[0] - b'0';
    f64::from(digit).copysign(number)
}

fn parse_int_of_text(text: &str) -> Option<f64> {
    let text = js_trim(text);
    let (sign, text) = match text.as_bytes().first() {
        Some(b'-') => (-1.0, &text[1..]),
        Some(b'+') => (1.0, &text[1..]),
        _ => (1.0, text),
    };
    let hex = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
    let digits = hex.unwrap_or(text);
    let is_digit = |byte: &u8| match hex {
        Some(_) => byte.is_ascii_hexdigit(),
        None => byte.is_ascii_digit(),
    };
    let len = digits.bytes().take_while(is_digit).count();
    let digits = &digits[..len];
    let magnitude = match hex {
        _ if digits.is_empty() => return None,
        Some(_) => of_hex(digits),
        None => digits.parse().ok()?,
    };
    Some(sign * magnitude)
}

/// The double nearest to a hexadecimal number of any length; a tie goes to the even one.
fn of_hex(digits: &str) -> f64 {
    let (mut head, mut exponent) = (0_u64, 0_i32);
    for digit in digits.chars().filter_map(|digit| digit.to_digit(16)) {
        if head >> 60 == 0 {
            head = head << 4 | u64::from(digit);
        } else {
            // A digit this far behind the last bit that counts only shows that there is no tie.
            head |= u64::from(digit != 0);
            exponent = exponent.saturating_add(4);
        }
    }
    head as f64 * 2_f64.powi(exponent)
}

/// The lower end of the numbers whose texts have no exponent; the next constant is the upper end.
const WRITTEN_OUT_MIN: f64 = 1e-6;
const WRITTEN_OUT_END: f64 = 1e21;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Node 20 has printed the numbers on the right.
    #[test]
    fn texts_are_read_as_far_as_they_are_integers() {
        for (text, number) in [
            ("12abc", 12.0),
            (" \u{feff}-0x1Fg", -31.0),
            ("1e3", 1.0),
            ("12.50", 12.0),
            ("0x20000000000001", 9_007_199_254_740_992.0),
            ("0x20000000000003", 9_007_199_254_740_996.0),
            ("0x80000000000004000000000001", 10_141_204_801_825_837_000_000_000_000_000.0),
        ] {
            assert_eq!(parse_int(&text.into()), Some(number), "{text}");
        }
        for text in ["", "-", "0x", "\u{85}1", "Infinity", ".5", "\u{663}"] {
            assert_eq!(parse_int(&text.into()), None, "{text}");
        }
        assert_eq!(parse_int(&"1".repeat(400).into()), Some(f64::INFINITY));
        assert_eq!(parse_int(&format!("0x{}", "f".repeat(400)).into()), Some(f64::INFINITY));
    }

    #[test]
    fn numbers_and_arrays_are_read_by_their_texts() {
        for (value, number) in [
            (json!(1.5e21), 1.0),
            (json!(-9.5e-7), -9.0),
            (json!(5e-324), 5.0),
            (json!(0.000001), 0.0),
            (json!([["7"], 8]), 7.0),
        ] {
            assert_eq!(parse_int(&value), Some(number), "{value}");
        }
        assert_eq!(parse_int(&json!([null, 1])), None);
    }
}
