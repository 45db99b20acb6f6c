//! Hostile clients, one for each way in, against a process that may have no more memory than the
//! sum in `docs/limits.md`, "When the machine has no more".
//!
//! The server is this test's own program, started again; what it may take is bounded from outside
//! by `RLIMIT_AS`, so that a promise that is not kept ends it with SIGABRT. Its handlers do what
//! handlers may do at worst: workers that stand, futures that never end, answers that nobody gives.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use shaddock::{Limits, Listener, Reply, Tls, Workers};
use support::folder::Folder;
use support::tls::client_config;
use support::{Client, Event, builder, notify, request};

/// Set for the server, to the folder of its certificate.
const SERVER: &str = "SHADDOCK_TEST_MEMORY_SERVER";
const MIB: usize = 1024 * 1024;
const CONNECTIONS: usize = 128;
/// For how long clients of each kind do their worst.
const ATTACK: Duration = Duration::from_millis(1500);

const ECHO: &str = "connector.play.echo";
const FUTURE: &str = "connector.play.future";
const DEFERRED: &str = "connector.play.deferred";
const SLOW: &str = "chat.play.slow";
const CHAT_FUTURE: &str = "chat.play.future";

fn limits() -> Limits {
    Limits {
        connections_per_shard_max: CONNECTIONS as u32,
        shard_bytes_max: 48 * MIB,
        lane_bytes_max: 16 * MIB,
        ..Limits::default()
    }
}

/// The sum in `docs/limits.md` for one shard and one worker, with the allocator's quarter, and what
/// glibc reserves of the address space for each of the two threads.
fn documented_bytes(limits: &Limits) -> usize {
    let receive = usize::from(limits.receive_buffers) * limits.receive_buffer_bytes as usize;
    let kept = limits.shard_bytes_max
        + limits.held_bytes_max
        + receive
        + limits.lane_bytes_max
        + CONNECTIONS * 64 * 1024;
    kept + kept / 4 + 2 * 64 * MIB
}

