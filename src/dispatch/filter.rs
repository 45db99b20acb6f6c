//! Code that runs before and after handlers.

use super::reply::{LocalFuture, Reply};
use super::request::Request;
use super::session::Session;

/// A filter: `before` and `after` of Pomelo, either of which may be left out.
///
/// Its place depends on the way it is registered (docs/protocol/sessions.md, "Filters"):
///
/// | registered by | runs on | order |
/// |---|---|---|
/// | `global_filter` | the connector, for every message | before: registration, after: reverse |
/// | `filter` | where the message is handled | before: registration, after: reverse |
///
/// Global after filters run once the answer is on its way and can't change it any more. A panic in
/// a filter answers the message with 500 and hurts nobody else.
///
/// A closure that looks at messages before they are handled is a filter, too:
///
/// ```
/// use shaddock::{Engine, Reply, Request, Session, Verdict};
///
/// let builder = Engine::builder().global_filter(|| {
///     |request: &Request<'_>, session: &mut Session| {
///         let is_login = request.route() == "connector.entryHandler.login";
///         match is_login || session.uid().is_some() {
///             true => Verdict::Continue,
///             false => Verdict::Refuse(Reply::error_json("log in first")),
///         }
///     }
/// });
/// ```
///
/// One that looks at replies as well implements the trait:
///
/// ```
/// use shaddock::{Engine, Filter, Reply, Request, Session, Verdict};
///
/// struct Trace;
///
/// impl Filter for Trace {
///     fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
///         println!("{} asks {}", session.number(), request.route());
///         Verdict::Continue
///     }
///
///     fn after(&self, request: &Request<'_>, _: &mut Session, reply: &mut Reply<'_>) {
///         if reply.is_error() {
///             println!("{} has failed", request.route());
///         }
///     }
/// }
///
/// let builder = Engine::builder().filter(|| Trace);
/// ```
pub trait Filter: 'static {
    /// Looks at a message before it is handled.
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        let _ = (request, session);
        Verdict::Continue
    }

    /// Looks at a reply, also at that of a message that was refused.
    fn after(&self, request: &Request<'_>, session: &mut Session, reply: &mut Reply<'_>) {
        let _ = (request, session, reply);
    }
}

impl<F> Filter for F
where
    F: Fn(&Request<'_>, &mut Session) -> Verdict + 'static,
{
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        self(request, session)
    }
}

/// The verdict of a before filter.
#[non_exhaustive]
pub enum Verdict {
    /// On to the next filter, or the handler.
    Continue,
    /// No further: this is the reply. Its being an error is up to the filter.
    Refuse(Reply<'static>),
    /// The filter has to wait, and then says one of the others.
    Wait(LocalFuture<Self>),
}

impl Verdict {
    /// A verdict that comes later, on the same thread.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, Request, Session, Verdict, testing};
    ///
    /// // Guests wait a little.
    /// let builder = Engine::builder()
    ///     .handler("connector.entry.hello", |_, _| Reply::json("hello"))
    ///     .filter(|| {
    ///         |_: &Request<'_>, session: &mut Session| match session.uid() {
    ///             Some(_) => Verdict::Continue,
    ///             None => {
    ///                 let context = session.context();
    ///                 Verdict::wait(async move {
    ///                     context.sleep(Duration::from_millis(100)).await;
    ///                     Verdict::Continue
    ///                 })
    ///             }
    ///         }
    ///     });
    /// let t = testing::Engine::new(builder);
    /// let answer = t.connect().send_request("connector.entry.hello", json!({}));
    /// assert!(!answer.is_there());
    /// assert_eq!(answer.within(Duration::from_secs(1)), "hello");
    /// let amy = t.client().uid("amy").connect();
    /// assert_eq!(amy.request("connector.entry.hello", json!({})), "hello");
    /// ```
    pub fn wait(future: impl Future<Output = Self> + 'static) -> Self {
        Self::Wait(Box::pin(future))
    }
}

impl std::fmt::Debug for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Continue => f.write_str("Continue"),
            Self::Refuse(reply) => f.debug_tuple("Refuse").field(reply).finish(),
            Self::Wait(_) => f.write_str("Wait"),
        }
    }
}
