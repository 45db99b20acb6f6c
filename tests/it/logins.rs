//! One session for each uid, where the newest login wins: whichever shards the sessions are on, and
//! however many log in at once.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use shaddock::{
    BindError, Builder, Engine, Handlers, OnSecondBind, Reply, ShardIndex, Uid, Workers,
};
use support::{Client, Event, builder, eventually, request};

const PAIRS: usize = 50;

/// `login` and `logout` of the uid that the body is, on shards and on workers alike.
fn play(server_type: &'static str) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
    fn told(result: &Result<(), BindError>) -> Reply<'static> {
        Reply::json(&json!([result.as_ref().err().map(ToString::to_string)]))
    }
    move |handlers| {
        handlers
            .async_handler(
                &format!("{server_type}.play.login"),
                |request, mut session| async move {
                    let uid = Uid::try_from(&request.value()).unwrap();
                    told(&session.bind(uid).await)
                },
            )
            .async_handler(
                &format!("{server_type}.play.logout"),
                |request, mut session| async move {
                    let uid = Uid::try_from(&request.value()).unwrap();
                    told(&session.unbind(uid).await)
                },
            )
            .handler(&format!("{server_type}.play.where"), |_, session| {
                Reply::json(&session.id().shard().index())
            });
    }
}

fn describe(shards: u16) -> Builder {
    builder(shards)
        .register(play("connector"))
        .forward("room", Workers::new(2, play("room")))
        .single_session(OnSecondBind::KickFirst("elsewhere".into()))
}

fn start(shards: u16) -> Engine {
    describe(shards).start().unwrap()
}

fn kicked() -> Event {
    Event::Kick(json!({ "reason": "elsewhere" }))
}

fn uids(engine: &Engine) -> usize {
    engine.handle().metrics().unwrap().uids
}

fn connections(engine: &Engine) -> usize {
    engine.handle().metrics().unwrap().connections
}

fn login(client: &mut Client, server_type: &str, uid: &str) {
    let answer = client.ask(3, &format!("{server_type}.play.login"), &json!(uid).to_string());
    assert_eq!(answer, "[null]");
}

/// True if the client is still served; else it has got a kick with the reason, and its end.
fn is_left(client: &mut Client) -> bool {
    client.send(&request(9, "connector.play.where", "{}"));
    let mut was_kicked = false;
    loop {
        match client.next() {
            Event::Response { id: 9, .. } => return true,
            Event::End => {
                assert!(was_kicked, "closed without a kick");
                return false;
            }
            event => was_kicked |= event == kicked(),
        }
    }
}

#[test]
fn of_simultaneous_pairs_of_logins_exactly_one_is_left() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (3, "room")] {
        let engine = start(shards);
        let mut sides: Vec<Vec<Client>> = (0..2)
            .map(|_| (0..PAIRS).map(|_| Client::ready(engine.local_addr())).collect())
            .collect();
        let route = format!("{server_type}.play.login");
        std::thread::scope(|scope| {
            for clients in &mut sides {
                let route = &route;
                scope.spawn(move || {
                    for (pair, client) in clients.iter_mut().enumerate() {
                        client.send(&request(1, route, &format!("\"player-{pair}\"")));
                    }
                });
            }
        });
        eventually("one of each pair is left", || {
            connections(&engine) == PAIRS && uids(&engine) == PAIRS
        });
        let statistics = engine.handle().statistics().unwrap();
        assert_eq!(statistics.login_count, PAIRS);
        assert_eq!(engine.handle().counters().sessions_replaced, PAIRS as u64);
        for pair in 0..PAIRS {
            let left: Vec<bool> = sides.iter_mut().map(|side| is_left(&mut side[pair])).collect();
            assert_eq!(left.iter().filter(|left| **left).count(), 1, "pair {pair}: {left:?}");
            let side = &mut sides[usize::from(left[1])];
            engine.handle().push(format!("player-{pair}").as_str(), "onIn", "[1]").unwrap();
            assert_eq!(
                side[pair].next(),
                Event::Push { route: "onIn".into(), body: b"[1]".to_vec() }
            );
        }
        drop(sides);
        eventually("nobody is left", || uids(&engine) == 0 && connections(&engine) == 0);
    }
}

/// The beginnings and ends of logins, in their order.
#[derive(Clone, Default)]
struct History(Arc<Mutex<Vec<Entry>>>);

struct Entry {
    pair: usize,
    side: usize,
    shard: ShardIndex,
    is_done: bool,
}

impl History {
    fn note(&self, (pair, side): (usize, usize), shard: ShardIndex, is_done: bool) {
        self.0.lock().unwrap().push(Entry { pair, side, shard, is_done });
    }

