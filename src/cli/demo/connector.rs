//! The handlers of server type `connector`: logging in, and what clients are tested against.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Map, Value, json};
use shaddock::{Handlers, OwnedRequest, Reply, Request, Session, Uid};

use super::answers::{self, room};
use super::filters::{Counts, GlobalFilter, LocalFilter};
use super::js;

/// The beginning of these handlers' routes.
pub(crate) const PREFIX: &str = "connector.entryHandler.";
/// Their methods.
pub(crate) const METHODS: [&str; 15] = [
    "entry",
    "echo",
    "note",
    "notes_",
    "resetNotes",
    "chatty",
    "empty",
    "fail",
    "who",
    "size",
    "big",
    "kickMe",
    "pushMe",
    "proto",
    "filterCounts",
];

/// The longest text that `big` makes: what fits in a package of 2 MiB.
const BIG_CHARS_MAX: usize = 1_990_000;

/// The state that the shards share, since they are one server to their clients.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Notifies that `note` got.
    notes: AtomicU64,
    /// The counts of each shard's filters.
    counts: Mutex<Vec<Arc<Counts>>>,
}

impl Shared {
    fn counts_of_new_shard(&self) -> Arc<Counts> {
        let counts = Arc::<Counts>::default();
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&counts));
        counts
    }

    fn filter_counts(&self) -> Value {
        let all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Counts::sum(all.iter().map(|counts| &**counts))
    }
}

/// Sets up one shard.
pub(crate) fn register(handlers: &mut Handlers, shared: &Arc<Shared>) {
    let counts = shared.counts_of_new_shard();
    let route = |method| format!("{PREFIX}{method}");
    let [note, notes, reset_notes, filter_counts] = [0; 4].map(|_| Arc::clone(shared));
    handlers
        .global_filter(GlobalFilter(Arc::clone(&counts)))
        .filter(LocalFilter(counts))
        .async_handler(&route("entry"), entry)
        .handler(&route("echo"), |request, _| Reply::borrowed(request.body()))
        .handler(&route("note"), move |_, _| {
            note.notes.fetch_add(1, Ordering::Relaxed);
            Reply::empty()
        })
        .handler(&route("notes_"), move |_, _| {
            Reply::json(&json!({"notes": notes.notes.load(Ordering::Relaxed)}))
        })
        .handler(&route("resetNotes"), move |_, _| {
            reset_notes.notes.store(0, Ordering::Relaxed);
            Reply::json(&json!({"code": 200}))
        })
        .handler(&route("chatty"), |_, _| Reply::json(&json!({"code": 200})))
        .handler(&route("empty"), |_, _| Reply::empty())
        .handler(&route("fail"), |request, _| answers::fail(&request.value(), "local failure"))
        .handler(&route("who"), who)
        .handler(&route("size"), |request, _| size(&request.value()))
        .handler(&route("big"), |request, _| big(&request.value()))
        .handler(&route("kickMe"), kick_me)
        .handler(&route("pushMe"), push_me)
        .handler(&route("proto"), |request, _| proto(&request.value()))
        .handler(&route("filterCounts"), move |_, _| Reply::json(&filter_counts.filter_counts()));
}

/// Logs a player in and puts it into a room. Whoever had the uid is kicked.
async fn entry(request: OwnedRequest, mut session: Session) -> Reply<'static> {
    let body = request.value();
    let Some(uid) = js::truthy(&body, "uid") else {
        return Reply::json(&json!({"code": 400, "msg": "no uid"}));
    };
    if let Some(refused) = answers::refuse_room(body.get("room")) {
        return refused;
    }
    let uid = match Uid::try_from(uid) {
        Ok(uid) => uid,
        Err(error) => return conflict(&error),
    };
    if session.uid() != Some(&uid) {
        session.context().kick_uid(uid.clone(), Some("duplicate")).await;
    }
    if let Err(error) = session.bind(uid.clone()).await {
        return conflict(&error);
    }
    let room = room(body.get("room"));
    let answer = json!({"code": 200, "uid": uid, "room": room});
    session.set("room", room);
    if session.push("room").await { Reply::json(&answer) } else { Reply::error_json(&answer) }
}

fn conflict(error: &dyn std::error::Error) -> Reply<'static> {
    Reply::error_json(&json!({"code": 409, "msg": error.to_string()}))
}

