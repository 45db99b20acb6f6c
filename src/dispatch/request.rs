//! The request that a handler gets.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::wire::surrogate;

/// One message of a client, as filters and handlers see it. It borrows from the receive buffer.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    route: &'a str,
    id: u32,
    body: &'a [u8],
    /// The body's length once more, where no load takes it and the body's address at once: such a
    /// load, of two words that were stored one by one a moment ago, waits for everything before it.
    body_len: usize,
}

/// The body that handlers see for an empty one. Its own place in memory is how it is told
/// from a client's empty object.
static NOTHING: [u8; 2] = *b"{}";

impl<'a> Request<'a> {
    /// A message; an id of 0 makes it a notify, which is never answered
    /// (docs/protocol/wire.md, "Message").
    ///
    /// ```
    /// use shaddock::Request;
    ///
    /// let request = Request::new("chat.chatHandler.send", 7, br#"{"text":"hi"}"#);
    /// assert_eq!((request.route(), request.id()), ("chat.chatHandler.send", 7));
    /// assert!(!request.is_notify());
    /// assert_eq!(request.value()["text"], "hi");
    /// assert_eq!(request.body(), br#"{"text":"hi"}"#);
    /// ```
    #[must_use]
    pub fn new(route: &'a str, id: u32, body: &'a [u8]) -> Self {
        // An empty body is handled as an empty object.
        let body = if body.is_empty() { &NOTHING } else { body };
        Self { route, id, body, body_len: body.len() }
    }

    /// The route, expanded if it came as a dictionary code.
    #[must_use]
    pub fn route(&self) -> &'a str {
        self.route
    }

    /// The client's request id; 0 for a notify.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// True if nobody waits for an answer.
    #[must_use]
    pub fn is_notify(&self) -> bool {
        self.id == 0
    }

    /// The body as it came: JSON text if the client keeps to the protocol, which nobody has
    /// checked yet. A protobuf body has been turned into JSON.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        &self.body[..self.body_len]
    }

    /// The body as its client has sent it: empty where handlers see an empty object.
    pub(crate) fn sent_body(&self) -> &'a [u8] {
        if self.is_empty() { b"" } else { self.body() }
    }

    /// True if it came without a body.
    pub(crate) fn is_empty(&self) -> bool {
        std::ptr::eq(self.body.as_ptr(), NOTHING.as_ptr())
    }

    /// The body as a JSON value by Pomelo's rule: what is not valid JSON, and `null`, is `{}`.
    #[must_use]
    pub fn value(&self) -> Value {
        let value = surrogate::parse_json(self.body)
            .or_else(|_| surrogate::parse_json(String::from_utf8_lossy(self.body).as_bytes()));
        match value {
            Ok(Value::Null) | Err(_) => Value::Object(serde_json::Map::new()),
            Ok(value) => value,
        }
    }

    /// The body as a type of the game, which may borrow text from it.
    ///
    /// No body, `{}` and `null` are one and the same: an empty object, or nothing where the type
    /// takes no object, as `()` does.
    ///
    /// ```
    /// use serde::Deserialize;
    /// use shaddock::Request;
    ///
    /// #[derive(Deserialize)]
    /// struct Say<'a> {
    ///     #[serde(default)]
    ///     text: &'a str,
    /// }
    ///
    /// let request = Request::new("chat.chatHandler.say", 1, br#"{"text":"hello"}"#);
    /// assert_eq!(request.json::<Say<'_>>()?.text, "hello");
    /// for body in ["", "{}", "null"] {
    ///     let request = Request::new("chat.chatHandler.say", 1, body.as_bytes());
    ///     assert_eq!(request.json::<Say<'_>>()?.text, "");
    ///     request.json::<()>()?;
    /// }
    /// # Ok::<(), serde_json::Error>(())
    /// ```
    ///
    /// JSON writes a quote or a line break in a text as two characters, and `&str` can't borrow
    /// such a text: a field that any player may fill is a `Cow<'a, str>` with `#[serde(borrow)]`,
    /// or a `String`.
    ///
    /// # Errors
    /// The part that does not fit, in the words of `serde_json`.
    pub fn json<T: Deserialize<'a>>(&self) -> Result<T, serde_json::Error> {
        let body = self.body();
        let body = if body.trim_ascii() == b"null" { &NOTHING } else { body };
        serde_json::from_slice(body).or_else(|error| match body == NOTHING {
            true => serde_json::from_slice(b"null").map_err(|_| error),
            false => Err(error),
        })
    }

    /// A copy that outlives the receive buffer.
    ///
    /// ```
    /// use shaddock::Request;
    ///
    /// let request = Request::new("chat.chatHandler.send", 7, br#"{"text":"hi"}"#).to_owned();
    /// assert_eq!(request.get().route(), "chat.chatHandler.send");
    /// assert_eq!(request.value()["text"], "hi");
    /// ```
    #[must_use]
    pub fn to_owned(&self) -> OwnedRequest {
        OwnedRequest {
            route: self.route.into(),
            id: self.id,
            body: match self.is_empty() {
                true => Bytes::from_static(&NOTHING),
                false => Bytes::copy_from_slice(self.body),
            },
        }
    }
}

