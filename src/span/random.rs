//! Random ids of one shard.

use std::hash::{BuildHasher as _, RandomState};

use super::SpanContext;

/// A generator of ids, and of other numbers, that no other shard or process makes: xoshiro256++ of
/// Blackman and Vigna, begun from the system's random numbers. It keeps nothing secret.
#[derive(Debug)]
pub(crate) struct Random([u64; 4]);

impl Random {
    pub(crate) fn new() -> Self {
        // Each of them hashes with keys that the system gave, and that no other has.
        let state = [0; 4].map(|zero: u64| RandomState::new().hash_one(zero));
        // All zeros would give nothing but zeros.
        Self([state[0] | 1, state[1], state[2], state[3]])
    }

    pub(crate) fn next(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.0;
        let next = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        next
    }

    /// The ids of a new trace, and of its first span.
    pub(super) fn context(&mut self) -> SpanContext {
        let trace = u128::from(self.next()) << 64 | u128::from(self.next());
        // All zeros are no ids.
        SpanContext { trace: trace.max(1).to_be_bytes(), span: self.next().max(1).to_be_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The first numbers of the authors' own program, from the state 1, 2, 3, 4.
    #[test]
    fn numbers_are_those_of_the_authors() {
        let mut random = Random([1, 2, 3, 4]);
        let numbers = [random.next(), random.next(), random.next()];
        assert_eq!(numbers, [41_943_041, 58_720_359, 3_588_806_011_781_223]);
    }

    #[test]
    fn no_two_shards_make_the_same_ids() {
        let mut shards: Vec<Random> = (0..8).map(|_| Random::new()).collect();
        let mut seen = HashSet::new();
        for shard in &mut shards {
            for _ in 0..100 {
                let SpanContext { trace, span } = shard.context();
                assert!(seen.insert(trace.to_vec()) && seen.insert(span.to_vec()));
            }
        }
    }
}
