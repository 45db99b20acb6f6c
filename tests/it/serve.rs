//! `shaddock serve` and `shaddock check` as an operator runs them: the binary, a file, signals.

use std::fs;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit};
use rustls::ClientConnection;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use shaddock::client::{self, block_on};
use shaddock::wire::package::PackageType;
use support::folder::Folder;
use support::tls::client_config;
use support::{Client, Event, PATIENCE, eventually, has_ring, package, request};

pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_shaddock");
pub(crate) const ECHO: &str = "connector.echoHandler.echo";

/// A running `shaddock serve`.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) log: BufReader<Box<dyn Read>>,
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Served {
    pub(crate) fn start(config: &Path) -> Self {
        Self::start_by(Command::new(BINARY), config)
    }

    fn start_by(mut command: Command, config: &Path) -> Self {
        let mut child = command
            .args(["serve", "--log", "info", "--config"])
            .arg(config)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log: Box<dyn Read> = Box::new(child.stderr.take().unwrap());
        let log = BufReader::new(log);
        let addresses = announced(child.stdout.take().unwrap());
        Self { child, log, addresses }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Reads the log up to a line that has this in it.
    pub(crate) fn until_logged(&mut self, text: &str) -> String {
        let mut log = String::new();
        loop {
            let before = log.len();
            assert_ne!(self.log.read_line(&mut log).unwrap(), 0, "never logged: {text}\n{log}");
            if log[before..].contains(text) {
                return log;
            }
        }
    }

    pub(crate) fn until_end(mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // Only where a test has failed; else it has ended.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Reads where a process listens, and whatever it says after that.
pub(crate) fn announced(stdout: impl Read + Send + 'static) -> Vec<SocketAddr> {
    let mut line = String::new();
    let mut out = BufReader::new(stdout);
    out.read_line(&mut line).unwrap();
    // Kept open, as the figures go there too.
    std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
    let list = line.split("listening on ").nth(1).and_then(|rest| rest.split(" (").next());
    let list = list.unwrap_or_else(|| panic!("not an announcement: {line}"));
    list.split(", ").map(|address| address.parse().unwrap()).collect()
}

pub(crate) fn config(codes: &str, deny: &str, backlog: u32) -> String {
    format!(
        "[server]\nid = \"connector-7\"\nshards = 2\necho = \"{ECHO}\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n[[listener]]\naddress = \"[::1]:0\"\n\
         [heartbeat]\ninterval = \"3s\"\n[dictionary]\n{codes}\n\
         [host_filter]\ndeny = [{deny}]\n[limits]\nbacklog = {backlog}\n"
    )
}

/// The codes that a new client is told of.
pub(crate) fn told(address: SocketAddr) -> Value {
    let tables = block_on(client::Client::connect(address)).unwrap().tables();
    let codes = tables.dictionary().map_or("null", |dictionary| dictionary.route_to_code_json());
    serde_json::from_str(codes).unwrap()
}

fn is_refused(address: SocketAddr) -> bool {
    let mut client = Client::connect(address);
    client.next_within(Duration::from_millis(50)) == Some(Event::End)
}

#[test]
fn a_file_is_served_and_read_again_while_a_session_stays() {
    let folder = Folder::create();
    folder.write("codes.json", "[\"onChat\"]");
    let path = folder.write("shaddock.toml", &config("file = \"codes.json\"", "", 64));
    let mut served = Served::start(&path);
    served.until_logged("there are no backends");
    let [v4, v6] = served.addresses[..] else { panic!("{:?}", served.addresses) };
    let mut inside = Client::ready(v4);
    assert_eq!(inside.next(), Event::Heartbeat);
    assert_eq!(inside.ask(1, ECHO, "[1]"), "[1]");
    assert_eq!(inside.ask(2, "chat.chatHandler.send", "{}"), "{\"code\":500}");
    assert_eq!(told(v6), json!({"onChat": 1}));

    // A file that can't be used changes nothing.
    folder.write("shaddock.toml", "[limits]\nbacklog = true\n");
    served.signal(Signal::HUP);
    let log = served.until_logged("nothing was changed");
    assert!(log.contains("shaddock.toml:2:11: limits.backlog: expected a number"), "{log}");
    assert_eq!(told(v4), json!({"onChat": 1}));

    // The text of a file counts, as the keys do.
    folder.write("codes.json", "[\"onJoin\", \"onChat\"]");
    folder.write("shaddock.toml", &config("file = \"codes.json\"", "\"127.0.0.1\"", 65));
    served.signal(Signal::HUP);
    served.until_logged("limits.backlog has changed, and needs a restart");
    served.until_logged("dictionary.file has changed");
    served.until_logged("host_filter.deny has changed");
    let mut in_a_row = 0;
    eventually("both shards refuse", || {
        in_a_row = if is_refused(v4) { in_a_row + 1 } else { 0 };
        in_a_row == 10
    });
    for _ in 0..8 {
        assert_eq!(told(v6), json!({"onJoin": 1, "onChat": 2}));
    }
    assert_eq!(inside.ask(3, ECHO, "[3]"), "[3]", "who is in stays in");

    served.signal(Signal::TERM);
    assert!(!inside.until_end().iter().any(|event| matches!(event, Event::Kick(_))));
    assert_eq!(served.until_end(), Some(0));
}

/// Pomelo watches its files of schemas; here a signal says when they are whole.
#[test]
fn schemas_are_read_again() {
    let folder = Folder::create();
    let write = |text: &str| folder.write("server.json", text);
    let file = "[server]\nshards = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                [protos]\nserver = \"server.json\"\n";
    write(r#"{"onMove":{"required uInt32 x":1}}"#);
    let mut served = Served::start(&folder.write("shaddock.toml", file));
    let address = served.addresses[0];
    let told = || {
        let tables = block_on(client::Client::connect(address)).unwrap().tables();
        tables.protos().unwrap().server().to_json().to_owned()
    };
    assert!(told().contains(r#""x":{"option":"required","type":"uInt32","tag":1}"#), "{}", told());
    write(r#"{"onMove":{"required uInt32 x":2},"onNew":{"required uInt32 x":1}}"#);
    served.signal(Signal::HUP);
    let log = served.until_logged("protos.server has changed");
    assert!(log.contains("needs a restart") && log.contains("onNew"), "{log}");
    eventually("the schemas are others", || told().contains(r#""tag":2"#));
    assert!(!told().contains("onNew"), "{}", told());
    write("{");
    served.signal(Signal::HUP);
    served.until_logged("nothing was changed");
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// What a client is told that says this of itself, in one line.
fn greeted(address: SocketAddr, hello: &str) -> String {
    let mut client = Client::connect(address);
    client.send(&package(PackageType::Handshake, hello.as_bytes()));
    let Event::Handshake(told) = client.next() else { panic!("no handshake") };
    format!("{} {}", told["code"], told["msg"])
}

/// The codes and messages are the file's, and each shard has the newest within a reload.
#[test]
fn versions_types_and_maintenance_change_while_it_runs() {
    let folder = Folder::create();
    let file = |rest: &str| {
        let server = "[server]\nshards = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
        folder.write("shaddock.toml", &format!("{server}{rest}"))
    };
    let old = r#"{"sys":{"type":"js","version":"1.1"},"user":{"app":"3.0"}}"#;
    let path = file(
        "[handshake]\nversion_min = \"1.2\"\nversion_message = \"update\"\n\
         types = [\"js\"]\ntypes_code = 404\n",
    );
    let mut served = Served::start(&path);
    let address = served.addresses[0];
    assert_eq!(greeted(address, old), "501 \"update\"");
    assert_eq!(greeted(address, r#"{"sys":{"type":"unity"}}"#), "404 null");
    assert_eq!(greeted(address, r#"{"sys":{"type":"js"}}"#), "200 null");
    file(
        "[handshake]\nversion_min = \"2\"\nversion_at = \"user.app\"\nversion_code = 426\n\
         version_required = true\n",
    );
    served.signal(Signal::HUP);
    served.until_logged("handshake.version_min has changed");
    eventually("the rules are others", || greeted(address, old) == "200 null");
    assert_eq!(greeted(address, r#"{"sys":{"version":"9"}}"#), "426 null");
    let on = "[maintenance]\nenabled = true\nmessage = \"back at ten\"\n";
    file(on);
    served.signal(Signal::HUP);
    served.until_logged("maintenance.enabled has changed");
    eventually("it is closed", || greeted(address, old) == "503 \"back at ten\"");
    file(&format!("{on}allow = [\"127.0.0.1\"]\n"));
    served.signal(Signal::HUP);
    eventually("it is open to this machine", || greeted(address, old) == "200 null");
    file("[handshake]\nversion_min = \"new\"\nversion_at = \"version\"\ntypes_code = 200\n");
    served.signal(Signal::HUP);
    let log = served.until_logged("nothing was changed");
    for text in [
        "handshake.version_min: expected a version of up to four numbers",
        "handshake.version_at: expected a member of the handshake",
        "handshake.types_code: expected a code from 1 to 65535 but 200",
    ] {
        assert!(log.contains(text), "{log}");
    }
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

#[test]
fn the_demo_is_served_where_the_file_says_so() {
    let folder = Folder::create();
    let text = "[server]\nshards = 1\ndemo = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let served = Served::start(&folder.write("shaddock.toml", text));
    let client = block_on(client::Client::connect(served.addresses[0])).unwrap();
    let ask = |route: &str, body: &Value| block_on(client.request(route, body)).unwrap();
    let entered: Value =
        ask("connector.entryHandler.entry", &json!({"uid": "amy"})).json().unwrap();
    assert_eq!(entered["code"], 200);
    let here: Value = ask("chat.chatHandler.where", &json!({})).json().unwrap();
    assert_eq!((&here["server"], &here["uid"]), (&json!("chat-1"), &json!("amy")));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// What stands between the clients and a session is the file's to say, and certificates are read
/// again with it.
#[test]
fn a_listener_behind_a_balancer_speaks_tls_with_a_certificate_that_changes() {
    let folder = Folder::create();
    let renew = || {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        folder.write("certificate.pem", &made.cert.pem());
        folder.write("key.pem", &made.signing_key.serialize_pem());
        made.cert.der().clone()
    };
    let first = renew();
    let path = folder.write(
        "shaddock.toml",
        "[server]\nshards = 2\n[[listener]]\naddress = \"127.0.0.1:0\"\nproxy_protocol = true\n\
         trusted_proxies = [\"127.0.0.0/8\"]\n[listener.tls]\ncertificate = \"certificate.pem\"\n\
         key = { credential = \"key.pem\" }\n",
    );
    let mut command = Command::new(BINARY);
    command.env("CREDENTIALS_DIRECTORY", folder.path());
    let mut served = Served::start_by(command, &path);
    let address = served.addresses[0];
    assert!(shows(address, &first));
    let second = renew();
    assert!(shows(address, &first) && !shows(address, &second));
    served.signal(Signal::HUP);
    served.until_logged("the certificates have been read again");
    eventually("the new certificate is shown", || shows(address, &second));
    folder.write("certificate.pem", "none");
    served.signal(Signal::HUP);
    served.until_logged("nothing was changed");
    assert!(shows(address, &second));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// True if a client behind a balancer is shown that certificate.
fn shows(address: SocketAddr, certificate: &CertificateDer<'static>) -> bool {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.write_all(b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010\r\n").unwrap();
    let name = "localhost".try_into().unwrap();
    let mut client = ClientConnection::new(client_config(certificate), name).unwrap();
    client.complete_io(&mut socket).is_ok()
}

/// Editors on Windows put a byte order mark in front of UTF-8. Node, for one, skips it.
#[test]
fn a_byte_order_mark_is_skipped_in_every_file() {
    let folder = Folder::create();
    let marked = |name: &str, text: &str| folder.write(name, &format!("\u{feff}{text}"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    marked("certificate.pem", &made.cert.pem());
    marked("key.pem", &made.signing_key.serialize_pem());
    marked("codes.json", "[\"onChat\"]");
    marked("protos.json", "{\"onChat\": {\"required string text\": 1}}");
    let text = format!(
        "{}[protos]\nserver = \"protos.json\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         tls = {{ certificate = \"certificate.pem\", key = \"key.pem\" }}\n",
        config("file = \"codes.json\"", "", 64)
    );
    let output = run("check", &marked("shaddock.toml", &text));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Reads what a service manager is told, up to a line that begins so.
fn until_told(manager: &UnixDatagram, line: &str) -> String {
    let mut told = String::new();
    let mut datagram = [0; 4_096];
    loop {
        let len = manager.recv(&mut datagram).unwrap_or_else(|error| {
            panic!("never told: {line} ({error})\n{told}");
        });
        let text = std::str::from_utf8(&datagram[..len]).unwrap();
        told.push_str(text);
        if text.lines().any(|told| told.starts_with(line)) {
            return told;
        }
    }
}

#[test]
fn a_service_manager_is_told_of_start_reload_and_stop_and_its_watchdog_is_fed() {
    let folder = Folder::create();
    let path = folder.write("shaddock.toml", &config("", "", 64));
    let socket = folder.join("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(BINARY);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "200000");
    let served = Served::start_by(command, &path);
    until_told(&manager, "STATUS=Serving");
    for _ in 0..3 {
        until_told(&manager, "WATCHDOG=1");
    }
    served.signal(Signal::HUP);
    let reload = until_told(&manager, "MONOTONIC_USEC=");
    assert!(reload.contains("RELOADING=1\n"), "{reload}");
    until_told(&manager, "READY=1");
    folder.write("shaddock.toml", "x = 1");
    served.signal(Signal::HUP);
    until_told(&manager, "STATUS=Serving; the configuration has problems");
    served.signal(Signal::TERM);
    until_told(&manager, "STOPPING=1");
    assert_eq!(served.until_end(), Some(0));
}

fn run(command: &str, config: &Path) -> Output {
    Command::new(BINARY).args([command, "--config"]).arg(config).output().unwrap()
}

#[test]
fn a_check_tells_all_problems_and_fails() {
    let folder = Folder::create();
    let good = folder.write("good.toml", &config("", "", 64));
    let output = run("check", &good);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!((output.status.code(), text.ends_with("good.toml: no problems\n")), (Some(0), true));
    assert!(run("check", Path::new("shaddock.example.toml")).status.success());

    let mut check = Command::new(BINARY);
    check.args(["check", "--config"]).arg(&good);
    check.env("SHADDOCK__LIMITS__BACKLOG", "65").env("SHADDOCK__POMELO__TOKEN", "hidden");
    let output = check.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("limits.backlog = 65, from SHADDOCK__LIMITS__BACKLOG\n"), "{text}");
    assert!(text.contains("server.id = \"connector-7\", from "), "{text}");
    assert!(!text.contains("hidden"), "{text}");

    let bad = folder.write("bad.toml", "[server]\nidd = 1\n[limits]\nbacklog = \"x\"\n");
    for command in ["check", "serve"] {
        let output = run(command, &bad);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].contains("bad.toml:2:1: server.idd: unknown key"), "{text}");
        assert!(lines[1].contains("bad.toml:4:11: limits.backlog: expected a number"), "{text}");
        assert_eq!(lines[2], "shaddock: the configuration has 2 problems");
    }
    let output = run("check", &folder.join("none.toml"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("none.toml: expected a file that can be read, found No such file"));
}

impl Served {
    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sets what the process may have at most of something; gives what it might have.
    fn limit(&self, resource: Resource, current: Option<u64>) -> Option<u64> {
        let maximum = getrlimit(resource).maximum;
        let before = prlimit(Some(self.pid()), resource, Rlimit { current, maximum });
        before.unwrap().current
    }

    /// The address space it takes now.
    fn address_space_bytes(&self) -> u64 {
        let file = format!("/proc/{}/statm", self.child.id());
        let pages = fs::read_to_string(file).unwrap();
        pages.split(' ').next().unwrap().parse::<u64>().unwrap() * 4096
    }
}

/// A ring's sockets are no descriptors of the process, so those who come are served; what needs one
/// says that there is none, and changes nothing.
#[test]
fn out_of_descriptors_clients_are_served_and_nothing_is_read_again() {
    if !has_ring() {
        return;
    }
    let folder = Folder::create();
    folder.write("codes.json", "[\"onChat\"]");
    let text = config("file = \"codes.json\"", "", 64);
    let text = text.replacen("[server]\n", "[server]\ndriver = \"ring\"\n", 1);
    let path = folder.write("shaddock.toml", &text);
    let mut served = Served::start(&path);
    let address = served.addresses[0];
    served.until_logged("there are no backends");
    // Fewer than it has open: the next one fails.
    let before = served.limit(Resource::Nofile, Some(3));
    folder.write("codes.json", "[\"onChat\", \"onMove\"]");
    served.signal(Signal::HUP);
    let log = served.until_logged("nothing was changed");
    assert!(log.contains("Too many open files"), "{log}");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::ready(address)).collect();
    for (id, client) in (1..).zip(&mut clients) {
        assert_eq!(client.ask(id, ECHO, "1"), "1");
    }
    assert_eq!(told(address), json!({"onChat": 1}));
    served.limit(Resource::Nofile, before);
    served.signal(Signal::HUP);
    served.until_logged("dictionary");
    eventually("the file is read", || told(address) == json!({"onChat": 1, "onMove": 2}));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

const MIB: u64 = 1024 * 1024;

/// One shard whose limits come to that much for each client, more or less.
fn bounded(outbox_bytes: u64) -> String {
    format!(
        "[server]\nid = \"connector-7\"\nshards = 1\necho = \"{ECHO}\"\n\
         [[listener]]\naddress = \"127.0.0.1:0\"\n\
         [limits]\npackage_bytes_max = \"16 KiB\"\nhandshake_package_bytes_max = \"16 KiB\"\n\
         outbox_bytes_max = {outbox_bytes}\nheld_bytes_max = \"1 MiB\"\n"
    )
}

/// Sends requests without ever reading, until the server takes none for that time.
fn flood(address: SocketAddr, bytes_max: usize, patience: Duration) -> usize {
    let block = request(1, ECHO, &"x".repeat(8_000)).repeat(8);
    let mut client = Client::ready(address);
    client.stream.set_write_timeout(Some(patience)).unwrap();
    let mut sent = 0;
    while sent < bytes_max {
        match client.stream.write(&block) {
            Ok(len) => sent += len,
            // It is not read any more, or has been closed.
            Err(_) => break,
        }
    }
    sent
}

/// Under a bound of its memory from outside, what clients can make it take is what the limits say.
#[test]
fn limits_keep_the_process_within_its_memory() {
    let folder = Folder::create();
    let path = folder.write("shaddock.toml", &bounded(MIB / 4));
    let served = Served::start(&path);
    let address = served.addresses[0];
    let mut witness = Client::ready(address);
    // 32 clients with a quarter of a MiB each, and as much again for all else.
    let before = served.address_space_bytes();
    served.limit(Resource::As, Some(before + 16 * MIB));
    // It is paused once its outbox is full.
    let patience = Duration::from_millis(200);
    let sent: usize = std::thread::scope(|scope| {
        let flooding: Vec<_> = (0..32)
            .map(|_| {
                scope.spawn(|| (0..3).map(|_| flood(address, 64 << 20, patience)).sum::<usize>())
            })
            .collect();
        for id in 1..200 {
            assert_eq!(witness.ask(id, ECHO, "1"), "1");
        }
        flooding.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert!(sent as u64 > 32 * MIB, "{sent} bytes are no flood");
    assert_eq!(witness.ask(1, ECHO, "1"), "1");
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// With limits above what there is, the process ends at once, and nobody hangs.
#[test]
fn a_process_without_memory_ends() {
    let folder = Folder::create();
    let path = folder.write("shaddock.toml", &bounded(256 * MIB));
    let mut served = Served::start(&path);
    let address = served.addresses[0];
    let mut witness = Client::ready(address);
    served.limit(Resource::As, Some(served.address_space_bytes() + 4 * MIB));
    flood(address, 1 << 30, PATIENCE);
    assert_eq!(witness.next(), Event::End);
    served.until_logged("memory allocation of");
    assert_eq!(served.until_end(), None, "ended by a signal");
}

/// What ends it for want of memory is told by the standard library, which waits for a pipe that is
/// full: half of it is left empty for that.
#[test]
fn a_process_without_memory_ends_though_nobody_reads_its_log() {
    let folder = Folder::create();
    let path = folder.write("shaddock.toml", &bounded(256 * MIB));
    let mut child = Command::new(BINARY)
        .args(["serve", "--log", "debug", "--config"])
        .arg(path)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    let _unread = child.stderr.take();
    let served = Served { child, log: BufReader::new(Box::new(std::io::empty())), addresses };
    let address = served.addresses[0];
    for _ in 0..1_000 {
        drop(TcpStream::connect(address).unwrap());
    }
    let mut witness = Client::ready(address);
    assert_eq!(witness.ask(1, ECHO, "1"), "1");
    served.limit(Resource::As, Some(served.address_space_bytes() + 4 * MIB));
    flood(address, 1 << 30, PATIENCE);
    assert_eq!(witness.next(), Event::End);
    assert_eq!(served.until_end(), None, "ended by a signal");
}

#[cfg(feature = "admin")]
pub(crate) fn ctl(socket: &Path, words: &[&str]) -> Output {
    Command::new(BINARY).arg("ctl").arg("--socket").arg(socket).args(words).output().unwrap()
}

#[cfg(feature = "admin")]
pub(crate) fn top(words: &[&str]) -> Output {
    Command::new(BINARY).args(["top", "--once"]).args(words).output().unwrap()
}

/// Port 3011 is taken, by this test or by somebody else.
#[test]
fn a_demo_serves_where_the_port_of_its_page_is_taken() {
    let _taken = TcpListener::bind("127.0.0.1:3011");
    let demo = ["demo", "--listen", "127.0.0.1:0", "--shards", "1"];
    let mut command = Command::new(BINARY);
    let child = command.args(demo).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap();
    let log: Box<dyn Read> = Box::new(child.stderr.take().unwrap());
    let addresses = announced(child.stdout.take().unwrap());
    let mut served = Served { child, log: BufReader::new(log), addresses };
    let told = served.until_logged("another process listens on 127.0.0.1:3011");
    assert!(told.contains("--admin"), "{told}");
    let mut client = Client::ready(served.addresses[0]);
    assert_eq!(client.ask(1, "connector.entryHandler.echo", "[1]"), "[1]");
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// A master that says nothing: the connector serves, and balancers are told to wait.
#[cfg(all(feature = "admin", feature = "pomelo"))]
#[test]
fn balancers_are_told_to_wait_until_the_cluster_is_joined() {
    let folder = Folder::create();
    let socket = folder.path().join("admin.sock");
    let master = TcpListener::bind("127.0.0.1:0").unwrap();
    let text = format!(
        "[[listener]]\naddress = \"127.0.0.1:0\"\n[admin]\nsocket = \"{}\"\n\
         [pomelo]\nmaster = \"{}\"\n[[pomelo.type]]\nname = \"chat\"\n",
        socket.display(),
        master.local_addr().unwrap()
    );
    let served = Served::start(&folder.write("shaddock.toml", &text));
    let out = |words: &[&str]| {
        let output = ctl(&socket, words);
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), output.stderr)
    };
    let (code, _, why) = out(&["health"]);
    let why = String::from_utf8(why).unwrap();
    assert!(code == Some(3) && why.contains("pomelo"), "{why}");
    let (_, metrics, _) = out(&["metrics"]);
    for line in [
        "shaddock_coordinator_up{kind=\"master\"} 0.0",
        "shaddock_backends{server_type=\"chat\",state=\"up\"} 0.0",
        "shaddock_backends{server_type=\"chat\",state=\"down\"} 0.0",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    let (code, backends, _) = out(&["backends"]);
    assert!(code == Some(0) && backends.starts_with("SERVER_TYPE "), "{backends}");
    assert!(backends.contains("lane to pomelo: 0"), "{backends}");
    Client::ready(served.addresses[0]);
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

#[cfg(feature = "admin")]
#[test]
fn operators_look_at_a_connector_and_steer_it() {
    let folder = Folder::create();
    let socket = folder.path().join("admin.sock");
    let text = format!(
        "[server]\nshards = 1\ndrain = \"2s\"\ndemo = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [admin]\nsocket = \"{}\"\n",
        socket.display()
    );
    let mut served = Served::start(&folder.write("shaddock.toml", &text));
    let address = served.addresses[0];
    let mut client = Client::ready(address);
    client.ask(1, "connector.entryHandler.entry", "{\"uid\":\"amy\"}");
    let out = |words: &[&str]| {
        let output = ctl(&socket, words);
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), text, String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(out(&["health"]), (Some(0), "ok\n".into(), String::new()));
    let (code, status, _) = out(&["status"]);
    assert!(code == Some(0) && status.contains("server_id: connector-1\n"), "{status}");
    let (_, list, _) = out(&["sessions", "--json"]);
    let sessions: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(sessions["sessions"][0]["uid"], "amy", "{list}");
    assert!(out(&["sessions"]).1.starts_with("ID "), "a table");
    let (code, events, _) = out(&["events", "--count", "2"]);
    assert!(code == Some(0) && events.lines().count() == 2, "{events}");
    assert!(events.starts_with("figures: connections 1, in "), "{events}");
    let (_, event, _) = out(&["events", "--count", "1", "--json"]);
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["event"], &event["data"]["connections"]), (&json!("figures"), &json!(1)));
    let (code, backends, _) = out(&["backends"]);
    assert!(code == Some(0) && backends.contains("lane to chat-1: 0\n"), "{backends}");
    let top = top(&["--socket", socket.to_str().unwrap()]);
    let screen = String::from_utf8(top.stdout).unwrap();
    for part in ["connector-1 ", "ready", "shards", "sessions by in_flight: 1 in all", "amy"] {
        assert!(screen.contains(part), "{part}\n{screen}");
    }
    assert!(out(&["metrics"]).1.contains("shaddock_connections_accepted_total 1\n"));
    // The level changes while it runs.
    assert_eq!(out(&["log", "debug"]).0, Some(0));
    let (code, _, error) = out(&["log", "loud"]);
    assert!(code == Some(3) && error.contains("off, error, warn"), "{error}");
    let (code, text, _) = out(&["deny", "203.0.113.0/24", "--for", "1h 30m"]);
    assert_eq!((code, &*text), (Some(0), "address: 203.0.113.0/24\nseconds: 5400\n"));
    let (_, text, _) = out(&["denied"]);
    assert!(text.starts_with("ADDRESS ") && text.contains("203.0.113.0/24  5400\n"), "{text}");
    assert_eq!(out(&["allow", "203.0.113.0/24"]).0, Some(0));
    assert_eq!(out(&["allow", "203.0.113.0/24"]).0, Some(3));
    assert_eq!(out(&["kick", "--uid", "nobody"]).0, Some(0));
    assert_eq!(out(&["kick", "--uid", "amy"]).0, Some(0));
    client.until_end();
    served.until_logged("session closed");
    folder.write("shaddock.toml", &text.replace("2s", "x"));
    assert_eq!(out(&["reload"]).0, Some(0));
    served.until_logged("nothing was changed");
    let (code, _, error) = out(&["session", "0.1.2"]);
    assert!(code == Some(3) && error.contains("no such session"), "{error}");
    assert_eq!(out(&["drain", "--delay", "1h"]).0, Some(0));
    assert_eq!(out(&["health"]).0, Some(3));
    assert_eq!(out(&["undrain"]).0, Some(0));
    assert_eq!(out(&["health"]).0, Some(0));
    let (code, _, error) = out(&["drain", "--over", "soon"]);
    assert!(code == Some(3) && error.contains("`over` is a time such as"), "{error}");
    assert_eq!(out(&["drain", "--over", "100ms"]).0, Some(0));
    assert_eq!(served.until_end(), Some(0));
    assert!(!socket.exists());
    let (code, _, error) = out(&["status"]);
    assert!(code == Some(1) && error.contains("--socket"), "{error}");
}

/// What operators deny for a while is theirs: a file that is read again has its own rules only.
#[cfg(feature = "admin")]
#[test]
fn a_reload_keeps_what_operators_deny() {
    let folder = Folder::create();
    let socket = folder.path().join("admin.sock");
    let text = |deny: &str| {
        config("", deny, 64) + &format!("[admin]\nsocket = \"{}\"\n", socket.display())
    };
    let mut served = Served::start(&folder.write("shaddock.toml", &text("\"192.0.2.1\"")));
    let (v4, v6) = (served.addresses[0], served.addresses[1]);
    Client::ready(v4);
    for address in ["127.0.0.1", "203.0.113.0/24"] {
        assert!(ctl(&socket, &["deny", address, "--for", "1h"]).status.success());
    }
    eventually("the operator's rule holds", || is_refused(v4));
    folder.write("shaddock.toml", &text("\"192.0.2.2\", \"::1\""));
    served.signal(Signal::HUP);
    served.until_logged("host_filter.deny has changed");
    eventually("the file's rule holds", || is_refused(v6));
    assert!(is_refused(v4));
    let denied = ctl(&socket, &["denied", "--json"]).stdout;
    let denied = String::from_utf8(denied).unwrap();
    for address in ["127.0.0.1", "203.0.113.0/24", "192.0.2.2", "::1"] {
        assert!(denied.contains(address), "{denied}");
    }
    assert!(!denied.contains("192.0.2.1\""), "{denied}");
    assert!(ctl(&socket, &["allow", "127.0.0.1"]).status.success());
    eventually("the operator's rule is gone", || !is_refused(v4));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}
