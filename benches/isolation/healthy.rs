//! Clients that do nothing but ask and wait.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::{Client, heartbeat};
use crate::server::{ECHO, SHARD};

/// Clients on the server's last shard, which take turns.
pub(crate) struct Healthy {
    clients: Vec<Client>,
    id: u32,
    /// When they have last sent heartbeats.
    beat: Instant,
}

const CLIENTS: usize = 4;
/// From one request to the next.
const INTERVAL: Duration = Duration::from_millis(1);
const HEARTBEAT: Duration = Duration::from_secs(3);

impl Healthy {
    pub(crate) fn connect(address: SocketAddr, shards: u16) -> Self {
        let last = shards.to_string();
        let mut clients = Vec::new();
        while clients.len() < CLIENTS {
            let mut client = Client::ready(address);
            // A bare server says what it was told.
            if client.ask(1, SHARD, &last) == last {
                clients.push(client);
            }
        }
        Self { clients, id: 1, beat: Instant::now() }
    }

    /// Sends a request each [`INTERVAL`]; gives the nanoseconds from when each was due to its
    /// answer. One that is late makes those behind it late, and they count so.
    ///
    /// # Panics
    /// If a client is closed, an answer is wrong, or none comes.
    pub(crate) fn run(&mut self, during: Duration) -> Histogram<u64> {
        let mut latency = Histogram::new(3).expect("the digits are in range");
        let mut due = Instant::now();
        let end = due + during;
        while due < end {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if self.beat.elapsed() > HEARTBEAT {
                self.beat = Instant::now();
                self.clients.iter_mut().for_each(|client| client.send(&heartbeat()));
            }
            self.id += 1;
            let client = &mut self.clients[self.id as usize % CLIENTS];
            let body = self.id.to_string();
            assert_eq!(client.ask(self.id, ECHO, &body), body);
            let nanoseconds = u64::try_from(due.elapsed().as_nanos()).unwrap_or(u64::MAX);
            latency.record(nanoseconds).expect("it grows");
            due += INTERVAL;
        }
        latency
    }
}
