//! Files that an operator names and that are none: a FIFO, a device, a file without an end. They
//! are refused at once, at the start and at a reload, and a stop is a stop whatever is read.

use std::fs;
use std::io::{BufReader, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::folder::Folder;
use support::{Client, eventually};

use crate::serve::{BINARY, ECHO, Served, announced, ctl};

/// The most that the read of such a file may take, even where the machine is busy.
const AT_ONCE: Duration = Duration::from_secs(10);
const SPARSE_BYTES: u64 = 1 << 40;

/// The parts of a configuration that name a file, and its name.
const NAMED: [(&str, &str); 12] = [
    ("[server]\nid = { file = \"x\" }\n", "server.id"),
    ("[admin]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"x\"\n", "admin.token_file"),
    ("[admin]\nlisten = \"127.0.0.1:0\"\ntoken = { file = \"x\" }\n", "admin.token"),
    ("[dictionary]\nfile = \"x\"\n", "dictionary.file"),
    ("[dictionary]\nroutes = { file = \"x\" }\n", "dictionary.routes"),
    ("[protos]\nclient = \"x\"\n", "protos.client"),
    ("[protos]\nserver = \"x\"\n", "protos.server"),
    ("[[listener]]\ntls = { certificate = \"x\", key = \"x\" }\n", "listener[1].tls.certificate"),
    ("[traces]\nenabled = true\nendpoint = \"https://a:1\"\nca_file = \"x\"\n", "traces.ca_file"),
    ("[pitaya]\nnats_credentials = \"x\"\n#\n", "pitaya.nats_credentials"),
    ("[pitaya]\nnats_ca = \"x\"\n#\n", "pitaya.nats_ca"),
    ("[pitaya]\netcd_ca = \"x\"\n#\n", "pitaya.etcd_ca"),
];

/// A cluster that needs nothing but the file.
const CLUSTER: &str = "nats = [\"tls://127.0.0.1:1\"]\netcd = [\"https://127.0.0.1:1\"]\n\
                       type = [{ name = \"room\" }]\n";

fn check(config: &Path) -> (Output, String) {
    let start = Instant::now();
    let output = Command::new(BINARY).args(["check", "--config"]).arg(config).output().unwrap();
    assert!(start.elapsed() < AT_ONCE, "{config:?}: {:?}", start.elapsed());
    let told = String::from_utf8(output.stderr.clone()).unwrap();
    (output, told)
}

/// Puts something else in the place of a file.
fn replace(folder: &Folder, name: &str, kind: &str) {
    fs::remove_file(folder.join(name)).ok();
    match kind {
        "a FIFO" => drop(folder.fifo(name)),
        "a device" => symlink("/dev/zero", folder.join(name)).unwrap(),
        "a directory" => symlink("/", folder.join(name)).unwrap(),
        _ => drop(folder.sparse(name, SPARSE_BYTES)),
    }
}

#[test]
fn a_file_that_is_none_is_refused_by_its_key() {
    let folder = Folder::create();
    for kind in ["a FIFO", "a device", "a directory", "a file of more than"] {
        replace(&folder, "x", kind);
        for (part, key) in NAMED {
            let config = folder.write("shaddock.toml", &part.replace("#\n", CLUSTER));
            let (output, told) = check(&config);
            assert_eq!(output.status.code(), Some(1), "{key}: {told}");
            assert!(told.contains(key) && told.contains(kind), "{key}: {told}");
            assert!(told.contains("name a "), "{key}: {told}");
        }
        let (output, told) = check(&folder.join("x"));
        assert_eq!(output.status.code(), Some(1), "{told}");
        assert!(told.contains(&format!("found {kind}")), "{told}");
    }
}

#[test]
fn a_token_for_ctl_is_in_a_file() {
    let folder = Folder::create();
    let fifo = folder.fifo("token");
    let mut command = Command::new(BINARY);
    command.args(["ctl", "--address", "127.0.0.1:1", "--token-file"]).arg(fifo).arg("status");
    let told = String::from_utf8(command.output().unwrap().stderr).unwrap();
    assert!(told.contains("a FIFO"), "{told}");
}

/// Reloads tell what is wrong, and change nothing; the next signal ends the process.
#[test]
fn a_reload_that_meets_a_fifo_changes_nothing_and_a_stop_stops() {
    for kind in ["a FIFO", "a device", "a file of more than"] {
        for name in ["token", "codes.json", "c.pem", "shaddock.toml"] {
            let folder = Folder::create();
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            folder.write("c.pem", &(made.cert.pem() + &made.signing_key.serialize_pem()));
            folder.write("token", "0123456789abcdef");
            folder.write("codes.json", "[\"onChat\"]");
            let socket = folder.join("admin.sock");
            let text = format!(
                "[server]\nshards = 1\necho = \"{ECHO}\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                 [[listener]]\naddress = \"127.0.0.1:0\"\n\
                 tls = {{ certificate = \"c.pem\", key = \"c.pem\" }}\n\
                 [dictionary]\nfile = \"codes.json\"\n[admin]\nsocket = \"{}\"\n\
                 listen = \"127.0.0.1:0\"\ntoken_file = \"token\"\n",
                socket.display()
            );
            let mut served = Served::start(&folder.write("shaddock.toml", &text));
            let mut client = Client::ready(served.addresses[0]);
            replace(&folder, name, kind);
            served.signal(Signal::HUP);
            let log = served.until_logged("nothing was changed");
            assert!(log.contains(kind), "{name}: {log}");
            assert!(ctl(&socket, &["reload"]).status.success());
            served.until_logged("nothing was changed");
            assert_eq!(client.ask(1, ECHO, "[1]"), "[1]");
            let start = Instant::now();
            served.signal(Signal::TERM);
            assert_eq!(served.until_end(), Some(0));
            assert!(start.elapsed() < AT_ONCE);
        }
    }
}

/// A configuration may come through a pipe, as a shell makes one, once: it is empty afterwards.
#[test]
fn a_configuration_from_a_pipe_is_read_once_and_a_reload_waits_for_the_start() {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--log", "info", "--config", "/dev/stdin"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    eventually("it handles SIGHUP", || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t")).unwrap();
        u64::from_str_radix(caught, 16).unwrap() & 1 == 1
    });
    kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"[server]\nshards = 1\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    stdin.write_all(b"[[listener]]\naddress = \"127.0.0.1:0\"\n").unwrap();
    drop(stdin);
    let addresses = announced(child.stdout.take().unwrap());
    let log: Box<dyn std::io::Read> = Box::new(child.stderr.take().unwrap());
    let mut served = Served { child, log: BufReader::new(log), addresses };
    let log = served.until_logged("nothing was changed");
    assert!(log.contains("/dev/stdin: expected a file that can be read, found a FIFO"), "{log}");
    drop(Client::ready(served.addresses[0]));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// The pipe is not closed, so the configuration is never there.
#[test]
fn a_start_that_waits_for_its_configuration_is_stopped() {
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config", "/dev/stdin"]).stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let _stdin = child.stdin.take().unwrap();
    std::thread::sleep(Duration::from_millis(500));
    let log: Box<dyn std::io::Read> = Box::new(child.stderr.take().unwrap());
    let served = Served { child, log: BufReader::new(log), addresses: Vec::new() };
    let start = Instant::now();
    served.signal(Signal::TERM);
    served.until_end();
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
}
