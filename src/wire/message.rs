//! The message, the body of a data package.
//!
//! ```text
//!  0      1
//!  +------+-----------------+-----------------------+---------+
//!  | flag | id, varint      | route                 | body    |
//!  |      | request,        | request, notify, push | to the  |
//!  |      | response        |                       | end     |
//!  +------+-----------------+-----------------------+---------+
//!
//!  flag:   bit 0     the route is a dictionary code
//!          bits 1-3  type: 0 request, 1 notify, 2 response, 3 push
//!          bit 4     the body is compressed; passed on, never acted on
//!          bits 5-7  ignored
//!  route:  one length byte and that many UTF-8 bytes, or a two-byte big-endian code
//! ```

use std::{borrow::Cow, fmt};

use super::varint::{self, VarintError};

/// The longest text route: its length is one byte.
pub const ROUTE_BYTES_MAX: usize = 255;

/// The type of a message.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum MessageType {
    /// A client's call that is answered under its id; id 0 asks for no answer.
    Request = 0,
    /// A client's call without an answer.
    Notify = 1,
    /// The server's answer to the request of the same id.
    Response = 2,
    /// A message that the server sends unasked; from a client it is treated as a notify.
    Push = 3,
}

impl MessageType {
    #[inline]
    const fn has_id(self) -> bool {
        // One bit tells requests and responses from the others.
        self as u8 & 1 == 0
    }
}

/// A route as it stands on the wire, borrowed.
///
/// ```
/// use shaddock::wire::message::RouteRef;
///
/// assert_eq!(RouteRef::Text(b"onChat").to_text_lossy().unwrap(), "onChat");
/// assert_eq!(RouteRef::Code(7).to_text_lossy(), None);
/// ```
#[allow(clippy::exhaustive_enums, reason = "the flag bit has two values; callers match both")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RouteRef<'a> {
    /// The bytes as sent, 0 to [`ROUTE_BYTES_MAX`] of them; a peer may send invalid UTF-8.
    Text(&'a [u8]),
    /// A dictionary code.
    Code(u16),
}

impl<'a> RouteRef<'a> {
    /// The text of the route, `None` for a code.
    ///
    /// Invalid bytes become U+FFFD as on the stock server; valid text is borrowed.
    #[must_use]
    pub fn to_text_lossy(self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(bytes) => Some(String::from_utf8_lossy(bytes)),
            Self::Code(_) => None,
        }
    }

    #[inline]
    const fn encoded_len(self) -> usize {
        match self {
            Self::Text(bytes) => 1 + bytes.len(),
            Self::Code(_) => 2,
        }
    }

    #[inline]
    const fn flag(self) -> u8 {
        match self {
            Self::Text(_) => 0,
            Self::Code(_) => ROUTE_CODE_BIT,
        }
    }
}

/// A decoded message; route and body borrow the input.
///
/// These are all the parts that the protocol has, and [`encode`] takes one that is written out: no
/// member will be added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Message<'a> {
    /// The request id; 0 if the type has none.
    pub id: u32,
    /// The message's type.
    pub kind: MessageType,
    /// `None` exactly for a response.
    pub route: Option<RouteRef<'a>>,
    /// The remaining bytes: JSON, or Pomelo's protobuf if the route has a schema.
    pub body: &'a [u8],
    /// True if the peer has marked the body as compressed. Pomelo hands the mark on and never acts
    /// on it.
    pub gzip: bool,
}

