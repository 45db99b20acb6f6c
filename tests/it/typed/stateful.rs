//! Handlers, ticks and futures that share the state of their thread.

use std::time::Duration;

use shaddock::{Context, Engine, Fault, Missed, Reply, Routes, Session, Shared, Workers};
use support::{Client, builder, eventually};

struct Room {
    context: Context,
    members: Vec<u64>,
    ticks: u32,
    left: u32,
}

impl Room {
    fn new(context: &Context) -> Self {
        Self { context: context.clone(), members: Vec::new(), ticks: 0, left: 0 }
    }

    fn enter(&mut self, name: String, session: &mut Session) -> Result<(String, usize), Fault> {
        if name.is_empty() {
            return Err(Fault::new(422, "no name"));
        }
        self.members.push(session.number());
        Ok((format!("{name} on {}", self.context.server_id()), self.members.len()))
    }

    /// Every other one panics.
    fn tick(&mut self) {
        self.ticks += 1;
        assert!(self.ticks.is_multiple_of(2), "an odd tick");
    }
}

/// Counts who has entered since it was called.
async fn wait(room: Shared<Room>, ms: u64, session: Session) -> Result<usize, Fault> {
    let before = room.with(|room| room.members.len())?;
    session.context().sleep(Duration::from_millis(ms)).await;
    Ok(room.with(|room| room.members.len() - before)?)
}

fn routes(routes: &mut Routes<Room>) {
    let state = routes.state();
    routes
        .call("roomHandler.enter", Room::enter)
        .call("roomHandler.ticks", |room, (), _| Ok(room.ticks))
        .call("roomHandler.left", |room, (), _| Ok(room.left))
        .call_async("roomHandler.wait", wait)
        .handler("roomHandler.echo", |_, request, _| Reply::borrowed(request.body()))
        .call("roomHandler.nested", move |room, (), _| {
            room.left += state.with(|room| room.left)?;
            Ok(())
        })
        .on_session_closed(|room, session| {
            room.members.retain(|number| *number != session.number());
            room.left += 1;
        })
        .every(Duration::from_millis(5), Missed::Skip, Room::tick);
}

/// The same on a worker and on a shard.
fn engine() -> Engine {
    builder(1)
        .stateful(Room::new, routes)
        .forward("room", Workers::stateful(1, Room::new, routes))
        .start()
        .unwrap()
}

#[test]
fn handlers_share_the_state_of_their_thread() {
    let engine = engine();
    for (server_type, name) in [("connector", "connector-1"), ("room", "room-1")] {
        let [mut amy, mut ben] = [(); 2].map(|()| Client::ready(engine.local_addr()));
        let route = |method: &str| format!("{server_type}.roomHandler.{method}");
        let entered = |name: &str, count: u32| format!("[\"{name}\",{count}]");
        assert_eq!(amy.ask(1, &route("enter"), "\"amy\""), entered(&format!("amy on {name}"), 1));
        amy.send(&support::request(2, &route("wait"), "200"));
        assert_eq!(ben.ask(1, &route("enter"), "\"ben\""), entered(&format!("ben on {name}"), 2));
        assert_eq!(amy.answer(2), "1", "the state was free while the future waited");
        assert_eq!(ben.ask_json(2, &route("enter"), "\"\"")["code"], 422);
        assert_eq!(ben.ask(3, &route("echo"), "[1, 2]"), "[1, 2]");
        drop(amy);
        let mut id = 3;
        eventually("the state is told of the end", || {
            id += 1;
            ben.ask(id, &route("left"), "") == "1"
        });
        assert_eq!(ben.ask_json(99, &route("enter"), "\"ben\"")[1], 2);
    }
}

#[test]
fn a_nested_call_for_the_state_is_an_error_and_leaves_it_whole() {
    let engine = engine();
    let mut client = Client::ready(engine.local_addr());
    for server_type in ["connector", "room"] {
        let route = |method: &str| format!("{server_type}.roomHandler.{method}");
        assert_eq!(client.ask(1, &route("nested"), ""), r#"{"code":500}"#);
        assert_eq!(client.ask_json(2, &route("enter"), "\"amy\"")[1], 1);
    }
}

#[test]
fn a_panicking_tick_goes_on_and_is_counted() {
    let engine = engine();
    let mut client = Client::ready(engine.local_addr());
    let mut id = 0;
    for server_type in ["connector", "room"] {
        eventually("ten ticks have come", || {
            id += 1;
            let ticks = client.ask_json(id, &format!("{server_type}.roomHandler.ticks"), "");
            ticks.as_u64().unwrap_or_default() >= 10
        });
    }
    let panics = engine.handle().counters().tick_panics;
    assert!(panics >= 10, "half of each: {panics}");
}
