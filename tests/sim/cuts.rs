//! However a client's bytes are cut, it gets the same bytes back.

use std::sync::Arc;

use shaddock::Limits;
use shaddock::internals::simulated::{Setup, Simulated, Wish};

use crate::app::{self, Shared};
use crate::client::Conn;
use crate::plan::{Plan, fault};
use crate::random::Random;

/// Bytes of the longest stream that is also sent one by one.
const BY_BYTE_MAX: usize = 4_000;

/// One client's bytes, whole and cut, to a shard of their own each.
pub(crate) fn check(seed: u64) -> Result<(), String> {
    let mut random = Random::new(seed);
    let faults = random.next() as u32
        & (fault::PANICS | fault::FILTERS | fault::GARBAGE | fault::SMALL_OUTBOXES);
    let plan = Plan { seed, shards: 1, workers: 0, clients: 1, steps: 1, faults };
    let mut conn = Conn::new(1, random.percent(50), false);
    conn.begin(&mut random);
    for _ in 0..random.within(1, 20) {
        match random.below(20) {
            0 if plan.has(fault::GARBAGE) => conn.garbage(&mut random),
            1 => conn.heartbeat(&mut random),
            _ => conn.message(&plan, &mut random),
        }
    }
    let stream: Vec<u8> = conn.pipe.iter().copied().collect();
    let whole = play(&plan, &stream, |rest| rest);
    let mut chance = random.clone();
    let mut streams = vec![play(&plan, &stream, |rest| chance.within(1, rest))];
    if stream.len() <= BY_BYTE_MAX {
        streams.push(play(&plan, &stream, |_| 1));
    }
    for cut in streams {
        if cut != whole {
            let (cut, whole) = (String::from_utf8_lossy(&cut.0), String::from_utf8_lossy(&whole.0));
            return Err(format!("seed {seed}: cut {cut:.3000}\nwhole {whole:.3000}"));
        }
    }
    Ok(())
}

/// What the client gets, and whether it is closed.
fn play(
    plan: &Plan,
    stream: &[u8],
    mut piece: impl FnMut(usize) -> usize,
) -> (Vec<u8>, bool, bool) {
    let log = Shared::default();
    let setup = Setup {
        limits: Limits { handshake_package_bytes_max: 512, ..Limits::default() },
        connector: Arc::new(app::connector(&log, plan.has(fault::FILTERS), false)),
        ..Setup::new(|_| {})
    };
    let mut engine = Simulated::new(setup);
    engine.begin_turn(0, 0);
    let peer = "127.0.0.1:9".parse().expect("an address");
    let session = engine.accept(0, 0, peer).expect("the first");
    let (mut out, mut finished, mut closed) = (Vec::new(), false, false);
    let mut rest = stream.to_vec();
    let mut sent = Vec::new();
    loop {
        for sending in sent.drain(..) {
            engine.sent(sending, true);
        }
        let len = if rest.is_empty() { 0 } else { piece(rest.len()) };
        let mut bytes: Vec<u8> = rest.drain(..len).collect();
        engine.receive(session, &mut bytes);
        let has_more = engine.run(0);
        while let Some(sending) = engine.poll_transmit(0) {
            out.extend_from_slice(sending.bytes());
            sent.push(sending);
        }
        while let Some(wish) = engine.poll_command(0) {
            match wish {
                Wish::FinishWriting(_) => finished = true,
                Wish::Close(_) => closed = true,
                // The rest comes all the same, as what is under way does.
                Wish::PauseReading(_) | Wish::ResumeReading(_) => {}
            }
        }
        engine.end_turn(0, 0);
        if rest.is_empty() && sent.is_empty() && !has_more {
            return (out, finished, closed);
        }
        engine.begin_turn(0, 0);
    }
}
