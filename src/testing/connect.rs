//! The description of a client, and its handshake.

use std::net::SocketAddr;
use std::rc::Rc;

use serde::Serialize;
use serde_json::{Value, json};

use super::client::Client;
use super::shared::Shared;
use crate::session::Uid;
use crate::wire::handshake::CODE_OK;

/// Describes a client, and connects it; made by [`Engine::client`](super::Engine::client).
///
/// ```
/// use serde_json::json;
/// use shaddock::{Engine, testing};
///
/// let t = testing::Engine::new(Engine::builder().address_setting("ip"));
/// let amy = t
///     .client()
///     .version("unity", "2.0")
///     .user(json!({"language": "de"}))
///     .peer("203.0.113.7:40000".parse().unwrap())
///     .uid("amy")
///     .setting("team", "red")
///     .connect();
/// assert_eq!(amy.session().get("ip").unwrap(), "203.0.113.7");
/// assert_eq!(amy.session().get("team").unwrap(), "red");
/// ```
#[must_use = "a client is connected by `connect`"]
pub struct Connect {
    shared: Rc<Shared>,
    peer: Option<SocketAddr>,
    sys: Value,
    user: Value,
    uid: Option<Uid>,
    settings: Vec<(String, Value)>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect")
            .field("uid", &self.uid)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// A client's refusal: by its handshake's answer, or without one.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Refused {
    /// The answer to the handshake, with its `code`; `None` where the client was turned away
    /// before.
    pub answer: Option<Value>,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.answer {
            Some(answer) => write!(f, "the handshake was answered {answer}"),
            None => f.write_str("the client was closed before its handshake was answered"),
        }
    }
}

impl std::error::Error for Refused {}

impl Connect {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        Self {
            shared,
            peer: None,
            sys: json!({ "type": "shaddock-testing", "version": env!("CARGO_PKG_VERSION") }),
            user: json!({}),
            uid: None,
            settings: Vec::new(),
        }
    }

    /// Binds the session to a uid once it is connected, as a login would.
    pub fn uid(mut self, uid: impl Into<Uid>) -> Self {
        self.uid = Some(uid.into());
        self
    }

    /// Writes a setting of the session once it is connected.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// The value that the client sends as `user` in its handshake; `{}` by default.
    ///
    /// # Panics
    /// It can't be written as JSON.
    #[track_caller]
    pub fn user(mut self, user: impl Serialize) -> Self {
        self.user = serde_json::to_value(user)
            .unwrap_or_else(|error| panic!("`user` can't be JSON: {error}"));
        self
    }

    /// The type and version of the client, at which
    /// [`Builder::check_client`](crate::Builder::check_client) looks.
    pub fn version(mut self, kind: impl Into<String>, version: impl Into<String>) -> Self {
        self.sys = json!({ "type": kind.into(), "version": version.into() });
        self
    }

    /// The address that the client connects from; one of its own on 127.0.0.1 by default.
    pub fn peer(mut self, peer: SocketAddr) -> Self {
        self.peer = Some(peer);
        self
    }

    /// Connects the client.
    ///
    /// # Panics
    /// It is refused; the uid can't be bound; the engine has been drained.
    #[track_caller]
    pub fn connect(self) -> Client {
        match self.try_connect() {
            Ok(client) => client,
            Err(refused) => panic!("a client can't connect: {refused}"),
        }
    }

    /// Connects a client that may be refused.
    ///
    /// ```
    /// use shaddock::{Engine, testing};
    ///
    /// let builder = Engine::builder().check_client(|_, version| version == Some("2"));
    /// let t = testing::Engine::new(builder);
    /// let refused = t.client().version("unity", "1").try_connect().unwrap_err();
    /// assert_eq!(refused.answer.unwrap()["code"], 501);
    /// assert!(t.client().version("unity", "2").try_connect().is_ok());
    /// ```
    ///
    /// # Errors
    /// The client is refused.
    ///
    /// # Panics
    /// The uid can't be bound; the engine has been drained.
    #[track_caller]
    pub fn try_connect(self) -> Result<Client, Refused> {
        let Self { shared, peer, sys, user, uid, settings } = self;
        let at = shared.settled().connect(peer);
        shared.world().socket(at).send_handshake(&sys, &user);
        let answer = || {
            let mut world = shared.world();
            let socket = world.socket(at);
            let is_done = socket.handshake().is_some() || socket.is_closed;
            is_done.then(|| socket.handshake().cloned())
        };
        let answer = shared.wait(answer, |world| world.has_futures()).flatten();
        if answer.as_ref().is_none_or(|answer| answer["code"] != CODE_OK) {
            return Err(Refused { answer });
        }
        drop(shared.settled());
        let client = Client::new(Rc::clone(&shared), at);
        let mut session = client.session();
        if !settings.is_empty() {
            settings.into_iter().for_each(|(name, value)| session.set(name, value));
            drop(session.push_all());
        }
        if let Some(uid) = uid {
            let text = uid.text().to_owned();
            match shared.block_on(session.bind(uid)) {
                Some(Ok(())) => {}
                Some(Err(error)) => panic!("a client can't be bound to `{text}`: {error}"),
                None => panic!("a client can't be bound to `{text}`: nobody answers"),
            }
        }
        drop(shared.settled());
        Ok(client)
    }
}
