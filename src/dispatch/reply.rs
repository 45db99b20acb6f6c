//! The reply of a handler, and the answer that its client gets of it.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;

use super::at_end::AtEnd;
use super::codes::FailureBodies;
use super::failure::Failure;
use super::written::Written;
use crate::wire::truthy::is_truthy;

/// A future on one thread.
pub(crate) type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// A handler's outcome: `next(err, resp)` in Pomelo.
///
/// The client gets of it (docs/protocol/sessions.md, "Answer rules"):
///
/// | outcome | client gets |
/// |---|---|
/// | nothing, `null`, `0`, `""`, `false` | `{}` |
/// | a body | the body |
/// | an error and an object without `code` | the object with `code: 500` |
/// | an error and any other body | the body |
/// | an error without a body | `{"code":500}` |
/// | a panic | `{"code":500}`, or as [`Codes`](crate::Codes) say |
///
/// A notify gets nothing, whatever its handler says. No error text ever reaches a client.
#[derive(Debug)]
#[must_use = "a reply does nothing until the handler returns it"]
pub struct Reply<'a> {
    pub(crate) body: ReplyBody<'a>,
    pub(crate) failed: bool,
}

pub(crate) enum ReplyBody<'a> {
    None,
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
    /// In memory that the next reply of the thread gets.
    Written(Written),
    Shared(Bytes),
    Later(Later),
    /// None, as the engine itself could not do what was asked.
    Failed(Failure),
}

/// A reply that comes later.
pub(crate) struct Later {
    pub(crate) future: LocalFuture<Reply<'static>>,
    pub(crate) at_end: AtEnd,
}

impl std::fmt::Debug for ReplyBody<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.bytes() {
            Some(bytes) => write!(f, "{:?}", String::from_utf8_lossy(bytes)),
            None if matches!(self, Self::Later(_)) => f.write_str("later"),
            None => f.write_str("none"),
        }
    }
}

impl ReplyBody<'_> {
    #[inline]
    pub(crate) fn bytes(&self) -> Option<&[u8]> {
        match self {
            // The quickest handlers answer so: a jump by all cases is more than this one.
            Self::Borrowed(bytes) => Some(bytes),
            _ => self.kept(),
        }
    }

    #[inline(never)]
    fn kept(&self) -> Option<&[u8]> {
        match self {
            Self::None | Self::Later(_) | Self::Failed(_) => None,
            Self::Borrowed(bytes) => Some(bytes),
            Self::Owned(bytes) => Some(bytes),
            Self::Written(bytes) => Some(bytes),
            Self::Shared(bytes) => Some(bytes),
        }
    }
}

/// The body of an error without a body that is a handler's own.
pub(crate) const INTERNAL_ERROR: &[u8] = b"{\"code\":500}";

impl<'a> Reply<'a> {
    /// No body; the client gets `{}`.
    ///
    /// ```
    /// # use shaddock::Reply;
    /// let reply = Reply::empty();
    /// assert!(reply.body().is_none() && !reply.is_error());
    /// ```
    pub fn empty() -> Self {
        Self { body: ReplyBody::None, failed: false }
    }

    /// A body that is JSON text already, such as the request's own.
    ///
    /// ```
    /// # use shaddock::{Engine, Reply};
    /// let builder = Engine::builder()
    ///     .handler("connector.a.echo", |request, _| Reply::borrowed(request.body()));
    /// ```
    pub fn borrowed(body: &'a [u8]) -> Self {
        Self { body: ReplyBody::Borrowed(body), failed: false }
    }

    /// A body that is JSON text already.
    ///
    /// ```
    /// # use shaddock::Reply;
    /// let reply = Reply::bytes(r#"{"code":200}"#);
    /// assert_eq!(reply.body(), Some(&br#"{"code":200}"#[..]));
    /// ```
    pub fn bytes(body: impl Into<Vec<u8>>) -> Self {
        Self { body: ReplyBody::Owned(body.into()), failed: false }
    }

