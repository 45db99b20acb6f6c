//! A client that must notice nothing of what others do, and what the engine counts meanwhile.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use shaddock::{Builder, Engine, Reply};

use crate::{Client, Event, eventually, request};

/// The route that every engine of a [`Trial`] answers with the request's own body.
pub const ECHO: &str = "connector.entryHandler.echo";
/// A request of the witness that takes longer has noticed something. Far above what two busy
/// cores need.
const WITNESS_PATIENCE: Duration = Duration::from_secs(3);
/// Counters of ordinary traffic, and of how busy the machine is; all others name a reason why
/// something was refused or closed.
const TRAFFIC: [&str; 13] = [
    "connections_accepted",
    "connections_closed",
    "handshakes",
    "bytes_in",
    "bytes_out",
    "requests",
    "notifies",
    "answers",
    "pushes",
    "heartbeats",
    "forwards",
    "long_turns",
    "receive_buffers_empty",
];

/// What was counted, by name, without what was not.
pub type Reasons = BTreeMap<&'static str, u64>;

/// An engine of one shard, on which a witness is served all the time.
pub struct Trial {
    pub engine: Engine,
    stop: Arc<AtomicBool>,
    witness: Option<JoinHandle<u32>>,
}

impl Trial {
    pub fn start(builder: Builder) -> Self {
        let builder = builder.handler(ECHO, |request, _| Reply::borrowed(request.body()));
        let engine = builder.start().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (address, is_stopped) = (engine.local_addr(), Arc::clone(&stop));
        let witness = std::thread::spawn(move || witness(address, &is_stopped));
        let trial = Self { engine, stop, witness: Some(witness) };
        eventually("the witness is there", || trial.open() == 1);
        trial
    }

    pub fn address(&self) -> SocketAddr {
        self.engine.local_addr()
    }

    fn open(&self) -> u64 {
        let counters = self.engine.handle().counters();
        counters.connections_accepted - counters.connections_closed
    }

    fn reasons(&self) -> Reasons {
        let counters = self.engine.handle().counters();
        counters.iter().filter(|(name, _)| !TRAFFIC.contains(name)).collect()
    }

    /// Does something, waits until all connections but the witness's are freed, and gives what
    /// was counted meanwhile.
    pub fn counted(&self, what: &str, act: impl FnOnce()) -> Reasons {
        let before = self.reasons();
        act();
        eventually(&format!("{what}: all connections are freed"), || self.open() == 1);
        let mut after = self.reasons();
        for (name, value) in &mut after {
            *value -= before[name];
        }
        after.retain(|_, value| *value > 0);
        after
    }

    /// The witness has been served all the time.
    pub fn finish(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let echoes = self.witness.take().unwrap().join().expect("the witness has noticed it");
        assert!(echoes > 0);
    }
}

fn witness(address: SocketAddr, is_stopped: &AtomicBool) -> u32 {
    let mut client = Client::ready(address);
    for id in 1.. {
        let body = format!(r#"{{"witness":{id}}}"#);
        let sent = Instant::now();
        client.send(&request(id, ECHO, &body));
        let event = loop {
            match client.next() {
                Event::Heartbeat => {}
                event => break event,
            }
        };
        assert_eq!(event, Event::Response { id, body: body.into_bytes() });
        assert!(sent.elapsed() < WITNESS_PATIENCE, "{:?}", sent.elapsed());
        if is_stopped.load(Ordering::Relaxed) {
            return id;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable!("ids last for months")
}
