//! The admin server's thread: it polls its sockets, and waits for none of them.

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::api::{self, Outcome};
use super::bounds::{ANSWERS_BYTES_MAX, CONNECTIONS_MAX, STREAMS_MAX, WALKS_MAX};
use super::connection::{Connection, Step};
use super::context::{Context, Drain};
use super::events;
use super::guard::{self, From, Refusal};
use super::http::{Request, Response};
use super::listen::Listening;
use super::metrics::OwnCounters;
use super::options::AdminOptions;
use super::pages::{PAGE_EVERY, Pages};
use super::refused::{REASONS, Reason};
use super::samples::{LOOK_EVERY, Samples};
use super::walk::Walk;
use crate::engine::Handle;
use crate::error::StartError;
use crate::record::Secrets;

/// A running admin server. It has stopped once this is dropped.
pub(super) struct Admin {
    address: Option<SocketAddr>,
    stop: UnixStream,
    thread: Option<JoinHandle<()>>,
}

/// The state of the thread.
pub(super) struct Server {
    options: AdminOptions,
    secrets: Arc<Secrets>,
    listening: Listening,
    handle: Handle,
    /// The address where clients of the game connect.
    game: SocketAddr,
    stop: UnixStream,
    connections: Vec<Connection>,
    samples: Samples,
    /// The time of the next look at the figures.
    look_at: Instant,
    /// The time from which connections are accepted, after the system had no room for one.
    accept_at: Instant,
    drain: Drain,
    was_draining: bool,
    tickets: u64,
    pages: Pages,
    requests: u64,
    refused: [u64; REASONS.len()],
}

/// Connections accepted before the others are looked at.
const ACCEPTS_MAX: usize = 64;
/// The pause of accepting when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The pause between two looks for the mail of a shard that was asked for sessions.
const MAIL_PAUSE: Duration = Duration::from_millis(1);

impl Admin {
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Admin {
    fn drop(&mut self) {
        self.stop.write_all(b"x").ok();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin server has panicked");
        }
    }
}

impl Server {
    pub(super) fn start(
        options: AdminOptions,
        listening: Listening,
        handle: Handle,
        game: SocketAddr,
    ) -> Result<Admin, StartError> {
        let failed = |error| StartError::System { what: "the admin server's thread", error };
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let address = listening.tcp.as_ref().map(|(_, address)| *address);
        let now = Instant::now();
        let server = Self {
            samples: Samples::new(&handle, now),
            pages: Pages::new(handle.shard_count(), now),
            secrets: Arc::new(Secrets::new(&options.redact, &options.redact_routes)),
            options,
            listening,
            handle,
            game,
            stop: stopped,
            connections: Vec::new(),
            look_at: now + LOOK_EVERY,
            accept_at: now,
            drain: Drain::No,
            was_draining: false,
            tickets: 0,
            requests: 0,
            refused: [0; REASONS.len()],
        };
        let thread = std::thread::Builder::new().name("shaddock-admin".into());
        let thread = thread.spawn(move || server.run()).map_err(failed)?;
        Ok(Admin { address, stop, thread: Some(thread) })
    }

