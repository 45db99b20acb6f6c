//! From a name to a connection: look-ups on a bounded number of threads, and the addresses of a
//! name one after the other.
//!
//! It makes no connection itself. Its thread, in each turn: [`Dialer::begin_turn`], then
//! [`Dialer::poll`] until it gives nothing, with [`Dialer::start`], [`Dialer::handle_failed`] and
//! [`Dialer::handle_done`] for what happens meanwhile; it sleeps no longer than
//! [`Dialer::next_deadline_us`] allows.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use rustc_hash::FxHashMap;

use crate::metrics::Counters;
use crate::pomelo::PomeloLimits;

/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 16;
/// The time for which an address may be silent before the next one is tried, and for which all of
/// them but the last may be together, which leaves time for that one.
const ADDRESS_PATIENCE: Duration = Duration::from_secs(1);
const ADDRESSES_PATIENCE: Duration = Duration::from_secs(4);
/// The age up to which the outcome of a look-up is used that took longer than its connection was
/// wanted for.
const KEPT_US: u64 = 10_000_000;

/// The work of `getaddrinfo`.
pub(super) type Lookup = fn(&str) -> io::Result<Vec<IpAddr>>;

/// The addresses of a name, as the system knows them.
pub(super) fn lookup(host: &str) -> io::Result<Vec<IpAddr>> {
    Ok((host, 0).to_socket_addrs()?.map(|address| address.ip()).collect())
}

/// Connections that are to be made.
pub(super) struct Dialer {
    lookup: Lookup,
    /// Wakes the thread when a look-up has ended.
    wake: Arc<dyn Fn() + Send + Sync>,
    counters: Arc<Counters>,
    lookups_max: usize,
    names_max: usize,
    lookups: Lookups,
    names: FxHashMap<Arc<str>, Name>,
    /// Names that wait for a thread; those whose last look-up failed wait behind all others, and
    /// for half of the threads.
    queue: VecDeque<Arc<str>>,
    failed_queue: VecDeque<Arc<str>>,
    dials: FxHashMap<u64, Dial>,
    /// Connections with something to do.
    ready: VecDeque<u64>,
    now_us: u64,
    sender: Sender<Resolved>,
    receiver: Receiver<Resolved>,
}

/// Look-ups under way.
#[derive(Debug, Default)]
struct Lookups {
    all: usize,
    /// Those of names whose last look-up failed.
    failed: usize,
}

struct Name {
    /// Its last look-up failed.
    failed: bool,
    state: State,
    /// Connections that wait for it; some of them may have been given up.
    waiters: Vec<u64>,
}

enum State {
    Idle,
    /// Waits for a thread, or is being looked up.
    Asked,
    /// Its addresses were found when no connection waited for them any more.
    Kept {
        at_us: u64,
        addresses: Vec<IpAddr>,
    },
}

/// One connection.
struct Dial {
    port: u16,
    rest: std::vec::IntoIter<IpAddr>,
    /// The time for which each address but the last may be silent.
    patience_us: u64,
    /// The time at which the next address has its turn at the latest.
    next_us: u64,
    /// The error of the last one.
    why: Option<String>,
}

/// The outcome of a look-up.
struct Resolved {
    host: Arc<str>,
    after_failure: bool,
    addresses: io::Result<Vec<IpAddr>>,
}

/// The next step of a connection.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Begin to connect to this address, and drop the socket of the one before.
    Connect { link: u64, address: SocketAddr },
    /// No address is left.
    Fail { link: u64, why: String },
}

impl Dialer {
    pub(super) fn new(
        lookup: Lookup,
        limits: &PomeloLimits,
        counters: &Arc<Counters>,
        wake: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (sender, receiver) = channel();
        Self {
            lookup,
            wake,
            counters: Arc::clone(counters),
            lookups_max: limits.lookups_max,
            // Each server, and the master, may move while its old name is looked up.
            names_max: limits.servers_max.saturating_add(1).saturating_mul(2),
            lookups: Lookups::default(),
            names: FxHashMap::default(),
            queue: VecDeque::new(),
            failed_queue: VecDeque::new(),
            dials: FxHashMap::default(),
            ready: VecDeque::new(),
            now_us: 0,
            sender,
            receiver,
        }
    }

