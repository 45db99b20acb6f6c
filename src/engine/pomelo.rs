//! The thread that talks to a Pomelo cluster: the sockets round a [`Member`].
//!
//! It sleeps in `epoll`, woken by its doorbell's eventfd. A ring would not pay here: all clients'
//! messages to one server share one connection, and those of one turn share one write.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashMap;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::builder::Builder;
use super::dial::{self, Dialer, Lookup, Step};
use super::listen::{self, Listener};
use super::network::{ForwarderContext, NetworkForwarder, NetworkPlace};
use super::threads::{Join, Threads};
use crate::dispatch::chain::guarded_uncounted;
use crate::dispatch::tasks::WakeThread as _;
use crate::error::{EngineOption, StartError};
use crate::forward::Party;
use crate::forward::remote::{Remote, RemoteConfig};
use crate::limits::Limits;
use crate::limits::turn::CLUSTER_READS_PER_TURN;
use crate::metrics::ClusterFigures;
use crate::pomelo::{
    Command, MASTER, Member, MemberConfig, Output, PeerId, PomeloCluster, StopHook, host_and_port,
};

impl Builder {
    /// Forwards server types to the Node servers of a Pomelo cluster, which this engine joins as
    /// one of its frontends.
    ///
    /// ```
    /// use shaddock::{Engine, PomeloCluster, Router};
    ///
    /// let cluster = PomeloCluster::new("127.0.0.1:3005").server_type("chat", Router::Default);
    /// let builder = Engine::builder().pomelo(cluster);
    /// ```
    pub fn pomelo(self, cluster: PomeloCluster) -> Self {
        self.pomelo_with(cluster, dial::lookup)
    }

    fn pomelo_with(self, cluster: PomeloCluster, lookup: Lookup) -> Self {
        self.network(PomeloForwarder { cluster, lookup })
    }
}

/// The cluster as the embedder describes it.
struct PomeloForwarder {
    cluster: PomeloCluster,
    lookup: Lookup,
}

impl NetworkForwarder for PomeloForwarder {
    fn option(&self) -> EngineOption {
        EngineOption::Cluster("pomelo.server_type")
    }

    fn server_types(&self) -> Vec<&str> {
        self.cluster.server_types().collect()
    }

    fn subscribes_to_ends(&self) -> bool {
        self.cluster.wants_ends() && !self.cluster.wants_logins()
    }

    fn subscribes_to_logins(&self) -> bool {
        self.cluster.wants_logins()
    }

    fn check(&self, limits: &Limits) -> Result<(), StartError> {
        check(&self.cluster, limits)
    }

    fn start(
        self: Box<Self>,
        place: NetworkPlace,
        joins: &mut Vec<Join>,
    ) -> Result<(), StartError> {
        for context in place.contexts() {
            joins.push(start(&self.cluster, context, place.clients, self.lookup)?);
        }
        Ok(())
    }
}

/// Connections waiting in the kernel to be accepted.
const BACKLOG: u32 = 256;
/// Events taken from the kernel at once.
const EVENTS_MAX: usize = 256;
/// Bytes read at once.
const READ_BYTES: usize = 64 * 1024;
/// The longest sleep. It bounds the delay of work that rings no bell.
const SLEEP_MAX: Duration = Duration::from_millis(500);
/// The time in which what is to be told at the end has to be sent.
const STOP_WITHIN: Duration = Duration::from_millis(500);
/// The time between two looks at the state of the cluster for its figures.
const SHOW_EVERY_US: u64 = 50_000;
/// The pause of accepting when the process has no descriptor left.
const ACCEPT_PAUSE_US: u64 = 100_000;

fn check(cluster: &PomeloCluster, limits: &Limits) -> Result<(), StartError> {
    let bad =
        |(option, expected)| StartError::Option { option: EngineOption::Cluster(option), expected };
    cluster.check(limits.forward_timeout).map_err(bad)?;
    let addresses = listen::resolve_all(&[rpc_listener(cluster)])?;
    if addresses.iter().all(|address| cluster.is_reachable(*address)) {
        return Ok(());
    }
    let expected = "the host by which others reach this machine, as it listens on all of them";
    Err(bad(("pomelo.advertise", expected.into())))
}

