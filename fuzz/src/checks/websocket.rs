//! The WebSocket codec against tungstenite: the same bytes, the same messages, pongs and end.

use std::io::{self, Read, Write};

use shaddock::wire::websocket::{
    self, Fragments, FrameError, FrameHeader, HEADER_BYTES_MAX, HeaderStatus, Opcode,
};
use tungstenite::{
    Error, Message,
    protocol::{Role, WebSocket, WebSocketConfig},
};

/// Frames, valid or not, are read as tungstenite reads them, except where [`tolerated`] allows.
pub fn check(input: &[u8]) {
    let (ours, theirs) = read_both(input, MESSAGE_BYTES_MAX);
    if ours.events != theirs.events {
        assert!(tolerated(&ours, &theirs), "{ours:?}\n{theirs:?}");
    }
}

/// The outcomes of both on `input`; ours is the same for reads of every size.
pub fn read_both(input: &[u8], message_bytes_max: usize) -> (Outcome, Outcome) {
    let ours = read_ours(input, message_bytes_max, Reads { header: 1, payload: 5 });
    let reads = Reads { header: HEADER_BYTES_MAX, payload: input.len().max(1) };
    assert_eq!(ours, read_ours(input, message_bytes_max, reads));
    let theirs = read_theirs(input, message_bytes_max);
    // tungstenite also answers a close; a session decides that itself.
    assert!(theirs.written.starts_with(&ours.written), "{ours:?}\n{theirs:?}");
    (ours, theirs)
}

/// True where the two differ on purpose. Shaddock refuses a frame at the byte that proves it wrong,
/// tungstenite once the frame is complete. tungstenite accepts a control frame whose length has a
/// longer form than necessary, and predates the registration of close code 1014.
fn tolerated(ours: &Outcome, theirs: &Outcome) -> bool {
    let (Some(last), before) = (ours.events.last(), &ours.events[..ours.events.len().max(1) - 1])
    else {
        return false;
    };
    match last {
        Event::Error if ours.error == Some(FrameError::ControlTooLong) => {
            theirs.events.starts_with(before)
        }
        Event::Error => theirs.events == before,
        // A client's own close reason may look like the close that tungstenite makes up.
        Event::Close(Some(1014 | websocket::CLOSE_PROTOCOL_ERROR)) => {
            theirs.events.strip_prefix(before) == Some(&[Event::Error])
        }
        _ => false,
    }
}

/// An event that a reader reports.
#[derive(Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// A whole message in UTF-8.
    Text(Vec<u8>),
    /// A whole message.
    Binary(Vec<u8>),
    /// A ping and its payload.
    Ping(Vec<u8>),
    /// A pong and its payload.
    Pong(Vec<u8>),
    /// The peer's close and its code.
    Close(Option<u16>),
    /// The input is refused.
    Error,
}

/// The outcome of an input.
#[derive(Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// In the order of the frames; nothing follows a close or an error.
    pub events: Vec<Event>,
    /// The answers to pings.
    pub written: Vec<u8>,
    /// The error behind our [`Event::Error`].
    error: Option<FrameError>,
}

/// The cuts of an input: the most bytes seen at once.
#[derive(Clone, Copy)]
struct Reads {
    header: usize,
    payload: usize,
}

/// Reads as a session does, by the codec alone: the payload is unmasked in place as it arrives.
fn read_ours(bytes: &[u8], message_bytes_max: usize, reads: Reads) -> Outcome {
    let mut outcome = Outcome::default();
    let mut fragments = Fragments::new(message_bytes_max);
    let mut message = (Opcode::Binary, Vec::new());
    let mut start = 0;
    while start < bytes.len() {
        let header = match read_header(&bytes[start..], message_bytes_max, reads.header) {
            Ok(Some(header)) => header,
            Ok(None) => return outcome,
            Err(error) => return outcome.failed(error),
        };
        if let Err(error) = fragments.on_frame(&header) {
            return outcome.failed(error);
        }
        start += header.header_len;
        let end = start + header.payload_len;
        if end > bytes.len() {
            return outcome;
        }
        let mut payload = bytes[start..end].to_vec();
        for (place, part) in payload.chunks_mut(reads.payload).enumerate() {
            websocket::unmask(part, header.mask, place * reads.payload);
        }
        start = end;
        match handle(&header, payload, &mut message, &mut outcome) {
            Ok(true) => {}
            Ok(false) => return outcome,
            Err(error) => return outcome.failed(error),
        }
    }
    outcome
}