/// Decodes the body of a data package.
///
/// # Errors
/// [`MessageError::UnknownType`] asks the caller to drop the message. Every other error means a
/// malformed message and asks the caller to close the session; the stock server throws there.
///
/// # Examples
/// ```
/// use shaddock::wire::message::{self, MessageType, RouteRef};
///
/// let message = message::decode(b"\x00\x07\x0achat.a.sayhi")?;
/// assert_eq!((message.kind, message.id), (MessageType::Request, 7));
/// assert_eq!(message.route, Some(RouteRef::Text(b"chat.a.say")));
/// assert_eq!(message.body, b"hi");
/// # Ok::<(), message::MessageError>(())
/// ```
// Every message passes here, and a shard has several call sites. Left alone, the compiler makes a
// call of it in each, which costs a message 3 %.
#[inline(always)]
pub fn decode(input: &[u8]) -> Result<Message<'_>, MessageError> {
    let Some((&flag, mut rest)) = input.split_first() else { return Err(MessageError::Empty) };
    let kind = match flag >> 1 & 0b111 {
        0 => MessageType::Request,
        1 => MessageType::Notify,
        2 => MessageType::Response,
        3 => MessageType::Push,
        other => return Err(MessageError::UnknownType(other)),
    };
    let mut id = 0;
    if kind.has_id() {
        let (value, len) = varint::decode(rest).map_err(MessageError::from_varint)?;
        id = value;
        rest = &rest[len..];
    }
    let route = match kind {
        MessageType::Response => None,
        _ if flag & ROUTE_CODE_BIT != 0 => {
            let (code, body) = rest.split_first_chunk().ok_or(MessageError::Truncated)?;
            rest = body;
            Some(RouteRef::Code(u16::from_be_bytes(*code)))
        }
        _ => {
            let (&len, tail) = rest.split_first().ok_or(MessageError::Truncated)?;
            let (text, body) =
                tail.split_at_checked(usize::from(len)).ok_or(MessageError::Truncated)?;
            rest = body;
            Some(RouteRef::Text(text))
        }
    };
    Ok(Message { id, kind, route, body: rest, gzip: flag & GZIP_BIT != 0 })
}

/// Appends `message` to `out`. A response is written without its route, and a type that has no id
/// without its id.
///
/// ```
/// use shaddock::wire::message::{self, Message, MessageType, RouteRef};
///
/// let push = Message {
///     id: 0,
///     kind: MessageType::Push,
///     route: Some(RouteRef::Code(7)),
///     body: b"{}",
///     gzip: false,
/// };
/// let mut out = Vec::new();
/// message::encode(&push, &mut out)?;
/// assert_eq!(out, b"\x07\x00\x07{}");
/// # Ok::<(), message::EncodeError>(())
/// ```
///
/// # Errors
/// [`EncodeError`] if the route is missing or too long; `out` is left as it was.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let route = match (message.kind, message.route) {
        (MessageType::Response, _) => None,
        (_, Some(route)) => Some(checked(route)?),
        (_, None) => return Err(EncodeError::RouteMissing),
    };
    let mut flag = (message.kind as u8) << 1;
    if let Some(route) = route {
        flag |= route.flag();
    }
    if message.gzip {
        flag |= GZIP_BIT;
    }
    let route_len = route.map_or(0, RouteRef::encoded_len);
    out.reserve(1 + varint::VARINT_BYTES_MAX + route_len + message.body.len());
    out.push(flag);
    if message.kind.has_id() {
        varint::encode(message.id, out);
    }
    if let Some(route) = route {
        append_route(route, out);
    }
    out.extend_from_slice(message.body);
    Ok(())
}

/// The first byte of a response.
pub(crate) const RESPONSE_FLAG: u8 = (MessageType::Response as u8) << 1;

/// The most bytes in front of a response's body.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 1 + varint::VARINT_BYTES_MAX;

/// Appends the head of a response: the flag and the request's id.
#[inline]
pub fn encode_response_head(id: u32, out: &mut Vec<u8>) {
    out.push(RESPONSE_FLAG);
    varint::encode(id, out);
}

/// The number of bytes that [`encode_response_head`] appends.
#[inline]
#[must_use]
pub const fn response_head_len(id: u32) -> usize {
    1 + varint::len(id)
}

