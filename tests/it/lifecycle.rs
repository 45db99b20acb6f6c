//! The life of what runs beside messages: spawned futures, hooks, and what becomes of them when the
//! engine stops.
//!
//! The engines have one or two shards and a worker of the type `room`. Saves are sleeps that count
//! themselves when they are done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use shaddock::{
    Builder, Context, Drain, Engine, Handle, HandleError, Handlers, Limits, Missed, Reply, Session,
    TaskError, Uid, Workers,
};
use support::{Client, Event, PATIENCE, builder, eventually, request};

const LOGIN: &str = "connector.entry.login";
const ENTER: &str = "room.play.enter";
const SAVES_MS: [u64; 3] = [20, 100, 2_500];

/// Counts what is done.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Count {
    fn one(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

fn with_login(builder: Builder) -> Builder {
    builder.async_handler(LOGIN, async |request, mut session| {
        let uid: String = request.json().unwrap();
        session.bind(uid.as_str()).await.unwrap();
        Reply::json("in")
    })
}

fn room(register: impl Fn(&mut Handlers) + Send + Sync + 'static) -> Workers {
    Workers::new(1, move |handlers: &mut Handlers| {
        handlers.handler(ENTER, |_, _| Reply::json("entered"));
        register(handlers);
    })
}

/// Spawns saves for each session that closes.
fn saves(handlers: &mut Handlers, done: &Count) {
    let done = done.clone();
    handlers.on_session_closed(move |_, context| {
        for ms in SAVES_MS {
            let (context, done) = (context.clone(), done.clone());
            let own = context.clone();
            context.task("save").spawn(async move {
                own.sleep(Duration::from_millis(ms)).await;
                done.one();
            });
        }
    });
}

fn nothing_is_lost(engine: Engine, done: &Count, expected: u64) {
    let report = engine.shutdown(Drain::within(Duration::from_secs(6)));
    assert_eq!((done.get(), report.futures_lost), (expected, 0), "{report:?}");
    assert_eq!(report.counters.futures_lost, 0);
}

#[test]
fn saves_of_ended_sessions_are_done_on_a_shard() {
    let done = Count::default();
    let engine = with_login(builder(2)).register({
        let done = done.clone();
        move |handlers| saves(handlers, &done)
    });
    let engine = engine.forward("room", room(|_| {})).start().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::ready(engine.local_addr())).collect();
    for client in &mut clients {
        client.ask(1, LOGIN, "\"amy\"");
    }
    nothing_is_lost(engine, &done, 4 * SAVES_MS.len() as u64);
}

#[test]
fn saves_of_ended_sessions_are_done_on_a_worker() {
    let done = Count::default();
    let workers = room({
        let done = done.clone();
        move |handlers| saves(handlers, &done)
    });
    let engine = with_login(builder(2)).forward("room", workers).start().unwrap();
    let mut clients: Vec<Client> = (0..4).map(|_| Client::ready(engine.local_addr())).collect();
    for client in &mut clients {
        client.ask(1, ENTER, "{}");
    }
    nothing_is_lost(engine, &done, 4 * SAVES_MS.len() as u64);
}

/// Saves that a handler spawns, and saves that the first tick does.
fn owed_saves(
    route: &'static str,
    begun: &Count,
    done: &Count,
) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
    let save = |context: &Context, done: &Count| {
        for ms in SAVES_MS {
            let (own, done) = (context.clone(), done.clone());
            context.spawn_owed(async move {
                own.sleep(Duration::from_millis(ms)).await;
                done.one();
            });
        }
    };
    let (begun, done) = (begun.clone(), done.clone());
    move |handlers| {
        let of_handler = done.clone();
        handlers.handler(route, move |_, session| {
            save(&session.context(), &of_handler);
            Reply::json("saving")
        });
        let (begun, done, is_first) = (begun.clone(), done.clone(), std::cell::Cell::new(true));
        handlers.every(Duration::from_millis(1), Missed::Skip, move |context| {
            if is_first.replace(false) {
                begun.one();
                save(context, &done);
            }
        });
    }
}

