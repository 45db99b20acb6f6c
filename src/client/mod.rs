//! A client for servers that speak Pomelo's protocol, for tests, bots and tools; feature `client`.
//!
//! It speaks TCP, WebSocket and (with the feature `tls`) both inside TLS, uses the dictionary and
//! the schemas that the server tells in its handshake, and keeps the heartbeat. It needs neither
//! the engine nor a runtime: `default-features = false, features = ["client"]` is all of it, and
//! its futures may be awaited on any executor, be it tokio, smol, glommio or [`block_on`]. All
//! sockets of the process are served by one thread, which begins with the first client and ends
//! behind the last.
//!
//! ```no_run
//! use serde_json::{Value, json};
//! use shaddock::client::{self, Client};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! client::block_on(async {
//!     let client = Client::connect("ws://127.0.0.1:3010").await?;
//!     let answer = client.request("connector.entryHandler.entry", &json!({"uid": "amy"})).await?;
//!     println!("{}", answer.json::<Value>()?);
//!     while let Some(push) = client.next_push().await {
//!         println!("{}: {}", push.route(), push.json::<Value>()?);
//!     }
//!     println!("the end: {}", client.closed().await);
//!     Ok(())
//! })
//! # }
//! ```
//!
//! Everything has a bound, see [`Options`]. A program with a loop of its own, or with sockets of
//! another kind, drives [`Protocol`] instead: the same client without the socket.
//!
//! It does not speak Pitaya's dialect, and does not sign requests.

mod address;
mod connection;
mod error;
mod executor;
mod handshake;
mod inbox;
mod message;
mod options;
mod pending;
mod protocol;
mod reactor;
mod shared;
mod tables;
#[cfg(feature = "tls")]
mod tls;
mod websocket;

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use mio::Token;
use serde::Serialize;
use serde_json::Value;

use self::address::Address;
use self::connection::Connection;
use self::protocol::later;
use self::reactor::Reactor;
use self::shared::Shared;

pub use self::address::AddressError;
pub use self::error::{Closed, ConnectError, Fault, RequestError};
pub use self::executor::block_on;
pub use self::message::{Answer, Push};
pub use self::options::Options;
pub use self::protocol::{Event, Protocol};
pub use self::tables::Tables;
#[cfg(feature = "tls")]
pub use self::tls::{Trust, TrustError};
/// The library whose configuration a [`Trust`] may be made from.
#[cfg(feature = "tls")]
pub use rustls;

/// A connection to a server whose handshake is done.
///
/// Clones are the same connection, for several tasks. It is closed when the last of them is
/// dropped.
#[derive(Clone)]
pub struct Client(Arc<Connected>);

/// The program's side of a connection.
struct Connected {
    shared: Arc<Shared>,
    reactor: Arc<Reactor>,
    token: Token,
    request_timeout: Duration,
}

impl Options {
    /// Connects as [`Client::connect`] does, with these options.
    ///
    /// # Errors
    /// Those of [`Client::connect`].
    pub async fn connect(self, address: impl fmt::Display) -> Result<Client, ConnectError> {
        connect(self, &address.to_string())?.await.map_err(ConnectError::Closed)
    }
}

impl Client {
    /// Connects to a server and shakes hands, with the default [`Options`].
    ///
    /// `address` is `HOST:PORT`, or one of
    ///
    /// | | transport | port, if left out |
    /// |---|---|---|
    /// | `tcp://HOST:PORT` | packages over TCP, as without a scheme | |
    /// | `tls://HOST:PORT` | packages in TLS | |
    /// | `ws://HOST:PORT/PATH` | a WebSocket | 80 |
    /// | `wss://HOST:PORT/PATH` | a WebSocket in TLS | 443 |
    ///
    /// A name that has to be looked up is so on a thread of its own. `tls` and `wss` need the
    /// feature `tls`, and `Options::trust`.
    ///
    /// # Errors
    /// [`ConnectError`]; after [`Options::connect_timeout`] at the latest.
    ///
    /// # Examples
    /// ```
    /// use shaddock::client::{self, Client, ConnectError};
    ///
    /// let refused = client::block_on(Client::connect("gopher://127.0.0.1:70"));
    /// assert!(matches!(refused, Err(ConnectError::Address(_))));
    /// ```
    pub async fn connect(address: impl fmt::Display) -> Result<Self, ConnectError> {
        Options::new().connect(address).await
    }

    /// Sends a request, now, and gives the future of its answer.
    ///
    /// Any number of requests may be under way, and their answers may come in another order. A
    /// future that is dropped forgets the answer; the request is sent all the same. `body` is
    /// sent as JSON, or by the schema of its route if the server has told one.
    ///
    /// # Errors
    /// The future's are [`RequestError`]. An answer with a `code` of an error is an answer.
    ///
    /// # Examples
    /// ```no_run
    /// # use shaddock::client::{Client, RequestError};
    /// # async fn both(client: &Client) -> Result<(), RequestError> {
    /// let [first, second] = [1, 2].map(|n| client.request("room.roomHandler.enter", &n));
    /// println!("{:?} {:?}", first.await?, second.await?);
    /// # Ok(())
    /// # }
    /// ```
    pub fn request(&self, route: &str, body: &(impl Serialize + ?Sized)) -> Request {
        self.request_within(self.0.request_timeout, route, body)
    }

