//! A shard that has no place for one more connection lets it wait in the kernel's backlog, as
//! `docs/limits.md` says of `connections_per_shard_max`: it is neither served nor closed, and comes
//! in once there is a place, whichever shard has it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use shaddock::{Builder, Drain, Engine, Limits, Reply};
use support::{Client, Event, PATIENCE, ack, builder, eventually, handshake, request};

const ECHO: &str = "connector.play.echo";
/// For how long one that waits is looked at.
const A_WHILE: Duration = Duration::from_millis(30);

fn with_places(builder: Builder, places: u32) -> Engine {
    let limits = Limits { connections_per_shard_max: places, ..Limits::default() };
    let echo = builder.handler(ECHO, |request, _| Reply::borrowed(request.body()));
    echo.limits(limits).start().unwrap()
}

/// One that has connected and begins its handshake.
fn outside(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    client.send(&handshake());
    client
}

fn assert_waits(client: &mut Client) {
    let event = client.next_within(A_WHILE);
    assert_eq!(event, None, "there is no place for it");
}

fn assert_comes_in(client: &mut Client) {
    let event = client.next();
    assert!(matches!(event, Event::Handshake(_)), "{event:?}");
    client.send(&ack());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
}

#[test]
fn who_finds_no_place_waits_for_one_in_order() {
    const PLACES: usize = 10;
    let engine = with_places(builder(1), PLACES as u32);
    let address = engine.local_addr();
    let mut inside: Vec<Client> = (0..PLACES).map(|_| Client::ready(address)).collect();
    let mut waiting: Vec<Client> = (0..6).map(|_| outside(address)).collect();
    for round in 0..6 {
        waiting.iter_mut().for_each(assert_waits);
        for (id, client) in (2 + 10 * round..).zip(&mut inside) {
            assert_eq!(client.ask(id, ECHO, &id.to_string()), id.to_string());
        }
        assert_eq!(
            engine.handle().counters().connections_accepted,
            PLACES as u64 + u64::from(round)
        );
        drop(inside.remove(0));
        let mut next = waiting.remove(0);
        assert_comes_in(&mut next);
        inside.push(next);
    }
    let counters = engine.handle().counters();
    assert_eq!((counters.accept_failures, counters.refused_max_connections), (0, 0));
}

/// The kernel gives each connection to a shard by a hash, so that one is full before the others.
#[test]
fn the_places_of_other_shards_count() {
    for (shards, places) in [(2, 1), (2, 10), (3, 4)] {
        let engine = with_places(builder(shards), places);
        let address = engine.local_addr();
        let all = u32::from(shards) * places;
        let mut inside: Vec<Client> = (0..all).map(|_| Client::ready(address)).collect();
        let mut waiting: Vec<Client> = (0..6).map(|_| outside(address)).collect();
        waiting.iter_mut().for_each(assert_waits);
        for client in &mut inside {
            assert_eq!(client.ask(9, ECHO, "9"), "9", "{shards} shards, {places} places");
        }
        // Whichever shard they wait at, each place that is free has one of them come in.
        while !waiting.is_empty() {
            drop(inside.swap_remove(0));
            let mut came = None;
            eventually("one comes in", || {
                came = waiting.iter_mut().position(|client| {
                    matches!(
                        client.next_within(Duration::from_millis(5)),
                        Some(Event::Handshake(_))
                    )
                });
                came.is_some()
            });
            inside.push(waiting.swap_remove(came.unwrap()));
            waiting.iter_mut().for_each(assert_waits);
        }
        let counters = engine.handle().counters();
        assert_eq!(counters.accept_failures, 0, "{shards} shards, {places} places");
        let began = std::time::Instant::now();
        engine.shutdown(Drain::now());
        assert!(began.elapsed() < PATIENCE / 2);
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}

/// An accept that waits at one listener is no reason to keep the clients of another waiting.
#[test]
fn the_last_place_is_for_whoever_comes_at_whichever_listener() {
    let engine = with_places(builder(2).listen("127.0.0.1:0").listen("127.0.0.1:0"), 1);
    let addresses = engine.local_addrs();
    assert_eq!(addresses.len(), 3);
    for round in 0..12 {
        let mut inside = Vec::new();
        for place in 0..2 {
            let mut client = outside(addresses[(round + place * (round % 2)) % 3]);
            assert_comes_in(&mut client);
            inside.push(client);
        }
        let mut waiting = outside(addresses[round / 2 % 3]);
        assert_waits(&mut waiting);
        drop(inside.pop());
        assert_comes_in(&mut waiting);
    }
}

/// Many come and go at once where few have a place: all are served in the end.
#[test]
fn a_crowd_takes_turns_in_few_places() {
    const CLIENTS: usize = 60;
    let engine = with_places(builder(2).listen("127.0.0.1:0"), 3);
    let addresses = engine.local_addrs();
    thread::scope(|scope| {
        for number in 0..CLIENTS {
            let address = addresses[number % addresses.len()];
            scope.spawn(move || assert_comes_in(&mut outside(address)));
        }
    });
    eventually("all have gone", || {
        let counters = engine.handle().counters();
        (counters.connections_accepted, counters.connections_closed) == (60, 60)
    });
    assert_eq!(engine.handle().counters().accept_failures, 0);
}

/// The kernel's hash would send half of them there, where they wait for as long as it stands.
#[test]
fn who_connects_does_not_come_to_a_shard_that_stands() {
    const STAND: &str = "connector.play.stand";
    let (go_on, stands) = mpsc::channel::<()>();
    let stands = Arc::new(Mutex::new(stands));
    let engine = builder(2).handler(STAND, move |_, _| {
        // Until the sender is gone.
        let _ = stands.lock().unwrap().recv();
        Reply::empty()
    });
    let engine = engine.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, STAND, "{}"));
    eventually("all who connect are served", || {
        let mut crowd: Vec<Client> = (0..20).map(|_| outside(engine.local_addr())).collect();
        let patience = Duration::from_millis(200);
        crowd.iter_mut().all(|client| client.next_within(patience).is_some())
    });
    drop(go_on);
    assert_eq!(client.answer(1), "{}");
}
