//! The HTTP request that opens a WebSocket, RFC 6455 section 4.2.
//!
//! ```
//! use shaddock::wire::http::{self, UpgradeStatus};
//!
//! let input = b"GET /game HTTP/1.1\r\n\
//!     Host: game.example\r\n\
//!     Upgrade: websocket\r\n\
//!     Connection: Upgrade\r\n\
//!     Sec-WebSocket-Version: 13\r\n\
//!     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
//! assert!(http::asks_for(input, "/game"));
//! assert_eq!(http::decode(&input[..100], 4096)?, UpgradeStatus::Partial);
//! let status = http::decode(input, 4096)?;
//! let UpgradeStatus::Complete { upgrade, consumed } = status else { panic!() };
//! assert_eq!(consumed, input.len());
//!
//! let mut answer = Vec::new();
//! http::encode_accept(&upgrade, &mut answer);
//! assert!(answer.ends_with(b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"));
//! # Ok::<(), http::HttpError>(())
//! ```

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha1::{Digest as _, Sha1};
use std::fmt;

/// The most header lines a request may have; one more is answered with 431.
pub const HEADERS_MAX: usize = 64;

/// The outcome of decoding an upgrade request that may still grow.
#[allow(clippy::exhaustive_enums, reason = "there is no third answer; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeStatus<'a> {
    /// The client asks for a WebSocket; its first frame starts after `consumed` bytes.
    Complete {
        /// The client's request.
        upgrade: Upgrade<'a>,
        /// The length of the request.
        consumed: usize,
    },
    /// The empty line that ends the request has not arrived.
    Partial,
}

/// A valid upgrade request, borrowed from the input.
///
/// ```
/// # use shaddock::wire::http::Upgrade;
/// /// The address that the nearest proxy tells of, and the number of headers.
/// fn look<'a>(upgrade: &Upgrade<'a>) -> (Option<&'a [u8]>, usize) {
///     let nearest = upgrade.values("X-Forwarded-For").next_back();
///     (nearest.or_else(|| upgrade.header("X-Real-IP")), upgrade.headers().count())
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upgrade<'a> {
    /// `Sec-WebSocket-Key`. INVARIANT: 24 characters, base64 of 16 bytes.
    pub key: &'a str,
    /// The first subprotocol offered. INVARIANT: an HTTP token.
    pub protocol: Option<&'a str>,
    /// The header lines. INVARIANT: httparse has accepted them.
    lines: &'a [u8],
}

impl<'a> Upgrade<'a> {
    /// The trimmed value of the first header called `name` in any case, for example the header in
    /// which a proxy passes on the client's address.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The trimmed values of all headers called `name` in any case, in the order sent.
    pub fn values<'n>(
        &self,
        name: &'n str,
    ) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a, 'n> {
        self.headers()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// Every header, name and trimmed value, in the order sent.
    pub fn headers(&self) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        headers_of(self.lines)
    }

    /// The headers, as they are kept for as long as the request itself is not.
    #[cfg(feature = "engine")]
    pub(crate) fn to_owned_headers(self) -> Headers {
        Headers(self.lines.into())
    }
}

/// The headers of an upgrade.
#[cfg(feature = "engine")]
pub(crate) struct Headers(Box<[u8]>);

#[cfg(feature = "engine")]
impl Headers {
    /// The trimmed values of all headers called `name` in any case, in the order sent.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        headers_of(&self.0)
            .filter(move |(header, _)| header.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| value)
    }

    /// The bytes of their lines.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Every header, name and trimmed value, of lines that httparse has accepted.