fn rpc_listener(cluster: &PomeloCluster) -> Listener {
    Listener::new(cluster.rpc_address())
}

/// Listens, and starts the thread. The description has been checked.
fn start(
    cluster: &PomeloCluster,
    context: ForwarderContext,
    clients: SocketAddr,
    lookup: Lookup,
) -> Result<Join, StartError> {
    let failed = |error: std::io::Error| StartError::System { what: "the cluster's thread", error };
    let mut listening = listen::listen(&[rpc_listener(cluster)], 1, BACKLOG)?;
    let listener = listening.by_shard.remove(0).remove(0);
    let address = listening.addresses[0];
    listener.set_nonblocking(true).map_err(failed)?;
    let registration = cluster.registration(
        &context.config.server_id,
        &context.config.server_type,
        address,
        clients,
        resident_bytes,
    );
    let poll = Poll::new(&context, &listener).map_err(failed)?;
    let cluster = cluster.clone();
    let spawned = std::thread::Builder::new().name("shaddock-pomelo".into()).spawn(move || {
        let config = &context.config;
        let member =
            MemberConfig::new(&cluster, &config.server_id, &config.routes, &context.counters);
        let remote = RemoteConfig {
            limits: &config.limits,
            routes: Arc::clone(&config.routes),
            edition: config.edition(),
        };
        let remote = Remote::new(&context.threads.hub, context.me, remote);
        let mut member = Member::new(member, &cluster, &context.routes, remote);
        match cluster.master().and_then(host_and_port) {
            Some((host, port)) => member.follow(host, port, registration),
            None => member.set_servers(cluster.fixed_servers().unwrap_or_default()),
        }
        let coordinators: &[_] = if cluster.master().is_some() { &[MASTER] } else { &[] };
        let figures =
            ClusterFigures::new(context.me.0, "pomelo", coordinators, cluster.server_types());
        let figures = context.config.figures.add_cluster(figures);
        let eventfd = context.threads.eventfd(context.me).clone();
        let wake = Arc::new(move || eventfd.wake());
        let dialer = Dialer::new(lookup, &cluster.limits, &context.counters, wake);
        let thread = Thread {
            figures,
            show_us: 0,
            member,
            poll,
            listener,
            threads: Arc::clone(&context.threads),
            me: context.me,
            sockets: FxHashMap::default(),
            dialer,
            on_stop: cluster.on_stop.clone(),
            buffer: vec![0; READ_BYTES],
            accept_us: 0,
        };
        let threads = Arc::clone(&context.threads);
        if let Err(error) = thread.run() {
            threads.fail(format!("the cluster's thread has failed: {error}"));
        }
    });
    let handle = spawned.map_err(failed)?;
    Ok(Box::new(move || {
        if handle.join().is_err() {
            tracing::error!("the cluster's thread has panicked");
        }
    }))
}

/// The running loop.
struct Thread {
    figures: Arc<ClusterFigures>,
    /// The time from which the figures are shown again.
    show_us: u64,
    member: Member,
    poll: Poll,
    listener: Socket,
    threads: Arc<Threads>,
    me: Party,
    sockets: FxHashMap<u64, Connection>,
    /// Connections that are being made.
    dialer: Dialer,
    on_stop: Option<StopHook>,
    buffer: Vec<u8>,
    /// The time at which accepting goes on.
    accept_us: u64,
}

struct Connection {
    stream: TcpStream,
    is_open: bool,
    /// The kernel had no room for all there was to send, and tells when it has.
    is_blocked: bool,
}

/// The wait for more to gather, for each call under way, and the most that is waited. A
/// backend writes each answer in two pieces, which would wake this thread twice for each message;
/// while it does not read, they gather on the other side and come as one. With few calls under way
/// there is no wait.
const GATHER_PER_CALL: Duration = Duration::from_micros(4);
const GATHER_MAX: Duration = Duration::from_micros(500);
const GATHER_CALLS_MIN: usize = 16;
/// The time that shards get to take mail that found no room in their lanes.
const BACKED_UP_PAUSE: Duration = Duration::from_millis(1);

