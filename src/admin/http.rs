//! Requests and answers of HTTP/1.1, as much of it as the admin server speaks: one request to a
//! connection, whose body has a length.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::json;

use super::bounds::{ANSWER_BYTES_MAX, BODY_BYTES_MAX, HEAD_BYTES_MAX, HEADERS_MAX};

/// A whole request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: Method,
    /// The path's parts between its slashes, decoded.
    pub(super) path: Vec<String>,
    /// The parameters behind the path, decoded, in order.
    query: Vec<(String, String)>,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    pub(super) authorization: Option<String>,
    pub(super) accept: String,
    /// The use that a browser has for the answer (`Sec-Fetch-Dest`), where it tells.
    pub(super) destination: Option<String>,
    /// True if a proxy says that it asks for somebody else.
    pub(super) is_forwarded: bool,
    pub(super) body: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Head,
    Post,
    Delete,
    Other,
}

/// An answer, but for its framing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) status: u16,
    content_type: &'static str,
    headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    /// True if it counts among the large answers that wait for their readers.
    pub(super) is_large: bool,
}

/// The progress of a request that may still grow.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    Partial,
    Complete(Request),
    /// An error; the answer says what is wrong.
    Bad(Response),
}

/// The headers by which proxies tell that they are some.
const FORWARDED: [&str; 4] = ["Forwarded", "Via", "X-Forwarded-For", "X-Real-IP"];

impl Request {
    /// Reads a request from what has come of it.
    pub(super) fn parse(input: &[u8]) -> Parsed {
        let head = &input[..input.len().min(HEAD_BYTES_MAX)];
        let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut request = httparse::Request::new(&mut headers);
        let too_long = || Response::error(431, "the head is too long: 8 KiB and 64 lines at most");
        let head_len = match request.parse(head) {
            Ok(httparse::Status::Complete(head_len)) => head_len,
            Ok(httparse::Status::Partial) if head.len() == HEAD_BYTES_MAX => {
                return Parsed::Bad(too_long());
            }
            Ok(httparse::Status::Partial) => return Parsed::Partial,
            Err(httparse::Error::TooManyHeaders) => return Parsed::Bad(too_long()),
            Err(_) => return Parsed::Bad(Response::error(400, "this is no request of HTTP/1.1")),
        };
        let bad = |status, text| Parsed::Bad(Response::error(status, text));
        if values(&request, "Transfer-Encoding").next().is_some() {
            return bad(501, "send a Content-Length instead of a Transfer-Encoding");
        }
        let mut lengths = values(&request, "Content-Length");
        let length = match (lengths.next(), lengths.next()) {
            (None, _) => Some(0),
            (Some(length), None) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                length.parse().ok()
            }
            _ => return bad(400, "Content-Length must be one number"),
        };
        let Some(length) = length.filter(|length| *length <= BODY_BYTES_MAX) else {
            return bad(413, "the body is too long: 64 KiB at most");
        };
        let mut hosts = values(&request, "Host");
        let host = hosts.next().map(str::to_owned);
        if hosts.next().is_some() {
            return bad(400, "there must be one Host");
        }
        let mut destinations = values(&request, "Sec-Fetch-Dest");
        let destination = destinations.next().map(str::to_owned);
        if destinations.next().is_some() {
            return bad(400, "there must be one Sec-Fetch-Dest");
        }
        let Some(body) = input.get(head_len..head_len + length) else { return Parsed::Partial };
        let one = |name| values(&request, name).next().map(str::to_owned);
        let target = request.path.unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let parts = path.split('/').filter(|part| !part.is_empty());
        Parsed::Complete(Self {
            method: match request.method {
                Some("GET") => Method::Get,
                Some("HEAD") => Method::Head,
                Some("POST") => Method::Post,
                Some("DELETE") => Method::Delete,
                _ => Method::Other,
            },
            path: parts.map(|part| decode(part, false)).collect(),
            query: query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect(),
            host,
            origin: one("Origin"),
            authorization: one("Authorization"),
            accept: one("Accept").unwrap_or_default(),
            destination,
            is_forwarded: FORWARDED.into_iter().any(|name| one(name).is_some()),
            body: body.to_vec(),
        })
    }

    /// The first parameter of a name.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// All parameters, and those that the body has in the same form.
    pub(super) fn form(&self) -> Vec<(String, String)> {
        let body = String::from_utf8_lossy(&self.body);
        let of_body = body.trim().split('&').filter(|pair| !pair.is_empty()).map(pair);
        self.query.iter().cloned().chain(of_body).collect()
    }

    /// The names of all parameters.
    pub(super) fn parameters(&self) -> impl Iterator<Item = &str> {
        self.query.iter().map(|(key, _)| key.as_str())
    }
}

/// The values of all headers of a name, in order, as far as they are text.
fn values<'a>(
    request: &httparse::Request<'_, 'a>,
    name: &'static str,
) -> impl Iterator<Item = &'a str> {
    let of_name = |header: &&httparse::Header<'a>| header.name.eq_ignore_ascii_case(name);
    let headers: Vec<_> = request.headers.iter().filter(of_name).map(|it| it.value).collect();
    headers.into_iter().map(|value| std::str::from_utf8(value).unwrap_or("\u{fffd}").trim())
}

fn pair(text: &str) -> (String, String) {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    (decode(key, true), decode(value, true))
}

/// Decodes percent signs, and pluses where they are spaces.
fn decode(text: &str, has_plus: bool) -> String {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = |at: usize| behind.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, hex(0), hex(1)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push((high * 16 + low) as u8);
                rest = &behind[2..];
                continue;
            }
            (b'+', ..) if has_plus => decoded.push(b' '),
            _ => decoded.push(first),
        }
        rest = behind;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

