//! The troubles that clients cause a server.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use flate2::write::ZlibEncoder;
use rustix::thread::gettid;
use shaddock::Limits;
use shaddock::wire::package::PackageType;
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::set_nice;
use crate::server::{
    ANSWER_BYTES, ECHO, FORWARD_TIMEOUT, LONG, OUTBOX_BYTES_MAX, PUSH_BYTES, Process, REMOTE,
    SHARD, SINK, SLOW, Setting,
};
use support::{Client, Event, PATIENCE, ack, handshake, package, request};

/// One kind of trouble.
pub(crate) struct Trouble {
    pub(crate) name: &'static str,
    /// Shards of the server; the healthy clients are on the last one.
    pub(crate) shards: u16,
    /// Clients that connect and disconnect once before the measurement, as a server that has run
    /// for a while has seen as many.
    pub(crate) crowd: usize,
    /// The bound on packages, where they are large.
    pub(crate) package_bytes_max: Option<usize>,
    /// The connections per second allowed to an address; 0 is no bound.
    pub(crate) connects_per_second: u32,
    /// True if a bare io_uring server gets the trouble instead, which shows the kernel's part of
    /// it.
    pub(crate) is_bare: bool,
    /// Clients may sign their requests.
    pub(crate) signs: bool,
    /// Causes the trouble until the stage ends; returns the outcome.
    pub(crate) make: fn(&Stage<'_>) -> Outcome,
}

pub(crate) type Outcome = Result<String, String>;

/// The state that a trouble shares with the bench.
pub(crate) struct Stage<'a> {
    pub(crate) process: &'a Process,
    /// Set once the trouble is at its full extent.
    pub(crate) is_on: AtomicBool,
    /// Set when the trouble has to end.
    pub(crate) ends: AtomicBool,
    /// The clients of most troubles; the clients of a storm and the bytes of large packages follow.
    pub(crate) crowd: usize,
    pub(crate) storm: usize,
    pub(crate) large_bytes: usize,
}

const fn trouble(name: &'static str, make: fn(&Stage<'_>) -> Outcome) -> Trouble {
    Trouble {
        name,
        shards: 1,
        crowd: CROWD,
        package_bytes_max: None,
        connects_per_second: 0,
        is_bare: false,
        signs: false,
        make,
    }
}

pub(crate) const ALL: [Trouble; 13] = [
    trouble("worker", stopped_worker),
    trouble("unread", clients_that_never_read),
    trouble("half-open", half_open_handshakes),
    trouble("dripping", clients_that_drip),
    Trouble { package_bytes_max: Some(2 << 20), ..trouble("inflating", bodies_that_grow) },
    Trouble { package_bytes_max: Some(2 << 20), ..trouble("answers", long_answers) },
    Trouble { signs: true, ..trouble("signed", wrong_signatures) },
    // The bound of the outbox is one that a reader of low priority stays below.
    Trouble { package_bytes_max: Some(8 << 20), ..trouble("flood", flood) },
    Trouble { package_bytes_max: Some(LARGE_BYTES), ..trouble("large", large_packages) },
    Trouble { crowd: STORM, ..trouble("storm", reconnects) },
    Trouble { crowd: STORM, is_bare: true, ..trouble("storm-bare", reconnects) },
    Trouble { crowd: 0, connects_per_second: 1, ..trouble("refused", refused_connects) },
    Trouble { shards: 2, ..trouble("slow", slow_handler) },
];

const CROWD: usize = 1_000;
const STORM: usize = 10_000;
/// The largest body of a package, a byte less than 16 MiB.
const LARGE_BYTES: usize = (1 << 24) - 1;

impl Trouble {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|trouble| trouble.name == name)
    }

    /// The settings of the server for this trouble.
    pub(crate) fn setting(&self) -> Setting {
        let (package_bytes_max, outbox_bytes_max) = match self.package_bytes_max {
            Some(bytes) => (bytes, 2 * bytes),
            None => (OUTBOX_BYTES_MAX / 2, OUTBOX_BYTES_MAX),
        };
        let limits = Limits {
            package_bytes_max,
            outbox_bytes_max,
            forward_timeout: FORWARD_TIMEOUT,
            accepts_per_ip_per_second: self.connects_per_second,
            ..Limits::default()
        };
        Setting { shards: self.shards, limits, signs: self.signs }
    }
}

