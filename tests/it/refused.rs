//! The binary on a system that refuses it something: a seccomp filter answers for the kernel, set
//! by a few lines of Python before they become the binary. Without python3 nothing is tried, and
//! says so.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::libc;
use rustix::process::{Pid, Resource, Signal, geteuid, getrlimit, kill_process};
use support::{Client, Event, eventually, handshake, has_ring};

/// Arguments: the errno, the numbers of the system calls with commas, and the program. A number may
/// have the first argument behind it for which alone the call is refused, with a colon.
///
/// The filter is that of `struct sock_filter` in linux/filter.h: load the number, compare, return.
const REFUSE: &str = r#"
import ctypes, os, struct, sys
errno, filter = int(sys.argv[1]), b""
for call in sys.argv[2].split(","):
    call, _, first = call.partition(":")
    checks = [(0, int(call))] + ([(16, int(first))] if first else [])
    for place, (offset, value) in enumerate(checks):
        skip = 2 * (len(checks) - place) - 1
        filter += struct.pack("HBBI", 0x20, 0, 0, offset) + struct.pack("HBBI", 0x15, 0, skip, value)
    filter += struct.pack("HBBI", 0x06, 0, 0, 0x50000 | errno)
filter += struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)
class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]
prctl = ctypes.CDLL(None, use_errno=True).prctl
assert prctl(38, 1, 0, 0, 0) == 0
assert prctl(22, 2, ctypes.byref(Program(len(filter) // 8, filter)), 0, 0) == 0
os.execv(sys.argv[3], sys.argv[3:])
"#;

const IO_URING_SETUP: u32 = libc::SYS_io_uring_setup as u32;
const IO_URING_ENTER: u32 = libc::SYS_io_uring_enter as u32;
const IO_URING_REGISTER: u32 = libc::SYS_io_uring_register as u32;
const SCHED_SETAFFINITY: u32 = libc::SYS_sched_setaffinity as u32;
const SCHED_GETAFFINITY: u32 = libc::SYS_sched_getaffinity as u32;
const EPERM: u32 = 1;
const ENOMEM: u32 = 12;
const ENOSYS: u32 = 38;

/// The demo by that driver, with those calls answered so. None without python3.
fn demo(driver: &str, errno: u32, calls: &[u32]) -> Option<Child> {
    let calls: Vec<String> = calls.iter().map(u32::to_string).collect();
    demo_without(driver, errno, &calls.join(","))
}

fn demo_without(driver: &str, errno: u32, calls: &str) -> Option<Child> {
    let spawned = Command::new("python3")
        .args(["-c", REFUSE, &errno.to_string(), calls])
        .arg(env!("CARGO_BIN_EXE_shaddock"))
        .args(["--listen", "localhost:0", "--shards", "2", "--no-admin", "--driver", driver])
        .env_remove("SHADDOCK_DRIVER")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    if spawned.is_err() {
        println!("skipped: there is no python3");
    }
    spawned.ok()
}

/// What the operator reads when it does not start.
fn told(errno: u32, calls: &[u32]) -> Option<String> {
    told_by(demo("ring", errno, calls)?)
}

fn told_by(child: Child) -> Option<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert_eq!(text.lines().count(), 1, "one line, and no panic: {text}");
    assert!(text.starts_with("shaddock: "), "{text}");
    Some(text)
}

#[test]
fn a_filter_that_blocks_io_uring_is_told_from_an_old_kernel() {
    if !has_ring() {
        return;
    }
    // runc and podman answer EPERM or ENOSYS, by their profiles.
    for errno in [EPERM, ENOSYS] {
        for calls in [
            &[IO_URING_SETUP][..],
            &[IO_URING_ENTER],
            &[IO_URING_REGISTER],
            &[IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER],
        ] {
            let Some(text) = told(errno, calls) else { return };
            assert!(text.contains("a seccomp filter") && text.contains("io_uring_setup"), "{text}");
            assert!(!text.contains("Linux 6.1"), "{text}");
        }
    }
}

#[test]
fn a_ring_without_memory_is_told_with_the_sum() {
    if !has_ring() {
        return;
    }
    let Some(text) = told(ENOMEM, &[IO_URING_SETUP]) else { return };
    assert!(text.contains("`ulimit -l`"), "{text}");
    let bytes = text.split(" bytes").next().and_then(|before| before.rsplit(' ').next());
    let bytes: u64 = bytes.unwrap().parse().unwrap();
    // Two shards, each with its ring and the runtime's, two workers, and the ring that was tried.
    assert!((1_048_576..4_194_304).contains(&bytes), "{text}");
}

/// Its rings have 32 entries, as no other has, so it alone gets none.
#[test]
fn a_runtime_without_memory_is_told_as_such() {
    if !has_ring() {
        return;
    }
    let Some(child) = demo_without("ring", ENOMEM, &format!("{IO_URING_SETUP}:32")) else { return };
    let text = told_by(child).unwrap();
    assert!(text.contains("no memory for a shard's runtime"), "{text}");
    assert!(text.contains("`ulimit -l`"), "{text}");
}

/// The check has found a ring, and then there is no memory for one more. Who has asked for no
/// driver is served all the same.
#[test]
fn epoll_takes_the_place_of_a_ring_that_is_lost_at_the_start() {
    // Those of the runtime have 32 entries, those of a worker 64.
    for (entries, lacks) in [(32, "no memory for a shard's runtime"), (64, "no memory for ")] {
        let calls = format!("{IO_URING_SETUP}:{entries}");
        let Some(mut child) = demo_without("auto", ENOMEM, &calls) else { return };
        let address = address(&mut child);
        assert_serves(address);
        let log = end(child);
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("epoll takes the place of io_uring"), "{log}");
        if has_ring() {
            assert!(log.contains(lacks) && log.contains("`ulimit -l`"), "{log}");
        }
    }
}

/// The address where a demo listens, once it does.
fn address(child: &mut Child) -> SocketAddr {
    listening(child).unwrap()
}

/// The same, none if it ends instead.
fn listening(child: &mut Child) -> Option<SocketAddr> {
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    line.split("listening on ").nth(1)?.split(' ').next()?.parse().ok()
}

/// Ends a demo, and gives what it has said on stderr.
fn end(mut child: Child) -> String {
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let mut log = String::new();
    child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(child.wait().unwrap().success(), "{log}");
    // A machine that is busy with something else makes turns long.
    let is_due = |line: &&str| !line.contains("a turn has taken long");
    log.split_inclusive('\n').filter(is_due).collect()
}

fn assert_serves(address: SocketAddr) {
    let mut client = Client::ready(address);
    let entered = client.ask_json(1, "connector.entryHandler.entry", "{\"uid\":\"amy\"}");
    assert_eq!(entered["code"], 200);
    // By a worker.
    let joined = client.ask_json(2, "chat.chatHandler.join", "{\"rid\":\"lobby\"}");
    assert_eq!(joined["code"], 200);
}

/// It serves by epoll, and one line says what would allow the ring.
#[test]
fn the_demo_serves_where_io_uring_is_refused() {
    for errno in [EPERM, ENOSYS] {
        let calls = [IO_URING_SETUP, IO_URING_ENTER, IO_URING_REGISTER];
        let Some(mut child) = demo("auto", errno, &calls) else { return };
        let address = address(&mut child);
        assert_serves(address);
        let log = end(child);
        assert_eq!(log.lines().count(), 1, "{log}");
        assert!(log.contains("io_uring_setup") && log.contains("epoll"), "{log}");
    }
}

/// A limit of locked memory that no runtime can do with, as a container has it.
#[test]
fn the_demo_serves_with_little_locked_memory() {
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -l 64 && exec \"$0\" --listen 127.0.0.1:0 --no-admin --shards 1"])
        .arg(env!("CARGO_BIN_EXE_shaddock"))
        .env_remove("SHADDOCK_DRIVER")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = address(&mut child);
    assert_serves(address);
    let log = end(child);
    assert!(log.contains("epoll"), "{log}");
}

