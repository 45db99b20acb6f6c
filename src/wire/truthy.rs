//! JavaScript's truth of a value.

use serde_json::Value;

/// True if a value is truthy in JavaScript: everything but `null`, `false`, `0` and `""`.
///
/// ```
/// use serde_json::json;
/// use shaddock::wire::truthy::is_truthy;
///
/// assert!(is_truthy(&json!({})) && is_truthy(&json!("0")));
/// assert!(!is_truthy(&json!(0)) && !is_truthy(&json!("")) && !is_truthy(&json!(null)));
/// ```
#[must_use]
pub fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}
