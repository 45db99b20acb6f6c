//! A test kit: an embedder's handlers, filters and workers, run in a test's own thread.
//!
//! The description that is started in production runs here on the same core, the state machine of
//! shards and workers, without threads, sockets or io_uring, and in virtual time. Tests take
//! microseconds for each request, run beside each other and give the same outcome each time.
//!
//! Turn on the feature `testing` for tests alone:
//!
//! ```toml
//! [dev-dependencies]
//! shaddock = { version = "0.1", default-features = false, features = ["testing"] }
//! ```
//!
//! Keep the description in a function, which `main` starts and tests run:
//!
//! ```
//! use std::time::Duration;
//!
//! use serde_json::json;
//! use shaddock::{Builder, Engine, Handlers, Reply, Workers, testing};
//!
//! /// The whole game: a login, and rooms that greet who enters half a second later.
//! fn game() -> Builder {
//!     Engine::builder()
//!         .async_handler("connector.entry.login", async |request, mut session| {
//!             let uid = request.value()["name"].as_str().unwrap_or_default().to_owned();
//!             match session.bind(uid).await {
//!                 Ok(()) => Reply::json(&json!({ "code": 200 })),
//!                 Err(error) => {
//!                     Reply::error_json(&json!({ "code": 409, "text": error.to_string() }))
//!                 }
//!             }
//!         })
//!         .forward("room", Workers::new(1, room))
//! }
//!
//! fn room(handlers: &mut Handlers) {
//!     handlers.handler("room.door.enter", |_, session| {
//!         let Some(uid) = session.uid().cloned() else { return Reply::error() };
//!         let context = session.context();
//!         session.context().spawn(async move {
//!             context.sleep(Duration::from_millis(500)).await;
//!             let _ = context.push([uid], "onWelcome", br#"{"to":"the room"}"#);
//!         });
//!         Reply::empty()
//!     });
//! }
//!
//! # fn start() -> Result<(), shaddock::StartError> {
//! let engine = game().listen("127.0.0.1:3010").start()?; // in `main`
//! # drop(engine);
//! # Ok(())
//! # }
//! let t = testing::Engine::new(game()); // in a test
//! let amy = t.connect();
//! assert_eq!(amy.request("room.door.enter", json!({}))["code"], 500);
//! assert_eq!(amy.request("connector.entry.login", json!({ "name": "amy" }))["code"], 200);
//! assert_eq!(amy.request("room.door.enter", json!({})), json!({}));
//! assert!(amy.pushes().is_empty());
//! t.advance(Duration::from_millis(500));
//! assert_eq!(amy.pushes()[0].body["to"], "the room");
//! amy.close();
//! ```
//!
//! # Time
//! Time passes in [`Engine::advance`], [`Response::within`] and [`Engine::drain`] alone, and takes
//! no time: all that is due by [`Context::sleep`](crate::Context::sleep), a timeout or a limit
//! happens in order. Handlers that read the clock of the system, or use timers of another runtime,
//! see real time.
//!
//! # Other threads
//! A handler may wait for another thread, such as a `tokio` runtime's or a [`Responder`]
//! that was passed on. Requests wait for it in real time, while virtual time stands still;
//! [`Engine::run_until`] waits for anything else. glommio is not there: its timers, sockets and
//! files panic in a test.
//!
//! # Clients
//! A [`Client`] speaks Pomelo's protocol over TCP, whatever the listeners of the description are.
//! It reads at once what comes; a client that does not read is none of the kit's cases.
//!
//! A request that panics in its handler is answered 500, as in production; the panic's text is in
//! the test's output.
//!
//! [`Responder`]: crate::Responder

mod client;
mod connect;
mod engine;
mod push;
mod response;
mod shared;
mod socket;
mod world;

pub use client::Client;
pub use connect::{Connect, Refused};
pub use engine::{Engine, Setup};
pub use push::Push;
pub use response::Response;
