//! The handlers of server type `chat`, which run on workers: rooms, and what the connector has
//! too, seen from behind it.

use std::time::Duration;

use serde_json::{Value, json};
use shaddock::route::PushError;
use shaddock::{
    Channel, Context, Handlers, OwnedRequest, Pending, Reply, Request, Session, SessionView, Uid,
};

use super::filters::{LocalFilter, NoArrays};
use super::{js, room};

/// What the routes of these handlers begin with.
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
    handlers
        .filter(LocalFilter::default())
        .filter(NoArrays)
        .handler(&route("echo"), |request, _| Reply::borrowed(request.body()))
        .handler(&route("where"), whereabouts)
        .handler(&route("join"), join)
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
        .handler(&route("leave"), leave)
        .handler(&route("fail"), |request, _| super::fail(&request.value(), "remote failure"))
        .async_handler(&route("slow"), slow)
        .handler(&route("empty"), |_, _| Reply::empty())
        .handler(&route("note"), |_, _| Reply::empty())
        .async_handler(&route("setting"), setting)
        .on_session_closed(forget);
}

/// Which server answers, and what of the session arrived there.
fn whereabouts<'a>(_: &Request<'a>, session: &mut Session) -> Reply<'a> {
    Reply::json(&json!({
        "server": session.context().server_id(),
        "uid": session.uid(),
        "frontendId": session.frontend_id(),
        "room": super::setting(session.get("room")),
    }))
}

/// Puts the player into the room, and tells those who are there already.
///
/// One who is not logged in can't be pushed to, and gets to know who is there without being in.
fn join<'a>(_: &Request<'a>, session: &mut Session) -> Reply<'a> {
    let room = room(session.get("room"));
    let channel = session.context().channel(&js::to_text(&room));
    let told = push(&channel, "onJoin", &json!({"user": session.uid()}));
    // At once, and not when the others have been told: the session might close until then, and
    // would stay in the room for ever.
    if let Some(uid) = session.uid() {
        channel.leave(uid);
        channel.add(uid.clone());
    }
    after(told, move || {
        let users = in_text_order(channel.members());
        Reply::json(&json!({"code": 200, "room": room, "users": users}))
    })
}

/// As the reference sorts: by UTF-16 units.
fn in_text_order(mut uids: Vec<Uid>) -> Vec<Uid> {
    uids.sort_by(|a, b| a.text().encode_utf16().cmp(b.text().encode_utf16()));
    uids
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
fn leave<'a>(_: &Request<'a>, session: &mut Session) -> Reply<'a> {
    if let Some(channel) = room_of(&session.context(), session.get("room")) {
        if let Some(uid) = session.uid() {
            channel.leave(uid);
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
    session.set("room", room.unwrap_or(Value::Null));
    if session.push("room").await {
        Reply::json(&json!({"code": 200}))
    } else {
        Reply::error_json(&json!({"code": 500}))
    }
}

/// A closed session leaves its room without a word.
///
/// The last one takes the room with it; in the reference rooms stay for ever.
fn forget(session: &SessionView<'_>, context: &Context) {
    let Some(channel) = room_of(context, session.setting("room")) else { return };
    if let Some(uid) = session.uid() {
        channel.leave(uid);
    }
    if channel.is_empty() {
        channel.destroy();
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
    use super::*;

    #[test]
    fn users_are_sorted_by_utf16_units() {
        let uids = ["\u{ffff}", "b", "\u{10000}", "10", "B"].map(Uid::from);
        let sorted = in_text_order([&uids[..], &[Uid::from(9)]].concat());
        let texts: Vec<_> = sorted.iter().map(Uid::text).collect();
        assert_eq!(texts, ["10", "9", "B", "b", "\u{10000}", "\u{ffff}"]);
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
