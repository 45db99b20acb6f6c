//! The loop of one ring of the load client.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use socket2::SockAddr;

use super::client::{Client, State};
use super::link::{Connection, Link};
use super::pace::Rounds;
use super::run::Part;
use super::script::Script;
use super::together::{Step, Sums};
use super::{LoadOptions, LoadProgress, LoadReport, LostCounts, Phase, histogram};
use crate::uring::{Buffers, Completion, Ring, RingSize};

const RING: RingSize = RingSize { submissions: 2048, completions: 16_384 };
const RECEIVE_BUFFERS: u16 = 1024;
const RECEIVE_BUFFER_BYTES: u32 = 16 * 1024;
/// How long connecting, and the answers outstanding at the end, may take without progress.
const PATIENCE: Duration = Duration::from_secs(20);
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// In an open loop a request due sooner than this is waited for without sleeping, if the thread has
/// a core of its own.
const SPIN_NS: u64 = 200_000;
/// The longest sleep while nothing is due but heartbeats.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// How often a driver that waits for others looks for them.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// One ring, and the connections on it.
///
/// The steps of a run are called one after the other: [`Self::connect_all`], [`Self::begin`],
/// [`Self::load`], and so on, as `run` has them.
pub(super) struct Driver<'a> {
    pub(super) ring: Ring,
    /// After the ring, so that it is dropped after it.
    pub(super) buffers: Buffers,
    /// So is this, as the ring sends from it.
    pub(super) script: Script,
    pub(super) options: LoadOptions,
    part: Part<'a>,
    /// Boxed, as the kernel reads them.
    pub(super) addresses: Box<[SockAddr]>,
    pub(super) connections: Vec<Connection>,
    batch: Vec<Completion>,
    pub(super) dirty: Vec<u32>,
    start: Instant,
    beats: Rounds,
    next_due: f64,
    next_connection: usize,
    spin_ns: u64,
    /// Whether all connections are up, so that answers are followed by new requests.
    pub(super) is_loading: bool,

    /// Connections that are to be opened, and how many are on the way.
    pub(super) to_open: VecDeque<u32>,
    pub(super) opening: u32,
    /// When all connections were dropped, while they come again.
    pub(super) storm_ns: Option<u64>,
    pub(super) working: u32,
    pub(super) messages: u64,
    pub(super) latency: Histogram<u64>,
    pub(super) handshake: Histogram<u64>,
    pub(super) wrong: u64,
    pub(super) lost: LostCounts,
    pub(super) pushes: u64,
}