/// Appends the head of a push: the flag and the route.
///
/// ```
/// use shaddock::wire::message::{
///     RouteRef, encode_push_head, encode_response_head, push_head_len, response_head_len,
/// };
///
/// let [mut push, mut response] = [Vec::new(), Vec::new()];
/// let route = RouteRef::Text(b"onChat");
/// encode_push_head(&route, &mut push)?;
/// assert_eq!((&push[..], push_head_len(&route)), (&b"\x06\x06onChat"[..], push.len()));
/// encode_response_head(300, &mut response);
/// assert_eq!((&response[..], response_head_len(300)), (&b"\x04\xac\x02"[..], response.len()));
/// # Ok::<(), shaddock::wire::message::EncodeError>(())
/// ```
///
/// # Errors
/// [`EncodeError::RouteTooLong`]; `out` is left as it was.
#[inline]
pub fn encode_push_head(route: &RouteRef<'_>, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    let route = checked(*route)?;
    out.push((MessageType::Push as u8) << 1 | route.flag());
    append_route(route, out);
    Ok(())
}

/// The number of bytes that [`encode_push_head`] appends.
#[inline]
#[must_use]
pub const fn push_head_len(route: &RouteRef<'_>) -> usize {
    1 + route.encoded_len()
}

/// The reasons to refuse a message; the peer is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageError {
    /// A data package without a body.
    Empty,
    /// The id, the route's length, the route or the code runs past the end.
    Truncated,
    /// The id takes more than five bytes or exceeds 2^32 - 1.
    IdOverflow,
    /// Type 4 to 7. The stock server finds no route and drops the message with a log line; the
    /// session stays open.
    UnknownType(u8),
}

impl MessageError {
    const fn from_varint(error: VarintError) -> Self {
        match error {
            VarintError::Truncated => Self::Truncated,
            VarintError::Overflow => Self::IdOverflow,
        }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty message"),
            Self::Truncated => f.write_str("the message is cut off"),
            Self::IdOverflow => f.write_str("the request id does not fit 32 bits"),
            Self::UnknownType(kind) => write!(f, "unknown message type {kind}"),
        }
    }
}

impl std::error::Error for MessageError {}

/// The reasons why a message cannot be sent; the embedder is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodeError {
    /// A route is missing, which every type but a response needs.
    RouteMissing,
    /// The route is longer than [`ROUTE_BYTES_MAX`].
    RouteTooLong {
        /// The length of the refused route in bytes.
        len: usize,
    },
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RouteMissing => f.write_str("the message has no route"),
            Self::RouteTooLong { len } => {
                write!(f, "route of {len} bytes, at most {ROUTE_BYTES_MAX} allowed")
            }
        }
    }
}

impl std::error::Error for EncodeError {}

