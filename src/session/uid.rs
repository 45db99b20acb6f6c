//! The uid: the name by which a player logs in.

use std::sync::Arc;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::wire::number::push_js_number;

/// A uid: text or a number, as games bind them.
///
/// Pomelo compares uids strictly (`42` is not `"42"`) but keeps them under their text, so both
/// share one directory entry (docs/protocol/sessions.md, "Sessions"). `Uid` does the same: `==` is
/// strict, [`Uid::text`] is the key.
///
/// ```
/// use shaddock::Uid;
///
/// assert_ne!(Uid::from(42), Uid::from("42"));
/// assert_eq!(Uid::from(42).text(), Uid::from("42").text());
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Uid {
    text: Arc<str>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Text,
    Number,
}

impl Uid {
    /// The uid as text, which is its key in the directory.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The uid as a JSON value: a string, or a number.
    #[must_use]
    pub fn to_value(&self) -> Value {
        match self.kind {
            Kind::Text => Value::String(self.text.to_string()),
            Kind::Number => serde_json::from_str(&self.text).unwrap_or(Value::Null),
        }
    }

    /// True if the uid is falsy in JavaScript (`""` and `0`). Such a uid can't be bound.
    #[must_use]
    pub fn is_falsy(&self) -> bool {
        self.text.is_empty() || (self.kind == Kind::Number && &*self.text == "0")
    }
}

impl From<&str> for Uid {
    fn from(text: &str) -> Self {
        Self { text: text.into(), kind: Kind::Text }
    }
}

impl From<String> for Uid {
    fn from(text: String) -> Self {
        Self { text: text.into(), kind: Kind::Text }
    }
}

impl From<u32> for Uid {
    fn from(number: u32) -> Self {
        Self { text: number.to_string().into(), kind: Kind::Number }
    }
}

/// A JSON value that is neither text nor a finite number; its sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // The name says all there is to say.
pub struct UidError;

impl std::fmt::Display for UidError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a uid must be text or a number")
    }
}

impl std::error::Error for UidError {}

impl TryFrom<&Value> for Uid {
    type Error = UidError;

    fn try_from(value: &Value) -> Result<Self, UidError> {
        match value {
            Value::String(text) => Ok(Self::from(text.as_str())),
            Value::Number(number) => {
                let number = number.as_f64().filter(|n| n.is_finite()).ok_or(UidError)?;
                let mut text = Vec::new();
                push_js_number(number, &mut text);
                let text = String::from_utf8(text).map_err(|_| UidError)?;
                Ok(Self { text: text.into(), kind: Kind::Number })
            }
            _ => Err(UidError),
        }
    }
}

impl Serialize for Uid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_keep_their_kind_and_javascript_text() {
        let uid = Uid::try_from(&json!(42.0)).unwrap();
        assert_eq!(uid.text(), "42");
        assert_eq!(uid.to_value(), json!(42));
        assert_eq!(uid, Uid::from(42));
        assert_eq!(Uid::try_from(&json!(0.5)).unwrap().to_value(), json!(0.5));
    }

    #[test]
    fn only_text_and_numbers_are_uids() {
        for value in [json!(null), json!(true), json!([1]), json!({"a": 1})] {
            assert_eq!(Uid::try_from(&value), Err(UidError));
        }
    }

    #[test]
    fn nothing_is_falsy() {
        assert!(Uid::from("").is_falsy());
        assert!(Uid::from(0).is_falsy());
        assert!(!Uid::from("0").is_falsy());
    }
}
