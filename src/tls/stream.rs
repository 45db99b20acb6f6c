//! The TLS state of one connection: decrypts received records, and encrypts bytes to be sent.

use std::fmt;
use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, WriteTraffic};
use rustls::{HandshakeKind, ServerConfig};

/// The server's side of one connection.
///
/// An idle connection owns no buffer: records are decrypted where the kernel has put them, and
/// output is taken as soon as the socket is free.
pub(crate) struct TlsStream {
    connection: UnbufferedServerConnection,
    /// The start of a record or handshake message whose rest has not arrived. INVARIANT: at most
    /// [`PARTIAL_BYTES_MAX`] between reads.
    partial: Vec<u8>,
    /// Handshake records, alerts and answers to key updates, which are sent before all else.
    output: Vec<u8>,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Handshake,
    Established,
    /// Nothing is read or written any more; `output` may still hold bytes.
    Closed,
}

/// The outcome of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsRead {
    Open,
    /// The handshake is complete now; `is_resumed` is true if a ticket made it short.
    Established {
        is_resumed: bool,
    },
    /// The client has announced that it sends no more.
    PeerClosed,
}

/// The reasons why a connection's TLS fails; the peer is at fault.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TlsFailure {
    Tls(rustls::Error),
    /// The unfinished input is longer than any record or handshake message.
    TooLong,
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(error) => error.fmt(f),
            Self::TooLong => f.write_str("a record or handshake message is too long"),
        }
    }
}

/// The longest unfinished input. A record has a little over 16 KiB; a handshake message has 64 KiB,
/// plus the headers of its records.
const PARTIAL_BYTES_MAX: usize = 96 * 1024;
/// The most bytes by which a record is longer than its content, for TLS 1.2 and 1.3.
const RECORD_OVERHEAD: usize = 64;
const RECORD_BYTES_MAX: usize = 16 * 1024;

