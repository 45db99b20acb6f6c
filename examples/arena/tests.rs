//! The game in virtual time, without a socket.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::testing::{Client, Engine};

use crate::accounts::{Accounts, HttpAccounts, Score, Unavailable};
use crate::game::game;
use crate::rooms::TICK;
use crate::stand_in;

/// Everybody's token is their name, and it is down while `is_down` says so.
#[derive(Default)]
struct Fake {
    is_down: Mutex<bool>,
    saved: Mutex<Vec<Score>>,
}

impl Fake {
    fn saved(&self) -> MutexGuard<'_, Vec<Score>> {
        self.saved.lock().unwrap()
    }

    fn check(&self) -> Result<(), Unavailable> {
        if *self.is_down.lock().unwrap() { Err(Unavailable) } else { Ok(()) }
    }
}

impl Accounts for Fake {
    async fn name_of(&self, token: &str) -> Result<Option<String>, Unavailable> {
        self.check()?;
        Ok(Some(token.to_owned()).filter(|token| token != "nobody"))
    }

    async fn save(&self, scores: &[Score]) -> Result<(), Unavailable> {
        self.check()?;
        self.saved().extend_from_slice(scores);
        Ok(())
    }
}

fn engine() -> (Engine, Arc<Fake>) {
    let fake = Arc::<Fake>::default();
    (Engine::new(game(Arc::clone(&fake)).unwrap()), fake)
}

fn login(t: &Engine, name: &str) -> Client {
    let client = t.client().user(json!({ "token": name })).connect();
    assert_eq!(client.request("connector.entry.enter", json!({}))["name"], name);
    client
}

/// Two players in a room of their own.
fn pair(t: &Engine) -> [Client; 2] {
    let players = ["amy", "bob"].map(|name| login(t, name));
    let joins = players.each_ref().map(|player| player.send_request("match.queue.join", json!({})));
    let rooms = joins.map(|join| join.value()["room"].clone());
    assert!(rooms[0].is_u64() && rooms[0] == rooms[1], "{rooms:?}");
    for player in &players {
        assert_eq!(player.request("room.arena.enter", json!({}))["code"], 200);
    }
    players
}

/// The newest state that a player has.
fn state(player: &Client) -> Value {
    let mut states = player.pushes();
    states.retain(|push| push.route == "onState");
    states.pop().expect("a state has come").body
}

/// Steers a player of [`pair`] to the coin.
fn take_coin(t: &Engine, player: &Client, place: usize) {
    for _ in 0..100 {
        t.advance(TICK);
        let now = state(player);
        if now["players"][place]["score"] == 1 {
            return;
        }
        let way = |axis: &str| {
            let from = now["players"][place]["at"][axis].as_i64().unwrap();
            now["coin"][axis].as_i64().unwrap() - from
        };
        player.notify("room.arena.steer", json!({ "x": way("x"), "y": way("y") }));
    }
    panic!("the coin is never reached");
}

#[test]
fn only_known_tokens_come_in() {
    let (t, fake) = engine();
    let code = |user: Value| {
        let refused = t.client().user(user).try_connect().unwrap_err();
        refused.answer.unwrap()["code"].clone()
    };
    assert_eq!(code(json!({})), 401);
    assert_eq!(code(json!({ "token": "nobody" })), 403);
    *fake.is_down.lock().unwrap() = true;
    assert_eq!(code(json!({ "token": "amy" })), 503);
    *fake.is_down.lock().unwrap() = false;
    login(&t, "amy");
}

#[test]
fn two_players_see_each_other_move() {
    let (t, _) = engine();
    let [amy, bob] = pair(&t);
    t.advance(TICK);
    let before = state(&amy);
    assert_eq!(before["players"][1], json!({"name": "bob", "at": {"x": 80, "y": 50}, "score": 0}));
    bob.notify("room.arena.steer", json!({ "x": -7, "y": 1 }));
    t.advance(TICK * 3);
    let after = state(&amy);
    assert_eq!(after["players"][1]["at"], json!({"x": 74, "y": 56}));
    assert_eq!(after["players"][0]["at"], before["players"][0]["at"], "amy has not moved");
    assert_eq!(after["tick"], before["tick"].as_u64().unwrap() + 3);
    assert_eq!(after, state(&bob));
}

#[test]
fn states_are_sent_by_their_schema() {
    let (t, _) = engine();
    let [amy, _bob] = pair(&t);
    t.advance(TICK);
    let pushes = amy.pushes();
    assert_eq!(pushes.len(), 1);
    // The kit has decoded it; the handshake tells real clients how to.
    let schema = &amy.handshake()["sys"]["protos"]["server"]["onState"];
    assert_eq!(schema["players"]["type"], "Player");
    assert!(pushes[0].body["players"].is_array());
}