/// Gives the calling thread, and those it starts, the lowest priority: it runs only when nothing
/// else is ready. Other priorities get a slice of some milliseconds once they run, for which the
/// healthy clients would wait.
pub(crate) fn yield_to_others() {
    if !is_scheduled_as("--idle") {
        set_nice(19);
    }
}

fn is_scheduled_as(policy: &str) -> bool {
    let thread = gettid().as_raw_nonzero().to_string();
    let set = Command::new("chrt").args([policy, "--pid", "0", &thread]).status();
    set.is_ok_and(|status| status.success())
}

impl<'a> Stage<'a> {
    pub(crate) fn new(process: &'a Process) -> Self {
        Self {
            process,
            is_on: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            crowd: CROWD,
            storm: STORM,
            large_bytes: LARGE_BYTES,
        }
    }
}

impl Stage<'_> {
    pub(crate) fn goes_on(&self) -> bool {
        !self.ends.load(Ordering::Acquire)
    }

    pub(crate) fn begin(&self) {
        self.is_on.store(true, Ordering::Release);
    }

    fn wait(&self) {
        while self.goes_on() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::ready(self.process.address)
    }

    /// Clients after their handshakes, which all run at the same time.
    pub(crate) fn gather(&self, count: usize) -> Vec<Client> {
        let mut clients: Vec<Client> =
            (0..count).map(|_| Client::connect(self.process.address)).collect();
        clients.iter_mut().for_each(|client| client.send(&handshake()));
        for client in &mut clients {
            assert!(matches!(client.next(), Event::Handshake(answer) if answer["code"] == 200));
            client.send(&ack());
        }
        clients
    }
}

pub(crate) fn expect(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// A worker stops with requests of as many clients; their deadline passes meanwhile, and they
/// continue with it.
pub(crate) fn stopped_worker(stage: &Stage<'_>) -> Outcome {
    let mut clients = stage.gather(stage.crowd);
    stage.process.order("hold");
    let sent = Instant::now();
    clients.iter_mut().for_each(|client| client.send(&request(1, REMOTE, "1")));
    stage.begin();
    let mut refused = 0;
    for client in &mut clients {
        refused += usize::from(client.answer(1).contains("500"));
    }
    let answered = sent.elapsed();
    stage.wait();
    stage.process.order("release");
    expect(refused == stage.crowd, || {
        format!("{refused} of {} requests were answered 500", stage.crowd)
    })?;
    for client in &mut clients {
        expect(client.ask(2, REMOTE, "2") == "2", || "it does not go on".into())?;
    }
    Ok(format!(
        "{refused} answered 500 within {:.2} s (deadline {:.2} s)",
        answered.as_secs_f64(),
        FORWARD_TIMEOUT.as_secs_f64(),
    ))
}

/// Pushes to clients that never read.
fn clients_that_never_read(stage: &Stage<'_>) -> Outcome {
    const EVERY: Duration = Duration::from_millis(500);
    let clients = stage.gather(stage.crowd);
    for client in &clients {
        // The kernel then buffers little of it.
        SockRef::from(&client.stream).set_recv_buffer_size(4096).map_err(|e| e.to_string())?;
    }
    stage.begin();
    let closed = || stage.process.counter("closed_slow_consumer") as usize;
    let began = Instant::now();
    while stage.goes_on() {
        stage.process.order("push");
        std::thread::sleep(EVERY);
    }
    while closed() < stage.crowd && began.elapsed() < 4 * PATIENCE {
        stage.process.order("push");
        // Slow enough that a client that reads never has an outbox waiting.
        std::thread::sleep(EVERY / 4);
    }
    let closed = closed();
    expect(closed == stage.crowd, || format!("{closed} of {} were closed", stage.crowd))?;
    Ok(format!("{closed} closed, {} KiB a push", PUSH_BYTES / 1024))
}

/// Connections that never send a byte.
pub(crate) fn half_open_handshakes(stage: &Stage<'_>) -> Outcome {
    let clients: Vec<Client> =
        (0..stage.crowd).map(|_| Client::connect(stage.process.address)).collect();
    stage.begin();
    stage.wait();
    Ok(format!("{} waiting", clients.len()))
}

/// Connections that send one byte per second.
pub(crate) fn clients_that_drip(stage: &Stage<'_>) -> Outcome {
    let mut clients: Vec<Client> =
        (0..stage.crowd).map(|_| Client::connect(stage.process.address)).collect();
    stage.begin();
    let bytes = handshake();
    let mut sent = 0;
    for byte in &bytes {
        let next = Instant::now() + Duration::from_secs(1);
        for client in &mut clients {
            client.stream.write_all(&[*byte]).map_err(|error| error.to_string())?;
            sent += 1;
        }
        while stage.goes_on() && Instant::now() < next {
            std::thread::sleep(Duration::from_millis(1));
        }
        if !stage.goes_on() {
            break;
        }
    }
    Ok(format!("{sent} single bytes"))
}

/// A client that sends requests at full speed and reads their answers.
fn flood(stage: &Stage<'_>) -> Outcome {
    let client = stage.client();
    let stream = &client.stream;
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    let one = request(7, ECHO, &"x".repeat(64));
    let block = one.repeat(64 * 1024 / one.len());
    let read = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            yield_to_others();
            read_to_end(stream)
        });
        stage.begin();
        while stage.goes_on() {
            let mut writer: &TcpStream = stream;
            writer.write_all(&block).map_err(|error| error.to_string())?;
        }
        stream.shutdown(std::net::Shutdown::Write).map_err(|error| error.to_string())?;
        reader.join().map_err(|_| "the reader has failed".to_owned())
    })?;
    Ok(format!("{} MiB of answers", read >> 20))
}

