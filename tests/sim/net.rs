//! A socket between a simulated client and a shard's simulated shell.

use std::collections::VecDeque;

use shaddock::SessionId;
use shaddock::internals::simulated::{Sending, Stage};

use crate::client::Conn;

/// One connection, both ends of it.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) shard: u16,
    /// The shell's name for it; used again after it is closed.
    pub(crate) index: u32,
    pub(crate) conn: Conn,
    pub(crate) session: Option<SessionId>,

    pub(crate) client_end: ClientEnd,
    /// True if the core knows of that end.
    pub(crate) is_end_told: bool,
    /// Bytes the core has got.
    pub(crate) delivered: u64,

    pub(crate) sending: Option<Sending>,
    /// How much of it has gone out.
    pub(crate) sent: usize,
    /// How far the kernel is with it.
    pub(crate) progress: Progress,
    /// The end of the send, once there is one: whether all went well.
    pub(crate) send_end: Option<bool>,
    /// Bytes that the client has yet to read.
    pub(crate) arriving: VecDeque<u8>,
    pub(crate) is_writing_finished: bool,
    pub(crate) is_closing: bool,
    /// True if the core wants nothing from the client for now.
    pub(crate) is_paused: bool,
    /// What comes in spite of that.
    pub(crate) pieces_left: u8,

    pub(crate) model: Model,
}

/// How far the kernel is with a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has refused the submission for now.
    Untaken,
    /// It goes on by itself, and a completion tells of its end.
    Sending,
    /// It was to be done at once, and a part was, or nothing: a completion tells of that, and the
    /// shell sends the rest.
    InPart,
    /// All of it was done at once, which wakes nobody.
    Done,
}

/// How the client has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientEnd {
    Open,
    /// It has closed its writing side and still reads.
    Eof,
    /// It is gone.
    Reset,
}

/// What the checks know of a session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    pub(crate) stage: Stage,
    /// When it came to that stage, on its shard's patient clock; `Closing` and `Lingering` are one.
    pub(crate) since_ms: u64,
    /// True if the server has read the client's ACK.
    pub(crate) is_working: bool,
    /// When the server last read what keeps the session alive.
    pub(crate) heard_ms: u64,
    /// True if something of it was held for a later turn.
    pub(crate) is_held: bool,
}

impl Socket {
    pub(crate) fn new(shard: u16, index: u32, conn: Conn) -> Self {
        Self {
            shard,
            index,
            conn,
            session: None,
            client_end: ClientEnd::Open,
            is_end_told: false,
            delivered: 0,
            sending: None,
            sent: 0,
            progress: Progress::Sending,
            send_end: None,
            arriving: VecDeque::new(),
            is_writing_finished: false,
            is_closing: false,
            is_paused: false,
            pieces_left: 0,
            model: Model {
                stage: Stage::Opening,
                since_ms: 0,
                is_working: false,
                heard_ms: 0,
                is_held: false,
            },
        }
    }

    /// Moves bytes of the send under way into the network, which holds `room` of them unread.
    pub(crate) fn transmit(&mut self, room: usize) {
        let Some(sending) = &self.sending else { return };
        if self.send_end.is_some() || self.progress != Progress::Sending {
            return;
        }
        if self.client_end == ClientEnd::Reset {
            self.send_end = Some(false);
            return;
        }
        let rest = &sending.bytes()[self.sent..];
        let len = rest.len().min(room.saturating_sub(self.arriving.len()));
        self.arriving.extend(&rest[..len]);
        self.sent += len;
        if self.sent == sending.bytes().len() {
            self.send_end = Some(true);
        }
    }

    /// True if the shell has something to tell the core.
    pub(crate) fn has_completion(&self) -> bool {
        self.session.is_none()
            || self.is_closing
            || self.send_end.is_some() && self.progress != Progress::Done
            || self.progress == Progress::InPart
            || !self.is_end_told
                && (!self.conn.pipe.is_empty() || self.client_end != ClientEnd::Open)
    }

    /// True if a send has failed or will: its client has gone.
    pub(crate) fn send_failed(&self) -> bool {
        self.client_end == ClientEnd::Reset
    }
}
