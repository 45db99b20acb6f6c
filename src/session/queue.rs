//! The entries of an outbox that are kept piece by piece: pushes too large to copy, and those that
//! may be dropped while they wait.

use std::collections::VecDeque;

use bytes::Bytes;

use super::buffers::Buffers;
use super::segment::{GATHER_BYTES, SHARE_BYTES_MIN, Segment, Since};
use crate::route::push::Lossy;
use crate::wire::websocket;

/// A push that may be dropped while it waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LossyPush<'a> {
    pub(crate) package: &'a Bytes,
    pub(crate) lossy: Lossy,
    pub(crate) framing: Framing,
}

/// The framing that a package still needs. A WebSocket header is written when the package is sent,
/// so that both are dropped together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    None,
    WebSocket,
}

/// The loss that a new push caused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushLoss {
    /// The earlier push of the same route.
    Replaced,
    /// The oldest push that may be dropped.
    Dropped,
}

/// Segments in order.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Bytes of pushes that other sessions share.
    shared_bytes: usize,
    /// The number of entries that may be dropped for room.
    droppable: usize,
}

#[derive(Debug)]
struct Entry {
    segment: Segment,
    since: Since,
    framing: Framing,
    /// The policy of its route, if the entry may be dropped.
    lossy: Option<Lossy>,
}

/// The fixed cost of a push that is kept by itself, in bytes, so that many small ones are bounded
/// too.
const PUSH_BYTES: usize = 64;
const _: () = assert!(size_of::<Entry>() <= PUSH_BYTES);
/// The largest capacity of a queue that is kept, in entries; a larger one is freed.
const KEPT_LEN_MAX: usize = 64;

impl Entry {
    /// Its share of the outbox's bytes.
    fn bytes(&self) -> usize {
        self.segment.as_slice().len() + if self.lossy.is_some() { PUSH_BYTES } else { 0 }
    }

    fn shared_bytes(&self) -> usize {
        match &self.segment {
            Segment::Shared(bytes) => bytes.len(),
            Segment::Owned(_) => 0,
        }
    }

    fn is_droppable(&self) -> bool {
        matches!(self.lossy, Some(Lossy::DropOldest))
    }
}

impl Queue {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of pushes that other sessions share.
    pub(super) fn shared_bytes(&self) -> usize {
        debug_assert_eq!(
            self.shared_bytes,
            self.entries.iter().map(Entry::shared_bytes).sum::<usize>()
        );
        self.shared_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn is_small(&self) -> bool {
        self.entries.capacity() <= KEPT_LEN_MAX
    }

    /// Appends a required segment.
    pub(super) fn push(&mut self, segment: Segment, since: Since) {
        self.add(Entry { segment, since, framing: Framing::None, lossy: None });
    }

    /// Appends a push that may be dropped. At most `len_max` pushes wait that may be dropped for
    /// room; of those that replace each other, at most one per route.
    pub(super) fn push_lossy(
        &mut self,
        push: LossyPush<'_>,
        len_max: usize,
        since: Since,
    ) -> Option<PushLoss> {
        let LossyPush { package, lossy, framing } = push;
        let lost = match lossy {
            Lossy::KeepLatest(_) => {
                let is_older = |entry: &Entry| entry.lossy == Some(lossy);
                let older = self.entries.iter().position(is_older);
                older.map(|at| self.remove(at)).map(|()| PushLoss::Replaced)
            }
            Lossy::DropOldest => {
                let is_full = self.droppable >= len_max;
                (is_full && self.drop_oldest()).then_some(PushLoss::Dropped)
            }
        };
        let segment = Segment::Shared(package.clone());
        self.add(Entry { segment, since, framing, lossy: Some(lossy) });
        lost
    }

    fn add(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.shared_bytes += entry.shared_bytes();
        self.droppable += usize::from(entry.is_droppable());
        self.entries.push_back(entry);
    }

    fn remove(&mut self, at: usize) {
        if let Some(entry) = self.entries.remove(at) {
            self.bytes -= entry.bytes();
            self.shared_bytes -= entry.shared_bytes();
            self.droppable -= usize::from(entry.is_droppable());
        }
    }

    /// Drops the oldest push that may be dropped for room. True if there was one.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let oldest = self.entries.iter().position(Entry::is_droppable);
        oldest.map(|at| self.remove(at)).is_some()
    }