/// The number of bytes read until the stream ends.
pub(crate) fn read_to_end(mut stream: &TcpStream) -> usize {
    let (mut buffer, mut len) = (vec![0; 64 * 1024], 0);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return len,
            Ok(more) => len += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return len,
        }
    }
}

/// Clients of Pitaya whose messages have some kilobytes and inflate to megabytes.
fn bodies_that_grow(stage: &Stage<'_>) -> Outcome {
    const CLIENTS: usize = 16;
    const PLAIN_BYTES: usize = (2 << 20) - 64;
    let body = format!("{{\"a\":\"{}\"}}", "a".repeat(PLAIN_BYTES - 8));
    let mut encoder = ZlibEncoder::new(vec![COMPRESSED_NOTIFY, SINK.len() as u8], BEST);
    encoder.get_mut().extend_from_slice(SINK.as_bytes());
    encoder.write_all(body.as_bytes()).map_err(|error| error.to_string())?;
    let message = package(PackageType::Data, &encoder.finish().map_err(|e| e.to_string())?);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let mut client = Client::ready(stage.process.pitaya_address);
            // What is left in the kernel when the trouble ends would keep the server at work.
            let stream = SockRef::from(&client.stream);
            stream.set_send_buffer_size(4096).expect("it is more than nothing");
            let message = &message;
            scope.spawn(move || {
                yield_to_others();
                let patience = Some(Duration::from_millis(20));
                client.stream.set_write_timeout(patience).expect("it is more than nothing");
                // The kernel refuses bytes that the server does not read yet, in the middle of a
                // message.
                let mut at = 0;
                while stage.goes_on() {
                    at = (at + client.stream.write(&message[at..]).unwrap_or(0)) % message.len();
                }
            });
        }
        stage.begin();
    });
    let notifies = stage.process.counter("notifies");
    expect(notifies > 0, || "nothing was inflated".into())?;
    Ok(format!("{notifies} of {} bytes", message.len()))
}

