//! Typed handlers and forwarded messages, which take no allocation for each message.

use serde::{Deserialize, Serialize};
use shaddock::internals::Core;
use shaddock::internals::simulated::{Sending, Setup, Simulated};
use shaddock::{Handlers, Reply, Routes, SessionId};
use support::alone::is_alone;
use support::{ack, handshake, request};

use crate::allocations;

const ROUTE: &str = "connector.entryHandler.move";
const PATH: &str = "entryHandler.move";
const THERE: &str = "chat.entryHandler.move";
const BODY: &str = r#"{"unit":"scout","x":-3,"y":14.5}"#;
const REQUESTS: u32 = 16;
const TURNS: u32 = 100;

#[derive(Deserialize, Serialize)]
struct Move {
    x: i32,
    y: f64,
}

#[derive(Deserialize, Serialize)]
struct NamedMove<'a> {
    unit: &'a str,
    x: i32,
    y: f64,
}

/// Allocations of many turns of a shard with that handler, once it has run for a while.
fn count(register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> u64 {
    let mut core = Core::new(&[ROUTE], None, register);
    core.begin_turn(100);
    let session = core.accept().unwrap();
    core.receive(session, &mut [handshake(), ack()].concat());
    core.end_turn(|_, _| ());
    let input: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ROUTE, BODY)).collect();
    let mut buffer = input.clone();
    turns(&mut core, session, &input, &mut buffer);
    least(|| turns(&mut core, session, &input, &mut buffer))
}

/// Allocations of this process meanwhile, the least of three times: the test harness has a thread
/// that may allocate, too, but not each time.
pub(crate) fn least(mut work: impl FnMut()) -> u64 {
    let counts = [(); 3].map(|()| {
        let before = allocations::count();
        work();
        allocations::count() - before
    });
    counts.into_iter().min().expect("three counts")
}

fn turns(core: &mut Core, session: SessionId, input: &[u8], buffer: &mut [u8]) {
    for _ in 0..TURNS {
        buffer.copy_from_slice(input);
        core.begin_turn(100);
        core.receive(session, buffer);
        let mut bytes = 0;
        core.end_turn(|_, sent| bytes += sent.len());
        assert!(bytes > REQUESTS as usize * 10, "{bytes} bytes were answered");
    }
}

#[test]
fn a_typed_message_without_owned_fields_allocates_nothing() {
    if !is_alone("typed::a_typed_message_without_owned_fields_allocates_nothing") {
        return;
    }
    let raw = count(|handlers| {
        handlers.handler(ROUTE, |request, _| Reply::borrowed(request.body()));
    });
    let typed = count(|handlers| {
        handlers.call(ROUTE, |query: Move, _| Ok(query));
    });
    let borrowed = count(|handlers| {
        handlers.try_handler(ROUTE, |request, _| {
            let query: NamedMove<'_> = request.json()?;
            Ok(Reply::json(&query))
        });
    });
    let stateful = count(|handlers| {
        handlers.stateful(
            |_| 0_i64,
            |routes: &mut Routes<i64>| {
                routes.call(PATH, |sum, query: Move, _| {
                    *sum += i64::from(query.x);
                    Ok(query)
                });
            },
        );
    });
    let stateful_borrowed = count(|handlers| {
        handlers.stateful(
            |_| 0_usize,
            |routes: &mut Routes<usize>| {
                routes.try_handler(PATH, |count, request, _| {
                    let query: NamedMove<'_> = request.json()?;
                    *count += query.unit.len();
                    Ok(Reply::json(&query))
                });
            },
        );
    });
    assert_eq!((stateful, stateful_borrowed), (0, 0));
    let owned = count(|handlers| {
        handlers.call(ROUTE, |query: serde_json::Value, _| Ok(query));
    });
    assert_eq!((raw, typed, borrowed), (0, 0, 0));
    assert!(owned >= u64::from(TURNS * REQUESTS), "nothing is counted");
}

/// A shard and a worker, to which each message of the shard's one session goes.
struct Pair {
    engine: Simulated,
    session: SessionId,
    now_us: u64,
    sent: Vec<Sending>,
}

impl Pair {
    fn new(register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> Self {
        let mut engine = Simulated::new(Setup {
            workers: 1,
            routes: vec![THERE.to_owned()],
            chat: std::sync::Arc::new(register),
            ..Setup::new(|_| {})
        });
        engine.begin_turn(0, 0);
        let session = engine.accept(0, 0, "127.0.0.1:9".parse().unwrap()).unwrap();
        engine.receive(session, &mut [handshake(), ack()].concat());
        let mut pair = Self { engine, session, now_us: 0, sent: Vec::with_capacity(8) };
        pair.end_turns();
        pair
    }

    /// Ends the turn of the shard and lets the worker have one; the bytes that were sent.
    fn end_turns(&mut self) -> usize {
        let Self { engine, sent, .. } = self;
        while engine.run(0) {}
        let before = sent.len();
        sent.extend(std::iter::from_fn(|| engine.poll_transmit(0)));
        while engine.poll_command(0).is_some() {}
        while engine.poll_bell(0).is_some() {}
        engine.end_turn(0, self.now_us);
        while engine.run_worker(0, self.now_us) {}
        while engine.poll_bell(1).is_some() {}
        sent[before..].iter().map(|sending| sending.bytes().len()).sum()
    }

    fn turns(&mut self, input: &[u8], buffer: &mut [u8]) {
        let mut bytes = 0;
        for _ in 0..TURNS {
            self.now_us += 100;
            self.engine.begin_turn(0, self.now_us);
            for sending in self.sent.drain(..) {
                self.engine.sent(sending, true);
            }
            buffer.copy_from_slice(input);
            self.engine.receive(self.session, buffer);
            bytes += self.end_turns();
        }
        let answers = bytes / BODY.len();
        assert!(answers >= (TURNS - 1) as usize * REQUESTS as usize, "{answers} were answered");
    }
}

/// Allocations of many turns of a shard and of the worker that its messages are for.
fn count_forwarded(register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> u64 {
    let mut pair = Pair::new(register);
    let input: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, THERE, BODY)).collect();
    let mut buffer = input.clone();
    pair.turns(&input, &mut buffer);
    least(|| pair.turns(&input, &mut buffer))
}

/// Neither on the shard nor on the worker: batches are used again.
#[test]
fn a_forwarded_message_allocates_nothing() {
    if !is_alone("typed::a_forwarded_message_allocates_nothing") {
        return;
    }
    let raw = count_forwarded(|handlers| {
        handlers.handler(THERE, |request, _| Reply::borrowed(request.body()));
    });
    let typed = count_forwarded(|handlers| {
        handlers.stateful(
            |_| 0_usize,
            |routes: &mut Routes<usize>| {
                routes.call(PATH, |_, query: Move, _| Ok((BODY, query)));
            },
        );
    });
    let owned = count_forwarded(|handlers| {
        handlers.call(THERE, |query: serde_json::Value, _| Ok(query));
    });
    assert_eq!((raw, typed), (0, 0));
    assert!(owned >= u64::from(TURNS * REQUESTS), "nothing is counted");
}
