//! The game, as an engine: what `main` serves and what tests run in virtual time.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use shaddock::route::Dictionary;
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{
    Builder, Codes, Engine, Handshake, Limits, OnSecondBind, Shards, SlowConsumer, Workers,
};

use crate::accounts::Accounts;
use crate::queue::{self, Queue};
use crate::rooms::{self, Rooms};
use crate::{login, queue::Room};

/// The routes of clients' messages, and of pushes. Each gets a code of two bytes.
const ROUTES: [&str; 5] = [
    "connector.entry.enter",
    "match.queue.join",
    "room.arena.enter",
    "room.arena.leave",
    "room.arena.steer",
];
const PUSHES: [&str; 1] = ["onState"];

/// The form of a state. At 20 states a second the names of members would be most of what is sent.
const SCHEMAS: &str = r#"{
    "message Point": { "required sInt32 x": 1, "required sInt32 y": 2 },
    "message Player": {
        "required string name": 1, "required Point at": 2, "required uInt32 score": 3
    },
    "onState": { "required uInt32 tick": 1, "required Point coin": 2, "repeated Player players": 3 }
}"#;

/// The workers that have the rooms.
const ROOM_WORKERS: u16 = 2;

/// Describes the game, for players whom `accounts` knows.
pub(crate) fn game<A: Accounts>(accounts: Arc<A>) -> Result<Builder, Box<dyn Error>> {
    let of_rooms = Arc::clone(&accounts);
    Ok(Engine::builder()
        .shards(Shards::Count(2))
        .heartbeat(Duration::from_secs(10))
        .dictionary(Dictionary::new(ROUTES, PUSHES)?)
        .protos(ProtoTable::new(Protos::default(), Protos::parse_text(SCHEMAS)?))
        // A window sends 20 steers in a second while its player turns.
        .limits(Limits { messages_per_second: 40, messages_burst: 80, ..Limits::default() })
        .answer_codes(Codes::http())
        .on_handshake(async move |handshake: Handshake| login::admit(&*accounts, handshake).await)
        .single_session(OnSecondBind::KickFirst("logged in elsewhere".into()))
        .call_async("connector.entry.enter", login::enter)
        .forward("match", Workers::stateful(1, Queue::new, queue::routes))
        .forward(
            "room",
            Workers::stateful(
                ROOM_WORKERS,
                move |context| Rooms::new(context, Arc::clone(&of_rooms)),
                rooms::routes,
            ),
        )
        // The worker that has the room, by the same key as the mail that opens it.
        .route("room", |session, workers| {
            let room = Room(session.setting("room")?.as_u64()?);
            room.worker().among(workers.len())
        })
        // A client that reads slowly gets the newest state, not all that it has missed.
        .push_policy("onState", SlowConsumer::KeepLatest)
        .shutdown_kick("the server is going down"))
}
