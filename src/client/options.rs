//! The options of a client, its bounds among them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::tables::Tables;
#[cfg(feature = "tls")]
use super::tls::Trust;
use crate::wire::package::BODY_BYTES_MAX;

/// The description of a client before it connects.
///
/// | bound | default | at it |
/// |---|---|---|
/// | [`connect_timeout`](Self::connect_timeout) | 10 s | the connection fails |
/// | [`request_timeout`](Self::request_timeout) | 40 s | the request fails |
/// | [`requests_max`](Self::requests_max) | 4,096 | one more request fails |
/// | [`output_bytes_max`](Self::output_bytes_max) | 8 MiB | one more request or notify fails |
/// | [`inbox_bytes_max`](Self::inbox_bytes_max) | 8 MiB | the oldest pushes are dropped |
/// | [`package_bytes_max`](Self::package_bytes_max) | 4 MiB | the connection is closed |
/// | [`handshake_bytes_max`](Self::handshake_bytes_max) | 1 MiB | the connection is closed |
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// use serde_json::json;
/// use shaddock::client::{self, Options};
///
/// # async fn connect() -> Result<(), client::ConnectError> {
/// let client = Options::new()
///     .client_type("bot", "1.0")
///     .user(json!({"token": "t0p5ecret"}))
///     .connect_timeout(Duration::from_secs(3))
///     .request_timeout(Duration::from_secs(5))
///     .connect("ws://127.0.0.1:3010")
///     .await?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
///
/// One of thousands of bots takes little memory:
///
/// ```
/// use shaddock::client::Options;
///
/// let bot = Options::new()
///     .requests_max(16)
///     .output_bytes_max(64 * 1024)
///     .inbox_bytes_max(64 * 1024)
///     .package_bytes_max(64 * 1024)
///     .handshake_bytes_max(256 * 1024);
/// ```
#[derive(Debug, Clone)]
#[must_use = "options do nothing until `connect` is called"]
pub struct Options {
    pub(super) client_type: String,
    pub(super) client_version: String,
    pub(super) user: Option<Value>,
    pub(super) tables: Option<Arc<Tables>>,
    pub(super) connect_timeout: Duration,
    pub(super) request_timeout: Duration,
    pub(super) requests_max: usize,
    pub(super) output_bytes_max: usize,
    pub(super) inbox_bytes_max: usize,
    pub(super) package_bytes_max: usize,
    pub(super) handshake_bytes_max: usize,
    #[cfg(feature = "tls")]
    pub(super) trust: Option<Trust>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            client_type: "shaddock".to_owned(),
            client_version: env!("CARGO_PKG_VERSION").to_owned(),
            user: None,
            tables: None,
            connect_timeout: Duration::from_secs(10),
            // Longer than the 30 s in which a server gives up on its backends.
            request_timeout: Duration::from_secs(40),
            requests_max: 4_096,
            output_bytes_max: 8 << 20,
            inbox_bytes_max: 8 << 20,
            package_bytes_max: 4 << 20,
            handshake_bytes_max: 1 << 20,
            #[cfg(feature = "tls")]
            trust: None,
        }
    }
}

impl Options {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The handshake's `sys.type` and `sys.version`, by which a server may refuse clients.
    pub fn client_type(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        (self.client_type, self.client_version) = (name.into(), version.into());
        self
    }

    /// The handshake's `user`: what the game's server asks for, such as a token. A handshake that
    /// is longer than 16 MiB with it is never sent, and the connection fails.
    pub fn user(mut self, user: Value) -> Self {
        self.user = Some(user);
        self
    }

    /// Dictionary and schemas from an earlier connection to the same server
    /// ([`Client::tables`]). A server whose tables are still the same leaves them out of its
    /// answer.
    ///
    /// ```no_run
    /// # use shaddock::client::{Client, ConnectError, Options};
    /// # async fn again(before: &Client) -> Result<Client, ConnectError> {
    /// Options::new().tables(before.tables()).connect("127.0.0.1:3010").await
    /// # }
    /// ```
    ///
    /// [`Client::tables`]: super::Client::tables
    pub fn tables(mut self, tables: Arc<Tables>) -> Self {
        self.tables = Some(tables);
        self
    }

    /// The time within which the connection has to be made and the handshake answered: name, TCP,
    /// TLS and upgrade together.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The time within which a request has to be answered; [`Client::request_within`] sets another
    /// for one request.
    ///
    /// [`Client::request_within`]: super::Client::request_within
    pub fn request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// The most requests that wait for their answers.
    pub fn requests_max(mut self, requests: usize) -> Self {
        self.requests_max = requests;
        self
    }

    /// The most bytes that wait for a server that does not read.
    pub fn output_bytes_max(mut self, bytes: usize) -> Self {
        self.output_bytes_max = bytes;
        self
    }

    /// The most bytes of pushes and answers that wait for the program to take them. Where more
    /// come, the oldest pushes are dropped and counted ([`Client::dropped_pushes`]); an answer for
    /// which there is no room even so fails its request.
    ///
    /// [`Client::dropped_pushes`]: super::Client::dropped_pushes
    pub fn inbox_bytes_max(mut self, bytes: usize) -> Self {
        self.inbox_bytes_max = bytes;
        self
    }

    /// The longest package in either direction, in bytes, and the longest body that a schema may
    /// make of one; at most 16 MiB less one byte, which is the longest of the protocol. A server
    /// that sends more is disconnected.
    pub fn package_bytes_max(mut self, bytes: usize) -> Self {
        self.package_bytes_max = bytes.min(BODY_BYTES_MAX);
        self
    }

    /// The longest answer of the handshake, in bytes, which has the dictionary and the schemas. A
    /// server that sends more is disconnected.
    pub fn handshake_bytes_max(mut self, bytes: usize) -> Self {
        self.handshake_bytes_max = bytes.min(BODY_BYTES_MAX);
        self
    }

    /// The certificates that `tls://` and `wss://` need.
    ///
    /// ```no_run
    /// use shaddock::client::{Options, Trust};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let own = std::fs::read("/etc/game/authority.pem")?;
    /// let options = Options::new().trust(Trust::pem(&own)?);
    /// # Ok(())
    /// # }
    /// ```
    #[cfg(feature = "tls")]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = Some(trust);
        self
    }
}
