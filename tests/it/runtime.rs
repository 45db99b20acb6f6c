//! An async handler may wait for the runtime's own timers, and others are served meanwhile. Where
//! an engine polls there is no such runtime, and waiting for it fails that handler alone. The table
//! in `docs/runtimes.md` tells what works with other runtimes.

use std::time::{Duration, Instant};

use shaddock::{Driver, Handlers, Reply, Workers};
use support::{Client, Event, builder, has_ring, request};

use crate::failures::is_told;

#[test]
fn an_async_handler_waits_for_a_timer_of_the_runtime() {
    const WAIT: Duration = Duration::from_millis(200);
    if !has_ring() {
        return;
    }
    let engine = builder(1)
        .driver(Driver::Ring)
        .async_handler("connector.play.wait", |_, _| async {
            glommio::timer::sleep(WAIT).await;
            Reply::json("waited")
        })
        .handler("connector.play.echo", |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut waiting = Client::ready(engine.local_addr());
    let mut served = Client::ready(engine.local_addr());
    let start = Instant::now();
    waiting.send(&request(1, "connector.play.wait", "{}"));
    let mut count = 0;
    let waited = loop {
        count += 1;
        assert_eq!(served.ask(count, "connector.play.echo", &count.to_string()), count.to_string());
        if let Some(event) = waiting.next_within(Duration::from_millis(1)) {
            break event;
        }
    };
    assert_eq!(waited, Event::Response { id: 1, body: b"\"waited\"".to_vec() });
    assert!(start.elapsed() >= WAIT);
    assert!(count > 10, "{count} requests were served while one waited");
}

/// The same on a shard and on a worker, each as a client sees it.
#[test]
fn tokio_works_where_it_runs_and_nowhere_else() {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tokio = runtime.handle().clone();
    let thread = std::thread::spawn(move || runtime.block_on(stopped));
    let register = move |kind: &'static str| {
        let tokio = tokio.clone();
        move |handlers: &mut Handlers| {
            let (spawner, entered) = (tokio.clone(), tokio.clone());
            let sleep = || tokio::time::sleep(Duration::from_millis(5));
            handlers.async_handler(&format!("{kind}.a.spawned"), move |_, _| {
                let spawned = spawner.spawn(async move {
                    sleep().await;
                    "spawned"
                });
                async { Reply::json(spawned.await.unwrap()) }
            });
            handlers.async_handler(&format!("{kind}.a.entered"), move |_, _| {
                let guard = entered.enter();
                let sleep = sleep();
                drop(guard);
                async {
                    sleep.await;
                    Reply::json("entered")
                }
            });
            handlers.async_handler(&format!("{kind}.a.bare"), move |_, _| async move {
                sleep().await;
                Reply::json("bare")
            });
            handlers.async_handler(&format!("{kind}.a.glommio"), move |_, _| async {
                glommio::timer::sleep(Duration::from_millis(5)).await;
                Reply::json("glommio")
            });
        }
    };
    let engine = builder(1)
        .register(register("connector"))
        .forward("room", Workers::new(1, register("room")))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    let mut id = 0;
    let on_shards = match engine.handle().driver() {
        Driver::Ring => "\"glommio\"",
        _ => "{\"code\":500}",
    };
    for (kind, glommio) in [("connector", on_shards), ("room", "{\"code\":500}")] {
        for (method, expected) in [
            ("spawned", "\"spawned\""),
            ("entered", "\"entered\""),
            ("bare", "{\"code\":500}"),
            ("glommio", glommio),
        ] {
            id += 1;
            let route = format!("{kind}.a.{method}");
            assert_eq!(client.ask(id, &route, "{}"), expected, "{route}");
        }
    }
    drop(engine);
    stop.send(()).unwrap();
    thread.join().unwrap().unwrap();
}

#[test]
fn without_the_runtime_only_the_handler_that_waits_for_it_fails() {
    let engine = builder(1)
        .driver(Driver::Poll)
        .async_handler("connector.play.wait", |_, _| async {
            glommio::timer::sleep(Duration::from_millis(1)).await;
            Reply::json("waited")
        })
        .async_handler("connector.play.sleep", |_, session| async move {
            session.context().sleep(Duration::from_millis(1)).await;
            Reply::json("slept")
        })
        .start()
        .unwrap();
    assert_eq!(engine.handle().driver(), Driver::Poll);
    let mut client = Client::ready(engine.local_addr());
    let words = ["a handler has panicked", "connector.play.wait", "Context::sleep", "`poll`"];
    is_told(&words, || {
        assert!(client.ask(1, "connector.play.wait", "{}").contains("500"));
    });
    assert_eq!(client.ask(2, "connector.play.sleep", "{}"), "\"slept\"");
    assert_eq!(engine.handle().failure(), None);
}
