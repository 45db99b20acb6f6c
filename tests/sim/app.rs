//! The application that runs on the simulated engine. What a handler or filter does stands in the
//! body of its request, so that chance is the world's alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::{
    Audience, Context, Filter, Handlers, Reply, Request, Responder, Serial, Session, SessionId,
    Timeout, Uid, Verdict,
};

/// What the application has seen, for the checks. One for all threads that are none.
#[derive(Default)]
pub(crate) struct Log {
    /// The server that handled a request, by the request's tag.
    pub(crate) handled: BTreeMap<u64, String>,
    /// By server and session: how often the session's end was told.
    pub(crate) seen: BTreeMap<(String, u64), Seen>,
    /// By filter and tag: how often it ran before and after.
    pub(crate) filtered: BTreeMap<(String, u64), (u32, u32)>,
    /// Answers that other threads owe.
    pub(crate) responders: Vec<(u64, Responder)>,
    /// Saves that were begun when sessions ended, those that are done, and those that were dropped.
    pub(crate) saves: u64,
    pub(crate) saves_done: u64,
    pub(crate) saves_lost: u64,
    /// Hooks of a shutdown that have ended.
    pub(crate) hooks: u64,
    /// What must not happen.
    pub(crate) violations: Vec<String>,
}

/// What one server has seen of a session.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) session: Option<SessionId>,
    pub(crate) ends: u32,
}

pub(crate) type Shared = Arc<Mutex<Log>>;

pub(crate) fn lock(log: &Shared) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Ends the handler without the panic hook, which would print thousands of these.
fn panic_on_purpose() -> ! {
    std::panic::resume_unwind(Box::new("on purpose"))
}

/// Handlers of the connector.
pub(crate) fn connector(
    log: &Shared,
    filters: bool,
    serial: bool,
) -> impl Fn(&mut Handlers) + use<> {
    let log = Arc::clone(log);
    move |handlers| {
        if filters {
            handlers.global_filter(Mischief { log: Arc::clone(&log), key: "f" });
            handlers.global_filter(Timeout::new(Duration::from_millis(200), 3));
        }
        if serial {
            handlers.global_filter(Serial::new(Duration::from_millis(100)));
        }
        register(handlers, &log, "connector.e");
    }
}

/// Handlers of each worker.
pub(crate) fn chat(log: &Shared, filters: bool) -> impl Fn(&mut Handlers) + use<> {
    let log = Arc::clone(log);
    move |handlers| {
        if filters {
            handlers.filter(Mischief { log: Arc::clone(&log), key: "g" });
        }
        register(handlers, &log, "chat.c");
    }
}

/// The server that code runs on: all shards share a server id.
fn server(session: &Session) -> String {
    match session.context().server_id() {
        "connector-1" => format!("shard-{}", session.id().shard().index()),
        id => id.to_owned(),
    }
}

fn tag(value: &Value) -> u64 {
    value["t"].as_u64().unwrap_or_default()
}

fn uid(value: &Value) -> Uid {
    Uid::from(value["u"].as_str().unwrap_or_default())
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value["ms"].as_u64().unwrap_or_default())
}

fn done(value: &Value, outcome: impl std::fmt::Display) -> Reply<'static> {
    Reply::json(&json!({ "t": tag(value), "r": outcome.to_string() }))
}

/// Notes that a server has seen a message of a session.
fn saw(log: &Shared, value: &Value, session: &Session) {
    let mut log = lock(log);
    let server = server(session);
    let seen = log.seen.entry((server.clone(), session.number())).or_default();
    // A filter may have held it until after the session's end.
    let is_late = seen.ends > 0 && !value["g"].as_str().is_some_and(|g| g.starts_with("wait"));
    match seen.session {
        None => seen.session = Some(session.id()),
        Some(known) if known == session.id() => {}
        Some(known) => {
            let text = format!(
                "{server}: session {} is {known:?} and {:?}",
                session.number(),
                session.id()
            );
            log.violations.push(text);
        }
    }
    if is_late {
        log.violations.push(format!("{server}: a message of {:?} after its end", session.id()));
    }
    log.handled.insert(tag(value), server);
}

