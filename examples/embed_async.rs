//! Answers that take time: from a future on the shard, and from another thread.
//!
//! `later` is an async handler. It runs on the shard's own thread, and may await what the context
//! offers, or what another thread wakes.
//!
//! `elsewhere` leaves its answer to a plain thread, as one would to a database pool or another
//! async runtime. Its responder may be sent to any thread. If it is dropped, the client gets an
//! error.
//!
//! Run it, with an address if 127.0.0.1:3010 is taken:
//!
//! ```text
//! cargo run --release --example embed_async
//! ```
//!
//! Talk to it with any Pomelo client, here `pomelo-nodejsclient-websocket` from npm:
//!
//! ```text
//! const Pomelo = require('pomelo-nodejsclient-websocket');
//! const pomelo = new Pomelo();
//! pomelo.init({ host: '127.0.0.1', port: 3010 }, () => {
//!   pomelo.request('connector.jobHandler.later', { ms: 500 }, console.log);
//!   pomelo.request('connector.jobHandler.elsewhere', { n: 12 }, console.log);
//! });
//! ```

use std::error::Error;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use shaddock::{Engine, OwnedRequest, Reply, Responder, Session};

#[derive(Deserialize)]
struct Later {
    ms: u64,
}

/// Waits on the shard, which serves other clients meanwhile.
async fn later(request: OwnedRequest, session: Session) -> Reply<'static> {
    let Ok(Later { ms }) = request.json() else { return Reply::error() };
    session.context().sleep(Duration::from_millis(ms)).await;
    Reply::json(&json!({"code": 200, "waited_ms": ms}))
}

#[derive(Deserialize)]
struct Job {
    n: u64,
}

/// The most jobs that may wait; a further one is answered with an error.
const JOBS_MAX: usize = 1_024;

/// Does the jobs in order, until no sender is left.
fn work(jobs: &mpsc::Receiver<(Job, Responder)>) {
    for (Job { n }, responder) in jobs {
        let product = (1..=n).try_fold(1_u64, u64::checked_mul);
        responder.answer(match product {
            Some(product) => Reply::json(&json!({"code": 200, "product": product})),
            None => Reply::error_json(&json!({"code": 422, "msg": "too large"})),
        });
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:3010".into());
    let (send, receive) = mpsc::sync_channel(JOBS_MAX);
    let worker = thread::spawn(move || work(&receive));
    let engine = Engine::builder()
        .listen(address)
        .async_handler("connector.jobHandler.later", later)
        .handler("connector.jobHandler.elsewhere", move |request, session| {
            let Ok(job) = request.json::<Job>() else { return Reply::error() };
            // A full queue returns the responder, whose drop answers with an error.
            session.defer(|responder| drop(send.try_send((job, responder))))
        })
        .start()?;
    println!("listening on {}", engine.local_addr());
    worker.join().map_err(|_| "the worker has panicked")?;
    Ok(())
}
