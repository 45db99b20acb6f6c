//! A slab whose entries carry a generation.

use super::{Generation, Slot};

/// Values by slot, with a generation that tells the successive owners of a slot apart.
#[derive(Debug)]
pub(crate) struct Table<T> {
    entries: Vec<Entry<T>>,
    free: Vec<Slot>,
    len_max: usize,
}

#[derive(Debug)]
struct Entry<T> {
    generation: Generation,
    value: Option<T>,
}

/// The largest capacity that is reserved at the start.
pub(crate) const CAPACITY_MAX: usize = 1 << 17;

impl<T> Table<T> {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { entries: Vec::new(), free: Vec::new(), len_max }
    }

    /// A table with capacity for `len_max` values from the start, at most [`CAPACITY_MAX`].
    ///
    /// Moving some ten thousand values into a larger allocation takes milliseconds, during which
    /// the shard serves nobody. Unused capacity takes addresses, but no memory.
    pub(crate) fn with_capacity(len_max: usize) -> Self {
        let len = len_max.min(CAPACITY_MAX);
        Self { entries: Vec::with_capacity(len), free: Vec::with_capacity(len), len_max }
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// The number of slots, taken or free.
    pub(crate) fn slots_len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.len_max
    }

    /// Inserts a value; `None` if the table is full.
    pub(crate) fn insert(&mut self, value: T) -> Option<(Slot, Generation)> {
        if let Some(slot) = self.free.pop() {
            let entry = &mut self.entries[slot.index()];
            debug_assert!(entry.value.is_none());
            entry.value = Some(value);
            return Some((slot, entry.generation));
        }
        if self.entries.len() == self.len_max {
            return None;
        }
        let slot = Slot(self.entries.len() as u32);
        self.entries.push(Entry { generation: Generation::FIRST, value: Some(value) });
        Some((slot, Generation::FIRST))
    }

    /// Removes a value; ids of its generation are stale from here on.
    pub(crate) fn remove(&mut self, slot: Slot) -> Option<T> {
        let entry = self.entries.get_mut(slot.index())?;
        let value = entry.value.take()?;
        entry.generation = entry.generation.next();
        self.free.push(slot);
        Some(value)
    }

    /// The generation of the slot's current owner, or of its next one if it is free.
    #[inline]
    pub(crate) fn generation(&self, slot: Slot) -> Generation {
        self.entries.get(slot.index()).map_or(Generation::FIRST, |entry| entry.generation)
    }

    #[inline]
    pub(crate) fn at(&self, slot: Slot) -> Option<&T> {
        self.entries.get(slot.index())?.value.as_ref()
    }

    #[inline]
    pub(crate) fn at_mut(&mut self, slot: Slot) -> Option<&mut T> {
        self.entries.get_mut(slot.index())?.value.as_mut()
    }

    #[inline]
    pub(crate) fn get(&self, slot: Slot, generation: Generation) -> Option<&T> {
        let entry = self.entries.get(slot.index())?;
        if entry.generation != generation {
            return None;
        }
        entry.value.as_ref()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, slot: Slot, generation: Generation) -> Option<&mut T> {
        let entry = self.entries.get_mut(slot.index())?;
        if entry.generation != generation {
            return None;
        }
        entry.value.as_mut()
    }

    /// The slots that are taken at the moment of the call.
    pub(crate) fn slots(&self) -> Vec<Slot> {
        self.iter().map(|(slot, ..)| slot).collect()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Slot, Generation, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, entry)| {
            Some((Slot(index as u32), entry.generation, entry.value.as_ref()?))
        })
    }
}

/// Packs a slot and its generation into a word that others name the value by.
pub(crate) fn token_of((slot, generation): (Slot, Generation)) -> u64 {
    u64::from(slot.0) << 32 | u64::from(generation.0)
}

/// Unpacks such a word.
pub(crate) fn place_of(token: u64) -> (Slot, Generation) {
    (Slot((token >> 32) as u32), Generation(token as u32))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn a_stale_generation_finds_nothing() {
        let mut table = Table::new(2);
        let (slot, old) = table.insert("a").unwrap();
        assert_eq!(table.remove(slot), Some("a"));
        assert_eq!(table.remove(slot), None);
        let (again, new) = table.insert("b").unwrap();
        assert_eq!(again, slot);
        assert_eq!(table.get(slot, old), None);
        assert_eq!(table.get(slot, new), Some(&"b"));
    }

    #[test]
    fn a_full_table_refuses() {
        let mut table = Table::new(1);
        assert!(table.insert(1).is_some());
        assert!(table.insert(2).is_none());
        assert_eq!(table.len(), 1);
    }

    /// Random operations agree with a plain map.
    #[test]
    fn behaves_like_a_map() {
        let mut table = Table::new(64);
        let mut model: HashMap<u32, (Generation, u64)> = HashMap::new();
        let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
        for step in 0..crate::test_cases::repetitions(20_000).into() {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            let slot = Slot((seed >> 8) as u32 % 64);
            if seed.is_multiple_of(2) {
                match table.insert(step) {
                    Some((slot, generation)) => {
                        assert!(model.insert(slot.0, (generation, step)).is_none());
                    }
                    None => assert_eq!(model.len(), 64),
                }
            } else {
                assert_eq!(table.remove(slot), model.remove(&slot.0).map(|(_, value)| value));
            }
            assert_eq!(table.len(), model.len());
            let expected = model.get(&slot.0);
            assert_eq!(table.at(slot), expected.map(|(_, value)| value));
            if let Some((generation, value)) = expected {
                assert_eq!(table.get(slot, *generation), Some(value));
            }
        }
        assert_eq!(table.iter().count(), model.len());
    }
}
