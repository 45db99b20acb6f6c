//! Who watches an engine harms neither it nor those who watch it, too: shards that hang, readers
//! that do not read, many who ask at once.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use shaddock::{Engine, Reply};
use support::folder::Folder;
use support::{Client, PATIENCE, eventually};

use crate::admin::{
    BIND, CHAT, ECHO, admin, ask_with, connect, game, get, options, samples, token,
};

const HANG: &str = "connector.play.hang";

/// Has the shards that hang go on, at the end of a test in any case.
struct Release(Arc<AtomicBool>);

impl Drop for Release {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// An engine of two shards, one of which hangs, with a client in each: the one of the shard that
/// hangs is told first.
fn with_a_shard_that_hangs() -> (Engine, [Client; 2], [String; 2], Release) {
    let released = Arc::new(AtomicBool::new(false));
    let is_released = Arc::clone(&released);
    let builder = game(2).handler(HANG, move |_, _| {
        let deadline = Instant::now() + 6 * PATIENCE;
        while !is_released.load(Ordering::SeqCst) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        Reply::json(&"released")
    });
    let engine = builder.admin(options()).start().unwrap();
    let address = admin(&engine);
    let mut of_shard = [None, None];
    for number in 0..1_000 {
        let mut client = Client::ready(engine.local_addr());
        let uid = format!("uid-{number}");
        client.ask(1, BIND, &uid);
        let path = format!("/sessions?uid={uid}");
        eventually("it is bound", || get(address, &path).json()["matching"] == 1);
        let id = get(address, &path).json()["sessions"][0]["id"].as_str().unwrap().to_owned();
        let shard: usize = id.split('.').next().unwrap().parse().unwrap();
        of_shard[shard].get_or_insert((client, id));
        if of_shard.iter().all(Option::is_some) {
            break;
        }
    }
    let [hangs, serves] = of_shard.map(|found| found.expect("both shards have a client"));
    let (mut hanging, id) = hangs;
    hanging.send(&support::request(2, HANG, ""));
    let handle = engine.handle();
    eventually("it hangs", || handle.wait_for_turns(Duration::from_millis(50)).is_err());
    (engine, [hanging, serves.0], [id, serves.1], Release(released))
}

#[test]
fn a_shard_that_hangs_is_told_and_holds_up_nobody_who_needs_another() {
    let (engine, [mut hanging, mut served], [hangs, serves], release) = with_a_shard_that_hangs();
    let address = admin(&engine);
    // As many as may look at all sessions at once: the shard that serves is told of.
    let lists = [(); 4].map(|()| thread::spawn(move || get(address, "/sessions?sort=id")));
    for list in lists {
        let list = list.join().unwrap();
        assert_eq!(list.status, 200, "{}", list.body);
        assert_lists_one(&list.json(), &hangs, &serves);
    }
    // Nobody waits for it any more, so that any number may look.
    let start = Instant::now();
    for path in ["/sessions", "/sessions?sort=id", "/closed"].iter().cycle().take(30) {
        let list = get(address, path).json();
        assert_eq!(list["missing_shards"], json!([shard_of(&hangs)]), "{list}");
    }
    let took = start.elapsed();
    assert!(took < PATIENCE / 2, "{took:?}");
    let lines = format!("Authorization: Bearer {}\r\n", token());
    for (of, status) in [("uids/nobody", 504), (&format!("sessions/{serves}"), 200)] {
        let answer = ask_with(address, "POST", &format!("/{of}/record"), &lines);
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    assert_eq!(get(address, &format!("/sessions/{serves}")).status, 200);
    let scraped = get(address, "/metrics");
    assert_eq!(scraped.status, 200, "a scrape asks no shard");
    assert!(samples(&scraped.body)["shaddock_connections_accepted_total"] >= 2.0);
    assert_eq!(get(address, "/livez").status, 200, "it may yet go on");
    let one = get(address, &format!("/sessions/{hangs}"));
    assert_eq!(one.status, 504, "{}", one.body);
    assert!(one.body.contains("in time"), "{}", one.body);
    assert_eq!(served.ask(2, ECHO, "1"), "1");
    // Longer than a turn may take, which is what /livez and the metric tell.
    let deadline = Instant::now() + 3 * PATIENCE;
    let alive = loop {
        let answer = get(address, "/livez");
        if answer.status == 503 || Instant::now() > deadline {
            break answer;
        }
        thread::sleep(Duration::from_millis(200));
    };
    let shard = shard_of(&hangs).to_string();
    assert_eq!((alive.status, alive.body), (503, format!("shard {shard} hangs\n")));
    let figures = samples(&get(address, "/metrics").body);
    let silent =
        |shard: &str| figures[&format!("shaddock_shard_silent_seconds{{shard=\"{shard}\"}}")];
    assert!(silent(&shard) > 10.0 && silent(serves.split('.').next().unwrap()) < 10.0);
    for reason in ["time", "walks"] {
        let name = format!("shaddock_admin_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(figures[&name], 0.0, "{reason}");
    }
    drop(release);
    assert_eq!(hanging.answer(2), "\"released\"");
    eventually("it is alive", || get(address, "/livez").status == 200);
    assert_eq!(get(address, &format!("/sessions/{hangs}")).status, 200);
    let list = get(address, "/sessions").json();
    assert_eq!((&list["missing_shards"], list["all"].as_u64() >= Some(2)), (&json!([]), true));
}

fn shard_of(id: &str) -> u16 {
    id.split('.').next().unwrap().parse().unwrap()
}

/// A list of what there is lacks the sessions of the shard that hangs, and has the others.
fn assert_lists_one(list: &serde_json::Value, hangs: &str, serves: &str) {
    assert_eq!(list["missing_shards"], json!([shard_of(hangs)]), "{list}");
    let sessions = list["sessions"].as_array().unwrap();
    let has = |id: &str| sessions.iter().any(|session| session["id"] == id);
    assert!(has(serves) && !has(hangs), "{list}");
}

#[test]
fn two_who_scrape_under_load_see_counts_that_grow_and_end_alike() {
    const REQUESTS: u32 = 3_000;
    const COUNT: &str = "shaddock_messages_sent_total{type=\"response\"}";
    let engine = game(2).admin(options()).start().unwrap();
    let (address, game) = (admin(&engine), engine.local_addr());
    let is_over = Arc::new(AtomicBool::new(false));
    let scrapers = [(); 2].map(|()| {
        let is_over = Arc::clone(&is_over);
        thread::spawn(move || {
            let mut seen = Vec::new();
            while !is_over.load(Ordering::SeqCst) {
                seen.push(samples(&get(address, "/metrics").body)[COUNT]);
            }
            seen
        })
    });
    let mut client = Client::ready(game);
    for id in 1..=REQUESTS {
        client.ask(id, ECHO, "1");
    }
    is_over.store(true, Ordering::SeqCst);
    for scraper in scrapers {
        let seen = scraper.join().unwrap();
        assert!(seen.is_sorted() && !seen.is_empty(), "{seen:?}");
    }
    for _ in 0..2 {
        let samples = samples(&get(address, "/metrics").body);
        let expected = f64::from(REQUESTS);
        assert_eq!(samples[COUNT], expected);
        assert_eq!(samples["shaddock_messages_received_total{type=\"request\"}"], expected);
    }
}

/// Uids are long, and whoever lists them reads nothing.
#[test]
fn lists_are_bounded_and_their_slow_readers_keep_nobody_out() {
    const SESSIONS: usize = 400;
    let folder = Folder::create();
    let path = folder.path().join("admin.sock");
    let engine = game(2).admin(options().socket(&path)).start().unwrap();
    let address = admin(&engine);
    let clients: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let mut client = Client::ready(engine.local_addr());
            client.ask(1, BIND, &format!("{number}-{}", "字".repeat(1_000)));
            client
        })
        .collect();
    let bound = || engine.handle().metrics().unwrap().uids;
    eventually("all are bound", || bound() == SESSIONS);
    let list = get(address, "/sessions?sort=age_s").json();
    assert_eq!((&list["truncated"], &list["matching"]), (&json!(false), &json!(SESSIONS)));
    for session in list["sessions"].as_array().unwrap() {
        let uid = session["uid"].as_str().unwrap();
        assert!(uid.chars().count() == 257 && uid.ends_with('…'), "{uid}");
    }
    // All of them, a part at a time.
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let list = get(address, &format!("/sessions?sort=id&limit=150{after}")).json();
        let page = list["sessions"].as_array().unwrap();
        assert!(page.len() <= 150);
        ids.extend(page.iter().map(|session| session["id"].as_str().unwrap().to_owned()));
        let Some(next) = list["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(ids.len(), SESSIONS);
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), SESSIONS, "each once");
    for bad in ["sort=age_s&after=0.1.2", "sort=id&after=x", "sort=id&after=0.1.2&offset=1"] {
        assert_eq!(get(address, &format!("/sessions?{bad}")).status, 400, "{bad}");
    }
    // Of a shard that is not there.
    assert_eq!(get(address, "/sessions?sort=id&after=7.1.1").json()["sessions"], json!([]));
    let asked: Vec<_> = (0..16)
        .map(|_| {
            let mut socket = UnixStream::connect(&path).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            socket.write_all(b"GET /sessions HTTP/1.1\r\n\r\n").unwrap();
            // Its answer has begun.
            let mut start = [0; 12];
            socket.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
            socket
        })
        .collect();
    eventually("somebody else gets in", || {
        // One that is refused may be reset before its request is read.
        let mut socket = UnixStream::connect(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut text = String::new();
        let asked = socket.write_all(b"GET /status HTTP/1.1\r\n\r\n");
        let answered = asked.and_then(|()| socket.read_to_string(&mut text));
        answered.is_ok() && text.starts_with("HTTP/1.1 200")
    });
    drop((asked, clients));
}

#[test]
fn traffic_and_the_last_route_are_told_of_each_session_and_stay_when_it_has_ended() {
    let engine = game(1).admin(options()).start().unwrap();
    let address = admin(&engine);
    let mut idle = Client::ready(engine.local_addr());
    idle.ask(1, BIND, "idle");
    let mut busy = Client::ready(engine.local_addr());
    busy.ask(1, BIND, "busy");
    for id in 2..=11 {
        busy.ask(id, ECHO, "[1]");
    }
    for id in 12..=16 {
        busy.ask(id, CHAT, "[1]");
    }
    busy.send(&support::notify(ECHO, "[2]"));
    engine.handle().push("busy", "onChat", "[3]").unwrap();
    assert!(matches!(busy.next(), support::Event::Push { .. }));
    let counts = |it: &serde_json::Value| {
        ["received_messages", "sent_messages"].map(|name| it[name].as_u64().unwrap())
    };
    // 16 requests and a notify; 16 answers and a push.
    let list = || get(address, "/sessions?sort=messages").json()["sessions"].clone();
    eventually("all is counted", || counts(&list()[0]) == [17, 17]);
    let list = list();
    assert_eq!((&list[0]["uid"], &list[1]["uid"]), (&json!("busy"), &json!("idle")));
    assert_eq!((counts(&list[1]), &list[1]["last_route"]), ([1, 1], &json!(BIND)));
    assert_eq!(list[0]["last_route"], ECHO);
    let most = get(address, "/sessions?sort=sent_bytes&limit=1").json();
    assert_eq!(most["sessions"][0]["uid"], "busy");
    let bytes =
        |name: &str| list.as_array().unwrap().iter().map(|it| it[name].as_u64().unwrap()).sum();
    let counters = engine.handle().counters();
    let (received, sent): (u64, u64) = (bytes("received_bytes"), bytes("sent_bytes"));
    assert_eq!((received, sent), (counters.bytes_in, counters.bytes_out));
    busy.ask(17, CHAT, "[1]");
    drop(busy);
    let ended = || get(address, "/closed?uid=busy").json()["closed"][0].clone();
    eventually("it has ended", || !ended().is_null());
    let ended = ended();
    assert_eq!((counts(&ended), &ended["last_route"]), ([18, 18], &json!(CHAT)), "{ended}");
    let id = ended["id"].as_str().unwrap();
    assert_eq!(get(address, &format!("/closed?id={id}")).json()["closed"][0]["uid"], "busy");
    assert_eq!(get(address, "/closed?id=x").status, 400);
}

#[test]
fn no_more_than_a_few_look_at_sessions_at_once() {
    let (engine, _clients, [hangs, _], _release) = with_a_shard_that_hangs();
    let address = admin(&engine);
    let sockets: Vec<_> = (0..5)
        .map(|_| {
            let mut socket = connect(address);
            let path = format!("/sessions/{hangs}");
            write!(socket, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n").unwrap();
            thread::sleep(Duration::from_millis(50));
            socket
        })
        .collect();
    let mut statuses: Vec<_> = sockets
        .into_iter()
        .map(|mut socket| {
            let mut text = String::new();
            socket.read_to_string(&mut text).unwrap();
            text.split(' ').nth(1).unwrap().to_owned()
        })
        .collect();
    statuses.sort();
    assert_eq!(statuses, ["503", "504", "504", "504", "504"]);
    let head = ask_with(address, "HEAD", "/metrics", "");
    assert_eq!(head.status, 200);
}