impl Response {
    pub(super) fn text(status: u16, body: impl Into<String>) -> Self {
        Self::of(status, "text/plain; charset=utf-8", body.into().into_bytes())
    }

    pub(super) fn json(status: u16, body: &impl Serialize) -> Self {
        // Of values that are all JSON.
        let mut body = serde_json::to_vec(body).unwrap_or_default();
        body.push(b'\n');
        Self::of(status, "application/json", body)
    }

    /// A list below its name, as long as the answer may be, and the members of `rest`.
    pub(super) fn list<T: Serialize>(
        name: &str,
        rows: impl IntoIterator<Item = T>,
        rest: &serde_json::Value,
    ) -> Self {
        let mut body = format!("{{\"{name}\":[").into_bytes();
        let mut is_truncated = false;
        for (place, row) in rows.into_iter().enumerate() {
            let row = serde_json::to_vec(&row).unwrap_or_default();
            is_truncated = body.len() + row.len() > ANSWER_BYTES_MAX;
            if is_truncated {
                break;
            }
            if place > 0 {
                body.push(b',');
            }
            body.extend(row);
        }
        body.extend(format!("],\"truncated\":{is_truncated}").as_bytes());
        for (name, value) in rest.as_object().into_iter().flatten() {
            body.extend(format!(",\"{name}\":{value}").as_bytes());
        }
        body.extend(b"}\n");
        Self::of(200, "application/json", body).large()
    }

    /// One of those that wait for their readers within a bound of their own.
    pub(super) fn large(mut self) -> Self {
        self.is_large = true;
        self
    }

    /// An error that says what to do.
    pub(super) fn error(status: u16, text: &str) -> Self {
        Self::json(status, &json!({ "error": text }))
    }

    pub(super) fn of(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body, is_large: false }
    }

    pub(super) fn with_header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The answer as it is sent; of a HEAD without its body.
    pub(super) fn encode(&self, method: Method) -> Vec<u8> {
        let mut head = self.head();
        write!(head, "Content-Length: {}\r\n\r\n", self.body.len()).ok();
        let mut bytes = head.into_bytes();
        if method != Method::Head {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// The head of an answer that goes on until its connection ends.
    pub(super) fn encode_stream(&self) -> Vec<u8> {
        let mut head = self.head();
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn head(&self) -> String {
        let Self { status, content_type, .. } = self;
        let mut head = format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: {content_type}\r\nConnection: close\r\n\
             Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n",
            reason(*status),
        );
        for (name, value) in &self.headers {
            write!(head, "{name}: {value}\r\n").ok();
        }
        head
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        409 => "Conflict",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        431 => "Request Header Fields Too Large",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(text: &str) -> Request {
        match Request::parse(text.as_bytes()) {
            Parsed::Complete(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn status(text: &str) -> u16 {
        match Request::parse(text.as_bytes()) {
            Parsed::Bad(response) => response.status,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_request_is_read_once_all_of_it_is_there() {
        let text = "POST /uids/a%2Fb%20c/kick?reason=no+more&x HTTP/1.1\r\nHost: x:1\r\n\
                    authorization: Bearer t\r\nContent-Length: 3\r\n\r\nabc";
        for end in 0..text.len() {
            assert_eq!(Request::parse(&text.as_bytes()[..end]), Parsed::Partial, "{end}");
        }
        let request = complete(text);
        assert_eq!(request.path, ["uids", "a/b c", "kick"]);
        assert_eq!(request.parameter("reason"), Some("no more"));
        assert_eq!((request.parameter("x"), request.parameter("y")), (Some(""), None));
        assert_eq!(request.authorization.as_deref(), Some("Bearer t"));
        assert_eq!((request.method, request.body.as_slice()), (Method::Post, &b"abc"[..]));
    }

    #[test]
    fn what_is_too_long_or_unclear_is_refused() {
        let head = |lines: &str| format!("GET / HTTP/1.1\r\n{lines}\r\n");
        assert_eq!(status(&head(&format!("A: {}\r\n", "x".repeat(HEAD_BYTES_MAX)))), 431);
        assert_eq!(status(&head(&"A: b\r\n".repeat(HEADERS_MAX + 1))), 431);
        assert_eq!(status(&head("Content-Length: 65537\r\n")), 413);
        assert_eq!(status(&head("Content-Length: 99999999999999999999999\r\n")), 413);
        assert_eq!(status(&head("Content-Length: +1\r\n")), 400);
        assert_eq!(status(&head("Content-Length: 1\r\nContent-Length: 2\r\n")), 400);
        assert_eq!(status(&head("Transfer-Encoding: chunked\r\n")), 501);
        assert_eq!(status(&head("Host: a\r\nHost: b\r\n")), 400);
        assert_eq!(status("\x16\x03\x01\x02\x00\x01"), 400, "TLS");
    }

    #[test]
    fn bad_escapes_stay_as_they_are() {
        assert_eq!(decode("%4", false), "%4");
        assert_eq!(decode("%zz+%41", true), "%zz A");
        assert_eq!(decode("a+b%ff", false), "a+b\u{fffd}");
    }

    #[test]
    fn a_head_has_no_body() {
        let response = Response::text(200, "hello");
        assert!(response.encode(Method::Get).ends_with(b"Content-Length: 5\r\n\r\nhello"));
        assert!(response.encode(Method::Head).ends_with(b"Content-Length: 5\r\n\r\n"));
    }
}
