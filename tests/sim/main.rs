//! The whole engine in one thread, in virtual time: shards, workers and clients, and everything
//! that may go wrong between them, decided by a seed. `docs/reliability.md` says what is checked.
//!
//! `cargo test` runs a few hundred seeds. More, and again:
//!
//! ```text
//! SEEDS=100000 cargo test --profile sim --test sim
//! SEED=42 cargo test --test sim one_seed -- --nocapture
//! ```

mod app;
mod check;
mod client;
mod cuts;
mod net;
mod plan;
mod random;
mod sends;
mod world;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use plan::Plan;
use world::World;

/// Seeds of a plain `cargo test`.
const SEEDS: u64 = 300;
/// The lines of a failing run that are printed.
const TRACE_LINES: usize = 80;

/// Runs `SEEDS` seeds from `SEED` on.
#[test]
fn seeds() {
    let first = number("SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(SEEDS);
    for seed in first..first + count {
        if let Err(failure) = run(Plan::of_seed(seed), false) {
            report(Plan::of_seed(seed), &failure);
        }
        if count > SEEDS && seed % 10_000 == 9_999 {
            println!("{} seeds are clean", seed + 1 - first);
        }
    }
}

/// The same bytes in other pieces.
#[test]
fn cuts_change_nothing() {
    let first = number("SEED").unwrap_or(0);
    for seed in first..first + number("SEEDS").unwrap_or(SEEDS) {
        if let Err(failure) = guarded(|| cuts::check(seed)) {
            panic!("{failure}\nreplay: SEED={seed} SEEDS=1 cargo test --test sim cuts");
        }
    }
}

/// Replays `SEED`, or the `PLAN` that a failure has printed, with its trace.
#[test]
fn one_seed() {
    let plan = match std::env::var("PLAN") {
        Ok(text) => text.parse().expect("a plan"),
        Err(_) => Plan::of_seed(number("SEED").unwrap_or(0)),
    };
    let (outcome, trace) = traced(plan);
    if std::env::var_os("PLAN").is_some() || std::env::var_os("SEED").is_some() {
        println!("{trace}");
    }
    if let Err(failure) = outcome {
        report(plan, &failure);
    }
}

/// The same plan makes the same run, to the byte.
#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 17, 29] {
        let plan = Plan::of_seed(seed);
        let (first, second) = (traced(plan).1, traced(plan).1);
        assert!(!first.is_empty());
        assert!(first == second, "seed {seed} runs differently the second time");
    }
}

/// A run that ends well has done something: the checks look at real traffic.
#[test]
fn seeds_are_worth_their_time() {
    let (mut answers, mut pushes, mut lane_pauses, mut outbox_pauses) = (0, 0, 0, 0);
    let (mut at_once, mut in_part) = (0, 0);
    for seed in 0..50 {
        let mut world = World::new(Plan::of_seed(seed), false);
        play(&mut world).expect("the other test has run it too");
        answers += world.totals.answers;
        pushes += world.totals.pushes;
        lane_pauses += world.totals.lane_pauses;
        outbox_pauses += world.totals.outbox_pauses;
        at_once += world.totals.sends_at_once;
        in_part += world.totals.sends_in_part;
    }
    assert!(answers > 1_000 && pushes > 200, "{answers} answers, {pushes} pushes");
    assert!(lane_pauses > 20, "{lane_pauses} messages waited for a lane");
    assert!(outbox_pauses > 5, "{outbox_pauses} outboxes paused their sessions");
    assert!(at_once > 300 && in_part > 20, "{at_once} sends done at once, {in_part} in part");
}

fn play(world: &mut World) -> Result<(), String> {
    for _ in 0..world.plan.steps {
        world.step()?;
    }
    world.settle()?;
    world.finish()
}

fn run(plan: Plan, has_trace: bool) -> Result<(), String> {
    let mut world = World::new(plan, has_trace);
    guarded(|| play(&mut world))
}

fn traced(plan: Plan) -> (Result<(), String>, String) {
    let mut world = World::new(plan, true);
    let outcome = guarded(|| play(&mut world));
    (outcome, world.take_trace())
}

fn guarded(play: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
    let text = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().unwrap_or(&"a panic without text").to_string(),
    };
    catch_unwind(AssertUnwindSafe(play)).unwrap_or_else(|panic| Err(text(panic)))
}

/// Makes the failing plan as small as it stays failing, prints its end, and fails.
fn report(plan: Plan, failure: &str) -> ! {
    println!("seed {}: {failure}", plan.seed);
    let mut smallest = plan;
    while let Some(smaller) =
        smallest.smaller().into_iter().find(|smaller| run(*smaller, false).is_err())
    {
        smallest = smaller;
    }
    let (outcome, trace) = traced(smallest);
    let lines: Vec<&str> = trace.lines().collect();
    println!("made smaller: {smallest:?}");
    lines[lines.len().saturating_sub(TRACE_LINES)..].iter().for_each(|line| println!("{line}"));
    println!("{}", outcome.expect_err("it failed before"));
    panic!(
        "seed {} fails: {failure}\nreplay: SEED={} cargo test --test sim one_seed -- --nocapture\n\
         smaller: PLAN={smallest} cargo test --test sim one_seed -- --nocapture",
        plan.seed, plan.seed
    );
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}
