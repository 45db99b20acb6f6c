//! The protocol of one connection, without its socket.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::error::{Closed, Fault, RequestError};
use super::handshake::{self, Welcome};
use super::message::{Answer, Push};
use super::options::Options;
use super::pending::PendingRequests;
use super::tables::Tables;
use super::websocket::{Received, WebSocket};
use crate::wire::message::{self, Message, MessageType, RouteRef};
use crate::wire::package::{self, BODY_BYTES_MAX, HEADER_BYTES, PackageError, PackageType, Status};
use crate::wire::protobuf::{DecodeError, Schema};

/// The client's side of one connection as a state machine: bytes and the time in, events and bytes
/// out. It does no I/O and reads no clock; [`Client`](super::Client) is this with a socket.
///
/// Its driver
/// 1. hands it what was received ([`Self::receive`]), or that there is nothing more
///    ([`Self::end`]), and takes events until there are none ([`Self::poll_event`]);
/// 2. sends [`Self::output`], and says how much of it was sent ([`Self::sent`]);
/// 3. calls [`Self::handle_timeout`] at the time of [`Self::next_timeout`], and takes events again;
/// 4. closes the socket behind [`Event::Closed`], once the output that is left has been sent.
///
/// # Examples
/// ```
/// use std::time::Instant;
///
/// use shaddock::client::{Event, Options, Protocol};
///
/// let now = Instant::now();
/// let mut protocol = Protocol::new(Options::new(), now);
/// assert!(protocol.output().starts_with(&[1, 0, 0])); // A handshake.
/// protocol.sent(protocol.output().len());
///
/// protocol.receive(b"\x01\0\0\x0c{\"code\":200}", now);
/// assert!(matches!(protocol.poll_event(), Some(Event::Ready { .. })));
/// let id = protocol.request("connector.entryHandler.hello", b"{}", now)?;
/// assert!(protocol.output().starts_with(b"\x02\0\0\0\x04\0\0")); // The ACK and the request.
///
/// protocol.receive(b"\x04\0\0\x04\x04\x01{}", now);
/// let Some(Event::Answer { id: answered, answer }) = protocol.poll_event() else { panic!() };
/// assert_eq!((answered, answer?.body()), (id, &b"{}"[..]));
/// # Ok::<(), shaddock::client::RequestError>(())
/// ```
///
/// A driver of one connection, with a socket of the standard library's:
///
/// ```
/// use std::io::{self, Read as _, Write as _};
/// use std::net::TcpStream;
/// use std::time::{Duration, Instant};
///
/// use shaddock::client::{Closed, Event, Protocol};
///
/// fn drive(mut protocol: Protocol, mut socket: TcpStream) -> io::Result<()> {
///     let mut buffer = [0; 4096];
///     loop {
///         while let Some(event) = protocol.poll_event() {
///             match event {
///                 Event::Closed(_) => return socket.write_all(protocol.output()),
///                 Event::Ready { .. } => _ = protocol.notify("connector.a.hello", b"{}"),
///                 _ => protocol.close(),
///             }
///         }
///         socket.write_all(protocol.output())?;
///         protocol.sent(protocol.output().len());
///         let timeout = protocol.next_timeout().map(|at| at.duration_since(Instant::now()));
///         socket.set_read_timeout(timeout.map(|time| time.max(Duration::from_millis(1))))?;
///         match socket.read(&mut buffer) {
///             Ok(0) => protocol.end(Closed::ByServer),
///             Ok(len) => protocol.receive(&buffer[..len], Instant::now()),
///             Err(_) => protocol.handle_timeout(Instant::now()),
///         }
///     }
/// }
/// ```
#[derive(Debug)]
pub struct Protocol {
    options: Options,
    websocket: Option<WebSocket>,
    state: State,
    /// Packages as they were received, from `read` on not handled yet.
    input: Vec<u8>,
    read: usize,
    /// Bytes for the server, from `sent` on not sent yet.
    output: Vec<u8>,
    sent: usize,
    tables: Arc<Tables>,
    /// The end that comes behind the packages which are there.
    end: Option<Closed>,
    /// The latest time at which the handshake is done.
    ready_by: Instant,
    heartbeat: Option<Heartbeat>,
    /// The last time that the server sent anything.
    heard: Instant,
    pending: PendingRequests,
}