    /// Drops the pushes that may be dropped for room and have waited longer than `age_ms`. Returns
    /// the number dropped.
    pub(super) fn drop_older(&mut self, age_ms: u64, now_ms: u64) -> u64 {
        let mut dropped = 0;
        while self.droppable > 0
            && let Some(at) = self.entries.iter().position(Entry::is_droppable)
            && self.entries[at].since.age_ms(now_ms).is_some_and(|waited| waited > age_ms)
        {
            self.remove(at);
            dropped += 1;
        }
        dropped
    }

    /// The waiting time of the oldest required entry.
    pub(super) fn wait_ms(&self, now_ms: u64) -> Option<u64> {
        let owed = self.entries.iter().filter(|entry| entry.lossy.is_none());
        owed.filter_map(|entry| entry.since.age_ms(now_ms)).next()
    }

    /// Takes the next segment to send, with small pieces gathered, and the time from which its
    /// oldest required piece has waited.
    pub(super) fn take(&mut self, buffers: &mut Buffers) -> Option<(Segment, Since)> {
        let is_whole = |entry: &Entry| {
            entry.framing == Framing::None && entry.segment.as_slice().len() >= SHARE_BYTES_MIN
        };
        if self.entries.front().is_some_and(is_whole) {
            return self.pop();
        }
        let mut gathered = buffers.take();
        let mut oldest = Since::NEVER;
        while gathered.len() < GATHER_BYTES
            && let Some(entry) = self.entries.front_mut()
        {
            if entry.framing == Framing::WebSocket {
                let len = entry.segment.as_slice().len();
                websocket::encode_binary_header(len, &mut gathered);
                self.begin_frame();
                continue;
            }
            if is_whole(entry) {
                break;
            }
            let Some((segment, since)) = self.pop() else { break };
            gathered.extend_from_slice(segment.as_slice());
            if oldest == Since::NEVER {
                oldest = since;
            }
            if let Segment::Owned(buffer) = segment {
                buffers.give(buffer);
            }
        }
        Some((Segment::Owned(gathered), oldest))
    }

    /// Makes the first entry required, as its frame's header has been taken.
    fn begin_frame(&mut self) {
        let Some(entry) = self.entries.front_mut() else { return };
        let (bytes, was_droppable) = (entry.bytes(), entry.is_droppable());
        entry.framing = Framing::None;
        entry.lossy = None;
        entry.since = Since::NEVER;
        self.bytes -= bytes - entry.bytes();
        self.droppable -= usize::from(was_droppable);
    }

