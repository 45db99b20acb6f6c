//! JavaScript's view of JSON values, as far as the answers of the demo depend on it.

use std::borrow::Cow;

use serde_json::Value;
use shaddock::wire::number::{js_number_from_text, push_js_number};
use shaddock::wire::truthy::is_truthy;

/// `body.member`, if that is something.
pub(crate) fn truthy<'a>(body: &'a Value, member: &str) -> Option<&'a Value> {
    body.get(member).filter(|value| is_truthy(value))
}

/// `value | 0`, where nothing is `undefined`.
pub(crate) fn to_int32(value: Option<&Value>) -> i32 {
    let number = value.map_or(f64::NAN, to_number);
    if !number.is_finite() {
        return 0;
    }
    // Truncated and taken modulo 2^32 it fits exactly.
    (number.trunc().rem_euclid(4_294_967_296.0) as u32).cast_signed()
}

fn to_number(value: &Value) -> f64 {
    match value {
        Value::Null => 0.0,
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        _ => js_number_from_text(&to_text(value)),
    }
}

/// `String(value)`.
pub(crate) fn to_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "null".into(),
        Value::Bool(value) => value.to_string().into(),
        Value::Number(number) => {
            let mut text = Vec::new();
            push_js_number(number.as_f64().unwrap_or(f64::NAN), &mut text);
            String::from_utf8(text).expect("a number prints as ASCII").into()
        }
        Value::String(text) => text.into(),
        Value::Array(items) => {
            let texts: Vec<_> = items
                .iter()
                .map(|item| if item.is_null() { "".into() } else { to_text(item) })
                .collect();
            texts.join(",").into()
        }
        Value::Object(_) => "[object Object]".into(),
    }
}

/// `(value || '').length`, nothing if that is `undefined`.
pub(crate) fn length(value: Option<&Value>) -> Option<Value> {
    match value.filter(|value| is_truthy(value)) {
        None => Some(0.into()),
        Some(Value::String(text)) => Some(text.encode_utf16().count().into()),
        Some(Value::Array(items)) => Some(items.len().into()),
        Some(Value::Object(members)) => members.get("length").cloned(),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_falsy() {
        for value in [json!(null), json!(false), json!(0), json!(-0.0), json!("")] {
            assert!(!is_truthy(&value), "{value}");
        }
        for value in [json!(true), json!(-1), json!(0.5), json!("0"), json!([]), json!({})] {
            assert!(is_truthy(&value), "{value}");
        }
    }

    #[test]
    fn only_an_object_has_members() {
        assert_eq!(truthy(&json!({"a": 1}), "a"), Some(&json!(1)));
        for body in [json!({"a": 0}), json!({}), json!([1]), json!("a"), json!(5), json!(null)] {
            assert_eq!(truthy(&body, "a"), None, "{body}");
        }
    }

    #[test]
    fn integers_wrap_at_32_bits() {
        for (value, integer) in [
            (json!(null), 0),
            (json!(true), 1),
            (json!(7.9), 7),
            (json!(-7.9), -7),
            (json!(2_147_483_648_u64), -2_147_483_648),
            (json!(-2_147_483_649_i64), 2_147_483_647),
            (json!(4_294_967_297_u64), 1),
            (json!(1e300), 0),
            (json!(" 12 "), 12),
            (json!("12a"), 0),
            (json!([3]), 3),
            (json!([3, 4]), 0),
            (json!([]), 0),
            (json!({}), 0),
        ] {
            assert_eq!(to_int32(Some(&value)), integer, "{value}");
        }
        assert_eq!(to_int32(None), 0);
    }

    #[test]
    fn texts_are_those_of_string() {
        for (value, text) in [
            (json!("lobby"), "lobby"),
            (json!(1.0), "1"),
            (json!(true), "true"),
            (json!([1, null, ["a", "b"]]), "1,,a,b"),
            (json!({"a": 1}), "[object Object]"),
        ] {
            assert_eq!(to_text(&value), text);
        }
    }

    #[test]
    fn lengths_count_utf16_units() {
        assert_eq!(length(None), Some(json!(0)));
        assert_eq!(length(Some(&json!(0))), Some(json!(0)));
        assert_eq!(length(Some(&json!("zażółć"))), Some(json!(6)));
        assert_eq!(length(Some(&json!("🎈"))), Some(json!(2)));
        assert_eq!(length(Some(&json!([1, 2, 3]))), Some(json!(3)));
        assert_eq!(length(Some(&json!({"length": "x"}))), Some(json!("x")));
        assert_eq!(length(Some(&json!(5))), None);
        assert_eq!(length(Some(&json!({}))), None);
    }
}