impl TlsStream {
    pub(crate) fn new(config: &Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(Arc::clone(config))?,
            partial: Vec::new(),
            output: Vec::new(),
            stage: Stage::Handshake,
        })
    }

    /// Decrypts the socket's bytes in place and appends the content to `plain`: over all calls, no
    /// more bytes than were received.
    ///
    /// # Errors
    /// [`TlsFailure`]; then [`Self::take_output`] returns the alert for the peer, and nothing is
    /// read any more. The content in `plain` precedes the failure.
    pub(crate) fn read(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> Result<TlsRead, TlsFailure> {
        if self.stage == Stage::Closed {
            return Ok(TlsRead::Open);
        }
        let mut kept = std::mem::take(&mut self.partial);
        let outcome = if kept.is_empty() {
            let (consumed, outcome) = self.process(input, plain);
            kept.extend_from_slice(&input[consumed..]);
            outcome
        } else {
            kept.extend_from_slice(input);
            let (consumed, outcome) = self.process(&mut kept, plain);
            kept.drain(..consumed);
            outcome
        };
        let outcome = match outcome {
            Ok(_) if kept.len() > PARTIAL_BYTES_MAX => Err(TlsFailure::TooLong),
            outcome => outcome,
        };
        if outcome.is_err() {
            self.take_alert(&mut kept);
            self.stage = Stage::Closed;
        } else if !kept.is_empty() {
            self.partial = kept;
        }
        outcome
    }

    /// Decrypts all whole records and returns the length of the input that they took.
    fn process(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
    ) -> (usize, Result<TlsRead, TlsFailure>) {
        let mut consumed = 0;
        let mut outcome = TlsRead::Open;
        loop {
            let status = self.connection.process_tls_records(&mut input[consumed..]);
            let mut discard = status.discard;
            let is_done = match status.state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        match record {
                            Ok(record) => {
                                plain.extend_from_slice(record.payload);
                                discard += record.discard;
                            }
                            Err(error) => return (consumed, Err(TlsFailure::Tls(error))),
                        }
                    }
                    false
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, &mut self.output);
                    false
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    false
                }
                Ok(ConnectionState::PeerClosed) => {
                    outcome = TlsRead::PeerClosed;
                    false
                }
                // The server never accepts early data, so none arrives.
                Ok(_) => true,
                Err(error) => return (consumed + discard, Err(TlsFailure::Tls(error))),
            };
            consumed += discard;
            if is_done {
                break;
            }
        }
        if self.stage == Stage::Handshake && !self.connection.is_handshaking() {
            self.stage = Stage::Established;
            if outcome == TlsRead::Open {
                let is_resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
                outcome = TlsRead::Established { is_resumed };
            }
        }
        (consumed, Ok(outcome))
    }

    /// Takes the alert that a failure has caused.
    fn take_alert(&mut self, kept: &mut [u8]) {
        // While there is output, it comes first; afterwards the library would read again the input
        // that failed.
        while self.connection.wants_write()
            && let Ok(ConnectionState::EncodeTlsData(mut data)) =
                self.connection.process_tls_records(kept).state
        {
            encode(&mut data, &mut self.output);
        }
    }

    /// True if [`Self::take_output`] would return bytes.
    pub(crate) fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Takes the output that the protocol itself needs: handshake records, alerts and key updates.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Encrypts bytes for the client, behind all output, and appends them. True if that was
    /// possible: it is not before the handshake is done, nor after the end.
    pub(crate) fn write(&mut self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        let records = plain.len() / RECORD_BYTES_MAX + 1;
        let expected = plain.len() + records * RECORD_OVERHEAD;
        self.seal(out, expected, |traffic, out| traffic.encrypt(plain, out))
    }

    /// Queues a `close_notify`, unless one was sent.
    pub(crate) fn close(&mut self) {
        if self.stage == Stage::Established {
            let mut output = std::mem::take(&mut self.output);
            self.seal(&mut output, RECORD_OVERHEAD, |traffic, out| traffic.queue_close_notify(out));
            self.output = output;
        }
        self.stage = Stage::Closed;
    }

    fn seal(
        &mut self,
        out: &mut Vec<u8>,
        expected: usize,
        mut seal: impl FnMut(
            &mut WriteTraffic<'_, ServerConnectionData>,
            &mut [u8],
        ) -> Result<usize, EncryptError>,
    ) -> bool {
        if self.stage != Stage::Established {
            return false;
        }
        out.append(&mut self.output);
        loop {
            // The library counts from the start of the kept bytes, so it has to see all of them
            // again.
            match self.connection.process_tls_records(&mut self.partial).state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    return append(out, expected, |out| {
                        seal(&mut traffic, out).map_err(|error| match error {
                            EncryptError::InsufficientSize(error) => Some(error.required_size),
                            EncryptError::EncryptExhausted => None,
                        })
                    });
                }
                // A key update has to go first.
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, out);
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                _ => return false,
            }
        }
    }
}

fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) {
    append(out, 0, |out| {
        data.encode(out).map_err(|error| match error {
            EncodeError::InsufficientSize(error) => Some(error.required_size),
            EncodeError::AlreadyEncoded => None,
        })
    });
}