impl<'a> Driver<'a> {
    pub(super) fn new(part: Part<'a>) -> io::Result<Self> {
        let options = part.options.clone();
        let ring = Ring::new(RING)?;
        ring.register_sockets(options.connections)?;
        let buffers = Buffers::new(&ring, RECEIVE_BUFFERS, RECEIVE_BUFFER_BYTES)?;
        let script = Script::new(&options);
        let connections = (0..options.connections)
            .map(|place| Connection::new(Client::new(&script, part.first + place)))
            .collect();
        // Drivers that share a core would only keep each other from it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin_ns = if part.together.len() as usize <= cores { SPIN_NS } else { 0 };
        Ok(Self {
            ring,
            buffers,
            script,
            addresses: options.addresses.iter().map(|address| SockAddr::from(*address)).collect(),
            connections,
            batch: Vec::with_capacity(RING.completions as usize),
            dirty: Vec::new(),
            start: Instant::now(),
            beats: Rounds::new(options.heartbeat, options.connections, 0),
            next_due: 0.0,
            next_connection: 0,
            spin_ns,
            is_loading: false,
            to_open: (0..options.connections).collect(),
            opening: 0,
            storm_ns: None,
            working: 0,
            messages: 0,
            latency: histogram(),
            handshake: histogram(),
            wrong: 0,
            lost: LostCounts::default(),
            pushes: 0,
            options,
            part,
        })
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// Opens all connections. One that fails ends the run.
    pub(super) fn connect_all(
        &mut self,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), Option<io::Error>> {
        self.until_all_work(Phase::Connect, progress, |driver| {
            if driver.lost.total() == 0 {
                return Ok(());
            }
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, driver.lost.to_string()))
        })
    }

    /// Drops all connections, and opens them again, those that fail once more; how long that took.
    pub(super) fn storm(
        &mut self,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Duration, Option<io::Error>> {
        let begin = Instant::now();
        self.storm_ns = Some(self.now_ns());
        self.handshake.reset();
        (0..self.connections.len() as u32).for_each(|place| self.leave(place));
        self.until_all_work(Phase::Storm, progress, |_| Ok(()))?;
        self.storm_ns = None;
        Ok(begin.elapsed())
    }

    fn until_all_work(
        &mut self,
        phase: Phase,
        progress: &mut dyn FnMut(LoadProgress),
        check: impl Fn(&Self) -> io::Result<()>,
    ) -> Result<(), Option<io::Error>> {
        let total = self.options.connections;
        let mut told = Instant::now();
        let mut last = (0, Instant::now());
        while self.working < total {
            self.turn(Duration::from_millis(100))?;
            check(self)?;
            self.check_others()?;
            if self.working > last.0 {
                last = (self.working, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                let text = format!("only {} of {total} connections came up", self.working);
                return Err(Some(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                self.tell(phase, f64::from(self.working) / f64::from(total), progress);
            }
        }
        Ok(())
    }

    /// `None` if another driver has given up.
    fn check_others(&self) -> Result<(), Option<io::Error>> {
        if self.part.together.has_failed() { Err(None) } else { Ok(()) }
    }

    /// Waits for the other drivers, without neglecting the connections.
    pub(super) fn wait(&mut self, step: Step) -> Result<(), Option<io::Error>> {
        self.part.together.arrive(step);
        while !self.part.together.have_all_arrived(step) {
            self.check_others()?;
            let patience = if self.is_loading { self.ask_due() } else { LOOK_EVERY };
            self.turn(patience.min(LOOK_EVERY))?;
        }
        Ok(())
    }

    /// Tells how far the run is. Only the first driver is heard, for all.
    pub(super) fn tell(&self, phase: Phase, share: f64, progress: &mut dyn FnMut(LoadProgress)) {
        self.tell_others();
        if self.part.driver == 0 {
            let Sums { messages, pushes, connections } = self.part.together.sums();
            progress(LoadProgress { phase, share, messages, connections, pushes });
        }
    }

    fn tell_others(&self) {
        let (messages, pushes, connections) = (self.messages, self.pushes, self.working);
        self.part.together.tell(self.part.driver, Sums { messages, pushes, connections });
    }

    /// Fills every slot, or starts the clock of an open loop.
    pub(super) fn begin(&mut self) {
        self.is_loading = true;
        self.next_due = self.now_ns() as f64;
        if self.options.mode.is_quiet() || self.options.rate.is_some() {
            return;
        }
        let now_ns = self.now_ns();
        for place in 0..self.connections.len() as u32 {
            self.connections[place as usize].client.ask(&self.script, now_ns, u32::MAX);
            self.mark_dirty(place);
        }
    }

    pub(super) fn reset(&mut self) {
        self.messages = 0;
        self.wrong = 0;
        self.pushes = 0;
        self.latency.reset();
        self.tell_others();
    }

    pub(super) fn load(
        &mut self,
        phase: Phase,
        length: Duration,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), Option<io::Error>> {
        let start = Instant::now();
        self.tell(phase, 0.0, progress);
        let mut told = start;
        let mut last = (self.messages, start);
        loop {
            let passed = start.elapsed();
            if passed >= length {
                return Ok(());
            }
            let patience = self.ask_due().min(length.saturating_sub(passed));
            self.turn(patience)?;
            if self.messages > last.0 || self.options.mode.is_quiet() {
                last = (self.messages, Instant::now());
            } else if last.1.elapsed() > PATIENCE {
                let text = "the server has stopped answering";
                return Err(Some(io::Error::new(io::ErrorKind::TimedOut, text)));
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                self.check_others()?;
                let share = passed.as_secs_f64() / length.as_secs_f64();
                self.tell(phase, share.min(1.0), progress);
            }
        }
    }

    /// Ends the counting: no more requests, and the figures as they are now.
    pub(super) fn end(&mut self, elapsed: Duration, client_cpu: Duration) -> LoadReport {
        self.is_loading = false;
        self.tell_others();
        LoadReport {
            connections: self.working,
            connecting: Duration::ZERO,
            reconnecting: None,
            handshake: self.handshake.clone(),
            elapsed,
            messages: self.messages,
            latency: self.latency.clone(),
            wrong: self.wrong,
            lost: self.lost.clone(),
            pushes: self.pushes,
            client_cpu,
        }
    }

    /// Sends what is due in an open loop; how long to wait for the next.
    fn ask_due(&mut self) -> Duration {
        let Some(rate) = self.options.rate.filter(|_| !self.options.mode.is_quiet()) else {
            return SLEEP_MAX;
        };
        let interval_ns = 1e9 / rate;
        let now_ns = self.now_ns();
        while self.next_due <= now_ns as f64 {
            let due_ns = self.next_due as u64;
            self.next_due += interval_ns;
            let place = self.next_connection;
            self.next_connection = (place + 1) % self.connections.len();
            let connection = &mut self.connections[place];
            if connection.client.state != State::Working {
                // It is lost, which is counted.
                continue;
            }
            if connection.client.ask(&self.script, due_ns, 1) == 0 {
                connection.overdue.push_back(due_ns);
            }
            self.mark_dirty(place as u32);
        }
        match (self.next_due as u64).saturating_sub(now_ns) {
            wait_ns if wait_ns < self.spin_ns => Duration::ZERO,
            wait_ns => Duration::from_nanos(wait_ns - self.spin_ns / 2),
        }
    }

    pub(super) fn mark_dirty(&mut self, place: u32) {
        let connection = &mut self.connections[place as usize];
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(place);
        }
    }

    fn turn(&mut self, patience: Duration) -> io::Result<()> {
        self.beat();
        self.open_more();
        let mut dirty = std::mem::take(&mut self.dirty);
        for place in dirty.drain(..) {
            self.connections[place as usize].is_dirty = false;
            self.send(place);
        }
        self.dirty = dirty;
        self.buffers.publish();
        if patience.is_zero() {
            self.ring.submit()?;
        } else {
            self.ring.submit_and_wait(patience.min(SLEEP_MAX))?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        self.ring.reap(&mut batch);
        let now_ns = self.now_ns();
        for completion in batch.drain(..) {
            self.handle(completion, now_ns);
        }
        self.batch = batch;
        Ok(())
    }

    /// Sends the heartbeats that are due.
    fn beat(&mut self) {
        let now_ns = self.now_ns();
        while let Some(place) = self.beats.next(now_ns) {
            let connection = &mut self.connections[place as usize];
            if connection.link == Link::Up && connection.client.state == State::Working {
                connection.client.heartbeat(&self.script);
                self.mark_dirty(place);
            }
        }
    }
}