#[test]
fn a_room_is_for_the_two_that_it_was_opened_for() {
    let (t, _) = engine();
    let [amy, bob] = pair(&t);
    let eve = t.client().user(json!({ "token": "eve" })).setting("room", 1).connect();
    assert_eq!(eve.request("room.arena.enter", json!({}))["code"], 401);
    eve.request("connector.entry.enter", json!({}));
    assert_eq!(eve.request("room.arena.enter", json!({}))["code"], 403);
    assert_eq!(eve.request("room.arena.steer", json!({ "x": 1, "y": 0 }))["code"], 404);

    bob.close();
    t.advance(TICK);
    assert_eq!(state(&amy)["players"].as_array().unwrap().len(), 1);
    amy.close();
    t.advance(Duration::from_secs(11));
    assert_eq!(
        t.client()
            .uid("amy")
            .setting("room", 1)
            .user(json!({"token": "amy"}))
            .connect()
            .request("room.arena.enter", json!({}))["code"],
        404,
        "an empty room is closed"
    );
}

#[test]
fn who_waits_and_leaves_is_paired_with_nobody() {
    let (t, _) = engine();
    let amy = login(&t, "amy");
    let first = amy.send_request("match.queue.join", json!({}));
    let again = amy.send_request("match.queue.join", json!({}));
    assert_eq!(first.value()["code"], 500, "the newer question counts");
    assert!(!again.is_there());
    amy.close();
    let bob = login(&t, "bob");
    let join = bob.send_request("match.queue.join", json!({}));
    t.advance(Duration::from_secs(1));
    assert!(!join.is_there());
    assert_eq!(join.within(Duration::from_secs(60))["code"], 504, "nobody else has come");
}

#[test]
fn the_newest_login_wins() {
    let (t, _) = engine();
    let [old, bob] = pair(&t);
    let new = login(&t, "amy");
    assert_eq!(old.kicked().as_deref(), Some("logged in elsewhere"));
    assert!(old.is_closed() && !new.is_closed());
    t.advance(TICK);
    assert_eq!(state(&bob)["players"].as_array().unwrap().len(), 1);
}

#[test]
fn a_flood_is_answered_429() {
    let (t, _) = engine();
    let amy = login(&t, "amy");
    let codes = |_| amy.request("connector.entry.enter", json!({}))["code"].as_u64().unwrap();
    let refused = (0..200).map(codes).filter(|code| *code == 429).count();
    assert!((100..150).contains(&refused), "{refused}");
    t.advance(Duration::from_secs(2));
    assert_eq!(codes(0), 200);
}

#[test]
fn scores_are_saved_while_the_game_runs_and_kept_while_they_cannot_be() {
    let (t, fake) = engine();
    let [amy, _bob] = pair(&t);
    take_coin(&t, &amy, 0);
    *fake.is_down.lock().unwrap() = true;
    amy.request("room.arena.leave", json!({}));
    t.advance(Duration::from_secs(6));
    assert!(fake.saved().is_empty());
    *fake.is_down.lock().unwrap() = false;
    t.advance(Duration::from_secs(6));
    assert_eq!(*fake.saved(), [("amy".to_owned(), 1)]);
}

#[test]
fn a_stop_saves_the_scores_of_all_who_play() {
    let (t, fake) = engine();
    let [_amy, bob] = pair(&t);
    take_coin(&t, &bob, 1);
    assert!(t.drain(Duration::from_secs(10)) < Duration::from_secs(3));
    assert_eq!(*fake.saved(), [("bob".to_owned(), 1)]);
    assert_eq!(bob.kicked().as_deref(), Some("the server is going down"));
    assert_eq!(t.counters().futures_lost, 0);
}

/// The one test with sockets: what is behind the trait.
#[test]
fn accounts_are_asked_over_http() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tokio = runtime.handle().clone();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let thread = std::thread::spawn(move || runtime.block_on(stopped));
    let served = |address: String| {
        Engine::new(game(Arc::new(HttpAccounts::new(address, tokio.clone()))).unwrap())
    };
    let code =
        |t: &Engine, token: &str| match t.client().user(json!({"token": token})).try_connect() {
            Ok(_) => 200,
            Err(refused) => refused.answer.unwrap()["code"].as_u64().unwrap(),
        };
    let t = served(stand_in::start("127.0.0.1:0").unwrap().to_string());
    assert_eq!(code(&t, "pass-amy"), 200);
    for token in ["amy", "pass-", "pass-../scores", "pass-amy HTTP/1.1"] {
        assert_eq!(code(&t, token), 403, "{token}");
    }
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(code(&served(nobody.to_string()), "pass-amy"), 503);
    stop.send(()).unwrap();
    thread.join().unwrap().unwrap();
}
