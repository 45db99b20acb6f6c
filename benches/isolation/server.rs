//! The server, in a child process that takes commands line by line.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use shaddock::{Audience, Dialect, Engine, Handlers, Limits, Listener, Reply, Shards, Workers};

use crate::common::ceiling::{self, Variant};
use crate::common::child::{self, Child};
use crate::common::{SERVER_CORE, listen, pin};

/// Answers with the body.
pub(crate) const ECHO: &str = "connector.entryHandler.echo";
/// Answers with the shard's number, counted from 1.
pub(crate) const SHARD: &str = "connector.entryHandler.shard";
/// Binds the session to its body as a uid, so that it receives pushes to all bound sessions.
pub(crate) const ENTER: &str = "connector.entryHandler.enter";
/// Answers with the body's length.
pub(crate) const SINK: &str = "connector.entryHandler.sink";
/// Answers with [`ANSWER_BYTES`].
pub(crate) const LONG: &str = "connector.entryHandler.long";
/// Blocks its shard for [`BLOCK`].
pub(crate) const SLOW: &str = "connector.entryHandler.slow";
/// Answers with the body, on a worker that can be stopped.
pub(crate) const REMOTE: &str = "room.roomHandler.echo";
const PUSH: &str = "onTick";

pub(crate) const BLOCK: Duration = Duration::from_millis(50);
pub(crate) const PUSH_BYTES: usize = 16 * 1024;
/// A list of a thousand players, say.
pub(crate) const ANSWER_BYTES: usize = 100_000;
/// The outbox bound for a trouble with small packages; a client that does not read is closed soon.
pub(crate) const OUTBOX_BYTES_MAX: usize = 256 * 1024;
pub(crate) const FORWARD_TIMEOUT: Duration = Duration::from_millis(500);

static IS_HELD: AtomicBool = AtomicBool::new(false);

/// The settings of a server.
pub(crate) struct Setting {
    pub(crate) shards: u16,
    pub(crate) limits: Limits,
    /// Clients may sign their requests; there is no listener for Pitaya's clients then.
    pub(crate) signs: bool,
}

fn engine(setting: Setting) -> Engine {
    let builder = Engine::builder().listen("127.0.0.1:0");
    let builder = match setting.signs {
        true => builder.use_crypto(),
        false => builder.listen(Listener::new("127.0.0.1:0").dialect(Dialect::Pitaya)),
    };
    builder
        .shards(Shards::Count(setting.shards))
        .heartbeat(Duration::from_secs(10))
        .limits(setting.limits)
        .handler(ECHO, |request, _| Reply::borrowed(request.body()))
        .handler(SHARD, |_, session| Reply::json(&(session.id().shard().index() + 1)))
        .handler(ENTER, |request, session| {
            // The client's pushes show whether the bind succeeded.
            drop(session.bind(String::from_utf8_lossy(request.body()).into_owned()));
            Reply::borrowed(request.body())
        })
        .handler(SINK, |request, _| Reply::json(&request.body().len()))
        .handler(LONG, |_, _| Reply::json(&"x".repeat(ANSWER_BYTES)))
        .handler(SLOW, |_, _| {
            std::thread::sleep(BLOCK);
            Reply::empty()
        })
        .forward(
            "room",
            Workers::new(1, |handlers: &mut Handlers| {
                handlers.handler(REMOTE, |request, _| {
                    while IS_HELD.load(Ordering::Acquire) {
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Reply::borrowed(request.body())
                });
            }),
        )
        .start()
        .expect("the engine starts")
}

/// Runs a server until standard input ends, and executes each line of it.
pub(crate) fn serve(setting: Setting) {
    pin(&[SERVER_CORE]);
    // The program does the same.
    shaddock::return_large_memory();
    let engine = engine(setting);
    let mut pushes = 0_u64;
    child::obey(engine.local_addrs(), |order| {
        match order {
            "hold" => IS_HELD.store(true, Ordering::Release),
            "release" => IS_HELD.store(false, Ordering::Release),
            "trim" => drop(shaddock::return_free_memory()),
            "push" | "push-bound" => {
                pushes += 1;
                let body = format!("\"{pushes:0>PUSH_BYTES$}\"");
                let audience = if order == "push" { Audience::all() } else { Audience::bound() };
                let pushed = engine.handle().broadcast(PUSH, body, audience);
                pushed.expect("the shard has room");
            }
            "counters" => {
                let counters = engine.handle().counters();
                let counters: BTreeMap<_, _> = counters.iter().collect();
                return serde_json::to_string(&counters).expect("numbers by their names");
            }
            name => {
                let counters = engine.handle().counters();
                let counter = counters.iter().find(|(other, _)| *other == name);
                return counter.expect("there is such a counter").1.to_string();
            }
        }
        "done".into()
    });
}

/// The most connections of a bare server.
const BARE_SOCKETS: u32 = 16_384;

/// Runs the bare io_uring server that other benches compare with, until standard input ends. It
/// answers every route with the body.
pub(crate) fn serve_bare() {
    pin(&[SERVER_CORE]);
    let listener = listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    std::thread::spawn(move || {
        ceiling::serve(&[listener], Variant::Plain, BARE_SOCKETS).expect("the ring works");
    });
    child::obey(&[address], |_| "done".into());
}

/// A running server; it ends when this is dropped.
pub(crate) struct Process {
    pid: u32,
    child: Mutex<Child>,
    pub(crate) address: SocketAddr,
    /// The address for Pitaya's clients; the same one for the bare server.
    pub(crate) pitaya_address: SocketAddr,
}

impl Process {
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let child = Child::start(&["--serve", name])?;
        let (first, last) = (child.addresses[0], *child.addresses.last().expect("the first"));
        Ok(Self {
            pid: child.pid(),
            address: first,
            pitaya_address: last,
            child: Mutex::new(child),
        })
    }

    /// Gives a command, and waits until it is done.
    pub(crate) fn order(&self, order: &str) -> String {
        let mut child = self.child.lock().expect("nobody panics here");
        child.ask(order).expect("the server answers")
    }

    pub(crate) fn counter(&self, name: &str) -> u64 {
        self.order(name).parse().expect("a counter is a number")
    }

    pub(crate) fn counters(&self) -> BTreeMap<String, u64> {
        serde_json::from_str(&self.order("counters")).expect("numbers by their names")
    }

    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.pid);
        std::fs::read_dir(folder).expect("the server runs").count()
    }

    /// The names of its threads, without the kernel's workers for its rings, whose number varies.
    pub(crate) fn threads(&self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.pid);
        let entries = std::fs::read_dir(folder).expect("the server runs").flatten();
        // A thread that has ended meanwhile has no name.
        let names =
            entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
        let mut names: Vec<String> = names.map(|name| name.trim().to_owned()).collect();
        names.retain(|name| !name.starts_with("iou-"));
        names.sort();
        names
    }

    pub(crate) fn resident_bytes(&self) -> u64 {
        let file = format!("/proc/{}/status", self.pid);
        let status = std::fs::read_to_string(file).expect("the server runs");
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix("kB"));
        kib.and_then(|kib| kib.trim().parse::<u64>().ok()).expect("it has memory") * 1024
    }
}
