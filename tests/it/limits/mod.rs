//! Each bound on connections and their silence closes those that it is meant for, counts them,
//! and leaves the others alone.

mod flood;
mod lane;
mod rates;
mod slow;
mod work;

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use shaddock::metrics::CounterSnapshot;
use shaddock::{Builder, Engine, HandleError, HostFilter, HostRule, Limits, Reply};
use support::{Client, Event, PATIENCE, ack, builder, eventually, handshake, heartbeat, request};

const ECHO: &str = "connector.play.echo";

/// Short enough for a test, long enough for a slow machine to keep a client alive meanwhile.
const SILENCE: Duration = Duration::from_secs(1);

fn start(limits: Limits) -> Engine {
    with_echo(builder(1)).limits(limits).start().unwrap()
}

fn with_echo(builder: Builder) -> Builder {
    builder.handler(ECHO, |request, _| Reply::borrowed(request.body()))
}

fn is_served(client: &mut Client) -> bool {
    client.ask(1, ECHO, "1") == "1"
}

fn counters(engine: &Engine) -> CounterSnapshot {
    engine.handle().counters()
}

/// A client that is turned away gets no package. Its own bytes may make the close a reset.
fn assert_turned_away(address: SocketAddr) {
    let mut client = Client::connect(address);
    assert_eq!(client.until_end(), []);
}

#[test]
fn connections_above_the_maximum_are_turned_away_and_do_not_count() {
    for shards in [1, 2] {
        let limits = Limits { connections_max: 3, ..Limits::default() };
        let engine = with_echo(builder(shards)).limits(limits).start().unwrap();
        let mut clients: Vec<Client> = (0..3).map(|_| Client::ready(engine.local_addr())).collect();
        for round in 1..=3 {
            for _ in 0..5 {
                assert_turned_away(engine.local_addr());
            }
            assert_eq!(counters(&engine).refused_max_connections, 5 * round);
            assert!(clients.iter_mut().all(is_served));
            drop(clients.pop());
            eventually("there is room again", || {
                engine.handle().metrics().unwrap().connections == 2
            });
            clients.push(Client::ready(engine.local_addr()));
            assert!(clients.iter_mut().all(is_served));
        }
        assert_eq!(counters(&engine).connections_accepted, 6);
    }
}

#[test]
fn a_client_that_does_not_finish_its_handshake_is_closed() {
    let engine = start(Limits { handshake_timeout: SILENCE, ..Limits::default() });
    let mut witness = Client::ready(engine.local_addr());
    let start = Instant::now();
    let silent = Client::connect(engine.local_addr());
    let mut partial = Client::connect(engine.local_addr());
    partial.send(&handshake()[..2]);
    let mut upgrade = Client::connect(engine.local_addr());
    upgrade.send(b"GET / HTTP/1.1\r\nHost: x\r\n");
    let mut no_ack = Client::connect(engine.local_addr());
    no_ack.send(&handshake());
    let mut data = Client::connect(engine.local_addr());
    data.send(&[handshake(), request(1, ECHO, "1")].concat());
    for mut client in [silent, partial, upgrade, no_ack, data] {
        let events = client.until_end();
        assert!(events.iter().all(|event| matches!(event, Event::Handshake(_))), "{events:?}");
        assert!(start.elapsed() >= SILENCE);
    }
    assert_eq!(counters(&engine).closed_handshake_timeout, 5);
    assert!(is_served(&mut witness), "one that works is not meant");
}

#[test]
fn a_silent_client_is_closed_where_there_are_no_heartbeats() {
    let engine = start(Limits { idle_timeout: SILENCE, ..Limits::default() });
    let mut busy = Client::ready(engine.local_addr());
    let mut idle = Client::ready(engine.local_addr());
    let start = Instant::now();
    while start.elapsed() < 2 * SILENCE {
        assert!(is_served(&mut busy));
        std::thread::sleep(SILENCE / 20);
    }
    assert_eq!(idle.until_end(), [], "without a KICK");
    assert!(is_served(&mut busy));
    assert_eq!(counters(&engine).closed_idle, 1);
    assert_eq!(busy.until_end(), []);
    assert_eq!(counters(&engine).closed_idle, 2);
}