    /// Begins a turn: takes in outcomes of look-ups, and finds the addresses whose time is over.
    pub(super) fn begin_turn(&mut self, now_us: u64) {
        self.now_us = now_us;
        while let Ok(resolved) = self.receiver.try_recv() {
            self.handle_resolved(resolved);
        }
        for (link, dial) in &mut self.dials {
            if dial.next_us <= now_us {
                dial.next_us = u64::MAX;
                dial.why.get_or_insert_with(|| "it does not answer".into());
                self.ready.push_back(*link);
            }
        }
    }

    /// A connection is wanted. Connections to the same name wait for the same look-up.
    pub(super) fn start(&mut self, link: u64, host: &str, port: u16) {
        let no_addresses = Vec::new().into_iter();
        let dial = Dial { port, rest: no_addresses, patience_us: 0, next_us: u64::MAX, why: None };
        self.dials.insert(link, dial);
        if let Ok(ip) = host.parse() {
            return self.set_addresses(link, vec![ip]);
        }
        if !self.names.contains_key(host) && !self.make_room() {
            return self.handle_failed(link, "too many names are being looked up".into());
        }
        let dials = &self.dials;
        let name = self.names.entry(host.into()).or_insert_with(|| Name {
            failed: false,
            state: State::Idle,
            waiters: Vec::new(),
        });
        match std::mem::replace(&mut name.state, State::Asked) {
            State::Kept { at_us, addresses } if self.now_us.saturating_sub(at_us) <= KEPT_US => {
                name.state = State::Idle;
                self.set_addresses(link, addresses);
            }
            State::Asked => {
                name.waiters.retain(|waiter| dials.contains_key(waiter));
                name.waiters.push(link);
            }
            State::Kept { .. } | State::Idle => {
                name.waiters.push(link);
                match name.failed {
                    false => self.queue.push_back(host.into()),
                    true => self.failed_queue.push_back(host.into()),
                }
                self.start_lookups();
                let waiting = self.queue.back().or_else(|| self.failed_queue.back());
                if waiting.is_some_and(|waiting| **waiting == *host) {
                    self.counters.lookup_waits.one();
                }
            }
        }
    }

    /// The present address of a connection can't be reached.
    pub(super) fn handle_failed(&mut self, link: u64, why: String) {
        if let Some(dial) = self.dials.get_mut(&link) {
            dial.next_us = u64::MAX;
            dial.why = Some(why);
            self.ready.push_back(link);
        }
    }

    /// A connection is made, or no longer wanted.
    pub(super) fn handle_done(&mut self, link: u64) {
        self.dials.remove(&link);
    }

    /// The next thing to do.
    pub(super) fn poll(&mut self) -> Option<Step> {
        loop {
            let link = self.ready.pop_front()?;
            let Some(dial) = self.dials.get_mut(&link) else { continue };
            let Some(ip) = dial.rest.next() else {
                let why = dial.why.take().unwrap_or_else(|| "its name has no address".into());
                self.dials.remove(&link);
                return Some(Step::Fail { link, why });
            };
            if !dial.rest.as_slice().is_empty() {
                dial.next_us = self.now_us + dial.patience_us;
            }
            return Some(Step::Connect { link, address: SocketAddr::new(ip, dial.port) });
        }
    }

    pub(super) fn next_deadline_us(&self) -> u64 {
        self.dials.values().map(|dial| dial.next_us).min().unwrap_or(u64::MAX)
    }

    fn set_addresses(&mut self, link: u64, mut addresses: Vec<IpAddr>) {
        let Some(dial) = self.dials.get_mut(&link) else { return };
        addresses.truncate(ADDRESSES_MAX);
        let share = ADDRESSES_PATIENCE / addresses.len().max(1) as u32;
        dial.patience_us = share.min(ADDRESS_PATIENCE).as_micros() as u64;
        dial.rest = addresses.into_iter();
        self.ready.push_back(link);
    }

