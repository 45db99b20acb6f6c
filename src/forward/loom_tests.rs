//! Lanes and doorbells in every order that two threads may see each other's writes in.
//!
//! A thread that sleeps for ever is what loom reports as a deadlock.

use loom::sync::{Arc as LoomArc, Notify};
use loom::thread;

use super::mail::Mail;
use super::*;
use crate::dispatch::tasks::WakeThread;
use crate::session::{Generation, SessionId, ShardIndex, Slot};

const SHARD: Party = Party(0);
const WORKER: Party = Party(1);

/// The place where a thread sleeps; to ring before it sleeps is not lost, as with an eventfd or a
/// ring.
struct Bed(LoomArc<Notify>);

impl WakeThread for Bed {
    fn wake(&self) {
        self.0.notify();
    }
}

fn mail(number: u32) -> Mail {
    let session = SessionId::new(ShardIndex(0), Slot(number), Generation::FIRST);
    Mail::Kick { session, reason: None }
}

fn number(mail: &Mail) -> u32 {
    let Mail::Kick { session, .. } = mail else { panic!("not what was sent") };
    session.slot().0
}

/// One side: its endpoint, and where both sleep.
struct Side {
    endpoint: Endpoint,
    beds: [LoomArc<Notify>; 2],
}

impl Side {
    fn pair(lane_len: usize) -> (Self, Self) {
        let hub = Hub::new(1, 1, HubLimits { lane_len, inbox_len: 1 });
        let beds = [LoomArc::new(Notify::new()), LoomArc::new(Notify::new())];
        let side = |party| Self {
            endpoint: Endpoint::new(std::sync::Arc::clone(&hub), party, 4),
            beds: beds.clone(),
        };
        for party in [SHARD, WORKER] {
            hub.bell(party).connect(Box::new(Bed(LoomArc::clone(&beds[party.index()]))));
        }
        (side(SHARD), side(WORKER))
    }

    /// The end of a turn, as in `engine::park` and `engine::worker_thread`.
    fn end_turn(&mut self) {
        while let Some(party) = self.endpoint.poll_bell() {
            self.beds[party.index()].notify();
        }
    }

    fn sleep(&mut self) {
        let bell = std::sync::Arc::clone(self.endpoint.hub().bell(self.endpoint.me()));
        bell.arm();
        if !self.endpoint.has_work() {
            self.beds[self.endpoint.me().index()].wait();
        }
        bell.disarm();
    }

    /// Reads in turns until it has got so many.
    fn receive(&mut self, from: Party, count: u32) {
        let mut next = 0;
        loop {
            self.endpoint.flush();
            for _ in 0..self.endpoint.waiting(from) {
                let Some(mail) = self.endpoint.receive(from) else { break };
                assert_eq!(number(&mail), next, "out of order");
                next += 1;
            }
            self.end_turn();
            if next == count {
                return;
            }
            self.sleep();
        }
    }
}

fn model(check: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS_MAX);
    builder.check(check);
}

/// Switches of threads where none has to wait; findings need two, as a rule.
const PREEMPTIONS_MAX: usize = 3;

#[test]
fn a_reader_never_sleeps_over_mail() {
    model(|| {
        let (mut shard, mut worker) = Side::pair(2);
        let reader = thread::spawn(move || worker.receive(SHARD, 2));
        for n in 0..2 {
            shard.endpoint.send(WORKER, mail(n));
            shard.end_turn();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_batch_is_rung_for_once_it_is_whole() {
    model(|| {
        let (mut shard, mut worker) = Side::pair(2);
        let reader = thread::spawn(move || worker.receive(SHARD, 2));
        (0..2).for_each(|n| shard.endpoint.send(WORKER, mail(n)));
        shard.end_turn();
        reader.join().unwrap();
    });
}

/// The second mail waits for room; its writer sleeps until the reader has made some.
#[test]
fn a_writer_never_sleeps_over_room() {
    model(|| {
        let (mut shard, mut worker) = Side::pair(1);
        let reader = thread::spawn(move || worker.receive(SHARD, 2));
        (0..2).for_each(|n| shard.endpoint.send(WORKER, mail(n)));
        shard.end_turn();
        while shard.endpoint.has_backlog() {
            shard.sleep();
            shard.endpoint.flush();
            shard.end_turn();
        }
        reader.join().unwrap();
    });
}

#[test]
fn a_question_and_its_answer_wake_both() {
    model(|| {
        let (mut shard, mut worker) = Side::pair(1);
        let other = thread::spawn(move || {
            worker.receive(SHARD, 1);
            worker.endpoint.send(SHARD, mail(0));
            worker.end_turn();
        });
        shard.endpoint.send(WORKER, mail(0));
        shard.end_turn();
        shard.receive(WORKER, 1);
        other.join().unwrap();
    });
}

/// A thread of the host's, which has no turns.
#[test]
fn a_shard_never_sleeps_over_the_hosts_mail() {
    model(|| {
        let (mut shard, _worker) = Side::pair(1);
        let hub = std::sync::Arc::clone(shard.endpoint.hub());
        let host = thread::spawn(move || {
            assert!(hub.send_from_host(ShardIndex(0), mail(7)).is_ok());
        });
        let got = loop {
            if let Some(mail) = shard.endpoint.receive_from_host() {
                break mail;
            }
            shard.sleep();
        };
        assert_eq!(number(&got), 7);
        host.join().unwrap();
    });
}