/// A [`Request`] that owns its bytes, for async handlers.
///
/// ```
/// # use shaddock::{OwnedRequest, Reply, Session};
/// async fn later(request: OwnedRequest, session: Session) -> Reply<'static> {
///     session.context().sleep(std::time::Duration::from_millis(10)).await;
///     match request.json::<(&str, u32)>() {
///         Ok((name, level)) => Reply::json(&format!("{name} is at {level}")),
///         Err(error) => {
///             println!("{} does not take {}: {error}", request.get().route(), request.value());
///             Reply::error()
///         }
///     }
/// }
/// # let _ = shaddock::Engine::builder().async_handler("connector.a.later", later);
/// ```
#[derive(Debug, Clone)]
pub struct OwnedRequest {
    route: Arc<str>,
    id: u32,
    body: Bytes,
}

impl OwnedRequest {
    /// The request itself, with the methods that read it.
    #[must_use]
    pub fn get(&self) -> Request<'_> {
        Request::new(&self.route, self.id, &self.body)
    }

    /// The body's bytes, shared.
    ///
    /// ```
    /// # use shaddock::{OwnedRequest, Reply, Session};
    /// async fn echo(request: OwnedRequest, _session: Session) -> Reply<'static> {
    ///     Reply::shared(request.bytes().clone()) // Nothing is copied.
    /// }
    /// # let _ = shaddock::Engine::builder().async_handler("connector.a.echo", echo);
    /// ```
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.body
    }

    /// See [`Request::value`].
    #[must_use]
    pub fn value(&self) -> Value {
        self.get().value()
    }

    /// See [`Request::json`].
    ///
    /// # Errors
    /// The part that does not fit, in the words of `serde_json`.
    pub fn json<'a, T: Deserialize<'a>>(&'a self) -> Result<T, serde_json::Error> {
        self.get().json()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_json_is_an_empty_object() {
        for body in [&b""[..], b"{\"a\":", b"null", b"zzz"] {
            assert_eq!(Request::new("a.b.c", 1, body).value(), json!({}));
        }
        assert_eq!(Request::new("a.b.c", 1, b"5").value(), json!(5));
        assert_eq!(Request::new("a.b.c", 1, b"\"\xff\"").value(), json!("\u{fffd}"));
    }

    #[test]
    fn a_value_and_a_type_agree_on_null() {
        for body in [&b""[..], b"{}", b"null", b" null\n"] {
            let request = Request::new("a.b.c", 1, body);
            assert_eq!(request.json::<Value>().unwrap(), request.value());
            assert_eq!(request.json::<()>().ok(), Some(()));
            assert_eq!(request.json::<Option<u8>>().unwrap(), None);
            let error = request.json::<[u8; 1]>().unwrap_err().to_string();
            assert!(error.contains("map"), "{error}");
        }
        let request = Request::new("a.b.c", 1, b"{\"a\":1}");
        assert!(request.json::<()>().is_err());
    }

    #[test]
    fn text_is_borrowed_from_the_body() {
        #[derive(Deserialize)]
        struct Say<'a> {
            text: &'a str,
        }
        let body = br#"{"text":"hello"}"#.to_vec();
        let say: Say<'_> = Request::new("a.b.c", 1, &body).json().unwrap();
        assert!(body.as_ptr_range().contains(&say.text.as_ptr()));
        let request = Request::new("a.b.c", 1, &body).to_owned();
        assert_eq!(request.json::<Say<'_>>().unwrap().text, "hello");
    }
}
