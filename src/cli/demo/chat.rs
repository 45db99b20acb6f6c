//! The handlers of server type `chat`, which run on workers: rooms, and what the connector has
//! too, seen from behind it.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::route::PushError;
use shaddock::{
    Channel, Context, Handlers, OwnedRequest, Pending, Reply, Request, Session, SessionView, Uid,
};

use super::answers::{self, room};
use super::filters::{LocalFilter, NoArrays};
use super::js;

/// The beginning of these handlers' routes.
pub(crate) const PREFIX: &str = "chat.chatHandler.";
/// Their methods.
pub(crate) const METHODS: [&str; 11] = [
    "echo",
    "where",
    "join",
    "send",
    "sendProto",
    "leave",
    "fail",
    "slow",
    "empty",
    "note",
    "setting",
];

/// Sets up one worker.
pub(crate) fn register(handlers: &mut Handlers) {
    let route = |method| format!("{PREFIX}{method}");
    let rooms = Rc::<Rooms>::default();
    let [joined, left] = [0; 2].map(|_| Rc::clone(&rooms));
    handlers
        .filter(LocalFilter::default())
        .filter(NoArrays)
        .handler(&route("echo"), |request, _| Reply::borrowed(request.body()))
        .handler(&route("where"), whereabouts)
        .handler(&route("join"), move |_, session| join(session, &joined))
        .handler(&route("send"), |request, session| {
            let mut message = json!({"from": session.uid()});
            copy_members(&request.value(), &["msg"], &mut message);
            to_room(session, "onChat", &message)
        })
        .handler(&route("sendProto"), |request, session| {
            let mut message = json!({});
            copy_members(&request.value(), &["msg", "n", "tags"], &mut message);
            to_room(session, "onProto", &message)
        })
        .handler(&route("leave"), move |_, session| leave(session, &left))
        .handler(&route("fail"), |request, _| answers::fail(&request.value(), "remote failure"))
        .async_handler(&route("slow"), slow)
        .handler(&route("empty"), |_, _| Reply::empty())
        .handler(&route("note"), |_, _| Reply::empty())
        .async_handler(&route("setting"), setting)
        .on_session_closed(move |session, context| forget(session, context, &rooms));
}

/// Which server answers, and what of the session arrived there.
fn whereabouts<'a>(_: &Request<'a>, session: &mut Session) -> Reply<'a> {
    Reply::json(&json!({
        "server": session.context().server_id(),
        "uid": session.uid(),
        "frontendId": session.frontend_id(),
        "room": answers::setting(session.get("room")),
    }))
}

/// Rooms that nobody is in, strangers in others, and who is in which.
///
/// In the reference all stay for ever: a room that everybody has left can still be sent to, who
/// joins without being logged in is an empty place in it, and a player stays in each room that they
/// have joined and not left. Here they stay up to a limit.
#[derive(Debug, Default)]
struct Rooms {
    /// The names of those that have become empty, those first that have been so the longest. Some
    /// may have players again.
    empty: RefCell<VecDeque<Box<str>>>,
    /// The bytes of these names.
    empty_bytes: Cell<usize>,
    /// Sessions in each room that have joined it without being logged in.
    strangers: RefCell<HashMap<Box<str>, Cell<usize>>>,
    /// The rooms that each session is in, by its number, the one joined last at the end.
    joined: RefCell<HashMap<u64, VecDeque<Box<str>>>>,
}

impl Rooms {
    /// Counts one more in; how many there are.
    fn add_stranger(&self, room: &str) -> usize {
        let mut strangers = self.strangers.borrow_mut();
        let count = strangers.entry(room.into()).or_default();
        count.set((count.get() + 1).min(STRANGERS_MAX));
        count.get()
    }

    fn strangers(&self, room: &str) -> usize {
        self.strangers.borrow().get(room).map_or(0, Cell::get)
    }

