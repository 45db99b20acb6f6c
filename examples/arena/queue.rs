//! Matchmaking: whoever waits longest plays with whoever comes next.

use std::hash::Hash;

use serde_json::json;
use shaddock::{Context, Fault, Reply, Responder, Routes, Session, SessionView, Uid, WorkerPick};

/// The number of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Room(pub(crate) u64);

impl Room {
    /// The worker that has the room.
    pub(crate) fn worker(self) -> WorkerPick {
        WorkerPick::key(self)
    }
}

/// Mail to the worker that is to have a room.
pub(crate) struct Open {
    pub(crate) room: Room,
    pub(crate) players: [Uid; 2],
}

/// The state of the worker `match-1`.
pub(crate) struct Queue {
    context: Context,
    waiting: Option<Waiting>,
    rooms: u64,
}

/// A player whose request is not answered yet.
struct Waiting {
    uid: Uid,
    session: Session,
    responder: Responder,
}

/// Registers what the worker does.
pub(crate) fn routes(routes: &mut Routes<Queue>) {
    routes
        .handler("queue.join", |queue, _, session| queue.join(session))
        .on_session_closed(Queue::leave);
}

impl Queue {
    pub(crate) fn new(context: &Context) -> Self {
        Self { context: context.clone(), waiting: None, rooms: 0 }
    }

    /// Answers once there is another player. If none comes within `forward_timeout` the answer is
    /// 504, and the client asks again.
    fn join(&mut self, session: &mut Session) -> Reply<'static> {
        let Some(uid) = session.uid().cloned() else {
            return Fault::new(401, "enter first").into();
        };
        session.defer(|responder| {
            let newcomer = Waiting { uid, session: session.clone(), responder };
            match self.waiting.take() {
                Some(first) if first.uid != newcomer.uid => self.open([first, newcomer]),
                // Asked again: the older question is answered by an error, as nobody keeps it.
                _ => self.waiting = Some(newcomer),
            }
        })
    }

    /// Has a room opened, and tells both players once their messages will go there.
    fn open(&mut self, mut players: [Waiting; 2]) {
        self.rooms += 1;
        let room = Room(self.rooms);
        let context = self.context.clone();
        self.context.task("open a room").spawn(async move {
            let mut are_there = true;
            for Waiting { session, .. } in &mut players {
                session.set("room", room.0);
                are_there &= session.store_setting("room").await;
            }
            let uids = players.each_ref().map(|player| player.uid.clone());
            let opened = match are_there {
                true => context.mail("room", room.worker(), Open { room, players: uids }),
                false => return answer(players, || Fault::new(410, "the other has left").into()),
            };
            match opened {
                Ok(()) => answer(players, || Reply::json(&json!({ "code": 200, "room": room.0 }))),
                Err(error) => answer(players, || Fault::from(error).into()),
            }
        });
    }

    /// Forgets a player who is gone.
    fn leave(&mut self, session: &SessionView<'_>) {
        self.waiting.take_if(|waiting| waiting.session.id() == session.id);
    }
}

fn answer(players: [Waiting; 2], reply: impl Fn() -> Reply<'static>) {
    players.into_iter().for_each(|player| player.responder.answer(reply()));
}
