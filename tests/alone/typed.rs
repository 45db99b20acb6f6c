//! Typed handlers, whose messages take no allocation of their own.

#[path = "../../benches/end_to_end/allocations.rs"]
mod allocations;

use serde::{Deserialize, Serialize};
use shaddock::internals::Core;
use shaddock::{Handlers, Reply, SessionId};
use support::alone::is_alone;
use support::{ack, handshake, request};

const ROUTE: &str = "connector.entryHandler.move";
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
    let before = allocations::count();
    turns(&mut core, session, &input, &mut buffer);
    allocations::count() - before
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
    let owned = count(|handlers| {
        handlers.call(ROUTE, |query: serde_json::Value, _| Ok(query));
    });
    assert_eq!((raw, typed, borrowed), (0, 0, 0));
    assert!(owned >= u64::from(TURNS * REQUESTS), "nothing is counted");
}
