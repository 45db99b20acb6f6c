//! The rooms of one worker: two dots and a coin each, moved every 50 ms.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use shaddock::{Context, Fault, Missed, Routes, Session, SessionId, SessionView, Shared, Uid};

use crate::accounts::{Accounts, Score};
use crate::queue::{Open, Room as Number};

/// The interval of states.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// The interval of saves.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Scores that wait while the account service does not answer.
const UNSAVED_MAX: usize = 10_000;
/// Ticks after which a room is closed that nobody is in: 10 s.
const EMPTY_TICKS_MAX: u32 = 200;

/// The arena's width and height.
const SIZE: i32 = 100;
/// A dot's way in a tick.
const STEP: i32 = 2;
/// The distance at which a dot gets the coin.
const REACH: i32 = 4;

/// The state of a worker of the type `room`.
pub(crate) struct Rooms<A> {
    context: Context,
    accounts: Arc<A>,
    rooms: HashMap<Number, Room>,
    /// The room that a session is in.
    seats: HashMap<SessionId, Number>,
    unsaved: Vec<Score>,
}

struct Room {
    invited: [Uid; 2],
    players: Vec<Player>,
    coin: Point,
    coins: u32,
    tick: u32,
    empty_ticks: u32,
}

#[derive(Serialize)]
struct Player {
    #[serde(skip)]
    session: SessionId,
    #[serde(rename = "name")]
    uid: Uid,
    at: Point,
    #[serde(skip)]
    heading: Point,
    score: u32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
struct Point {
    x: i32,
    y: i32,
}

/// The body of `onState`, which its schema describes.
#[derive(Serialize)]
struct State<'a> {
    tick: u32,
    coin: Point,
    players: &'a [Player],
}

/// Registers what the worker does.
pub(crate) fn routes<A: Accounts>(routes: &mut Routes<Rooms<A>>) {
    let state = routes.state();
    routes
        .mail(Rooms::open)
        .call("arena.enter", Rooms::enter)
        .call("arena.steer", Rooms::steer)
        .call("arena.leave", |rooms, (), session| {
            rooms.leave(session.id());
            Ok(json!({ "code": 200 }))
        })
        .on_session_closed(|rooms, session: &SessionView<'_>| rooms.leave(session.id))
        .every(TICK, Missed::Skip, Rooms::tick)
        // A stop of the engine waits for what is owed,
        .every(SAVE_EVERY, Missed::Delay, move |rooms| {
            rooms.context.task("save scores").owed().spawn(save(state.clone()));
        })
        // and for what is left to do when all sessions have closed.
        .on_shutdown(|rooms, _| save(rooms));
}

impl<A: Accounts> Rooms<A> {
    pub(crate) fn new(context: &Context, accounts: Arc<A>) -> Self {
        Self {
            context: context.clone(),
            accounts,
            rooms: HashMap::new(),
            seats: HashMap::new(),
            unsaved: Vec::new(),
        }
    }

    fn open(&mut self, Open { room, players }: Open) {
        self.rooms.insert(room, Room::new(players));
    }

    fn enter(&mut self, (): (), session: &mut Session) -> Result<Value, Fault> {
        let uid = session.uid().cloned().ok_or_else(|| Fault::new(401, "enter the game first"))?;
        let number = session.get("room").and_then(Value::as_u64).map(Number);
        let number = number.ok_or_else(no_room)?;
        self.leave(session.id());
        let room = self.rooms.get_mut(&number).ok_or_else(no_room)?;
        room.enter(session.id(), uid)?;
        self.seats.insert(session.id(), number);
        Ok(json!({ "code": 200, "size": SIZE, "tickMs": TICK.as_millis() as u64 }))
    }

    fn steer(&mut self, heading: Point, session: &mut Session) -> Result<Value, Fault> {
        let room = self.seats.get(&session.id()).and_then(|number| self.rooms.get_mut(number));
        let room = room.ok_or_else(no_room)?;
        let Point { x, y } = heading;
        for player in room.players.iter_mut().filter(|player| player.session == session.id()) {
            player.heading = Point { x: x.signum(), y: y.signum() };
        }
        Ok(json!({ "code": 200 }))
    }

    /// Takes a player out of the room that they are in, and keeps their score.
    fn leave(&mut self, session: SessionId) {
        let Some(room) = self.seats.remove(&session).and_then(|room| self.rooms.get_mut(&room))
        else {
            return;
        };
        for player in room.players.extract_if(.., |player| player.session == session) {
            if player.score > 0 && self.unsaved.len() < UNSAVED_MAX {
                self.unsaved.push((player.uid.text().to_owned(), player.score));
            }
        }
    }

    fn tick(&mut self) {
        for room in self.rooms.values_mut() {
            room.step();
            let Ok(state) = serde_json::to_vec(&room.state()) else { continue };
            let players = room.players.iter().map(|player| player.uid.clone());
            // Laid out once for both, by the schema. It can't be refused: it is short.
            let _ = self.context.push(players, "onState", &state);
        }
        self.rooms.retain(|_, room| room.empty_ticks < EMPTY_TICKS_MAX);
    }
}

/// Saves the scores of those who have left. What can't be saved now is kept for the next time.
async fn save<A: Accounts>(rooms: Shared<Rooms<A>>) {
    let taken =
        rooms.with(|rooms| (Arc::clone(&rooms.accounts), std::mem::take(&mut rooms.unsaved)));
    let Ok((accounts, scores)) = taken else { return };
    if scores.is_empty() {
        return;
    }
    if let Err(error) = accounts.save(&scores).await {
        eprintln!("{error}: {} scores wait", scores.len());
        let _ = rooms.with(|rooms| {
            rooms.unsaved.extend(scores);
            rooms.unsaved.truncate(UNSAVED_MAX);
        });
    }
}

impl Room {
    fn new(invited: [Uid; 2]) -> Self {
        let coin = coin(0);
        Self { invited, players: Vec::new(), coin, coins: 0, tick: 0, empty_ticks: 0 }
    }

    fn enter(&mut self, session: SessionId, uid: Uid) -> Result<(), Fault> {
        let Some(place) = self.invited.iter().position(|invited| *invited == uid) else {
            return Err(Fault::new(403, "not invited"));
        };
        let at = Point { x: SIZE / 5 + place as i32 * SIZE * 3 / 5, y: SIZE / 2 };
        self.players.push(Player { session, uid, at, heading: Point::default(), score: 0 });
        Ok(())
    }

    fn step(&mut self) {
        self.tick += 1;
        self.empty_ticks = if self.players.is_empty() { self.empty_ticks + 1 } else { 0 };
        for player in &mut self.players {
            let Point { x, y } = player.heading;
            player.at.x = (player.at.x + x * STEP).clamp(0, SIZE);
            player.at.y = (player.at.y + y * STEP).clamp(0, SIZE);
            let Point { x, y } = player.at;
            if x.abs_diff(self.coin.x).max(y.abs_diff(self.coin.y)) <= REACH as u32 {
                player.score += 1;
                self.coins += 1;
                self.coin = coin(self.coins);
            }
        }
    }

    fn state(&self) -> State<'_> {
        State { tick: self.tick, coin: self.coin, players: &self.players }
    }
}

fn no_room() -> Fault {
    Fault::new(404, "no room")
}

/// The place of the coin with that number.
fn coin(number: u32) -> Point {
    let place = |factor: u32| ((50 + number.wrapping_mul(factor)) % SIZE as u32) as i32;
    Point { x: place(37), y: place(61) }
}
