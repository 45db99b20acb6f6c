//! Filters and handlers run in Pomelo's order, and whatever they do, a request is answered once
//! and a notify never.
//!
//! Handlers that must not answer yet park their responders in a [`Parking`], from which the test
//! takes them, so that no test depends on how fast something is.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use shaddock::{
    Filter, Handlers, Limits, Reply, Request, Responder, Serial, Session, Time, Timeout, TooBusy,
    Verdict, Workers,
};
use support::{Client, Event, PATIENCE, builder, eventually, notify, request};

const ERROR: &str = r#"{"code":500}"#;

/// Responders by the body of their requests.
#[derive(Clone, Default)]
struct Parking(Arc<(Mutex<HashMap<String, Responder>>, Condvar)>);

impl Parking {
    fn park(&self, request: &Request<'_>, session: &Session) -> Reply<'static> {
        let name = String::from_utf8_lossy(request.body()).into_owned();
        session.defer(|responder| {
            self.0.0.lock().unwrap().insert(name, responder);
            self.0.1.notify_all();
        })
    }

    /// Takes a request out, once it is there.
    fn take(&self, name: &str) -> Responder {
        let parked = self.0.0.lock().unwrap();
        let (mut parked, _) = self
            .0
            .1
            .wait_timeout_while(parked, PATIENCE, |parked| !parked.contains_key(name))
            .unwrap();
        parked.remove(name).unwrap_or_else(|| panic!("{name} never came"))
    }

    fn answer(&self, name: &str) {
        self.take(name).answer(Reply::bytes(name));
    }

    fn is_empty(&self) -> bool {
        self.0.0.lock().unwrap().is_empty()
    }
}

type Log = Arc<Mutex<Vec<String>>>;

/// Writes down when it runs, and does what the body asks it for.
struct Record {
    name: &'static str,
    log: Log,
}

impl Record {
    fn note(&self, what: &str) {
        self.log.lock().unwrap().push(format!("{} {what}", self.name));
    }

    /// What the body says about this filter.
    fn wish(&self, request: &Request<'_>, when: &str) -> Value {
        request.value()[format!("{} {when}", self.name)].clone()
    }
}

impl Filter for Record {
    fn before(&self, request: &Request<'_>, session: &mut Session) -> Verdict {
        self.note("before");
        let verdict = |wish: &Value| match wish.as_str() {
            Some("panic") => panic!("on purpose"),
            Some(reply) => Verdict::Refuse(reply_of(reply)),
            None => Verdict::Continue,
        };
        let wish = self.wish(request, "before");
        match wish.as_str().and_then(|wish| wish.strip_prefix("later ")) {
            None => verdict(&wish),
            Some(later) => {
                let wish = if later == "go" { Value::Null } else { json!(later) };
                let context = session.context();
                // Twice, as a verdict may say so again.
                Verdict::wait(async move {
                    context.sleep(Duration::from_millis(2)).await;
                    Verdict::wait(async move { verdict(&wish) })
                })
            }
        }
    }

    fn after(&self, request: &Request<'_>, _: &mut Session, reply: &mut Reply<'_>) {
        self.note("after");
        match self.wish(request, "after").as_str() {
            Some("panic") => panic!("on purpose"),
            Some(other) => *reply = reply_of(other),
            None => {}
        }
    }
}

/// Replies by name, for each row of the answer rules.
fn reply_of(name: &str) -> Reply<'static> {
    match name {
        "empty" => Reply::empty(),
        "null" => Reply::bytes("null"),
        "body" => Reply::json(&json!({"a": 1})),
        "error" => Reply::error(),
        "error with body" => Reply::error_json(&json!({"a": 1})),
        "error with code" => Reply::error_json(&json!({"code": 503})),
        "error with text" => Reply::error_json("no"),
        other => panic!("no reply is called {other}"),
    }
}

