//! Traces: which messages are sampled, what backends are told of a span and what a collector gets
//! of it, and that a collector which is away, slow or hostile holds nobody up.

use std::io::{BufRead as _, BufReader};
use std::net::Shutdown;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use shaddock::{
    AdminOptions, Drain, Engine, PomeloCluster, Reply, Router, SpanMetrics, Traces, Uid, Workers,
};
use support::folder::Folder;
use support::pomelo::{Peer, Server};
use support::{Client, builder, eventually, free_port, notify, request};

use crate::collector::{Collector, Does};
use crate::nats_and_etcd::{Cluster, wait_until_forwarded};

pub(super) const ECHO: &str = "chat.chatHandler.echo";
const ENTRY: &str = "connector.entryHandler.entry";
/// `SPAN_KIND_CLIENT` and `STATUS_CODE_ERROR`.
const CLIENT: i32 = 3;
const ERROR: i32 = 2;

/// An engine of one shard in front of one backend of Pomelo's.
fn pomelo(backend: &Server, traces: Traces) -> Engine {
    let cluster = PomeloCluster::fixed()
        .server("chat-1", "chat", backend.address())
        .server_type("chat", Router::Default);
    builder(1)
        .async_handler(ENTRY, |request, mut session| async move {
            let uid = Uid::try_from(&request.value()).unwrap();
            Reply::json(&session.bind(uid).await.is_ok())
        })
        .pomelo(cluster)
        .traces(traces)
        .start()
        .unwrap()
}

/// An engine of one shard with two workers, which answer at once, but for `later`, which
/// answers from a future, `never`, and `fail`.
pub(super) fn workers(traces: Traces) -> Engine {
    let workers = Workers::new(2, |handlers| {
        handlers
            .handler(ECHO, |request, _| Reply::borrowed(request.body()))
            .handler("chat.chatHandler.fail", |_, _| Reply::error_json(&json!({})))
            .handler("chat.chatHandler.never", |_, session| session.defer(std::mem::forget));
    });
    builder(1).forward("chat", workers).traces(traces).start().unwrap()
}

pub(super) fn spans(engine: &Engine) -> SpanMetrics {
    engine.handle().metrics().unwrap().spans.expect("it traces")
}

pub(super) fn lost(engine: &Engine, reason: &str) -> u64 {
    spans(engine).lost.into_iter().find(|(name, _)| *name == reason).unwrap().1
}

pub(super) fn stop(engine: Engine) {
    engine.shutdown(Drain::within(Duration::from_secs(1)));
}

#[test]
fn a_backend_of_pomelos_goes_on_with_the_span_that_the_collector_gets() {
    let (backend, mut collector) = (Server::start(), Collector::start(Does::Take));
    let traces = Traces::new().endpoint(collector.endpoint()).sample(1);
    let traces = traces.service("front").attribute("region", "eu").header("x-team", "game");
    let before_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let engine = pomelo(&backend, traces);
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ENTRY, "\"amy\""), "true");

    client.send(&request(2, ECHO, "{\"a\":1}"));
    let (id, message, session) = peer.forwarded();
    assert_eq!(message["body"], json!({"a": 1}));
    let names: Vec<&String> = session.as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "frontendId", "uid", "settings", "traceparent"]);
    peer.answer(id, json!([null, 5]));
    assert_eq!(client.answer(2), "5");

    let post = collector.post();
    assert!(post.head.starts_with("post /v1/traces http/1.1\r\n"), "{}", post.head);
    assert!(post.head.contains("\r\nx-team: game\r\n"), "{}", post.head);
    assert!(post.head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{}", post.head);

    client.send(&request(3, ECHO, "{}"));
    let (id, _, told) = peer.forwarded();
    peer.answer(id, json!([{"stack": "Error: boom"}, {"a": 1}]));
    assert_eq!(client.answer(3), "{\"a\":1,\"code\":500}");
    let span = collector.span();
    assert_eq!(told["traceparent"], span.context);
    assert_ne!(told["traceparent"], session["traceparent"]);
    assert_eq!((&*span.name, span.kind, span.status), (ECHO, CLIENT, ERROR));
    let after_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    let [start_ns, end_ns] = span.times_ns;
    // The clock of a shard counts microseconds, and starts a little before or after.
    let slack_ns = 1_000_000_000;
    assert!(before_ns - slack_ns < start_ns && start_ns <= end_ns && end_ns < after_ns + slack_ns);
    let resource = [
        ("region", "eu"),
        ("service.instance.id", "connector-1"),
        ("service.name", "front"),
        ("shaddock.server_type", "connector"),
    ];
    assert!(span.resource.iter().map(|(key, value)| (&**key, &**value)).eq(resource));
    let number = told["id"].to_string();
    let attributes = [
        ("error.type", "error"),
        ("rpc.method", "echo"),
        ("rpc.service", "chat.chatHandler"),
        ("rpc.system", "pomelo"),
        ("shaddock.message", "request"),
        ("shaddock.route", ECHO),
        ("shaddock.server_type", "chat"),
        ("shaddock.session", &number),
        ("shaddock.shard", "0"),
        ("shaddock.target", "pomelo"),
        ("user.id", "amy"),
    ];
    assert!(span.attributes.iter().map(|(key, value)| (&**key, &**value)).eq(attributes));

    // Nobody waits for a notify, so its span ends when it is sent.
    client.send(&notify(ECHO, "7"));
    let (_, _, told) = peer.forwarded();
    let span = collector.span();
    assert_eq!(told["traceparent"], span.context);
    assert_eq!((span.status, &*span.attributes["shaddock.message"]), (0, "notify"));
    eventually("the spans are counted", || spans(&engine).sent == 3);
    stop(engine);
}

