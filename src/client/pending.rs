//! The requests of a connection that wait for their answers.

use std::collections::{BTreeSet, VecDeque};
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::wire::protobuf::Schema;

/// Requests by their ids and by their deadlines.
#[derive(Debug, Default)]
pub(super) struct PendingRequests {
    /// The id of the last request.
    last_id: u32,
    waiting: FxHashMap<u32, Pending>,
    /// The times at which those that wait fail.
    deadlines: BTreeSet<(Instant, u32)>,
    /// Those that were not answered in time, and are not told yet.
    timed_out: VecDeque<u32>,
}

#[derive(Debug)]
struct Pending {
    deadline: Instant,
    /// The schema of its answer.
    schema: Option<Schema>,
}

impl PendingRequests {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// The next id that no request has which still waits.
    pub(super) fn next_id(&self) -> u32 {
        let mut id = self.last_id;
        loop {
            // 0 asks for no answer.
            id = id.checked_add(1).unwrap_or(1);
            if !self.waiting.contains_key(&id) {
                return id;
            }
        }
    }

    /// Adds the request that was sent with the id [`Self::next_id`].
    pub(super) fn add(&mut self, id: u32, deadline: Instant, schema: Option<Schema>) {
        self.last_id = id;
        self.waiting.insert(id, Pending { deadline, schema });
        self.deadlines.insert((deadline, id));
    }

    /// Takes the request that is answered, and gives the schema of its answer. An answer that was
    /// not in time finds nobody.
    pub(super) fn take(&mut self, id: u32) -> Option<Option<Schema>> {
        let pending = self.waiting.remove(&id)?;
        self.deadlines.remove(&(pending.deadline, id));
        Some(pending.schema)
    }

    /// The earliest deadline.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(deadline, _)| deadline)
    }

    /// Fails those whose deadline has come.
    pub(super) fn expire(&mut self, now: Instant) {
        while let Some(&(deadline, id)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.waiting.remove(&id);
            self.timed_out.push_back(id);
        }
    }

    /// The next one that was not answered in time.
    pub(super) fn next_timed_out(&mut self) -> Option<u32> {
        self.timed_out.pop_front()
    }

    /// Tells no more of those that were not answered in time.
    pub(super) fn forget_timed_out(&mut self) {
        self.timed_out.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_start_again_and_skip_those_that_wait() {
        let now = Instant::now();
        let mut requests = PendingRequests::default();
        let add = |requests: &mut PendingRequests| {
            let id = requests.next_id();
            requests.add(id, now, None);
            id
        };
        assert_eq!(add(&mut requests), 1);
        requests.last_id = u32::MAX - 1;
        assert_eq!([add(&mut requests), add(&mut requests)], [u32::MAX, 2]);
    }
}