/// The events that the kernel tells at once.
type Events = Vec<epoll::Event>;

impl Thread {
    /// Runs until the engine has stopped its shards, and then until all is told.
    fn run(mut self) -> std::io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut stop_at: Option<Instant> = None;
        loop {
            self.gather();
            self.sleep(&mut events, stop_at.is_some())?;
            self.turn(&events);
            if self.threads.has_to_stop_workers() {
                let stop_at = *stop_at.get_or_insert_with(|| Instant::now() + STOP_WITHIN);
                let is_done = !self.member.has_work() && !self.member.is_sending();
                if is_done || Instant::now() >= stop_at {
                    return Ok(());
                }
            }
        }
    }

    /// Lets messages gather, the longer the more of them are under way. The doorbell is not armed
    /// meanwhile, so that shards do not ring it, either.
    fn gather(&self) {
        if self.member.is_backed_up() {
            return std::thread::sleep(BACKED_UP_PAUSE);
        }
        let calls = self.member.calls_under_way();
        if calls >= GATHER_CALLS_MIN {
            let calls = u32::try_from(calls).unwrap_or(u32::MAX);
            std::thread::sleep(GATHER_PER_CALL.saturating_mul(calls).min(GATHER_MAX));
        }
    }

    fn sleep(&mut self, events: &mut Events, is_stopping: bool) -> std::io::Result<()> {
        let hub = Arc::clone(&self.threads.hub);
        let bell = hub.bell(self.me);
        bell.arm();
        // The second look: mail that was pushed before the bell was armed has not rung it.
        let patience = if self.member.has_work() {
            Duration::ZERO
        } else {
            let now_us = self.threads.now_us();
            let longest = if is_stopping { STOP_WITHIN / 50 } else { SLEEP_MAX };
            let deadline_us = self.member.next_deadline_us().unwrap_or(u64::MAX);
            let deadline_us = deadline_us.min(self.dialer.next_deadline_us());
            longest.min(Duration::from_micros(deadline_us.saturating_sub(now_us)))
        };
        let waited = self.poll.wait(events, patience);
        bell.disarm();
        waited
    }

    fn turn(&mut self, events: &Events) {
        let now_us = self.threads.now_us();
        self.member.begin_turn(now_us);
        for event in events {
            let (data, flags) = (event.data, event.flags);
            match data.u64() {
                BELL => self.threads.eventfd(self.me).clear(),
                LISTENER => self.accept(now_us),
                link => self.handle_socket(PeerId::from_word(link), flags),
            }
        }
        if self.accept_us != 0 && now_us >= self.accept_us {
            self.accept(now_us);
        }
        self.dialer.begin_turn(now_us);
        self.member.run();
        // To send may end a connection, which leads to commands, and the other way round.
        loop {
            if let Some(command) = self.member.poll_command() {
                self.command(command);
            } else if let Some(step) = self.dialer.poll() {
                self.dial(step);
            } else if let Some(link) = self.member.poll_dirty() {
                self.send(link);
            } else {
                break;
            }
        }
        while let Some(party) = self.member.poll_bell() {
            self.threads.eventfd(party).wake();
        }
        if now_us >= self.show_us {
            self.show_us = now_us + SHOW_EVERY_US;
            self.member.show(&self.figures);
        }
    }

    /// Takes in what backends have connected; where the process has no descriptor left, pauses.
    fn accept(&mut self, now_us: u64) {
        if now_us < self.accept_us {
            return;
        }
        self.accept_us = 0;
        loop {
            match self.listener.accept() {
                Ok((socket, _)) => {
                    if let Some(link) = self.member.handle_accept()
                        && let Err(error) = self.add(link, socket, true)
                    {
                        self.member.handle_closed(link, &error.to_string());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    crate::log::seldom!(warn, %error, "a backend's connection was not accepted");
                    self.accept_us = now_us + ACCEPT_PAUSE_US;
                    break;
                }
            }
        }
        let interest = match self.accept_us {
            0 => EventFlags::IN,
            _ => EventFlags::empty(),
        };
        self.poll.modify(self.listener.as_fd(), LISTENER, interest);
    }

    /// Watches a socket. One that is being connected becomes writable when it is.
    fn add(&mut self, link: PeerId, socket: Socket, is_open: bool) -> std::io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        let interest = if is_open { EventFlags::IN } else { EventFlags::OUT };
        self.poll.add(socket.as_fd(), link.word(), interest)?;
        let connection = Connection { stream: socket.into(), is_open, is_blocked: false };
        self.sockets.insert(link.word(), connection);
        Ok(())
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Close(link) => {
                self.dialer.handle_done(link.word());
                self.sockets.remove(&link.word());
            }
            Command::Stop => self.handle_stop(),
            Command::Connect { peer, host, port } => self.dialer.start(peer.word(), &host, port),
        }
    }

    /// `pomelo stop`: the embedder knows what to do.
    fn handle_stop(&self) {
        tracing::warn!("the master asks this server to stop");
        if let Some(StopHook(stop)) = &self.on_stop {
            guarded_uncounted("PomeloCluster::on_stop", || stop());
        }
    }

    fn dial(&mut self, step: Step) {
        match step {
            Step::Connect { link, address } => {
                self.sockets.remove(&link);
                if let Err(error) = self.connect(PeerId::from_word(link), address) {
                    self.handle_unreachable(PeerId::from_word(link), &error);
                }
            }
            Step::Fail { link, why } => {
                self.sockets.remove(&link);
                self.member.handle_closed(PeerId::from_word(link), &why);
            }
        }
    }

    fn connect(&mut self, link: PeerId, address: SocketAddr) -> std::io::Result<()> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        match socket.connect(&address.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => Err(error),
            _ => self.add(link, socket, false),
        }
    }

    /// An address can't be reached; the next one may.
    fn handle_unreachable(&mut self, link: PeerId, error: &std::io::Error) {
        self.sockets.remove(&link.word());
        self.dialer.handle_failed(link.word(), error.to_string());
    }

    fn handle_socket(&mut self, link: PeerId, flags: EventFlags) {
        let Some(connection) = self.sockets.get_mut(&link.word()) else { return };
        if !connection.is_open {
            match connection.stream.take_error() {
                Ok(None) => {
                    connection.is_open = true;
                    self.dialer.handle_done(link.word());
                    self.poll.modify(connection.stream.as_fd(), link.word(), EventFlags::IN);
                    self.member.handle_open(link);
                }
                Ok(Some(error)) | Err(error) => self.handle_unreachable(link, &error),
            }
            return;
        }
        // What is not read now is shown again by the next turn.
        let may_read = !self.member.is_backed_up();
        if may_read && flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(link);
        }
        if flags.contains(EventFlags::OUT) {
            self.send(link);
        }
    }

    /// Reads what there is. What follows is shown again by the next turn.
    ///
    /// The other end writes each packet in two pieces, the second of which it holds back until the
    /// first one is acknowledged (docs/protocol/rpc.md, "Transport"). So the kernel is told to do
    /// that at once; it forgets that after a while.
    fn read(&mut self, link: PeerId) {
        for _ in 0..CLUSTER_READS_PER_TURN {
            let Some(connection) = self.sockets.get_mut(&link.word()) else { return };
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.drop_link(link, "it was closed by the other end"),
                Ok(len) => {
                    // It may only fail on a socket that is gone, which the next read tells.
                    SockRef::from(&connection.stream).set_tcp_quickack(true).ok();
                    self.member.handle_input(link, &self.buffer[..len]);
                    if len < self.buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.drop_link(link, &error.to_string()),
            }
        }
    }

    /// Sends what waits: one write for all of a turn.
    fn send(&mut self, link: PeerId) {
        let Some(connection) = self.sockets.get_mut(&link.word()) else { return };
        let Some(output) = self.member.output(link) else { return };
        match write_all(&mut connection.stream, output) {
            Ok(is_blocked) => {
                if is_blocked != connection.is_blocked {
                    connection.is_blocked = is_blocked;
                    let more = if is_blocked { EventFlags::OUT } else { EventFlags::empty() };
                    let stream = connection.stream.as_fd();
                    self.poll.modify(stream, link.word(), EventFlags::IN | more);
                }
            }
            Err(error) => self.drop_link(link, &error.to_string()),
        }
    }

    /// A connection has ended, or could not be made.
    fn drop_link(&mut self, link: PeerId, why: &str) {
        self.sockets.remove(&link.word());
        self.member.handle_closed(link, why);
    }
}

