//! One connection to a NATS server.

use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::stream::Stream;
use crate::pitaya::nats::{Frame, Outgoing, ServerInfo, decode};

/// A connection that the server has let in.
pub(super) struct Link {
    stream: Stream,
    input: BytesMut,
    pub(super) outgoing: Outgoing,
    pub(super) info: ServerInfo,
    pings: u64,
    pongs: u64,
    ping_timer: Interval,
    /// The failure of a send that [`Self::poll_frame`] has not told of.
    failure: Option<io::Error>,
    pub(super) since: Instant,
}

/// Bytes of frames that wait for the socket; with as many there come no more commands. One message
/// may be beyond it.
const OUTGOING_BYTES: usize = 1024 * 1024;
/// Memory that is read into at a time.
const READ_BYTES: usize = 32 * 1024;
/// Memory with less room than this is not read into any more.
const READ_BYTES_MIN: usize = 4 * 1024;
/// Pitaya's own, for pings.
const PING_INTERVAL: Duration = Duration::from_secs(120);
/// Pings that a server may leave unanswered; with one more it has gone.
const PINGS_UNANSWERED_MAX: u64 = 2;

impl Link {
    pub(super) fn new(stream: Stream, info: ServerInfo, input: BytesMut) -> Self {
        let now = Instant::now();
        let mut ping_timer = interval_at(now + PING_INTERVAL, PING_INTERVAL);
        ping_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            stream,
            input,
            outgoing: Outgoing::default(),
            info,
            pings: 0,
            pongs: 0,
            ping_timer,
            failure: None,
            since: now,
        }
    }

    /// True if it takes another frame.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing.bytes().len() < OUTGOING_BYTES
    }

    /// Asks the server for a sign that it has done all that it was sent before. Gives the number
    /// that [`Self::has_answered`] is asked with.
    pub(super) fn ping(&mut self) -> u64 {
        self.outgoing.push_lines(b"PING\r\n");
        self.pings += 1;
        self.pings
    }

    /// True if the server has answered a ping.
    pub(super) fn has_answered(&self, ping: u64) -> bool {
        self.pongs >= ping
    }

    /// The next frame that is not about the connection itself.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Frame>> {
        loop {
            if let Some(error) = self.failure.take() {
                return Poll::Ready(Err(error));
            }
            let frame = decode(&mut self.input, self.info.max_payload);
            match frame.map_err(|bad| io::Error::new(io::ErrorKind::InvalidData, bad))? {
                Some(Frame::Ping) => self.outgoing.push_lines(b"PONG\r\n"),
                Some(Frame::Pong) => self.pongs += 1,
                Some(Frame::Ok) => {}
                Some(frame) => return Poll::Ready(Ok(frame)),
                None => std::task::ready!(self.poll_receive(cx))?,
            }
        }
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.ping_timer.poll_tick(cx).is_ready() {
            if self.pings - self.pongs >= PINGS_UNANSWERED_MAX {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            self.ping();
        }
        if self.input.capacity() - self.input.len() < READ_BYTES_MIN {
            self.input.reserve(READ_BYTES);
        }
        match pin!(self.stream.read_buf(&mut self.input)).poll(cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
            read => read.map_ok(drop),
        }
    }

    /// Sends what waits. Ready when all is sent, or when that has failed, which
    /// [`Self::poll_frame`] tells.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.outgoing.bytes().is_empty() {
            let stream = Pin::new(&mut self.stream);
            match std::task::ready!(stream.poll_write(cx, self.outgoing.bytes())) {
                Ok(len) if len > 0 => self.outgoing.advance(len),
                Ok(_) => return self.fail(io::ErrorKind::WriteZero.into()),
                Err(error) => return self.fail(error),
            }
        }
        self.outgoing.shrink();
        match std::task::ready!(Pin::new(&mut self.stream).poll_flush(cx)) {
            Ok(()) => Poll::Ready(()),
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, error: io::Error) -> Poll<()> {
        self.failure = Some(error);
        Poll::Ready(())
    }

    /// Sends what waits, and drops what comes, until the server has done all that it was sent.
    ///
    /// # Errors
    /// The connection has ended before.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        let ping = self.ping();
        poll_fn(|cx| {
            loop {
                let flushed = self.poll_send(cx);
                if self.has_answered(ping) && flushed.is_ready() && self.failure.is_none() {
                    return Poll::Ready(Ok(()));
                }
                match self.poll_frame(cx) {
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    // The last frames may have been the answer, or have asked for one.
                    Poll::Pending if self.has_answered(ping) => {}
                    Poll::Pending => return Poll::Pending,
                }
            }
        })
        .await
    }
}