    /// Notes that a session is in a room, and yields the one that it has to leave instead.
    fn enter(&self, session: u64, room: &str) -> Option<Box<str>> {
        let mut joined = self.joined.borrow_mut();
        let rooms = joined.entry(session).or_default();
        rooms.retain(|name| **name != *room);
        rooms.push_back(room.into());
        if rooms.len() > ROOMS_PER_SESSION_MAX { rooms.pop_front() } else { None }
    }

    /// Notes that a session is in a room no more.
    fn leave(&self, session: u64, room: &str) {
        if let Some(rooms) = self.joined.borrow_mut().get_mut(&session) {
            rooms.retain(|name| **name != *room);
        }
    }

    /// Keeps an empty room, and yields the names of those to do without instead.
    fn keep_empty(&self, room: &str) -> Vec<Box<str>> {
        let mut empty = self.empty.borrow_mut();
        let mut bytes = self.empty_bytes.get();
        if empty.iter().all(|name| **name != *room) {
            empty.push_back(room.into());
            bytes += room.len();
        }
        let mut oldest = Vec::new();
        while empty.len() > EMPTY_ROOMS_MAX || bytes > EMPTY_ROOMS_BYTES_MAX {
            let Some(name) = empty.pop_front() else { break };
            bytes -= name.len();
            oldest.push(name);
        }
        self.empty_bytes.set(bytes);
        oldest
    }

    /// Keeps a room that has become empty, and removes others above the limits.
    fn became_empty(&self, context: &Context, room: &str) {
        for name in self.keep_empty(room) {
            let Some(channel) = context.find_channel(&name).filter(Channel::is_empty) else {
                continue;
            };
            self.strangers.borrow_mut().remove(&name);
            channel.destroy();
        }
    }

    /// Takes a player out of a room.
    fn take_out(&self, context: &Context, room: &str, uid: &Uid) {
        let Some(channel) = context.find_channel(room) else { return };
        channel.leave(uid);
        if channel.is_empty() {
            self.became_empty(context, room);
        }
    }
}

/// Empty rooms that are kept.
const EMPTY_ROOMS_MAX: usize = 1_000;
/// Bytes of their names.
const EMPTY_ROOMS_BYTES_MAX: usize = 256 * 1024;
/// Rooms that a session may be in at once; in one more it is instead of the one joined first.
const ROOMS_PER_SESSION_MAX: usize = 8;
/// Strangers that count in a room.
const STRANGERS_MAX: usize = 100;

/// Puts the player into the room, and tells those who are there already.
///
/// One who is not logged in can't be pushed to, and is only counted.
fn join(session: &mut Session, rooms: &Rc<Rooms>) -> Reply<'static> {
    let room = room(session.get("room"));
    let context = session.context();
    let channel = context.channel(&js::to_text(&room));
    let told = push(&channel, "onJoin", &json!({"user": session.uid()}));
    // At once, and not when the others have been told: the session might close until then, and
    // would stay in the room for ever.
    match session.uid() {
        Some(uid) => {
            channel.leave(uid);
            channel.add(uid.clone());
            if let Some(first) = rooms.enter(session.number(), channel.name()) {
                rooms.take_out(&context, &first, uid);
            }
        }
        None => {
            rooms.add_stranger(channel.name());
            if channel.is_empty() {
                rooms.became_empty(&context, channel.name());
            }
        }
    }
    let rooms = Rc::clone(rooms);
    after(told, move || {
        let users = in_text_order(channel.members(), rooms.strangers(channel.name()));
        Reply::json(&json!({"code": 200, "room": room, "users": users}))
    })
}

/// As the reference sorts: by the UTF-16 units of the texts, where strangers are `null`.
fn in_text_order(uids: Vec<Uid>, strangers: usize) -> Vec<Option<Uid>> {
    let strangers = std::iter::repeat_n(None, strangers);
    let mut users: Vec<_> = uids.into_iter().map(Some).chain(strangers).collect();
    let text = |user: &Option<Uid>| {
        user.as_ref().map_or_else(|| "null".into(), |uid| uid.text().to_owned())
    };
    users.sort_by_cached_key(|user| text(user).encode_utf16().collect::<Vec<_>>());
    users
}

