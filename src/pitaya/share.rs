//! The part that one thread has of a frontend, where several threads share it.
//!
//! Each thread serves the sessions of some shards, over a connection of its own, and is bounded by
//! its part of the frontend's bounds. To the cluster they are one server: one id, one entry in
//! etcd. What backends ask of that server comes to every thread, and one of them does it: the one
//! that serves the session, or the first where no session is meant.

use super::cluster::PitayaLimits;
use crate::forward::NetworkThreads;
use crate::session::shard_of;

/// One of the threads of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Its place among them.
    pub(crate) index: u16,
    /// The threads of the frontend, at least 1.
    pub(crate) count: u16,
    /// The shards of the engine.
    pub(crate) shards: u16,
}

impl Share {
    /// True if it does what is asked of no session.
    pub(crate) fn is_first(self) -> bool {
        self.index == 0
    }

    /// True if it serves the session of a number, if there is any.
    pub(super) fn serves(self, number: u64) -> bool {
        NetworkThreads::place(shard_of(number, self.shards), self.count) == self.index
    }

    /// Its part of the frontend's bounds. What is kept once for each thread, such as the list of
    /// servers, is bounded as a whole.
    pub(crate) fn of(self, limits: &PitayaLimits) -> PitayaLimits {
        let PitayaLimits {
            window,
            calls_max,
            calls_per_server_max,
            queue_bytes_max,
            bytes_max,
            queue_len_max,
            callers_max,
            servers_max,
            list_bytes_max,
        } = *limits;
        PitayaLimits {
            window: self.part(window),
            calls_max: self.part(calls_max),
            calls_per_server_max: self.part(calls_per_server_max),
            queue_bytes_max: self.part(queue_bytes_max),
            bytes_max: self.part(bytes_max),
            queue_len_max: self.part(queue_len_max),
            callers_max: self.part(callers_max),
            servers_max,
            list_bytes_max,
        }
    }

    /// Its part of a number; those of all threads add up to it.
    fn part(self, whole: usize) -> usize {
        let (index, count) = (usize::from(self.index), usize::from(self.count));
        whole / count + usize::from(index < whole % count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up_and_each_number_is_served_once() {
        for count in 1..=5 {
            let shares = || (0..count).map(|index| Share { index, count, shards: 7 });
            assert_eq!(shares().map(|share| share.part(25)).sum::<usize>(), 25);
            for number in 7..70 {
                assert_eq!(shares().filter(|share| share.serves(number)).count(), 1);
            }
        }
    }
}