    /// `login` of a pair's side, as the body says.
    fn watch(&self) -> impl Fn(&mut Handlers) + Send + Sync + 'static {
        let history = self.clone();
        move |handlers| {
            let history = history.clone();
            handlers.async_handler("connector.play.watched", move |request, mut session| {
                let history = history.clone();
                async move {
                    let login: (usize, usize) = request.json().unwrap();
                    let (uid, shard) = (format!("player-{}", login.0), session.id().shard());
                    history.note(login, shard, false);
                    let result = session.bind(uid).await;
                    history.note(login, shard, true);
                    Reply::json(&result.is_ok())
                }
            });
        }
    }

    /// The side of the pair that has logged in behind the other: later on the same shard, or when
    /// the other had its answer. `None` where the one could be as well as the other.
    fn newer(&self, pair: usize) -> Option<usize> {
        let history = self.0.lock().unwrap();
        let at = |side, is_done| {
            let is_it =
                |entry: &Entry| (entry.pair, entry.side, entry.is_done) == (pair, side, is_done);
            history.iter().position(is_it)
        };
        let [begun_0, begun_1] = [0, 1].map(|side| at(side, false).unwrap());
        let is_before = |done: Option<usize>, begun: usize| done.is_some_and(|done| done < begun);
        if history[begun_0].shard == history[begun_1].shard {
            return Some(usize::from(begun_1 > begun_0));
        }
        match (is_before(at(0, true), begun_1), is_before(at(1, true), begun_0)) {
            (true, _) => Some(1),
            (_, true) => Some(0),
            _ => None,
        }
    }
}

#[test]
fn of_simultaneous_pairs_of_logins_exactly_the_newer_is_left() {
    for shards in [1, 2] {
        let history = History::default();
        let engine = describe(shards).register(history.watch()).start().unwrap();
        let mut sides: Vec<Vec<Client>> = (0..2)
            .map(|_| (0..PAIRS).map(|_| Client::ready(engine.local_addr())).collect())
            .collect();
        std::thread::scope(|scope| {
            for (side, clients) in sides.iter_mut().enumerate() {
                scope.spawn(move || {
                    for (pair, client) in clients.iter_mut().enumerate() {
                        let body = json!([pair, side]).to_string();
                        client.send(&request(1, "connector.play.watched", &body));
                    }
                });
            }
        });
        eventually("one of each pair is left", || {
            connections(&engine) == PAIRS && uids(&engine) == PAIRS
        });
        let mut known = 0;
        for pair in 0..PAIRS {
            let left: Vec<bool> = sides.iter_mut().map(|side| is_left(&mut side[pair])).collect();
            assert_eq!(left.iter().filter(|left| **left).count(), 1, "pair {pair}: {left:?}");
            if let Some(newer) = history.newer(pair) {
                known += 1;
                assert!(left[newer], "pair {pair}: the older login is left");
            }
        }
        assert!(known == PAIRS || shards > 1, "on one shard logins have an order: {known}");
    }
}

/// Each logs in many times at once: no login of an older session undoes a newer one's.
#[test]
fn repeated_logins_of_two_sessions_leave_one_of_them() {
    for (shards, server_type) in [(1, "connector"), (2, "connector"), (2, "room")] {
        let engine = start(shards);
        let route = format!("{server_type}.play.login");
        let mut clients: Vec<Client> =
            (0..2 * PAIRS).map(|_| Client::ready(engine.local_addr())).collect();
        for _ in 0..4 {
            for (at, client) in clients.iter_mut().enumerate() {
                let login = request(1, &route, &format!("\"player-{}\"", at / 2));
                // One that is kicked already may not take it.
                std::io::Write::write_all(&mut client.stream, &login.repeat(3)).ok();
            }
        }
        eventually("one of each pair is left", || {
            connections(&engine) == PAIRS && uids(&engine) == PAIRS
        });
        assert_eq!(engine.handle().counters().sessions_replaced, PAIRS as u64);
    }
}

#[test]
fn the_newer_session_wins_and_the_first_is_told_why() {
    for shards in [1, 2, 3] {
        let engine = start(shards);
        let mut last = Client::ready(engine.local_addr());
        login(&mut last, "connector", "amy");
        for server_type in ["connector", "room", "connector", "room", "connector"] {
            let mut newer = Client::ready(engine.local_addr());
            login(&mut newer, server_type, "amy");
            assert_eq!(last.until_end(), [kicked()]);
            assert!(is_left(&mut newer));
            assert_eq!(uids(&engine), 1);
            last = newer;
        }
        assert_eq!(engine.handle().counters().closed_by_kick, 5);
    }
}

#[test]
fn a_session_that_logs_in_again_is_not_kicked_by_itself() {
    for shards in [1, 2] {
        let engine = start(shards);
        for server_type in ["connector", "room"] {
            let mut client = Client::ready(engine.local_addr());
            login(&mut client, server_type, &format!("{server_type}-1"));
            login(&mut client, server_type, &format!("{server_type}-1"));
            // Before the first of them is decided.
            let mut other = Client::ready(engine.local_addr());
            let route = format!("{server_type}.play.login");
            let uid = format!("\"{server_type}-2\"");
            let logins: Vec<u8> = (10..20).flat_map(|id| request(id, &route, &uid)).collect();
            other.send(&logins);
            for id in 10..20 {
                assert_eq!(other.answer(id), "[null]");
            }
            assert!(is_left(&mut client) && is_left(&mut other));
        }
        assert_eq!(engine.handle().counters().closed_by_kick, 0);
    }
}

#[test]
fn a_session_that_has_logged_out_is_not_kicked() {
    for shards in [1, 2] {
        let engine = start(shards);
        let mut first = Client::ready(engine.local_addr());
        login(&mut first, "room", "amy");
        assert_eq!(first.ask(4, "connector.play.logout", "\"amy\""), "[null]");
        let mut second = Client::ready(engine.local_addr());
        login(&mut second, "connector", "amy");
        assert!(is_left(&mut first) && is_left(&mut second));
        login(&mut first, "connector", "amy");
        assert_eq!(second.until_end(), [kicked()]);
        assert!(is_left(&mut first));
        assert!(first.next_within(Duration::from_millis(20)).is_none());
    }
}