/// Pushes to everybody in the session's room.
fn to_room(session: &Session, route: &str, message: &Value) -> Reply<'static> {
    match room_of(&session.context(), session.get("room")) {
        None => Reply::json(&json!({"code": 404})),
        Some(channel) => {
            after(push(&channel, route, message), || Reply::json(&json!({"code": 200})))
        }
    }
}

/// Takes the player out of the room, and tells those who stay.
fn leave(session: &Session, rooms: &Rooms) -> Reply<'static> {
    let context = session.context();
    if let Some(channel) = room_of(&context, session.get("room")) {
        if let Some(uid) = session.uid() {
            rooms.leave(session.number(), channel.name());
            rooms.take_out(&context, channel.name(), uid);
        }
        push(&channel, "onLeave", &json!({"user": session.uid()}));
    }
    Reply::json(&json!({"code": 200}))
}

async fn slow(request: OwnedRequest, session: Session) -> Reply<'static> {
    let ms = js::to_int32(request.value().get("ms"));
    // A timer in the past ends at once.
    let duration = Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    session.context().sleep(duration).await;
    Reply::json(&json!({"code": 200, "ms": ms}))
}

/// Changes a setting of the session from behind the connector.
async fn setting(request: OwnedRequest, mut session: Session) -> Reply<'static> {
    let room = request.value().get("room").cloned();
    if let Some(refused) = answers::refuse_room(room.as_ref()) {
        return refused;
    }
    session.set("room", room.unwrap_or(Value::Null));
    if session.push("room").await {
        Reply::json(&json!({"code": 200}))
    } else {
        Reply::error_json(&json!({"code": 500}))
    }
}

/// A closed session leaves its rooms without a word.
fn forget(session: &SessionView<'_>, context: &Context, rooms: &Rooms) {
    let joined = rooms.joined.borrow_mut().remove(&session.number());
    let (Some(joined), Some(uid)) = (joined, session.uid()) else { return };
    for room in joined {
        rooms.take_out(context, &room, uid);
    }
}

/// The room that a session's setting names, if anybody has been there.
fn room_of(context: &Context, setting: Option<&Value>) -> Option<Channel> {
    context.find_channel(&js::to_text(&room(setting)))
}

/// Nothing if it can't be pushed, about which the reference does not care either.
fn push(channel: &Channel, route: &str, message: &Value) -> Option<Pending<Vec<Uid>>> {
    let refused = |error: PushError| tracing::debug!(route, %error, "not pushed");
    channel.push(route, message.to_string().as_bytes()).map_err(refused).ok()
}

/// Answers once a push is under way, so that one to whoever asks comes before the answer.
fn after<F>(pushed: Option<Pending<Vec<Uid>>>, answer: F) -> Reply<'static>
where
    F: FnOnce() -> Reply<'static> + 'static,
{
    match pushed {
        None => answer(),
        Some(pushed) => Reply::later(async move {
            pushed.await;
            answer()
        }),
    }
}

