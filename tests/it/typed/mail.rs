//! Messages of the embedder's own to workers: from handlers, from other workers, from the host.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};

use shaddock::{Fault, Handlers, Limits, MailError, Routes, Session, WorkerPick, Workers};
use support::{Client, PATIENCE, builder, eventually};

/// Tells where it has come by.
struct Open(u32, Sender<(String, u32)>);

/// Holds a worker up.
struct Block(std::sync::mpsc::Receiver<()>);

struct Panic;

struct Unknown;

fn rooms(count: u16) -> Workers {
    Workers::stateful(
        count,
        |context| context.server_id().to_owned(),
        |routes: &mut Routes<String>| {
            routes
                .mail(|name, Open(room, opened)| opened.send((name.clone(), room)).unwrap())
                .mail(|_, Block(until)| until.recv().unwrap())
                .mail(|_, Panic| panic!("on purpose"));
        },
    )
}

#[test]
fn mail_from_the_host_reaches_the_worker_that_is_meant_in_order() {
    let engine = builder(1).forward("chat", rooms(1)).forward("room", rooms(3)).start().unwrap();
    let handle = engine.handle();
    let (send, opened) = channel();
    for index in 0..3 {
        for room in 0..100 {
            handle.mail("room", WorkerPick::index(index), Open(room, send.clone())).unwrap();
        }
        for room in 0..100 {
            let at = opened.recv_timeout(PATIENCE).unwrap();
            assert_eq!(at, (format!("room-{}", index + 1), room));
        }
    }
    let place = WorkerPick::key("lobby").among(3).unwrap();
    handle.mail("room", WorkerPick::key("lobby"), Open(7, send.clone())).unwrap();
    assert_eq!(opened.recv_timeout(PATIENCE).unwrap(), (format!("room-{}", place + 1), 7));
    let refused = |kind, to| handle.mail(kind, to, Open(0, send.clone())).unwrap_err();
    assert_eq!(refused("area", WorkerPick::index(0)), MailError::NoWorkers);
    assert_eq!(refused("connector", WorkerPick::index(0)), MailError::NoWorkers);
    assert_eq!(refused("room", WorkerPick::index(3)), MailError::NoSuchWorker);
    drop(engine);
    assert_eq!(refused("room", WorkerPick::index(0)), MailError::Stopped);
    drop(send);
    let kept = opened.recv_timeout(PATIENCE);
    assert_eq!(kept, Err(RecvTimeoutError::Disconnected), "something is kept behind the engine");
}

#[test]
fn handlers_of_shards_and_workers_send_mail() {
    let (send, opened) = channel();
    let open = move |room: u32, session: &mut Session| -> Result<(), Fault> {
        session.context().mail("room", WorkerPick::index(1), Open(room, send.clone()))?;
        Ok(())
    };
    let of_worker = open.clone();
    let matches = Workers::new(1, move |handlers: &mut Handlers| {
        handlers.call("match.matchHandler.open", of_worker.clone());
    });
    let engine = builder(1)
        .call("connector.matchHandler.open", open)
        .forward("room", rooms(2))
        .forward("match", matches)
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    for (id, server_type) in [(1, "connector"), (2, "match")] {
        assert_eq!(
            client.ask(id, &format!("{server_type}.matchHandler.open"), &id.to_string()),
            "{}"
        );
        assert_eq!(opened.recv_timeout(PATIENCE).unwrap(), ("room-2".to_owned(), id));
    }
}

#[test]
fn mail_that_nobody_takes_is_counted_and_stops_nothing() {
    let engine = builder(1).forward("room", rooms(1)).start().unwrap();
    let (handle, to) = (engine.handle(), WorkerPick::index(0));
    let (send, opened) = channel();
    handle.mail("room", to, Unknown).unwrap();
    handle.mail("room", to, Panic).unwrap();
    handle.mail("room", to, Open(1, send)).unwrap();
    assert_eq!(opened.recv_timeout(PATIENCE).unwrap().1, 1);
    let counters = handle.counters();
    assert_eq!((counters.worker_mail_unhandled, counters.callback_panics), (1, 1));
}

#[test]
fn mail_is_bounded_by_the_inbox() {
    const INBOX_LEN: usize = 10;
    let limits = Limits { inbox_len: INBOX_LEN, ..Limits::default() };
    let engine = builder(1).limits(limits).forward("room", rooms(1)).start().unwrap();
    let (handle, to) = (engine.handle(), WorkerPick::index(0));
    let ((send, opened), (unblock, blocked)) = (channel(), channel());
    handle.mail("room", to, Block(blocked)).unwrap();
    // The worker has taken what it is blocked by once as many fit as the inbox holds.
    let mut sent = 0;
    eventually("the inbox is full", || {
        while handle.mail("room", to, Open(0, send.clone())).is_ok() {
            sent += 1;
        }
        sent == INBOX_LEN
    });
    assert_eq!(handle.mail("room", to, Open(0, send.clone())), Err(MailError::Full));
    unblock.send(()).unwrap();
    for _ in 0..INBOX_LEN {
        opened.recv_timeout(PATIENCE).unwrap();
    }
    eventually("what was refused is counted", || handle.counters().worker_mail_rejects > 0);
    handle.mail("room", to, Open(0, send)).unwrap();
    opened.recv_timeout(PATIENCE).unwrap();
}
