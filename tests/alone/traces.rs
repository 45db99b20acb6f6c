//! Traces: a forwarded message that is not sampled takes no allocation of its own.

use std::sync::Arc;

use shaddock::internals::simulated::{Sending, Setup, Simulated};
use shaddock::{Handlers, Reply, SessionId};
use support::alone::is_alone;
use support::{ack, handshake, request};

use crate::typed::least;

const ROUTE: &str = "chat.chatHandler.echo";
const BODY: &str = r#"{"unit":"scout","x":-3,"y":14.5}"#;
const REQUESTS: u32 = 16;
const TURNS: u32 = 100;

/// A shard with one client, and a worker.
struct Rig {
    engine: Simulated,
    session: SessionId,
    now_us: u64,
    /// The output of the last turn; the shard is told in the next one, as from a ring.
    in_flight: Vec<Sending>,
}

impl Rig {
    fn new(sample_every: Option<u64>) -> Self {
        let chat = |handlers: &mut Handlers| {
            handlers.handler(ROUTE, |request, _| Reply::borrowed(request.body()));
        };
        let mut engine = Simulated::new(Setup {
            workers: 1,
            sample_every,
            routes: vec![ROUTE.to_owned()],
            chat: Arc::new(chat),
            ..Setup::new(|_| {})
        });
        engine.begin_turn(0, 0);
        let session = engine.accept(0, 0, "127.0.0.1:9".parse().unwrap()).unwrap();
        let mut rig = Self { engine, session, now_us: 0, in_flight: Vec::new() };
        rig.turn(&mut [handshake(), ack()].concat());
        rig
    }

    /// A turn of the shard with that input, and one of the worker; the bytes that go out.
    fn turn(&mut self, input: &mut [u8]) -> usize {
        let Self { engine, session, now_us, in_flight } = self;
        *now_us += 100;
        engine.begin_turn(0, *now_us);
        in_flight.drain(..).for_each(|sending| engine.sent(sending, true));
        engine.receive(*session, input);
        while engine.run(0) {}
        while let Some(sending) = engine.poll_transmit(0) {
            in_flight.push(sending);
        }
        while engine.poll_command(0).is_some() {}
        while engine.poll_bell(0).is_some() {}
        engine.end_turn(0, *now_us);
        while engine.run_worker(0, *now_us) {}
        while engine.poll_bell(1).is_some() {}
        in_flight.iter().map(|sending| sending.bytes().len()).sum()
    }

    fn turns(&mut self, input: &[u8], buffer: &mut [u8]) {
        for turn in 0..TURNS {
            buffer.copy_from_slice(input);
            let bytes = self.turn(buffer);
            // The answers to one turn's requests go out in the next one.
            assert!(turn == 0 || bytes > REQUESTS as usize * BODY.len(), "{bytes} bytes");
        }
    }
}

/// Allocations of many turns, once it has run for a while.
fn count(sample_every: Option<u64>) -> u64 {
    let mut rig = Rig::new(sample_every);
    let input: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ROUTE, BODY)).collect();
    let mut buffer = input.clone();
    rig.turns(&input, &mut buffer);
    least(|| rig.turns(&input, &mut buffer))
}

#[test]
fn a_message_that_is_not_sampled_allocates_nothing() {
    if !is_alone("traces::a_message_that_is_not_sampled_allocates_nothing") {
        return;
    }
    // One in so many is one that does not come.
    assert_eq!((count(None), count(Some(u64::MAX))), (0, 0));
    assert!(count(Some(1)) >= u64::from(TURNS * REQUESTS), "nothing is counted");
}
