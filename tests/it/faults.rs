//! What the machine may do to an engine: nothing is lost, and it goes on.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use serde_json::json;
use shaddock::{Drain, Engine, Handlers, Limits, Reply, Workers};
use support::{Client, Event, PATIENCE, builder, eventually, notify, request};

const ECHO: &str = "connector.play.echo";
const LATER: &str = "connector.play.later";
const ROOM: &str = "room.play.echo";

fn start(shards: u16, limits: Limits) -> Engine {
    builder(shards)
        .limits(limits)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .async_handler(LATER, |request, session| async move {
            session.context().sleep(Duration::from_millis(3)).await;
            Reply::bytes(request.bytes().to_vec())
        })
        .forward(
            "room",
            Workers::new(2, |handlers: &mut Handlers| {
                handlers.handler(ROOM, |request, _| Reply::borrowed(request.body()));
            }),
        )
        .shutdown_kick("shutdown")
        .start()
        .unwrap()
}

/// What a client has got from a server that stops in the middle of its requests.
struct Served {
    answers: usize,
    kicks: usize,
}

/// Once it has had an answer, sends requests in bursts until the server closes. Each answer is to
/// be the right one, to be the only one, and to come before the kick.
fn play_until_closed(mut client: Client) -> Served {
    const ROUTES: [&str; 3] = [ECHO, LATER, ROOM];
    const BURST: u32 = 16;
    let (mut next, mut waiting) = (2, HashSet::new());
    let mut served = Served { answers: 1, kicks: 0 };
    loop {
        if waiting.is_empty() && served.kicks == 0 {
            let burst = next..next + BURST;
            let bytes: Vec<u8> = burst
                .clone()
                .flat_map(|id| request(id, ROUTES[id as usize % 3], &id.to_string()))
                .collect();
            // It may have been closed meanwhile: then nobody counts on an answer.
            if std::io::Write::write_all(&mut client.stream, &bytes).is_ok() {
                waiting.extend(burst);
            }
            next += BURST;
        }
        match client.next() {
            Event::Response { id, body } => {
                assert!(waiting.remove(&id), "{id} was not asked for, or is answered twice");
                assert_eq!(body, id.to_string().into_bytes());
                assert_eq!(served.kicks, 0, "an answer after the kick");
                served.answers += 1;
            }
            Event::Kick(reason) => {
                assert_eq!(reason, json!({"reason": "shutdown"}));
                served.kicks += 1;
            }
            Event::End => return served,
            event => panic!("{event:?}"),
        }
    }
}

/// Every request that the server has read is answered, and every client told why it is closed.
#[test]
fn a_shutdown_under_load_answers_what_it_has_read() {
    for shards in [1, 2] {
        let engine = start(shards, Limits::default());
        let connect = || {
            let mut client = Client::ready(engine.local_addr());
            // Whose ACK is still on its way is no session yet, and gets no kick.
            assert_eq!(client.ask(1, ECHO, "1"), "1");
            client
        };
        let clients: Vec<Client> = (0..32).map(|_| connect()).collect();
        let players: Vec<_> = clients
            .into_iter()
            .map(|client| std::thread::spawn(|| play_until_closed(client)))
            .collect();
        eventually("they play", || engine.handle().counters().requests > 2_000);
        let report = engine.shutdown(Drain::within(PATIENCE));
        assert!(report.took < PATIENCE, "{report:?}");
        let served: Vec<Served> =
            players.into_iter().map(|player| player.join().unwrap()).collect();
        let answers: usize = served.iter().map(|served| served.answers).sum();
        assert_eq!(answers as u64, report.counters.requests, "{report:?}");
        assert_eq!(served.iter().filter(|served| served.kicks == 1).count(), served.len());
        assert_eq!(report.counters.closed_shutdown, served.len() as u64);
    }
}

/// More arrives at once than there are buffers for.
#[test]
fn nothing_is_lost_when_the_receive_buffers_are_used_up() {
    let limits = Limits { receive_buffers: 2, receive_buffer_bytes: 4_096, ..Limits::default() };
    let engine = start(1, limits);
    let mut clients: Vec<Client> = (0..16).map(|_| Client::ready(engine.local_addr())).collect();
    let body = format!("\"{}\"", "x".repeat(20_000));
    let deadline = Instant::now() + PATIENCE;
    let mut id = 0;
    while engine.handle().counters().receive_buffers_empty == 0 {
        assert!(Instant::now() < deadline, "the buffers are never used up");
        id += 1;
        clients.iter_mut().for_each(|client| client.send(&request(id, ECHO, &body)));
        for client in &mut clients {
            assert_eq!(client.answer(id), body);
        }
    }
    for client in &mut clients {
        assert_eq!(client.ask(id + 1, ECHO, "1"), "1");
    }
}

/// Twenty thousand notifies, each a segment of its own, while a handler blocks the shard.
#[test]
fn nothing_is_lost_while_a_shard_is_kept_from_its_ring() {
    const CLIENTS: usize = 200;
    const NOTIFIES: usize = 100;
    let engine = builder(1)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler("connector.play.block", |_, _| {
            std::thread::sleep(Duration::from_millis(500));
            Reply::empty()
        })
        .start()
        .unwrap();
    let mut clients: Vec<Client> =
        (0..CLIENTS).map(|_| Client::ready(engine.local_addr())).collect();
    clients[0].send(&request(1, "connector.play.block", "{}"));
    for _ in 0..NOTIFIES {
        clients.iter_mut().for_each(|client| client.send(&notify(ECHO, "{}")));
    }
    for client in &mut clients {
        assert_eq!(client.ask(2, ECHO, "2"), "2");
    }
    assert_eq!(engine.handle().counters().notifies, (CLIENTS * NOTIFIES) as u64);
}