#[test]
fn a_long_uid_is_cut_between_two_characters() {
    let (backend, mut collector) = (Server::start(), Collector::start(Does::Take));
    let engine = pomelo(&backend, Traces::new().endpoint(collector.endpoint()).sample(1));
    let _peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ENTRY, &format!("\"{}\"", "中".repeat(200))), "true");
    client.send(&notify(ECHO, "8"));
    assert_eq!(collector.span().attributes["user.id"], "中".repeat(256 / 3));
    stop(engine);
}

#[test]
fn a_span_of_pomelos_says_how_its_message_has_ended() {
    let (backend, mut collector) = (Server::start(), Collector::start(Does::Take));
    let cluster = PomeloCluster::fixed()
        .server("chat-1", "chat", backend.address())
        .server_type("chat", Router::Default)
        .call_timeout(Duration::from_millis(200));
    let traces = Traces::new().endpoint(collector.endpoint()).sample(1);
    let engine = builder(1).pomelo(cluster).traces(traces).start().unwrap();
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    let mut ends = |id, answer: &dyn Fn(&mut Peer, u64)| {
        client.send(&request(id, ECHO, "{}"));
        let (call, _, session) = peer.forwarded();
        answer(&mut peer, call);
        client.answer(id);
        let span = collector.span();
        assert_eq!(session["traceparent"], span.context);
        (span.status, span.attributes.get("error.type").cloned())
    };
    let answered = ends(1, &|peer, call| peer.answer(call, json!([null, 1])));
    assert_eq!(answered, (0, None));
    assert_eq!(ends(2, &|_, _| ()), (ERROR, Some("timeout".to_owned())));
    let lost = ends(3, &|peer, _| peer.stream.shutdown(Shutdown::Both).unwrap());
    assert_eq!(lost, (ERROR, Some("lost".to_owned())));
    stop(engine);
}

#[test]
fn one_message_in_so_many_is_sampled_and_the_others_carry_nothing() {
    const EVERY: u32 = 4;
    let (backend, mut collector) = (Server::start(), Collector::start(Does::Take));
    let traces = Traces::new().endpoint(collector.endpoint()).sample(EVERY.into());
    let engine = pomelo(&backend, traces);
    let mut peer = backend.accept();
    let mut client = Client::ready(engine.local_addr());
    let mut told = Vec::new();
    for id in 1..=10 * EVERY {
        client.send(&request(id, ECHO, "{}"));
        let (call, _, session) = peer.forwarded();
        match session.get("traceparent") {
            Some(traceparent) => told.push((id, traceparent.as_str().unwrap().to_owned())),
            None => assert_eq!(session.as_object().unwrap().len(), 4, "{session}"),
        }
        peer.answer(call, json!([null, 1]));
        client.answer(id);
    }
    assert_eq!(told.len(), 10);
    assert!(told.windows(2).all(|pair| pair[1].0 - pair[0].0 == EVERY), "{told:?}");
    stop(engine);
    let got: Vec<String> = collector.rest().into_iter().map(|span| span.context).collect();
    assert_eq!(got, told.into_iter().map(|(_, context)| context).collect::<Vec<_>>());
}

