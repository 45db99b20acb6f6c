//! Handshakes, as the embedder's code sees them: who may come in, and with what.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{self, Poll, Waker};

use serde_json::Value;

use super::chain::{guarded, guarded_uncounted};
use super::context::Context;
use super::reply::LocalFuture;
use super::verdict::{Admitted, Refusal};
use crate::metrics::Counters;
use crate::session::SessionId;
use crate::wire::handshake::HandshakeRequest;
use crate::wire::http::Headers;

/// A client's handshake, before it is answered.
///
/// See [`Builder::on_handshake`](crate::Builder::on_handshake) and
/// [`Builder::user_handshake`](crate::Builder::user_handshake).
///
/// ```
/// use shaddock::{Engine, Handshake, Refusal, Welcome};
///
/// fn admit(handshake: &Handshake) -> Result<Welcome, Refusal> {
///     if handshake.client_type() == Some("unity") && handshake.version() == Some("0.9") {
///         return Err(Refusal::code(501).text("please update"));
///     }
///     let user = handshake.user().and_then(|user| user["name"].as_str());
///     let name = user.or(handshake.header("x-name")).ok_or(Refusal::code(401))?;
///     Ok(Welcome::new().setting("name", name).setting("from", handshake.peer().ip().to_string()))
/// }
///
/// let builder = Engine::builder().user_handshake(admit);
/// ```
pub struct Handshake {
    pub(crate) request: Rc<HandshakeRequest>,
    pub(crate) headers: Option<Headers>,
    pub(crate) session: SessionId,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: usize,
    pub(crate) context: Context,
}

impl std::fmt::Debug for Handshake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handshake")
            .field("session", &self.session)
            .field("peer", &self.peer)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl Handshake {
    /// `user`: any value that the game's client has sent.
    #[must_use]
    pub fn user(&self) -> Option<&Value> {
        self.request.user.as_ref()
    }

    /// The client's type: `sys.type`, or `sys.platform` of Pitaya's clients.
    #[must_use]
    pub fn client_type(&self) -> Option<&str> {
        self.request.sys_type.as_deref()
    }

    /// The version of the client's library: `sys.version`, or `sys.libVersion` of Pitaya's clients.
    #[must_use]
    pub fn version(&self) -> Option<&str> {
        self.request.version.as_deref()
    }

    /// The whole request.
    ///
    /// ```
    /// use shaddock::{Handshake, Refusal, Welcome};
    ///
    /// fn admit(handshake: &Handshake) -> Result<Welcome, Refusal> {
    ///     let told = handshake.request().sys("language").and_then(|told| told.as_str());
    ///     Ok(Welcome::new().setting("language", told.unwrap_or("en")))
    /// }
    /// # let _ = shaddock::Engine::builder().user_handshake(admit);
    /// ```
    #[must_use]
    pub fn request(&self) -> &HandshakeRequest {
        &self.request
    }

    /// A header of the HTTP request that has opened the client's WebSocket, the first of that name
    /// in any case. `None` for clients by TCP, and for a value that is not UTF-8.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let value = self.headers.as_ref()?.values(name).next()?;
        std::str::from_utf8(value).ok()
    }

    /// The address that the client connects from; behind a trusted proxy the one that the proxy
    /// tells of.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The listener that the client has come in by: its place, from 0, in the order in which they
    /// were given to [`Builder::listen`](crate::Builder::listen), and among the addresses of
    /// [`Engine::local_addrs`](crate::Engine::local_addrs).
    ///
    /// ```
    /// use shaddock::{Engine, Refusal, Welcome};
    ///
    /// let builder = Engine::builder()
    ///     .listen("0.0.0.0:3010")
    ///     .listen("10.0.0.1:3012") // Of the game's staff.
    ///     .user_handshake(|handshake| match (handshake.listener(), handshake.header("x-staff")) {
    ///         (1, None) => Err(Refusal::code(403)),
    ///         (listener, _) => Ok(Welcome::new().setting("isStaff", listener == 1)),
    ///     });
    /// ```
    #[must_use]
    pub fn listener(&self) -> usize {
        self.listener
    }

    /// The id of the session that this is to become. It can be pushed to once it works; see
    /// [`Handlers::on_session_opened`](crate::Handlers::on_session_opened).
    #[must_use]
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// The shard that this code runs on.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, Welcome, testing};
    ///
    /// let builder = Engine::builder().user_handshake(|handshake| {
    ///     let (player, context) = (handshake.session(), handshake.context());
    ///     handshake.context().spawn(async move {
    ///         context.sleep(Duration::from_secs(60)).await;
    ///         context.send(player, "onHint", r#"{"text":"press space"}"#).ok();
    ///     });
    ///     Ok(Welcome::new())
    /// });
    /// let t = testing::Engine::new(builder);
    /// let amy = t.connect();
    /// t.advance(Duration::from_secs(60));
    /// assert_eq!(amy.pushes()[0].route, "onHint");
    /// ```
    #[must_use]
    pub fn context(&self) -> Context {
        self.context.clone()
    }
}