#[test]
fn saves_that_handlers_and_ticks_owe_are_done() {
    const SAVE: &str = "connector.entry.save";
    const SAVE_THERE: &str = "room.play.save";
    let (begun, done) = (Count::default(), Count::default());
    let engine = builder(1)
        .register(owed_saves(SAVE, &begun, &done))
        .forward("room", room(owed_saves(SAVE_THERE, &begun, &done)))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    eventually("both threads have ticked", || begun.get() == 2);
    for (id, route) in [(1, SAVE), (2, SAVE_THERE)] {
        assert_eq!(client.ask(id, route, "{}"), "\"saving\"");
    }
    nothing_is_lost(engine, &done, 4 * SAVES_MS.len() as u64);
}

/// A deadline holds whatever is owed, and what was lost is told.
#[test]
fn what_never_ends_is_lost_and_counted() {
    let forever = |handlers: &mut Handlers| {
        handlers.on_session_closed(|_, context| drop(context.spawn(std::future::pending::<()>())));
        // Neither of these is owed.
        handlers.context().spawn(std::future::pending::<()>());
        handlers.on_session_closed(|_, context| {
            context.task("loop").not_owed().spawn(std::future::pending::<()>());
        });
    };
    let engine = builder(1).register(forever).forward("room", room(forever)).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, ENTER, "{}");
    let report = engine.shutdown(Drain::within(Duration::from_millis(1_500)));
    assert_eq!(report.futures_lost, 2, "one on the shard, one on the worker: {report:?}");
    assert!(report.took < PATIENCE, "{report:?}");
}

#[test]
fn hooks_run_behind_the_ends_of_sessions_and_are_waited_for() {
    const CLIENTS: u64 = 20;
    let (closed, seen, done) = (Count::default(), Count::default(), Count::default());
    let workers = room({
        let (seen, done) = (seen.clone(), done.clone());
        move |handlers| {
            let (of_hook, seen, done) = (closed.clone(), seen.clone(), done.clone());
            let closed = closed.clone();
            handlers.on_session_closed(move |_, _| closed.one());
            handlers.on_shutdown(async move |context: Context| {
                seen.0.store(of_hook.get(), Ordering::SeqCst);
                context.sleep(Duration::from_millis(50)).await;
                let late = done.clone();
                let own = context.clone();
                context.spawn_owed(async move {
                    own.sleep(Duration::from_millis(50)).await;
                    late.one();
                });
                done.one();
            });
        }
    });
    let of_shards = done.clone();
    let engine = builder(2)
        .register(move |handlers| {
            let done = of_shards.clone();
            handlers.on_shutdown(async move |context: Context| {
                context.sleep(Duration::from_millis(50)).await;
                done.one();
            });
        })
        .forward("room", workers)
        .start()
        .unwrap();
    let address = engine.local_addr();
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| Client::ready(address)).collect();
    for client in &mut clients {
        client.ask(1, ENTER, "{}");
    }
    let report = engine.shutdown(Drain::within(PATIENCE));
    assert_eq!(seen.get(), CLIENTS, "the worker's hook ran before sessions had ended there");
    assert_eq!(done.get(), 4, "two shards' hooks, a worker's and what it has spawned");
    assert_eq!(report.futures_lost, 0);
    assert!(report.took < PATIENCE, "{report:?}");
}

#[test]
fn a_stop_now_waits_for_nothing() {
    let (begun, done) = (Count::default(), Count::default());
    let hook = {
        let (begun, done) = (begun.clone(), done.clone());
        move |handlers: &mut Handlers| {
            let (begun, done) = (begun.clone(), done.clone());
            handlers.on_shutdown(async move |context: Context| {
                begun.one();
                context.sleep(Duration::from_secs(60)).await;
                done.one();
            });
        }
    };
    let engine = builder(2).register(hook.clone()).forward("room", room(hook)).start().unwrap();
    let _client = Client::ready(engine.local_addr());
    let report = engine.shutdown(Drain::now());
    assert_eq!((begun.get(), done.get(), report.futures_lost), (3, 0, 3), "{report:?}");
    assert!(report.took < PATIENCE, "{report:?}");
}