/// Decodes a header from reads of growing length; every result on the way must agree with the last.
fn read_header(
    bytes: &[u8],
    payload_bytes_max: usize,
    step: usize,
) -> Result<Option<FrameHeader>, FrameError> {
    let mut len = 0;
    loop {
        len = (len + step).min(bytes.len());
        match websocket::decode_header(&bytes[..len], payload_bytes_max) {
            Ok(HeaderStatus::Complete(header)) => {
                assert!(header.header_len <= len.min(HEADER_BYTES_MAX));
                return Ok(Some(header));
            }
            Ok(HeaderStatus::Partial { needed }) => {
                assert!(needed > len);
                if len == bytes.len() {
                    return Ok(None);
                }
            }
            Err(error) => {
                let whole = websocket::decode_header(bytes, payload_bytes_max);
                assert_eq!(whole, Err(error));
                return Err(error);
            }
        }
    }
}

/// Handles one frame. False once the peer has closed.
fn handle(
    header: &FrameHeader,
    payload: Vec<u8>,
    message: &mut (Opcode, Vec<u8>),
    outcome: &mut Outcome,
) -> Result<bool, FrameError> {
    match header.opcode {
        Opcode::Close => {
            outcome.events.push(Event::Close(websocket::decode_close(&payload)?));
            return Ok(false);
        }
        Opcode::Ping => {
            websocket::encode_pong(&payload, &mut outcome.written);
            outcome.events.push(Event::Ping(payload));
            return Ok(true);
        }
        Opcode::Pong => {
            outcome.events.push(Event::Pong(payload));
            return Ok(true);
        }
        Opcode::Continuation => message.1.extend_from_slice(&payload),
        opcode => *message = (opcode, payload),
    }
    if message.0 == Opcode::Text {
        // tungstenite checks fragments as they arrive; a character may be cut between two.
        let checked = std::str::from_utf8(&message.1);
        if checked.is_err_and(|error| error.error_len().is_some()) {
            return Err(FrameError::BadText);
        }
    }
    if header.fin {
        let (opcode, payload) = std::mem::replace(message, (Opcode::Binary, Vec::new()));
        if opcode == Opcode::Text {
            websocket::check_text(&payload)?;
            outcome.events.push(Event::Text(payload));
        } else {
            outcome.events.push(Event::Binary(payload));
        }
    }
    Ok(true)
}

impl Outcome {
    fn failed(mut self, error: FrameError) -> Self {
        self.events.push(Event::Error);
        self.error = Some(error);
        self
    }
}

fn read_theirs(bytes: &[u8], message_bytes_max: usize) -> Outcome {
    let config = WebSocketConfig::default()
        .max_frame_size(Some(message_bytes_max))
        .max_message_size(Some(message_bytes_max));
    let stream = Stream::new(bytes);
    let mut server = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    let mut events = Vec::new();
    loop {
        events.push(match server.read() {
            Ok(Message::Text(text)) => Event::Text(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Event::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Event::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Event::Pong(bytes.to_vec()),
            // tungstenite reports a code that must not be sent as a close it made up.
            Ok(Message::Close(Some(frame))) if frame.reason.as_str() == "Protocol violation" => {
                Event::Error
            }
            Ok(Message::Close(frame)) => Event::Close(frame.map(|frame| frame.code.into())),
            Ok(Message::Frame(frame)) => panic!("unexpected raw frame {frame}"),
            // The end of the input.
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)) => Event::Error,
            Err(error) => panic!("unexpected error {error}"),
        });
        if matches!(events.last(), Some(Event::Error | Event::Close(_))) {
            break;
        }
    }
    Outcome { events, written: std::mem::take(&mut server.get_mut().written), error: None }
}

/// Input that ends like a socket without more bytes for now, and a record of the output.
#[derive(Debug)]
pub struct Stream<'a> {
    input: &'a [u8],
    written: Vec<u8>,
}

impl<'a> Stream<'a> {
    /// A socket to which nothing has been written.
    #[must_use]
    pub const fn new(input: &'a [u8]) -> Self {
        Self { input, written: Vec::new() }
    }
}

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The longest message, short enough that a fuzzer's inputs reach it.
const MESSAGE_BYTES_MAX: usize = 1_000;
