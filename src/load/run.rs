//! A whole run: the drivers, each with a thread, and the sum of what they report.

use std::io;
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::part::Part;
use super::run_barrier::{DriverIndex, GivenUp, RunBarrier, Step};
use super::script::SLOTS_MAX;
use super::sockets::RING;
use super::{LoadOptions, LoadProgress, LoadReport, Mode, Phase};
use crate::error::StartError;
use crate::io::{
    Chosen, Io, Poller, Ring, explain, explain_refusal, give_way, open_descriptors, ring_failed,
    sockets_max,
};
use crate::wire::message::ROUTE_BYTES_MAX;

/// Loads a server as described, and tells `progress` from time to time.
///
/// ```no_run
/// use shaddock::load::{self, LoadOptions};
///
/// let options = LoadOptions::new("127.0.0.1:3010".parse().unwrap());
/// let report = load::run(&options, |progress| println!("{} messages", progress.messages))?;
/// println!("99 % took up to {} us", report.latency.value_at_quantile(0.99) / 1_000);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// No ring, no connection, or a server that stops answering.
pub fn run(
    options: &LoadOptions,
    mut progress: impl FnMut(LoadProgress),
) -> io::Result<LoadReport> {
    check(options)?;
    let misnamed = |expected| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("the driver must be {expected}"))
    };
    let driver = options.driver.choose(|| check_ring(options), misnamed)?;
    match run_by(driver, options, &mut progress) {
        // What the check has seen may be another process's by now.
        Err(error) if is_of_ring_memory(&error) && options.driver.gives_way() => {
            run_by(give_way(&error), options, &mut progress)
        }
        result => result,
    }
}