/// A future that is owed may ask other shards for something, though those have nothing left to do;
/// and shards that have ended, for which it finds no sessions.
#[test]
fn an_owed_future_is_answered_by_whoever_is_left() {
    let (done, found) = (Count::default(), Count::default());
    let ask = {
        let (done, found) = (done.clone(), found.clone());
        move |handlers: &mut Handlers| {
            let (done, found) = (done.clone(), found.clone());
            handlers.on_shutdown(async move |context: Context| {
                for round in 0..40_u64 {
                    let name = format!("player {round}");
                    let uid = || Uid::from(name.as_str());
                    let lost = context.push([uid()], "onSave", b"{}").unwrap().await;
                    found.0.fetch_add(1 - lost.len() as u64, Ordering::SeqCst);
                    found.0.fetch_add(context.kick_uid(uid(), None).await as u64, Ordering::SeqCst);
                    let is_worker = context.server_id() != context.frontend_id();
                    let ms = if is_worker { 20 } else { 5 };
                    context.sleep(Duration::from_millis(ms)).await;
                }
                done.one();
            });
        }
    };
    let engine = builder(2).register(ask.clone()).forward("room", room(ask)).start().unwrap();
    let report = engine.shutdown(Drain::within(PATIENCE));
    assert_eq!((done.get(), found.get(), report.futures_lost), (3, 0, 0), "{report:?}");
    assert!(report.took < PATIENCE, "{report:?}");
}

#[test]
fn an_async_handler_is_waited_for_though_its_client_has_gone() {
    const BUY: &str = "connector.entry.buy";
    const BUY_THERE: &str = "room.play.buy";
    let (begun, done) = (Count::default(), Count::default());
    let buy = {
        let (begun, done) = (begun.clone(), done.clone());
        move |route| {
            let (begun, done) = (begun.clone(), done.clone());
            move |handlers: &mut Handlers| {
                let (begun, done) = (begun.clone(), done.clone());
                handlers.async_handler(route, move |_, session| {
                    let (begun, done) = (begun.clone(), done.clone());
                    async move {
                        begun.one();
                        session.context().sleep(Duration::from_secs(1)).await;
                        done.one();
                        Reply::empty()
                    }
                });
            }
        }
    };
    let engine =
        builder(1).register(buy(BUY)).forward("room", room(buy(BUY_THERE))).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, BUY, "{}"));
    client.send(&request(2, BUY_THERE, "{}"));
    eventually("both have begun", || begun.get() == 2);
    drop(client);
    let report = engine.shutdown(Drain::within(PATIENCE));
    assert_eq!((done.get(), report.futures_lost), (2, 0), "{report:?}");
}

/// A responder that is kept for a client that has gone, as by a queue of players, costs a stop
/// nothing.
#[test]
fn a_deferred_answer_is_not_waited_for_without_its_client() {
    let defer = |route| {
        move |handlers: &mut Handlers| {
            handlers.handler(route, |_, session| session.defer(std::mem::forget));
        }
    };
    let engine = builder(1)
        .register(defer("connector.entry.queue"))
        .forward("room", room(defer("room.play.queue")))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, "connector.entry.queue", "{}"));
    client.send(&request(2, "room.play.queue", "{}"));
    client.ask(3, ENTER, "{}");
    drop(client);
    eventually("it has gone", || engine.handle().counters().connections_closed == 1);
    let report = engine.shutdown(Drain::within(6 * PATIENCE));
    assert_eq!(report.futures_lost, 0);
    assert!(report.took < 2 * PATIENCE, "{report:?}");
}

