//! Typed handlers: what they read, what they answer, and what becomes of errors.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::json;
use shaddock::{Builder, Fault, Handlers, Reply, Request, Session, Uid, Workers, handler_fn};
use support::{Client, builder};

#[derive(Deserialize)]
struct Enter {
    room: u32,
}

#[derive(Serialize)]
struct Entered {
    members: u32,
}

fn enter(query: Enter, session: &mut Session) -> Result<Entered, Fault> {
    assert!(session.number() > 0);
    match query.room {
        7 => Ok(Entered { members: 1 }),
        8 => Err(Fault::internal("the database has gone")),
        _ => Err(Fault::new(404, "no room")),
    }
}

#[derive(Deserialize, Serialize)]
struct Say<'a> {
    #[serde(borrow)]
    text: Cow<'a, str>,
}

fn say<'a>(request: &Request<'a>, _: &mut Session) -> Result<Reply<'a>, Fault> {
    let say: Say<'_> = request.json()?;
    match &*say.text {
        "" => Err(Fault::new(422, "say something")),
        _ => Ok(Reply::json(&say)),
    }
}

async fn login(uid: Uid, mut session: Session) -> Result<Uid, Fault> {
    session.bind(uid.clone()).await?;
    Ok(uid)
}

fn register(handlers: &mut Handlers, server_type: &str) {
    let route = |method: &str| format!("{server_type}.roomHandler.{method}");
    let (count, echo) =
        (std::cell::Cell::new(0), handler_fn(|request, _| Reply::borrowed(request.body())));
    handlers
        .call(&route("enter"), enter)
        .call(&route("sum"), |numbers: Vec<i64>, _| Ok(numbers.iter().sum::<i64>()))
        .call(&route("count"), move |(), _| {
            count.set(count.get() + 1);
            Ok(count.get())
        })
        .call(&route("nothing"), |(), _| Ok(()))
        .try_handler(&route("say"), say)
        .handler(&route("echo"), echo)
        .call_async(&route("login"), login)
        .call_async(&route("later"), async |ms: u64, session: Session| {
            session.context().sleep(std::time::Duration::from_millis(ms)).await;
            if ms == 13 { Err(Fault::new(13, "bad luck")) } else { Ok(json!({ "slept": ms })) }
        });
}

fn described() -> Builder {
    let workers = Workers::new(1, |handlers: &mut Handlers| register(handlers, "room"));
    builder(1)
        .single_session(shaddock::OnSecondBind::Refuse)
        .register(|handlers| register(handlers, "connector"))
        .forward("room", workers)
}

/// The same on a shard and on a worker.
#[test]
fn typed_handlers_answer_with_types_and_codes() {
    let engine = described().start().unwrap();
    for server_type in ["connector", "room"] {
        let mut client = Client::ready(engine.local_addr());
        for (id, (method, body, answer)) in (1..).zip([
            ("enter", r#"{"room":7}"#, r#"{"members":1}"#),
            ("enter", r#"{"room":9}"#, r#"{"code":404,"msg":"no room"}"#),
            ("enter", r#"{"room":8}"#, r#"{"code":500}"#),
            ("enter", "{}", r#"{"code":400,"msg":"missing field `room` at line 1 column 2"}"#),
            ("sum", "[1,2,-4]", "-1"),
            ("count", "", "1"),
            ("count", "null", "2"),
            ("nothing", "{}", "{}"),
            ("say", r#"{"text":"a \"quote\""}"#, r#"{"text":"a \"quote\""}"#),
            ("say", r#"{"text":""}"#, r#"{"code":422,"msg":"say something"}"#),
            ("echo", "[1, 2]", "[1, 2]"),
            ("later", "1", r#"{"slept":1}"#),
            ("later", "13", r#"{"code":13,"msg":"bad luck"}"#),
        ]) {
            let route = format!("{server_type}.roomHandler.{method}");
            assert_eq!(client.ask(id, &route, body), answer, "{route} {body}");
        }
    }
}

#[test]
fn a_bind_that_fails_is_answered_by_its_code() {
    let engine = described().start().unwrap();
    let [mut amy, mut other] = [(); 2].map(|()| Client::ready(engine.local_addr()));
    assert_eq!(amy.ask(1, "connector.roomHandler.login", "\"amy\""), "\"amy\"");
    let refused = other.ask_json(1, "room.roomHandler.login", "\"amy\"");
    assert_eq!(refused["code"], 409);
    assert!(refused["msg"].as_str().unwrap().contains("amy"), "{refused}");
    assert_eq!(other.ask_json(2, "room.roomHandler.login", "0")["code"], 400);
    assert_eq!(other.ask(3, "room.roomHandler.login", "42"), "42");
}

#[test]
fn a_builder_takes_typed_handlers_for_every_shard() {
    let engine = builder(2)
        .call("connector.a.enter", enter)
        .call("connector.a.sum", |numbers: Vec<i64>, _| Ok(numbers.iter().sum::<i64>()))
        .call_async("connector.a.login", login)
        .try_handler("connector.a.say", say)
        .try_handler("connector.a.len", |request, _| {
            let text: &str = request.json()?;
            Ok(Reply::json(&text.len()))
        })
        .start()
        .unwrap();
    let mut clients: Vec<_> = (0..4).map(|_| Client::ready(engine.local_addr())).collect();
    for (uid, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(1, "connector.a.enter", r#"{"room":7}"#), r#"{"members":1}"#);
        assert_eq!(client.ask(2, "connector.a.sum", "[1,2]"), "3");
        assert_eq!(client.ask(3, "connector.a.login", &uid.max(9).to_string()), "9");
        assert_eq!(client.ask(4, "connector.a.say", r#"{"text":"hi"}"#), r#"{"text":"hi"}"#);
        assert_eq!(client.ask(5, "connector.a.len", "\"hello\""), "5");
    }
}
