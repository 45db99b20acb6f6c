//! The loop of one ring of the load client.

use std::io;
use std::time::{Duration, Instant};

use super::pace::Rounds;
use super::part::Part;
use super::run_barrier::{GivenUp, Step, Sums};
use super::sockets::{FollowUp, Sockets};
use super::{LoadProgress, LoadReport, Phase};
use crate::io::Io;
use crate::shard::SocketIndex;

/// The time that connecting, and the answers outstanding at the end, may take without progress.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(20);
const PROGRESS_EVERY: Duration = Duration::from_millis(250);
/// In an open loop a request due sooner than this is waited for without sleeping, if the thread has
/// a core of its own.
const SPIN_NS: u64 = 200_000;
/// The longest sleep while nothing is due but heartbeats.
const SLEEP_MAX: Duration = Duration::from_millis(20);
/// The interval at which a driver that waits for others looks for them.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The loop of one ring, which decides when its connections do what.
///
/// The steps of a run are called one after the other: [`Self::connect_all`], [`Self::begin`],
/// [`Self::load`], and so on, as `run` has them.
pub(super) struct Driver<'a, I: Io> {
    sockets: Sockets<I>,
    part: Part<'a>,
    beats: Rounds,
    next_due: f64,
    next_connection: u32,
    spin_ns: u64,
    /// Requests are sent: all connections are up, and counting is not over.
    is_loading: bool,
}

impl<'a, I: Io> Driver<'a, I> {
    pub(super) fn new(part: Part<'a>) -> io::Result<Self> {
        let options = &part.options;
        let sockets = Sockets::new(options, part.first)?;
        // Drivers that share a core would only keep each other from it.
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let spin_ns = if part.barrier.len() as usize <= cores { SPIN_NS } else { 0 };
        Ok(Self {
            sockets,
            beats: Rounds::new(options.heartbeat, options.connections, 0),
            next_due: 0.0,
            next_connection: 0,
            spin_ns,
            is_loading: false,
            part,
        })
    }

    /// Opens all connections. One that fails ends the run.
    pub(super) fn connect_all(
        &mut self,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), GivenUp> {
        self.until_all_work(Phase::Connect, progress, |driver| {
            let disconnects = &driver.sockets.figures.disconnects;
            if disconnects.total() == 0 {
                return Ok(());
            }
            Err(io::Error::new(io::ErrorKind::ConnectionRefused, disconnects.to_string()))
        })
    }