/// The memory of the process, as the kernel counts it; 0 where it does not tell.
fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    kib.map_or(0, |kib: u64| kib * 1024)
}

/// Writes as much as the kernel takes. `true` if there is more.
fn write_all(stream: &mut TcpStream, output: &mut Output) -> std::io::Result<bool> {
    while !output.unsent().is_empty() {
        match stream.write(output.unsent()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => output.advance(len),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// The kernel's list of what is watched.
struct Poll {
    epoll: OwnedFd,
}

/// Words that name no connection.
const BELL: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;

impl Poll {
    /// Watches the doorbell and the listening socket.
    fn new(context: &ForwarderContext, listener: &Socket) -> std::io::Result<Self> {
        let poll = Self { epoll: epoll::create(CreateFlags::CLOEXEC)? };
        poll.add(context.threads.eventfd(context.me).fd(), BELL, EventFlags::IN)?;
        poll.add(listener.as_fd(), LISTENER, EventFlags::IN)?;
        Ok(poll)
    }

    fn add(&self, fd: BorrowedFd<'_>, word: u64, interest: EventFlags) -> std::io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(word), interest)?)
    }

    fn modify(&self, fd: BorrowedFd<'_>, word: u64, interest: EventFlags) {
        let modified = epoll::modify(&self.epoll, fd, EventData::new_u64(word), interest);
        debug_assert!(modified.is_ok(), "what is watched may be watched otherwise");
    }

    fn wait(&self, events: &mut Events, patience: Duration) -> std::io::Result<()> {
        events.clear();
        let timeout = rustix::event::Timespec::try_from(patience).ok();
        let spare = rustix::buffer::spare_capacity(events);
        match epoll::wait(&self.epoll, spare, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};

    use super::super::{Drain, Engine, Shards};
    use super::*;
    use crate::pomelo::Router;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn both(_: &str) -> std::io::Result<Vec<IpAddr>> {
        Ok(vec![Ipv6Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into()])
    }

    fn accept(listener: &TcpListener) -> TcpStream {
        listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match listener.accept() {
                Ok((stream, _)) => return stream,
                Err(error) => assert!(Instant::now() < deadline, "nobody connects: {error}"),
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// `localhost` is `::1` and then 127.0.0.1 on most machines, and Node listens on the latter
    /// where `servers.json` and `master.json` say so.
    #[test]
    fn a_name_with_two_addresses_is_reached_at_the_second() {
        let (master, backend) =
            (TcpListener::bind("127.0.0.1:0"), TcpListener::bind("127.0.0.1:0"));
        let (master, backend) = (master.unwrap(), backend.unwrap());
        let at =
            |listener: &TcpListener| format!("localhost:{}", listener.local_addr().unwrap().port());
        let of_master = PomeloCluster::new(at(&master)).server_type("chat", Router::Default);
        let of_backend = PomeloCluster::fixed().server_type("chat", Router::Default).server(
            "chat-1",
            "chat",
            at(&backend),
        );
        for (cluster, listener) in [(of_master, &master), (of_backend, &backend)] {
            let engine = Engine::builder()
                .listen("127.0.0.1:0")
                .shards(Shards::Count(1))
                .pomelo_with(cluster, both)
                .start()
                .unwrap();
            // And again when that one is lost.
            for _ in 0..2 {
                drop(accept(listener));
            }
            engine.shutdown(Drain::now());
        }
    }
}