    /// A body that others hold too.
    ///
    /// ```
    /// use shaddock::{Engine, Reply, bytes::Bytes};
    ///
    /// // Read once, for all clients.
    /// let level = Bytes::from_static(br#"{"walls":[]}"#);
    /// let builder = Engine::builder()
    ///     .handler("connector.level.read", move |_, _| Reply::shared(level.clone()));
    /// ```
    pub fn shared(body: Bytes) -> Self {
        Self { body: ReplyBody::Shared(body), failed: false }
    }

    /// A body to be written as JSON. A value that can't be (a map whose keys are no text) makes
    /// an error without a body. The memory it is written to is used again for the next reply.
    ///
    /// ```
    /// # use shaddock::Reply;
    /// let reply = Reply::json(&("amy", 7));
    /// assert_eq!(reply.body(), Some(&br#"["amy",7]"#[..]));
    /// ```
    pub fn json<T: Serialize + ?Sized>(body: &T) -> Self {
        match Written::by(|out| serde_json::to_writer(out, body)) {
            Ok(body) => Self { body: ReplyBody::Written(body), failed: false },
            Err(error) => {
                crate::log::seldom!(warn, %error, "a reply can't be written as JSON");
                Self::error()
            }
        }
    }

    /// An error without a body; the client gets `{"code":500}`.
    ///
    /// ```
    /// # use shaddock::Reply;
    /// assert!(Reply::error().is_error());
    /// ```
    pub fn error() -> Self {
        Self { body: ReplyBody::None, failed: true }
    }

    /// An error of the engine's own; to a handler, an error without a body.
    pub(crate) fn failure(failure: Failure) -> Self {
        Self { body: ReplyBody::Failed(failure), failed: true }
    }

    /// An error with a body; see the table above for what becomes of `code`.
    ///
    /// ```
    /// # use shaddock::Reply;
    /// let reply = Reply::error_json(&serde_json::json!({ "code": 404, "msg": "no room" }));
    /// assert!(reply.is_error());
    /// assert_eq!(reply.body(), Some(&br#"{"code":404,"msg":"no room"}"#[..]));
    /// ```
    pub fn error_json<T: Serialize + ?Sized>(body: &T) -> Self {
        Self { failed: true, ..Self::json(body) }
    }

    /// The reply of a future that runs on the handler's own thread. It is owed: where the engine
    /// stops meanwhile its drain waits for it, within its time, even if the client has gone.
    ///
    /// ```
    /// # use shaddock::{Handlers, Reply};
    /// # fn register(handlers: &mut Handlers) {
    /// handlers.handler("connector.a.maybe", |request, session| {
    ///     if request.body().is_empty() {
    ///         return Reply::error();
    ///     }
    ///     let context = session.context();
    ///     Reply::later(async move {
    ///         context.sleep(std::time::Duration::from_secs(1)).await;
    ///         Reply::empty()
    ///     })
    /// });
    /// # }
    /// ```
    pub fn later(future: impl Future<Output = Reply<'static>> + 'static) -> Self {
        Self::later_at_end(future, AtEnd::Wait)
    }

    /// The same of one for which a drain waits, or not.
    pub(super) fn later_at_end(
        future: impl Future<Output = Reply<'static>> + 'static,
        at_end: AtEnd,
    ) -> Self {
        let later = Later { future: Box::pin(future), at_end };
        Self { body: ReplyBody::Later(later), failed: false }
    }

    /// The fate of a reply that comes later when the engine stops.
    pub(crate) fn at_end(&self) -> AtEnd {
        match &self.body {
            ReplyBody::Later(later) => later.at_end,
            _ => AtEnd::Drop,
        }
    }