fn headers_of<'a>(
    lines: &'a [u8],
) -> impl DoubleEndedIterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// Decodes the upgrade request at the start of `input`. Any path and query are accepted, and no
/// extension is negotiated.
///
/// # Errors
/// [`HttpError`]; send its [`response`](HttpError::response) and close.
pub fn decode(input: &[u8], head_bytes_max: usize) -> Result<UpgradeStatus<'_>, HttpError> {
    let head = &input[..input.len().min(head_bytes_max)];
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let consumed = match request.parse(head) {
        Ok(httparse::Status::Complete(consumed)) => consumed,
        Ok(httparse::Status::Partial) if head.len() == head_bytes_max => {
            return Err(HttpError::HeadTooLarge);
        }
        Ok(httparse::Status::Partial) => return Ok(UpgradeStatus::Partial),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpError::HeadTooLarge),
        Err(_) => return Err(HttpError::Malformed),
    };
    // RFC 6455 4.2.1: "An |Upgrade| header field containing the value "websocket", treated as an
    // ASCII case-insensitive value", "A |Connection| header field that includes the token
    // "Upgrade"", "A |Sec-WebSocket-Version| header field, with a value of 13". The RFC also asks
    // for "an HTTP/1.1 or higher GET request"; the original does not, as nginx sends HTTP/1.0 by
    // default (`proxy_http_version`) and passes on a WebSocket that way too.
    let headers = &*request.headers;
    if !has_token(headers, "Upgrade", "websocket")
        || !has_token(headers, "Connection", "upgrade")
        || values(headers, "Sec-WebSocket-Version").next() != Some(b"13")
    {
        return Err(HttpError::UpgradeRequired);
    }
    if request.method != Some("GET") {
        return Err(HttpError::MethodNotAllowed);
    }
    let mut keys = values(headers, "Sec-WebSocket-Key");
    let key = keys.next().and_then(checked_key).ok_or(HttpError::KeyInvalid)?;
    // RFC 6455 11.3.1: the key "MUST NOT appear more than once in an HTTP request".
    if keys.next().is_some() {
        return Err(HttpError::KeyInvalid);
    }
    let protocol = values(headers, "Sec-WebSocket-Protocol").next().and_then(first_token);
    let lines = header_lines(&head[..consumed]);
    Ok(UpgradeStatus::Complete { upgrade: Upgrade { key, protocol, lines }, consumed })
}

/// Appends the response that accepts `upgrade`.
///
/// The first subprotocol offered is echoed, as by the stock server: a browser that offered some and
/// gets none back fails the connection.
pub fn encode_accept(upgrade: &Upgrade<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\n\
          Upgrade: websocket\r\n\
          Connection: Upgrade\r\n\
          Sec-WebSocket-Accept: ",
    );
    out.extend_from_slice(&accept(upgrade.key));
    if let Some(protocol) = upgrade.protocol {
        out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        out.extend_from_slice(protocol.as_bytes());
    }
    out.extend_from_slice(b"\r\n\r\n");
}

/// True if a whole request is a plain GET or HEAD of that path, with whatever query.
#[must_use]
pub fn asks_for(head: &[u8], path: &str) -> bool {
    let line = head.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut words = line.trim_ascii().split(|&byte| byte == b' ');
    let is_read = matches!(words.next(), Some(b"GET" | b"HEAD"));
    let target = words.next().unwrap_or_default();
    is_read && target.split(|&byte| byte == b'?').next() == Some(path.as_bytes())
}

/// The whole response to a balancer that asks for the health path, where clients may be sent here.
pub const HEALTHY: &[u8] = b"HTTP/1.1 200 OK\r\n\
    Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Content-Length: 0\r\n\r\n";

/// The same where nobody is to be sent here.
pub const UNHEALTHY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\n\
    Connection: close\r\n\
    Cache-Control: no-store\r\n\
    Content-Length: 0\r\n\r\n";

/// The whole response to a client whose address is refused.
pub const FORBIDDEN: &[u8] = b"HTTP/1.1 403 Forbidden\r\n\
    Connection: close\r\n\
    Content-Length: 0\r\n\r\n";

/// The whole response to a client whose address has connected too often.
pub const TOO_MANY_REQUESTS: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\n\
    Connection: close\r\n\
    Content-Length: 0\r\n\r\n";