#[test]
fn pipelined_messages_for_workers_are_sampled_and_stay_in_order() {
    const EVERY: u32 = 8;
    const REQUESTS: u32 = 100 * EVERY;
    let mut collector = Collector::start(Does::Take);
    let engine = workers(Traces::new().endpoint(collector.endpoint()).sample(EVERY.into()));
    let mut client = Client::ready(engine.local_addr());
    let all: Vec<u8> = (1..=REQUESTS).flat_map(|id| request(id, ECHO, &id.to_string())).collect();
    client.send(&all);
    for id in 1..=REQUESTS {
        assert_eq!(client.answer(id), id.to_string());
    }
    assert_eq!(engine.handle().counters().forwards, u64::from(REQUESTS));
    stop(engine);
    let spans = collector.rest();
    assert_eq!(spans.len(), (REQUESTS / EVERY) as usize);
    for span in spans {
        assert_eq!((&*span.name, span.status), (ECHO, 0));
        assert_eq!(span.attributes["shaddock.target"], "worker");
        assert!(span.attributes["shaddock.server"].starts_with("chat-"));
    }
}

#[test]
fn a_span_says_how_its_message_has_ended() {
    let mut collector = Collector::start(Does::Take);
    let limits =
        shaddock::Limits { forward_timeout: Duration::from_millis(200), ..Default::default() };
    let register = |handlers: &mut shaddock::Handlers| {
        handlers.handler("chat.chatHandler.never", |_, session| session.defer(std::mem::forget));
        handlers.handler("chat.chatHandler.fail", |_, _| Reply::error_json(&json!({})));
        handlers.handler(ECHO, |request, _| Reply::borrowed(request.body()));
    };
    let engine = builder(1)
        .limits(limits)
        .forward("chat", Workers::new(1, register))
        .traces(Traces::new().endpoint(collector.endpoint()).sample(1))
        .start()
        .unwrap();
    let mut client = Client::ready(engine.local_addr());
    for (id, method, wanted) in [(1, "fail", "error"), (2, "never", "timeout")] {
        let route = format!("chat.chatHandler.{method}");
        client.ask(id, &route, "{}");
        let span = collector.span();
        assert_eq!((&*span.name, span.status), (&*route, ERROR));
        assert_eq!(span.attributes["error.type"], wanted);
    }
    // A worker says of a notify, too, that it is done with it.
    client.send(&notify(ECHO, "1"));
    let span = collector.span();
    assert_eq!((span.status, &*span.attributes["shaddock.message"]), (0, "notify"));
    stop(engine);
}

#[test]
fn a_backend_of_pitayas_goes_on_with_the_span_that_the_collector_gets() {
    let Some(cluster) = Cluster::start() else { return };
    let _backend = cluster.backend("room", "room-1");
    let mut collector = Collector::start(Does::Take);
    let traces = Traces::new().endpoint(collector.endpoint()).sample(2);
    let description = cluster.description().request_timeout(Duration::from_millis(500));
    let engine = builder(1).pitaya(description).traces(traces).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    wait_until_forwarded(&mut client);
    let mut told = Vec::new();
    for id in 1..=10 {
        let mut session = client.ask_json(100 + id, "room.room.session", "");
        match session["metadata"]["otel-span"].take() {
            Value::Null => {
                let metadata = session["metadata"].as_object().unwrap();
                assert!(!metadata.contains_key("otel-span") || metadata["otel-span"].is_null());
            }
            span => {
                assert_eq!(span.as_object().unwrap().len(), 1);
                told.push(span["traceparent"].as_str().unwrap().to_owned());
            }
        }
    }
    assert_eq!(told.len(), 5);
    // Of two messages one is sampled.
    for id in [201, 202] {
        client.ask(id, "room.room.error", "boom");
    }
    for id in [203, 204] {
        client.ask(id, "room.room.silent", "");
    }
    stop(engine);
    let spans = collector.rest();
    for (route, wanted) in [("room.room.error", "error"), ("room.room.silent", "timeout")] {
        let span = spans.iter().find(|span| span.name == route).unwrap();
        assert_eq!((span.status, &*span.attributes["error.type"]), (ERROR, wanted));
    }
    let got: Vec<_> = spans.iter().filter(|span| told.contains(&span.context)).collect();
    assert_eq!(got.len(), told.len());
    for span in got {
        assert_eq!((&*span.name, span.status), ("room.room.session", 0));
        assert_eq!(span.attributes["rpc.system"], "pitaya");
        assert_eq!(span.attributes["rpc.service"], "room.room");
    }
}