/// The rules of [`Reply`]: what each of them is to the client.
const ANSWERS: [(&str, &str); 7] = [
    ("empty", "{}"),
    ("null", "{}"),
    ("body", r#"{"a":1}"#),
    ("error", ERROR),
    ("error with body", r#"{"a":1,"code":500}"#),
    ("error with code", r#"{"code":503}"#),
    ("error with text", r#""no""#),
];

const LOCAL: &str = "connector.play.act";
const LATER: &str = "connector.play.later";
const FORWARDED: &str = "room.play.act";

fn act(log: &Log, request: &Request<'_>) -> Reply<'static> {
    log.lock().unwrap().push("handler".into());
    match request.value()["handler"].as_str() {
        Some("panic") => panic!("on purpose"),
        name => reply_of(name.unwrap_or("body")),
    }
}

/// Two filters of each kind, on the connector and on the worker.
fn recorded(log: &Log) -> shaddock::Builder {
    let filter = |name| {
        let log = Arc::clone(log);
        move || Record { name, log: Arc::clone(&log) }
    };
    let (here, later, there) = (Arc::clone(log), Arc::clone(log), Arc::clone(log));
    builder(1)
        .global_filter(filter("global 1"))
        .global_filter(filter("global 2"))
        .filter(filter("local 1"))
        .filter(filter("local 2"))
        .handler(LOCAL, move |request, _| act(&here, request))
        .async_handler(LATER, move |request, session| {
            let log = Arc::clone(&later);
            async move {
                session.context().sleep(Duration::from_millis(2)).await;
                act(&log, &request.get())
            }
        })
        .forward(
            "room",
            Workers::new(1, move |handlers: &mut Handlers| {
                let log = Arc::clone(&there);
                handlers
                    .filter(Record { name: "local 1", log: Arc::clone(&log) })
                    .filter(Record { name: "local 2", log: Arc::clone(&log) })
                    .handler(FORWARDED, move |request, _| act(&log, request));
            }),
        )
}

/// Everything, in Pomelo's order.
const ORDER: [&str; 9] = [
    "global 1 before",
    "global 2 before",
    "local 1 before",
    "local 2 before",
    "handler",
    "local 2 after",
    "local 1 after",
    "global 2 after",
    "global 1 after",
];

fn took(log: &Log) -> Vec<String> {
    std::mem::take(&mut *log.lock().unwrap())
}

#[test]
fn filters_run_in_the_order_of_the_original() {
    let log = Log::default();
    let engine = recorded(&log).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for route in [LOCAL, LATER, FORWARDED] {
        let waits = json!({"global 1 before": "later go", "local 2 before": "later go"});
        for body in [json!({}), waits] {
            assert_eq!(client.ask(1, route, &body.to_string()), r#"{"a":1}"#, "{route} {body}");
            assert_eq!(took(&log), ORDER, "{route} {body}");
        }
    }
    // A notify goes the same way; the request behind it shows that nothing answers it.
    client.send(&notify(LOCAL, "{}"));
    client.send(&notify(FORWARDED, "{}"));
    eventually("both went all the way", || log.lock().unwrap().len() == 2 * ORDER.len());
    assert_eq!(client.ask(2, LOCAL, "{}"), r#"{"a":1}"#);
}

/// Each stage refuses with each reply: the handler is left out, the after filters are not.
#[test]
fn a_refusal_is_the_answer_whatever_stage_it_comes_from() {
    let log = Log::default();
    let engine = recorded(&log).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    let refused_by = |filter: &str| -> Vec<&str> {
        let last = ORDER.iter().position(|entry| *entry == format!("{filter} before")).unwrap();
        let local = filter.starts_with("local");
        let after = ORDER.iter().filter(|entry| entry.ends_with("after"));
        let after = after.filter(|entry| local || entry.starts_with("global"));
        ORDER[..=last].iter().chain(after).copied().collect()
    };
    for route in [LOCAL, FORWARDED] {
        for filter in ["global 1", "global 2", "local 1", "local 2"] {
            for (reply, answer) in ANSWERS {
                for reply in [reply.to_owned(), format!("later {reply}")] {
                    let body = json!({ format!("{filter} before"): reply }).to_string();
                    assert_eq!(client.ask(1, route, &body), answer, "{route} {body}");
                    assert_eq!(took(&log), refused_by(filter), "{route} {body}");
                }
            }
        }
    }
}

#[test]
fn handlers_and_after_filters_answer_by_the_rules() {
    let log = Log::default();
    let engine = recorded(&log).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for route in [LOCAL, LATER, FORWARDED] {
        for (reply, answer) in ANSWERS {
            let body = json!({ "handler": reply }).to_string();
            assert_eq!(client.ask(1, route, &body), answer, "{route} {body}");
            for filter in ["local 1", "local 2"] {
                let body = json!({ format!("{filter} after"): reply }).to_string();
                assert_eq!(client.ask(1, route, &body), answer, "{route} {body}");
            }
            // By then the answer is on its way.
            let body = json!({ "global 2 after": reply }).to_string();
            assert_eq!(client.ask(1, route, &body), r#"{"a":1}"#, "{route} {body}");
        }
    }
}

#[test]
fn a_panic_in_a_filter_or_handler_is_an_error_and_hurts_nobody() {
    let log = Log::default();
    let engine = recorded(&log).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for route in [LOCAL, LATER, FORWARDED] {
        let stages =
            ORDER.iter().filter(|stage| !stage.starts_with("global") || stage.ends_with("before"));
        for stage in stages {
            for how in ["panic", "later panic"] {
                if how.starts_with("later") && !stage.ends_with("before") {
                    continue;
                }
                let body = json!({ *stage: how }).to_string();
                assert_eq!(client.ask(1, route, &body), ERROR, "{route} {body}");
                assert_eq!(client.ask(2, route, "{}"), r#"{"a":1}"#);
            }
        }
        // Too late to change anything.
        assert_eq!(client.ask(1, route, r#"{"global 1 after":"panic"}"#), r#"{"a":1}"#);
    }
}

/// Parks what comes to `park`, echoes what comes to `echo`.
fn parking(server_type: &str, parking: &Parking, handlers: &mut Handlers) {
    let parking = parking.clone();
    handlers
        .handler(&format!("{server_type}.play.park"), move |request, session| {
            parking.park(request, session)
        })
        .handler(&format!("{server_type}.play.echo"), |request, _| Reply::borrowed(request.body()));
}

const PARK: &str = "connector.play.park";
const ECHO: &str = "connector.play.echo";

fn with_parking(builder: shaddock::Builder, places: &Parking) -> shaddock::Builder {
    let (here, there) = (places.clone(), places.clone());
    builder.register(move |handlers| parking("connector", &here, handlers)).forward(
        "room",
        Workers::new(1, move |handlers: &mut Handlers| parking("room", &there, handlers)),
    )
}

#[test]
fn serial_lets_one_message_of_a_session_in_at_a_time() {
    let places = Parking::default();
    let engine = with_parking(builder(1), &places).filter(Serial::default).start().unwrap();
    let mut one = Client::ready(engine.local_addr());
    let mut other = Client::ready(engine.local_addr());
    let burst: Vec<u8> = (1..=5).flat_map(|id| request(id, PARK, &id.to_string())).collect();
    one.send(&burst);
    for id in 1..=5 {
        let responder = places.take(&id.to_string());
        // The others of this session wait, those of another do not.
        let elsewhere = format!("{id}00");
        other.send(&request(id, PARK, &elsewhere));
        places.answer(&elsewhere);
        assert_eq!(other.answer(id), elsewhere);
        assert!(places.is_empty(), "one at a time");
        responder.answer(Reply::json(&id));
        assert_eq!(one.answer(id), id.to_string());
    }
}

#[test]
fn serial_as_a_global_filter_orders_forwarded_messages() {
    let places = Parking::default();
    let engine = with_parking(builder(1), &places).global_filter(Serial::default).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    // The routes alternate: a line is of a session, not of a server.
    let route = |id: u32| if id.is_multiple_of(2) { PARK } else { "room.play.park" };
    let burst: Vec<u8> = (1..=6).flat_map(|id| request(id, route(id), &id.to_string())).collect();
    client.send(&burst);
    for id in 1..=6 {
        let responder = places.take(&id.to_string());
        let mut other = Client::ready(engine.local_addr());
        other.ask(1, "room.play.echo", "1");
        assert!(places.is_empty(), "one at a time");
        responder.answer(Reply::json(&id));
        assert_eq!(client.answer(id), id.to_string());
    }
}

#[test]
fn serial_lets_the_next_in_after_its_timeout() {
    let places = Parking::default();
    let serial = || Serial::new(Duration::from_millis(50));
    let engine = with_parking(builder(1), &places).filter(serial).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.send(&request(1, PARK, "1"));
    client.send(&request(2, PARK, "2"));
    let late = places.take("1");
    places.answer("2");
    assert_eq!(client.answer(2), "2");
    late.answer(Reply::json(&1));
    assert_eq!(client.answer(1), ERROR, "the late one is an error");
    assert_eq!(client.ask(3, ECHO, "3"), "3");
}

/// What is refused at another bound holds up nobody's line.
#[test]
fn serial_goes_on_after_requests_that_were_refused() {
    // Far above any patience: a line that stands still fails the test.
    let serial = || Serial::new(Duration::from_secs(600));
    let of_session = Limits { in_flight_per_session_max: 2, ..Limits::default() };
    // One place for the first answer, one for the watch, one for the second in the line.
    let of_shard = Limits { tasks_max: 3, ..Limits::default() };
    for limits in [of_session, of_shard] {
        for is_global in [false, true] {
            let places = Parking::default();
            let engine = with_parking(builder(1), &places).limits(limits.clone());
            let engine = match is_global {
                true => engine.global_filter(serial),
                false => engine.filter(serial),
            };
            let engine = engine.start().unwrap();
            let mut client = Client::ready(engine.local_addr());
            let burst: Vec<u8> =
                (1..=5).flat_map(|id| request(id, PARK, &id.to_string())).collect();
            client.send(&burst);
            for id in 3..=5 {
                assert_eq!(client.answer(id), ERROR);
            }
            places.answer("1");
            places.answer("2");
            assert_eq!(client.answer(2), "2");
            assert_eq!(client.ask(6, ECHO, "6"), "6");
        }
    }
}

#[test]
fn the_watching_filters_change_no_answer() {
    let places = Parking::default();
    let engine = with_parking(builder(1), &places)
        .global_filter(|| Timeout::new(Duration::from_millis(10), 2))
        .filter(|| Timeout::new(Duration::from_millis(10), 2))
        .global_filter(Time::default)
        .filter(Time::default)
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=4 {
        client.send(&request(id, PARK, &id.to_string()));
    }
    assert_eq!(client.ask(5, ECHO, "5"), "5");
    std::thread::sleep(Duration::from_millis(30));
    for id in (1..=4).rev() {
        places.answer(&id.to_string());
        assert_eq!(client.answer(id), id.to_string());
    }
    assert_eq!(client.ask(6, "connector.play.nope", "{}"), ERROR);
    assert_eq!(client.ask(7, "room.play.echo", "7"), "7");
}

#[test]
fn too_busy_refuses_what_came_during_a_long_turn() {
    let entered = Arc::new((Mutex::new(false), Condvar::new()));
    let on_enter = Arc::clone(&entered);
    let engine = builder(1)
        .filter(|| TooBusy::new(Duration::from_millis(50)))
        .handler("connector.play.block", move |_, _| {
            *on_enter.0.lock().unwrap() = true;
            on_enter.1.notify_all();
            std::thread::sleep(Duration::from_millis(150));
            Reply::json("done")
        })
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let mut blocking = Client::ready(engine.local_addr());
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    blocking.send(&request(1, "connector.play.block", "{}"));
    let guard = entered.0.lock().unwrap();
    drop(entered.1.wait_while(guard, |entered| !*entered).unwrap());
    assert_eq!(client.ask(2, ECHO, "2"), ERROR, "it came while nobody was served");
    assert_eq!(blocking.answer(1), "\"done\"");
    eventually("it is over", || client.ask(3, ECHO, "3") == "3");
}

#[test]
fn deferred_answers_come_from_any_thread_and_may_overtake() {
    let places = Parking::default();
    let engine = with_parking(builder(1), &places).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    for route in [PARK, "room.play.park"] {
        client.send(&request(1, route, "1"));
        client.send(&request(2, route, "2"));
        client.send(&request(3, route, "3"));
        let (first, second, third) = (places.take("1"), places.take("2"), places.take("3"));
        assert_eq!(client.ask(4, ECHO, "4"), "4", "a later one overtakes them");
        drop(third);
        assert_eq!(client.answer(3), ERROR, "a responder that is dropped");
        second.answer(Reply::error_json(&json!({"a": 1})));
        assert_eq!(client.answer(2), r#"{"a":1,"code":500}"#);
        std::thread::spawn(move || first.answer(Reply::empty())).join().unwrap();
        assert_eq!(client.answer(1), "{}");
    }
}

#[test]
fn an_answer_for_a_client_that_has_gone_reaches_nobody_else() {
    let places = Parking::default();
    let engine = with_parking(builder(1), &places).start().unwrap();
    for route in [PARK, "room.play.park"] {
        let mut gone = Client::ready(engine.local_addr());
        gone.send(&request(1, route, "1"));
        let responder = places.take("1");
        drop(gone);
        eventually("it is closed", || engine.handle().metrics().unwrap().connections == 0);
        // It gets the slot of the other.
        let mut client = Client::ready(engine.local_addr());
        responder.answer(Reply::json("for another"));
        client.send(&request(2, "room.play.echo", "2"));
        let two = Event::Response { id: 2, body: b"2".to_vec() };
        assert_eq!(client.next(), two);
        drop(client);
        eventually("it is closed", || engine.handle().metrics().unwrap().connections == 0);
    }
}

/// Of every kind of handler and outcome, and once as requests whose id is 0.
#[test]
fn notifies_are_never_answered() {
    let (log, places) = (Log::default(), Parking::default());
    let engine = with_parking(builder(1), &places)
        .handler(LOCAL, move |request, _| act(&log, request))
        .async_handler(LATER, |_, _| async { Reply::json(&1) })
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    let send_all = |client: &mut Client, to_bytes: &dyn Fn(&str, &str) -> Vec<u8>| {
        let bodies = ANSWERS.iter().map(|(reply, _)| reply).chain([&"panic"]);
        for body in bodies.map(|reply| json!({ "handler": reply }).to_string()) {
            client.send(&to_bytes(LOCAL, &body));
        }
        for route in [LATER, ECHO, "room.play.echo", "room.play.nope", "nobody.play.nope", "x"] {
            client.send(&to_bytes(route, "1"));
        }
        for route in [PARK, "room.play.park"] {
            client.send(&to_bytes(route, "\"parked\""));
            places.answer("\"parked\"");
        }
    };
    send_all(&mut client, &|route, body| notify(route, body));
    send_all(&mut client, &|route, body| request(0, route, body));
    // Long enough for an answer that should not be to come first.
    assert_eq!(client.ask(1, "room.play.echo", "1"), "1");
    client.send(&request(2, ECHO, "2"));
    assert_eq!(client.next(), Event::Response { id: 2, body: b"2".to_vec() });
    assert_eq!(engine.handle().counters().answers, 2);
}

#[test]
fn async_handlers_are_bounded() {
    let places = Parking::default();
    let limits = Limits { tasks_max: 2, ..Limits::default() };
    let engine = with_parking(builder(1), &places).limits(limits).start().unwrap();
    // Those of the worker are counted by itself.
    for (route, rejects) in [(PARK, 1), ("room.play.park", 2)] {
        let mut client = Client::ready(engine.local_addr());
        for _ in 0..3 {
            client.send(&request(1, route, "1"));
            client.send(&request(2, route, "2"));
            let (first, second) = (places.take("1"), places.take("2"));
            assert_eq!(client.ask(3, route, "3"), ERROR);
            drop(places.take("3"));
            assert_eq!(client.ask(4, ECHO, "4"), "4", "what needs no future is served");
            first.answer(Reply::json(&1));
            assert_eq!(client.answer(1), "1");
            second.answer(Reply::json(&2));
            assert_eq!(client.answer(2), "2");
        }
        assert_eq!(engine.handle().counters().task_rejects, 3 * rejects);
    }
}