/// The reasons to refuse an upgrade; the peer is at fault.
///
/// ```
/// use shaddock::wire::http;
///
/// let error = http::decode(b"GET / HTTP/1.1\r\n\r\n", 4096).unwrap_err();
/// assert_eq!(error.status(), 426);
/// assert!(error.response().starts_with(b"HTTP/1.1 426 Upgrade Required\r\n"));
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpError {
    /// Not HTTP/1.x.
    Malformed,
    /// The request exceeds the byte limit or [`HEADERS_MAX`].
    HeadTooLarge,
    /// The method is not GET.
    MethodNotAllowed,
    /// The request asks for no upgrade, or for a WebSocket version other than 13.
    UpgradeRequired,
    /// The key is absent, repeated, or not base64 of 16 bytes.
    KeyInvalid,
}

impl HttpError {
    /// The HTTP status of the [`response`](Self::response).
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed | Self::KeyInvalid => 400,
            Self::MethodNotAllowed => 405,
            Self::UpgradeRequired => 426,
            Self::HeadTooLarge => 431,
        }
    }

    /// The whole response to send before closing. The stock server sends none and leaves the client
    /// waiting.
    #[must_use]
    pub const fn response(self) -> &'static [u8] {
        match self {
            Self::Malformed | Self::KeyInvalid => {
                b"HTTP/1.1 400 Bad Request\r\n\
                  Connection: close\r\n\
                  Content-Length: 0\r\n\r\n"
            }
            Self::MethodNotAllowed => {
                b"HTTP/1.1 405 Method Not Allowed\r\n\
                  Allow: GET\r\n\
                  Connection: close\r\n\
                  Content-Length: 0\r\n\r\n"
            }
            // RFC 9110 15.5.22: the server "MUST send an Upgrade header field"; RFC 6455 4.2.2:
            // "a |Sec-WebSocket-Version| header field indicating the version(s)".
            Self::UpgradeRequired => {
                b"HTTP/1.1 426 Upgrade Required\r\n\
                  Upgrade: websocket\r\n\
                  Sec-WebSocket-Version: 13\r\n\
                  Connection: Upgrade, close\r\n\
                  Content-Length: 0\r\n\r\n"
            }
            Self::HeadTooLarge => {
                b"HTTP/1.1 431 Request Header Fields Too Large\r\n\
                  Connection: close\r\n\
                  Content-Length: 0\r\n\r\n"
            }
        }
    }
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "malformed HTTP request",
            Self::HeadTooLarge => "HTTP request head too large",
            Self::MethodNotAllowed => "HTTP method is not GET",
            Self::UpgradeRequired => "not a WebSocket version 13 upgrade",
            Self::KeyInvalid => "invalid Sec-WebSocket-Key",
        })
    }
}

impl std::error::Error for HttpError {}

/// RFC 6455 4.2.2: base64 of SHA-1 of the key "concatenated" with the GUID.
fn accept(key: &str) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    let written = STANDARD.encode_slice(digest, &mut accept);
    written.expect("20 bytes are 28 characters in base64");
    accept
}

/// The lines between the request line and the empty line. httparse skips newlines in front of the
/// request line, so they are skipped here too.
fn header_lines(head: &[u8]) -> &[u8] {
    let head = head.trim_ascii_start();
    let line_end = head.iter().position(|&byte| byte == b'\n');
    line_end.map_or(&[], |line_end| &head[line_end + 1..])
}

fn values<'a, 'h: 'a>(
    headers: &'a [httparse::Header<'h>],
    name: &'a str,
) -> impl Iterator<Item = &'h [u8]> + 'a {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .map(|header| header.value)
}

fn has_token(headers: &[httparse::Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name)
        .flat_map(|value| value.split(|&byte| byte == b','))
        .any(|item| item.trim_ascii().eq_ignore_ascii_case(token.as_bytes()))
}

/// The key, if it is base64 of 16 bytes: 22 characters and two of padding.
fn checked_key(value: &[u8]) -> Option<&str> {
    let characters = value.trim_ascii().strip_suffix(b"==")?;
    let is_base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    if characters.len() != 22 || !characters.iter().all(is_base64) {
        return None;
    }
    std::str::from_utf8(value.trim_ascii()).ok()
}

