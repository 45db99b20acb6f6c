//! The frames that a server sends: a line each, which a payload follows in two of them.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

/// A frame of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The server's description of itself, a JSON object; sent again when it changes.
    Info(Bytes),
    Message(Delivery),
    Ping,
    Pong,
    /// An error of the server's, in words.
    Error(String),
    /// An acknowledgement, which nobody asks for here.
    Ok,
}

/// A message on a subject that is subscribed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The number of the subscription.
    pub(crate) sid: u64,
    pub(crate) subject: Bytes,
    /// The subject on which an answer is wanted.
    pub(crate) reply: Option<Bytes>,
    /// The status that stands in the headers, such as 503 where nobody listens.
    pub(crate) status: Option<u16>,
    pub(crate) payload: Bytes,
}

/// Something that no NATS server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// A line of more bytes than [`LINE_BYTES_MAX`].
    LongLine,
    /// A line that is no frame.
    Unknown,
    /// A message whose line can't be read.
    Message,
    /// A message of more bytes than the server takes itself.
    LongMessage,
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::LongLine => "a line without an end",
            Self::Unknown => "a line that is no frame of NATS's",
            Self::Message => "a message whose line can't be read",
            Self::LongMessage => "a message longer than the server's own max_payload",
        })
    }
}

impl std::error::Error for BadFrame {}

/// Bytes of a line. The longest is that of a server's description, with the addresses of a cluster.
pub(crate) const LINE_BYTES_MAX: usize = 64 * 1024;

/// Takes the first frame out of what has come; `None` as long as it is not whole.
///
/// A payload shares the memory of `input`. It has `payload_bytes_max` bytes at most, its headers
/// included.
///
/// # Errors
/// The server can't be a NATS server; the connection is of no use any more.
pub(crate) fn decode(
    input: &mut BytesMut,
    payload_bytes_max: usize,
) -> Result<Option<Frame>, BadFrame> {
    let searched = &input[..input.len().min(LINE_BYTES_MAX)];
    let Some(end) = searched.iter().position(|byte| *byte == b'\n') else {
        return if input.len() < LINE_BYTES_MAX { Ok(None) } else { Err(BadFrame::LongLine) };
    };
    let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
    let (name, rest) = match line.iter().position(|byte| matches!(byte, b' ' | b'\t')) {
        Some(len) => (&line[..len], len + 1),
        None => (line, line.len()),
    };
    let is = |frame: &str| name.eq_ignore_ascii_case(frame.as_bytes());
    if is("MSG") {
        let message = Line::parse(line, rest, HasHeaders::No)?;
        return take_message(input, end + 1, message, payload_bytes_max);
    }
    if is("HMSG") {
        let message = Line::parse(line, rest, HasHeaders::Yes)?;
        return take_message(input, end + 1, message, payload_bytes_max);
    }
    let frame = if is("PING") {
        Frame::Ping
    } else if is("PONG") {
        Frame::Pong
    } else if is("+OK") {
        Frame::Ok
    } else if is("-ERR") {
        let words = String::from_utf8_lossy(&line[rest..]);
        Frame::Error(words.trim().trim_matches('\'').to_owned())
    } else if is("INFO") {
        let info = rest..line.len();
        return Ok(Some(Frame::Info(input.split_to(end + 1).freeze().slice(info))));
    } else {
        return Err(BadFrame::Unknown);
    };
    // Nothing is kept of it, so that its memory serves again.
    bytes::Buf::advance(input, end + 1);
    Ok(Some(frame))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HasHeaders {
    No,
    Yes,
}

/// The line of a message, by the places of its parts.
struct Line {
    sid: u64,
    subject: Range<usize>,
    reply: Option<Range<usize>>,
    headers_len: usize,
    /// Bytes of headers and payload together.
    len: usize,
}

impl Line {
    fn parse(line: &[u8], start: usize, headers: HasHeaders) -> Result<Self, BadFrame> {
        let mut parts = Parts { line, at: start };
        let subject = parts.next().ok_or(BadFrame::Message)?;
        let sid = parts.next().ok_or(BadFrame::Message)?;
        let mut numbers = [const { 0..0 }; 4];
        let mut count = 0;
        for part in parts {
            *numbers.get_mut(count).ok_or(BadFrame::Message)? = part;
            count += 1;
        }
        let wanted = if headers == HasHeaders::Yes { 2 } else { 1 };
        let reply = match count.checked_sub(wanted) {
            Some(0) => None,
            Some(1) => Some(numbers[0].clone()),
            _ => return Err(BadFrame::Message),
        };
        let number = |part: &Range<usize>| {
            let digits = std::str::from_utf8(&line[part.clone()]).ok();
            digits.and_then(|digits| digits.parse::<u64>().ok()).ok_or(BadFrame::Message)
        };
        let length = |part| usize::try_from(number(part)?).map_err(|_| BadFrame::LongMessage);
        let len = length(&numbers[count - 1])?;
        let headers_len = match headers {
            HasHeaders::Yes => length(&numbers[count - 2])?,
            HasHeaders::No => 0,
        };
        if headers_len > len {
            return Err(BadFrame::Message);
        }
        Ok(Self { sid: number(&sid)?, subject, reply, headers_len, len })
    }
}

/// The parts of a line, between its spaces.
struct Parts<'a> {
    line: &'a [u8],
    at: usize,
}