/// Memory that the rings of a shard and of a worker take, and that of the one that is tried before,
/// as docs/drivers.md has it.
const SHARD_BYTES: u64 = 432 * 1024;
const WORKER_BYTES: u64 = 65 * 256;
const TRIED_BYTES: u64 = 200 * 1024;

/// A demo for a user who may lock so much and no more. None where none can be had, which is said.
fn as_a_user(memlock_bytes: u64) -> Option<Command> {
    let allowed = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    if allowed.is_ok_and(|disabled| disabled.trim() != "0") {
        println!("skipped: io_uring is not for every user here");
        return None;
    }
    static USERS: AtomicU32 = AtomicU32::new(0);
    let make = || {
        let mut command = Command::new("prlimit");
        command.arg(format!("--memlock={memlock_bytes}:{memlock_bytes}"));
        if geteuid().is_root() {
            // A user of its own, as what all processes of a user lock is counted together.
            let count = USERS.fetch_add(1, Ordering::Relaxed) % 32;
            let user = (100_000 + std::process::id() % 100_000 * 32 + count).to_string();
            command.args(["setpriv", "--clear-groups", "--inh-caps=-all", "--reuid", &user]);
        }
        command.arg(env!("CARGO_BIN_EXE_shaddock")).env_remove("SHADDOCK_DRIVER");
        command
    };
    let can = make().arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: a user without rights can't be had, or may not read this folder");
        return None;
    }
    let mut command = make();
    command.args(["--listen", "127.0.0.1:0", "--no-admin"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

#[test]
fn shards_share_the_memory_that_a_user_may_lock() {
    const LIMIT: u64 = 8 << 20;
    if !has_ring() {
        return;
    }
    let demo = |memlock_bytes: u64, shards: u64, driver: &str| {
        let mut command = as_a_user(memlock_bytes)?;
        command.args(["--shards", &shards.to_string(), "--driver", driver]).spawn().ok()
    };
    let sum = |shards: u64| shards * SHARD_BYTES + 2 * WORKER_BYTES + TRIED_BYTES;
    let Some(child) = demo(LIMIT, 20, "ring") else { return };
    let text = told_by(child).unwrap();
    let needed = format!("is {LIMIT} bytes and must be {} at least", sum(20));
    assert!(text.contains(&needed) && text.contains("LimitMEMLOCK="), "{text}");

    let mut child = demo(LIMIT, 20, "auto").unwrap();
    assert_serves(address(&mut child));
    let log = end(child);
    assert!(log.contains(&needed) && log.contains("epoll"), "{log}");

    // What the documents say is enough.
    for (limit, shards) in [(sum(1), 1), (sum(4), 4), (LIMIT, (LIMIT - sum(0)) / SHARD_BYTES)] {
        // The kernel gives back what the one before has locked a while after its end.
        eventually("it starts, without a word", || {
            let mut child = demo(limit, shards, "ring").unwrap();
            let Some(address) = listening(&mut child) else {
                child.wait().unwrap();
                return false;
            };
            assert_serves(address);
            end(child).is_empty()
        });
    }
}

/// As in a container that hides it.
#[test]
fn without_sys_it_serves() {
    let drivers = if has_ring() { &["ring", "poll"][..] } else { &["poll"] };
    let hide = "mount -t tmpfs none /sys && exec \"$@\"";
    let hidden = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", hide, "sh"]);
        command
    };
    let can = hidden().arg("true").stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        println!("skipped: who runs this may not hide /sys");
        return;
    }
    for driver in drivers {
        let mut child = hidden()
            .arg(env!("CARGO_BIN_EXE_shaddock"))
            .args(["--listen", "127.0.0.1:0", "--no-admin", "--shards", "2", "--driver", driver])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        assert_serves(address(&mut child));
        let log = end(child);
        assert!(!log.contains("panicked"), "{log}");
    }
}