#[test]
fn heartbeats_keep_a_client_alive_and_data_does_not() {
    let engine = with_echo(builder(1)).heartbeat(SILENCE / 2).start().unwrap();
    let mut beating = Client::ready(engine.local_addr());
    let mut silent = Client::ready(engine.local_addr());
    let mut busy = Client::ready(engine.local_addr());
    let start = Instant::now();
    let mut beats = 0;
    while start.elapsed() < 2 * SILENCE {
        beats += 1;
        beating.send(&heartbeat());
        busy.stream.set_nonblocking(false).unwrap();
        // Its last write may find the connection closed.
        let _ = std::io::Write::write_all(&mut busy.stream, &request(1, ECHO, "1"));
        std::thread::sleep(SILENCE / 20);
    }
    // One heartbeat for its ACK, and one for each of its own.
    for _ in 0..=beats {
        assert_eq!(beating.next(), Event::Heartbeat);
    }
    assert_eq!(beating.next_within(Duration::from_millis(1)), None);
    let events = busy.until_end();
    assert!(events.iter().all(|event| !matches!(event, Event::Kick(_))), "{events:?}");
    assert!(events.contains(&Event::Response { id: 1, body: b"1".to_vec() }));
    assert_eq!(silent.until_end(), [Event::Heartbeat]);
    assert!(is_served(&mut beating));
    assert_eq!(counters(&engine).closed_heartbeat_timeout, 2);
}

#[test]
fn any_package_keeps_a_client_alive_where_that_is_asked_for() {
    let engine =
        with_echo(builder(1)).heartbeat(SILENCE / 2).any_package_keeps_alive().start().unwrap();
    let mut busy = Client::ready(engine.local_addr());
    let mut silent = Client::ready(engine.local_addr());
    let start = Instant::now();
    while start.elapsed() < 2 * SILENCE {
        assert!(is_served(&mut busy));
        std::thread::sleep(SILENCE / 20);
    }
    assert_eq!(silent.until_end(), [Event::Heartbeat]);
    assert!(is_served(&mut busy));
    assert_eq!(counters(&engine).closed_heartbeat_timeout, 1);
}

#[test]
fn the_timeout_of_heartbeats_may_be_set_by_itself() {
    let engine = with_echo(builder(1))
        .heartbeat(Duration::from_secs(60))
        .heartbeat_timeout(SILENCE)
        .start()
        .unwrap();
    let mut client = Client::connect(engine.local_addr());
    client.send(&[handshake(), ack()].concat());
    let Event::Handshake(answer) = client.next() else { panic!("no handshake") };
    assert_eq!(answer["sys"]["heartbeat"], 60);
    let start = Instant::now();
    assert_eq!(client.until_end(), [Event::Heartbeat]);
    assert!(start.elapsed() < PATIENCE);
}

/// A handler that blocks its shard for longer than a client may be silent closes nobody.
#[test]
fn nobody_is_closed_for_silence_that_could_not_be_heard() {
    let engine = with_echo(builder(1))
        .heartbeat(SILENCE / 2)
        .handler("connector.play.block", |_, _| {
            std::thread::sleep(3 * SILENCE);
            Reply::json("done")
        })
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    let mut blocking = Client::ready(engine.local_addr());
    blocking.send(&[request(1, "connector.play.block", "{}"), heartbeat()].concat());
    client.send(&heartbeat());
    assert_eq!(blocking.answer(1), "\"done\"");
    client.send(&heartbeat());
    blocking.send(&heartbeat());
    assert!(is_served(&mut client));
    assert!(is_served(&mut blocking));
    assert_eq!(counters(&engine).closed_heartbeat_timeout, 0);
}

#[test]
fn a_client_that_does_not_read_is_closed_at_the_bound_of_its_outbox() {
    const PUSH_BYTES: usize = 64 * 1024;
    let limits =
        Limits { package_bytes_max: 128 * 1024, outbox_bytes_max: 512 * 1024, ..Limits::default() };
    let engine = with_echo(builder(1)).limits(limits);
    let engine = engine
        .async_handler("connector.play.bind", |_, mut session| async move {
            session.bind("slow").await.unwrap();
            Reply::empty()
        })
        .start()
        .unwrap();
    let mut witness = Client::ready(engine.local_addr());
    let mut slow = Client::ready(engine.local_addr());
    slow.ask(1, "connector.play.bind", "{}");
    let body = format!("\"{}\"", "x".repeat(PUSH_BYTES));
    // The kernel's own buffers take a few megabytes first.
    let deadline = Instant::now() + PATIENCE;
    while counters(&engine).closed_slow_consumer == 0 {
        assert!(Instant::now() < deadline, "the slow one was never closed");
        engine.handle().push("slow", "onPush", &body).unwrap();
        assert!(is_served(&mut witness));
    }
    eventually("it is gone", || engine.handle().metrics().unwrap().connections == 1);
    assert_eq!(engine.handle().metrics().unwrap().uids, 0);
    assert!(is_served(&mut witness));
    assert_eq!(counters(&engine).closed_slow_consumer, 1);
    slow.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let end = std::io::copy(&mut slow.stream, &mut std::io::sink());
    assert!(end.is_ok() || end.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset));
}