    /// [`Self::request`] with another time within which it has to be answered.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use shaddock::client::{Client, RequestError};
    /// # async fn ping(client: &Client) -> Result<(), RequestError> {
    /// client.request_within(Duration::from_millis(500), "room.roomHandler.ping", &()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`Self::request`].
    pub fn request_within(
        &self,
        timeout: Duration,
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Request {
        let sent = json(body).and_then(|body| {
            let deadline = later(Instant::now(), timeout);
            self.0.act(|state| state.request(route, &body, deadline))
        });
        Request { shared: Arc::clone(&self.0.shared), state: RequestState::from(sent) }
    }

    /// Sends a notify, which has no answer.
    ///
    /// # Errors
    /// [`RequestError`]; nothing was sent. That a notify was sent does not tell that it arrives.
    ///
    /// # Examples
    /// ```no_run
    /// # use serde_json::json;
    /// # use shaddock::client::{Client, RequestError};
    /// # fn steer(client: &Client) -> Result<(), RequestError> {
    /// client.notify("room.roomHandler.steer", &json!({"x": 1, "y": -1}))
    /// # }
    /// ```
    pub fn notify(
        &self,
        route: &str,
        body: &(impl Serialize + ?Sized),
    ) -> Result<(), RequestError> {
        let body = json(body)?;
        self.0.act(|state| state.notify(route, &body))
    }

    /// The next push, in the order in which they came; `None` if the connection is over and all
    /// were taken. Several tasks that wait share the pushes.
    ///
    /// Pushes that nobody takes are dropped, the oldest first, where they take more than
    /// [`Options::inbox_bytes_max`].
    ///
    /// ```no_run
    /// # use shaddock::client::Client;
    /// # async fn listen(client: &Client) {
    /// println!("the server's word: {:?}", client.user());
    /// while let Some(push) = client.next_push().await {
    ///     println!("{}", push.route());
    /// }
    /// # }
    /// ```
    pub async fn next_push(&self) -> Option<Push> {
        poll_fn(|cx| self.poll_push(cx)).await
    }

    /// [`Self::next_push`] by a poll, to make a stream of any library's kind.
    ///
    /// ```no_run
    /// # use shaddock::client::{Client, Push};
    /// use futures_lite::stream::{self, Stream};
    ///
    /// fn pushes(client: Client) -> impl Stream<Item = Push> {
    ///     stream::poll_fn(move |cx| client.poll_push(cx))
    /// }
    /// ```
    pub fn poll_push(&self, cx: &mut Context<'_>) -> Poll<Option<Push>> {
        self.0.shared.with(|state| state.poll_push(cx))
    }

    /// A push that is there already, without waiting.
    ///
    /// ```no_run
    /// # use shaddock::client::Client;
    /// # fn frame(client: &Client) {
    /// while let Some(push) = client.try_push() {
    ///     println!("{}", push.route());
    /// }
    /// if client.dropped_pushes() > 0 {
    ///     println!("this program is too slow");
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn try_push(&self) -> Option<Push> {
        self.0.shared.with(|state| state.inbox.take_push())
    }

    /// The number of pushes that were dropped, see [`Options::inbox_bytes_max`].
    #[must_use]
    pub fn dropped_pushes(&self) -> u64 {
        self.0.shared.with(|state| state.inbox.dropped())
    }

    /// The server's `user` in its answer to the handshake, the game's word to this client.
    #[must_use]
    pub fn user(&self) -> Option<Value> {
        self.0.shared.with(|state| state.user().cloned())
    }

    /// The dictionary and the schemas that the server has told; may be kept for
    /// [`Options::tables`] of the next connection.
    ///
    /// ```no_run
    /// # use shaddock::client::{Client, ConnectError, Options};
    /// # async fn again(client: Client) -> Result<Client, ConnectError> {
    /// let tables = client.tables();
    /// drop(client);
    /// Options::new().tables(tables).connect("127.0.0.1:3010").await
    /// # }
    /// ```
    #[must_use]
    pub fn tables(&self) -> Arc<Tables> {
        self.0.shared.with(|state| Arc::clone(state.protocol.tables()))
    }

    /// Closes the connection; requests that wait fail. What was sent before still goes out, within
    /// a second, of which [`Self::closed`] tells the end.
    ///
    /// ```no_run
    /// # use shaddock::client::{Client, Closed};
    /// # async fn leave(client: Client) {
    /// client.close();
    /// assert_eq!(client.closed().await, Closed::ByClient);
    /// # }
    /// ```
    pub fn close(&self) {
        self.0.close();
    }

    /// Waits for the end of the connection, and of its socket, and gives the reason.
    ///
    /// # Examples
    /// ```no_run
    /// # use shaddock::client::{Client, Closed};
    /// # async fn watch(client: Client) {
    /// match client.closed().await {
    ///     Closed::Kicked { reason } => println!("kicked: {}", reason.unwrap_or_default()),
    ///     other => println!("gone: {other}"),
    /// }
    /// # }
    /// ```
    pub async fn closed(&self) -> Closed {
        poll_fn(|cx| self.0.shared.with(|state| state.poll_closed(cx))).await
    }

    /// The reason why the connection is over, `None` if it is not.
    ///
    /// ```no_run
    /// # use shaddock::client::Client;
    /// # fn show(client: &Client) {
    /// match client.close_reason() {
    ///     Some(reason) => println!("gone: {reason}"),
    ///     None => println!("connected"),
    /// }
    /// # }
    /// ```
    #[must_use]
    pub fn close_reason(&self) -> Option<Closed> {
        self.0.shared.with(|state| state.closed().cloned())
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("closed", &self.close_reason()).finish_non_exhaustive()
    }
}

impl Connected {
    /// Does something under the lock, and has the thread send what came of it.
    fn act<T>(&self, act: impl FnOnce(&mut shared::State) -> T) -> T {
        let (value, must_tell) = self.shared.with(|state| (act(state), state.tell()));
        if must_tell {
            self.reactor.turn(self.token);
        }
        value
    }

