//! What a shard or worker has asked others for, and waits to hear.

use super::mail::Outcome;
use crate::dispatch::BindError;
use crate::dispatch::pending::Completion;
use crate::session::{Table, Uid, place_of, token_of};

/// The questions under way, by the token that their outcomes carry.
pub(crate) struct PendingAsks {
    table: Table<Ask>,
}

/// One question.
pub(crate) enum Ask {
    Bind(Completion<Result<(), BindError>>),
    Set(Completion<bool>),
    Kick(Completion<usize>),
    /// Several home shards answer a push; their fail lists come together here.
    Push {
        left: usize,
        fails: Vec<Uid>,
        done: Completion<Vec<Uid>>,
    },
}

impl PendingAsks {
    pub(crate) fn new(len_max: usize) -> Self {
        Self { table: Table::new(len_max) }
    }

    #[cfg(feature = "internals")]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Keeps a question; gives it back when too many are under way.
    pub(crate) fn add(&mut self, ask: Ask) -> Result<u64, Ask> {
        if self.table.is_full() {
            return Err(ask);
        }
        Ok(token_of(self.table.insert(ask).expect("the table is not full")))
    }

    /// Takes a question back that could not be asked.
    pub(crate) fn take(&mut self, token: u64) -> Option<Ask> {
        let (slot, generation) = place_of(token);
        self.table.get(slot, generation)?;
        self.table.remove(slot)
    }

    /// Takes an outcome. One that nobody waits for any more is dropped.
    pub(crate) fn finish(&mut self, token: u64, outcome: Outcome) {
        let (slot, generation) = place_of(token);
        match (self.table.get_mut(slot, generation), outcome) {
            (Some(Ask::Push { left, fails, .. }), Outcome::Pushed(more)) => {
                fails.extend(more);
                *left -= 1;
                if *left > 0 {
                    return;
                }
                let Some(Ask::Push { fails, done, .. }) = self.table.remove(slot) else { return };
                done.complete(fails);
            }
            (Some(_), outcome) => {
                let ask = self.table.remove(slot).expect("just seen");
                ask.complete(outcome);
            }
            (None, _) => {}
        }
    }
}

impl Ask {
    fn complete(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Bind(done), Outcome::Bound(result)) => done.complete(result),
            (Self::Set(done), Outcome::Set(was_there)) => done.complete(was_there),
            (Self::Kick(done), Outcome::Kicked(sessions)) => done.complete(sessions),
            _ => debug_assert!(false, "an outcome answers another question"),
        }
    }

    /// Says that it was not even asked.
    pub(crate) fn refuse(self) {
        match self {
            Self::Bind(done) => done.complete(Err(BindError::Busy)),
            Self::Set(done) => done.complete(false),
            Self::Kick(done) => done.complete(0),
            Self::Push { fails, done, .. } => done.complete(fails),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::dispatch::Pending;

    fn poll<T>(pending: &mut Pending<T>) -> Poll<T> {
        Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_push_waits_for_all_homes() {
        let mut asks = PendingAsks::new(1);
        let (done, mut pending) = Pending::new();
        let token = asks.add(Ask::Push { left: 2, fails: Vec::new(), done }).ok().unwrap();
        let (done, _pending) = Pending::new();
        assert!(asks.add(Ask::Set(done)).is_err(), "the table is full");
        asks.finish(token, Outcome::Pushed(vec![Uid::from("amy")]));
        assert!(poll(&mut pending).is_pending());
        asks.finish(token, Outcome::Pushed(vec![Uid::from("bob")]));
        assert_eq!(poll(&mut pending), Poll::Ready(vec![Uid::from("amy"), Uid::from("bob")]));
        asks.finish(token, Outcome::Pushed(Vec::new()));
    }
}
