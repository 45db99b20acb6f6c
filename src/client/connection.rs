//! The socket of one client.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::error::Closed;
use super::protocol::later;
use super::shared::{Shared, State};
#[cfg(feature = "tls")]
use super::tls::Tls;

/// The most that one connection reads before it is the turn of the others.
const TURN_BYTES: usize = 256 * 1024;
/// The time for what is left to be sent when the connection is over.
const LINGER: Duration = Duration::from_secs(1);

/// One connection, as the thread of the clients has it.
pub(super) struct Connection {
    shared: Arc<Shared>,
    /// The addresses to try when this one fails.
    addresses: VecDeque<SocketAddr>,
    socket: Option<TcpStream>,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    is_connected: bool,
    /// The kernel tells once that there is something to read, or room to write, and not again
    /// before all was read or written.
    can_read: bool,
    can_write: bool,
    /// The time at which what is left is given up; set when the connection is over.
    linger_until: Option<Instant>,
    /// True if the end is the client's own will: then the server's end is waited for, as a socket
    /// that is closed with something unread takes back what it has sent.
    is_by_client: bool,
    /// True once the server has been told that nothing more comes.
    is_shut: bool,
    /// True once the server has ended its side, or the socket has failed.
    is_ended: bool,
    /// True if it is among those that have more to read.
    pub(super) is_again: bool,
    /// The time for which the thread has noted this connection.
    pub(super) noted: Option<Instant>,
}

/// The thread's next step with a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Wait for its socket or its time.
    Wait,
    /// Come again, as there is more to be read.
    Again,
    /// Drop it.
    Drop,
}

impl Connection {
    /// A connection that has no address yet.
    pub(super) fn new(shared: Arc<Shared>, #[cfg(feature = "tls")] tls: Option<Tls>) -> Self {
        Self {
            shared,
            addresses: VecDeque::new(),
            socket: None,
            #[cfg(feature = "tls")]
            tls,
            is_connected: false,
            can_read: false,
            can_write: false,
            linger_until: None,
            is_by_client: false,
            is_shut: false,
            is_ended: false,
            is_again: false,
            noted: None,
        }
    }

    /// Begins to connect to the first of these addresses that takes it.
    pub(super) fn connect(
        &mut self,
        addresses: VecDeque<SocketAddr>,
        registry: &Registry,
        token: Token,
    ) {
        self.addresses = addresses;
        self.try_next(Closed::NameNotFound, registry, token);
    }