    fn close(&self) {
        self.act(shared::State::close_by_client);
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.close();
    }
}

fn json(body: &(impl Serialize + ?Sized)) -> Result<Vec<u8>, RequestError> {
    serde_json::to_vec(body).map_err(|error| RequestError::Json(error.to_string()))
}

/// Begins to connect. The future waits for the handshake.
fn connect(
    options: Options,
    address: &str,
) -> Result<impl Future<Output = Result<Client, Closed>> + use<>, ConnectError> {
    let address = Address::parse(address).map_err(ConnectError::Address)?;
    #[cfg(feature = "tls")]
    let tls = match (address.is_tls, &options.trust) {
        (false, _) => None,
        (true, None) => return Err(ConnectError::TrustMissing),
        (true, Some(trust)) => {
            Some(tls::Tls::new(trust, &address.host).map_err(ConnectError::Closed)?)
        }
    };
    #[cfg(not(feature = "tls"))]
    if address.is_tls {
        return Err(ConnectError::TrustMissing);
    }
    let now = Instant::now();
    let (request_timeout, inbox_bytes_max) = (options.request_timeout, options.inbox_bytes_max);
    let protocol = match &address.path {
        None => Protocol::new(options, now),
        Some(path) => Protocol::websocket(options, &address.host_header(), path, now),
    };
    let shared = Arc::new(Shared::new(protocol, inbox_bytes_max));
    let reactor = Reactor::current().map_err(|error| ConnectError::Thread(error.kind()))?;
    #[cfg(feature = "tls")]
    let connection = Connection::new(Arc::clone(&shared), tls);
    #[cfg(not(feature = "tls"))]
    let connection = Connection::new(Arc::clone(&shared));
    let token = reactor.open(connection);
    let client = Client(Arc::new(Connected { shared, reactor, token, request_timeout }));
    look_up(address, &client.0).map_err(|error| ConnectError::Thread(error.kind()))?;
    Ok(async move {
        poll_fn(|cx| client.0.shared.with(|state| state.poll_ready(cx))).await?;
        Ok(client)
    })
}

/// Finds the addresses of a host, a name on a thread of its own, as the system's functions for it
/// block.
fn look_up(address: Address, client: &Connected) -> std::io::Result<()> {
    let (reactor, token) = (Arc::clone(&client.reactor), client.token);
    if let Some(ip) = address.ip() {
        reactor.connect(token, VecDeque::from([SocketAddr::new(ip, address.port)]));
        return Ok(());
    }
    let look_up = move || {
        let found = (address.host.as_str(), address.port).to_socket_addrs();
        reactor.connect(token, found.map(Iterator::collect).unwrap_or_default());
    };
    thread::Builder::new().name("shaddock-lookup".to_owned()).spawn(look_up)?;
    Ok(())
}

/// The future of a request's answer; the request is on its way already.
#[derive(Debug)]
#[must_use = "a request that nobody awaits is sent, and its answer dropped"]
pub struct Request {
    shared: Arc<Shared>,
    state: RequestState,
}

#[derive(Debug)]
enum RequestState {
    Sent(u32),
    Failed(RequestError),
    Done,
}

impl From<Result<u32, RequestError>> for RequestState {
    fn from(sent: Result<u32, RequestError>) -> Self {
        match sent {
            Ok(id) => Self::Sent(id),
            Err(error) => Self::Failed(error),
        }
    }
}

impl Future for Request {
    type Output = Result<Answer, RequestError>;

    /// # Panics
    /// If it is polled again once it is done.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match std::mem::replace(&mut self.state, RequestState::Done) {
            RequestState::Sent(id) => {
                let polled = self.shared.with(|state| state.inbox.poll_answer(id, cx));
                if polled.is_pending() {
                    self.state = RequestState::Sent(id);
                }
                polled
            }
            RequestState::Failed(error) => Poll::Ready(Err(error)),
            RequestState::Done => panic!("the request is done, and was polled again"),
        }
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if let RequestState::Sent(id) = self.state {
            self.shared.with(|state| state.inbox.forget(id));
        }
    }
}