/// A slow client that reads in the end gets all of it, in order.
#[test]
fn a_client_below_the_bound_of_its_outbox_loses_nothing() {
    let engine = start(Limits::default());
    let mut client = Client::ready(engine.local_addr());
    let body = format!("\"{}\"", "x".repeat(60_000));
    for id in 1..=100 {
        client.send(&request(id, ECHO, &body));
    }
    for id in 1..=100 {
        let Event::Response { id: answered, body: echoed } = client.next() else {
            panic!("no answer")
        };
        assert_eq!((answered, echoed.len()), (id, body.len()));
    }
}

#[test]
fn denied_hosts_are_turned_away_when_they_connect() {
    let loopback: HostRule = "127.0.0.0/8".parse().unwrap();
    let elsewhere: HostRule = "192.0.2.0/24".parse().unwrap();

    let filter = HostFilter::deny(["192.0.2.1", "127.0.0.1"]).unwrap();
    let engine = with_echo(builder(1)).host_filter(filter).start().unwrap();
    assert_turned_away(engine.local_addr());
    assert_eq!(counters(&engine).refused_host, 1);
    engine.handle().allow_hosts(&["127.0.0.1".parse().unwrap()]).unwrap();
    // Reports come after the rules in every shard's inbox.
    engine.handle().statistics().unwrap();
    assert!(is_served(&mut Client::ready(engine.local_addr())));
    drop(engine);

    for shards in [1, 2] {
        let engine = with_echo(builder(shards)).start().unwrap();
        let mut inside = Client::ready(engine.local_addr());
        let handle = engine.handle();
        for round in 1..=2 {
            handle.deny_hosts(&[elsewhere, loopback]).unwrap();
            handle.statistics().unwrap();
            for _ in 0..4 {
                assert_turned_away(engine.local_addr());
            }
            assert_eq!(counters(&engine).refused_host, 4 * round);
            assert!(is_served(&mut inside), "open connections stay");
            handle.allow_hosts(&[loopback]).unwrap();
            handle.statistics().unwrap();
            for _ in 0..4 {
                assert!(is_served(&mut Client::ready(engine.local_addr())));
            }
        }
    }
}

#[test]
fn hosts_are_denied_for_a_while() {
    let engine = with_echo(builder(2)).start().unwrap();
    let (handle, address) = (engine.handle(), engine.local_addr());
    let loopback: HostRule = "127.0.0.0/8".parse().unwrap();
    let elsewhere: HostRule = "192.0.2.1".parse().unwrap();
    handle.deny_hosts_for(&[loopback, elsewhere], Duration::from_secs(3600)).unwrap();
    handle.statistics().unwrap();
    for _ in 0..4 {
        assert_turned_away(address);
    }
    let denied = handle.denied_hosts();
    assert_eq!(denied.len(), 2);
    assert!(denied.iter().all(|host| host.left > Some(Duration::from_secs(3000))), "{denied:?}");
    // Those of the description are others.
    handle.set_hosts(&[]).unwrap();
    assert_eq!(handle.allow_hosts(&["127.0.0.1".parse().unwrap()]), Ok(0), "it is in a block");
    // A shorter time replaces the longer one, and ends.
    handle.deny_hosts_for(&[loopback], Duration::from_millis(50)).unwrap();
    eventually("clients are served again", || {
        let mut client = Client::connect(address);
        client.send(&handshake());
        matches!(client.next(), Event::Handshake(_))
    });
    assert_eq!(handle.denied_hosts().len(), 1, "{:?}", handle.denied_hosts());
    assert_eq!(handle.allow_hosts(&[elsewhere]), Ok(1));
    assert_eq!(handle.denied_hosts(), []);
    let many: Vec<HostRule> = (0..65_537_u32)
        .map(|number| Ipv4Addr::from_bits(number).to_string().parse().unwrap())
        .collect();
    let refused = handle.deny_hosts_for(&many, Duration::from_secs(1));
    assert_eq!(refused, Err(HandleError::TooManyHosts));
    assert_eq!(handle.set_hosts(&many), Err(HandleError::TooManyHosts));
    assert_eq!(handle.denied_hosts(), []);
}

#[test]
fn a_callback_turns_hosts_away_and_may_panic() {
    let (denies, panics) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let filter = HostFilter::deny(["192.0.2.1"]).unwrap().or({
        let (denies, panics) = (Arc::clone(&denies), Arc::clone(&panics));
        move |address| {
            assert_eq!(address, IpAddr::V4(Ipv4Addr::LOCALHOST));
            assert!(!panics.load(Ordering::Relaxed), "on purpose");
            denies.load(Ordering::Relaxed)
        }
    });
    let engine = with_echo(builder(1)).host_filter(filter).start().unwrap();
    assert_turned_away(engine.local_addr());
    denies.store(false, Ordering::Relaxed);
    assert!(is_served(&mut Client::ready(engine.local_addr())));
    panics.store(true, Ordering::Relaxed);
    assert!(is_served(&mut Client::ready(engine.local_addr())), "a panic lets it in");
    assert_eq!(counters(&engine).refused_host, 1);
}