    /// Tries the next address; if there is none, the connection ends by `reason`.
    fn try_next(&mut self, mut reason: Closed, registry: &Registry, token: Token) {
        self.socket = None;
        while let Some(address) = self.addresses.pop_front() {
            let begun = TcpStream::connect(address).and_then(|mut socket| {
                registry.register(&mut socket, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(socket)
            });
            match begun {
                Ok(socket) => {
                    self.socket = Some(socket);
                    return;
                }
                Err(error) => reason = Closed::Io(error.kind()),
            }
        }
        self.shared.with(|state| state.protocol.end(reason));
    }

    /// The kernel has news of the socket.
    pub(super) fn ready(&mut self, can_read: bool, can_write: bool) {
        self.can_read |= can_read;
        self.can_write |= can_write;
    }

    /// Does all that can be done now.
    pub(super) fn turn(
        &mut self,
        now: Instant,
        buffer: &mut [u8],
        registry: &Registry,
        token: Token,
    ) -> Next {
        self.shared.with(|state| state.begin());
        self.finish_connect(registry, token);
        let mut has_more = false;
        if self.is_connected {
            match self.read(now, buffer) {
                Ok(more) => has_more = more,
                Err(reason) => {
                    self.is_ended = true;
                    self.shared.with(|state| state.protocol.end(reason));
                }
            }
        }
        let is_over = self.shared.with(|state| {
            state.protocol.handle_timeout(now);
            state.take_events()
        });
        if is_over && self.linger_until.is_none() {
            self.linger_until = Some(later(now, LINGER));
            let is_by_client = |state: &mut State| state.closed() == Some(&Closed::ByClient);
            self.is_by_client = self.is_connected && self.shared.with(is_by_client);
            #[cfg(feature = "tls")]
            self.end_tls();
        }
        let is_sent = match self.write() {
            Ok(is_sent) => is_sent,
            Err(error) => {
                self.shared.with(|state| {
                    state.protocol.end(Closed::Io(error.kind()));
                    state.take_events();
                });
                return Next::Drop;
            }
        };
        if let Some(until) = self.linger_until {
            if is_sent && !self.is_shut {
                self.is_shut = true;
                // It may be gone already.
                let _ = self.socket.as_ref().map(|socket| socket.shutdown(Shutdown::Write));
            }
            if self.is_ended || now >= until || is_sent && !self.is_by_client {
                return Next::Drop;
            }
        }
        if has_more { Next::Again } else { Next::Wait }
    }

    /// The time at which there is something to do even if nothing happens.
    pub(super) fn next_timeout(&self) -> Option<Instant> {
        self.linger_until.or_else(|| self.shared.with(|state| state.protocol.next_timeout()))
    }

    fn finish_connect(&mut self, registry: &Registry, token: Token) {
        while !self.is_connected && self.can_write {
            let Some(socket) = &self.socket else { return };
            let error = match socket.take_error() {
                Ok(Some(error)) | Err(error) => Some(error),
                Ok(None) => match socket.peer_addr() {
                    Ok(_) => None,
                    // The kernel is still at it.
                    Err(error) if error.kind() == ErrorKind::NotConnected => {
                        self.can_write = false;
                        return;
                    }
                    Err(error) => Some(error),
                },
            };
            match error {
                None => {
                    // Without it requests would be slower, and that is all.
                    let _ = socket.set_nodelay(true);
                    self.is_connected = true;
                }
                Some(error) => {
                    (self.can_read, self.can_write) = (false, false);
                    self.try_next(Closed::Io(error.kind()), registry, token);
                }
            }
        }
    }

    /// Reads what there is, up to a turn's share. True if there may be more.
    fn read(&mut self, now: Instant, buffer: &mut [u8]) -> Result<bool, Closed> {
        let mut left = TURN_BYTES;
        while self.can_read {
            if left == 0 {
                return Ok(true);
            }
            let Some(socket) = &mut self.socket else { return Ok(false) };
            match socket.read(buffer) {
                Ok(0) => {
                    self.can_read = false;
                    return Err(Closed::ByServer);
                }
                Ok(len) => {
                    left = left.saturating_sub(len);
                    if self.receive(&buffer[..len], now)? {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_read = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    self.can_read = false;
                    return Err(Closed::ByServer);
                }
                Err(error) => return Err(Closed::Io(error.kind())),
            }
        }
        Ok(false)
    }

    /// Handles what was read. True if the connection is over.
    fn receive(&mut self, input: &[u8], now: Instant) -> Result<bool, Closed> {
        if self.linger_until.is_some() {
            return Ok(false);
        }
        let shared = &self.shared;
        let mut is_over = false;
        let mut receive = |plain: &[u8]| {
            is_over = shared.with(|state| {
                state.protocol.receive(plain, now);
                state.take_events()
            });
        };
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.receive(input, receive)?;
            return Ok(is_over);
        }
        receive(input);
        Ok(is_over)
    }

    /// Writes what there is. True if nothing is left.
    fn write(&mut self) -> io::Result<bool> {
        let Some(socket) = &mut self.socket else { return Ok(true) };
        if !self.is_connected {
            return Ok(self.linger_until.is_some());
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            while self.can_write {
                let is_moved = self.shared.with(|state| {
                    let len = tls.send(state.protocol.output());
                    state.protocol.sent(len);
                    len > 0
                });
                if !tls.wants_write() && !is_moved {
                    break;
                }
                match tls.write(socket) {
                    Ok(_) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_write = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let is_empty = self.shared.with(|state| state.protocol.output().is_empty());
            return Ok(is_empty && !tls.wants_write());
        }
        self.shared.with(|state| {
            while self.can_write && !state.protocol.output().is_empty() {
                match socket.write(state.protocol.output()) {
                    Ok(len) => state.protocol.sent(len),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => self.can_write = false,
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(state.protocol.output().is_empty())
        })
    }

    /// Hands what is left to TLS, with its end behind it.
    #[cfg(feature = "tls")]
    fn end_tls(&mut self) {
        let Some(tls) = &mut self.tls else { return };
        self.shared.with(|state| {
            let len = tls.send(state.protocol.output());
            state.protocol.sent(len);
            if state.protocol.output().is_empty() {
                tls.end();
            }
        });
    }
}

impl Drop for Connection {
    /// Tells that the socket is gone: however the thread ends, nobody waits for this connection
    /// for ever.
    fn drop(&mut self) {
        self.shared.with(|state| state.gone());
    }
}