/// Copies the members that are there, in the given order.
fn copy_members(from: &Value, members: &[&str], to: &mut Value) {
    for member in members {
        if let Some(value) = from.get(member) {
            to[*member] = value.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use shaddock::{Workers, testing};

    use super::*;

    #[test]
    fn users_are_sorted_by_utf16_units() {
        let uids = ["\u{ffff}", "b", "\u{10000}", "10", "B"].map(Uid::from);
        let sorted = in_text_order([&uids[..], &[Uid::from(9)]].concat(), 2);
        let texts: Vec<_> = sorted.iter().map(|user| user.as_ref().map(Uid::text)).collect();
        let [b, ten, nine] = [Some("b"), Some("10"), Some("9")];
        let rest = [Some("\u{10000}"), Some("\u{ffff}")];
        assert_eq!(texts[..6], [ten, nine, Some("B"), b, None, None]);
        assert_eq!(texts[6..], rest);
    }

    #[test]
    fn empty_rooms_stay_up_to_a_limit() {
        let rooms = Rooms::default();
        assert_eq!(rooms.add_stranger("0"), 1);
        assert_eq!(rooms.add_stranger("0"), 2);
        for n in 0..EMPTY_ROOMS_MAX {
            assert!(rooms.keep_empty(&n.to_string()).is_empty());
        }
        assert!(rooms.keep_empty("0").is_empty(), "it is kept already");
        assert_eq!(rooms.keep_empty("new"), ["0".into()]);
        let long = "r".repeat(EMPTY_ROOMS_BYTES_MAX - 10);
        assert_eq!(
            rooms.keep_empty(&long).len(),
            EMPTY_ROOMS_MAX - 3,
            "\"998\", \"999\" and \"new\" stay"
        );
        assert_eq!(rooms.empty_bytes.get(), EMPTY_ROOMS_BYTES_MAX - 1);
    }

    /// Some are left before another is joined, and some are not.
    #[test]
    fn rooms_without_players_are_removed_while_sessions_last() {
        const COUNT: usize = EMPTY_ROOMS_MAX + 100;
        let workers = Workers::new(1, |handlers: &mut Handlers| {
            register(handlers);
            handlers.handler("chat.test.count", |_, session| {
                let context = session.context();
                let is_there = |n: &usize| context.find_channel(&n.to_string()).is_some();
                Reply::json(&json!((0..COUNT).filter(is_there).count()))
            });
        });
        let t = testing::Engine::workers("chat", workers);
        let [amy, bob] = ["amy", "bob"].map(|name| t.client().uid(name).connect());
        let stranger = t.connect();
        let join = |client: &testing::Client, room: usize| {
            client.request("chat.chatHandler.setting", json!({"room": room}));
            assert_eq!(client.request("chat.chatHandler.join", json!({}))["code"], 200);
        };
        for room in 0..COUNT {
            join(if room % 10 == 0 { &stranger } else { &amy }, room);
            if room % 2 == 0 {
                amy.request("chat.chatHandler.leave", json!({}));
            }
        }
        assert_eq!(
            bob.request("chat.test.count", json!({})),
            EMPTY_ROOMS_MAX + ROOMS_PER_SESSION_MAX
        );
        let last = json!({"room": COUNT - 1});
        join(&bob, COUNT - 1);
        assert_eq!(bob.request("chat.chatHandler.join", &last)["users"], json!(["amy", "bob"]));
        amy.close();
        t.run_until_idle();
        assert_eq!(bob.request("chat.test.count", json!({})), EMPTY_ROOMS_MAX + 1);
        assert_eq!(bob.request("chat.chatHandler.join", &last)["users"], json!(["bob"]));
    }

    #[test]
    fn a_session_is_in_few_rooms() {
        let rooms = Rooms::default();
        for n in 0..ROOMS_PER_SESSION_MAX {
            assert_eq!(rooms.enter(1, &n.to_string()), None);
        }
        assert_eq!(rooms.enter(1, "0"), None, "it is in there already");
        assert_eq!(rooms.enter(2, "new"), None, "another session");
        assert_eq!(rooms.enter(1, "new").as_deref(), Some("1"));
        rooms.leave(1, "2");
        assert_eq!(rooms.enter(1, "newer"), None);
    }

    #[test]
    fn absent_members_stay_absent() {
        let mut message = json!({"from": null});
        copy_members(&json!({"n": null, "other": 1, "msg": "hi"}), &["msg", "n"], &mut message);
        assert_eq!(message.to_string(), r#"{"from":null,"msg":"hi","n":null}"#);
        copy_members(&json!([1]), &["msg"], &mut message);
        assert_eq!(message["msg"], "hi");
    }
}
