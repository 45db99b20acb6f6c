//! Lanes, backlogs and doorbells against plain queues.

use std::collections::VecDeque;

use arbitrary::{Arbitrary, Result, Unstructured};
use shaddock::internals::mailing::Lanes;

/// After any operations of two shards, two workers and the host, mail arrives once and in order,
/// mail is refused at its bound and not before, and no party sleeps while it has mail.
pub fn check(input: &[u8]) {
    let mut input = Unstructured::new(input);
    let Ok(limits) = Limits::arbitrary(&mut input) else { return };
    let mut model = Model::new(&limits);
    for _ in 0..OPS_MAX {
        if input.is_empty() {
            break;
        }
        let Ok(op) = Op::arbitrary(&mut input) else { break };
        model.apply(op);
    }
    model.end();
}

/// The lengths of the queues, from 1.
#[derive(Debug)]
struct Limits {
    lane: u8,
    inbox: u8,
    backlog: u8,
}

/// An operation of one party.
#[derive(Debug)]
enum Op {
    Send {
        from: u8,
        to: u8,
        count: u8,
    },
    TrySend {
        from: u8,
        to: u8,
        count: u8,
    },
    SendWithin {
        from: u8,
        to: u8,
        count: u8,
    },
    FromHost {
        to: u8,
    },
    Receive {
        me: u8,
        from: u8,
        count: u8,
    },
    Flush {
        me: u8,
    },
    /// The end of a turn, which rings the doorbells.
    Ring {
        me: u8,
    },
    /// The end of a turn, and sleep if there is no mail.
    Sleep {
        me: u8,
    },
}

// Written by hand and by the byte, so that a seed can be written, and a short input does much.

impl<'a> Arbitrary<'a> for Limits {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        let [lane, inbox, backlog] = <[u8; 3]>::arbitrary(input)?;
        Ok(Self { lane, inbox, backlog })
    }
}

impl<'a> Arbitrary<'a> for Op {
    fn arbitrary(input: &mut Unstructured<'a>) -> Result<Self> {
        // The operation, its party, the other party, and the count.
        let word = u8::arbitrary(input)?;
        let (from, to, me) = (word >> 3 & 3, word >> 5 & 3, word >> 3 & 3);
        let count = 1 + (word >> 7) * 6;
        Ok(match word & 7 {
            0 => Self::Send { from, to, count },
            1 => Self::TrySend { from, to, count },
            2 => Self::SendWithin { from, to, count },
            3 => Self::FromHost { to },
            4 => Self::Receive { me, from: to, count },
            5 => Self::Flush { me },
            6 => Self::Ring { me },
            _ => Self::Sleep { me },
        })
    }
}

const SHARDS: u16 = 2;
const WORKERS: u16 = 2;
const PARTIES: u16 = SHARDS + WORKERS;
const OPS_MAX: usize = 500;
/// The length of a lane's ring (`LANE_RING_LEN_MAX`); the limits here stay below it.
const LEN_MAX: usize = 16;

struct Model {
    lanes: Lanes,
    lane_len: usize,
    inbox_len: usize,
    backlog_len_max: usize,
    /// The mail that has not been received, by sender and receiver.
    queues: Vec<VecDeque<u32>>,
    from_host: Vec<VecDeque<u32>>,
    sleeps: Vec<bool>,
    next: u32,
}

impl Model {
    fn new(limits: &Limits) -> Self {
        let len = |byte: u8| 1 + usize::from(byte) % LEN_MAX;
        let (lane_len, inbox_len) = (len(limits.lane), len(limits.inbox));
        let backlog_len_max = len(limits.backlog);
        Self {
            lanes: Lanes::new(SHARDS, WORKERS, lane_len, inbox_len, backlog_len_max),
            lane_len,
            inbox_len,
            backlog_len_max,
            queues: vec![VecDeque::new(); usize::from(PARTIES * PARTIES)],
            from_host: vec![VecDeque::new(); usize::from(SHARDS)],
            sleeps: vec![false; usize::from(PARTIES)],
            next: 0,
        }
    }

    fn queue(&mut self, from: u16, to: u16) -> &mut VecDeque<u32> {
        &mut self.queues[usize::from(from * PARTIES + to)]
    }

    /// The length of the ring between two parties; `None` if they have none.
    fn ring_len(&self, from: u16, to: u16) -> Option<usize> {
        match (from < SHARDS, to < SHARDS) {
            _ if from == to => None,
            (false, false) => None,
            (true, true) => Some(self.inbox_len),
            _ => Some(self.lane_len),
        }
    }

    fn backlog_len(&self, from: u16) -> usize {
        (0..PARTIES).map(|to| self.lanes.backlog_len(from, to)).sum()
    }