    /// True if the handler failed. Not yet known of a reply that comes later.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.failed
    }

    /// The body's JSON text, before the rules above apply.
    #[must_use]
    pub fn body(&self) -> Option<&[u8]> {
        self.body.bytes()
    }

    /// The body, if it is one.
    #[inline]
    pub(crate) fn spoken(&self) -> Option<&[u8]> {
        self.body.bytes().filter(|body| !is_falsy(body))
    }

    /// The reason why the engine has answered by itself, if it has and there is more to say.
    pub(crate) fn failure_kind(&self) -> Option<Failure> {
        match self.body {
            ReplyBody::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    /// The text that answers a request.
    pub(crate) fn text<'t>(&'t self, failures: &'t FailureBodies) -> Cow<'t, [u8]> {
        match (self.failed, self.spoken()) {
            (false, None) => Cow::Borrowed(b"{}"),
            (false, Some(body)) => Cow::Borrowed(body),
            (true, None) => Cow::Borrowed(match self.failure_kind() {
                None => INTERNAL_ERROR,
                Some(failure) => failures.of(failure),
            }),
            (true, Some(body)) => with_code(body),
        }
    }

    /// The same without a borrowed body; a reply that comes later must have come.
    pub(crate) fn into_owned(self) -> Reply<'static> {
        let body = match self.body {
            ReplyBody::Borrowed(body) => ReplyBody::Owned(body.to_vec()),
            ReplyBody::Owned(body) => ReplyBody::Owned(body),
            ReplyBody::Written(body) => ReplyBody::Owned(body.to_vec()),
            ReplyBody::Shared(body) => ReplyBody::Shared(body),
            ReplyBody::None => ReplyBody::None,
            ReplyBody::Later(later) => ReplyBody::Later(later),
            ReplyBody::Failed(failure) => ReplyBody::Failed(failure),
        };
        Reply { body, failed: self.failed }
    }
}

/// True if JSON text is a value that JavaScript takes for nothing.
#[inline]
fn is_falsy(text: &[u8]) -> bool {
    text.len() <= 5 && matches!(text, b"" | b"null" | b"0" | b"-0" | b"\"\"" | b"false")
}

/// Adds `code: 500` to an object that has none.
fn with_code(body: &[u8]) -> Cow<'_, [u8]> {
    let Ok(Value::Object(mut object)) = serde_json::from_slice(body) else {
        return Cow::Borrowed(body);
    };
    if object.get("code").is_some_and(is_truthy) {
        return Cow::Borrowed(body);
    }
    object.insert("code".into(), 500.into());
    Cow::Owned(serde_json::to_vec(&object).expect("what was JSON can be written as JSON"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dispatch::codes::Codes;

    fn text(reply: &Reply<'_>) -> String {
        text_by(&Codes::pomelo(), reply)
    }

    fn text_by(codes: &Codes, reply: &Reply<'_>) -> String {
        let failures = FailureBodies::new(codes);
        String::from_utf8(reply.text(&failures).into_owned()).unwrap()
    }

    #[test]
    fn an_answer_of_the_engine_has_the_code_of_its_cause() {
        let codes = Codes::http().panicked(599);
        for (failure, code) in [
            (Failure::BadRoute, 404),
            (Failure::NoHandler, 404),
            (Failure::NoServerType, 404),
            (Failure::NoServer, 503),
            (Failure::TimedOut, 504),
            (Failure::RateLimited, 429),
            (Failure::Busy, 503),
            (Failure::Panicked, 599),
        ] {
            let reply = Reply::failure(failure);
            assert_eq!(text_by(&codes, &reply), format!("{{\"code\":{code}}}"));
            assert_eq!(text(&reply), "{\"code\":500}");
        }
        assert_eq!(text_by(&codes, &Reply::error()), "{\"code\":500}", "a handler's own");
    }

    /// Each row of the table at [`Reply`].
    #[test]
    fn answer_rules() {
        assert_eq!(text(&Reply::empty()), "{}");
        for falsy in ["", "null", "0", "\"\"", "false"] {
            assert_eq!(text(&Reply::bytes(falsy)), "{}");
        }
        assert_eq!(text(&Reply::bytes("\"hello\"")), "\"hello\"");
        assert_eq!(text(&Reply::error()), "{\"code\":500}");
        assert_eq!(text(&Reply::failure(Failure::TimedOut)), "{\"code\":500}");
        assert_eq!(text(&Reply::error_json(&json!({"a": 1}))), "{\"a\":1,\"code\":500}");
        assert_eq!(text(&Reply::error_json(&json!({"code": 777}))), "{\"code\":777}");
        assert_eq!(
            text(&Reply::error_json(&json!({"code": 0, "b": 1}))),
            "{\"code\":500,\"b\":1}",
            "a falsy code is replaced where it stands"
        );
        assert_eq!(text(&Reply::error_json("text")), "\"text\"");
    }
}