type Counts = Rc<RefCell<BTreeMap<(String, String), u64>>>;

/// Numbers what a server says to somebody.
fn count(counts: &Counts, from: &str, to: &str) -> u64 {
    let mut counts = counts.borrow_mut();
    let count = counts.entry((from.to_owned(), to.to_owned())).or_default();
    *count += 1;
    *count
}

fn say(counts: &Counts, context: &Context, from: &str, value: &Value) {
    let to = value["u"].as_str().unwrap_or_default();
    let n = count(counts, from, to);
    let body = json!({ "from": from, "u": to, "n": n, "p": value["p"] }).to_string();
    // It can only fail for a message that is none.
    drop(context.push([uid(value)], "onChat", body.as_bytes()).expect("a good message"));
}

fn register(handlers: &mut Handlers, log: &Shared, prefix: &str) {
    plain(handlers, log, prefix);
    slow(handlers, log, prefix);
    logins(handlers, log, prefix);
    pushes(handlers, log, prefix);
    let (of_saves, of_hooks) = (Arc::clone(log), Arc::clone(log));
    let log = Arc::clone(log);
    handlers.on_session_closed(move |view, context| {
        let server = match context.server_id() {
            "connector-1" => format!("shard-{}", view.id.shard().index()),
            id => id.to_owned(),
        };
        let mut log = lock(&log);
        let seen = log.seen.entry((server.clone(), view.number())).or_default();
        seen.ends += 1;
        if seen.ends > 1 {
            log.violations.push(format!("{server}: the end of {:?} was told twice", view.id));
        }
        log.saves += 1;
        drop(log);
        let (save, own) = (Save { log: Arc::clone(&of_saves), is_done: false }, context.clone());
        let time = Duration::from_millis(view.number() % 4 * 20);
        context.task("save").spawn(async move {
            own.sleep(time).await;
            save.finish();
        });
    });
    let log = of_hooks;
    handlers.on_shutdown(async move |context: Context| {
        context.sleep(Duration::from_millis(20)).await;
        lock(&log).hooks += 1;
    });
}

/// A save of a session that has ended. One that is dropped unfinished is lost.
struct Save {
    log: Shared,
    is_done: bool,
}

impl Save {
    fn finish(mut self) {
        self.is_done = true;
        lock(&self.log).saves_done += 1;
    }
}

impl Drop for Save {
    fn drop(&mut self) {
        if !self.is_done {
            lock(&self.log).saves_lost += 1;
        }
    }
}

/// An answer of a body, and of so many blanks as the body asks for.
fn echo(body: &[u8]) -> Reply<'static> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let blanks = value["n"].as_u64().unwrap_or_default();
    Reply::bytes([body, &vec![b' '; blanks as usize]].concat())
}

fn plain(handlers: &mut Handlers, log: &Shared, prefix: &str) {
    let seen = Arc::clone(log);
    handlers.handler(&format!("{prefix}.echo"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        if value["n"].is_null() { Reply::borrowed(request.body()) } else { echo(request.body()) }
    });
    let seen = Arc::clone(log);
    handlers.handler(&format!("{prefix}.panic"), move |request, session| {
        saw(&seen, &request.value(), session);
        panic_on_purpose()
    });
    let seen = Arc::clone(log);
    handlers.handler(&format!("{prefix}.kick"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        session.kick(Some("asked"));
        done(&value, "kicked")
    });
    let seen = Arc::clone(log);
    handlers.handler(&format!("{prefix}.defer"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        session.defer(|responder| lock(&seen).responders.push((tag(&value), responder)))
    });
}

fn slow(handlers: &mut Handlers, log: &Shared, prefix: &str) {
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.later"), move |request, session| {
        saw(&seen, &request.value(), &session);
        async move {
            session.context().sleep(millis(&request.value())).await;
            echo(request.bytes())
        }
    });
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.latePanic"), move |request, session| {
        saw(&seen, &request.value(), &session);
        async move {
            session.context().sleep(millis(&request.value())).await;
            panic_on_purpose()
        }
    });
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.set"), move |request, mut session| {
        saw(&seen, &request.value(), &session);
        async move {
            let value = request.value();
            session.set("room", tag(&value));
            done(&value, session.push("room").await)
        }
    });
}