    /// Forgets names that no connection needs just now if there are too many. `true` if there is
    /// room.
    fn make_room(&mut self) -> bool {
        if self.names.len() >= self.names_max {
            self.names.retain(|_, name| matches!(name.state, State::Asked));
        }
        self.names.len() < self.names_max
    }

    /// Starts look-ups while there are threads for them.
    fn start_lookups(&mut self) {
        while self.lookups.all < self.lookups_max {
            let failed_max = self.lookups_max.div_ceil(2);
            let (host, after_failure) = match self.queue.pop_front() {
                Some(host) => (host, false),
                None if self.lookups.failed >= failed_max => return,
                None => match self.failed_queue.pop_front() {
                    Some(host) => (host, true),
                    None => return,
                },
            };
            self.lookups.all += 1;
            self.lookups.failed += usize::from(after_failure);
            let (lookup, wake, sender) = (self.lookup, Arc::clone(&self.wake), self.sender.clone());
            let asked = Arc::clone(&host);
            let thread = std::thread::Builder::new().name("shaddock-lookup".into());
            let spawned = thread.spawn(move || {
                let addresses = lookup(&asked);
                // The dialer may have ended meanwhile.
                sender.send(Resolved { host: asked, after_failure, addresses }).ok();
                wake();
            });
            if let Err(error) = spawned {
                let addresses = Err(error);
                self.sender.send(Resolved { host, after_failure, addresses }).ok();
                (self.wake)();
            }
        }
    }

