//! The thread that spreads new connections by load is there where there is something to spread, and
//! not where it is turned off.

use std::fs;

use shaddock::Drain;
use support::alone::is_alone;
use support::{Client, builder, eventually};

/// The kernel keeps the first 15 bytes of a thread's name.
const NAME: &str = "shaddock-balanc";

fn has_balancer() -> bool {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.into_iter().any(|name| name.trim() == NAME)
}

#[test]
fn connections_are_balanced_unless_that_is_turned_off() {
    if !is_alone("balance::connections_are_balanced_unless_that_is_turned_off") {
        return;
    }
    let engine = builder(2).start().unwrap();
    eventually("the thread runs", has_balancer);
    engine.shutdown(Drain::now());
    eventually("it has ended", || !has_balancer());
    for builder in [builder(2).balance(false), builder(1)] {
        let engine = builder.start().unwrap();
        // A client is served, so all threads have been started.
        drop(Client::ready(engine.local_addr()));
        assert!(!has_balancer());
        engine.shutdown(Drain::now());
    }
}
