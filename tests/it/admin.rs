//! The admin server beside an engine, asked as Prometheus, operators, pages and strangers do.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use shaddock::{
    AdminOptions, Builder, Drain, Engine, HandleError, Handlers, Limits, Reply, StartError, Time,
    Workers,
};
use support::folder::Folder;
use support::{Client, Event, PATIENCE, builder, eventually};

pub(crate) const ECHO: &str = "connector.play.echo";
pub(crate) const BIND: &str = "connector.play.bind";
pub(crate) const CHAT: &str = "chat.chatHandler.echo";
const CHAT_FAIL: &str = "chat.chatHandler.fail";
const TOKEN: &str = "a token of no use-0123456789";

pub(crate) fn game(shards: u16) -> Builder {
    let chat = |handlers: &mut Handlers| {
        handlers.handler(CHAT, |request, _| Reply::borrowed(request.body()));
        handlers.handler(CHAT_FAIL, |_, _| Reply::error());
    };
    builder(shards)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(BIND, |request, session| {
            // It is bound behind the answer.
            drop(session.bind(String::from_utf8_lossy(request.body()).as_ref()));
            Reply::json(&"bound")
        })
        .forward("chat", Workers::new(1, chat))
        .routes([CHAT, CHAT_FAIL])
}

pub(crate) fn token() -> String {
    TOKEN.replace(' ', "-")
}

pub(crate) fn options() -> AdminOptions {
    AdminOptions::new().listen("127.0.0.1:0").token(token())
}

/// An answer: its status, its head and its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {}", self.body))
    }
}

