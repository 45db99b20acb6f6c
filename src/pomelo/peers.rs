//! The connections of a member, and the memory that they take together.

use std::collections::VecDeque;

use super::cluster::PomeloLimits;
use super::mqtt::Reader;
use super::peer::{Output, Owner, Peer, PeerId};
use crate::session::Table;

/// All connections: to the master and to servers, and those of backends that call.
pub(super) struct Peers {
    table: Table<Peer>,
    /// Those that have got something to send.
    dirty: VecDeque<PeerId>,
    /// Backends that do not read what they are answered; they are to be closed.
    overflowed: VecDeque<PeerId>,
    held: HeldBytes,
    output_bytes_max: usize,
    output_total_bytes_max: usize,
    input_total_bytes_max: usize,
}

/// The memory that all connections take together, at most: it is counted anew when a bound seems to
/// be reached, as sending gives memory back without a word.
#[derive(Debug, Default)]
struct HeldBytes {
    /// Of what waits to be sent.
    output: usize,
    /// Of packets that have come in part.
    input: usize,
    /// Set once it has been counted in this turn.
    is_counted: bool,
}

/// Connections at most: more than there can be servers, callers and masters.
const PEERS_MAX: usize = 1 << 20;
/// The bytes that each connection may hold whatever the others do, of what is to be sent and of a
/// packet.
const ALWAYS_BYTES: usize = 64 * 1024;

impl Peers {
    pub(super) fn new(limits: &PomeloLimits) -> Self {
        Self {
            table: Table::new(PEERS_MAX),
            dirty: VecDeque::new(),
            overflowed: VecDeque::new(),
            held: HeldBytes::default(),
            output_bytes_max: limits.output_bytes_max,
            output_total_bytes_max: limits.output_total_bytes_max,
            input_total_bytes_max: limits.input_total_bytes_max,
        }
    }

    pub(super) fn begin_turn(&mut self) {
        self.held.is_counted = false;
    }

    pub(super) fn add(&mut self, peer: Peer) -> Option<PeerId> {
        let (slot, generation) = self.table.insert(peer)?;
        Some(PeerId { slot, generation })
    }

    pub(super) fn get(&self, id: PeerId) -> Option<&Peer> {
        self.table.get(id.slot, id.generation)
    }

    pub(super) fn get_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.table.get_mut(id.slot, id.generation)
    }

    pub(super) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        self.get(id)?;
        self.table.remove(id.slot)
    }

    /// True if `bytes` more may wait to be sent on a connection where `waiting` do, by what
    /// waits on all of them. A little may always, so that nobody pays for others that do not read.
    pub(super) fn has_room(&mut self, waiting: usize, bytes: usize) -> bool {
        if self.held.output + bytes > self.output_total_bytes_max {
            self.count_held();
        }
        self.held.output + bytes <= self.output_total_bytes_max || waiting + bytes <= ALWAYS_BYTES
    }

    /// Counts what is held; once a turn, as memory is given back between turns.
    fn count_held(&mut self) {
        if self.held.is_counted {
            return;
        }
        self.held = HeldBytes { is_counted: true, ..HeldBytes::default() };
        for (.., peer) in self.table.iter() {
            let (output, input) = peer.held_bytes();
            self.held.output += output;
            self.held.input += input;
        }
    }

    /// Takes a connection's reader out, while the packets in it are handled.
    pub(super) fn take_reader(&mut self, id: PeerId) -> Option<Reader> {
        Some(std::mem::take(&mut self.get_mut(id)?.reader))
    }

    /// Puts the reader back, which holds `more` bytes of a packet that has come in part. They are
    /// refused where all connections hold too much.
    pub(super) fn put_reader(
        &mut self,
        id: PeerId,
        reader: Reader,
        more: usize,
    ) -> Result<(), InputOverflow> {
        if let Some(peer) = self.get_mut(id) {
            peer.reader = reader;
        }
        if more == 0 {
            return Ok(());
        }
        self.held.input += more;
        if self.held.input > self.input_total_bytes_max {
            self.count_held();
        }
        let Some(peer) = self.get(id) else { return Ok(()) };
        let (_, own) = peer.held_bytes();
        if self.held.input > self.input_total_bytes_max && own > ALWAYS_BYTES {
            self.held.input -= own;
            return Err(InputOverflow);
        }
        Ok(())
    }

    /// Appends what `write` does, of about `bytes` bytes, to what is sent on a connection.
    pub(super) fn append(&mut self, id: PeerId, bytes: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(peer) = self.table.get_mut(id.slot, id.generation) else { return };
        if peer.is_overflowed {
            return;
        }
        let held = peer.output.held_bytes();
        peer.output.append(bytes, write);
        self.held.output += peer.output.held_bytes().saturating_sub(held);
        self.mark_dirty(id);
    }

    /// The same of few bytes, which nobody has asked whether there is room for. A backend that has
    /// read too little before is to be closed; see [`Self::poll_overflowed`].
    pub(super) fn write(&mut self, id: PeerId, write: impl FnOnce(&mut Vec<u8>)) {
        self.append(id, 0, write);
        let Some(peer) = self.get(id).filter(|peer| peer.owner == Owner::Caller) else { return };
        let len = peer.output.len();
        if (len > self.output_bytes_max || !self.has_room(len, 0))
            && let Some(peer) = self.get_mut(id)
            && !std::mem::replace(&mut peer.is_overflowed, true)
        {
            self.overflowed.push_back(id);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: PeerId) {
        if let Some(peer) = self.get_mut(id)
            && peer.is_open
            && peer.output.len() > 0
            && !std::mem::replace(&mut peer.is_dirty, true)
        {
            self.dirty.push_back(id);
        }
    }

    /// A backend that does not read what it is answered: it is to be closed.
    pub(super) fn poll_overflowed(&mut self) -> Option<PeerId> {
        self.overflowed.pop_front()
    }

    /// A connection that has something to send.
    pub(super) fn poll_dirty(&mut self) -> Option<PeerId> {
        while let Some(id) = self.dirty.pop_front() {
            if let Some(peer) = self.get_mut(id) {
                peer.is_dirty = false;
                return Some(id);
            }
        }
        None
    }

    /// The bytes that are to be sent on an open connection.
    pub(super) fn output(&mut self, id: PeerId) -> Option<&mut Output> {
        let peer = self.get_mut(id)?;
        peer.is_open.then_some(&mut peer.output)
    }

    /// True if an open connection has something to send.
    pub(super) fn is_sending(&self) -> bool {
        self.table.iter().any(|(.., peer)| peer.is_open && peer.output.len() > 0)
    }
}

/// Too much has come in part on all connections, and one of them holds much of it.
pub(super) struct InputOverflow;
