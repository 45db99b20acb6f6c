//! The share of new connections that each shard gets, by how busy it is.
//!
//! The kernel spreads connections over the sockets of a port by a hash, which knows nothing of the
//! load: some shards get half as many again as others, and one that is busy gets as many as one
//! that is idle. A thread looks at the time that each shard's thread has run, and where they differ
//! gives the port a program by which the kernel picks a socket at random, by weight.

#![allow(unsafe_code)] // The program is handed to the kernel; the block says what it reads.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use libc::sock_filter;
use socket2::Socket;

use super::attached::Attached;
use super::watch::thread_cpu;
use crate::metrics::{Counter, ShardFigures};
use crate::shard::ShardConfig;

/// The thread that weighs, while the engine runs.
pub(super) struct Balancer {
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// The interval between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Shares of a core, in thousandths, by which shards may differ without being weighed.
const SPREAD_MIN: u32 = 20;
/// The same as a part of their mean.
const SPREAD_PARTS: u32 = 10;
/// The weight of a shard that is as busy as the mean.
const WEIGHT: u32 = 1_000;
/// The parts of its weight that a shard loses for each part that it is busier than the mean. With
/// less the busiest of few shards stays above it for long; more gains nothing.
const GAIN: i64 = 2;
/// The weight that a shard has however busy it is: what it serves may end.
const WEIGHT_MIN: u32 = 50;
/// Choices of the kernel, as a power of two, over which the weights are spread.
const CHOICES: u32 = 1 << 16;

/// A shard at one look.
#[derive(Debug, Clone, Copy, Default)]
struct Load {
    /// The share of a core that its thread has used lately, in thousandths.
    busy: u32,
    /// True if nobody is to be sent there: it has no place for another connection, or it stands, in
    /// a handler that blocks for one, which uses no core.
    takes_none: bool,
}

/// A shard as it was at a look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// The time that its thread had run.
    cpu: Duration,
    turns: u64,
    at: Instant,
    load: Load,
}

impl Balancer {
    /// Starts the thread. `sockets` has one socket of each port. They are the shards', as one that
    /// is kept open is listened on, though nobody accepts from it any more. A shard takes as many
    /// connections as `connections_max`.
    pub(super) fn start(
        config: Arc<ShardConfig>,
        sockets: Vec<Weak<Socket>>,
        connections_max: u32,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let connections_max = u64::from(connections_max);
        let seen = Vec::new();
        let weigher = Weigher { config, sockets, connections_max, seen, is_weighed: false };
        let run = move || weigher.run(|| stopped.recv_timeout(LOOK_EVERY));
        let thread = Builder::new().name("shaddock-balance".into()).spawn(run)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Attached for Balancer {
    fn address(&self) -> Option<SocketAddr> {
        None
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that weighs shards has panicked");
        }
    }
}

struct Weigher {
    config: Arc<ShardConfig>,
    sockets: Vec<Weak<Socket>>,
    connections_max: u64,
    /// The shards at the last look.
    seen: Vec<Seen>,
    /// True if the ports have a program.
    is_weighed: bool,
}

impl Weigher {
    fn run(mut self, mut wait: impl FnMut() -> Result<(), RecvTimeoutError>) {
        while wait() == Err(RecvTimeoutError::Timeout) {
            let loads = self.look();
            if let Err(error) = self.weigh(&loads) {
                // It stays as it is without: by the kernel's hash.
                tracing::info!(%error, "new connections are not spread by load");
                return;
            }
        }
    }

    /// Takes the loads of all shards.
    fn look(&mut self) -> Vec<Load> {
        let shards: Vec<_> = self.config.figures.shards().map(Arc::clone).collect();
        let is_first = self.seen.len() != shards.len();
        let before = std::mem::take(&mut self.seen);
        self.seen = shards.iter().map(|shard| self.see(shard)).collect();
        if !is_first {
            for (seen, before) in self.seen.iter_mut().zip(&before) {
                seen.load = seen.load_since(before);
            }
        }
        self.seen.iter().map(|seen| seen.load).collect()
    }