    fn pop(&mut self) -> Option<(Segment, Since)> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes();
        self.shared_bytes -= entry.shared_bytes();
        self.droppable -= usize::from(entry.is_droppable());
        let since = if entry.lossy.is_some() { Since::NEVER } else { entry.since };
        Some((entry.segment, since))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BufferPool, Outbox};
    use super::*;
    use crate::route::table::RouteTable;

    /// A test's entry: an ordinary piece or a push, by its number.
    #[derive(Debug, Clone, PartialEq)]
    struct Piece {
        number: u32,
        lossy: Option<Lossy>,
        bytes: Vec<u8>,
    }

    fn body(number: u32, len: usize) -> Vec<u8> {
        let mut body = number.to_be_bytes().repeat(len.div_ceil(4));
        body.truncate(len);
        body
    }

    /// Splits one segment into the pieces that are expected next.
    fn expect(model: &mut VecDeque<Piece>, framing: Framing, sent: &[u8], rest: &mut Vec<u8>) {
        rest.extend_from_slice(sent);
        while let Some(piece) = model.front() {
            let mut expected = Vec::new();
            if piece.lossy.is_some() && framing == Framing::WebSocket {
                websocket::encode_binary_header(piece.bytes.len(), &mut expected);
            }
            expected.extend_from_slice(&piece.bytes);
            let len = expected.len().min(rest.len());
            assert_eq!(rest[..len], expected[..len], "piece {}", piece.number);
            if rest.len() < expected.len() {
                return;
            }
            rest.drain(..expected.len());
            model.pop_front();
        }
        assert!(rest.is_empty(), "more than was queued");
    }

    /// Random operations send what the policies have left, whole and in order.
    #[test]
    fn what_is_sent_is_what_the_policies_have_left() {
        const PUSHES_MAX: usize = 3;
        let routes = RouteTable::new(["a", "b"].map(str::to_owned), None, None);
        let id = |route: &str| routes.find(route.as_bytes()).unwrap();
        let kinds = [Lossy::DropOldest, Lossy::KeepLatest(id("a")), Lossy::KeepLatest(id("b"))];
        for seed in 0..u64::from(crate::test_cases::repetitions(400)) {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut below = |bound: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % bound
            };
            let framing = if seed % 2 == 0 { Framing::None } else { Framing::WebSocket };
            let (mut outbox, mut pool) = (Outbox::default(), BufferPool::default());
            let (mut model, mut rest) = (VecDeque::new(), Vec::new());
            for number in 0..60 {
                let lens = [1, 40, SHARE_BYTES_MIN - 1, SHARE_BYTES_MIN, 9_000];
                let bytes = body(number, lens[below(5) as usize]);
                match below(8) {
                    0 => {
                        outbox.open(&mut pool).extend_from_slice(&bytes);
                        model.push_back(Piece { number, lossy: None, bytes });
                    }
                    1 => {
                        outbox.push_shared(&bytes.clone().into(), &mut pool);
                        model.push_back(Piece { number, lossy: None, bytes });
                    }
                    2..=5 => {
                        let lossy = kinds[below(3) as usize];
                        let package = bytes.clone().into();
                        let push = LossyPush { package: &package, lossy, framing };
                        let lost = outbox.push_lossy(push, PUSHES_MAX, &mut pool);
                        // A frame that has begun has to be finished, whatever else is dropped.
                        let begun = usize::from(!rest.is_empty());
                        let same = |piece: &Piece| piece.lossy == Some(lossy);
                        let same: Vec<usize> =
                            (begun..model.len()).filter(|at| same(&model[*at])).collect();
                        let room = if lossy == Lossy::DropOldest { PUSHES_MAX } else { 1 };
                        let goes = (same.len() >= room).then(|| same[0]);
                        assert_eq!(lost.is_some(), goes.is_some(), "seed {seed}, {number}");
                        goes.map(|at| model.remove(at));
                        model.push_back(Piece { number, lossy: Some(lossy), bytes });
                    }
                    _ => {
                        if let Some(segment) = outbox.take(&mut pool) {
                            expect(&mut model, framing, segment.as_slice(), &mut rest);
                            outbox.finish(segment, &mut pool);
                        }
                    }
                }
                assert_eq!(outbox.is_waiting(), !model.is_empty(), "seed {seed}, {number}");
            }
            while let Some(segment) = outbox.take(&mut pool) {
                expect(&mut model, framing, segment.as_slice(), &mut rest);
                outbox.finish(segment, &mut pool);
            }
            assert!(model.is_empty() && rest.is_empty() && outbox.bytes() == 0, "seed {seed}");
        }
    }

    #[test]
    fn many_small_pushes_are_one_segment() {
        let (mut outbox, mut pool) = (Outbox::default(), BufferPool::default());
        let package = Bytes::from_static(b"push");
        let push =
            LossyPush { package: &package, lossy: Lossy::DropOldest, framing: Framing::WebSocket };
        for _ in 0..100 {
            outbox.push_lossy(push, 100, &mut pool);
        }
        outbox.open(&mut pool).extend_from_slice(b"answer");
        let segment = outbox.take(&mut pool).unwrap();
        assert_eq!(segment.as_slice().len(), 100 * (2 + 4) + 6);
        assert!(!outbox.is_waiting());
    }

    #[test]
    fn age_counts_what_may_not_be_dropped() {
        let (mut outbox, mut pool) = (Outbox::default(), BufferPool::default());
        let package = Bytes::from_static(b"push");
        let push =
            LossyPush { package: &package, lossy: Lossy::DropOldest, framing: Framing::None };
        let at = |ms: u64| ms + u64::from(u32::MAX) - 50; // Across the wrap of the clock.
        pool.begin_turn(at(0));
        outbox.push_lossy(push, 9, &mut pool);
        assert_eq!(outbox.wait_ms(at(100)), None);
        pool.begin_turn(at(40));
        outbox.open(&mut pool).extend_from_slice(b"answer");
        assert_eq!(outbox.wait_ms(at(100)), Some(60));
        assert_eq!(outbox.drop_older(100, at(100), &mut pool), 0);
        assert_eq!(outbox.drop_older(99, at(100), &mut pool), 1);
        let segment = outbox.take(&mut pool).unwrap();
        assert_eq!(segment.as_slice(), b"answer");
        pool.begin_turn(at(70));
        outbox.open(&mut pool).extend_from_slice(b"later");
        assert_eq!(outbox.wait_ms(at(100)), Some(60), "what is in flight waits, too");
        outbox.finish(segment, &mut pool);
        assert_eq!(outbox.wait_ms(at(100)), Some(30));
    }
}
