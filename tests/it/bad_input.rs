//! Bad input over TCP: whatever a client sends, it is answered or closed as the protocol says,
//! counted under the right name, and nobody else notices. One shard serves the bad clients and a
//! witness, which echoes all the time.

use std::net::Shutdown;

use serde_json::json;
use shaddock::route::Dictionary;
use shaddock::wire::package::PackageType;
use shaddock::wire::protobuf::{ProtoTable, Protos};
use shaddock::{Limits, Reply, Welcome};
use support::witness::{ECHO, Reasons, Trial};
use support::{Client, Event, ack, builder, handshake, heartbeat, notify, package, request};

const PROTO: &str = "connector.entryHandler.proto";
const SCHEMAS: &str = r#"{"connector.entryHandler.proto": {
    "required string name": 1, "optional int32 n": 2, "repeated uInt32 xs": 3
}}"#;
const HANDSHAKE_BYTES_MAX: usize = 4096;
const PACKAGE_BYTES_MAX: usize = 64 * 1024;

/// How far the client has come before it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Fresh,
    Shaken,
    Working,
}

#[derive(Debug)]
enum Outcome {
    /// The handshake is answered with this code, then closed.
    Refused(u16),
    /// Closed without a word.
    Closed,
    Kicked(&'static str),
    /// The request of that id is answered so, and the session lives on.
    Answered(u32, Vec<u8>),
    /// Nothing comes, and the session lives on.
    Dropped,
}

struct Case {
    name: String,
    start: Start,
    bytes: Vec<u8>,
    outcome: Outcome,
    /// What is counted, besides the way in which the connection ends.
    counted: Option<&'static str>,
}

fn case(
    name: impl Into<String>,
    start: Start,
    bytes: impl Into<Vec<u8>>,
    outcome: Outcome,
    counted: impl Into<Option<&'static str>>,
) -> Case {
    Case { name: name.into(), start, bytes: bytes.into(), outcome, counted: counted.into() }
}

fn data(message: &[u8]) -> Vec<u8> {
    package(PackageType::Data, message)
}

/// A request whose parts may be anything: flag, id, route behind its length, body.
fn message(flag: u8, id: &[u8], route: &[u8], body: &[u8]) -> Vec<u8> {
    data(&[&[flag], id, &[route.len() as u8], route, body].concat())
}

fn internal_error(id: u32) -> Outcome {
    Outcome::Answered(id, br#"{"code":500}"#.to_vec())
}

/// Runs each case on a connection of its own.
fn run(trial: &Trial, cases: &[Case]) {
    for case in cases {
        let counted = trial.counted(&case.name, || play(trial, case));
        let end = match &case.outcome {
            Outcome::Refused(_) => None,
            Outcome::Closed | Outcome::Kicked(_) => Some("closed_protocol"),
            Outcome::Answered(..) | Outcome::Dropped => Some("closed_by_peer"),
        };
        let panic = case.name.contains("panic").then_some("callback_panics");
        let expected = case.counted.into_iter().chain(end).chain(panic);
        let expected: Reasons = expected.map(|name| (name, 1)).collect();
        assert_eq!(counted, expected, "{}", case.name);
    }
}

fn play(trial: &Trial, case: &Case) {
    let mut client = Client::connect(trial.address());
    if case.start != Start::Fresh {
        shake(&mut client);
    }
    if case.start == Start::Working {
        client.send(&ack());
    }
    client.send(&case.bytes);
    let name = &case.name;
    match &case.outcome {
        Outcome::Refused(code) => {
            let answer = Event::Handshake(json!({ "code": code }));
            assert_eq!(client.until_end(), [answer], "{name}");
        }
        Outcome::Closed => assert_eq!(client.until_end(), [], "{name}"),
        Outcome::Kicked(reason) => {
            let kick = Event::Kick(json!({ "reason": reason }));
            assert_eq!(client.until_end(), [kick], "{name}");
        }
        Outcome::Answered(id, body) => {
            let answer = Event::Response { id: *id, body: body.clone() };
            assert_eq!(client.next(), answer, "{name}");
            lives(&mut client, case);
        }
        Outcome::Dropped => lives(&mut client, case),
    }
}

fn shake(client: &mut Client) {
    client.send(&handshake());
    assert!(matches!(client.next(), Event::Handshake(_)));
}

/// The session works, or can be brought to work, and nothing has come before.
fn lives(client: &mut Client, case: &Case) {
    if case.start == Start::Fresh {
        shake(client);
    }
    if case.start != Start::Working {
        client.send(&ack());
    }
    client.send(&request(77, ECHO, "\"alive\""));
    let answer = Event::Response { id: 77, body: b"\"alive\"".to_vec() };
    assert_eq!(client.next(), answer, "{}", case.name);
}

#[test]
fn packages_of_a_wrong_type_or_at_a_wrong_time() {
    use Outcome::{Closed, Dropped};
    use Start::{Fresh, Shaken, Working};
    let trial = Trial::start(builder(1));
    let ignored = "ignored_packages";
    let early = request(1, ECHO, "1");
    let mut cases = vec![
        case("ack before the handshake", Fresh, ack(), Dropped, ignored),
        case("heartbeat before the handshake", Fresh, heartbeat(), Dropped, ignored),
        case("data before the handshake", Fresh, early.clone(), Dropped, ignored),
        case("bad data before the handshake", Fresh, data(b""), Dropped, ignored),
        case("heartbeat before the ack", Shaken, heartbeat(), Dropped, ignored),
        case("data before the ack", Shaken, early, Dropped, ignored),
        case("second handshake before the ack", Shaken, handshake(), Dropped, ignored),
        case("second handshake", Working, handshake(), Dropped, ignored),
        case("second ack", Working, ack(), Dropped, ignored),
        // Without the option they are ignored as in the original, and so is any body.
        case("heartbeat that nobody asked for", Working, heartbeat(), Dropped, None),
        case("heartbeat with a body", Working, *b"\x03\x00\x00\x02zz", Dropped, None),
    ];
    for start in [Fresh, Shaken, Working] {
        for kind in [0, 5, 6, 0x1f, 0x7f, 0xff] {
            // From here on it would be HTTP, see `websocket.rs`.
            if start == Fresh && kind >= 0x20 {
                continue;
            }
            let name = format!("{start:?}, type {kind}");
            cases.push(case(name, start, [kind, 0, 0, 0], Closed, "bad_package_type"));
        }
    }
    run(&trial, &cases);
    trial.finish();
}

#[test]
fn packages_over_the_limit_are_closed_before_their_body() {
    use Outcome::{Answered, Closed, Dropped};
    use Start::{Fresh, Shaken, Working};
    let limits = Limits {
        handshake_package_bytes_max: HANDSHAKE_BYTES_MAX,
        package_bytes_max: PACKAGE_BYTES_MAX,
        // So that no package is read in several turns, which would be counted.
        bytes_per_turn_max: 2 * PACKAGE_BYTES_MAX,
        ..Limits::default()
    };
    let trial = Trial::start(builder(1).limits(limits));
    let header = |kind: u8, len: usize| {
        let [_, high, middle, low] = (len as u32).to_be_bytes();
        [kind, high, middle, low]
    };
    let head = message(0, &[1], ECHO.as_bytes(), b"").len() - 4;
    let fits = vec![b'7'; PACKAGE_BYTES_MAX - head];
    let big = message(0, &[1], ECHO.as_bytes(), &fits);
    assert_eq!(big.len(), 4 + PACKAGE_BYTES_MAX);
    let early = package(PackageType::Data, &vec![0; HANDSHAKE_BYTES_MAX]);
    let mut cases = vec![
        case("at the limit", Working, big, Answered(1, fits), None),
        case("at the limit, early", Fresh, early.clone(), Dropped, "ignored_packages"),
        case("at the limit, unacknowledged", Shaken, early, Dropped, "ignored_packages"),
    ];
    for (start, limit) in
        [(Fresh, HANDSHAKE_BYTES_MAX), (Shaken, HANDSHAKE_BYTES_MAX), (Working, PACKAGE_BYTES_MAX)]
    {
        for kind in [1, 2, 3, 4] {
            for len in [limit + 1, (1 << 24) - 1] {
                let name = format!("{start:?}, type {kind}, {len} bytes");
                cases.push(case(name, start, header(kind, len), Closed, "package_too_long"));
            }
        }
    }
    run(&trial, &cases);

    // A handshake of exactly the limit is one like any other.
    let mut body = br#"{"sys":{}}"#.to_vec();
    body.resize(HANDSHAKE_BYTES_MAX, b' ');
    let mut client = Client::connect(trial.address());
    client.send(&package(PackageType::Handshake, &body));
    let Event::Handshake(answer) = client.next() else { panic!("no answer") };
    assert_eq!(answer["code"], 200);
    trial.finish();
}

#[test]
fn messages_cut_short_and_ids_over_32_bits() {
    use Outcome::{Answered, Closed};
    use Start::Working;
    let trial = Trial::start(builder(1));
    let mut cases = vec![
        case("no message", Working, data(b""), Closed, "bad_message"),
        // An id that the original decodes as negative, and hangs.
        case(
            "largest id",
            Working,
            message(0, &[0xff, 0xff, 0xff, 0xff, 0x0f], ECHO.as_bytes(), b"1"),
            Answered(u32::MAX, b"1".to_vec()),
            None,
        ),
        case(
            "id longer than it has to be",
            Working,
            message(0, &[0x81, 0x80, 0x00], ECHO.as_bytes(), b"1"),
            Answered(1, b"1".to_vec()),
            None,
        ),
    ];
    for id in [
        &[0x80, 0x80, 0x80, 0x80, 0x10][..],
        &[0xff, 0xff, 0xff, 0xff, 0x1f],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
        &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        &[0xff; 16],
    ] {
        let bytes = message(0, id, ECHO.as_bytes(), b"1");
        cases.push(case(format!("id {id:x?}"), Working, bytes, Closed, "bad_message"));
    }
    let body = br#"{"a":1}"#;
    let head = [b"\x00\x80\x01\x1b", ECHO.as_bytes()].concat();
    for cut in 0..=head.len() + body.len() {
        let whole = [&head, &body[..]].concat();
        // A body that is no whole JSON is the handler's affair.
        let outcome = match cut.checked_sub(head.len()) {
            None => Closed,
            Some(0) => Answered(128, b"{}".to_vec()),
            Some(len) => Answered(128, body[..len].to_vec()),
        };
        let counted = (cut < head.len()).then_some("bad_message");
        cases.push(case(format!("cut at {cut}"), Working, data(&whole[..cut]), outcome, counted));
    }
    for cut in 0..4 {
        let whole = b"\x01\x01\x00\x03";
        let name = format!("code cut at {cut}");
        cases.push(case(name, Working, data(&whole[..cut]), Closed, "bad_message"));
    }
    // Notifies and pushes have no id.
    for (name, cut) in [("notify", &b"\x02\x05abcd"[..]), ("push", b"\x06\xff"), ("code", b"\x03")]
    {
        cases.push(case(format!("{name} cut"), Working, data(cut), Closed, "bad_message"));
    }
    // A response has an id and nothing else.
    cases.push(case("response cut", Working, data(b"\x04\x80"), Closed, "bad_message"));
    run(&trial, &cases);
    trial.finish();
}

#[test]
fn message_types_and_reserved_bits() {
    use Outcome::{Answered, Dropped};
    use Start::Working;
    let trial = Trial::start(builder(1));
    let mut cases =
        vec![case("a response", Working, data(b"\x04\x05{}"), Dropped, "bad_message_type")];
    for kind in 4..=7 {
        for flag in [kind << 1, kind << 1 | 1, kind << 1 | 0xf0] {
            let name = format!("flag {flag:#x}");
            let bytes = message(flag, &[1], ECHO.as_bytes(), b"1");
            cases.push(case(name, Working, bytes, Dropped, "bad_message_type"));
        }
    }
    // Bits 5 to 7 are ignored, and the gzip bit is nobody's affair here.
    for bits in [0x10, 0x20, 0x40, 0x80, 0xf0] {
        let bytes = message(bits, &[1], ECHO.as_bytes(), b"1");
        let answer = Answered(1, b"1".to_vec());
        cases.push(case(format!("bits {bits:#x}"), Working, bytes, answer, None));
    }
    cases.push(case("notify", Working, notify(ECHO, "1"), Dropped, None));
    cases.push(case("id 0", Working, request(0, ECHO, "1"), Dropped, None));
    let push = message(6, &[], ECHO.as_bytes(), b"1");
    cases.push(case("a push counts as a notify", Working, push, Dropped, None));
    run(&trial, &cases);
    trial.finish();
}

#[test]
fn routes_that_lead_nowhere() {
    use Outcome::{Dropped, Kicked};
    use Start::Working;
    let dictionary = Dictionary::from_map([(ECHO, 3)]).unwrap();
    let trial = Trial::start(builder(1).dictionary(dictionary));
    let unknown = "unknown_route";
    let not_utf8 = [ECHO.as_bytes(), b"\xff"].concat();
    let long = [b'a'; 255];
    let mut cases = Vec::new();
    for route in [
        &b""[..],
        b"noroute",
        b".",
        b"..",
        b"...",
        b"a.b",
        b"a.b.c.d",
        b"nosuch.h.m",
        b"connector..echo",
        b"connector.entryHandler.",
        b"connector.x.y",
        b"connector.entryHandler.echo.",
        b"connector.entryHandler.echo\0",
        b"Connector.entryHandler.echo",
        b"connector.entryHandler.hasOwnProperty",
        b"connector.__proto__.toString",
        b"__proto__",
        b"\xff\xfe",
        &not_utf8,
        &long,
    ] {
        let name = format!("route {:?}", String::from_utf8_lossy(route));
        let bytes = message(0, &[9], route, b"{}");
        cases.push(case(&name, Working, bytes, internal_error(9), unknown));
        let bytes = message(2, &[], route, b"{}");
        cases.push(case(format!("{name}, notify"), Working, bytes, Dropped, unknown));
    }
    for code in [0, 1, 999, u16::MAX] {
        let [high, low] = u16::to_be_bytes(code);
        let bytes = data(&[1, 9, high, low, b'1']);
        cases.push(case(format!("code {code}"), Working, bytes, internal_error(9), unknown));
    }
    for route in ["connector.entryHandler.constructor", "a.b.constructor"] {
        let bytes = message(0, &[9], route.as_bytes(), b"{}");
        cases.push(case(route, Working, bytes, Kicked("attack"), "attacks"));
    }
    run(&trial, &cases);
    trial.finish();
}

#[test]
fn handshakes_that_are_refused() {
    use Outcome::Refused;
    use Start::Fresh;
    let trial = Trial::start(
        builder(1)
            .check_client(|sys_type, _| match sys_type {
                Some("panic") => panic!("on purpose"),
                sys_type => sys_type != Some("old"),
            })
            .user_handshake(|handshake| {
                assert!(handshake.request().sys("panic").is_none(), "on purpose");
                Ok(Welcome::new())
            }),
    );
    let refused = "refused_handshake";
    let whole = br#"{"sys":{"type":"t","version":"1","protoVersion":"x"},"user":{"a":[1]}}"#;
    let mut cases: Vec<Case> = (0..whole.len())
        .map(|cut| {
            let bytes = package(PackageType::Handshake, &whole[..cut]);
            case(format!("cut at {cut}"), Fresh, bytes, Refused(500), refused)
        })
        .collect();
    let deep = "[".repeat(8_000);
    let deeper = format!(r#"{{"sys":{}1{}}}"#, "[".repeat(5_000), "]".repeat(5_000));
    for body in [
        "null",
        "[]",
        "5",
        "true",
        "\"text\"",
        "{}",
        r#"{"sys":null}"#,
        r#"{"sys":0}"#,
        r#"{"sys":false}"#,
        r#"{"user":1}"#,
        r#"{"sys":{}}}"#,
        r#"{"sys":{},}"#,
        r#"{'sys':{}}"#,
        r#"{"sys":{"type":"panic"}}"#,
        r#"{"sys":{"panic":1}}"#,
        &deep,
        &deeper,
    ] {
        let bytes = package(PackageType::Handshake, body.as_bytes());
        let name = &body[..body.len().min(40)];
        cases.push(case(name, Fresh, bytes, Refused(500), refused));
    }
    let old = package(PackageType::Handshake, br#"{"sys":{"type":"old"}}"#);
    cases.push(case("an old client", Fresh, old.clone(), Refused(501), "refused_version"));
    // Nothing behind a refused handshake counts any more.
    let more = [old, ack(), request(1, ECHO, "1"), vec![0; 100]].concat();
    cases.push(case("an old client, pipelined", Fresh, more, Refused(501), "refused_version"));
    run(&trial, &cases);
    trial.finish();
}

#[test]
fn protobuf_bodies() {
    use Outcome::{Answered, Dropped};
    use Start::Working;
    let dictionary = Dictionary::from_map([(ECHO, 1), (PROTO, 2)]).unwrap();
    let client = Protos::parse_text(SCHEMAS).unwrap();
    let protos = ProtoTable::new(client.clone(), Protos::default());
    let builder = builder(1).dictionary(dictionary).protos(protos);
    let trial = Trial::start(builder.handler(PROTO, |request, _| Reply::borrowed(request.body())));
    let schema = client.schema(PROTO).unwrap();

    let whole = b"\n\x03n\xc3\xa9\x10\x05\x18\x02\x01\xac\x02";
    let bad = "bad_protobuf";
    let send = |body: &[u8]| message(0, &[9], PROTO.as_bytes(), body);
    let mut cases = vec![
        case(
            "a good body",
            Working,
            send(whole),
            Answered(9, r#"{"name":"né","n":-3,"xs":[1,300]}"#.into()),
            None,
        ),
        case("an unknown tag", Working, send(b"\x7a\x01a"), internal_error(9), bad),
        case("JSON", Working, send(br#"{"name":"x"}"#), internal_error(9), bad),
        case("a length without a text", Working, send(b"\n"), internal_error(9), bad),
        // As in the original, the one thing that may be cut short.
        case(
            "a text cut short",
            Working,
            send(b"\n\x05abc"),
            Answered(9, r#"{"name":"abc"}"#.into()),
            None,
        ),
        case("endless count", Working, send(b"\x18\xff\xff\xff\xff\x0f"), internal_error(9), bad),
        case("a notify", Working, message(2, &[], PROTO.as_bytes(), b"{"), Dropped, bad),
        case(
            "by its code",
            Working,
            data(&[&[1, 9, 0, 2], &b"{"[..]].concat()),
            internal_error(9),
            bad,
        ),
    ];
    let mut damaged: Vec<Vec<u8>> = (0..whole.len()).map(|cut| whole[..cut].to_vec()).collect();
    for place in 0..whole.len() {
        for bits in [0x01, 0x08, 0x80, 0xff] {
            let mut body = whole.to_vec();
            body[place] ^= bits;
            damaged.push(body);
        }
    }
    for body in damaged {
        let mut text = Vec::new();
        let (outcome, counted) = match schema.decode_to_json(&body, &mut text) {
            Ok(()) => (Answered(9, text), None),
            Err(_) => (internal_error(9), Some(bad)),
        };
        cases.push(case(format!("body {body:x?}"), Working, send(&body), outcome, counted));
    }
    run(&trial, &cases);
    trial.finish();
}

/// The bytes of a client that does everything right.
fn stream() -> Vec<u8> {
    [handshake(), ack(), request(1, ECHO, r#"{"a":1}"#)].concat()
}

/// What the server says to such bytes until it closes; the client says goodbye behind them.
fn until_closed(trial: &Trial, bytes: &[u8]) -> Vec<Event> {
    let mut client = Client::connect(trial.address());
    client.send(bytes);
    // The server may have closed already.
    client.stream.shutdown(Shutdown::Write).ok();
    client.until_end()
}

#[test]
fn a_stream_cut_anywhere_is_answered_so_far_and_freed() {
    let trial = Trial::start(builder(1));
    let stream = stream();
    let counted = trial.counted("cut streams", || {
        for cut in 0..=stream.len() {
            let events = until_closed(&trial, &stream[..cut]);
            let answers = usize::from(cut >= handshake().len()) + usize::from(cut == stream.len());
            assert_eq!(events.len(), answers, "cut at {cut}: {events:?}");
        }
    });
    assert_eq!(counted, Reasons::from([("closed_by_peer", stream.len() as u64 + 1)]));
    // The same, but the client vanishes without reading what it was told; some before they are
    // let in, so that they count as nothing.
    let counted = trial.counted("dropped streams", || {
        for cut in 0..=stream.len() {
            Client::connect(trial.address()).send(&stream[..cut]);
        }
        // Comes in behind all of them.
        assert_eq!(until_closed(&trial, &stream).len(), 2);
    });
    // So many at once are not all greeted in one turn.
    let expected = ["closed_by_peer", "handshake_waits"];
    assert!(counted.keys().all(|reason| expected.contains(reason)), "{counted:?}");
    trial.finish();
}

#[test]
fn a_stream_damaged_anywhere_hangs_nobody() {
    let trial = Trial::start(builder(1));
    let stream = stream();
    let mut connections = 0;
    let counted = trial.counted("damaged streams", || {
        for place in 0..stream.len() {
            for bits in [0x01, 0x02, 0x10, 0x80, 0xff] {
                let mut bytes = stream.clone();
                bytes[place] ^= bits;
                let events = until_closed(&trial, &bytes);
                assert!(events.len() <= 2, "{place} ^ {bits:#x}: {events:?}");
                connections += 1;
            }
        }
    });
    // Each connection has ended for one reason.
    let ends = ["closed_by_peer", "closed_protocol", "refused_handshake", "refused_http"];
    let ended: u64 = ends.iter().filter_map(|end| counted.get(end)).sum();
    assert_eq!(ended, connections, "{counted:?}");
    trial.finish();
}

#[test]
fn noise_hangs_nobody() {
    let trial = Trial::start(builder(1));
    let mut random = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    trial.counted("noise", || {
        for round in 0..200 {
            let noise: Vec<u8> = (0..next() % 300).map(|_| next() as u8).collect();
            let start = if round % 2 == 0 { [handshake(), ack()].concat() } else { Vec::new() };
            // Short packages of noise, so that more than the first header is looked at.
            let packages = noise.chunks(8).flat_map(|body| package(PackageType::Data, body));
            let bytes: Vec<u8> = start.into_iter().chain(packages).chain(noise.clone()).collect();
            let mut client = Client::connect(trial.address());
            client.send(&bytes);
            client.stream.shutdown(Shutdown::Write).ok();
            while client.next() != Event::End {}
        }
    });
    trial.finish();
}

#[test]
fn a_stream_in_single_bytes_is_the_same_stream() {
    let interval = std::time::Duration::from_secs(60);
    let trial = Trial::start(builder(1).heartbeat(interval));
    let bytes = [
        heartbeat(),
        handshake(),
        handshake(),
        ack(),
        heartbeat(),
        request(1, ECHO, r#"{"a":1}"#),
        notify(ECHO, "{}"),
        request(300, "no.such.route", "{}"),
        data(b"\x0e{}"),
        request(70_000, ECHO, &"7".repeat(3_000)),
        request(2, ECHO, ""),
        vec![9, 0, 0, 0],
        request(3, ECHO, "never"),
    ]
    .concat();
    let mut whole = Vec::new();
    let counted = trial.counted("one write", || {
        let mut client = Client::connect(trial.address());
        client.send(&bytes);
        whole = client.until_end();
    });
    assert_eq!(whole.len(), 7, "{whole:?}");
    let counted_apart = trial.counted("single bytes", || {
        let mut client = Client::connect(trial.address());
        for byte in &bytes {
            // What follows the bad package may find the connection closed.
            if std::io::Write::write_all(&mut client.stream, &[*byte]).is_err() {
                break;
            }
        }
        assert_eq!(client.until_end(), whole);
    });
    assert_eq!(counted_apart, counted);
    trial.finish();
}
