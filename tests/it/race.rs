//! One count that the handlers of several threads keep, under a lock as they must.
//!
//! With `PLANT_RACE=1` they keep it without the lock. `.ci/sanitize thread` runs the tests so,
//! too: if the sanitizer said nothing then, its silence about the engine would mean nothing.

#![allow(unsafe_code)] // What the lock is for is an access that no other type would let happen.

use std::cell::UnsafeCell;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use shaddock::{Handlers, Reply, Workers};
use support::{Client, Event, builder, request};

/// A count with a lock beside it.
#[derive(Default)]
struct Tally {
    count: UnsafeCell<u32>,
    lock: Mutex<()>,
}

// SAFETY: with the lock it is a mutex. Without it is a race, which is the purpose; see above.
unsafe impl Sync for Tally {}

impl Tally {
    fn add(&self, more: u32) -> u32 {
        let _guard = (!is_planted()).then(|| self.lock.lock().unwrap());
        // SAFETY: nobody else is here, by the lock. Without it see above.
        unsafe {
            *self.count.get() += more;
            *self.count.get()
        }
    }
}

fn is_planted() -> bool {
    std::env::var_os("PLANT_RACE").is_some()
}

/// Shards have nothing to do with each other here, so nothing but the lock orders their handlers.
#[test]
fn shards_keep_a_count() {
    const CLIENTS: u32 = 32;
    let tally = Arc::new(Tally::default());
    let counted = Arc::clone(&tally);
    let engine = builder(2)
        .handler("connector.play.count", move |_, _| {
            counted.add(1);
            Reply::json(&format!("{:?}", thread::current().id()))
        })
        .start()
        .unwrap();
    let threads: HashSet<String> = (0..CLIENTS)
        .map(|_| Client::ready(engine.local_addr()).ask(1, "connector.play.count", "{}"))
        .collect();
    assert_eq!(threads.len(), 2, "the kernel gives every client to one shard");
    assert!(is_planted() || tally.add(0) == CLIENTS);
}

/// A lane orders a request's sending, its handling and its answer; but not what the shard does
/// meanwhile.
#[test]
fn a_shard_and_a_worker_keep_a_count() {
    const ROUNDS: u32 = 10;
    const MEANWHILE: Duration = Duration::from_millis(20);
    let tally = Arc::new(Tally::default());
    let (here, there) = (Arc::clone(&tally), Arc::clone(&tally));
    let register = move |handlers: &mut Handlers| {
        let there = Arc::clone(&there);
        handlers.handler("room.play.count", move |_, _| {
            there.add(1);
            thread::sleep(MEANWHILE);
            Reply::empty()
        });
    };
    let engine = builder(1)
        .handler("connector.play.count", move |_, _| {
            here.add(1);
            Reply::empty()
        })
        .forward("room", Workers::new(1, register))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    for round in 0..ROUNDS {
        client.send(&request(2 * round + 1, "room.play.count", "{}"));
        thread::sleep(MEANWHILE / 4);
        client.send(&request(2 * round + 2, "connector.play.count", "{}"));
        let events = [client.next(), client.next()];
        assert!(events.iter().all(|event| matches!(event, Event::Response { .. })), "{events:?}");
    }
    assert!(is_planted() || tally.add(0) == 2 * ROUNDS);
}
