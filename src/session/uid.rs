//! The uid: the name by which a player logs in.

use std::fmt;
use std::sync::Arc;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
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
/// assert_eq!(Uid::from(42).to_value(), 42); // As JSON.
/// assert!(Uid::from(0).is_falsy() && Uid::from("").is_falsy()); // These can't be bound.
/// ```
///
/// A game's own types may hold one, and a uid prints as its text:
///
/// ```
/// use shaddock::Uid;
///
/// #[derive(serde::Deserialize)]
/// struct Invite {
///     whom: Uid,
/// }
///
/// let invite: Invite = serde_json::from_str(r#"{"whom":42}"#)?;
/// assert_eq!(invite.whom, Uid::from(42_u64));
/// assert_eq!(format!("{} is invited", invite.whom), "42 is invited");
/// # Ok::<(), serde_json::Error>(())
/// ```
///
/// JavaScript holds integers up to 2^53 exactly. A larger number that comes as JSON is rounded as
/// there, so that all who read it mean the same one: give such uids as text.
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

macro_rules! from_integers {
    ($($integer:ident)+) => {
        $(impl From<$integer> for Uid {
            fn from(number: $integer) -> Self {
                Self { text: number.to_string().into(), kind: Kind::Number }
            }
        })+
    };
}

// The signed ones are there for literals, whose type is `i32` where several would do.
from_integers!(i32 u32 i64 u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// A JSON value that is neither text nor a finite number; its sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::exhaustive_structs)] // The name says all there is to say.
pub struct UidError;

impl fmt::Display for UidError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
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

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UidVisitor)
    }
}

struct UidVisitor;

impl Visitor<'_> for UidVisitor {
    type Value = Uid;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a uid: text or a number")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Uid, E> {
        Ok(text.into())
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Uid, E> {
        Uid::try_from(&Value::from(number)).map_err(E::custom)
    }

    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<Uid, E> {
        Uid::try_from(&Value::from(number)).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Uid, E> {
        Uid::try_from(&Value::from(number)).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_uid_is_read_from_json_as_from_a_value() {
        for value in [json!("amy"), json!(""), json!(42), json!(-7), json!(0.5), json!(1e300)] {
            let read: Uid = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(read, Uid::try_from(&value).unwrap(), "{value}");
            assert_eq!(read.to_string(), read.text());
        }
        for value in [json!(null), json!(true), json!([1]), json!({"a": 1})] {
            assert!(serde_json::from_value::<Uid>(value).is_err());
        }
        assert_eq!(Uid::from(u64::MAX).text(), "18446744073709551615");
        assert_eq!(Uid::from(-7).to_value(), json!(-7));
    }

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