    fn run(mut self) {
        loop {
            match self.turn() {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    crate::log::seldom!(error, %error, "the admin server can't poll its sockets");
                    std::thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }

    /// Waits for something, and does what there is to do. False at the end.
    fn turn(&mut self) -> io::Result<bool> {
        let now = Instant::now();
        let ready = self.wait(now)?;
        let now = Instant::now();
        if ready.stop {
            return Ok(false);
        }
        for (index, flags) in ready.connections.into_iter().enumerate() {
            if !flags.is_empty() {
                self.handle_ready(index, flags, now);
            }
        }
        self.go_on_walking(now);
        if now >= self.look_at {
            self.look(now);
        }
        self.pass_deadlines(now);
        self.connections.retain(|connection| !connection.is_done());
        // Behind the others, so that places that have become free count.
        if ready.unix {
            self.accept_unix(now);
        }
        if ready.tcp {
            self.accept_tcp(now);
        }
        Ok(true)
    }

    fn wait(&self, now: Instant) -> io::Result<Ready> {
        let accepts = if now >= self.accept_at { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN)];
        let unix = self.listening.unix.as_ref().map(|unix| unix.listener.as_fd());
        let tcp = self.listening.tcp.as_ref().map(|(listener, _)| listener.as_fd());
        let listeners = [unix, tcp].map(|fd| {
            let place = fds.len();
            fds.extend(fd.map(|fd| PollFd::from_borrowed_fd(fd, accepts)));
            fd.map(|_| place)
        });
        let first = fds.len();
        let polled = self.connections.iter();
        fds.extend(polled.map(|it| PollFd::from_borrowed_fd(it.fd(), it.interest())));
        let patience = self.patience(now);
        let patience =
            Timespec { tv_sec: patience.as_secs() as i64, tv_nsec: patience.subsec_nanos().into() };
        match poll(&mut fds, Some(&patience)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |place: Option<usize>| place.is_some_and(|at| !fds[at].revents().is_empty());
        Ok(Ready {
            stop: !fds[0].revents().is_empty(),
            unix: is_ready(listeners[0]),
            tcp: is_ready(listeners[1]),
            connections: fds[first..].iter().map(PollFd::revents).collect(),
        })
    }

    /// The longest sleep.
    fn patience(&self, now: Instant) -> Duration {
        let deadlines = self.connections.iter().map(Connection::deadline);
        let drain = match (self.drain, self.handle.drain_times()) {
            (Drain::Asked, Some([begins, ..])) => Some(now + begins),
            _ => None,
        };
        let accept = Some(self.accept_at).filter(|at| *at > now);
        let next = deadlines.chain(drain).chain(accept).fold(self.look_at, Instant::min);
        let patience = next.saturating_duration_since(now);
        let walks = self.connections.iter().filter_map(Connection::walking);
        match walks.map(Walk::is_asking).reduce(|one, other| one || other) {
            // Not below what the clock of the kernel can tell.
            None => patience + Duration::from_micros(100),
            Some(true) => patience.min(MAIL_PAUSE),
            Some(false) => patience.min(PAGE_EVERY),
        }
    }

    fn accept_unix(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            let Some(unix) = &self.listening.unix else { return };
            let accepted = unix.listener.accept();
            let accepted = accepted.and_then(|(socket, _)| Connection::unix(socket, now));
            if !self.take_in(accepted, now) {
                return;
            }
        }
    }

    fn accept_tcp(&mut self, now: Instant) {
        for _ in 0..ACCEPTS_MAX {
            let Some((listener, _)) = &self.listening.tcp else { return };
            let accepted = listener.accept();
            let accepted = accepted.and_then(|(socket, _)| Connection::tcp(socket, now));
            if !self.take_in(accepted, now) {
                return;
            }
        }
    }

    /// Takes in a connection, or refuses it. False if there is none.
    fn take_in(&mut self, accepted: io::Result<Connection>, now: Instant) -> bool {
        let mut connection = match accepted {
            Ok(connection) => connection,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
            // One that has gone before it was accepted.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => return true,
            Err(_) => {
                self.accept_at = now + ACCEPT_PAUSE;
                return false;
            }
        };
        let is_unix = connection.from == From::Unix;
        let of_kind = |it: &Connection| (it.from == From::Unix) == is_unix;
        if self.connections.iter().filter(|it| of_kind(it)).count() >= CONNECTIONS_MAX {
            self.refuse(Reason::Connections);
            let Some(place) = self.place_for_another(of_kind, now) else {
                let text = "too many connections to the admin server; try again";
                // As much of it as goes out at once.
                connection.answer(&Response::error(503, text), now);
                return true;
            };
            self.connections.swap_remove(place);
        }
        self.connections.push(connection);
        true
    }

    /// The connection that makes room for another: one that is silent, or else the one that has
    /// waited longest for a reader who takes nothing. So others get in among those.
    fn place_for_another(
        &self,
        of_kind: impl Fn(&Connection) -> bool,
        now: Instant,
    ) -> Option<usize> {
        let all = || self.connections.iter().enumerate().filter(|(_, it)| of_kind(it));
        let silent = all().find(|(_, it)| it.is_silent(now)).map(|(place, _)| place);
        let waits = all().filter_map(|(place, it)| Some((it.waits_for_reader(now)?, place)));
        silent.or_else(|| waits.min().map(|(_, place)| place))
    }

    fn handle_ready(&mut self, index: usize, flags: PollFlags, now: Instant) {
        match self.connections[index].handle_ready(flags, now) {
            Step::Idle => {}
            Step::Bad(response) => {
                self.refuse(Reason::Request);
                self.connections[index].answer(&response, now);
            }
            Step::Asked(request) => self.handle_request(index, &request, now),
        }
    }

    fn handle_request(&mut self, index: usize, request: &Request, now: Instant) {
        self.requests += 1;
        let from = self.connections[index].from;
        if let Err(refusal) = guard::check(&self.options, from, request) {
            self.refuse(match refusal {
                Refusal::Host => Reason::Host,
                Refusal::Origin => Reason::Origin,
                Refusal::NoToken | Refusal::Token => Reason::Token,
            });
            return self.connections[index].answer(&refusal.response(), now);
        }
        let own = self.own_counters();
        let mut context = Context {
            handle: &self.handle,
            options: &self.options,
            secrets: &self.secrets,
            samples: &self.samples,
            drain: &mut self.drain,
            own,
            from,
            game: self.game,
            now,
        };
        match api::handle(&mut context, request) {
            Outcome::Answer(response) => self.answer(index, &response, now),
            Outcome::Walk(walk) => self.wait_for_shards(index, walk, now),
            Outcome::Stream => self.stream(index, now),
        }
    }

    /// Answers, unless too much waits for the readers of large answers.
    fn answer(&mut self, index: usize, response: &Response, now: Instant) {
        let waiting: usize = self.connections.iter().map(Connection::large_bytes).sum();
        if response.is_large && waiting + response.body.len() > ANSWERS_BYTES_MAX {
            self.refuse(Reason::Answers);
            let text = "too much waits for others who read slowly; try again";
            return self.connections[index].answer(&Response::error(503, text), now);
        }
        self.connections[index].answer(response, now);
    }

    fn wait_for_shards(&mut self, index: usize, walk: Walk, now: Instant) {
        if self.count_like(index, Connection::is_walking) >= WALKS_MAX {
            self.refuse(Reason::Walks);
            let text = "too many look at sessions at once; try again";
            return self.connections[index].answer(&Response::error(503, text), now);
        }
        self.tickets += 1;
        self.connections[index].wait(walk, self.tickets);
    }

    /// Connections that have come in the same way as one.
    fn count_like(&self, index: usize, is_counted: impl Fn(&Connection) -> bool) -> usize {
        let is_unix = |it: &Connection| it.from == From::Unix;
        let of_kind = is_unix(&self.connections[index]);
        let alike = self.connections.iter().filter(|it| is_unix(it) == of_kind);
        alike.filter(|it| is_counted(it)).count()
    }

    fn stream(&mut self, index: usize, now: Instant) {
        if self.count_like(index, Connection::is_streaming) >= STREAMS_MAX {
            self.refuse(Reason::Streams);
            let text = "too many streams of events; close one of them";
            return self.connections[index].answer(&Response::error(503, text), now);
        }
        self.connections[index].stream(&events::head(), now);
    }

    /// Goes on with the first look at each shard. Others at the same wait for it, so that no shard
    /// is asked twice in a turn; one that hangs holds up nobody who wants another.
    fn go_on_walking(&mut self, now: Instant) {
        let walking = self.connections.iter().enumerate().filter(|(_, it)| it.is_walking());
        let mut order: Vec<_> = walking.map(|(index, it)| (it.ticket, index)).collect();
        order.sort_unstable();
        let mut asked = Vec::new();
        for (_, index) in order {
            let Some(walk) = self.connections[index].walk() else { continue };
            if asked.contains(&walk.shard()) {
                continue;
            }
            asked.push(walk.shard());
            let Some(response) = walk.poll(&self.handle, &mut self.pages, now) else {
                asked.push(walk.shard());
                continue;
            };
            if walk.is_to_record() && response.status == 503 {
                self.refuse(Reason::Recordings);
            }
            self.answer(index, &response, now);
        }
    }

    /// Looks at the figures, and tells those who listen.
    fn look(&mut self, now: Instant) {
        self.samples.look(&self.handle, now);
        // A clock that was stopped for a while is not made up for.
        self.look_at = (self.look_at + LOOK_EVERY).max(now);
        let is_draining = self.handle.is_draining();
        let was_draining = std::mem::replace(&mut self.was_draining, is_draining);
        if !self.connections.iter().any(Connection::is_streaming) {
            return;
        }
        let events = events::of(&self.samples, is_draining, was_draining);
        let streams = self.connections.iter_mut().filter(|it| it.is_streaming());
        let lost = streams.map(|it| it.push(&events, now)).filter(|pushed| !pushed).count();
        self.refused[Reason::Events as usize] += lost as u64;
    }

    fn pass_deadlines(&mut self, now: Instant) {
        if self.drain == Drain::Asked && self.handle.is_closing() {
            self.drain = Drain::Told;
            if let Some((_, on_drain)) = &self.options.on_drain {
                on_drain();
            }
        }
        let due = self.connections.iter_mut().filter(|it| !it.is_done() && it.deadline() <= now);
        let mut late = 0;
        for connection in due {
            if connection.is_walking() {
                let text = "the shards have not answered in time; try again";
                connection.answer_late(&Response::error(504, text), now);
            } else {
                connection.close();
            }
            late += 1;
        }
        self.refused[Reason::Time as usize] += late;
    }

    fn refuse(&mut self, reason: Reason) {
        self.refused[reason as usize] += 1;
    }

    fn own_counters(&self) -> OwnCounters {
        let log_lines_lost = self.options.lost_log_lines.as_ref().map(|count| count());
        let requests = self.requests;
        let mut own = OwnCounters { requests, log_lines_lost, ..OwnCounters::default() };
        for (place, pair) in own.refused.iter_mut().zip(REASONS.into_iter().zip(self.refused)) {
            *place = pair;
        }
        own
    }
}

/// The sockets that are ready.
struct Ready {
    stop: bool,
    unix: bool,
    tcp: bool,
    connections: Vec<PollFlags>,
}