/// The load client says what the server says.
#[test]
fn load_tells_what_refuses_the_ring() {
    let load = |driver: &str, errno: u32| {
        let output = Command::new("python3")
            .args(["-c", REFUSE, &errno.to_string(), &IO_URING_SETUP.to_string()])
            .arg(env!("CARGO_BIN_EXE_shaddock"))
            .args(["load", "--addr", "127.0.0.1:1", "--driver", driver])
            .env_remove("SHADDOCK_DRIVER")
            .output()
            .ok()?;
        assert!(!output.status.success(), "nobody listens there");
        Some(String::from_utf8(output.stderr).unwrap())
    };
    if !has_ring() {
        return;
    }
    let Some(text) = load("ring", EPERM) else { return };
    assert!(text.contains("a seccomp filter") && text.contains("io_uring_setup"), "{text}");
    let text = load("ring", ENOMEM).unwrap();
    assert!(text.contains("all rings take") && text.contains("`ulimit -l`"), "{text}");
    let text = load("auto", EPERM).unwrap();
    assert!(text.contains("a seccomp filter") && text.contains("epoll"), "{text}");
}

#[test]
fn a_shard_that_can_not_be_pinned_serves() {
    let drivers = if has_ring() { &["ring", "poll"][..] } else { &["poll"] };
    let both = [SCHED_SETAFFINITY, SCHED_GETAFFINITY];
    for calls in [&both[..1], &both[1..], &both] {
        for driver in drivers {
            let Some(mut child) = demo(driver, EPERM, calls) else { return };
            let address = address(&mut child);
            assert_serves(address);
            let log = end(child);
            assert!(log.contains("unpinned") && !log.contains("panicked"), "{log}");
            assert_eq!(log.lines().count(), 1, "{log}");
        }
    }
}