/// Calls `write` with a buffer of the expected size and, if that is too small, of the size that
/// `write` names; appends the result. True if it was written.
fn append(
    out: &mut Vec<u8>,
    expected: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = out.len();
    let mut len = expected;
    // The size that it names is enough, so there are two calls at most.
    for _ in 0..2 {
        out.resize(start + len, 0);
        match write(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return true;
            }
            Err(Some(required)) => len = required,
            Err(None) => break,
        }
    }
    out.truncate(start);
    false
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

    use super::*;

    struct Pair {
        config: Arc<ServerConfig>,
        client: ClientConnection,
        server: TlsStream,
    }

    impl Pair {
        fn new() -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
            let mut roots = RootCertStore::empty();
            roots.add(made.cert.der().clone()).unwrap();
            let server = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())
                .unwrap();
            let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let name = ServerName::try_from("localhost").unwrap();
            let config = Arc::new(server);
            Self {
                client: ClientConnection::new(Arc::new(client), name).unwrap(),
                server: TlsStream::new(&config).unwrap(),
                config,
            }
        }

        /// Takes all that the client has to send.
        fn sent_by_client(&mut self) -> Vec<u8> {
            let mut bytes = Vec::new();
            while self.client.wants_write() {
                self.client.write_tls(&mut bytes).unwrap();
            }
            bytes
        }

        /// Lets the client read `bytes`; returns what it decrypted.
        fn give_client(&mut self, mut bytes: &[u8]) -> Vec<u8> {
            let mut plain = Vec::new();
            while !bytes.is_empty() {
                self.client.read_tls(&mut bytes).unwrap();
                let state = self.client.process_new_packets().unwrap();
                let start = plain.len();
                plain.resize(start + state.plaintext_bytes_to_read(), 0);
                std::io::Read::read_exact(&mut self.client.reader(), &mut plain[start..]).unwrap();
            }
            plain
        }

        /// Lets the server read pieces of `size` bytes; returns what it decrypted, and the last
        /// outcome but "open".
        fn give_server(&mut self, bytes: &[u8], size: usize) -> (Vec<u8>, TlsRead) {
            let mut plain = Vec::new();
            let mut last = TlsRead::Open;
            for piece in bytes.chunks(size) {
                match self.server.read(&mut piece.to_vec(), &mut plain).unwrap() {
                    TlsRead::Open => {}
                    other => last = other,
                }
            }
            (plain, last)
        }

        /// Completes a handshake, with the client's bytes arriving in pieces of `size`.
        fn established(size: usize) -> Self {
            let mut pair = Self::new();
            assert!(!pair.server.write(b"too early", &mut Vec::new()));
            let hello = pair.sent_by_client();
            assert_eq!(pair.give_server(&hello, size), (Vec::new(), TlsRead::Open));
            let output = pair.server.take_output();
            pair.give_client(&output);
            let finished = pair.sent_by_client();
            let established = TlsRead::Established { is_resumed: false };
            assert_eq!(pair.give_server(&finished, size), (Vec::new(), established));
            let tickets = pair.server.take_output();
            pair.give_client(&tickets);
            pair
        }

        fn owns_no_buffer(&self) -> bool {
            self.server.partial.capacity() == 0 && self.server.output.capacity() == 0
        }
    }

    #[test]
    fn bytes_cross_both_ways_in_pieces_of_any_size() {
        for size in [1, 2, 7, 100, 1 << 20] {
            let mut pair = Pair::established(size);
            assert!(pair.owns_no_buffer(), "{size}");
            for text in [&b"one"[..], b"two", &[7; 40_000]] {
                std::io::Write::write_all(&mut pair.client.writer(), text).unwrap();
            }
            let sealed = pair.sent_by_client();
            let (plain, _) = pair.give_server(&sealed, size);
            assert_eq!(plain, [&b"onetwo"[..], &[7; 40_000]].concat());
            assert!(pair.owns_no_buffer(), "{size}");
            let mut sealed = Vec::new();
            assert!(pair.server.write(&plain, &mut sealed));
            assert!(sealed.len() <= plain.len() + 3 * RECORD_OVERHEAD, "one try has to be enough");
            assert_eq!(pair.give_client(&sealed), plain);
        }
    }

    /// The library counts from the start of its remaining input, also when it is asked to write.
    #[test]
    fn the_server_may_write_while_part_of_a_record_waits() {
        let mut pair = Pair::established(1 << 20);
        std::io::Write::write_all(&mut pair.client.writer(), b"in").unwrap();
        let sealed = pair.sent_by_client();
        for byte in &sealed {
            let mut out = Vec::new();
            assert!(pair.server.write(b"out", &mut out));
            assert_eq!(pair.give_client(&out), b"out");
            let (plain, _) = pair.give_server(&[*byte], 1);
            assert!(plain.is_empty() || plain == b"in");
        }
        // A key update in the middle of it.
        pair.client.refresh_traffic_keys().unwrap();
        let sealed = pair.sent_by_client();
        assert_eq!(pair.give_server(&sealed, 3).0, b"");
        let mut out = Vec::new();
        assert!(pair.server.write(b"out", &mut out));
        assert_eq!(pair.give_client(&out), b"out");
    }

    #[test]
    fn the_end_is_said_once_and_both_ways() {
        let mut pair = Pair::established(1 << 20);
        pair.client.send_close_notify();
        let sealed = pair.sent_by_client();
        assert_eq!(pair.give_server(&sealed, 1), (Vec::new(), TlsRead::PeerClosed));
        pair.server.close();
        let sealed = pair.server.take_output();
        pair.client.read_tls(&mut &sealed[..]).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        pair.server.close();
        assert!(!pair.server.has_output());
        assert!(!pair.server.write(b"late", &mut Vec::new()));
    }

    #[test]
    fn what_is_no_tls_is_answered_by_an_alert() {
        for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1, 0, 0, 0], &[0x16, 3, 1, 0xff, 0xff, 0]]
        {
            let mut pair = Pair::new();
            let mut input = garbage.to_vec();
            assert!(pair.server.read(&mut input, &mut Vec::new()).is_err(), "{garbage:?}");
            assert_eq!(pair.server.take_output()[0], 0x15, "an alert is due");
            assert_eq!(pair.server.read(&mut input, &mut Vec::new()), Ok(TlsRead::Open));
            pair.server.close();
            assert!(pair.owns_no_buffer());
        }
    }

    #[test]
    fn a_changed_record_ends_it_behind_what_came_before() {
        let mut pair = Pair::established(1 << 20);
        std::io::Write::write_all(&mut pair.client.writer(), b"good").unwrap();
        let good = pair.sent_by_client();
        std::io::Write::write_all(&mut pair.client.writer(), b"bad").unwrap();
        let mut bad = pair.sent_by_client();
        *bad.last_mut().unwrap() ^= 1;
        let mut plain = Vec::new();
        assert!(pair.server.read(&mut [good, bad].concat(), &mut plain).is_err());
        assert_eq!(plain, b"good");
        assert!(pair.server.has_output());
        assert!(!pair.server.write(b"late", &mut Vec::new()));
    }

    /// A change of any byte, in the hello or after the handshake, makes it fail or wait, and a
    /// failure is final.
    #[test]
    fn no_changed_byte_does_more_than_fail() {
        let mut pair = Pair::new();
        let hello = pair.sent_by_client();
        let config = Arc::clone(&pair.config);
        for at in 0..hello.len() {
            let mut server = TlsStream::new(&config).unwrap();
            let mut changed = hello.clone();
            changed[at] ^= 0x41;
            let mut plain = Vec::new();
            for piece in changed.chunks(hello.len() / 2) {
                if server.read(&mut piece.to_vec(), &mut plain).is_err() {
                    assert_eq!(server.stage, Stage::Closed);
                }
            }
            server.read(&mut hello.clone(), &mut plain).ok();
            server.close();
            assert!(plain.is_empty() && !server.write(b"late", &mut Vec::new()), "at {at}");
        }
        let mut at = 0;
        loop {
            let mut pair = Pair::established(1 << 20);
            std::io::Write::write_all(&mut pair.client.writer(), b"text").unwrap();
            let mut sealed = pair.sent_by_client();
            let Some(byte) = sealed.get_mut(at) else { break };
            *byte ^= 0x41;
            let mut plain = Vec::new();
            let outcome = pair.server.read(&mut sealed, &mut plain);
            // RFC 8446 5.1: the version of a record "MUST be ignored for all purposes". A greater
            // length waits for more.
            assert!(outcome.is_err() || matches!(at, 2..=4), "at {at}");
            assert!(plain.is_empty() || at == 2 && plain == b"text");
            at += 1;
        }
    }

    /// A hello that announces more than it sends is kept, within the bound.
    #[test]
    fn a_handshake_that_never_ends_is_bounded() {
        let mut pair = Pair::new();
        // A handshake message of 0xffffff bytes in records of 16 KiB.
        let mut message = vec![1, 0xff, 0xff, 0xff];
        message.resize(1 << 14, 0);
        let record = [&[0x16, 3, 1, 0x40, 0][..], &message].concat();
        let mut held = 0;
        let is_refused = (0..100).any(|_| {
            let outcome = pair.server.read(&mut record.clone(), &mut Vec::new());
            held = held.max(pair.server.partial.len());
            outcome.is_err()
        });
        assert!(is_refused);
        assert!(held <= PARTIAL_BYTES_MAX);
    }
}