#[test]
fn a_panic_ends_its_own_future_and_is_told_to_whoever_awaits() {
    const PLAY: &str = "connector.entry.play";
    const PLAY_THERE: &str = "room.play.play";
    let play = |route| {
        move |handlers: &mut Handlers| {
            handlers.async_handler(route, async |_, session| {
                let context = session.context();
                let task = context.task("bomb").spawn(async { panic!("on {}", "purpose") });
                assert_eq!(task.name(), "bomb");
                let told: Result<(), TaskError> = task.await;
                assert_eq!(told, Err(TaskError::Panicked("on purpose".into())));
                let endless = context.spawn(std::future::pending::<()>());
                endless.abort();
                assert_eq!(endless.await, Err(TaskError::Aborted));
                Reply::json(&context.spawn(async { 7 }).await.unwrap())
            });
        }
    };
    let engine =
        builder(1).register(play(PLAY)).forward("room", room(play(PLAY_THERE))).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, PLAY, "{}"), "7");
    assert_eq!(client.ask(2, PLAY_THERE, "{}"), "7");
    let report = engine.shutdown(Drain::within(PATIENCE));
    assert_eq!((report.counters.task_panics, report.futures_lost), (2, 0));
}

/// A future on a thread of no engine, awaited without any runtime.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::task::Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park_timeout(PATIENCE),
        }
    }
}

#[test]
fn figures_asked_for_on_a_shard_come_at_once() {
    const ASK: &str = "connector.entry.figures";
    const ASK_THERE: &str = "room.play.figures";
    let handle = Arc::<OnceLock<Handle>>::default();
    let ask = {
        let handle = Arc::clone(&handle);
        move |route| {
            let handle = Arc::clone(&handle);
            move |handlers: &mut Handlers| {
                let handle = Arc::clone(&handle);
                handlers.async_handler(route, move |_, _| {
                    let handle = handle.get().unwrap().clone();
                    async move {
                        assert_eq!(handle.statistics().unwrap_err(), HandleError::OnShard);
                        let metrics = handle.metrics().unwrap();
                        let statistics = handle.statistics_async().await.unwrap();
                        Reply::json(&[metrics.connections, statistics.connections])
                    }
                });
            }
        }
    };
    let engine =
        builder(2).register(ask(ASK)).forward("room", room(ask(ASK_THERE))).start().unwrap();
    handle.set(engine.handle()).unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ASK, "{}"), "[1,1]");
    assert_eq!(client.ask(2, ASK_THERE, "{}"), "[1,1]");
    let handle = engine.handle();
    assert_eq!(handle.metrics().unwrap().connections, 1);
    assert_eq!(handle.statistics().unwrap().connections, 1);
    engine.shutdown(Drain::now());
    assert_eq!(block_on(handle.statistics_async()).unwrap_err(), HandleError::Stopped);
}

/// Its own inbox has room: that it is late is no reason to try again at once.
#[test]
fn a_shard_that_stands_is_told_from_one_with_too_much_mail() {
    const STAND: &str = "connector.entry.stand";
    let (begun, go_on) = (Count::default(), Count::default());
    let (of_handler, waits) = (begun.clone(), go_on.clone());
    let engine = builder(1).handler(STAND, move |_, _| {
        of_handler.one();
        while waits.get() == 0 {
            std::thread::sleep(Duration::from_millis(10));
        }
        Reply::empty()
    });
    let engine = engine.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, STAND, "{}"));
    eventually("it stands", || begun.get() == 1);
    let (handle, other) = (engine.handle(), engine.handle());
    let asked = handle.statistics_async();
    assert_eq!(other.statistics().unwrap_err(), HandleError::TimedOut);
    go_on.one();
    assert_eq!(block_on(asked).unwrap().connections, 1, "who has more patience is answered");
}

