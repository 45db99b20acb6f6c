//! Sends as a shard's shell makes them: most are to be done at once, and nobody waits for these.
//!
//! The kernel takes submissions in order, and may refuse what is left of them for a while. A send
//! that is to be done at once is done in full, which wakes nobody, or in part, or not at all, as
//! there is room; then its rest is sent as any other.

use shaddock::internals::simulated::Sending;

use crate::net::Progress;
use crate::plan::fault;
use crate::world::World;

/// Bytes that the network holds for a client who has not read them.
const ROOM: usize = 1 << 20;
/// The same for one who reads slowly.
const SLOW_ROOM: usize = 700;

impl World {
    /// Bytes that the network holds unread.
    pub(crate) fn room(&self) -> usize {
        match self.plan.has(fault::SLOW_READERS) && !self.is_settling {
            true => SLOW_ROOM,
            false => ROOM,
        }
    }

    /// Puts a send behind those that the kernel has yet to take.
    pub(crate) fn begin_send(&mut self, shard: u16, sending: Sending) -> Result<(), String> {
        let socket = self.socket(shard, sending.socket())?;
        let session = sending.session();
        if socket.session != Some(session) {
            return Err(format!("bytes of {session:?} go to the socket of {:?}", socket.session));
        }
        if socket.sending.is_some() {
            return Err(format!("{session:?} sends twice at a time"));
        }
        if socket.is_writing_finished || socket.is_closing {
            return Err(format!("{session:?} sends after its end"));
        }
        if sending.bytes().is_empty() {
            return Err(format!("{session:?} sends nothing"));
        }
        let (len, index, is_last) = (sending.bytes().len(), sending.socket(), sending.is_last());
        socket.sent = 0;
        socket.progress = Progress::Untaken;
        socket.sending = Some(sending);
        self.parties[usize::from(shard)].untaken.push_back(index);
        self.note(|| {
            let how = if is_last { "at once" } else { "and waits" };
            format!("session {session:?} sends {len} bytes {how}")
        });
        Ok(())
    }

    /// The kernel takes what was submitted, or the first part of it.
    pub(crate) fn submit(&mut self, shard: u16) -> Result<(), String> {
        let has_faults = self.plan.has(fault::PARTIAL_SENDS) && !self.is_settling;
        while let Some(&index) = self.parties[usize::from(shard)].untaken.front() {
            // By epoll there are no submissions.
            if has_faults && !self.is_polling && self.random.percent(20) {
                self.note(|| format!("the kernel refuses shard {shard} for now"));
                return Ok(());
            }
            self.parties[usize::from(shard)].untaken.pop_front();
            self.take_send(shard, index, has_faults)?;
        }
        Ok(())
    }

    fn take_send(&mut self, shard: u16, index: u32, has_faults: bool) -> Result<(), String> {
        let mut room = self.room();
        if has_faults && self.random.percent(30) {
            // Nothing more, or a part.
            room = self.random.pick(&[0, 1, 50]);
        }
        let socket = self.socket(shard, index)?;
        socket.progress = Progress::Sending;
        let sending = socket.sending.as_ref().ok_or("a send is taken that never began")?;
        if !sending.is_last() {
            return Ok(());
        }
        socket.transmit(room);
        match socket.send_end {
            Some(true) => {
                socket.progress = Progress::Done;
                self.parties[usize::from(shard)].done.push_back(index);
            }
            // A failure completes, whatever was asked for.
            Some(false) => {}
            None => {
                socket.progress = Progress::InPart;
                let sent = socket.sent;
                self.totals.sends_in_part += 1;
                self.note(|| format!("socket {index} takes {sent} bytes at once"));
            }
        }
        Ok(())
    }

    /// Tells the core of sends that were done at once, in order. True if there were any.
    pub(crate) fn tell_done(&mut self, shard: u16) -> Result<bool, String> {
        let is_late = self.plan.has(fault::STALLS) && !self.is_settling;
        let mut has_told = false;
        while let Some(&index) = self.parties[usize::from(shard)].done.front() {
            if is_late && self.random.percent(30) {
                break;
            }
            self.parties[usize::from(shard)].done.pop_front();
            let socket = self.socket(shard, index)?;
            let sending = socket.sending.take().ok_or("a send ends that never began")?;
            let is_whole = socket.send_end.take() == Some(true)
                && socket.progress == Progress::Done
                && socket.sent == sending.bytes().len();
            if !is_whole {
                return Err(format!("a send counts as done: {socket:?}"));
            }
            socket.progress = Progress::Sending;
            self.totals.bytes_out += sending.bytes().len() as u64;
            self.totals.sends_at_once += 1;
            self.engine.sent(sending, true);
            has_told = true;
        }
        Ok(has_told)
    }
}