/// The embedder's code that admits clients.
#[derive(Clone)]
pub(crate) enum HandshakeCheck {
    Now(Arc<dyn Fn(&Handshake) -> Admitted + Send + Sync>),
    Later(Arc<dyn Fn(Handshake) -> LocalFuture<Admitted> + Send + Sync>),
}

/// The future of a handshake whose client waits. Dropped with this, wherever it stands.
pub(crate) struct Admission {
    shared: Rc<RefCell<Shared>>,
}

/// The other end of an [`Admission`], to be run as a task. `None` where nobody waits any more.
pub(crate) struct AdmissionTask {
    shared: Rc<RefCell<Shared>>,
}

struct Shared {
    counters: Arc<Counters>,
    future: Option<LocalFuture<Admitted>>,
    waker: Option<Waker>,
    is_dropped: bool,
}

impl Admission {
    pub(crate) fn new(
        future: LocalFuture<Admitted>,
        counters: Arc<Counters>,
    ) -> (Self, AdmissionTask) {
        let shared = Shared { counters, future: Some(future), waker: None, is_dropped: false };
        let shared = Rc::new(RefCell::new(shared));
        (Self { shared: Rc::clone(&shared) }, AdmissionTask { shared })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let (future, waker) = {
            let mut shared = self.shared.borrow_mut();
            shared.is_dropped = true;
            (shared.future.take(), shared.waker.take())
        };
        // Code of the embedder's may run by that.
        guarded_uncounted("on_handshake", || drop(future));
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Future for AdmissionTask {
    type Output = Option<Admitted>;

    fn poll(self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let future = self.shared.borrow_mut().future.take();
        let Some(mut future) = future else { return Poll::Ready(None) };
        let counters = Arc::clone(&self.shared.borrow().counters);
        match guarded("on_handshake", &counters, || future.as_mut().poll(context)) {
            Some(Poll::Ready(admitted)) => Poll::Ready(Some(admitted)),
            None => Poll::Ready(Some(Err(Refusal::new()))),
            Some(Poll::Pending) => {
                let mut shared = self.shared.borrow_mut();
                if shared.is_dropped {
                    return Poll::Ready(None);
                }
                (shared.future, shared.waker) = (Some(future), Some(context.waker().clone()));
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(task: &mut AdmissionTask) -> Poll<Option<Admitted>> {
        Pin::new(task).poll(&mut task::Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_future_goes_with_its_admission() {
        let alive = Rc::new(());
        let held = Rc::clone(&alive);
        let (admission, mut task) = Admission::new(
            Box::pin(async move {
                let _held = held;
                std::future::pending().await
            }),
            Arc::default(),
        );
        assert_eq!(poll(&mut task), Poll::Pending);
        assert_eq!(Rc::strong_count(&alive), 2);
        drop(admission);
        assert_eq!(Rc::strong_count(&alive), 1);
        assert_eq!(poll(&mut task), Poll::Ready(None));
    }

    #[test]
    fn a_future_that_panics_refuses() {
        let counters = Arc::<Counters>::default();
        let future = Box::pin(async { panic!("on purpose") });
        let (_admission, mut task) = Admission::new(future, Arc::clone(&counters));
        assert_eq!(poll(&mut task), Poll::Ready(Some(Err(Refusal::new()))));
        assert_eq!(counters.callback_panics.value(), 1);
    }
}