fn exchange(mut socket: impl Read + Write, request: &[u8]) -> Answer {
    socket.write_all(request).unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn ask_with(address: SocketAddr, method: &str, path: &str, lines: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\n{lines}\r\n");
    exchange(connect(address), request.as_bytes())
}

pub(crate) fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

pub(crate) fn get(address: SocketAddr, path: &str) -> Answer {
    ask_with(address, "GET", path, "")
}

fn post(address: SocketAddr, path: &str) -> Answer {
    ask_with(address, "POST", path, &format!("Authorization: Bearer {}\r\n", token()))
}

pub(crate) fn admin(engine: &Engine) -> SocketAddr {
    engine.admin_addr().unwrap()
}

/// The samples of an exposition, by what stands before their values.
pub(crate) fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').unwrap();
        (name.to_owned(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

#[test]
fn all_who_scrape_see_the_exact_counts() {
    let engine = game(2).admin(options()).start().unwrap();
    let address = admin(&engine);
    let mut client = Client::ready(engine.local_addr());
    for id in 1..=50 {
        client.ask(id, ECHO, "{}");
    }
    for id in 51..=60 {
        client.ask(id, CHAT, "{}");
    }
    for id in 61..=63 {
        client.ask(id, CHAT_FAIL, "{}");
    }
    client.ask(64, "nowhere.play.echo", "{}");
    let first = get(address, "/metrics");
    assert_eq!(first.status, 200);
    assert!(first.head.contains("Content-Type: text/plain; version=0.0.4"), "{}", first.head);
    let open = ask_with(address, "GET", "/metrics", "Accept: application/openmetrics-text\r\n");
    assert!(open.head.contains("application/openmetrics-text"), "{}", open.head);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    for text in [first.body, open.body, get(address, "/metrics").body] {
        let samples = samples(&text);
        for (name, expected) in [
            ("shaddock_messages_sent_total{type=\"response\"}", 64.0),
            ("shaddock_messages_received_total{type=\"request\"}", 64.0),
            ("shaddock_request_duration_seconds_count{target=\"worker\"}", 13.0),
            ("shaddock_forward_duration_seconds_count{server_type=\"chat\"}", 13.0),
            ("shaddock_forwards_total{server_type=\"chat\",outcome=\"ok\"}", 10.0),
            ("shaddock_forwards_total{server_type=\"chat\",outcome=\"error\"}", 3.0),
            ("shaddock_forwards_in_flight{server_type=\"chat\"}", 0.0),
            ("shaddock_backends{server_type=\"chat\",state=\"up\"}", 1.0),
            ("shaddock_bad_input_total{kind=\"unknown_route\"}", 1.0),
            ("shaddock_limit_hits_total{limit=\"tasks_max\"}", 0.0),
            ("shaddock_connections_accepted_total", 1.0),
            ("shaddock_draining", 0.0),
        ] {
            assert_eq!(samples.get(name), Some(&expected), "{name}\n{text}");
        }
        let local = samples["shaddock_request_duration_seconds_count{target=\"local\"}"];
        assert!((50.0..=51.0).contains(&local), "{local}");
        let turns = |shard| samples[&format!("shaddock_shard_turns_total{{shard=\"{shard}\"}}")];
        assert!(turns(0) > 0.0 && turns(1) > 0.0);
        let worker = |name: &str| samples[&format!("shaddock_worker_{name}{{server=\"chat-1\"}}")];
        assert!(worker("turn_duration_seconds_count") > 1.0);
        assert!(worker("busy_seconds_total") > 0.0 && worker("cpu_seconds_total") > 0.0);
    }
    let metrics = engine.handle().metrics().unwrap();
    assert_eq!(metrics.latency.requests(), engine.handle().metrics().unwrap().latency.requests());
    assert_eq!((metrics.server_types[0].answered, metrics.server_types[0].failed), (10, 3));
    assert_eq!((metrics.shards.len(), metrics.connections), (2, 1));
}

#[test]
fn latency_by_route_is_of_known_routes_and_adds_up() {
    let engine = game(2).route_latency().admin(options()).start().unwrap();
    let address = admin(&engine);
    let mut client = Client::ready(engine.local_addr());
    let mut id = 0;
    let mut ask = |route: &str, times: u32| {
        for _ in 0..times {
            id += 1;
            client.ask(id, route, "{}");
        }
    };
    ask(ECHO, 5);
    ask(CHAT, 4);
    ask(CHAT_FAIL, 3);
    // Nobody knows them, and none is answered by a handler or by a server.
    for number in 0..20 {
        ask(&format!("connector.play.nothing{number}"), 1);
        ask(&format!("nowhere{number}.play.echo"), 1);
    }
    // In no table, though of a type that is forwarded: its worker says that there is no handler.
    ask("chat.chatHandler.nothing", 2);
    let text = get(address, "/metrics").body;
    let samples = samples(&text);
    const COUNT: &str = "shaddock_route_duration_seconds_count";
    let by_route: Vec<_> = samples.iter().filter(|(name, _)| name.starts_with(COUNT)).collect();
    let routes = by_route.len();
    for (route, expected) in [(ECHO, 5.0), (CHAT, 4.0), (CHAT_FAIL, 3.0)] {
        let name = format!("{COUNT}{{route=\"{route}\"}}");
        assert_eq!(samples.get(&name), Some(&expected), "{name}\n{text}");
    }
    assert_eq!(routes, 4, "and other: {by_route:?}");
    let sum = |family: &str| -> f64 {
        let of_family = samples.iter().filter(|(name, _)| name.starts_with(family));
        of_family.map(|(_, count)| count).sum()
    };
    assert_eq!(sum(COUNT), sum("shaddock_request_duration_seconds_count"));
    let metrics = engine.handle().metrics().unwrap();
    let requests: u64 = metrics.routes.iter().map(|it| it.latency.requests()).sum();
    assert_eq!(requests, metrics.latency.requests());
    assert_eq!(metrics.routes.last().unwrap().route, "other");
}

/// Answers that come later, alone or from a batch some of which is answered, in time or not, and
/// that filters see or not.
#[test]
fn latency_by_route_counts_each_answer_once_whenever_it_comes() {
    const LATER: &str = "connector.play.later";
    const CHAT_LATER: &str = "chat.chatHandler.later";
    const CHAT_NEVER: &str = "chat.chatHandler.never";
    let chat = |handlers: &mut Handlers| {
        handlers.handler(CHAT, |request, _| Reply::borrowed(request.body()));
        handlers.async_handler(CHAT_LATER, async |_, _| Reply::json(&"later"));
        handlers.async_handler(CHAT_NEVER, async |_, _| std::future::pending().await);
    };
    let limits = Limits { forward_timeout: Duration::from_millis(100), ..Limits::default() };
    for is_filtered in [false, true] {
        let game = builder(1)
            .limits(limits.clone())
            .handler(ECHO, |request, _| Reply::borrowed(request.body()))
            .async_handler(LATER, async |_, _| Reply::json(&"later"))
            .forward("chat", Workers::new(1, chat))
            .routes([CHAT, CHAT_LATER, CHAT_NEVER])
            .route_latency();
        let game = if is_filtered { game.global_filter(Time::default) } else { game };
        let engine = game.start().unwrap();
        let mut client = Client::ready(engine.local_addr());
        let routes = [CHAT, CHAT_NEVER, CHAT, CHAT_LATER, ECHO, LATER, ECHO, CHAT];
        let requests = (1..).zip(routes).map(|(id, route)| support::request(id, route, "{}"));
        client.send(&requests.collect::<Vec<_>>().concat());
        // What is never answered is given up last.
        while client.next() != (Event::Response { id: 2, body: br#"{"code":500}"#.to_vec() }) {}
        let expected = [(ECHO, 2), (LATER, 1), (CHAT, 3), (CHAT_LATER, 1), (CHAT_NEVER, 1)];
        let counts = || -> Vec<(String, u64)> {
            let routes = engine.handle().metrics().unwrap().routes;
            routes.into_iter().map(|it| (it.route, it.latency.requests())).collect()
        };
        let expected = expected.map(|(route, count)| (route.to_owned(), count));
        eventually("all are counted", || counts() == expected);
        assert_eq!(engine.handle().metrics().unwrap().latency.requests(), 8);
    }
}

#[test]
fn latency_by_route_is_not_measured_unless_asked_for() {
    let engine = game(1).admin(options()).start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, ECHO, "{}");
    assert!(engine.handle().metrics().unwrap().routes.is_empty());
    assert!(!get(admin(&engine), "/metrics").body.contains("shaddock_route_duration"));
}

/// Dashboard, alerts and documents ask for what there is; the documents name all of it.
#[test]
fn metrics_that_are_named_are_there() {
    let options = options().lost_log_lines(|| 0);
    let game = game(1).route_latency().admin(options);
    #[cfg(feature = "traces")]
    let game = game.traces(shaddock::Traces::new());
    let engine = game.start().unwrap();
    let mut client = Client::ready(engine.local_addr());
    client.ask(1, CHAT, "{}");
    let text = get(admin(&engine), "/metrics").body;
    let mut there: BTreeSet<&str> = text.lines().flat_map(metrics_in).collect();
    there.insert("shaddock_coordinator_up"); // Of clusters alone.
    #[cfg(not(feature = "traces"))]
    there.extend(["shaddock_spans_lost_total", "shaddock_spans_sent_total"]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in [
        "docs/alerts.md",
        "docs/operating.md",
        "packaging/grafana/shaddock.json",
        "packaging/prometheus/alerts.yml",
    ] {
        let text = fs::read_to_string(root.join(path)).unwrap();
        let named: BTreeSet<&str> = metrics_in(&text).collect();
        let unknown: Vec<_> = named.difference(&there).collect();
        assert!(!named.is_empty() && unknown.is_empty(), "{path}: {unknown:?}");
        let untold: Vec<_> = there.difference(&named).collect();
        assert!(path != "docs/operating.md" || untold.is_empty(), "not in {path}: {untold:?}");
    }
}

/// The families of metrics that a text names.
fn metrics_in(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !c.is_ascii_lowercase() && c != '_');
    words.filter(|word| word.starts_with("shaddock_")).map(|word| {
        let of_histogram = ["_bucket", "_count", "_sum"];
        of_histogram.iter().find_map(|end| word.strip_suffix(end)).unwrap_or(word)
    })
}

#[test]
fn figures_are_json_and_probes_tell_the_state() {
    let engine = game(1).admin(options()).start().unwrap();
    let address = admin(&engine);
    assert_eq!((get(address, "/livez").status, get(address, "/readyz").status), (200, 200));
    let status = get(address, "/status").json();
    assert_eq!((&status["server_id"], &status["ready"]), (&json!("connector-1"), &json!(true)));
    assert_eq!(status["shards"].as_array().unwrap().len(), 1);
    let backends = get(address, "/backends").json();
    assert_eq!(backends["backends"][0]["server_type"], "chat");
    assert_eq!(backends["backends"][0]["lanes"], json!({"chat-1": 0}));
    let head = ask_with(address, "HEAD", "/status", "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(get(address, "/nothing").status, 404);
    assert_eq!(ask_with(address, "PUT", "/status", "").status, 405);
    engine.handle().set_draining(true);
    let ready = get(address, "/readyz");
    assert_eq!((ready.status, ready.body.as_str()), (503, "draining\n"));
    assert_eq!(get(address, "/livez").status, 200);
}

#[test]
fn sessions_are_listed_in_parts_and_kicked() {
    let engine = game(2).admin(options()).start().unwrap();
    let address = admin(&engine);
    // More than a shard shows in a turn.
    let crowd: Vec<_> =
        (0..700).map(|_| TcpStream::connect(engine.local_addr()).unwrap()).collect();
    let mut amy = Client::ready(engine.local_addr());
    assert_eq!(amy.ask(1, BIND, "amy"), "\"bound\"");
    eventually("all are in", || engine.handle().metrics().unwrap().connections == 701);
    let list = get(address, "/sessions?limit=10&state=opening").json();
    assert_eq!((&list["matching"], &list["all"]), (&json!(700), &json!(701)), "{list}");
    assert_eq!(list["sessions"].as_array().unwrap().len(), 10);
    eventually("amy is bound", || get(address, "/sessions?uid=amy").json()["matching"] == 1);
    let list = get(address, "/sessions?uid=amy").json();
    let session = &list["sessions"][0];
    assert_eq!((&session["state"], &session["transport"]), (&json!("working"), &json!("tcp")));
    let id = session["id"].as_str().unwrap().to_owned();
    assert_eq!(get(address, &format!("/sessions/{id}")).json()["uid"], "amy");
    for path in ["/sessions?sort=x", "/sessions?limit=1001", "/sessions?state=x", "/sessions?x=1"] {
        let answer = get(address, path);
        assert_eq!(answer.status, 400, "{path}");
        assert!(answer.json()["error"].is_string());
    }
    for text in ["AM", &id, session["peer"].as_str().unwrap()] {
        let path = format!("/sessions?state=working&search={text}");
        assert_eq!(get(address, &path).json()["matching"], 1, "{text}");
    }
    assert_eq!(get(address, "/sessions?search=bob").json()["matching"], 0);
    let oldest = get(address, "/sessions?sort=age_s&limit=1").json();
    assert!(oldest["sessions"][0]["age_s"].as_u64() >= session["age_s"].as_u64(), "{oldest}");
    assert!(session["age_s"].as_u64().unwrap() <= 600, "{session}");
    let kicked = post(address, &format!("/sessions/{id}/kick?reason=bye"));
    assert_eq!((kicked.status, &kicked.json()["kicked"]["uid"]), (200, &json!("amy")));
    let is_kick = |event: &Event| format!("{event:?}").contains("bye");
    assert!(amy.until_end().iter().any(is_kick), "she is told the reason");
    eventually("she is gone", || get(address, &format!("/sessions/{id}")).status == 404);
    assert_eq!(post(address, &format!("/sessions/{id}/kick")).status, 404);
    assert_eq!(get(address, "/sessions/x").status, 404);
    let mut bob = Client::ready(engine.local_addr());
    bob.ask(1, BIND, "bob b");
    eventually("bob is bound", || get(address, "/sessions?uid=bob%20b").json()["matching"] == 1);
    assert_eq!(post(address, "/uids/bob%20b/kick").status, 202);
    bob.until_end();
    drop(crowd);
}

#[test]
fn hosts_are_denied_for_a_while_and_allowed_again() {
    let engine = game(2).admin(options()).start().unwrap();
    let address = admin(&engine);
    assert_eq!(get(address, "/denied").json(), json!({ "denied": [], "all": 0 }));
    let answer = post(address, "/deny?address=127.0.0.0%2F8&seconds=3600");
    let expected = json!({ "address": "127.0.0.0/8", "seconds": 3600 });
    assert_eq!((answer.status, answer.json()), (200, expected.clone()));
    let list = get(address, "/denied").json();
    assert_eq!((&list["denied"][0], &list["all"]), (&expected, &json!(1)));
    eventually("both shards refuse", || {
        engine.handle().counters().refused_host >= 8 || {
            drop(Client::connect(engine.local_addr()).until_end());
            false
        }
    });
    for (path, status, text) in [
        ("/deny", 400, "?address="),
        ("/deny?address=localhost", 400, "neither an IP address"),
        ("/deny?address=::1&seconds=0", 400, "seconds are 1 to 2592000"),
        ("/deny?address=::1&seconds=x", 400, "seconds are"),
        ("/allow", 400, "?address="),
        ("/allow?address=127.0.0.1", 404, "/denied"),
    ] {
        let answer = post(address, path);
        assert_eq!(answer.status, status, "{path}");
        assert!(answer.body.contains(text), "{path}: {}", answer.body);
    }
    assert_eq!(ask_with(address, "POST", "/deny?address=::1", "").status, 401, "no token");
    assert_eq!(get(address, "/deny?address=::1").status, 405);
    assert_eq!(post(address, "/deny?address=::1").json()["seconds"], 3600);
    assert_eq!(post(address, "/allow?address=127.0.0.0/8").status, 200);
    assert_eq!(get(address, "/denied").json()["all"], 1);
    engine.handle().statistics().unwrap();
    Client::ready(engine.local_addr());
}

#[test]
fn strangers_change_nothing_and_see_nothing_from_other_names() {
    let engine = game(1).admin(options()).start().unwrap();
    let address = admin(&engine);
    let bearer = format!("Authorization: Bearer {}\r\n", token());
    let asked = |method: &str, path: &str, lines: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\n{lines}\r\n");
        exchange(connect(address), request.as_bytes()).status
    };
    // A page whose name leads here (DNS rebinding).
    assert_eq!(asked("GET", "/sessions", "Host: evil.example\r\n"), 421);
    assert_eq!(asked("GET", "/metrics", ""), 421);
    let host = format!("Host: localhost:{}\r\n", address.port());
    assert_eq!(asked("GET", "/metrics", &host), 200);
    // A page of another origin that sends a form (CSRF).
    let foreign = format!("{host}{bearer}Origin: http://evil.example\r\n");
    assert_eq!(asked("POST", "/drain", &foreign), 403);
    assert_eq!(asked("POST", "/drain", &host), 401);
    assert_eq!(asked("POST", "/drain", &format!("{host}Authorization: Bearer x\r\n")), 401);
    for path in
        ["/drain", "/undrain", "/reload", "/log?level=info", "/uids/a/kick", "/sessions/0.0.1/kick"]
    {
        let answer = get(address, path);
        assert_eq!(answer.status, 405, "{path}");
        assert!(answer.head.contains("Allow: POST"), "{}", answer.head);
    }
    assert!(!engine.handle().is_draining());
    // What this process has no way to do.
    assert_eq!(post(address, "/reload").status, 501);
    assert_eq!(post(address, "/log?level=info").status, 501);
    let refused = samples(&get(address, "/metrics").body);
    assert_eq!(refused["shaddock_admin_refused_total{reason=\"host\"}"], 2.0);
    assert_eq!(refused["shaddock_admin_refused_total{reason=\"token\"}"], 2.0);
    assert_eq!(refused["shaddock_admin_refused_total{reason=\"origin\"}"], 1.0);
    drop(engine);
    let engine = game(1).admin(AdminOptions::new().listen("127.0.0.1:0")).start().unwrap();
    assert_eq!(post(admin(&engine), "/drain").status, 403, "there is no token at all");
}

#[test]
fn a_crowd_of_bad_clients_harms_neither_the_game_nor_operators() {
    let folder = Folder::create();
    let path = folder.path().join("admin.sock");
    let engine = game(1).admin(options().socket(&path)).start().unwrap();
    let address = admin(&engine);
    let mut player = Client::ready(engine.local_addr());
    let half = |text: &str| {
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(text.as_bytes()).ok();
        socket
    };
    let mut crowd: Vec<_> = (0..1_000).map(|_| half("GET /metrics HTTP/1.1\r\nHost: a")).collect();
    for id in 1..=200 {
        assert_eq!(player.ask(id, ECHO, "[1]"), "[1]");
    }
    // The socket has places of its own.
    let unix = UnixStream::connect(&path).unwrap();
    let answer = exchange(unix, b"GET /status HTTP/1.1\r\n\r\n");
    assert_eq!(answer.status, 200, "{}", answer.body);
    // By TCP others get in once the silent ones have had their time.
    let deadline = Instant::now() + PATIENCE;
    while !try_livez(address) {
        assert!(Instant::now() < deadline, "nobody gets in");
        std::thread::sleep(Duration::from_millis(100));
    }
    crowd.clear();
    eventually("they are gone", || try_livez(address));
    // Bodies, heads and lines that are too long.
    let long = "x".repeat(9_000);
    for (request, status) in [
        (format!("GET / HTTP/1.1\r\nHost: {long}"), 431),
        (
            format!("POST /drain HTTP/1.1\r\nHost: {address}\r\nContent-Length: 999999999\r\n\r\n"),
            413,
        ),
        (format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{long}"), 501),
        ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), 400),
    ] {
        assert_eq!(exchange(connect(address), request.as_bytes()).status, status);
    }
    // A body that goes on behind its refusal.
    let mut giant = connect(address);
    giant.write_all(b"POST /drain HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n").unwrap();
    let chunk = vec![b'x'; 64 * 1024];
    let sent = (0..1_000).take_while(|_| giant.write_all(&chunk).is_ok()).count();
    assert!(sent < 1_000, "it is cut off");
    for id in 201..=300 {
        assert_eq!(player.ask(id, ECHO, "[2]"), "[2]");
    }
    let counters = engine.handle().counters();
    assert_eq!((counters.answers, counters.connections_accepted), (300, 1));
}

/// True if the server lets one in.
fn try_livez(address: SocketAddr) -> bool {
    let mut socket = connect(address);
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\n\r\n");
    let mut text = String::new();
    let asked =
        socket.write_all(request.as_bytes()).and_then(|()| socket.read_to_string(&mut text));
    asked.is_ok() && text.starts_with("HTTP/1.1 200")
}

#[test]
fn events_come_each_second_and_to_so_many_only() {
    let engine = game(1).admin(options()).start().unwrap();
    let address = admin(&engine);
    let stream = || {
        let mut socket = connect(address);
        write!(socket, "GET /events HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
        socket
    };
    let mut streams: Vec<_> = (0..8).map(|_| stream()).collect();
    let until = |socket: &mut TcpStream, wanted: &str| {
        let (mut text, mut buffer) = (String::new(), [0; 4096]);
        while !text.contains(wanted) {
            let len = socket.read(&mut buffer).unwrap();
            assert_ne!(len, 0, "{text}");
            text.push_str(&String::from_utf8_lossy(&buffer[..len]));
        }
        text
    };
    for socket in &mut streams {
        let head = until(socket, "retry: 2000");
        assert!(head.contains("Content-Type: text/event-stream"), "{head}");
    }
    let refused = get(address, "/events");
    assert_eq!((refused.status, refused.json()["error"].is_string()), (503, true));
    // Those who do not read hold up nobody.
    until(&mut streams[0], "event: figures\ndata: {\"connections\":0,");
    engine.handle().set_draining(true);
    until(&mut streams[0], "event: draining\ndata: {\"draining\":true}");
    streams.clear();
    eventually("there is room again", || {
        let mut socket = stream();
        let mut start = [0; 12];
        socket.read_exact(&mut start).is_ok() && start == *b"HTTP/1.1 200"
    });
}

#[test]
fn a_drain_tells_balancers_first_and_can_be_called_off() {
    let seconds = Duration::from_secs;
    let start = |drain| {
        let stops = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&stops);
        let on_drain = move || {
            told.fetch_add(1, Ordering::SeqCst);
        };
        (game(1).admin(options().on_drain(drain, on_drain)).start().unwrap(), stops)
    };
    let (engine, stops) = start(Drain::within(seconds(60)).delay(seconds(3_600)));
    let answer = post(admin(&engine), "/drain");
    assert_eq!((answer.status, &answer.json()["draining"]), (202, &json!(true)));
    assert!(answer.json()["stops_in_s"].as_f64().unwrap() > 3_000.0, "{}", answer.body);
    assert_eq!(get(admin(&engine), "/readyz").status, 503);
    // Who is there, and who comes all the same, is served.
    assert_eq!(Client::ready(engine.local_addr()).ask(1, ECHO, "1"), "1");
    for bad in ["/drain?delay=soon", "/drain?refuse_logins=perhaps", "/drain?for=1s"] {
        assert_eq!(post(admin(&engine), bad).status, 400, "{bad}");
    }
    assert_eq!(post(admin(&engine), "/undrain").status, 200);
    assert_eq!(get(admin(&engine), "/readyz").status, 200);
    // Sessions are closed over a time, in the order of their places, and the engine's owner is told
    // once.
    eventually("no place is taken", || engine.handle().metrics().unwrap().connections == 0);
    let mut clients: Vec<_> = (0..4).map(|_| Client::ready(engine.local_addr())).collect();
    assert_eq!(stops.load(Ordering::SeqCst), 0);
    let answer = post(admin(&engine), "/drain?delay=0s&over=2h&within=1h").json();
    let ends = answer["ends_in_s"].as_f64().unwrap();
    assert!(ends > 10_000.0 && ends <= 10_800.0, "{answer}");
    eventually("it is told to stop", || stops.load(Ordering::SeqCst) == 1);
    assert_eq!(post(admin(&engine), "/undrain").status, 409);
    // The first one goes at once.
    eventually("a session is closed", || engine.handle().counters().closed_shutdown == 1);
    assert!(TcpStream::connect(engine.local_addr()).is_err(), "nobody is accepted any more");
    assert_eq!(clients.iter_mut().skip(1).map(|it| it.ask(1, ECHO, "1")).count(), 3);
    let report = engine.shutdown(Drain::now());
    assert_eq!((report.counters.closed_shutdown, stops.load(Ordering::SeqCst)), (4, 1));
    for client in &mut clients {
        client.until_end();
    }
}

/// A fleet's drain by an embedder: who comes while balancers are told is turned away, who is there
/// is served until its turn, and an answer that is pending is waited for.
#[test]
fn a_paced_drain_refuses_logins_and_waits_for_answers() {
    let engine = game(2).start().unwrap();
    let (address, handle) = (engine.local_addr(), engine.handle());
    let mut amy = Client::ready(address);
    let drain = Drain::within(PATIENCE).delay(Duration::from_secs(3_600)).refuse_logins();
    handle.drain(drain).unwrap();
    let mut bob = Client::connect(address);
    bob.send(&support::handshake());
    bob.until_end();
    assert_eq!(handle.counters().refused_draining, 1);
    assert_eq!(amy.ask(1, ECHO, "1"), "1");
    assert!(handle.undrain() && !handle.is_closing());
    assert_eq!(Client::ready(address).ask(1, ECHO, "2"), "2");
    let over = Duration::from_millis(200);
    let report = engine.shutdown(Drain::within(PATIENCE).delay(over).over(over));
    assert!(report.took >= over, "{report:?}");
    amy.until_end();
    assert!(!handle.undrain() && handle.is_closing());
    assert_eq!(handle.drain(drain), Err(HandleError::Stopped));
}

#[test]
fn the_socket_is_its_owners_and_replaces_only_what_is_stale() {
    let folder = Folder::create();
    let path = folder.path().join("admin.sock");
    // A process that was killed leaves its socket behind.
    drop(UnixListener::bind(&path).unwrap());
    let with_socket = || game(1).admin(AdminOptions::new().socket(&path));
    let engine = with_socket().start().unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let ask = |request: &str| exchange(UnixStream::connect(&path).unwrap(), request.as_bytes());
    // Whoever reaches it needs no token.
    assert_eq!(ask("POST /drain HTTP/1.1\r\n\r\n").status, 202);
    assert!(engine.handle().is_draining());
    let error = with_socket().start().unwrap_err().to_string();
    assert!(error.contains("admin.socket") && error.contains("another process"), "{error}");
    assert_eq!(ask("GET /livez HTTP/1.1\r\n\r\n").status, 200, "the first one is still there");
    drop(engine);
    assert!(!path.exists());
    fs::write(&path, "a file").unwrap();
    assert!(with_socket().start().unwrap_err().to_string().contains("there is a file"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "a file");
}

#[test]
fn options_that_can_not_be_are_named() {
    let fails = |options: AdminOptions, text: &str| {
        let error = game(1).admin(options).start().unwrap_err();
        assert!(matches!(error, StartError::Option { .. }));
        assert!(error.to_string().contains(text), "{error}");
    };
    fails(AdminOptions::new(), "admin.listen");
    fails(AdminOptions::new().listen("nowhere"), "like 127.0.0.1:3011");
    fails(options().token("short"), "admin.token");
    fails(options().token("sixteen characters with spaces"), "admin.token");
    let engine = game(1).admin(options()).start().unwrap();
    let taken = admin(&engine).to_string();
    fails(AdminOptions::new().listen(taken), "can be listened on");
}

#[test]
fn balancers_may_ask_on_the_port_of_clients() {
    let engine = game(1).health_path("/healthz").start().unwrap();
    let address = engine.local_addr();
    assert_eq!(get(address, "/healthz").status, 200);
    assert_eq!(ask_with(address, "HEAD", "/healthz?from=balancer", "").status, 200);
    assert_eq!(get(address, "/other").status, 426);
    assert_eq!(ask_with(address, "POST", "/healthz", "").status, 426);
    engine.handle().set_draining(true);
    assert_eq!(get(address, "/healthz").status, 503);
    let counters = engine.handle().counters();
    assert_eq!((counters.health_checks, counters.refused_http), (3, 2));
    drop(engine);
    let engine = game(1).start().unwrap();
    assert_eq!(get(engine.local_addr(), "/healthz").status, 426, "only by choice");
    assert!(game(1).health_path("healthz").start().is_err());
}

/// The page, with a browser's headers.
fn page(address: SocketAddr, lines: &str) -> Answer {
    ask_with(address, "GET", "/", &format!("Accept: text/html,*/*;q=0.8\r\n{lines}"))
}

/// The token in a page, if it has one.
fn token_of(page: &Answer) -> Option<String> {
    let (_, behind) = page.body.split_once("token&quot;:&quot;")?;
    Some(behind.split('&').next().unwrap().to_owned())
}

#[test]
fn a_page_may_change_things_on_this_machine_alone() {
    let options = AdminOptions::new().listen("127.0.0.1:0").page_may_change();
    let engine = game(1).admin(options.clone()).start().unwrap();
    let address = admin(&engine);
    let shown = page(address, "Sec-Fetch-Dest: document\r\nSec-Fetch-Site: none\r\n");
    assert_eq!(shown.status, 200);
    for part in ["Content-Type: text/html", "default-src 'none'", "frame-ancestors 'none'"] {
        assert!(shown.head.contains(part), "{part}\n{}", shown.head);
    }
    assert!(!shown.head.contains("ws://"), "there is no demo to play: {}", shown.head);
    let token = token_of(&shown).expect("it has a token");
    assert_eq!(token.len(), 64);
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let own = format!("Origin: http://{address}\r\n");
    let undrain = |lines: &str| ask_with(address, "POST", "/undrain", lines).status;
    assert_eq!(undrain(&format!("{bearer}{own}")), 200);
    assert_eq!(undrain(&own), 401, "a page without it");
    assert_eq!(undrain(&format!("{bearer}Origin: http://evil.example\r\n")), 403);
    // Nor does anybody else get it: no frame or script of another page, and nobody behind a proxy.
    let document = "Sec-Fetch-Dest: document\r\n";
    for lines in ["", "Sec-Fetch-Dest: iframe\r\n", "Sec-Fetch-Dest: script\r\n"] {
        assert_eq!(token_of(&page(address, lines)), None, "{lines}");
    }
    assert_eq!(token_of(&page(address, &format!("{document}Via: 1.1 x\r\n"))), None);
    for other in ["document", "iframe"] {
        let twice = page(address, &format!("{document}Sec-Fetch-Dest: {other}\r\n"));
        assert_eq!((twice.status, token_of(&twice)), (400, None), "{other}");
    }
    let rebound = "GET / HTTP/1.1\r\nHost: evil.example\r\nAccept: text/html\r\n\r\n";
    assert_eq!(exchange(connect(address), rebound.as_bytes()).status, 421);
    // Each start makes its own.
    let other = game(1).admin(options).start().unwrap();
    assert_ne!(token_of(&page(admin(&other), document)).unwrap(), token);
    assert_eq!(ask_with(admin(&other), "POST", "/undrain", &bearer).status, 401);
}

#[test]
fn a_page_that_was_not_asked_to_has_no_token() {
    let engine = game(1).admin(options()).start().unwrap();
    let address = admin(&engine);
    let shown = page(address, "");
    assert!(shown.body.contains("&quot;changes&quot;:&quot;token&quot;"), "it asks for the token");
    assert_eq!(token_of(&shown), None);
    assert!(!shown.body.contains(&token()));
    for name in ["page.css", "page.js", "base.js", "words.js", "plot.js", "sessions.js", "play.js"]
    {
        let file = get(address, &format!("/page/{name}"));
        assert_eq!(file.status, 200, "{name}");
        assert!(file.head.contains("Cross-Origin-Resource-Policy: same-origin"), "{}", file.head);
    }
    assert_eq!(get(address, "/page/page.html").status, 404);
    assert!(get(address, "/").body.starts_with("Shaddock's admin server"), "for terminals");
}
