//! A shard's state: routes, sessions, outboxes, deadlines.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use shaddock::internals::{Outbox, Routes, SessionTable, Wheel};
use shaddock::route::Dictionary;
use shaddock::wire::message::RouteRef;

use crate::traffic::{BODY, FIRST_ID, ROUTE, ROUTES};

const SESSIONS: usize = 10_000;
const ANSWERS: usize = 16;
/// 4 bytes of package, 3 of message, and the body.
const ANSWER_BYTES: usize = 4 + 3 + BODY.len();
/// The time between two turns; the time that clients may be silent follows.
const TURN_MS: u64 = 50;
const SILENCE_MS: u64 = 60_000;

pub(crate) fn routes(criterion: &mut Criterion) {
    let dictionary = Dictionary::new(ROUTES, ["onChat"]).expect("the routes are few");
    let routes = Routes::new(&ROUTES, Some(&dictionary));
    let code = dictionary.code(ROUTE).expect("it is in the dictionary");
    let mut group = criterion.benchmark_group("route look-up");
    group.throughput(Throughput::Elements(1));
    for (name, route, found) in [
        ("text hit", RouteRef::Text(ROUTE.as_bytes()), Some(ROUTE)),
        ("code hit", RouteRef::Code(code), Some(ROUTE)),
        ("text miss", RouteRef::Text(b"connector.entryHandler.gone"), None),
        ("code miss", RouteRef::Code(999), None),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let text = routes.find(black_box(route));
                assert_eq!(text.map(str::len), found.map(str::len));
                text
            });
        });
    }
}

pub(crate) fn sessions(criterion: &mut Criterion) {
    let (table, mut ids) = SessionTable::filled(SESSIONS);
    shuffle(&mut ids);
    let mut group = criterion.benchmark_group("session look-up");
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function("10000 of 10000, shuffled", |bencher| {
        bencher.iter(|| {
            let heard = |id| table.heard_ms(id).expect("nobody has left");
            let sum: u64 = ids.iter().map(|id| heard(*black_box(id))).sum();
            assert_eq!(sum, (SESSIONS * (SESSIONS - 1) / 2) as u64);
        });
    });
}

/// Shuffles into the same order in every run.
fn shuffle<T>(items: &mut [T]) {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    for last in (1..items.len()).rev() {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        items.swap(last, (seed % (last as u64 + 1)) as usize);
    }
}

pub(crate) fn outbox(criterion: &mut Criterion) {
    let mut outbox = Outbox::default();
    let mut group = criterion.benchmark_group("outbox");
    for (name, answers) in [("1 answer of 64 B, sent", 1), ("16 answers of 64 B, sent", ANSWERS)] {
        group.throughput(Throughput::Elements(answers as u64));
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for id in 0..answers as u32 {
                    outbox.append_answer(FIRST_ID + black_box(id), black_box(BODY));
                }
                assert_eq!(outbox.send(), answers * ANSWER_BYTES);
            });
        });
    }
}

pub(crate) fn wheel(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("wheel");
    let mut wheel = Wheel::default();
    let mut deadline_ms = SILENCE_MS;
    group.throughput(Throughput::Elements(SESSIONS as u64));
    group.bench_function("set 10000", |bencher| {
        bencher.iter(|| {
            deadline_ms += 1;
            for slot in 0..SESSIONS as u32 {
                wheel.set(black_box(slot), deadline_ms + u64::from(slot) * 6);
            }
        });
    });
    let mut wheel = Wheel::default();
    for slot in 0..SESSIONS as u32 {
        wheel.set(slot, u64::from(slot) * 6);
    }
    let (mut now_ms, mut due, mut turns) = (0, 0, 0_u64);
    group.throughput(Throughput::Elements(1));
    group.bench_function("advance a tick of 10000, set those that are due", |bencher| {
        bencher.iter(|| {
            now_ms += TURN_MS;
            turns += 1;
            due += wheel.advance(now_ms, SILENCE_MS) as u64;
        });
    });
    // Each deadline fires once in its time.
    assert!(due <= (turns * TURN_MS / SILENCE_MS + 1) * SESSIONS as u64);
}