impl Iterator for Parts<'_> {
    type Item = Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
        let start = self.at + self.line[self.at..].iter().position(|byte| !is_space(byte))?;
        let len = self.line[start..].iter().position(is_space);
        let end = len.map_or(self.line.len(), |len| start + len);
        self.at = end;
        Some(start..end)
    }
}

fn take_message(
    input: &mut BytesMut,
    head_len: usize,
    line: Line,
    payload_bytes_max: usize,
) -> Result<Option<Frame>, BadFrame> {
    if line.len > payload_bytes_max {
        return Err(BadFrame::LongMessage);
    }
    let whole_len = head_len + line.len + b"\r\n".len();
    if input.len() < whole_len {
        // One reading more may be all that it takes.
        input.reserve(whole_len - input.len());
        return Ok(None);
    }
    let frame = input.split_to(whole_len).freeze();
    let payload_start = head_len + line.headers_len;
    let status = status(&frame[head_len..payload_start]);
    Ok(Some(Frame::Message(Delivery {
        sid: line.sid,
        subject: frame.slice(line.subject),
        reply: line.reply.map(|reply| frame.slice(reply)),
        status,
        payload: frame.slice(payload_start..head_len + line.len),
    })))
}

/// The status in the first line of some headers, `NATS/1.0 503`.
fn status(headers: &[u8]) -> Option<u16> {
    let rest = headers.strip_prefix(b"NATS/1.0")?.trim_ascii_start();
    let digits = rest.get(..3)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1024;

    fn all(bytes: &[u8]) -> Result<Vec<Frame>, BadFrame> {
        let mut input = BytesMut::from(bytes);
        std::iter::from_fn(|| decode(&mut input, MAX).transpose()).collect()
    }

    fn message(sid: u64, reply: Option<&'static str>, payload: &'static str) -> Delivery {
        let subject = Bytes::from_static(b"a.b");
        let reply = reply.map(|reply| Bytes::from_static(reply.as_bytes()));
        Delivery { sid, subject, reply, status: None, payload: payload.into() }
    }

    #[test]
    fn frames_are_read_as_servers_write_them() {
        let bytes =
            b"INFO {\"max_payload\":9} \r\nPING\r\nPONG\r\n+OK\r\n-ERR 'Stale Connection'\r\n\
            MSG a.b 7 5\r\nhello\r\nMSG a.b 8 in.1 0\r\n\r\n\
            HMSG a.b 9 16 16\r\nNATS/1.0 503\r\n\r\n\r\n\
            HMSG a.b 10 r 12 14\r\nNATS/1.0\r\n\r\nhi\r\n";
        let headers_len = b"NATS/1.0 503\r\n\r\n".len();
        assert_eq!(headers_len, 16);
        let nobody = Delivery { status: Some(503), ..message(9, None, "") };
        let wanted = [
            Frame::Info(Bytes::from_static(b"{\"max_payload\":9} ")),
            Frame::Ping,
            Frame::Pong,
            Frame::Ok,
            Frame::Error("Stale Connection".into()),
            Frame::Message(message(7, None, "hello")),
            Frame::Message(message(8, Some("in.1"), "")),
            Frame::Message(nobody),
            Frame::Message(message(10, Some("r"), "hi")),
        ];
        assert_eq!(all(bytes), Ok(wanted.to_vec()));
        // The same in pieces of any length.
        for len in 1..20 {
            let (mut input, mut found) = (BytesMut::new(), Vec::new());
            for piece in bytes.chunks(len) {
                input.extend_from_slice(piece);
                while let Some(frame) = decode(&mut input, MAX).unwrap() {
                    found.push(frame);
                }
            }
            assert_eq!(found, wanted, "in pieces of {len}");
        }
    }

    #[test]
    fn what_is_no_frame_ends_the_connection() {
        for (bytes, fault) in [
            ("HTTP/1.1 400 Bad Request\r\n", BadFrame::Unknown),
            ("\r\n", BadFrame::Unknown),
            ("MSG a.b 7\r\n", BadFrame::Message),
            ("MSG a.b seven 5\r\n", BadFrame::Message),
            ("MSG a.b 7 r s 5\r\n", BadFrame::Message),
            ("MSG a.b 7 -5\r\n", BadFrame::Message),
            ("HMSG a.b 7 5\r\n", BadFrame::Message),
            ("HMSG a.b 7 6 5\r\n", BadFrame::Message),
            ("MSG a.b 7 1025\r\n", BadFrame::LongMessage),
            ("MSG a.b 7 18446744073709551615\r\n", BadFrame::LongMessage),
        ] {
            assert_eq!(all(bytes.as_bytes()), Err(fault), "{bytes}");
        }
        let endless = vec![b'x'; LINE_BYTES_MAX];
        assert_eq!(all(&endless), Err(BadFrame::LongLine));
        assert_eq!(all(&endless[1..]), Ok(Vec::new()));
    }
}
