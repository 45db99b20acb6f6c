//! The error of a typed handler, as its client is told of it.

use std::borrow::Cow;
use std::fmt;

use serde::Serialize;

use super::BindError;
use super::mail::MailError;
use super::reply::Reply;
use crate::error::HandleError;
use crate::route::PushError;

/// The error of a typed handler: a code and a text, which its client gets as
/// `{"code":404,"msg":"no room"}`.
///
/// Other errors become one by `?`:
///
/// | error | code and text |
/// |---|---|
/// | `serde_json::Error` of a text that does not fit | 400, the error's text |
/// | any other `serde_json::Error` | 500 without a text; it is logged |
/// | [`BindError`] | 409; for a bad uid 400, for a session that is gone 410; Pomelo's text |
/// | [`BindError::Busy`], [`HandleError::Busy`], [`MailError::Full`] | 503, the error's text |
/// | [`PushError`], [`StateTaken`](crate::StateTaken), other [`MailError`]s | 500, logged |
/// | one of your own, by [`Fault::internal`] | 500 without a text; it is logged |
///
/// ```
/// use shaddock::{Fault, Handlers, Session};
///
/// #[derive(serde::Deserialize)]
/// struct Enter {
///     room: u32,
/// }
///
/// fn enter(query: Enter, _session: &mut Session) -> Result<&'static str, Fault> {
///     let rooms = std::fs::read_to_string("rooms").map_err(Fault::internal)?;
///     match rooms.lines().any(|room| room.parse() == Ok(query.room)) {
///         true => Ok("welcome"),
///         false => Err(Fault::new(404, "no room")),
///     }
/// }
///
/// fn register(handlers: &mut Handlers) {
///     handlers.call("connector.roomHandler.enter", enter);
/// }
/// # let _ = shaddock::Engine::builder().register(register);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    code: i32,
    msg: Cow<'static, str>,
}

/// The body that a client gets.
#[derive(Serialize)]
struct Body<'a> {
    code: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    msg: &'a str,
}

impl Fault {
    /// A code that the game's clients know, and a text for them. A code of 0, which is none to
    /// Pomelo's clients, is answered as 500; an empty text is left out.
    ///
    /// ```
    /// use shaddock::{Fault, Reply};
    ///
    /// let fault = Fault::new(404, "no room");
    /// assert_eq!((fault.code(), fault.msg()), (404, "no room"));
    /// let reply = Reply::from(fault);
    /// assert_eq!(reply.body(), Some(&br#"{"code":404,"msg":"no room"}"#[..]));
    /// assert!(reply.is_error());
    /// ```
    #[must_use]
    pub fn new(code: i32, msg: impl Into<Cow<'static, str>>) -> Self {
        Self { code, msg: msg.into() }
    }

    /// An error that concerns no client: it is logged, and answered `{"code":500}`.
    ///
    /// ```
    /// # use shaddock::Fault;
    /// fn load() -> Result<Vec<u8>, Fault> {
    ///     std::fs::read("level").map_err(Fault::internal)
    /// }
    /// ```
    #[must_use]
    pub fn internal(error: impl fmt::Display) -> Self {
        crate::log::seldom!(error, %error, "a handler has failed");
        Self::new(500, "")
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.code
    }

    /// The text; empty where there is none for the client.
    #[must_use]
    pub fn msg(&self) -> &str {
        &self.msg
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.msg {
            "" => write!(f, "code {}", self.code),
            msg => write!(f, "{msg} (code {})", self.code),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for Reply<'static> {
    fn from(fault: Fault) -> Self {
        Reply::error_json(&Body { code: fault.code, msg: &fault.msg })
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        // Only a text has lines: what could not be written is no fault of the client's.
        match error.line() {
            0 => Self::internal(error),
            _ => Self::new(400, error.to_string()),
        }
    }
}

impl From<BindError> for Fault {
    fn from(error: BindError) -> Self {
        let code = match error {
            BindError::BadUid => 400,
            BindError::Gone { .. } => 410,
            BindError::Busy => 503,
            BindError::BoundToOther(_) | BindError::InUse(_) | BindError::NotBound(_) => 409,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PushError> for Fault {
    fn from(error: PushError) -> Self {
        Self::internal(error)
    }
}

impl From<MailError> for Fault {
    fn from(error: MailError) -> Self {
        match error {
            MailError::Full => Self::new(503, error.to_string()),
            error => Self::internal(error),
        }
    }
}

impl From<HandleError> for Fault {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::Busy => Self::new(503, error.to_string()),
            error => Self::internal(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::codes::FailureBodies;

    fn answer(fault: Fault) -> String {
        String::from_utf8(Reply::from(fault).text(&FailureBodies::default()).into_owned()).unwrap()
    }

    #[test]
    fn a_client_gets_code_and_text_of_what_concerns_it() {
        assert_eq!(answer(Fault::new(404, "no room")), r#"{"code":404,"msg":"no room"}"#);
        assert_eq!(answer(Fault::new(404, "")), r#"{"code":404}"#);
        assert_eq!(answer(Fault::new(0, "zero")), r#"{"code":500,"msg":"zero"}"#);
        assert_eq!(answer(Fault::internal("a secret")), r#"{"code":500}"#);
        let unread = serde_json::from_str::<u8>("x").unwrap_err();
        assert_eq!(Fault::from(unread).code(), 400);
        let unwritten = serde_json::to_string(&std::collections::HashMap::from([([1], 1)]));
        assert_eq!(answer(unwritten.unwrap_err().into()), r#"{"code":500}"#);
        assert_eq!(Fault::from(BindError::InUse("amy".into())).code(), 409);
        assert_eq!(Fault::from(HandleError::Busy).code(), 503);
    }
}