#[test]
fn threads_of_the_host_are_told_that_the_inbox_of_a_shard_is_full() {
    const STAND: &str = "connector.entry.stand";
    const ENTER: &str = "connector.entry.enter";
    let (begun, go_on) = (Count::default(), Count::default());
    let (of_handler, waits) = (begun.clone(), go_on.clone());
    let engine = builder(1)
        .limits(Limits { inbox_len: 2, ..Limits::default() })
        .async_handler(ENTER, async |_, mut session: Session| {
            Reply::json(&session.bind("amy").await.is_ok())
        })
        .handler(STAND, move |_, _| {
            of_handler.one();
            while waits.get() == 0 {
                std::thread::sleep(Duration::from_millis(10));
            }
            Reply::empty()
        });
    let engine = engine.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ENTER, "{}"), "true");
    client.send(&request(2, STAND, "{}"));
    eventually("it stands", || begun.get() == 1);
    let handle = engine.handle();
    let push = |body: &str| handle.push("amy", "onChat", body);
    assert_eq!([push("1"), push("2"), push("3")], [Ok(()), Ok(()), Err(HandleError::Busy)]);
    go_on.one();
    assert!(matches!(client.next(), Event::Response { id: 2, .. }));
    for body in ["1", "2"] {
        assert_eq!(client.next(), Event::Push { route: "onChat".into(), body: body.into() });
    }
    push("4").unwrap();
    assert_eq!(client.next(), Event::Push { route: "onChat".into(), body: b"4".to_vec() });
}

/// What would wait for the thread that it is called on says so, and has an async form or is for
/// others.
#[test]
fn what_would_wait_for_its_own_thread_says_so() {
    const ASK: &str = "connector.entry.ask";
    const ASK_THERE: &str = "room.play.ask";
    let ask = |route: &'static str| {
        move |handlers: &mut Handlers| {
            let early = handlers.context().handle();
            handlers.async_handler(route, move |_, session| {
                let early = early.clone();
                async move {
                    let handle = session.context().handle();
                    assert_eq!(handle.wait_for_turns(PATIENCE), Err(HandleError::OnShard));
                    #[cfg(feature = "tls")]
                    assert!(matches!(
                        handle.reload_certificates(),
                        Err(shaddock::TlsError::Engine(HandleError::OnShard))
                    ));
                    handle.wait_for_turns_async().await.unwrap();
                    Reply::json(&early.statistics_async().await.unwrap().connections)
                }
            });
        }
    };
    let engine =
        builder(2).register(ask(ASK)).forward("room", room(ask(ASK_THERE))).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ASK, "{}"), "1");
    assert_eq!(client.ask(2, ASK_THERE, "{}"), "1");
    let handle = engine.handle();
    block_on(handle.wait_for_turns_async()).unwrap();
    engine.shutdown(Drain::now());
    assert_eq!(block_on(handle.wait_for_turns_async()), Err(HandleError::Stopped));
}

/// The handler panics, and the engine that it has dropped ends without it.
#[test]
fn an_engine_that_is_stopped_on_its_own_shard_ends() {
    const STOP: &str = "connector.entry.stop";
    for drops in [true, false] {
        let place = Arc::<Mutex<Option<Engine>>>::default();
        let of_handler = Arc::clone(&place);
        let engine = builder(2).handler(STOP, move |_, _| {
            let engine = of_handler.lock().unwrap().take().unwrap();
            match drops {
                true => drop(engine),
                false => drop(engine.shutdown(Drain::now())),
            }
            Reply::empty()
        });
        let engine = engine.forward("room", room(|_| {})).start().unwrap();
        let (handle, address) = (engine.handle(), engine.local_addr());
        *place.lock().unwrap() = Some(engine);
        let mut client = Client::ready(address);
        client.send(&request(1, STOP, "{}"));
        client.until_end();
        eventually("it has ended", || handle.statistics().err() == Some(HandleError::Stopped));
        assert_eq!(handle.counters().handler_panics, u64::from(!drops));
    }
}