/// Each connection takes a descriptor of a process that polls. Those for which there is none wait
/// in the backlog.
#[test]
fn who_finds_no_descriptor_waits_for_one() {
    const LIMIT: usize = 160;
    let script = format!(
        "ulimit -n {LIMIT} && exec \"$0\" --listen 127.0.0.1:0 --no-admin --shards 1 --driver poll"
    );
    let mut child = Command::new("sh")
        .args(["-c", &script])
        .arg(env!("CARGO_BIN_EXE_shaddock"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let address = address(&mut child);
    let mut clients: Vec<Client> = (0..LIMIT).map(|_| Client::connect(address)).collect();
    clients.iter_mut().for_each(|client| client.send(&handshake()));
    let mut served = 0;
    while let Some(client) = clients.first_mut() {
        let Some(event) = client.next_within(Duration::from_secs(5)) else { break };
        assert!(matches!(event, Event::Handshake(_)), "{event:?}");
        served += 1;
        // Its place is another's.
        clients.remove(0);
    }
    assert_eq!(served, LIMIT);
    let log = end(child);
    assert_eq!(log, "", "no accept fails");
}

/// As Node does: the soft limit is 1,024 in most places, and a table of sockets is no larger.
#[test]
fn the_limit_of_descriptors_is_raised() {
    let Some(most) = getrlimit(Resource::Nofile).maximum else { return };
    let mut child = Command::new("sh")
        .args(["-c", "ulimit -Sn 300 && exec \"$0\" --listen 127.0.0.1:0 --no-admin --shards 1"])
        .arg(env!("CARGO_BIN_EXE_shaddock"))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let address = address(&mut child);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(open_files.split_whitespace().nth(3), Some(most.to_string().as_str()));
    let mut clients: Vec<Client> = (0..400).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.send(&handshake());
        assert!(matches!(client.next(), Event::Handshake(_)));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
}
