//! A client's end is its own: clients that do not read leave by FIN and then by RST, as a game's
//! process does that is shut down and then killed, while others take their places. The engine
//! handles few ends in a millisecond while it serves somebody, so that an end may come after its
//! place has a new owner. Nobody pays for that.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use shaddock::{Limits, Reply};
use socket2::{Domain, Socket, Type};
use support::{Client, Event, builder, eventually, handshake, request};

const ECHO: &str = "connector.play.echo";
const LARGE: &str = "connector.play.large";
/// Above what the kernel takes for a client that does not read.
const LARGE_BYTES: usize = 256 << 10;
const LEAVING: usize = 400;
const COMING: usize = 300;
/// Requests of one that comes, at once.
const REQUESTS: u32 = 200;
const ROUNDS: usize = 3;

#[test]
fn clients_that_leave_with_a_stuck_send_take_nobody_along() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let large = format!("\"{}\"", "x".repeat(LARGE_BYTES));
    let limits = Limits { messages_per_turn_max: 4, ..Limits::default() };
    let engine = builder(1)
        .limits(limits)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(LARGE, move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
            Reply::bytes(large.clone())
        })
        .start()
        .unwrap();
    let address = engine.local_addr();
    let ends = AtomicBool::new(false);
    thread::scope(|scope| {
        // Somebody is served all the time.
        scope.spawn(|| {
            let mut client = Client::ready(address);
            let mut id = 0;
            while !ends.load(Ordering::Acquire) {
                id += 1;
                assert_eq!(client.ask(id, ECHO, "1"), "1");
            }
        });
        let _ends = End(&ends);
        for round in 0..ROUNDS {
            let leaving: Vec<Socket> = (0..LEAVING).map(|_| stuck(address)).collect();
            let before = engine.handle().counters();
            eventually("all have asked", || asked.load(Ordering::Relaxed) == (round + 1) * LEAVING);
            let goes = scope.spawn(|| {
                for client in &leaving {
                    client.shutdown(Shutdown::Write).unwrap();
                }
                for client in leaving {
                    client.set_linger(Some(Duration::ZERO)).unwrap();
                }
            });
            let mut coming: Vec<Client> = (0..COMING).map(|_| come(address)).collect();
            goes.join().unwrap();
            for client in &mut coming {
                let handshake = client.next();
                assert!(matches!(handshake, Event::Handshake(_)), "round {round}: {handshake:?}");
                for id in 1..=REQUESTS {
                    assert_eq!(client.answer(id), "2", "round {round}");
                }
            }
            eventually("all have gone", || {
                let closed = engine.handle().counters().connections_closed;
                closed >= before.connections_closed + LEAVING as u64
            });
            for client in &mut coming {
                assert_eq!(client.ask(REQUESTS + 1, ECHO, "3"), "3", "round {round}");
            }
        }
    });
}

struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// A client that sends more than its share of a turn, so that the rest is held for later ones.
fn come(address: SocketAddr) -> Client {
    let mut client = Client::connect(address);
    let requests = (1..=REQUESTS).flat_map(|id| request(id, ECHO, "2"));
    let all: Vec<u8> = handshake().into_iter().chain(support::ack()).chain(requests).collect();
    client.send(&all);
    client
}

/// A client that has asked for more than it reads. Its kernel takes small segments and few of
/// them, so that the engine's kernel takes little for it, too.
fn stuck(address: SocketAddr) -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_tcp_mss(536).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&address.into()).unwrap();
    let all = [handshake(), support::ack(), request(1, LARGE, "{}")].concat();
    assert_eq!(socket.send(&all).unwrap(), all.len());
    socket
}