#[inline]
const fn checked(route: RouteRef<'_>) -> Result<RouteRef<'_>, EncodeError> {
    match route {
        RouteRef::Text(bytes) if bytes.len() > ROUTE_BYTES_MAX => {
            Err(EncodeError::RouteTooLong { len: bytes.len() })
        }
        route => Ok(route),
    }
}

#[inline]
fn append_route(route: RouteRef<'_>, out: &mut Vec<u8>) {
    match route {
        RouteRef::Text(bytes) => {
            debug_assert!(bytes.len() <= ROUTE_BYTES_MAX);
            out.push(bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
        RouteRef::Code(code) => out.extend_from_slice(&code.to_be_bytes()),
    }
}

const ROUTE_CODE_BIT: u8 = 0x01;
const GZIP_BIT: u8 = 0x10;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(message: &Message<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        encode(message, &mut out).unwrap();
        out
    }

    fn samples() -> Vec<Message<'static>> {
        let text = Some(RouteRef::Text(b"chat.chatHandler.send"));
        let code = Some(RouteRef::Code(0x0102));
        let body: &[u8] = b"{\"a\":1}";
        vec![
            Message { id: 300, kind: MessageType::Request, route: text, body, gzip: false },
            Message { id: u32::MAX, kind: MessageType::Request, route: code, body, gzip: true },
            Message { id: 0, kind: MessageType::Notify, route: text, body: b"", gzip: false },
            Message { id: 1 << 31, kind: MessageType::Response, route: None, body, gzip: false },
            Message { id: 0, kind: MessageType::Push, route: code, body, gzip: false },
        ]
    }

    #[test]
    fn every_type_survives_the_round_trip() {
        for message in samples() {
            assert_eq!(decode(&encoded(&message)), Ok(message));
        }
    }

    #[test]
    fn a_cut_in_front_of_the_body_is_truncated_and_a_cut_inside_it_shortens_it() {
        for message in samples() {
            let bytes = encoded(&message);
            let head_len = bytes.len() - message.body.len();
            for cut in 1..head_len {
                assert_eq!(decode(&bytes[..cut]), Err(MessageError::Truncated), "{cut}");
            }
            for cut in head_len..bytes.len() {
                let body = &message.body[..cut - head_len];
                assert_eq!(decode(&bytes[..cut]), Ok(Message { body, ..message }));
            }
        }
        assert_eq!(decode(&[]), Err(MessageError::Empty));
    }

    #[test]
    fn a_changed_byte_is_refused_or_still_encodes_to_a_message() {
        for message in samples() {
            let bytes = encoded(&message);
            let values = |index| (0..=u8::MAX).map(move |value| (index, value));
            let all = (0..bytes.len()).flat_map(values);
            for (index, value) in crate::test_cases::cases(97, all) {
                let mut changed = bytes.clone();
                changed[index] = value;
                if let Ok(message) = decode(&changed) {
                    assert_eq!(decode(&encoded(&message)), Ok(message));
                }
            }
        }
    }

    #[test]
    fn heads_are_what_encode_writes() {
        for id in [0, 127, 128, u32::MAX] {
            let mut head = Vec::new();
            encode_response_head(id, &mut head);
            let kind = MessageType::Response;
            assert_eq!(head, encoded(&Message { id, kind, route: None, body: b"", gzip: false }));
            assert_eq!(head.len(), response_head_len(id));
        }
        for route in [RouteRef::Text(b""), RouteRef::Text(b"onChat"), RouteRef::Code(9)] {
            let mut head = Vec::new();
            encode_push_head(&route, &mut head).unwrap();
            let message = Message {
                id: 0,
                kind: MessageType::Push,
                route: Some(route),
                body: b"",
                gzip: false,
            };
            assert_eq!(head, encoded(&message));
            assert_eq!(head.len(), push_head_len(&route));
        }
    }

    #[test]
    fn a_route_over_255_bytes_or_missing_is_refused_and_nothing_is_written() {
        let long = [b'x'; ROUTE_BYTES_MAX + 1];
        let refused = Err(EncodeError::RouteTooLong { len: 256 });
        let mut out = vec![1];
        assert_eq!(encode_push_head(&RouteRef::Text(&long), &mut out), refused);
        let mut message = samples()[0];
        message.route = Some(RouteRef::Text(&long));
        assert_eq!(encode(&message, &mut out), refused);
        message.route = None;
        assert_eq!(encode(&message, &mut out), Err(EncodeError::RouteMissing));
        assert_eq!(out, [1]);
        message.route = Some(RouteRef::Text(&long[1..]));
        assert_eq!(decode(&encoded(&message)), Ok(message));
    }

    #[test]
    fn invalid_text_in_a_route_is_replaced_only_when_asked_for() {
        let message = decode(&[2, 2, 0xff, 0xfe]).unwrap();
        assert_eq!(message.route, Some(RouteRef::Text(&[0xff, 0xfe])));
        let text = message.route.unwrap().to_text_lossy();
        assert_eq!(text.as_deref(), Some("\u{fffd}\u{fffd}"));
        assert_eq!(RouteRef::Code(1).to_text_lossy(), None);
    }
}
