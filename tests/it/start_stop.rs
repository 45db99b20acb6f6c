//! An engine starts or says why not, and stops within the time it is given.

use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use serde_json::json;
use shaddock::{
    Audience, Builder, Drain, Engine, HandleError, Handlers, Limits, Reply, Shards, StartError,
    Workers,
};
use support::{Client, Event, PATIENCE, builder, eventually, handshake, request};

const ECHO: &str = "connector.play.echo";

fn with_echo(builder: Builder) -> Builder {
    builder.handler(ECHO, |request, _| Reply::borrowed(request.body()))
}

fn nothing() -> Workers {
    Workers::new(1, |_: &mut Handlers| {})
}

#[test]
fn a_shutdown_ends_in_time_though_connections_never_close() {
    for shards in [1, 2] {
        let engine = with_echo(builder(shards))
            .handler("connector.play.never", |_, session| session.defer(std::mem::forget))
            .start()
            .unwrap();
        // Idle, in its handshake, silent, and one that waits for an answer. None of them closes.
        let idle = Client::ready(engine.local_addr());
        let mut shaking = Client::connect(engine.local_addr());
        shaking.send(&handshake());
        assert!(matches!(shaking.next(), Event::Handshake(_)));
        let silent = Client::connect(engine.local_addr());
        let mut waiting = Client::ready(engine.local_addr());
        waiting.send(&request(1, "connector.play.never", "{}"));
        eventually("all are there", || {
            let counters = engine.handle().counters();
            (counters.connections_accepted, counters.requests) == (4, 1)
        });
        let within = Duration::from_millis(1_500);
        let report = engine.shutdown(Drain::within(within));
        assert!(report.took < within + Duration::from_secs(1), "{report:?}");
        assert_eq!(report.counters.connections_closed, 4);
        assert_eq!(report.counters.closed_shutdown, 4);
        for mut client in [idle, waiting, shaking, silent] {
            assert_eq!(client.until_end(), [], "a stop is no kick");
        }
    }
}

/// The original's `app.stop` ends connections without a word (its connector closes its sockets, no
/// more), and stock clients connect again behind that; behind a KICK they do not.
#[test]
fn a_reason_for_the_end_is_told_where_it_is_asked_for() {
    let engine = with_echo(builder(2)).shutdown_kick("maintenance").start().unwrap();
    let mut idle = Client::ready(engine.local_addr());
    assert_eq!(idle.ask(1, ECHO, "1"), "1");
    let mut shaking = Client::connect(engine.local_addr());
    shaking.send(&handshake());
    assert!(matches!(shaking.next(), Event::Handshake(_)));
    engine.shutdown(Drain::within(PATIENCE));
    assert_eq!(idle.until_end(), [Event::Kick(json!({"reason": "maintenance"}))]);
    assert_eq!(shaking.until_end(), [], "only a session is told");
}

#[test]
fn a_shutdown_now_waits_for_nobody() {
    let engine = with_echo(builder(2)).forward("room", nothing()).start().unwrap();
    let _clients: Vec<Client> = (0..8).map(|_| Client::ready(engine.local_addr())).collect();
    let report = engine.shutdown(Drain::now());
    assert!(report.took < Duration::from_secs(1), "{report:?}");
    assert_eq!(report.counters.connections_closed, report.counters.connections_accepted);
}

/// A client that never closes its side would make each stop last for the whole linger.
#[test]
fn a_client_that_ignores_its_end_makes_no_stop_last() {
    const LOGIN: &str = "connector.play.login";
    let limits = Limits { close_linger: Duration::from_secs(4), ..Limits::default() };
    for is_kicked_before in [false, true] {
        let engine =
            builder(1).limits(limits.clone()).async_handler(LOGIN, async |_, mut session| {
                session.bind("amy").await.unwrap();
                Reply::empty()
            });
        let engine = engine.start().unwrap();
        let mut client = Client::ready(engine.local_addr());
        client.ask(1, LOGIN, "{}");
        if is_kicked_before {
            engine.handle().kick("amy", Some("bye")).unwrap();
            assert_eq!(client.until_end().len(), 1);
        }
        let report = engine.shutdown(Drain::within(2 * PATIENCE));
        assert!(report.took < Duration::from_millis(3_500), "{report:?}");
        drop(client);
    }
}

#[test]
fn nobody_can_connect_once_a_shutdown_has_begun() {
    let engine = with_echo(builder(2)).start().unwrap();
    let address = engine.local_addr();
    engine.shutdown(Drain::within(PATIENCE));
    assert!(std::net::TcpStream::connect(address).is_err());
    // The port is free at once.
    let again = Engine::builder().listen(address.to_string()).shards(Shards::Count(1));
    let engine = with_echo(again).start().unwrap();
    assert_eq!(Client::ready(engine.local_addr()).ask(1, ECHO, "1"), "1");
}