/// The states of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Upgrade,
    Handshake,
    Ready,
    Over,
}

#[derive(Debug, Clone, Copy)]
struct Heartbeat {
    interval: Duration,
    /// The time of the client's next.
    next: Instant,
}

/// Something that has come of a connection.
#[non_exhaustive]
#[derive(Debug)]
pub enum Event {
    /// The handshake is done: requests may be sent. Comes once, first.
    Ready {
        /// The answer's `user`, the game's word to this client.
        user: Option<Value>,
    },
    /// A request has been answered, or has failed. Comes once for each request, unless the
    /// connection is over before.
    Answer {
        /// The id that [`Protocol::request`] gave.
        id: u32,
        /// The answer. [`RequestError::TimedOut`] and [`RequestError::Answer`] are its failures.
        answer: Result<Answer, RequestError>,
    },
    /// A message that the server has sent unasked.
    Push(Push),
    /// The connection is over, and all requests that wait have failed. Comes once, last.
    Closed(Closed),
}

/// A year: no deadline of a client is later.
const FAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Protocol {
    /// A connection over TCP or TLS. Its handshake is in the output already.
    #[must_use]
    pub fn new(options: Options, now: Instant) -> Self {
        Self::with(options, None, now)
    }

    /// A connection over a WebSocket, to the resource `path` of `host`, the host's name with its
    /// port. Neither may hold what has no place in a line of HTTP.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use shaddock::client::{Options, Protocol};
    /// let protocol = Protocol::websocket(Options::new(), "127.0.0.1:3010", "/", Instant::now());
    /// assert!(protocol.output().starts_with(b"GET / HTTP/1.1\r\n"));
    /// ```
    #[must_use]
    pub fn websocket(options: Options, host: &str, path: &str, now: Instant) -> Self {
        Self::with(options, Some((host, path)), now)
    }

    fn with(options: Options, websocket: Option<(&str, &str)>, now: Instant) -> Self {
        let mut output = Vec::new();
        let websocket = websocket.map(|(host, path)| WebSocket::new(host, path, &mut output));
        let tables = options.tables.clone().unwrap_or_default();
        let ready_by = later(now, options.connect_timeout);
        let mut protocol = Self {
            options,
            websocket,
            state: State::Upgrade,
            input: Vec::new(),
            read: 0,
            output,
            sent: 0,
            tables,
            end: None,
            ready_by,
            heartbeat: None,
            heard: now,
            pending: PendingRequests::default(),
        };
        if protocol.websocket.is_none() {
            protocol.shake_hands();
        }
        protocol
    }

    fn shake_hands(&mut self) {
        self.state = State::Handshake;
        let body = handshake::request(&self.options);
        let (len, max) = (body.len(), BODY_BYTES_MAX);
        if len > max {
            self.end = Some(Fault::Package(PackageError::TooLong { len, max }).into());
        } else {
            self.send_package(PackageType::Handshake, &body);
        }
    }

    /// Takes bytes from the server. Events have to be taken before the next call, as what is not
    /// handled is kept without a bound of its own.
    pub fn receive(&mut self, bytes: &[u8], now: Instant) {
        if self.end.is_some() || self.state == State::Over {
            return;
        }
        self.heard = now;
        let Some(websocket) = &mut self.websocket else {
            self.input.extend_from_slice(bytes);
            return;
        };
        let max = self.sent.saturating_add(self.options.output_bytes_max);
        match websocket.receive(bytes, &mut self.input, &mut self.output, max) {
            Ok(Received::Open) => {}
            Ok(Received::Ended) => self.end = Some(Closed::ByServer),
            Err(reason) => self.end = Some(reason),
        }
        if self.state == State::Upgrade && websocket.is_open() {
            self.shake_hands();
        }
    }

    /// Ends the connection behind what was received: by [`Closed::ByServer`] if the server has
    /// ended it, else as the socket has failed.
    pub fn end(&mut self, reason: Closed) {
        self.end.get_or_insert(reason);
    }

    /// The next event, `None` if there is none for now.
    pub fn poll_event(&mut self) -> Option<Event> {
        if self.state == State::Over {
            return None;
        }
        if let Some(id) = self.pending.next_timed_out() {
            return Some(Event::Answer { id, answer: Err(RequestError::TimedOut) });
        }
        loop {
            let max = match self.state {
                State::Ready => self.options.package_bytes_max,
                _ => self.options.handshake_bytes_max,
            };
            let (kind, body_len) = match package::decode(&self.input[self.read..], max) {
                Ok(Status::Complete { value, .. }) => (value.kind, value.body.len()),
                Ok(Status::Partial { .. }) => break,
                Err(error) => return Some(self.over(Fault::Package(error).into())),
            };
            let start = self.read + HEADER_BYTES;
            self.read = start + body_len;
            match self.handle(kind, start..start + body_len) {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(reason) => return Some(self.over(reason)),
            }
        }
        self.input.drain(..self.read);
        self.read = 0;
        if self.input.is_empty() {
            // What one long package took is not kept while there is none.
            self.input.shrink_to(INPUT_KEPT_BYTES);
        }
        let reason = self.end.take()?;
        Some(self.over(reason))
    }

    /// Handles a package, whose body is at `body` of the input.
    fn handle(
        &mut self,
        kind: PackageType,
        body: std::ops::Range<usize>,
    ) -> Result<Option<Event>, Closed> {
        match (kind, self.state) {
            (PackageType::Handshake, State::Handshake) => {
                let known = self.options.tables.as_deref();
                let welcome = handshake::read(&self.input[body], known)?;
                Ok(Some(self.ready(welcome)))
            }
            // A second answer changes nothing.
            (PackageType::Handshake, State::Ready) => Ok(None),
            (PackageType::Heartbeat, State::Ready) => Ok(None),
            (PackageType::Data, State::Ready) => self.message(body),
            (PackageType::Kick, State::Handshake | State::Ready) => {
                let kick = serde_json::from_slice::<Value>(&self.input[body]).unwrap_or_default();
                let reason = kick.get("reason").and_then(Value::as_str).map(str::to_owned);
                Err(Closed::Kicked { reason })
            }
            (kind, _) => Err(Fault::Unexpected(kind).into()),
        }
    }

    fn ready(&mut self, welcome: Welcome) -> Event {
        self.state = State::Ready;
        self.tables = Arc::new(welcome.tables);
        let next = |interval| Heartbeat { interval, next: later(self.heard, interval) };
        self.heartbeat = welcome.heartbeat.map(next);
        self.send_package(PackageType::HandshakeAck, b"");
        Event::Ready { user: welcome.user }
    }

    fn message(&mut self, body: std::ops::Range<usize>) -> Result<Option<Event>, Closed> {
        let message = message::decode(&self.input[body]).map_err(Fault::Message)?;
        match (message.kind, message.route) {
            (MessageType::Response, _) => {
                let id = message.id;
                let Some(schema) = self.pending.take(id) else { return Ok(None) };
                let answer = self
                    .decoded(schema.as_ref(), message.body)
                    .map(Answer::new)
                    .map_err(RequestError::Answer);
                Ok(Some(Event::Answer { id, answer }))
            }
            (MessageType::Push, Some(route)) => {
                let route = match route {
                    RouteRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
                    RouteRef::Code(code) => {
                        let known = self.tables.dictionary().and_then(|known| known.route(code));
                        known.ok_or(Fault::UnknownCode(code))?.to_owned()
                    }
                };
                let schema = self.tables.protos().and_then(|protos| protos.server().schema(&route));
                let body = self.decoded(schema, message.body).map_err(Fault::Push)?;
                Ok(Some(Event::Push(Push::new(route, body))))
            }
            (kind, _) => {
                let kind = kind as u8;
                Err(Fault::Message(message::MessageError::UnknownType(kind)).into())
            }
        }
    }

    fn decoded(&self, schema: Option<&Schema>, body: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let Some(schema) = schema else { return Ok(body.to_vec()) };
        let mut json = Vec::new();
        schema.decode_to_json_within(self.options.package_bytes_max, body, &mut json)?;
        Ok(json)
    }

    fn over(&mut self, reason: Closed) -> Event {
        self.state = State::Over;
        self.pending = PendingRequests::default();
        (self.input, self.read) = (Vec::new(), 0);
        let is_cut_off = match reason {
            // What the program has sent before goes out.
            Closed::ByClient => false,
            _ => {
                let is_cut_off = !self.output().is_empty();
                (self.output, self.sent) = (Vec::new(), 0);
                is_cut_off
            }
        };
        if let Closed::ByClient | Closed::Silent | Closed::Fault(_) = reason
            && let Some(websocket) = &mut self.websocket
            && websocket.is_open()
            && !is_cut_off
        {
            websocket.encode_close(&mut self.output);
        }
        Event::Closed(reason)
    }

    /// Sends a request to be answered by the time `deadline`, and gives its id. `body` is JSON; a
    /// route with a schema gets it by its schema.
    ///
    /// # Errors
    /// [`RequestError`]; nothing was sent.
    pub fn request(
        &mut self,
        route: &str,
        body: &[u8],
        deadline: Instant,
    ) -> Result<u32, RequestError> {
        let max = self.options.requests_max;
        if self.pending.len() >= max {
            return Err(RequestError::TooMany { max });
        }
        let id = self.pending.next_id();
        self.send_message(MessageType::Request, id, route, body)?;
        let schema = self.tables.protos().and_then(|protos| protos.server().schema(route)).cloned();
        self.pending.add(id, deadline, schema);
        Ok(id)
    }

    /// Sends a notify, which has no answer. `body` is as in [`Self::request`].
    ///
    /// # Errors
    /// [`RequestError`]; nothing was sent.
    pub fn notify(&mut self, route: &str, body: &[u8]) -> Result<(), RequestError> {
        self.send_message(MessageType::Notify, 0, route, body)
    }

    fn send_message(
        &mut self,
        kind: MessageType,
        id: u32,
        route: &str,
        body: &[u8],
    ) -> Result<(), RequestError> {
        if self.state != State::Ready {
            return Err(RequestError::NotReady);
        }
        let schema = self.tables.protos().and_then(|protos| protos.client().schema(route));
        let mut encoded = Vec::new();
        let body = match schema {
            None => body,
            Some(schema) => {
                schema.encode_json_text(body, &mut encoded).map_err(RequestError::Schema)?;
                &encoded
            }
        };
        let code = self.tables.dictionary().and_then(|dictionary| dictionary.code(route));
        let route = Some(code.map_or(RouteRef::Text(route.as_bytes()), RouteRef::Code));
        let mut message = Vec::new();
        let parts = Message { id, kind, route, body, gzip: false };
        message::encode(&parts, &mut message).map_err(RequestError::Route)?;
        let (len, max) = (message.len(), self.options.package_bytes_max);
        if len > max {
            return Err(RequestError::TooLong { len, max });
        }
        let max = self.options.output_bytes_max;
        if self.output().len().saturating_add(len) > max {
            return Err(RequestError::OutputFull { max });
        }
        self.send_package(PackageType::Data, &message);
        Ok(())
    }

    fn send_package(&mut self, kind: PackageType, body: &[u8]) {
        match &mut self.websocket {
            None => package::encode(kind, body, &mut self.output).expect("the length was checked"),
            Some(websocket) => {
                let mut bytes = Vec::new();
                package::encode(kind, body, &mut bytes).expect("the length was checked");
                websocket.encode_package(&bytes, &mut self.output);
            }
        }
    }

    /// The bytes to be sent to the server.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Takes the first `len` bytes of the output away, as they are sent.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn sent(&mut self, len: usize) {
        assert!(len <= self.output().len(), "{len} bytes can't have been sent");
        self.sent += len;
        if self.sent == self.output.len() {
            self.output.clear();
            self.output.shrink_to(OUTPUT_KEPT_BYTES);
            self.sent = 0;
        } else if self.sent >= OUTPUT_KEPT_BYTES && self.sent >= self.output.len() / 2 {
            // So that a server which always reads a part does not let it grow for ever.
            self.output.drain(..self.sent);
            self.sent = 0;
        }
    }

    /// The time at which [`Self::handle_timeout`] has to be called, unless something happens
    /// before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Over => None,
            State::Upgrade | State::Handshake => Some(self.ready_by),
            State::Ready => {
                let request = self.pending.next_deadline();
                let beat = self.heartbeat.map(|beat| beat.next.min(self.silent_at(beat)));
                request.into_iter().chain(beat).min()
            }
        }
    }

    /// Does what is due: fails requests, sends a heartbeat, or ends a connection whose server is
    /// silent.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::Over => {}
            State::Upgrade | State::Handshake => {
                if now >= self.ready_by {
                    self.end.get_or_insert(Closed::ConnectTimeout);
                }
            }
            State::Ready => {
                self.pending.expire(now);
                let Some(mut beat) = self.heartbeat else { return };
                if now >= self.silent_at(beat) {
                    self.end.get_or_insert(Closed::Silent);
                } else if now >= beat.next {
                    // A server that does not read gets no more of them.
                    if self.output().len() < self.options.output_bytes_max {
                        self.send_package(PackageType::Heartbeat, b"");
                    }
                    beat.next = later(now, beat.interval);
                    self.heartbeat = Some(beat);
                }
            }
        }
    }

    /// The time at which a silent server has been silent for too long.
    fn silent_at(&self, beat: Heartbeat) -> Instant {
        later(self.heard, beat.interval * 2)
    }

    /// The time by which a request has to be answered that is sent now, by the options.
    ///
    /// ```
    /// # use std::time::Instant;
    /// # use shaddock::client::{Protocol, RequestError};
    /// # fn ask(protocol: &mut Protocol) -> Result<u32, RequestError> {
    /// let deadline = protocol.request_deadline(Instant::now());
    /// protocol.request("connector.a.hello", b"{}", deadline)
    /// # }
    /// ```
    #[must_use]
    pub fn request_deadline(&self, now: Instant) -> Instant {
        later(now, self.options.request_timeout)
    }

    /// The dictionary and the schemas that the server has told; before the handshake is done,
    /// those of the options.
    ///
    /// ```
    /// # use shaddock::client::{Options, Protocol};
    /// # fn next(protocol: &Protocol) -> Options {
    /// Options::new().tables(protocol.tables().clone())
    /// # }
    /// ```
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables
    }

    /// Ends the connection by the client's will: [`Event::Closed`] is the next event. What is in
    /// the output has still to be sent.
    pub fn close(&mut self) {
        if self.state != State::Over {
            self.end = Some(Closed::ByClient);
            self.pending.forget_timed_out();
            (self.input, self.read) = (Vec::new(), 0);
        }
    }
}

