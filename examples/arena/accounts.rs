//! The account service, as the game sees it.

use std::fmt;
use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

/// The service that knows the players. A trait, so that tests have one without a network.
pub(crate) trait Accounts: Send + Sync + 'static {
    /// The player who has a token; `None` if nobody has.
    async fn name_of(&self, token: &str) -> Result<Option<String>, Unavailable>;

    /// Adds the scores of rounds to those of their players.
    async fn save(&self, scores: &[Score]) -> Result<(), Unavailable>;
}

/// The coins of one player in one round.
pub(crate) type Score = (String, u32);

/// The service did not answer, or not as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unavailable;

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the account service does not answer")
    }
}

/// The service over HTTP, called on a runtime of tokio's. A game takes a library for it, as
/// `examples/runtimes` does.
pub(crate) struct HttpAccounts {
    address: String,
    tokio: Handle,
}

impl HttpAccounts {
    pub(crate) fn new(address: String, tokio: Handle) -> Self {
        Self { address, tokio }
    }

    async fn ask(&self, line: String, body: String) -> Result<(u16, String), Unavailable> {
        let address = self.address.clone();
        let request = format!(
            "{line} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {}\r\n\
             Connection: close\r\n\r\n{body}",
            body.len()
        );
        // Nothing of the engine's bounds the time of another runtime's future. `timeout` looks for
        // that runtime where it is called, so it is called in there.
        let call = async move { timeout(PATIENCE, exchange(address, request)).await };
        match self.tokio.spawn(call).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            _ => Err(Unavailable),
        }
    }
}

impl Accounts for HttpAccounts {
    async fn name_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        // It becomes a part of a path, so it must not be able to end it.
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if token.is_empty() || token.len() > TOKEN_LEN_MAX || !token.bytes().all(is_token) {
            return Ok(None);
        }
        match self.ask(format!("GET /tokens/{token}"), String::new()).await? {
            (200, name) => Ok(Some(name)),
            (404, _) => Ok(None),
            _ => Err(Unavailable),
        }
    }

    async fn save(&self, scores: &[Score]) -> Result<(), Unavailable> {
        let body = serde_json::to_string(scores).map_err(|_| Unavailable)?;
        match self.ask("POST /scores".to_owned(), body).await? {
            (200, _) => Ok(()),
            _ => Err(Unavailable),
        }
    }
}

/// One request, and the code and body of its answer.
async fn exchange(address: String, request: String) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer).await?;
    let malformed = || io::Error::from(io::ErrorKind::InvalidData);
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(malformed)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    Ok((code, body.to_owned()))
}

const PATIENCE: Duration = Duration::from_secs(2);
const TOKEN_LEN_MAX: usize = 64;
const ANSWER_BYTES_MAX: u64 = 64 * 1024;