#[test]
fn a_collector_that_is_away_or_refuses_costs_spans_and_nothing_else() {
    const REQUESTS: u32 = 50;
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let refusing = Collector::start(Does::Refuse(503));
    for endpoint in [nobody, refusing.endpoint()] {
        let traces = Traces::new().endpoint(endpoint).sample(1);
        let engine = workers(traces.retry_within(Duration::ZERO));
        let mut client = Client::ready(engine.local_addr());
        for id in 1..=REQUESTS {
            assert_eq!(client.ask(id, ECHO, "1"), "1");
        }
        eventually("they are counted", || lost(&engine, "collector") == u64::from(REQUESTS));
        assert_eq!(spans(&engine).sent, 0);
        stop(engine);
    }
    // One that takes but some of them, or says so.
    for (rejected, wanted) in [(1, (0, 1)), (i64::MAX, (0, 1)), (-1, (1, 0)), (i64::MIN, (1, 0))] {
        let collector = Collector::start(Does::Reject(rejected));
        let engine = workers(Traces::new().endpoint(collector.endpoint()).sample(1));
        let mut client = Client::ready(engine.local_addr());
        assert_eq!(client.ask(1, ECHO, "1"), "1");
        eventually("it is counted", || (spans(&engine).sent, lost(&engine, "collector")) == wanted);
        stop(engine);
    }
}