/// Not a test by itself: what the other one starts.
#[test]
fn serve_for_the_other_test() {
    let Ok(folder) = std::env::var(SERVER) else { return };
    shaddock::return_large_memory();
    let tls = Tls::from_files(format!("{folder}/cert.pem"), format!("{folder}/key.pem")).unwrap();
    let engine = builder(1)
        .listen(Listener::new("127.0.0.1:0").tls(tls))
        .limits(limits())
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(FUTURE, |request, _| {
            let kept = request.to_owned();
            Reply::later(async move {
                std::future::pending::<()>().await;
                Reply::bytes(kept.bytes().to_vec())
            })
        })
        .handler(DEFERRED, |_, session| session.defer(std::mem::forget))
        .forward(
            "chat",
            Workers::new(1, |handlers| {
                handlers.handler(SLOW, |request, _| {
                    std::thread::sleep(Duration::from_millis(50));
                    Reply::borrowed(request.body())
                });
                handlers.handler(CHAT_FUTURE, |request, _| {
                    let kept = request.to_owned();
                    Reply::later(async move {
                        std::future::pending::<()>().await;
                        Reply::bytes(kept.bytes().to_vec())
                    })
                });
            }),
        )
        .start()
        .unwrap();
    let addresses: Vec<String> = engine.local_addrs().iter().map(SocketAddr::to_string).collect();
    println!("\nlistening {}", addresses.join(" "));
    // Until whoever has started it has gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// The server's process, which ends with this.
struct Server {
    child: Child,
    tcp: SocketAddr,
    tls: SocketAddr,
    client_config: Arc<ClientConfig>,
    /// Of the certificate.
    _folder: Folder,
}

impl Server {
    fn start() -> Self {
        let folder = Folder::create();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        folder.write("cert.pem", &made.cert.pem());
        folder.write("key.pem", &made.signing_key.serialize_pem());
        let mut child = Command::new(std::env::current_exe().unwrap())
            // With one thread libtest has no notice for tests that take a minute, which nobody
            // would read here.
            .args([
                "--exact",
                "memory::serve_for_the_other_test",
                "--nocapture",
                "--test-threads=1",
            ])
            .env(SERVER, folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.map(Result::unwrap).find(|line| line.starts_with("listening "));
        let line = line.expect("the server listens");
        let addresses: Vec<SocketAddr> =
            line.split(' ').skip(1).map(|address| address.parse().unwrap()).collect();
        let [tcp, tls] = addresses[..] else { panic!("{line}") };
        Self { child, tcp, tls, client_config: client_config(made.cert.der()), _folder: folder }
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// The size of its address space, in bytes.
    fn address_space(&self) -> usize {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
        size.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
    }

    fn tls_stream(&self) -> StreamOwned<ClientConnection, TcpStream> {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::clone(&self.client_config), name).unwrap();
        StreamOwned::new(session, TcpStream::connect(self.tls).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

/// Sends the same again and again until the time is over, from a connection that is made anew
/// whenever the server has closed it. Nothing is read.
fn send_again_and_again<S: Write>(bytes: &[u8], mut connect: impl FnMut() -> Option<S>) {
    let until = Instant::now() + ATTACK;
    while Instant::now() < until {
        let Some(mut stream) = connect() else { continue };
        while Instant::now() < until && stream.write_all(bytes).is_ok() {}
    }
}

/// A working connection whose writes end with the attack, though the server reads no more.
fn working(address: SocketAddr) -> Option<TcpStream> {
    let stream = Client::ready(address).stream;
    stream.set_write_timeout(Some(ATTACK / 4)).unwrap();
    Some(stream)
}

fn upgrade(mut stream: TcpStream) -> TcpStream {
    let head = "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let packages = [support::handshake(), support::ack()].concat();
    stream.write_all(&frame(0x82, &packages)).unwrap();
    // Its fragments are to find a session that works.
    let mut answer = [0; 512];
    loop {
        let len = stream.read(&mut answer).expect("an answer comes");
        assert!(len > 0, "the server has closed");
        if answer[..len].windows(4).any(|window| window == b"code") {
            return stream;
        }
    }
}

/// A frame with a mask of zeros.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first, 0xff];
    out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(payload);
    out
}

/// The body of a message of nearly `package_bytes_max`.
fn large() -> String {
    format!("\"{}\"", "x".repeat(2 * MIB - 64))
}

#[test]
fn hostile_clients_find_the_documented_bound() {
    let server = Server::start();
    let limits = limits();
    let bytes = (server.address_space() + documented_bytes(&limits)) as u64;
    let bound = Rlimit { current: Some(bytes), maximum: Some(bytes) };
    prlimit(Some(server.pid()), Resource::As, bound).unwrap();
    let mut witness = Client::ready(server.tcp);

    let large = large();
    let small = format!("\"{}\"", "x".repeat(8 * 1024));
    let messages = [
        ("a worker that stands", notify(SLOW, &large)),
        ("a worker that stands, requests", request(1, SLOW, &large)),
        ("a worker's futures", request(1, CHAT_FUTURE, &small).repeat(16)),
        ("a worker's futures of notifies", notify(CHAT_FUTURE, &large)),
        ("futures of the shard", request(1, FUTURE, &large)),
        ("deferred answers", request(1, DEFERRED, &large)),
        ("answers that nobody reads", request(1, ECHO, &large)),
    ];
    for (way, message) in messages {
        for clients in [1, 8] {
            attack(&mut witness, &format!("{way}, {clients} clients"), || {
                std::thread::scope(|scope| {
                    for _ in 0..clients {
                        scope.spawn(|| send_again_and_again(&message, || working(server.tcp)));
                    }
                });
            });
        }
    }
    attack(&mut witness, "TLS", || {
        let hello = [support::handshake(), support::ack()].concat();
        let message = notify(SLOW, &large);
        send_again_and_again(&message, || {
            let mut stream = server.tls_stream();
            stream.sock.set_write_timeout(Some(ATTACK / 4)).unwrap();
            stream.write_all(&hello).ok().map(|()| stream)
        });
    });
    attack(&mut witness, "packages that never end", || {
        let begun = request(1, ECHO, &large);
        hold(|| working(server.tcp), &begun[..begun.len() - 1]);
    });
    attack(&mut witness, "fragments that never end", || {
        let fragment = frame(0x02, &vec![0; 4 * MIB]);
        hold(|| Some(upgrade(TcpStream::connect(server.tcp).ok()?)), &fragment);
    });
}

/// Sends the same on as many connections as there may be, and keeps them open for a while.
fn hold(mut connect: impl FnMut() -> Option<TcpStream>, bytes: &[u8]) {
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS / 2 {
        let Some(mut stream) = connect() else { continue };
        // Refused where it is above what is left.
        stream.write_all(bytes).ok();
        open.push(stream);
    }
    std::thread::sleep(ATTACK / 4);
}

/// Lets clients do their worst; afterwards the server is there, and answers who does nothing wrong.
fn attack(witness: &mut Client, way: &str, act: impl FnOnce()) {
    let start = Instant::now();
    act();
    witness.send(&request(1, ECHO, "\"well\""));
    loop {
        match witness.next() {
            Event::Response { body, .. } => break assert_eq!(body, b"\"well\"", "{way}"),
            Event::End => panic!("{way}: the server has gone"),
            _ => {}
        }
    }
    println!("{way}: {:?}", start.elapsed());
}