fn logins(handlers: &mut Handlers, log: &Shared, prefix: &str) {
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.login"), move |request, mut session| {
        let value = request.value();
        saw(&seen, &value, &session);
        async move {
            match session.bind(uid(&value)).await {
                Ok(()) => done(&value, "bound"),
                Err(error) => done(&value, error),
            }
        }
    });
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.relogin"), move |request, mut session| {
        let value = request.value();
        saw(&seen, &value, &session);
        async move {
            session.context().kick_uid(uid(&value), Some("elsewhere")).await;
            match session.bind(uid(&value)).await {
                Ok(()) => done(&value, "bound"),
                Err(error) => done(&value, error),
            }
        }
    });
    let seen = Arc::clone(log);
    handlers.async_handler(&format!("{prefix}.logout"), move |request, mut session| {
        let value = request.value();
        saw(&seen, &value, &session);
        async move {
            match session.unbind(uid(&value)).await {
                Ok(()) => done(&value, "unbound"),
                Err(error) => done(&value, error),
            }
        }
    });
}

fn pushes(handlers: &mut Handlers, log: &Shared, prefix: &str) {
    let counts = Counts::default();
    let (seen, numbers) = (Arc::clone(log), Rc::clone(&counts));
    handlers.handler(&format!("{prefix}.say"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        say(&numbers, &session.context(), &server(session), &value);
        done(&value, "said")
    });
    let (seen, numbers) = (Arc::clone(log), Rc::clone(&counts));
    handlers.handler(&format!("{prefix}.sayLater"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        let (context, from) = (session.context(), server(session));
        let (own, numbers, said) = (context.clone(), Rc::clone(&numbers), value.clone());
        context.spawn(async move {
            own.sleep(millis(&said)).await;
            say(&numbers, &own, &from, &said);
        });
        done(&value, "will say")
    });
    let seen = Arc::clone(log);
    handlers.handler(&format!("{prefix}.all"), move |request, session| {
        let value = request.value();
        saw(&seen, &value, session);
        let from = server(session);
        let n = count(&counts, &from, "");
        let bound = value["ms"].as_u64().is_some_and(|ms| ms % 2 == 0);
        let audience = if bound { Audience::bound() } else { Audience::all() };
        let body = json!({ "from": from, "n": n, "p": value["p"], "b": bound }).to_string();
        session.context().broadcast("onAll", body.as_bytes(), audience).expect("a good message");
        done(&value, "told")
    });
}

/// Waits, refuses or panics where the request says so under its key.
struct Mischief {
    log: Shared,
    key: &'static str,
}

impl Mischief {
    fn what<'a>(&self, value: &'a Value) -> &'a str {
        value[self.key].as_str().unwrap_or_default()
    }

    fn note(&self, value: &Value, session: &Session, is_after: bool) {
        let mut log = lock(&self.log);
        let name = format!("{}@{}", self.key, server(session));
        let counts = log.filtered.entry((name, tag(value))).or_default();
        if is_after { counts.1 += 1 } else { counts.0 += 1 }
    }
}

impl Filter for Mischief {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        let value = request.value();
        self.note(&value, session, false);
        let context = session.context();
        match self.what(&value) {
            "refuse" => Verdict::Refuse(Reply::error()),
            "panic" => panic_on_purpose(),
            "wait" => Verdict::wait(async move {
                context.sleep(millis(&value)).await;
                Verdict::Continue
            }),
            "waitRefuse" => Verdict::wait(async move {
                context.sleep(millis(&value)).await;
                Verdict::Refuse(Reply::error())
            }),
            "waitPanic" => Verdict::wait(async move {
                context.sleep(millis(&value)).await;
                panic_on_purpose()
            }),
            _ => Verdict::Continue,
        }
    }

    fn after(&self, request: &Request<'_>, session: &mut Session, _: &mut Reply<'_>) {
        let value = request.value();
        self.note(&value, session, true);
        if self.what(&value) == "after" {
            panic_on_purpose();
        }
    }
}
