//! Ids of shards, slots and sessions.

use std::num::NonZeroU64;

/// A shard's index. A shard is one thread with one ring and the sessions it accepted.
///
/// ```
/// use shaddock::SessionId;
///
/// fn sessions_by_shard(sessions: &[SessionId], shards: usize) -> Vec<usize> {
///     let mut counts = vec![0; shards];
///     for session in sessions {
///         counts[session.shard().index()] += 1;
///     }
///     counts
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub(crate) u16);

impl ShardIndex {
    /// The index, from 0.
    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The number by which clients and backends know a session, the nth that has got one, from 1. As
/// [`shard_of`] finds its shard by it, the numbers of an engine with several shards have gaps.
pub(crate) fn session_number(nth: u64, shard: ShardIndex, shards: u16) -> u64 {
    nth * u64::from(shards) + u64::from(shard.0)
}

/// The shard of the session that has or had a number, if any ever had it.
#[cfg(feature = "pitaya")]
pub(crate) fn shard_of(number: u64, shards: u16) -> ShardIndex {
    ShardIndex((number % u64::from(shards)) as u16)
}

/// The index of an entry in one shard's table.
///
/// A slot does not name its session, so it is valid only during the call that looked it up: later
/// it may belong to another session. Whatever outlives that call keeps a [`SessionId`]. For the
/// same reason a slot is no key of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of times a slot was taken, so that a stale id never reaches another client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Generation(pub(crate) u32);

impl Generation {
    pub(crate) const FIRST: Self = Self(1);

    /// The generation of the slot's next session. INVARIANT: never 0, which keeps a [`SessionId`]
    /// from being 0.
    pub(crate) fn next(self) -> Self {
        let next = (self.0 + 1) & GENERATION_MASK;
        Self(next.max(1))
    }
}

/// The id of a session within this process: shard, slot and generation in one word.
///
/// Clients and backends see another id, a number as in Pomelo (see
/// [`SessionView::number`](crate::SessionView)).
///
/// ```text
/// | shard 16 bits | slot 24 bits | generation 24 bits |
/// ```
///
/// ```
/// use shaddock::{Engine, testing};
///
/// let t = testing::Engine::new(Engine::builder());
/// let amy = t.connect();
/// let id = amy.session().id();
/// println!("{id:?} is on shard {}", id.shard().index());
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId(NonZeroU64);

const SLOT_BITS: u32 = 24;
const GENERATION_BITS: u32 = 24;
const GENERATION_MASK: u32 = (1 << GENERATION_BITS) - 1;
const _: () = assert!(16 + SLOT_BITS + GENERATION_BITS == 64);

impl SessionId {
    pub(crate) fn new(shard: ShardIndex, slot: Slot, generation: Generation) -> Self {
        debug_assert!(slot.0 < 1 << SLOT_BITS);
        debug_assert!(generation.0 != 0 && generation.0 <= GENERATION_MASK);
        let word = u64::from(shard.0) << (SLOT_BITS + GENERATION_BITS)
            | u64::from(slot.0) << GENERATION_BITS
            | u64::from(generation.0);
        Self(NonZeroU64::new(word).expect("a generation is never 0"))
    }

    /// Reads what `Debug` writes.
    #[cfg(any(feature = "admin", test))]
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let shard = ShardIndex(parts.next()?.parse().ok()?);
        let slot = parts.next()?.parse().ok().filter(|slot| *slot < 1 << SLOT_BITS)?;
        let generation = parts.next()?.parse().ok()?;
        let is_one = (1..=GENERATION_MASK).contains(&generation);
        is_one.then(|| Self::new(shard, Slot(slot), Generation(generation)))
    }

    /// The shard that owns the session.
    #[must_use]
    pub fn shard(self) -> ShardIndex {
        ShardIndex((self.0.get() >> (SLOT_BITS + GENERATION_BITS)) as u16)
    }

    pub(crate) fn slot(self) -> Slot {
        Slot((self.0.get() >> GENERATION_BITS) as u32 & ((1 << SLOT_BITS) - 1))
    }

    pub(crate) fn generation(self) -> Generation {
        Generation(self.0.get() as u32 & GENERATION_MASK)
    }
}

impl std::fmt::Debug for SessionId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}", self.shard().0, self.slot().0, self.generation().0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back() {
        for (shard, slot, generation) in [(0, 0, 1), (65_535, (1 << 24) - 1, GENERATION_MASK)] {
            let id = SessionId::new(ShardIndex(shard), Slot(slot), Generation(generation));
            assert_eq!(id.shard(), ShardIndex(shard));
            assert_eq!(id.slot(), Slot(slot));
            assert_eq!(id.generation(), Generation(generation));
            assert_eq!(SessionId::parse(&format!("{id:?}")), Some(id));
        }
    }

    #[test]
    fn other_text_is_no_id() {
        for text in [
            "",
            "0",
            "0.1",
            "0.1.0",
            "0.1.2.3",
            "0.16777216.1",
            "0.0.16777216",
            "65536.0.1",
            "a.b.c",
        ] {
            assert_eq!(SessionId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_generation_wraps_past_zero() {
        assert_eq!(Generation(GENERATION_MASK).next(), Generation(1));
        assert_eq!(Generation::FIRST.next(), Generation(2));
    }
}