    fn handle_resolved(&mut self, resolved: Resolved) {
        let Resolved { host, after_failure, addresses } = resolved;
        self.lookups.all -= 1;
        self.lookups.failed -= usize::from(after_failure);
        if let Some(name) = self.names.get_mut(&host) {
            name.failed = addresses.is_err();
            let waiters = std::mem::take(&mut name.waiters);
            let wanted: Vec<u64> =
                waiters.into_iter().filter(|link| self.dials.contains_key(link)).collect();
            name.state = match &addresses {
                // A connection that is wanted soon need not wait as long once more.
                Ok(addresses) if wanted.is_empty() => {
                    State::Kept { at_us: self.now_us, addresses: addresses.clone() }
                }
                _ => State::Idle,
            };
            for link in wanted {
                match &addresses {
                    Ok(addresses) => self.set_addresses(link, addresses.clone()),
                    Err(error) => self.handle_failed(link, error.to_string()),
                }
            }
        }
        self.start_lookups();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn dialer(lookup: Lookup, lookups_max: usize) -> Dialer {
        let limits = PomeloLimits { lookups_max, ..PomeloLimits::default() };
        Dialer::new(lookup, &limits, &Arc::default(), Arc::new(|| {}))
    }

    /// The next step, which a look-up may have to end for.
    fn next(dialer: &mut Dialer, now_us: u64) -> Step {
        let deadline = Instant::now() + PATIENCE;
        loop {
            dialer.begin_turn(now_us);
            if let Some(step) = dialer.poll() {
                return step;
            }
            assert!(Instant::now() < deadline, "nothing is to be done");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn connect(link: u64, address: &str) -> Step {
        Step::Connect { link, address: address.parse().unwrap() }
    }

    fn both(_: &str) -> io::Result<Vec<IpAddr>> {
        Ok(vec!["::1".parse().unwrap(), "127.0.0.1".parse().unwrap()])
    }

    #[test]
    fn addresses_are_tried_in_turn_and_all_of_them_each_time() {
        let mut dialer = dialer(both, 1);
        for link in 0..2 {
            dialer.start(link, "master", 3005);
            assert_eq!(next(&mut dialer, 0), connect(link, "[::1]:3005"));
            dialer.handle_failed(link, "refused".into());
            assert_eq!(next(&mut dialer, 0), connect(link, "127.0.0.1:3005"));
            dialer.handle_failed(link, "refused too".into());
            let why = "refused too".into();
            assert_eq!(next(&mut dialer, 0), Step::Fail { link, why });
        }
        assert!(dialer.dials.is_empty());
    }

    #[test]
    fn a_silent_address_has_its_time_and_the_last_one_what_is_left() {
        let mut dialer = dialer(both, 1);
        dialer.start(1, "master", 3005);
        assert_eq!(next(&mut dialer, 0), connect(1, "[::1]:3005"));
        let second_us = dialer.next_deadline_us();
        assert_eq!(second_us, 1_000_000);
        dialer.begin_turn(second_us - 1);
        assert_eq!(dialer.poll(), None);
        assert_eq!(next(&mut dialer, second_us), connect(1, "127.0.0.1:3005"));
        assert_eq!(dialer.next_deadline_us(), u64::MAX);
        dialer.handle_done(1);
        dialer.begin_turn(u64::MAX - 1);
        assert_eq!(dialer.poll(), None, "it is made");
    }

    static RUNNING: AtomicUsize = AtomicUsize::new(0);
    static RUNNING_PEAK: AtomicUsize = AtomicUsize::new(0);

    /// A resolver whose servers say nothing.
    fn silent(_: &str) -> io::Result<Vec<IpAddr>> {
        RUNNING_PEAK.fetch_max(RUNNING.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(20));
        RUNNING.fetch_sub(1, Ordering::Relaxed);
        Err(io::ErrorKind::TimedOut.into())
    }

    #[test]
    fn look_ups_are_bounded_whatever_is_asked_for_and_how_often() {
        let mut dialer = dialer(silent, 3);
        // Each is given up and asked for again while the first look-ups are under way.
        for link in 0..120 {
            dialer.start(link, &format!("backend-{}", link % 40), 1);
            if link < 80 {
                dialer.handle_done(link);
            }
        }
        for _ in 0..40 {
            assert!(matches!(next(&mut dialer, 0), Step::Fail { .. }));
        }
        assert!(RUNNING_PEAK.load(Ordering::Relaxed) <= 3);
        assert_eq!(dialer.counters.snapshot().lookup_waits, 37);
        assert!(dialer.names.values().all(|name| name.waiters.is_empty()));
    }

    static ASKED: Mutex<Vec<String>> = Mutex::new(Vec::new());

    fn noted(host: &str) -> io::Result<Vec<IpAddr>> {
        ASKED.lock().unwrap().push(host.into());
        match host {
            "good" => both(host),
            _ => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    #[test]
    fn names_that_fail_wait_behind_the_others() {
        let mut dialer = dialer(noted, 1);
        for link in 0..4 {
            dialer.start(link, &format!("bad-{link}"), 1);
        }
        (0..4).for_each(|_| drop(next(&mut dialer, 0)));
        ASKED.lock().unwrap().clear();
        for link in 4..8 {
            dialer.start(link, &format!("bad-{}", link - 4), 1);
        }
        dialer.start(9, "good", 1);
        let steps: Vec<Step> = (0..2).map(|_| next(&mut dialer, 0)).collect();
        assert_eq!(steps[1], connect(9, "[::1]:1"));
        assert_eq!(ASKED.lock().unwrap()[..2], ["bad-0", "good"]);
    }

    #[test]
    fn an_answer_that_comes_too_late_is_for_who_asks_next() {
        let mut dialer = dialer(both, 1);
        dialer.start(1, "slow", 1);
        dialer.handle_done(1);
        let deadline = Instant::now() + PATIENCE;
        while dialer.lookups.all > 0 && Instant::now() < deadline {
            dialer.begin_turn(0);
        }
        dialer.start(2, "slow", 1);
        assert_eq!(dialer.poll(), Some(connect(2, "[::1]:1")), "without another look-up");
        dialer.start(3, "slow", 1);
        assert_eq!(dialer.poll(), None, "and once only");
    }

    #[test]
    fn names_are_bounded() {
        let limits = PomeloLimits { servers_max: 1, ..PomeloLimits::default() };
        let mut dialer = Dialer::new(both, &limits, &Arc::default(), Arc::new(|| {}));
        for link in 0..5 {
            dialer.start(link, &format!("name-{link}"), 1);
        }
        let why = "too many names are being looked up".into();
        assert_eq!(dialer.poll(), Some(Step::Fail { link: 4, why }));
    }
}
