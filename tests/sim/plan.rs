//! What one run is made of. A plan comes from its seed, or from `PLAN` for a replay of less.

use std::fmt;
use std::str::FromStr;

use crate::random::Random;

/// How large a world is and what goes wrong in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) shards: u16,
    pub(crate) workers: u16,
    pub(crate) clients: u16,
    pub(crate) steps: u16,
    pub(crate) faults: u32,
}

/// Each kind of fault by its bit.
pub(crate) mod fault {
    /// Input comes in pieces of any size.
    pub(crate) const CUTS: u32 = 1;
    /// Receiving stops for a while, as for want of buffers; completions are late.
    pub(crate) const STALLS: u32 = 1 << 1;
    /// Clients read little or nothing.
    pub(crate) const SLOW_READERS: u32 = 1 << 2;
    /// Clients go at any point: with an end, or without one.
    pub(crate) const DISCONNECTS: u32 = 1 << 3;
    /// Clients send no heartbeats.
    pub(crate) const SILENCE: u32 = 1 << 4;
    /// Clients send bytes that are no packages.
    pub(crate) const GARBAGE: u32 = 1 << 5;
    /// Workers are rarely run.
    pub(crate) const SLOW_WORKERS: u32 = 1 << 6;
    /// A worker ends for good.
    pub(crate) const DEAD_WORKER: u32 = 1 << 7;
    /// Few uids for many clients.
    pub(crate) const DOUBLE_LOGINS: u32 = 1 << 8;
    /// The clock jumps.
    pub(crate) const JUMPS: u32 = 1 << 9;
    /// Handlers and filters panic.
    pub(crate) const PANICS: u32 = 1 << 10;
    /// Lanes and inboxes are very short.
    pub(crate) const SHORT_LANES: u32 = 1 << 11;
    /// Outboxes are small and bodies large.
    pub(crate) const SMALL_OUTBOXES: u32 = 1 << 12;
    /// Filters wait and refuse.
    pub(crate) const FILTERS: u32 = 1 << 13;
    /// Threads of the host push and kick.
    pub(crate) const HOST: u32 = 1 << 14;
    /// Few tasks, asks and requests at a time.
    pub(crate) const SMALL_LIMITS: u32 = 1 << 15;
    /// The engine is shut down in the end, instead of being left by its clients.
    pub(crate) const DRAIN: u32 = 1 << 16;
    /// The kernel refuses a ring's submissions for a while, and does sends in part.
    pub(crate) const PARTIAL_SENDS: u32 = 1 << 17;
    pub(crate) const COUNT: u32 = 18;
}

impl Plan {
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x0005_1ade_0000_0000);
        // Often a few faults together, sometimes nearly all, now and then none.
        let density = random.pick(&[0, 15, 30, 30, 50, 80]);
        let faults = (0..fault::COUNT)
            .filter(|_| random.percent(density))
            .fold(0, |faults, bit| faults | 1 << bit);
        Self {
            seed,
            shards: random.within(1, 3) as u16,
            workers: random.within(0, 3) as u16,
            clients: random.within(1, 6) as u16,
            steps: random.within(50, 500) as u16,
            faults,
        }
    }

    pub(crate) fn has(&self, fault: u32) -> bool {
        self.faults & fault != 0
    }

    /// Plans that are a little smaller.
    pub(crate) fn smaller(&self) -> Vec<Self> {
        let mut plans = Vec::new();
        for bit in (0..fault::COUNT).filter(|bit| self.faults & 1 << bit != 0) {
            plans.push(Self { faults: self.faults & !(1 << bit), ..*self });
        }
        for steps in [self.steps / 2, self.steps - self.steps / 4, self.steps - 1] {
            plans.push(Self { steps, ..*self });
        }
        plans.push(Self { shards: (self.shards - 1).max(1), ..*self });
        plans.push(Self { workers: self.workers.saturating_sub(1), ..*self });
        plans.push(Self { clients: (self.clients - 1).max(1), ..*self });
        plans.retain(|plan| plan != self && plan.steps > 0);
        plans
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, shards, workers, clients, steps, faults } = self;
        write!(f, "{seed},{shards},{workers},{clients},{steps},{faults}")
    }
}

impl FromStr for Plan {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("PLAN={text}: six numbers, as a failure prints them");
        let numbers: Vec<u64> = text
            .split(',')
            .map(|number| number.trim().parse().map_err(|_| expected()))
            .collect::<Result<_, _>>()?;
        let [seed, shards, workers, clients, steps, faults] = numbers[..] else {
            return Err(expected());
        };
        let small = |number: u64| u16::try_from(number).map_err(|_| expected());
        Ok(Self {
            seed,
            shards: small(shards)?.max(1),
            workers: small(workers)?,
            clients: small(clients)?.max(1),
            steps: small(steps)?,
            faults: u32::try_from(faults).map_err(|_| expected())?,
        })
    }
}
