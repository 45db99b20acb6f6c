//! Clients that ask for much work with few bytes: bodies of 2 KiB that inflate to 2 MiB, and
//! signatures that are wrong. A witness on the same shard waits for no more than a turn's share.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use flate2::write::ZlibEncoder;
use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::package::PackageType;
use shaddock::{Dialect, Engine, Listener, Reply};
use support::{Client, ack, builder, handshake, package};

const ECHO: &str = "connector.play.echo";
const NOTE: &str = "connector.play.note";
const ASKED: u32 = 100;

/// Clients that send the same over and over again, and read what they get.
struct Attack {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    fn start(clients: impl IntoIterator<Item = TcpStream>, bytes: &[u8]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for stream in clients {
            let (mut reading, mut writing) = (stream.try_clone().unwrap(), stream);
            let (stop, bytes) = (Arc::clone(&stop), bytes.to_vec());
            threads.push(thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) && writing.write_all(&bytes).is_ok() {}
            }));
            threads.push(thread::spawn(move || {
                let mut buffer = [0; 16 * 1024];
                while reading.read(&mut buffer).is_ok_and(|len| len > 0) {}
            }));
        }
        Self { stop, threads }
    }

    /// The engine closes its clients, which ends those that wait for it.
    fn end(self, engine: Engine) {
        self.stop.store(true, Ordering::Relaxed);
        drop(engine);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

fn median(mut ask: impl FnMut(u32)) -> Duration {
    let mut took: Vec<Duration> = (1..=ASKED)
        .map(|id| {
            let start = Instant::now();
            ask(id);
            start.elapsed()
        })
        .collect();
    took.sort();
    took[took.len() / 2]
}

/// Sixteen clients; each message took as long as it is, and a buffer holds seven of them.
#[test]
fn bodies_that_grow_keep_nobody_waiting() {
    const CLIENTS: usize = 16;
    let engine = builder(1)
        .listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya))
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(NOTE, |_, _| Reply::empty())
        .start()
        .unwrap();
    let mut witness = Client::ready(engine.local_addr());
    let mut encoder = ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(&vec![b'a'; 2 * 1024 * 1024 - 100]).unwrap();
    let body = encoder.finish().unwrap();
    assert!(body.len() < 3_000);
    let (kind, route) = (MessageType::Notify, Some(RouteRef::Text(NOTE.as_bytes())));
    let mut bytes = Vec::new();
    message::encode(&Message { id: 0, kind, route, body: &body, gzip: true }, &mut bytes).unwrap();
    let flood = package(PackageType::Data, &bytes).repeat(16);
    let clients = (0..CLIENTS).map(|_| {
        let mut stream = TcpStream::connect(engine.local_addrs()[1]).unwrap();
        stream.write_all(&[handshake(), ack()].concat()).unwrap();
        stream
    });
    let attack = Attack::start(clients.collect::<Vec<_>>(), &flood);
    thread::sleep(Duration::from_millis(200));
    let median = median(|id| assert_eq!(witness.ask(id, ECHO, "1"), "1"));
    let counters = engine.handle().counters();
    attack.end(engine);
    // A filling of the buffers would inflate gigabytes; without optimizations, too.
    assert!(median < Duration::from_millis(200), "{median:?}");
    assert!(counters.work_waits > 0 && counters.notifies > 0, "{counters:?}");
    assert_eq!(counters.closed_protocol, 0);
}

/// Eight clients with keys of the longest that are taken, and signatures that are none.
#[cfg(feature = "crypto")]
#[test]
fn signatures_that_are_wrong_keep_nobody_waiting() {
    const CLIENTS: usize = 8;
    let engine = builder(1)
        .use_crypto()
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .start()
        .unwrap();
    let hello = |digits: usize| {
        let rsa = format!(r#"{{"rsa_n":"{}","rsa_e":65537}}"#, "d".repeat(digits));
        let body = format!(r#"{{"sys":{{"type":"a","rsa":{rsa}}}}}"#);
        [package(PackageType::Handshake, body.as_bytes()), ack()].concat()
    };
    // That its own is wrong, too, makes no difference to how long it waits.
    let body = |digits: usize| format!(r#"{{"__crypto__":"{}"}}"#, "1".repeat(digits));
    let mut witness = Client::connect(engine.local_addr());
    witness.send(&hello(256));
    witness.next();
    let flood: Vec<u8> = (1..=100).flat_map(|id| support::request(id, ECHO, &body(512))).collect();
    let clients = (0..CLIENTS).map(|_| {
        let mut stream = TcpStream::connect(engine.local_addr()).unwrap();
        stream.write_all(&hello(512)).unwrap();
        stream
    });
    let attack = Attack::start(clients.collect::<Vec<_>>(), &flood);
    thread::sleep(Duration::from_millis(200));
    let body = body(256);
    let median = median(|id| assert_eq!(witness.ask(id, ECHO, &body), r#"{"code":500}"#));
    let counters = engine.handle().counters();
    attack.end(engine);
    assert!(median < Duration::from_millis(50), "{median:?}");
    assert!(counters.work_waits > 0, "{counters:?}");
}