/// Clients that ask for some long answers at once, and again when they have read them.
fn long_answers(stage: &Stage<'_>) -> Outcome {
    const CLIENTS: usize = 120;
    const AT_ONCE: u32 = 3;
    let requests: Vec<u8> = (1..=AT_ONCE).flat_map(|id| request(id, LONG, "")).collect();
    let clients = stage.gather(CLIENTS);
    let answers: usize = std::thread::scope(|scope| {
        stage.begin();
        let clients: Vec<_> = clients
            .into_iter()
            .map(|mut client| {
                let requests = &requests;
                scope.spawn(move || {
                    yield_to_others();
                    let mut answers = 0;
                    while stage.goes_on() {
                        client.send(requests);
                        for id in 1..=AT_ONCE {
                            assert!(client.answer(id).len() >= ANSWER_BYTES);
                            answers += 1;
                        }
                    }
                    answers
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("an answer comes")).sum()
    });
    expect(answers > 0, || "nothing was answered".into())?;
    Ok(format!("{answers} of {ANSWER_BYTES} bytes"))
}

/// The first byte of a notify of Pitaya's with a compressed body (docs/protocol/pitaya.md, "Client
/// dialect").
const COMPRESSED_NOTIFY: u8 = 0x12;
const BEST: flate2::Compression = flate2::Compression::best();

/// Clients with keys of the longest that are taken, whose signatures are wrong.
fn wrong_signatures(stage: &Stage<'_>) -> Outcome {
    const CLIENTS: usize = 8;
    const HEX_DIGITS: usize = 512;
    let rsa = format!(r#"{{"rsa_n":"{}","rsa_e":65537}}"#, "d".repeat(HEX_DIGITS));
    let hello = format!(r#"{{"sys":{{"type":"bench","rsa":{rsa}}}}}"#);
    let hello = package(PackageType::Handshake, hello.as_bytes());
    let body = format!(r#"{{"__crypto__":"{}"}}"#, "1".repeat(HEX_DIGITS));
    let ids = 1..=100;
    let requests: Vec<u8> = ids.clone().flat_map(|id| request(id, ECHO, &body)).collect();
    let refused: usize = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|_| {
                let mut client = Client::connect(stage.process.address);
                client.send(&hello);
                assert!(matches!(client.next(), Event::Handshake(answer) if answer["code"] == 200));
                client.send(&ack());
                let (requests, ids) = (&requests, ids.clone());
                scope.spawn(move || {
                    yield_to_others();
                    let mut refused = 0;
                    while stage.goes_on() {
                        client.send(requests);
                        for id in ids.clone() {
                            assert_eq!(client.answer(id), r#"{"code":500}"#);
                            refused += 1;
                        }
                    }
                    refused
                })
            })
            .collect();
        stage.begin();
        clients.into_iter().map(|client| client.join().expect("an answer comes")).sum()
    });
    expect(refused > 0, || "nothing was refused".into())?;
    Ok(format!("{refused} refused"))
}

/// The bytes that a client sends at once.
const PIECE_BYTES: usize = 64 * 1024;
/// The size of its send buffer.
const SEND_BYTES: usize = 256 * 1024;

/// A client that sends packages of nearly 16 MiB in sequence.
pub(crate) fn large_packages(stage: &Stage<'_>) -> Outcome {
    let mut client = stage.client();
    // The kernel sends on one core and receives on the other, so a larger buffer would deliver
    // megabytes at once, which no network does.
    SockRef::from(&client.stream).set_send_buffer_size(SEND_BYTES).map_err(|e| e.to_string())?;
    let len = stage.large_bytes - request(0, SINK, "").len();
    let body = "x".repeat(len);
    stage.begin();
    let mut count = 0;
    while stage.goes_on() {
        count += 1;
        // In pieces, as a kernel without preemption would otherwise be busy for milliseconds, and
        // the healthy clients wait for their core.
        for piece in request(count, SINK, &body).chunks(PIECE_BYTES) {
            client.send(piece);
        }
        let answer = client.answer(count);
        expect(answer == len.to_string(), || format!("{answer} instead of {len}"))?;
    }
    Ok(format!("{count} packages"))
}

/// Clients that connect, all disconnect at once, and come back, repeatedly.
///
/// They reset their connections (RST). An orderly end would leave TIME-WAIT sockets for a minute on
/// the server's core, which sends the last segment, and the timers of a storm of them would disturb
/// later rounds. Where clients have machines of their own, those sockets stay there.
pub(crate) fn reconnects(stage: &Stage<'_>) -> Outcome {
    stage.begin();
    let (mut times, mut slowest) = (0, Duration::ZERO);
    // At least once, however slow the machine is.
    while times == 0 || stage.goes_on() {
        let began = Instant::now();
        let clients = stage.gather(stage.storm);
        slowest = slowest.max(began.elapsed());
        for client in &clients {
            let stream = SockRef::from(&client.stream);
            stream.set_linger(Some(Duration::ZERO)).map_err(|error| error.to_string())?;
        }
        drop(clients);
        times += 1;
    }
    Ok(format!("{} came {times} times, at most {:.2} s each", stage.storm, slowest.as_secs_f64()))
}

/// A handler that blocks its shard, which is not that of the healthy clients.
fn slow_handler(stage: &Stage<'_>) -> Outcome {
    let mut client = stage.client();
    while client.ask(1, SHARD, "") != "1" {
        client = stage.client();
    }
    stage.begin();
    let mut count = 0;
    while stage.goes_on() {
        count += 1;
        client.ask(count, SLOW, "");
    }
    Ok(format!("blocked {count} times"))
}

/// The connections that an address attempts per second.
const CONNECTS_PER_SECOND: u32 = 6_000;

/// An address that connects far more often than allowed, while players log in from others.
fn refused_connects(stage: &Stage<'_>) -> Outcome {
    let logins = std::thread::scope(|scope| {
        let storm = scope.spawn(|| storm_of_connects(stage));
        // Players do not yield to the clients that cause the trouble.
        is_scheduled_as("--other");
        stage.begin();
        let (mut logins, mut number) = (Vec::new(), 0);
        while stage.goes_on() {
            number += 1;
            let [.., high, low] = u32::to_be_bytes(number);
            logins.push(log_in(stage, Ipv4Addr::new(127, 1, high, low))?);
            std::thread::sleep(Duration::from_millis(5));
        }
        storm.join().map_err(|_| "the storm has failed".to_owned())??;
        Ok::<_, String>(logins)
    })?;
    let mut sorted = logins;
    sorted.sort_unstable();
    let refused = stage.process.counter("refused_accept_rate");
    expect(refused > 0 && !sorted.is_empty(), || "nobody was turned away".into())?;
    let ms = |at: usize| sorted[at.min(sorted.len() - 1)].as_secs_f64() * 1e3;
    let (len, half) = (sorted.len(), sorted.len() / 2);
    Ok(format!(
        "{refused} turned away, {len} logins: p50 {:.1} ms, p99 {:.1} ms",
        ms(half),
        ms(len * 99 / 100)
    ))
}

/// Connects without waiting for anything.
fn storm_of_connects(stage: &Stage<'_>) -> Result<(), String> {
    const KEPT: usize = 512;
    let began = Instant::now();
    let (mut kept, mut count) = (VecDeque::new(), 0);
    while stage.goes_on() {
        count += 1;
        std::thread::sleep(
            (count * Duration::from_secs(1) / CONNECTS_PER_SECOND).saturating_sub(began.elapsed()),
        );
        let socket = socket_from(Ipv4Addr::new(127, 0, 0, 2))?;
        socket.set_nonblocking(true).map_err(|error| error.to_string())?;
        // The connection is under way, or refused already.
        socket.connect(&stage.process.address.into()).ok();
        kept.push_back(socket);
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
    Ok(())
}

/// The time until an address gets the answer to its handshake.
fn log_in(stage: &Stage<'_>, from: Ipv4Addr) -> Result<Duration, String> {
    let began = Instant::now();
    let socket = socket_from(from)?;
    socket.connect(&stage.process.address.into()).map_err(|error| error.to_string())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).map_err(|error| error.to_string())?;
    stream.write_all(&handshake()).map_err(|error| error.to_string())?;
    let len = stream.read(&mut [0; 4096]).map_err(|error| error.to_string())?;
    expect(len > 0, || "a login was turned away".into())?;
    Ok(began.elapsed())
}

fn socket_from(address: Ipv4Addr) -> Result<Socket, String> {
    let socket =
        Socket::new(Domain::IPV4, Type::STREAM, None).map_err(|error| error.to_string())?;
    // The socket leaves no state behind: thousands of those would fill the kernel's tables.
    socket.set_linger(Some(Duration::ZERO)).map_err(|error| error.to_string())?;
    socket.bind(&SocketAddr::from((address, 0)).into()).map_err(|error| error.to_string())?;
    Ok(socket)
}
