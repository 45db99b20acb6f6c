//! From a shard to a worker and back.
//!
//! Each mail carries the parts of a forwarded message: a session's data and a body, both shared.
//! Two threads need two idle cores; with a single core they wait for the scheduler.

use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use criterion::{Criterion, Throughput};
use shaddock::internals::{ShardEnd, WorkerEnd, lanes};

use crate::traffic::BODY;

const BATCH: u64 = 64;
const HOPS: u64 = 2;

pub(crate) fn hops(criterion: &mut Criterion) {
    // Reference-counted, like a body that is a slice of a shard's chunk.
    let body = Bytes::copy_from_slice(BODY);
    let mut group = criterion.benchmark_group("lane hop");
    group.throughput(Throughput::Elements(BATCH * HOPS));
    group.bench_function("64 there and back, one thread", |bencher| {
        let (mut shard, mut worker) = lanes();
        bencher.iter(|| {
            send(&mut shard, &body, BATCH);
            assert_eq!(worker.echo() as u64, BATCH);
            assert!(!worker.ring());
            assert_eq!(take(&mut shard), BATCH);
        });
    });
    for (name, batch) in
        [("64 there and back, two threads", BATCH), ("1 there and back, two threads", 1)]
    {
        group.throughput(Throughput::Elements(batch * HOPS));
        group.bench_function(name, |bencher| {
            let (mut shard, worker) = lanes();
            let is_done = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| echo(worker, &is_done));
                bencher.iter(|| {
                    send(&mut shard, &body, batch);
                    let mut taken = 0;
                    while taken < batch {
                        taken += take(&mut shard);
                        spin_loop();
                    }
                    assert_eq!(taken, batch);
                });
                is_done.store(true, Ordering::Relaxed);
            });
        });
    }
}

fn send(shard: &mut ShardEnd, body: &Bytes, batch: u64) {
    for token in 1..=batch {
        assert!(shard.forward(token, black_box(body).clone()));
    }
    assert!(!shard.ring());
}

fn take(shard: &mut ShardEnd) -> u64 {
    let mut taken = 0;
    while let Some((_, len)) = shard.receive() {
        assert_eq!(len, BODY.len());
        taken += 1;
    }
    taken
}

fn echo(mut worker: WorkerEnd, is_done: &AtomicBool) {
    while !is_done.load(Ordering::Relaxed) {
        if worker.echo() == 0 {
            spin_loop();
        }
        worker.ring();
    }
}
