//! A timer wheel: one deadline for each slot, set and cleared in constant time.

use crate::session::{CAPACITY_MAX, Slot};

/// Deadlines by slot.
///
/// A wheel advances one bucket each [`TICK_MS`]. A deadline farther away than one revolution stays
/// in its bucket for as many revolutions. Each slot is in at most one list, so a wheel of n
/// sessions holds n nodes.
#[derive(Debug)]
pub(crate) struct Wheel {
    nodes: Vec<Node>,
    /// The first node of each bucket.
    buckets: Box<[u32]>,
    /// The first tick that [`Self::advance`] has not reached.
    tick: u64,
}

#[derive(Debug, Clone, Copy)]
struct Node {
    deadline_tick: u64,
    next: u32,
    previous: u32,
}

/// The resolution of deadlines in milliseconds; a deadline never fires early.
pub(crate) const TICK_MS: u64 = 50;
const BUCKETS: usize = 512;
const NONE: u32 = u32::MAX;
/// The `previous` of a node that is in no list.
const UNLINKED: u32 = u32::MAX - 1;
const _: () = assert!(BUCKETS.is_power_of_two());

impl Wheel {
    /// A wheel with capacity for `slots` slots from the start, at most [`CAPACITY_MAX`]; it grows
    /// on demand.
    pub(crate) fn with_capacity(slots: usize) -> Self {
        let nodes = Vec::with_capacity(slots.min(CAPACITY_MAX));
        Self { nodes, buckets: vec![NONE; BUCKETS].into(), tick: 0 }
    }

    /// The number of slots with a deadline.
    #[cfg(feature = "internals")]
    pub(crate) fn len(&self) -> usize {
        self.nodes.iter().filter(|node| node.previous != UNLINKED).count()
    }

    /// Sets the deadline of a slot, in place of an earlier one.
    pub(crate) fn set(&mut self, slot: Slot, deadline_ms: u64) {
        if self.nodes.len() <= slot.index() {
            let unlinked = Node { deadline_tick: 0, next: NONE, previous: UNLINKED };
            self.nodes.resize(slot.index() + 1, unlinked);
        }
        self.clear(slot);
        // Rounded up, so that nothing fires early, and never in a bucket that has passed.
        let deadline_tick = (deadline_ms.div_ceil(TICK_MS)).max(self.tick);
        let bucket = bucket(deadline_tick);
        let next = self.buckets[bucket];
        self.nodes[slot.index()] = Node { deadline_tick, next, previous: NONE };
        if next != NONE {
            self.nodes[next as usize].previous = slot.0;
        }
        self.buckets[bucket] = slot.0;
    }

    /// Removes the deadline of a slot, if it has one.
    pub(crate) fn clear(&mut self, slot: Slot) {
        let Some(node) = self.nodes.get_mut(slot.index()) else { return };
        let Node { deadline_tick, next, previous } = *node;
        match previous {
            UNLINKED => return,
            NONE => self.buckets[bucket(deadline_tick)] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        self.nodes[slot.index()].previous = UNLINKED;
    }

    /// True if a slot has a deadline.
    pub(crate) fn is_set(&self, slot: Slot) -> bool {
        self.nodes.get(slot.index()).is_some_and(|node| node.previous != UNLINKED)
    }

    /// Moves the slots whose deadlines have passed into `due`.
    pub(crate) fn advance(&mut self, now_ms: u64, due: &mut Vec<Slot>) {
        let now_tick = now_ms / TICK_MS;
        // After more than one revolution each bucket is visited once.
        let first = self.tick.max((now_tick + 1).saturating_sub(BUCKETS as u64));
        for tick in first..=now_tick {
            let mut node = self.buckets[bucket(tick)];
            while node != NONE {
                let Node { deadline_tick, next, .. } = self.nodes[node as usize];
                if deadline_tick <= now_tick {
                    self.clear(Slot(node));
                    due.push(Slot(node));
                }
                node = next;
            }
        }
        self.tick = self.tick.max(now_tick + 1);
    }
}

fn bucket(tick: u64) -> usize {
    tick as usize & (BUCKETS - 1)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn nothing_fires_early_or_twice() {
        let mut wheel = Wheel::with_capacity(4);
        let mut due = Vec::new();
        wheel.set(Slot(3), 120);
        wheel.advance(119, &mut due);
        assert!(due.is_empty());
        wheel.advance(150, &mut due);
        assert_eq!(due, [Slot(3)]);
        wheel.advance(10_000, &mut due);
        assert_eq!(due.len(), 1);
    }

    #[test]
    fn a_far_deadline_waits_for_its_turn() {
        let mut wheel = Wheel::with_capacity(4);
        let mut due = Vec::new();
        let far_ms = TICK_MS * BUCKETS as u64 * 3 + 100;
        wheel.set(Slot(0), far_ms);
        for now_ms in (0..far_ms).step_by(1000) {
            wheel.advance(now_ms, &mut due);
            assert!(due.is_empty(), "at {now_ms}");
        }
        wheel.advance(far_ms, &mut due);
        assert_eq!(due, [Slot(0)]);
    }

    /// Random operations agree with a plain map, with jumps of more than one revolution.
    #[test]
    fn behaves_like_a_map_of_deadlines() {
        let mut wheel = Wheel::with_capacity(4);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        let (mut seed, mut now_ms) = (88_172_645_463_325_252_u64, 0);
        for _ in 0..crate::test_cases::repetitions(50_000) {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let slot = (seed >> 16) as u32 % 100;
            match seed % 10 {
                0..=4 => {
                    let deadline_ms = now_ms + (seed >> 32) % 60_000;
                    wheel.set(Slot(slot), deadline_ms);
                    // The wheel rounds up, and never to a tick that has passed.
                    let tick = deadline_ms.div_ceil(TICK_MS).max(wheel.tick);
                    model.insert(slot, tick * TICK_MS);
                }
                5 => {
                    wheel.clear(Slot(slot));
                    model.remove(&slot);
                }
                _ => {
                    now_ms += if seed.is_multiple_of(97) { 100_000 } else { (seed >> 40) % 200 };
                    let mut due = Vec::new();
                    wheel.advance(now_ms, &mut due);
                    let mut due: Vec<u32> = due.into_iter().map(|slot| slot.0).collect();
                    due.sort_unstable();
                    let expected: Vec<u32> = model
                        .iter()
                        .filter(|(_, deadline_ms)| **deadline_ms / TICK_MS <= now_ms / TICK_MS)
                        .map(|(slot, _)| *slot)
                        .collect();
                    assert_eq!(due, expected);
                    model.retain(|slot, _| !expected.contains(slot));
                }
            }
        }
    }
}