    /// Drops all connections, and opens them again, those that fail once more. Gives the time that
    /// it took.
    pub(super) fn storm(
        &mut self,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<Duration, GivenUp> {
        let begin = Instant::now();
        self.sockets.begin_storm();
        self.until_all_work(Phase::Storm, progress, |_| Ok(()))?;
        self.sockets.end_storm();
        Ok(begin.elapsed())
    }

    fn until_all_work(
        &mut self,
        phase: Phase,
        progress: &mut dyn FnMut(LoadProgress),
        check: impl Fn(&Self) -> io::Result<()>,
    ) -> Result<(), GivenUp> {
        let total = self.part.options.connections;
        let mut told = Instant::now();
        let mut last = (0, Instant::now());
        while self.sockets.working() < total {
            self.turn(Duration::from_millis(100))?;
            check(self)?;
            self.check_others()?;
            let working = self.sockets.working();
            if working > last.0 {
                last = (working, Instant::now());
            } else if last.1.elapsed() > PROGRESS_TIMEOUT {
                let text = format!("only {working} of {total} connections came up");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
            }
            if told.elapsed() >= PROGRESS_EVERY {
                told = Instant::now();
                self.tell(phase, f64::from(working) / f64::from(total), progress);
            }
        }
        Ok(())
    }

    /// Gives up if another driver has.
    fn check_others(&self) -> Result<(), GivenUp> {
        match self.part.barrier.has_failed() {
            true => Err(GivenUp::WithAnother),
            false => Ok(()),
        }
    }

    /// Waits for the other drivers, without neglecting the connections.
    pub(super) fn wait(&mut self, step: Step) -> Result<(), GivenUp> {
        self.part.barrier.arrive(step);
        while !self.part.barrier.have_all_arrived(step) {
            self.check_others()?;
            let timeout = if self.is_loading { self.ask_due() } else { LOOK_EVERY };
            self.turn(timeout.min(LOOK_EVERY))?;
        }
        Ok(())
    }

    /// Tells how far the run is. Only the first driver is heard, for all.
    pub(super) fn tell(&self, phase: Phase, share: f64, progress: &mut dyn FnMut(LoadProgress)) {
        self.show_others();
        if self.part.driver.0 == 0 {
            let Sums { messages, pushes, connections } = self.part.barrier.sums();
            progress(LoadProgress { phase, share, messages, connections, pushes });
        }
    }

    fn show_others(&self) {
        let (figures, connections) = (&self.sockets.figures, self.sockets.working());
        let (messages, pushes) = (figures.messages, figures.pushes);
        self.part.barrier.show(self.part.driver, Sums { messages, pushes, connections });
    }

    /// Fills every slot, or starts the clock of an open loop.
    pub(super) fn begin(&mut self) {
        self.is_loading = true;
        self.next_due = self.sockets.now_ns() as f64;
        if self.part.options.mode.is_quiet() {
            return;
        }
        if self.part.options.rate.is_some() {
            self.sockets.follow_up = FollowUp::OverdueRequests;
        } else {
            self.sockets.follow_up = FollowUp::NewRequests;
            self.sockets.ask_all();
        }
    }

    pub(super) fn reset(&mut self) {
        self.sockets.figures.reset();
        self.show_others();
    }

    /// Loads the server for that time.
    pub(super) fn load(
        &mut self,
        phase: Phase,
        length: Duration,
        progress: &mut dyn FnMut(LoadProgress),
    ) -> Result<(), GivenUp> {
        let start = Instant::now();
        self.tell(phase, 0.0, progress);
        let mut told = start;
        let mut last = (self.sockets.figures.messages, start);
        loop {
            let passed = start.elapsed();
            if passed >= length {
                return Ok(());
            }
            let timeout = self.ask_due().min(length.saturating_sub(passed));
            self.turn(timeout)?;
            let messages = self.sockets.figures.messages;
            if messages > last.0 || self.part.options.mode.is_quiet() {
                last = (messages, Instant::now());
            } else if last.1.elapsed() > PROGRESS_TIMEOUT {
                let text = "the server has stopped answering";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text).into());
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
        self.sockets.follow_up = FollowUp::Nothing;
        self.show_others();
        let figures = &self.sockets.figures;
        LoadReport {
            connections: self.sockets.working(),
            connecting: Duration::ZERO,
            reconnecting: None,
            handshake: figures.handshake.clone(),
            elapsed,
            messages: figures.messages,
            latency: figures.latency.clone(),
            wrong: figures.wrong,
            disconnects: figures.disconnects.clone(),
            pushes: figures.pushes,
            client_cpu,
        }
    }

    /// Sends what is due in an open loop. Gives the time until the next is.
    fn ask_due(&mut self) -> Duration {
        let options = &self.part.options;
        let Some(rate) = options.rate.filter(|_| !options.mode.is_quiet()) else {
            return SLEEP_MAX;
        };
        let interval_ns = 1e9 / rate;
        let now_ns = self.sockets.now_ns();
        while self.next_due <= now_ns as f64 {
            let due_ns = self.next_due as u64;
            self.next_due += interval_ns;
            let socket = SocketIndex(self.next_connection);
            self.next_connection = (self.next_connection + 1) % options.connections;
            self.sockets.ask_due(socket, due_ns);
        }
        match (self.next_due as u64).saturating_sub(now_ns) {
            wait_ns if wait_ns < self.spin_ns => Duration::ZERO,
            wait_ns => Duration::from_nanos(wait_ns - self.spin_ns / 2),
        }
    }

    fn turn(&mut self, timeout: Duration) -> io::Result<()> {
        let now_ns = self.sockets.now_ns();
        while let Some(index) = self.beats.next(now_ns) {
            self.sockets.heartbeat(SocketIndex(index));
        }
        self.sockets.open_more();
        self.sockets.submit(timeout.min(SLEEP_MAX))?;
        self.sockets.handle_completions();
        Ok(())
    }
}
