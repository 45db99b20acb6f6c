//! An engine leaves no descriptor and no thread behind, however it ends.

use std::time::Duration;

use shaddock::{Drain, Driver, Engine, Handlers, Reply, Workers};
use support::alone::is_alone;
use support::{Client, builder, eventually, request};

/// What this process holds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Held {
    threads: usize,
    eventfds: usize,
    other_descriptors: usize,
}

fn held() -> Held {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().count();
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap();
    let targets: Vec<_> =
        descriptors.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok()).collect();
    let eventfds = targets.iter().filter(|target| target.ends_with("anon_inode:[eventfd]")).count();
    Held { threads, eventfds, other_descriptors: targets.len() - eventfds }
}

const SHARDS: usize = 2;

/// What is left once `engines` have ended. The runtime never closes the eventfd of an executor,
/// even of one that has done nothing (glommio 0.9.0), and each shard on a ring has one.
fn after(engines: usize, driver: Driver, before: Held) -> Held {
    let each = if driver == Driver::Ring { SHARDS } else { 0 };
    Held { eventfds: before.eventfds + engines * each, ..before }
}

fn start() -> Engine {
    let play = |handlers: &mut Handlers| {
        handlers
            .handler("room.play.echo", |request, _| Reply::borrowed(request.body()))
            .async_handler("room.play.never", |_, _| std::future::pending())
            .async_handler("room.play.sleep", |_, session| async move {
                session.context().sleep(Duration::from_secs(600)).await;
                Reply::empty()
            });
    };
    builder(SHARDS as u16)
        .async_handler("connector.play.sleep", |_, session| async move {
            session.context().sleep(Duration::from_secs(600)).await;
            Reply::empty()
        })
        .async_handler("connector.play.never", |_, _| std::future::pending())
        .forward("room", Workers::new(2, play))
        .start()
        .unwrap()
}

/// Clients of which each has something in flight, and one that has not even begun.
fn busy_clients(engine: &Engine) -> Vec<Client> {
    let routes =
        ["connector.play.sleep", "connector.play.never", "room.play.sleep", "room.play.never"];
    let mut clients: Vec<Client> = routes
        .iter()
        .map(|route| {
            let mut client = Client::ready(engine.local_addr());
            client.send(&request(1, route, "{}"));
            assert_eq!(client.ask(2, "room.play.echo", "2"), "2");
            client
        })
        .collect();
    clients.push(Client::connect(engine.local_addr()));
    clients
}

#[test]
fn an_engine_that_has_ended_leaves_nothing_behind() {
    if !is_alone("leaks::an_engine_that_has_ended_leaves_nothing_behind") {
        return;
    }
    let run = |end: fn(Engine)| {
        let engine = start();
        let clients = busy_clients(&engine);
        end(engine);
        drop(clients);
    };
    // The first one brings what the runtime keeps for the process.
    let first = start();
    let driver = first.handle().driver();
    drop(busy_clients(&first));
    drop(first);
    eventually("its threads have ended", || held().threads <= 2);
    let before = held();
    for _ in 0..10 {
        run(|engine| {
            engine.shutdown(Drain::now());
        });
        run(drop);
    }
    eventually("all is given back", || held() == after(20, driver, before));

    // So does a start that fails.
    let engine = start();
    let address = engine.local_addr().to_string();
    let running = held();
    for _ in 0..10 {
        assert!(builder(2).listen(&address).start().is_err());
    }
    eventually("all is given back", || held() == running);
    drop(engine);
    eventually("all is given back", || held() == after(21, driver, before));
}