fn who<'a>(_: &Request<'a>, session: &mut Session) -> Reply<'a> {
    Reply::json(&json!({"uid": session.uid(), "room": answers::setting(session.get("room"))}))
}

/// The length of a text, as JavaScript counts it.
fn size(body: &Value) -> Reply<'static> {
    let len = js::length(body.get("s")).map(|len| ("len".to_owned(), len));
    Reply::json(&Map::from_iter(len))
}

/// A long text. The reference throws where the count is negative; here too long is an error too.
fn big(body: &Value) -> Reply<'static> {
    let count = usize::try_from(js::to_int32(body.get("n")));
    let Some(count) = count.ok().filter(|count| *count <= BIG_CHARS_MAX) else {
        return Reply::error();
    };
    let mut text = Vec::with_capacity(count + br#"{"s":""}"#.len());
    text.extend_from_slice(br#"{"s":""#);
    text.resize(text.len() + count, b'x');
    text.extend_from_slice(br#""}"#);
    Reply::bytes(text)
}

/// Kicks the session that asks. The kick overtakes the answer. A reason that is no text closes
/// the session without a word, as in Pomelo.
fn kick_me<'a>(request: &Request<'a>, session: &mut Session) -> Reply<'a> {
    let body = request.value();
    let reason = js::truthy(&body, "reason");
    session.kick(reason.map_or(Some("asked"), Value::as_str));
    Reply::json(&json!({"code": 200}))
}

/// Pushes to whoever asks, and answers once that is under way. That there is nobody to push to, or
/// no such route, changes nothing.
fn push_me<'a>(request: &Request<'a>, session: &mut Session) -> Reply<'a> {
    let done = json!({"code": 200});
    let body = request.value();
    let route = js::truthy(&body, "route").map_or(Some("onChat"), Value::as_str);
    let (Some(route), Some(uid)) = (route, session.uid()) else { return Reply::json(&done) };
    let message = match js::truthy(&body, "body") {
        Some(message) => message.to_string(),
        None => json!({"msg": "hi"}).to_string(),
    };
    match session.context().push([uid.clone()], route, message.as_bytes()) {
        Ok(pushed) => Reply::later(async move {
            pushed.await;
            Reply::json(&done)
        }),
        Err(_) => Reply::error_json(&done),
    }
}

/// Answers with the members that it got, in the order of the schema.
fn proto(body: &Value) -> Reply<'static> {
    let mut answer = Map::from_iter([("code".to_owned(), 200.into())]);
    for member in ["n", "s", "xs", "p", "ps"] {
        if let Some(value) = body.get(member) {
            answer.insert(member.to_owned(), value.clone());
        }
    }
    Reply::json(&answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(reply: &Reply<'_>) -> String {
        assert!(!reply.is_error());
        String::from_utf8(reply.body().unwrap().to_vec()).unwrap()
    }

    #[test]
    fn size_counts_as_javascript_does() {
        assert_eq!(text(&size(&json!({"s": "zażółć🎈"}))), r#"{"len":8}"#);
        assert_eq!(text(&size(&json!({}))), r#"{"len":0}"#);
        assert_eq!(text(&size(&json!({"s": 5}))), "{}");
    }

    #[test]
    fn big_is_bounded() {
        assert_eq!(text(&big(&json!({"n": 3.9}))), r#"{"s":"xxx"}"#);
        assert_eq!(text(&big(&json!({}))), r#"{"s":""}"#);
        assert_eq!(text(&big(&json!({"n": 1 << 20}))).len(), (1 << 20) + 8);
        assert!(big(&json!({"n": BIG_CHARS_MAX + 1})).is_error());
        assert!(big(&json!({"n": -1})).is_error());
    }

    #[test]
    fn proto_keeps_the_order_of_the_schema() {
        let body = json!({"ps": [], "n": 1, "other": 2, "s": null});
        assert_eq!(text(&proto(&body)), r#"{"code":200,"n":1,"s":null,"ps":[]}"#);
    }

    #[test]
    fn shards_are_one_server() {
        let shared = Shared::default();
        let shards = [shared.counts_of_new_shard(), shared.counts_of_new_shard()];
        assert_eq!(shared.filter_counts(), Counts::sum(shards.iter().map(|counts| &**counts)));
        assert_eq!(shared.counts.lock().unwrap().len(), 2);
    }
}
