//! Clients that only send requests and wait for the answers.

use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant, SystemTime};

use hdrhistogram::Histogram;
use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;

use crate::server::{ECHO, SHARD};
use support::{Client, Event, PATIENCE, heartbeat, request};

/// Clients on the server's last shard, which take turns.
pub(crate) struct Healthy {
    clients: Vec<Client>,
    id: u32,
    /// The time of their last heartbeats.
    beat: Instant,
    /// Requests have to be signed: theirs are not, and refused.
    signs: bool,
}

/// The latency of requests, in nanoseconds.
pub(crate) struct Latency {
    /// As clients on a core of their own would measure it: from the time each request was due.
    pub(crate) served: Histogram<u64>,
    /// As the thread measured it that runs all of them, which also waits for its core.
    pub(crate) seen: Histogram<u64>,
}

const CLIENTS: usize = 4;
/// The time between two requests.
const INTERVAL: Duration = Duration::from_millis(1);
/// The answer to a request that is not signed and has to be.
const REFUSED: &str = r#"{"code":500}"#;
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Healthy {
    pub(crate) fn connect(address: SocketAddr, shards: u16, signs: bool) -> Self {
        let last = shards.to_string();
        let mut clients = Vec::new();
        while clients.len() < CLIENTS {
            let mut client = Client::ready(address);
            // A bare server returns the request's body.
            if signs || client.ask(1, SHARD, &last) == last {
                setsockopt(&client.stream, sockopt::ReceiveTimestampns, &true)
                    .expect("the kernel knows when something came");
                client.stream.set_read_timeout(Some(PATIENCE)).expect("the time is above zero");
                clients.push(client);
            }
        }
        Self { clients, id: 1, beat: Instant::now(), signs }
    }

    /// Sends a request each [`INTERVAL`]. A late answer delays the requests behind it, and they are
    /// counted as late.
    ///
    /// # Panics
    /// If a client is closed, an answer is wrong, or none comes.
    pub(crate) fn run(&mut self, during: Duration) -> Latency {
        let histogram = || Histogram::new(3).expect("the digits are in range");
        let mut latency = Latency { served: histogram(), seen: histogram() };
        let began = Instant::now();
        let mut due = Duration::ZERO;
        // The time at which the previous answer would have come if its request had been sent in
        // time.
        let mut answered = Duration::ZERO;
        while due < during {
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            if self.beat.elapsed() > HEARTBEAT {
                self.beat = Instant::now();
                self.clients.iter_mut().for_each(|client| client.send(&heartbeat()));
            }
            answered = due.max(answered) + self.ask();
            latency.served.record(nanoseconds(answered - due)).expect("it grows");
            latency.seen.record(nanoseconds(began.elapsed() - due)).expect("it grows");
            due += INTERVAL;
        }
        latency
    }

    /// The time from sending a request until the kernel has its answer for the client.
    fn ask(&mut self) -> Duration {
        self.id += 1;
        let client = &mut self.clients[self.id as usize % CLIENTS];
        let body = self.id.to_string();
        let expected = if self.signs { REFUSED } else { &body };
        let sent = SystemTime::now();
        client.send(&request(self.id, ECHO, &body));
        loop {
            let came = receive(client);
            while let Some(event) = client.next_within(Duration::ZERO) {
                match event {
                    Event::Response { id, body: answer } if id == self.id => {
                        assert_eq!(answer, expected.as_bytes());
                        // The clock was set back meanwhile.
                        return came.duration_since(sent).unwrap_or_default();
                    }
                    Event::End => panic!("a healthy client was closed"),
                    _ => {}
                }
            }
        }
    }
}

/// Receives bytes; returns the time at which they reached this machine's end of the connection.
fn receive(client: &mut Client) -> SystemTime {
    let mut bytes = [0; 64 * 1024];
    let mut space = nix::cmsg_space!(TimeSpec);
    let (len, came) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let fd = client.stream.as_raw_fd();
        let message = match recvmsg::<()>(fd, &mut parts, Some(&mut space), MsgFlags::empty()) {
            Err(Errno::EINTR) => continue,
            message => message.expect("an answer comes"),
        };
        let mut controls = message.cmsgs().expect("there is space for them");
        let came = controls.find_map(|control| match control {
            ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time)),
            _ => None,
        });
        break (message.bytes, came);
    };
    client.feed(&bytes[..len]);
    // The end of a connection has no timestamp.
    came.map_or_else(SystemTime::now, |came| SystemTime::UNIX_EPOCH + came)
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
