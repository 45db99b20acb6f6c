//! A client of an engine under test.

use std::rc::Rc;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::push::Push;
use super::response::Response;
use super::shared::Shared;
use crate::dispatch::Session;
use crate::wire::message::MessageType;

/// A client that is connected to a [`testing::Engine`](super::Engine), its handshake done.
///
/// What it sends is packed and unpacked as a real client's is: with the dictionary and the schemas
/// that the engine's description has. It sends heartbeats by itself as time passes, and reads
/// all that comes at once. It stays connected when it is dropped; see [`Self::close`].
///
/// ```
/// use serde_json::json;
/// use shaddock::{Engine, Reply, testing};
///
/// let t = testing::Engine::new(Engine::builder().handler("connector.a.hello", |request, _| {
///     Reply::json(&json!({ "hello": request.value()["name"] }))
/// }));
/// let amy = t.connect();
/// let answer = amy.request("connector.a.hello", json!({ "name": "Amy" }));
/// assert_eq!(answer, json!({ "hello": "Amy" }));
/// ```
pub struct Client {
    shared: Rc<Shared>,
    /// The place of its connection.
    at: usize,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("number", &self.at).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(shared: Rc<Shared>, at: usize) -> Self {
        Self { shared, at }
    }

    /// Sends a request and waits for its answer. Time stands still meanwhile: for a handler that
    /// sleeps, take [`Self::send_request`] and [`Response::within`]. One that waits for another
    /// thread has [`Setup::patience`](super::Setup::patience).
    ///
    /// # Panics
    /// There is no answer, or none in JSON; the client is closed; the body does not fit its schema.
    #[track_caller]
    pub fn request(&self, route: &str, body: impl Serialize) -> Value {
        self.send_request(route, body).value()
    }

    /// The same with bodies as bytes, which need be no JSON.
    ///
    /// ```
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder().handler("connector.a.len", |request, _| {
    ///     Reply::bytes(request.body().len().to_string())
    /// });
    /// let t = testing::Engine::new(builder);
    /// assert_eq!(t.connect().request_bytes("connector.a.len", [0xff, 0xfe]), b"2");
    /// ```
    ///
    /// # Panics
    /// There is no answer; the client is closed.
    #[track_caller]
    pub fn request_bytes(&self, route: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
        self.send(MessageType::Request, route, body.as_ref()).bytes()
    }

    /// Sends a request whose answer is waited for later, or not at all.
    ///
    /// ```
    /// use std::time::Duration;
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, testing};
    ///
    /// let builder = Engine::builder().async_handler("connector.a.later", async |_, session| {
    ///     session.context().sleep(Duration::from_secs(3)).await;
    ///     Reply::empty()
    /// });
    /// let t = testing::Engine::new(builder);
    /// let answer = t.connect().send_request("connector.a.later", json!({}));
    /// t.advance(Duration::from_millis(2_999));
    /// assert!(!answer.is_there());
    /// t.advance(Duration::from_millis(1));
    /// assert_eq!(answer.value(), json!({}));
    /// ```
    ///
    /// # Panics
    /// The client is closed; the body does not fit its schema.
    #[track_caller]
    pub fn send_request(&self, route: &str, body: impl Serialize) -> Response {
        self.send(MessageType::Request, route, &json(body))
    }

    /// Sends a notify, and runs the engine until it has come to rest.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Audience, Engine, Reply, testing};
    ///
    /// let builder = Engine::builder().handler("connector.a.shout", |request, session| {
    ///     let sent = session.context().broadcast("onShout", request.body(), Audience::all());
    ///     sent.map_or_else(|_| Reply::error(), |()| Reply::empty())
    /// });
    /// let t = testing::Engine::new(builder);
    /// let (amy, bob) = (t.connect(), t.connect());
    /// amy.notify("connector.a.shout", json!({"text": "hi"}));
    /// assert_eq!(bob.pushes()[0].body["text"], "hi");
    /// assert!(bob.pushes().is_empty()); // They were taken.
    /// ```
    ///
    /// # Panics
    /// The client is closed; the body does not fit its schema.
    #[track_caller]
    pub fn notify(&self, route: &str, body: impl Serialize) {
        drop(self.send(MessageType::Notify, route, &json(body)));
    }

    #[track_caller]
    fn send(&self, kind: MessageType, route: &str, body: &[u8]) -> Response {
        let mut world = self.shared.settled();
        let config = Arc::clone(&world.config);
        let socket = world.socket(self.at);
        if socket.is_closed || socket.is_ended {
            panic!("`{route}` can't be sent: {}", socket.ending());
        }
        let id = socket.send_message(kind, route, body, config.edition().protos());
        world.settle();
        Response::new(Rc::clone(&self.shared), self.at, id, route)
    }

    /// Takes the pushes that have come since the last time, in order.
    #[must_use]
    pub fn pushes(&self) -> Vec<Push> {
        self.shared.settled().socket(self.at).take_pushes()
    }

    /// The reason with which the client was kicked, if it was. A kick without a reason only closes
    /// it, as in Pomelo.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.client().uid("amy").connect();
    /// t.handle().kick("amy", Some("too loud"))?;
    /// assert_eq!(amy.kicked().unwrap(), "too loud");
    /// assert!(amy.is_closed());
    /// # Ok::<(), shaddock::HandleError>(())
    /// ```
    #[must_use]
    pub fn kicked(&self) -> Option<String> {
        self.shared.settled().socket(self.at).kick().map(str::to_owned)
    }

    /// True if the connection has been closed, by either side.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        let mut world = self.shared.settled();
        let socket = world.socket(self.at);
        socket.is_closed || socket.is_ended
    }