    fn see(&self, shard: &ShardFigures) -> Seen {
        let open: u64 = shard.connections.iter().map(Counter::value).sum();
        Seen {
            cpu: shard.thread().and_then(thread_cpu).unwrap_or_default(),
            turns: shard.turns.snapshot().requests(),
            at: Instant::now(),
            load: Load { busy: 0, takes_none: open >= self.connections_max },
        }
    }

    /// Gives the ports a program by these loads, or takes it from them.
    fn weigh(&mut self, loads: &[Load]) -> io::Result<()> {
        let weights = weights(loads);
        let was_weighed = std::mem::replace(&mut self.is_weighed, weights.is_some());
        let mut open = self.sockets.iter().filter_map(Weak::upgrade);
        match weights {
            Some(weights) => {
                let program = program(&weights);
                open.try_for_each(|socket| attach(&socket, &program))
            }
            None if was_weighed => open.try_for_each(|socket| detach(&socket)),
            None => Ok(()),
        }
    }
}

impl Seen {
    fn load_since(&self, before: &Self) -> Load {
        let ran = self.cpu.saturating_sub(before.cpu).as_micros() as u64 * 1_000;
        let share = ran / (self.at.duration_since(before.at).as_micros() as u64).max(1);
        Load {
            // Half of it is older, so that a single burst moves little.
            busy: (before.load.busy + share.min(1_000) as u32) / 2,
            // An idle shard looks round several times between two looks.
            takes_none: self.load.takes_none || self.turns == before.turns,
        }
    }
}

/// The weight of each shard; none where they differ too little to be weighed.
fn weights(loads: &[Load]) -> Option<Vec<u32>> {
    let busy = || loads.iter().filter(|load| !load.takes_none).map(|load| load.busy);
    let mean = busy().sum::<u32>() / u32::try_from(busy().count()).ok().filter(|it| *it > 0)?;
    let spread = busy().max()? - busy().min()?;
    let is_even = spread <= SPREAD_MIN.max(mean / SPREAD_PARTS);
    if is_even && busy().count() == loads.len() {
        return None;
    }
    let weight = |load: &Load| match load.takes_none {
        true => 0,
        false if is_even => WEIGHT,
        false => {
            let mean = i64::from(mean.max(1));
            let lost = GAIN * i64::from(WEIGHT) * (i64::from(load.busy) - mean) / mean;
            u32::try_from(i64::from(WEIGHT) - lost).unwrap_or(0).max(WEIGHT_MIN)
        }
    };
    Some(loads.iter().map(weight).collect())
}

/// A program of the classic packet filter that gives the number of a socket by weight.
fn program(weights: &[u32]) -> Vec<sock_filter> {
    let code = |code: u32, k: u32| sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let random = (libc::SKF_AD_OFF + libc::SKF_AD_RANDOM) as u32;
    let mut program = vec![
        code(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, random),
        code(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, CHOICES - 1),
    ];
    let sum: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let mut below = 0;
    let last = weights.iter().rposition(|weight| *weight > 0).unwrap_or_default();
    for (socket, weight) in (0..).zip(weights).take(last) {
        below += u64::from(*weight);
        let end = (below * u64::from(CHOICES) / sum.max(1)) as u32;
        let jump = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
        program.push(sock_filter { code: jump as u16, jt: 1, jf: 0, k: end });
        program.push(code(libc::BPF_RET | libc::BPF_K, socket));
    }
    program.push(code(libc::BPF_RET | libc::BPF_K, last as u32));
    program
}

fn attach(socket: &Socket, program: &[sock_filter]) -> io::Result<()> {
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut(),
    };
    let len = size_of::<libc::sock_fprog>() as libc::socklen_t;
    let option = libc::SO_ATTACH_REUSEPORT_CBPF;
    // SAFETY: the kernel reads the program, whose length stands beside it, and writes nothing; both
    // live until it has.
    let set = unsafe {
        let value = (&raw const filter).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes the program from a port, so that the kernel's hash decides. It can from Linux 5.3 on.
fn detach(socket: &Socket) -> io::Result<()> {
    let (unused, len) = (0_i32, size_of::<i32>() as libc::socklen_t);
    let option = libc::SO_DETACH_REUSEPORT_BPF;
    // SAFETY: the kernel reads at most the number, whose length stands beside it.
    let set = unsafe {
        let value = (&raw const unused).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, value, len)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::{Domain, Type};

    use super::*;

    fn busy(shares: &[u32]) -> Vec<Load> {
        shares.iter().map(|share| Load { busy: *share, takes_none: false }).collect()
    }

    #[test]
    fn who_is_less_busy_weighs_more_and_who_takes_none_nothing() {
        assert_eq!(weights(&busy(&[500, 550, 530])), None);
        assert_eq!(weights(&busy(&[0, 5, 15])), None);
        assert_eq!(weights(&busy(&[100, 700, 1_000])), Some(vec![2_666, 667, WEIGHT_MIN]));
        assert_eq!(weights(&busy(&[0, 0, 30])), Some(vec![3_000, 3_000, WEIGHT_MIN]));
        let mut loads = busy(&[0, 0, 0]);
        loads[1].takes_none = true;
        assert_eq!(weights(&loads), Some(vec![1_000, 0, 1_000]));
        loads.iter_mut().for_each(|load| load.takes_none = true);
        assert_eq!(weights(&loads), None);
    }

    /// Connections go where the weights say, by the kernel's own dice.
    #[test]
    fn the_kernel_picks_by_weight() {
        const COUNT: usize = 400;
        let socket = |port: u16| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, 1], port)).into()).unwrap();
            socket.listen(COUNT as i32).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let first = socket(0);
        let address = first.local_addr().unwrap().as_socket().unwrap();
        let sockets =
            [first, socket(address.port()), socket(address.port()), socket(address.port())];
        for (weights, expected) in [
            ([0, 128, 0, 128], [0, 200, 0, 200]),
            ([192, 0, 64, 0], [300, 0, 100, 0]),
            ([1, 1, 1, 1], [100; 4]),
            ([0, 0, 0, 9], [0, 0, 0, 400]),
        ] {
            attach(&sockets[0], &program(&weights)).unwrap();
            let clients: Vec<_> =
                (0..COUNT).map(|_| TcpStream::connect(address).unwrap()).collect();
            let accepted = |socket: &Socket| std::iter::from_fn(|| socket.accept().ok()).count();
            let counts: Vec<usize> = sockets.iter().map(accepted).collect();
            assert_eq!(counts.iter().sum::<usize>(), COUNT, "{counts:?}");
            for (count, expected) in counts.iter().zip(expected) {
                // Six standard deviations at least.
                let is_close =
                    if expected == 0 { *count == 0 } else { count.abs_diff(expected) < 65 };
                assert!(is_close, "{weights:?}: {counts:?}");
            }
            drop(clients);
        }
        detach(&sockets[0]).unwrap();
        assert!(detach(&sockets[0]).is_err(), "it has none any more");
    }

    #[test]
    fn a_shard_that_makes_no_turn_stands() {
        let load = Load { busy: 400, takes_none: false };
        let at = Instant::now();
        let before = Seen { cpu: Duration::from_millis(50), turns: 7, at, load };
        let after = |cpu_ms, turns| {
            let cpu = Duration::from_millis(cpu_ms);
            let seen =
                Seen { cpu, turns, at: at + Duration::from_millis(500), load: Load::default() };
            let Load { busy, takes_none } = seen.load_since(&before);
            (busy, takes_none)
        };
        assert_eq!(after(50, 8), (200, false));
        assert_eq!(after(550, 8), (700, false));
        assert_eq!(after(50, 7), (200, true));
    }
}