    fn apply(&mut self, op: Op) {
        let party = |byte: u8| u16::from(byte) % PARTIES;
        match op {
            Op::Send { from, to, count } => {
                self.send(party(from), party(to), count, |model, from, to, number| {
                    model.lanes.send(from, to, number);
                    true
                });
            }
            Op::TrySend { from, to, count } => {
                self.send(party(from), party(to), count, |model, from, to, number| {
                    let is_full = model.backlog_len(from) >= model.backlog_len_max;
                    let is_taken = model.lanes.try_send(from, to, number);
                    assert!(is_taken || is_full, "refused below the bound");
                    is_taken
                });
            }
            Op::SendWithin { from, to, count } => {
                self.send(party(from), party(to), count, |model, from, to, number| {
                    let unread = model.queue(from, to).len();
                    let room = model.ring_len(from, to).expect("they have a lane");
                    // Mail in the backlog goes first, though the ring may have room by now.
                    let waits = model.lanes.backlog_len(from, to) > 0;
                    let is_taken = model.lanes.send_within(from, to, number, room);
                    assert!(is_taken || waits || unread >= room, "refused with room for it");
                    assert!(!is_taken || unread < room, "taken without room for it");
                    is_taken
                });
            }
            Op::FromHost { to } => {
                let to = u16::from(to) % SHARDS;
                let has_room = self.from_host[usize::from(to)].len() < self.inbox_len;
                assert_eq!(self.lanes.send_from_host(to, self.next), has_room);
                if has_room {
                    self.from_host[usize::from(to)].push_back(self.next);
                    self.next += 1;
                }
            }
            Op::Receive { me, from, count } => self.receive(party(me), party(from), count),
            Op::Flush { me } if self.is_awake(party(me)) => self.lanes.flush(party(me)),
            Op::Ring { me } if self.is_awake(party(me)) => self.ring(party(me)),
            Op::Sleep { me } => self.sleep(party(me)),
            Op::Flush { .. } | Op::Ring { .. } => {}
        }
        self.check_sleepers();
    }

    fn send(
        &mut self,
        from: u16,
        to: u16,
        count: u8,
        send: impl Fn(&mut Self, u16, u16, u32) -> bool,
    ) {
        if self.ring_len(from, to).is_none() || !self.is_awake(from) {
            return;
        }
        for _ in 0..count % 8 {
            let number = self.next;
            if send(self, from, to, number) {
                self.queue(from, to).push_back(number);
                self.next += 1;
            }
        }
        let (unread, waits) = (self.queue(from, to).len(), self.lanes.backlog_len(from, to));
        assert!(unread - waits <= self.ring_len(from, to).expect("they have a lane"));
    }

    fn is_awake(&mut self, party: u16) -> bool {
        // Rung, or woken by a timer.
        if std::mem::take(&mut self.sleeps[usize::from(party)]) {
            self.lanes.disarm(party);
        }
        true
    }

    /// Reads up to `count` of the mail that a turn finds.
    fn receive(&mut self, me: u16, from: u16, count: u8) {
        self.is_awake(me);
        if self.ring_len(from, me).is_some() {
            let waiting = self.lanes.waiting(me, from);
            assert!(waiting <= self.queue(from, me).len());
            for _ in 0..waiting.min(usize::from(count)) {
                let number = self.lanes.receive(me, from);
                assert_eq!(number, self.queue(from, me).pop_front(), "lost, or out of order");
            }
        }
        if me < SHARDS {
            for _ in 0..count {
                let number = self.lanes.receive_from_host(me);
                let place = usize::from(me);
                assert_eq!(number, self.from_host[place].pop_front(), "lost, or out of order");
            }
        }
    }

    fn ring(&mut self, me: u16) {
        while let Some(rung) = self.lanes.poll_bell(me) {
            assert!(self.sleeps[usize::from(rung)], "party {rung} was rung and is awake");
            self.sleeps[usize::from(rung)] = false;
            self.lanes.disarm(rung);
        }
    }

    fn sleep(&mut self, me: u16) {
        self.is_awake(me);
        self.ring(me);
        self.lanes.arm(me);
        if self.lanes.has_work(me) {
            self.lanes.disarm(me);
        } else {
            self.sleeps[usize::from(me)] = true;
        }
    }

    /// Checks that no party sleeps while it has mail whose senders have rung. A sender that was not
    /// told to ring is still in its turn. A party with a backlog wakes by itself.
    fn check_sleepers(&mut self) {
        for party in 0..PARTIES {
            self.sleeps[usize::from(party)] &= self.lanes.is_armed(party);
        }
        let are_rung = (0..PARTIES).all(|party| self.sleeps[usize::from(party)]);
        for party in (0..PARTIES).filter(|_| are_rung) {
            let waits = self.backlog_len(party) > 0;
            assert!(waits || !self.lanes.has_work(party), "party {party} sleeps over its mail");
        }
    }

    /// Runs until all mail has arrived.
    fn end(&mut self) {
        for _ in 0..=self.next {
            for me in 0..PARTIES {
                self.is_awake(me);
                self.lanes.flush(me);
                self.ring(me);
                (0..PARTIES).for_each(|from| self.receive(me, from, u8::MAX));
            }
            if self.queues.iter().all(VecDeque::is_empty) {
                break;
            }
        }
        assert!(self.queues.iter().all(VecDeque::is_empty), "mail is lost");
        (0..PARTIES).for_each(|party| {
            assert_eq!(self.backlog_len(party), 0);
            assert!(!self.lanes.has_work(party));
        });
    }
}
