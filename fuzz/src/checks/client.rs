//! The client's side of a connection, against bytes that a server might send.

use std::time::{Duration, Instant};

use shaddock::client::{Event, Options, Protocol};
use shaddock::wire::http;
use shaddock::wire::package::{self, PackageType};

/// For any bytes behind a handshake or in its place, over TCP or a WebSocket, the events are the
/// same for every cut; each request is answered at most once, and nothing comes behind the end,
/// which always comes once the server is silent.
pub fn check(input: &[u8]) {
    let [setup, cut, server @ ..] = input else { return };
    let setup = Setup {
        is_websocket: setup & 1 != 0,
        handshake: HANDSHAKES[usize::from(setup >> 1 & 3)],
        requests: usize::from(setup >> 3 & 3),
    };
    let whole = play(&setup, server, usize::MAX);
    let cut = play(&setup, server, 1 + usize::from(*cut));
    assert_eq!(whole, cut, "other cuts, other events");
}

/// The differences between connections.
struct Setup {
    is_websocket: bool,
    /// The server's handshake in front of the input, if any.
    handshake: &'static [u8],
    /// The requests that are sent once the handshake is done.
    requests: usize,
}

fn play(setup: &Setup, server: &[u8], cut: usize) -> Vec<String> {
    let start = Instant::now();
    let options =
        Options::new().package_bytes_max(PACKAGE_BYTES_MAX).output_bytes_max(OUTPUT_BYTES_MAX);
    let mut run = Run { requests: setup.requests, ..Run::default() };
    let mut protocol;
    if setup.is_websocket {
        protocol = Protocol::websocket(options, "host:1", "/", start);
        let accepted = accept(protocol.output());
        protocol.sent(protocol.output().len());
        protocol.receive(&accepted, start);
    } else {
        protocol = Protocol::new(options, start);
    }
    assert!(!protocol.output().is_empty(), "a handshake");
    let mut handshake = Vec::new();
    if !setup.handshake.is_empty() {
        let mut bytes = Vec::new();
        package::encode(PackageType::Handshake, setup.handshake, &mut bytes).expect("it is short");
        if setup.is_websocket {
            shaddock::wire::websocket::encode_binary_header(bytes.len(), &mut handshake);
        }
        handshake.extend_from_slice(&bytes);
    }
    for piece in [&handshake[..], server].concat().chunks(cut) {
        protocol.receive(piece, start);
        run.take_events(&mut protocol, start);
    }
    // A heartbeat, requests that time out, and the end of a server that says nothing more.
    for seconds in [3_600, 7_200, 360_000] {
        let now = start + Duration::from_secs(seconds);
        protocol.handle_timeout(now);
        run.take_events(&mut protocol, now);
        assert!(protocol.next_timeout().is_none_or(|next| next > now), "it never rests");
    }
    if !run.is_over {
        protocol.end(shaddock::client::Closed::ByServer);
        run.take_events(&mut protocol, start);
    }
    assert!(run.is_over, "the end never comes");
    run.events
}

/// The outcome so far.
#[derive(Default)]
struct Run {
    requests: usize,
    /// The ids of requests that are not answered.
    waiting: Vec<u32>,
    events: Vec<String>,
    is_over: bool,
}

impl Run {
    fn take_events(&mut self, protocol: &mut Protocol, now: Instant) {
        while let Some(event) = protocol.poll_event() {
            assert!(!self.is_over, "behind the end: {event:?}");
            self.events.push(format!("{event:?}"));
            match event {
                Event::Ready { .. } => {
                    assert!(self.events.len() == 1, "ready is first");
                    for _ in 0..self.requests {
                        let id = protocol.request("a.b.c", b"{\"n\":1}", now);
                        self.waiting.push(id.expect("there is room"));
                    }
                }
                Event::Answer { id, .. } => {
                    let at = self.waiting.iter().position(|&waits| waits == id);
                    self.waiting.swap_remove(at.expect("answered once, and asked for"));
                }
                Event::Closed(_) => self.is_over = true,
                _ => {}
            }
        }
        let bound = OUTPUT_BYTES_MAX + 1_024;
        assert!(protocol.output().len() <= bound, "more output than the bound");
    }
}

/// A server's answer to the upgrade.
fn accept(request: &[u8]) -> Vec<u8> {
    let status = http::decode(request, 8_192).expect("the client's request is valid");
    let http::UpgradeStatus::Complete { upgrade, .. } = status else { panic!("cut off") };
    let mut answer = Vec::new();
    http::encode_accept(&upgrade, &mut answer);
    answer
}

const PACKAGE_BYTES_MAX: usize = 2_000;
const OUTPUT_BYTES_MAX: usize = 4_000;
const HANDSHAKES: [&[u8]; 4] = [
    b"",
    br#"{"code":200}"#,
    br#"{"code":200,"sys":{"heartbeat":3,"dict":{"a.b.c":1,"onA":2},"useDict":true}}"#,
    br#"{"code":200,"sys":{"dict":{"onA":2},"protos":{"version":"v",
        "client":{"a.b.c":{"n":{"option":"required","type":"uInt32","tag":1}}},
        "server":{"a.b.c":{"s":{"option":"optional","type":"string","tag":1}},
            "onA":{"xs":{"option":"repeated","type":"sInt32","tag":1}}}}}}"#,
];
