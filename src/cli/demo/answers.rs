//! Settings and failures as the reference app answers them.

use serde_json::{Value, json};
use shaddock::Reply;
use shaddock::wire::truthy::is_truthy;

use super::js;

/// The room of players who name none.
const DEFAULT_ROOM: &str = "lobby";

/// The longest room in bytes of its JSON. The reference stores any, and each stands in a setting of
/// the session and in the names of rooms.
const ROOM_BYTES_MAX: usize = 1024;

/// A setting as it is answered: `session.get(…) || null`.
pub(super) fn setting(value: Option<&Value>) -> Value {
    value.filter(|value| is_truthy(value)).cloned().unwrap_or_default()
}

/// The room that a setting or a request names.
pub(super) fn room(value: Option<&Value>) -> Value {
    match setting(value) {
        Value::Null => DEFAULT_ROOM.into(),
        room => room,
    }
}

/// The answer to a request that names a room which is too long to be stored.
pub(super) fn refuse_room(value: Option<&Value>) -> Option<Reply<'static>> {
    let is_too_long = value?.to_string().len() > ROOM_BYTES_MAX;
    let answer = json!({"code": 400, "msg": "the room is longer than 1 KiB"});
    is_too_long.then(|| Reply::error_json(&answer))
}

/// Fails, with an answer unless the request asks for none.
pub(super) fn fail(body: &Value, text: &str) -> Reply<'static> {
    if js::truthy(body, "bare").is_some() {
        return Reply::error();
    }
    Reply::error_json(&json!({"code": 555, "msg": text}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_may_be_any_value() {
        assert_eq!(room(None), "lobby");
        assert_eq!(room(Some(&json!(""))), "lobby");
        assert_eq!(room(Some(&json!(7))), 7);
        assert_eq!(setting(Some(&json!(0))), Value::Null);
        assert_eq!(setting(None), Value::Null);
    }

    #[test]
    fn a_long_room_is_refused() {
        let room = |chars: usize| json!("r".repeat(chars));
        assert!(refuse_room(None).is_none());
        assert!(refuse_room(Some(&room(ROOM_BYTES_MAX - 2))).is_none());
        let refused = refuse_room(Some(&room(ROOM_BYTES_MAX - 1))).unwrap();
        assert!(refused.is_error() && refused.body().is_some());
        assert!(refuse_room(Some(&json!({"a": [room(ROOM_BYTES_MAX)]}))).is_some());
    }

    #[test]
    fn failures_are_bare_on_request() {
        let reply = fail(&json!({}), "local failure");
        assert_eq!(reply.body(), Some(&br#"{"code":555,"msg":"local failure"}"#[..]));
        assert!(reply.is_error());
        let reply = fail(&json!({"bare": 1}), "local failure");
        assert!(reply.is_error() && reply.body().is_none());
    }
}