#[test]
fn a_handle_outlives_its_engine_and_says_so() {
    let engine = with_echo(builder(2)).start().unwrap();
    let handle = engine.handle();
    Client::ready(engine.local_addr()).ask(1, ECHO, "1");
    engine.shutdown(Drain::now());
    assert_eq!(handle.push("amy", "on", "{}"), Err(HandleError::Stopped));
    assert_eq!(handle.broadcast("on", "{}", Audience::all()), Err(HandleError::Stopped));
    assert_eq!(handle.kick("amy", None), Err(HandleError::Stopped));
    assert_eq!(handle.deny_hosts(&[]), Err(HandleError::Stopped));
    assert_eq!(handle.metrics().unwrap_err(), HandleError::Stopped);
    assert_eq!(handle.statistics().unwrap_err(), HandleError::Stopped);
    assert_eq!(handle.counters().requests, 1, "counters are still there");
}

/// Each mistake of an embedder is told by the name of the option, before anything is started.
#[test]
fn what_is_wrong_with_a_description_is_named() {
    let error = |builder: Builder| builder.start().unwrap_err().to_string();
    let limits = |limits: Limits| error(builder(1).limits(limits));
    let in_use = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = in_use.local_addr().unwrap().to_string();
    let cases: [(&str, String); 14] = [
        ("`listen`", error(Engine::builder())),
        ("`localhost`", error(builder(1).listen("localhost"))),
        ("`127.0.0.1:99999`", error(builder(1).listen("127.0.0.1:99999"))),
        ("192.0.2.1:1", error(builder(1).listen("192.0.2.1:1"))),
        (&taken, error(builder(1).listen(&taken))),
        ("`shards`", error(builder(0))),
        ("`shards and workers`", error(builder(u16::MAX))),
        ("`room`", error(builder(1).forward("room", nothing()).forward("room", nothing()))),
        ("`connector`", error(builder(1).forward("connector", nothing()))),
        ("`room`", error(builder(1).route("room", |_, _| None))),
        ("`heartbeat`", error(builder(1).heartbeat(Duration::ZERO))),
        ("`heartbeat_timeout`", error(builder(1).heartbeat_timeout(PATIENCE))),
        ("`receive_buffers`", limits(Limits { receive_buffers: 3, ..Limits::default() })),
        ("`connections_max`", limits(Limits { connections_max: 0, ..Limits::default() })),
    ];
    for (name, text) in cases {
        assert!(text.contains(name), "{name}: {text}");
    }
}

#[test]
fn more_mistakes_of_an_embedder_are_named() {
    let error = |builder: Builder| builder.start().unwrap_err().to_string();
    let forwarded_twice = builder(1).forward("room", nothing()).forward("room", nothing());
    assert!(error(forwarded_twice).contains("`forward`"));
    assert!(error(builder(1).route("room", |_, _| None)).contains("`route`"));
    let too_many = builder(1).forward("room", Workers::new(u16::MAX, |_: &mut Handlers| {}));
    assert!(error(too_many).contains("`shards and workers`"));
    let too_many = builder(1)
        .forward("room", Workers::new(u16::MAX, |_: &mut Handlers| {}))
        .forward("area", Workers::new(u16::MAX, |_: &mut Handlers| {}));
    assert!(error(too_many).contains("`shards and workers`"));
    let nobody = builder(1).forward("room", Workers::new(0, |_: &mut Handlers| {}));
    assert!(error(nobody).contains("`forward`"));
    assert!(
        error(builder(1).heartbeat_timeout(Duration::ZERO).heartbeat(PATIENCE))
            .contains("`heartbeat_timeout`")
    );
    assert!(error(builder(1).heartbeat(Duration::from_micros(1))).contains("`heartbeat`"));
}

/// A port that another engine listens on is taken too, though the shards of one engine share it.
#[test]
fn two_engines_do_not_share_a_port() {
    let engine = with_echo(builder(2)).start().unwrap();
    let address = engine.local_addr();
    let other = with_echo(builder(1)).listen(address.to_string()).start();
    assert!(matches!(other, Err(StartError::AddressInUse(taken)) if taken == address));
    assert_eq!(Client::ready(address).ask(1, ECHO, "1"), "1");
}

/// Tells a run of this test that it is the one with few descriptors.
const CHILD: &str = "SHADDOCK_TEST_FEW_DESCRIPTORS";

#[test]
fn too_few_descriptors_are_told_with_what_is_needed() {
    const NAME: &str = "start_stop::too_few_descriptors_are_told_with_what_is_needed";
    if std::env::var_os(CHILD).is_some() {
        let error = with_echo(builder(4)).start().unwrap_err();
        assert!(matches!(error, StartError::Descriptors { .. }), "{error}");
        println!("said: {error}");
        return;
    }
    let output = Command::new("sh")
        .args(["-c", "ulimit -n 100 && exec \"$0\" --exact \"$1\" --nocapture"])
        .arg(std::env::current_exe().unwrap())
        .arg(NAME)
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let said = "said: the limit of open descriptors is 100 and must be 160 at least; raise it \
                with `ulimit -n` or LimitNOFILE=";
    assert!(text.contains(said), "{text}");
}