#[test]
fn a_hostile_collector_costs_spans_and_nothing_else() {
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const ENDLESS: &str = "HTTP/1.1 200 OK\r\n\r\n";
    let other = Collector::start(Does::Take);
    let location = format!("Location: {}/v1/traces\r\n", other.endpoint());
    let moved = ["HTTP/1.1 307 Elsewhere\r\nContent-Length: 0\r\n", &location, "\r\n"].concat();
    let (at_once, slowly) = (Duration::ZERO, Duration::from_millis(20));
    for does in [
        Does::Say(""),
        Does::Say("\x16\x03\x01 no HTTP \u{1b}[2J\n\n"),
        Does::Say("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        Does::Say(moved.leak()),
        Does::Repeat("HTTP/1.1 200 OK\r\n", b"x-more: of it\r\n", at_once),
        Does::Repeat("HTTP/1.1 200 OK\r\n", b"x-more: of it\r\n", slowly),
        Does::Repeat("HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", at_once),
        Does::Repeat(ENDLESS, &[0; 4096], at_once),
        Does::Repeat(ENDLESS, b"0", slowly),
        Does::Repeat(CHUNKED, b"1\r\n0\r\n", at_once),
        Does::Repeat(CHUNKED, b"f", at_once),
    ] {
        let collector = Collector::start(does);
        let traces = Traces::new().endpoint(collector.endpoint()).sample(1);
        let traces = traces.timeout(Duration::from_millis(300));
        let engine = workers(traces.retry_within(Duration::ZERO));
        let mut client = Client::ready(engine.local_addr());
        assert_eq!(client.ask(1, ECHO, "1"), "1");
        eventually("it is lost", || lost(&engine, "collector") == 1);
        assert_eq!(client.ask(2, ECHO, "2"), "2");
        assert_eq!(spans(&engine).sent, 0);
        stop(engine);
    }
    other.nothing();
}

#[test]
fn a_collector_that_never_answers_costs_spans_and_nothing_else() {
    // More than wait, and than go into the request that hangs.
    const REQUESTS: u32 = 6_000;
    let collector = Collector::start(Does::Nothing);
    let traces = Traces::new().endpoint(collector.endpoint()).sample(1);
    let engine = workers(traces.timeout(Duration::from_secs(30)));
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    // It has the thread that sends from here on.
    collector.post();
    let all: Vec<u8> = (2..=REQUESTS).flat_map(|id| request(id, ECHO, "1")).collect();
    client.send(&all);
    for id in 2..=REQUESTS {
        assert_eq!(client.answer(id), "1");
    }
    assert!(lost(&engine, "queue") > 1_000, "{:?}", spans(&engine));
    assert_eq!(spans(&engine).sent, 0);
    // The end of its connection ends the wait.
    drop(collector);
    stop(engine);
}

#[test]
fn an_engine_stops_in_time_where_its_collector_does_not_answer() {
    let collector = Collector::start(Does::Nothing);
    let traces = Traces::new().endpoint(collector.endpoint()).sample(1);
    let traces = traces.timeout(Duration::from_millis(100));
    let engine = workers(traces.retry_within(Duration::ZERO));
    let mut client = Client::ready(engine.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("one is lost", || lost(&engine, "collector") == 1);
    for id in 2..=100 {
        assert_eq!(client.ask(id, ECHO, "1"), "1");
    }
    stop(engine);
    drop(collector);
}

#[test]
fn the_last_description_counts() {
    let (first, mut second) = (Collector::start(Does::Take), Collector::start(Does::Take));
    let workers = Workers::new(1, |handlers| {
        handlers.handler(ECHO, |request, _| Reply::borrowed(request.body()));
    });
    let engine = builder(1)
        .traces(Traces::new().endpoint(first.endpoint()).sample(1))
        .forward("chat", workers)
        .admin(AdminOptions::new().listen("127.0.0.1:0"))
        .traces(Traces::new().endpoint(second.endpoint()).sample(2))
        .start()
        .unwrap();
    assert!(engine.admin_addr().is_some());
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=20 {
        client.ask(id, ECHO, "1");
    }
    stop(engine);
    assert_eq!(second.rest().len(), 10);
    first.nothing();
}

#[test]
fn spans_are_told_to_prometheus_where_there_are_any() {
    let collector = Collector::start(Does::Take);
    let engine = |traces: Option<Traces>| {
        let admin = AdminOptions::new().listen("127.0.0.1:0");
        let workers = Workers::new(1, |handlers| {
            handlers.handler(ECHO, |request, _| Reply::borrowed(request.body()));
        });
        let builder = builder(1).forward("chat", workers).admin(admin);
        match traces {
            Some(traces) => builder.traces(traces).start().unwrap(),
            None => builder.start().unwrap(),
        }
    };
    let metrics = |engine: &Engine| {
        let url = format!("http://{}/metrics", engine.admin_addr().unwrap());
        ureq::get(&url).call().unwrap().body_mut().read_to_string().unwrap()
    };
    let traced = engine(Some(Traces::new().endpoint(collector.endpoint()).sample(1)));
    let mut client = Client::ready(traced.local_addr());
    assert_eq!(client.ask(1, ECHO, "1"), "1");
    eventually("it is sent", || spans(&traced).sent == 1);
    let text = metrics(&traced);
    assert!(text.contains("\nshaddock_spans_sent_total 1\n"), "{text}");
    for reason in ["open", "queue", "collector"] {
        let line = format!("\nshaddock_spans_lost_total{{reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{text}");
    }
    stop(traced);
    let plain = engine(None);
    assert!(!metrics(&plain).contains("shaddock_spans"));
    assert!(plain.handle().metrics().unwrap().spans.is_none());
    stop(plain);
}

/// Starts the binary as a server, and gives a client of it.
pub(crate) fn serve(command: &mut Command) -> (Child, Client) {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let address = line.split("listening on ").nth(1).and_then(|rest| rest.split(' ').next());
    (child, Client::ready(address.expect(&line).parse().unwrap()))
}

/// The binary, with a file that turns traces on and OpenTelemetry's variables for the rest.
#[test]
fn the_file_turns_traces_on_and_the_environment_says_the_rest() {
    let mut collector = Collector::start(Does::Take);
    let folder = Folder::create();
    let text = "[server]\nshards = 1\ndemo = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                [traces]\nenabled = true\nservice = \"from the file\"\n";
    let file = folder.write("shaddock.toml", text);
    let (mut child, mut client) = serve(
        Command::new(env!("CARGO_BIN_EXE_shaddock"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b")
            .env("OTEL_TRACES_SAMPLER", "always_on")
            .env("OTEL_SERVICE_NAME", "from the environment")
            .env("OTEL_RESOURCE_ATTRIBUTES", "region=eu"),
    );
    client.ask(1, "chat.chatHandler.nothing", "{}");
    let post = collector.post();
    assert!(post.head.contains("\r\nx-key: a b\r\n"), "{}", post.head);
    client.ask(2, "chat.chatHandler.nothing", "{}");
    let span = collector.span();
    assert_eq!(
        (&*span.resource["service.name"], &*span.resource["region"]),
        ("from the file", "eu")
    );
    child.kill().unwrap();
    child.wait().unwrap();

    let checked = Command::new(env!("CARGO_BIN_EXE_shaddock"))
        .args(["check", "--config"])
        .arg(&file)
        .env("OTEL_TRACES_SAMPLER", "sometimes")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    let wanted = "OTEL_TRACES_SAMPLER: must be always_on, always_off or traceidratio";
    assert!(error.starts_with(wanted) && !checked.status.success(), "{error}");
}