fn run_by(
    driver: Chosen,
    options: &LoadOptions,
    progress: &mut impl FnMut(LoadProgress),
) -> io::Result<LoadReport> {
    let rings = rings(options, driver)?;
    let barrier = RunBarrier::new(rings);
    std::thread::scope(|scope| {
        let spawn = |index| {
            let part = Part::new(options, &barrier, DriverIndex(index));
            let name = format!("shaddock-load-{index}");
            std::thread::Builder::new()
                .name(name)
                .spawn_scoped(scope, move || run_part(part, driver, &mut |_| {}))
                .inspect_err(|_| barrier.fail())
        };
        let others: Vec<_> = (1..rings).map(spawn).collect();
        let part = Part::new(options, &barrier, DriverIndex(0));
        let mut sum = run_part(part, driver, progress);
        for other in others {
            let joined = other.map_err(GivenUp::Failed).and_then(|other| {
                other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            sum = add(sum, joined);
        }
        sum.map_err(|given_up| match given_up {
            GivenUp::Failed(error) => error,
            GivenUp::WithAnother => io::Error::other("a ring has given up"),
        })
    })
}

/// The outcome of two parts. Of several errors, the one that made the others give up.
fn add(
    sum: Result<LoadReport, GivenUp>,
    part: Result<LoadReport, GivenUp>,
) -> Result<LoadReport, GivenUp> {
    match (sum, part) {
        (Ok(mut sum), Ok(report)) => {
            sum.add(&report);
            Ok(sum)
        }
        (Err(GivenUp::Failed(error)), _) | (_, Err(GivenUp::Failed(error))) => {
            Err(GivenUp::Failed(error))
        }
        (_, Err(GivenUp::WithAnother)) | (Err(GivenUp::WithAnother), _) => {
            Err(GivenUp::WithAnother)
        }
    }
}

fn check(options: &LoadOptions) -> io::Result<()> {
    let wrong = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    if options.connections == 0 || options.pipeline == 0 || options.body_bytes < 16 {
        return wrong("connections and pipeline must be 1 at least, body_bytes 16");
    }
    if options.pipeline > SLOTS_MAX {
        return wrong(&format!("pipeline must be {SLOTS_MAX} at most"));
    }
    if options.route.len() > ROUTE_BYTES_MAX {
        return wrong("a route has at most 255 bytes");
    }
    let is_v4 = |address: &std::net::SocketAddr| address.is_ipv4();
    match options.addresses.first().map(is_v4) {
        None => wrong("there must be an address"),
        Some(v4) if options.addresses.iter().any(|address| is_v4(address) != v4) => {
            wrong("the addresses must be of one family")
        }
        Some(_) if options.opening == 0 => wrong("opening must be 1 at least"),
        Some(_) if options.heartbeat.is_zero() => wrong("heartbeat must be more than zero"),
        Some(_) => Ok(()),
    }
}

/// Checks that there is a ring to be had, on a thread of its own: its end interrupts the thread.
fn check_ring(options: &LoadOptions) -> io::Result<()> {
    let rings = rings(options, Chosen::Ring)?;
    let failed = move |error| ring_failed("an io_uring", error, ring_bytes(rings));
    let refused = move |missing| move |error| explain_refusal(error, missing, failed);
    let check = move || {
        let mut ring = Ring::new(RING).map_err(|error| explain(error, failed))?;
        ring.uring().submitter().submit().map_err(refused("submissions"))?;
        ring.register_sockets(1).map_err(refused("a sparse table of direct descriptors"))
    };
    let checked = std::thread::Builder::new().spawn(check)?.join();
    let checked = checked.map_err(|_| io::Error::other("the test of io_uring panicked"))?;
    checked.map_err(io::Error::other)
}

/// Memory that the kernel takes for the rings of a run.
fn ring_bytes(rings: u32) -> u64 {
    u64::from(rings) * RING.bytes()
}

/// True if there is no memory for a ring, or the user may lock no more.
fn is_of_ring_memory(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(StartError::RingMemory { .. }))
}

/// The number of rings.
fn rings(options: &LoadOptions, driver: Chosen) -> io::Result<u32> {
    let per_ring = sockets_max().max(1);
    if driver == Chosen::Poll {
        let room = u64::from(per_ring).saturating_sub(open_descriptors() + DESCRIPTORS_SPARE);
        if u64::from(options.connections) > room {
            let text = format!(
                "the limit of open descriptors has room for {room} connections; raise it with \
                 `ulimit -n`"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
    }
    let needed = options.connections.div_ceil(per_ring);
    match options.rings {
        0 => Ok(needed),
        rings if rings < needed => {
            let text = format!("a ring holds up to {per_ring} connections here: {needed} rings");
            Err(io::Error::new(io::ErrorKind::InvalidInput, text))
        }
        rings => Ok(rings.min(options.connections)),
    }
}

/// Descriptors that are not connections, and not open yet.
const DESCRIPTORS_SPARE: u64 = 16;

/// Runs one driver from beginning to end. If it gives up, the others do.
fn run_part(
    part: Part<'_>,
    driver: Chosen,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadReport, GivenUp> {
    let barrier = part.barrier;
    let result = match driver {
        Chosen::Ring => drive::<Ring>(part, progress),
        Chosen::Poll => drive::<Poller>(part, progress),
    };
    if result.is_err() {
        barrier.fail();
    }
    result
}

fn drive<I: Io>(
    part: Part<'_>,
    progress: &mut dyn FnMut(LoadProgress),
) -> Result<LoadReport, GivenUp> {
    let (warmup, measure) = (part.options.warmup, part.options.measure);
    let is_storm = part.options.mode == Mode::Storm;
    let rings = part.barrier.len();
    let mut driver = Driver::<'_, I>::new(part).map_err(|error| not_opened::<I>(error, rings))?;
    let start = Instant::now();
    driver.connect_all(progress)?;
    let connecting = start.elapsed();
    driver.wait(Step::Connected)?;
    driver.begin();
    driver.load(Phase::Warmup, warmup, progress)?;
    driver.wait(Step::WarmedUp)?;
    let mut reconnecting = None;
    if is_storm {
        reconnecting = Some(driver.storm(progress)?);
        driver.wait(Step::Reconnected)?;
    }
    driver.reset();
    let (start, cpu) = (Instant::now(), thread_cpu());
    driver.wait(Step::Reset)?;
    driver.load(Phase::Measure, measure, progress)?;
    let client_cpu = thread_cpu().saturating_sub(cpu);
    let report = driver.end(start.elapsed(), client_cpu);
    driver.wait(Step::Measured)?;
    driver.tell(Phase::Done, 1.0, progress);
    driver.wait(Step::Done)?;
    Ok(LoadReport { connecting, reconnecting, ..report })
}

/// The reason why a part has not been opened.
fn not_opened<I: Io>(error: io::Error, rings: u32) -> io::Error {
    match error.raw_os_error() {
        Some(_) => io::Error::new(error.kind(), ring_failed(I::NAME, error, ring_bytes(rings))),
        None => error,
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec as u32)
}

impl LoadReport {
    /// Adds what another ring has seen at the same time.
    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.connecting = self.connecting.max(other.connecting);
        self.reconnecting = self.reconnecting.max(other.reconnecting);
        self.elapsed = self.elapsed.max(other.elapsed);
        self.messages += other.messages;
        self.latency.add(&other.latency).expect("the histograms have the same bounds");
        self.handshake.add(&other.handshake).expect("the histograms have the same bounds");
        self.wrong += other.wrong;
        self.disconnects.add(&other.disconnects);
        self.pushes += other.pushes;
        self.client_cpu += other.client_cpu;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_refused() {
        let address = "127.0.0.1:1".parse().unwrap();
        let options = LoadOptions::new(address);
        assert!(check(&options).is_ok());
        let two = vec![address, "[::1]:1".parse().unwrap()];
        for options in [
            LoadOptions { addresses: Vec::new(), ..options.clone() },
            LoadOptions { addresses: two, ..options.clone() },
            LoadOptions { opening: 0, ..options.clone() },
            LoadOptions { body_bytes: 15, ..options.clone() },
            LoadOptions { connections: 0, ..options.clone() },
            LoadOptions { pipeline: SLOTS_MAX + 1, ..options.clone() },
        ] {
            assert!(check(&options).is_err(), "{options:?}");
        }
        let many = LoadOptions { connections: u32::MAX, rings: 1, ..options };
        assert!(rings(&many, Chosen::Ring).unwrap_err().to_string().contains("rings"));
        assert!(rings(&many, Chosen::Poll).unwrap_err().to_string().contains("`ulimit -n`"));
    }

    #[test]
    fn a_ring_without_memory_is_told_with_the_sum_and_what_to_raise() {
        let no_memory = || io::Error::from(rustix::io::Errno::NOMEM);
        let error = not_opened::<Ring>(no_memory(), 3);
        let text = error.to_string();
        assert!(text.contains(&(3 * RING.bytes()).to_string()), "{text}");
        assert!(text.contains("`ulimit -l`"), "{text}");
        assert!(is_of_ring_memory(&error) && !is_of_ring_memory(&no_memory()));
    }
}