fn first_token(list: &[u8]) -> Option<&str> {
    let token = list.split(|&byte| byte == b',').next()?.trim_ascii();
    // RFC 9110 5.6.2: the characters of a token. No others may reach the response.
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    if token.is_empty() || !token.iter().all(is_token) {
        return None;
    }
    std::str::from_utf8(token).ok()
}

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ACCEPT_BYTES: usize = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_a_plain_read_of_its_path() {
        for line in ["GET /healthz HTTP/1.1", "HEAD /healthz?x=1 HTTP/1.0", "GET /healthz"] {
            assert!(
                asks_for(format!("{line}\r\nHost: a\r\n\r\n").as_bytes(), "/healthz"),
                "{line}"
            );
        }
        for line in
            ["POST /healthz HTTP/1.1", "GET /healthz/ HTTP/1.1", "GET / HTTP/1.1", "", "GET"]
        {
            assert!(!asks_for(format!("{line}\r\n\r\n").as_bytes(), "/healthz"), "{line}");
        }
    }

    const HEAD_BYTES_MAX: usize = 8192;

    /// The example of RFC 6455 section 1.3.
    const EXAMPLE: &str = "GET /chat?a=b HTTP/1.1\r\n\
        Host: server.example.com\r\n\
        Upgrade: websocket\r\n\
        Connection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Origin: http://example.com\r\n\
        Sec-WebSocket-Protocol: chat, superchat\r\n\
        Sec-WebSocket-Version: 13\r\n\
        X-Forwarded-For:  10.0.0.1 \r\n\r\n";

    fn outcome(request: &str) -> Result<UpgradeStatus<'_>, HttpError> {
        decode(request.as_bytes(), HEAD_BYTES_MAX)
    }

    fn upgrade(request: &str) -> Upgrade<'_> {
        match outcome(request) {
            Ok(UpgradeStatus::Complete { upgrade, .. }) => upgrade,
            other => panic!("{request}: {other:?}"),
        }
    }

    #[test]
    fn the_example_of_the_rfc_is_accepted() {
        let mut out = Vec::new();
        encode_accept(&upgrade(EXAMPLE), &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
             Sec-WebSocket-Protocol: chat\r\n\r\n"
        );
    }

    #[test]
    fn headers_are_found_in_any_case_and_trimmed() {
        let upgrade = upgrade(EXAMPLE);
        assert_eq!(upgrade.header("x-forwarded-for"), Some(&b"10.0.0.1"[..]));
        assert_eq!(upgrade.header("HOST"), Some(&b"server.example.com"[..]));
        assert_eq!(upgrade.header("x-real-ip"), None);
        assert_eq!(upgrade.headers().count(), 8);
        assert_eq!(upgrade.protocol, Some("chat"));
    }

    #[test]
    fn every_prefix_is_partial_and_the_rest_is_left_alone() {
        for cut in crate::test_cases::cases(97, 0..EXAMPLE.len()) {
            assert_eq!(outcome(&EXAMPLE[..cut]), Ok(UpgradeStatus::Partial), "{cut}");
        }
        let more = format!("{EXAMPLE}\u{2}rest");
        let Ok(UpgradeStatus::Complete { consumed, .. }) = outcome(&more) else { panic!() };
        assert_eq!(consumed, EXAMPLE.len());
    }

    /// The request that nginx sends upstream with `proxy_set_header Upgrade $http_upgrade` and
    /// `Connection "upgrade"`, and its default `proxy_http_version 1.0` (ngx_http_proxy_module).
    #[test]
    fn http_1_0_will_do() {
        let request = EXAMPLE.replacen("HTTP/1.1", "HTTP/1.0", 1);
        assert_eq!(upgrade(&request).key, "dGhlIHNhbXBsZSBub25jZQ==");
    }

    #[test]
    fn what_is_not_an_upgrade_is_told_why() {
        let without = |from: &str, to: &str| EXAMPLE.replacen(from, to, 1);
        for (request, error) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), HttpError::UpgradeRequired),
            (without("Version: 13", "Version: 8"), HttpError::UpgradeRequired),
            (without("Upgrade: websocket", "Upgrade: h2c"), HttpError::UpgradeRequired),
            (without("keep-alive, Upgrade", "keep-alive"), HttpError::UpgradeRequired),
            (without("GET", "POST"), HttpError::MethodNotAllowed),
            (without("GET", "OPTIONS"), HttpError::MethodNotAllowed),
            (without("GET /", "GET\0/"), HttpError::Malformed),
            (without("HTTP/1.1", "HTTP/2.0"), HttpError::Malformed),
            (without("Host:", "Host"), HttpError::Malformed),
            (without("Sec-WebSocket-Key", "X-Key"), HttpError::KeyInvalid),
            (without("dGhl", "dGh"), HttpError::KeyInvalid),
            (without("dGhl", "dG-l"), HttpError::KeyInvalid),
            (without("ZQ==", "ZQ"), HttpError::KeyInvalid),
            (without("Origin: http", "Sec-WebSocket-Key: x"), HttpError::KeyInvalid),
        ] {
            assert_eq!(outcome(&request), Err(error), "{request}");
        }
    }

    #[test]
    fn a_token_list_in_any_case_still_asks_for_an_upgrade() {
        let request = EXAMPLE.replace("Upgrade: websocket", "UPGRADE:foo, WebSocket");
        assert_eq!(upgrade(&request).protocol, Some("chat"));
    }

    #[test]
    fn a_subprotocol_that_is_no_token_is_not_echoed() {
        for offered in ["a b", "", ",x", "\u{e9}", "a\"b"] {
            let request = EXAMPLE.replace("chat, superchat", offered);
            assert_eq!(upgrade(&request).protocol, None, "{offered}");
        }
    }

    #[test]
    fn the_head_is_bounded_in_bytes_and_lines() {
        let request = EXAMPLE.as_bytes();
        for max in crate::test_cases::cases(97, 0..request.len()) {
            assert_eq!(decode(request, max), Err(HttpError::HeadTooLarge), "{max}");
            assert_eq!(decode(&request[..max], max), Err(HttpError::HeadTooLarge), "{max}");
        }
        assert!(decode(request, request.len()).is_ok());
        let lines = "a: b\r\n".repeat(HEADERS_MAX + 1);
        let request = format!("GET / HTTP/1.1\r\n{lines}\r\n");
        assert_eq!(outcome(&request), Err(HttpError::HeadTooLarge));
    }

    #[test]
    fn a_changed_byte_is_refused_or_leaves_a_valid_upgrade() {
        let values = |index| (0..=u8::MAX).map(move |value| (index, value));
        let all = (0..EXAMPLE.len()).flat_map(values);
        for (index, value) in crate::test_cases::cases(997, all) {
            let mut changed = EXAMPLE.as_bytes().to_vec();
            changed[index] = value;
            if let Ok(UpgradeStatus::Complete { upgrade, consumed }) =
                decode(&changed, HEAD_BYTES_MAX)
            {
                assert!(consumed <= changed.len());
                assert_eq!(upgrade.key.len(), 24);
                assert!(upgrade.headers().count() <= HEADERS_MAX);
            }
        }
    }

    #[test]
    fn every_refusal_is_a_whole_response_with_its_status() {
        for error in [
            HttpError::Malformed,
            HttpError::HeadTooLarge,
            HttpError::MethodNotAllowed,
            HttpError::UpgradeRequired,
            HttpError::KeyInvalid,
        ] {
            let mut headers = [httparse::EMPTY_HEADER; 8];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(error.response()).unwrap();
            assert_eq!(parsed, httparse::Status::Complete(error.response().len()));
            assert_eq!(response.code, Some(error.status()));
            assert!(has_token(response.headers, "Connection", "close"));
            assert_eq!(values(response.headers, "Content-Length").next(), Some(&b"0"[..]));
        }
    }
}