/// The room in buffers that is kept for what comes next.
const INPUT_KEPT_BYTES: usize = 16 * 1024;
const OUTPUT_KEPT_BYTES: usize = 64 * 1024;

/// The time after `time`, or the latest there is for a client.
pub(super) fn later(time: Instant, by: Duration) -> Instant {
    time + by.min(FAR)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn package(kind: PackageType, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        package::encode(kind, body, &mut out).unwrap();
        out
    }

    fn ready(options: Options, sys: &Value, now: Instant) -> Protocol {
        let mut protocol = Protocol::new(options, now);
        protocol.sent(protocol.output().len());
        let body = json!({"code": 200, "sys": sys}).to_string();
        protocol.receive(&package(PackageType::Handshake, body.as_bytes()), now);
        assert!(matches!(protocol.poll_event(), Some(Event::Ready { user: None })));
        assert_eq!(protocol.output(), package(PackageType::HandshakeAck, b""));
        protocol.sent(protocol.output().len());
        protocol
    }

    fn closed(protocol: &mut Protocol) -> Option<Closed> {
        match protocol.poll_event()? {
            Event::Closed(closed) => Some(closed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_heartbeat_is_sent_at_each_interval_and_silence_ends_after_two() {
        let start = Instant::now();
        let mut protocol = ready(Options::new(), &json!({"heartbeat": 3}), start);
        assert_eq!(protocol.next_timeout(), Some(start + 3 * SECOND));
        protocol.handle_timeout(start + 2 * SECOND);
        assert_eq!(protocol.output(), b"");
        protocol.handle_timeout(start + 3 * SECOND);
        assert_eq!(protocol.output(), package(PackageType::Heartbeat, b""));
        protocol.receive(&package(PackageType::Heartbeat, b""), start + 4 * SECOND);
        assert!(protocol.poll_event().is_none());
        assert_eq!(protocol.next_timeout(), Some(start + 6 * SECOND));
        protocol.handle_timeout(start + 6 * SECOND);
        assert_eq!(protocol.next_timeout(), Some(start + 9 * SECOND));
        protocol.handle_timeout(start + 9 * SECOND);
        assert!(protocol.poll_event().is_none(), "heard 5 s ago");
        protocol.handle_timeout(start + 10 * SECOND);
        assert_eq!(closed(&mut protocol), Some(Closed::Silent));
        assert!(protocol.poll_event().is_none() && protocol.next_timeout().is_none());
    }

    #[test]
    fn requests_time_out_in_the_order_of_their_deadlines() {
        let start = Instant::now();
        let mut protocol = ready(Options::new(), &json!({}), start);
        assert_eq!(protocol.next_timeout(), None);
        let ask = |protocol: &mut Protocol, seconds: u32| {
            protocol.request("a.b.c", b"1", start + seconds * SECOND).unwrap()
        };
        let [late, early, answered] = [9, 5, 5].map(|seconds| ask(&mut protocol, seconds));
        assert_eq!(protocol.next_timeout(), Some(start + 5 * SECOND));
        let answer = [&[4, answered as u8][..], b"7"].concat();
        protocol.receive(&package(PackageType::Data, &answer), start);
        let event = protocol.poll_event();
        assert!(matches!(event, Some(Event::Answer { id, answer: Ok(_) }) if id == answered));
        for (seconds, expected) in [(5, early), (9, late)] {
            protocol.handle_timeout(start + seconds * SECOND);
            let Some(Event::Answer { id, answer }) = protocol.poll_event() else { panic!() };
            assert_eq!((id, answer), (expected, Err(RequestError::TimedOut)));
        }
        // What comes late finds nobody.
        let late = [&[4, late as u8][..], b"7"].concat();
        protocol.receive(&package(PackageType::Data, &late), start);
        assert!(protocol.poll_event().is_none());
        assert_eq!(protocol.next_timeout(), None);
    }

    #[test]
    fn routes_and_bodies_go_by_the_tables() {
        let start = Instant::now();
        let schema = json!({"n": {"option": "required", "type": "uInt32", "tag": 1}});
        let sys = json!({
            "dict": {"a.b.c": 7, "onA": 8},
            "protos": {"client": {"a.b.c": schema}, "server": {"a.b.c": schema, "onA": schema}},
        });
        let mut protocol = ready(Options::new(), &sys, start);
        let id = protocol.request("a.b.c", br#"{"n":5}"#, start).unwrap();
        assert_eq!(protocol.output(), package(PackageType::Data, b"\x01\x01\0\x07\x08\x05"));
        let refused = protocol.notify("a.b.c", b"{}");
        assert!(matches!(refused, Err(RequestError::Schema(_))), "{refused:?}");
        let bytes = [b"\x04\x01\x08\x06".as_slice(), b"\x07\0\x08\x08\x07", b"\x06\x03onB\x08"];
        for bytes in bytes {
            protocol.receive(&package(PackageType::Data, bytes), start);
        }
        let Some(Event::Answer { id: answered, answer }) = protocol.poll_event() else { panic!() };
        assert_eq!((answered, answer.unwrap().body()), (id, &br#"{"n":6}"#[..]));
        for (route, body) in [("onA", &br#"{"n":7}"#[..]), ("onB", b"\x08")] {
            let Some(Event::Push(push)) = protocol.poll_event() else { panic!() };
            assert_eq!((push.route(), push.body()), (route, body));
        }
        let mut bad = ready(Options::new(), &sys, start);
        bad.request("a.b.c", br#"{"n":5}"#, start).unwrap();
        bad.receive(&package(PackageType::Data, b"\x04\x01\xff"), start);
        let event = bad.poll_event();
        let answer = match &event {
            Some(Event::Answer { answer, .. }) => answer,
            other => panic!("{other:?}"),
        };
        assert!(matches!(answer, Err(RequestError::Answer(_))), "{answer:?}");
        bad.receive(&package(PackageType::Data, b"\x07\0\x08\xff"), start);
        assert!(matches!(closed(&mut bad), Some(Closed::Fault(Fault::Push(_)))));
    }

    #[test]
    fn a_handshake_that_is_not_done_in_time_ends_the_connection() {
        let start = Instant::now();
        let mut protocol = Protocol::new(Options::new().connect_timeout(SECOND), start);
        assert_eq!(protocol.request("a.b.c", b"1", start), Err(RequestError::NotReady));
        assert_eq!(protocol.next_timeout(), Some(start + SECOND));
        protocol.handle_timeout(start + SECOND);
        assert_eq!(closed(&mut protocol), Some(Closed::ConnectTimeout));
    }

    #[test]
    fn what_was_sent_in_parts_is_taken_away_in_parts() {
        let start = Instant::now();
        let mut protocol = ready(Options::new(), &json!({}), start);
        let body = vec![b'1'; 100_000];
        protocol.notify("a.b.c", &body).unwrap();
        let whole = protocol.output().to_vec();
        let mut sent = 0;
        while !protocol.output().is_empty() {
            assert_eq!(protocol.output(), &whole[sent..]);
            let len = protocol.output().len().min(7_001);
            protocol.sent(len);
            sent += len;
        }
        assert_eq!(sent, whole.len());
        assert!(protocol.output.capacity() <= OUTPUT_KEPT_BYTES);
    }

    #[test]
    fn what_came_before_the_end_counts_and_the_clients_own_end_is_at_once() {
        let start = Instant::now();
        let push = package(PackageType::Data, b"\x06\x01a1");
        let mut protocol = ready(Options::new(), &json!({}), start);
        protocol.receive(&push, start);
        protocol.end(Closed::ByServer);
        assert!(matches!(protocol.poll_event(), Some(Event::Push(_))));
        assert_eq!(closed(&mut protocol), Some(Closed::ByServer));

        let mut protocol = ready(Options::new(), &json!({}), start);
        protocol.notify("a.b.c", b"1").unwrap();
        protocol.receive(&push, start);
        protocol.close();
        assert_eq!(closed(&mut protocol), Some(Closed::ByClient));
        assert!(!protocol.output().is_empty(), "the notify still goes out");
    }
}