    /// Closes the connection, as a client does that goes.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.connect();
    /// amy.close();
    /// assert!(amy.is_closed());
    /// assert_eq!(t.counters().closed_by_peer, 1);
    /// ```
    pub fn close(&self) {
        self.shared.settled().socket(self.at).is_ended = true;
        drop(self.shared.settled());
    }

    /// Sends no heartbeats from here on, as a client does whose network is gone.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder().heartbeat(Duration::from_secs(10)));
    /// let amy = t.connect();
    /// amy.stop_heartbeats();
    /// t.advance(Duration::from_secs(30));
    /// assert!(amy.is_closed());
    /// ```
    pub fn stop_heartbeats(&self) {
        self.shared.world().socket(self.at).stop_beats();
    }

    /// The session as a handler of the connector sees it now: uid, settings, number.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder());
    /// let amy = t.client().uid("amy").setting("room", 7).connect();
    /// assert_eq!(amy.session().uid().unwrap().text(), "amy");
    /// assert_eq!(amy.session().get("room").unwrap(), 7);
    /// ```
    ///
    /// # Panics
    /// The session has ended.
    #[must_use]
    #[track_caller]
    pub fn session(&self) -> Session {
        let mut world = self.shared.settled();
        match world.session(self.at) {
            Some(session) => session,
            None => panic!("a session is gone: {}", world.socket(self.at).ending()),
        }
    }

    /// The answer to the client's handshake.
    ///
    /// ```
    /// use std::time::Duration;
    /// use shaddock::{Engine, testing};
    ///
    /// let t = testing::Engine::new(Engine::builder().heartbeat(Duration::from_secs(10)));
    /// assert_eq!(t.connect().handshake()["sys"]["heartbeat"], 10);
    /// ```
    #[must_use]
    pub fn handshake(&self) -> Value {
        self.shared.world().socket(self.at).handshake().cloned().unwrap_or_default()
    }
}

#[track_caller]
fn json(body: impl Serialize) -> Vec<u8> {
    serde_json::to_vec(&body).unwrap_or_else(|error| panic!("a body can't be JSON: {error}"))
}
