//! `shaddock serve` while it is steered: drains by signals, and its log as programs read it.

#[cfg(feature = "admin")]
use std::io::Write as _;
use std::io::{BufRead as _, BufReader, Read};
#[cfg(feature = "admin")]
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
#[cfg(feature = "admin")]
use std::time::Duration;

use rustix::process::Signal;
#[cfg(feature = "admin")]
use rustix::process::{Pid, kill_process};
use serde_json::Value;
#[cfg(feature = "admin")]
use support::eventually;
use support::folder::Folder;
use support::{Client, request};

use crate::serve::{BINARY, Served, announced};
#[cfg(feature = "admin")]
use crate::serve::{ctl, top};

/// A signal's drain waits for balancers and can be called off; then the next signal is a first one
/// again. A second one ends the process at once.
#[cfg(feature = "admin")]
#[test]
fn a_drain_by_a_signal_is_called_off_or_cut_short() {
    let folder = Folder::create();
    let socket = folder.path().join("admin.sock");
    let text = format!(
        "[server]\nshards = 1\ndrain_delay = \"1h\"\ndrain_refuses_logins = true\n\
         health_path = \"/healthz\"\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [admin]\nsocket = \"{}\"\n",
        socket.display()
    );
    let served = Served::start(&folder.write("shaddock.toml", &text));
    let address = served.addresses[0];
    let is_ready = || ctl(&socket, &["health"]).status.code() == Some(0);
    let health = || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    };
    let _amy = Client::ready(address);
    for _ in 0..2 {
        assert_eq!(health(), "200");
        served.signal(Signal::TERM);
        eventually("balancers are told", || !is_ready());
        assert_eq!(health(), "503");
        let mut bob = Client::connect(address);
        bob.send(&support::handshake());
        bob.until_end();
        assert_eq!(ctl(&socket, &["undrain"]).status.code(), Some(0));
        assert!(is_ready());
        let _cleo = Client::ready(address);
        // Within a redrawing of the figures.
        std::thread::sleep(Duration::from_millis(1_500));
    }
    served.signal(Signal::TERM);
    eventually("balancers are told", || !is_ready());
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(128 + 15));
}

/// The log as programs read it: each line is an object, whatever clients send.
#[test]
fn the_log_is_json_where_the_file_says_so_and_its_level_changes() {
    let folder = Folder::create();
    let text = "[server]\nshards = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
                [log]\nlevel = \"debug\"\nformat = \"json\"\n";
    let path = folder.write("shaddock.toml", text);
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(&path).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    let log: Box<dyn Read> = Box::new(child.stderr.take().unwrap());
    let mut served = Served { child, log: BufReader::new(log), addresses };
    let mut log = String::new();
    let mut client = Client::ready(served.addresses[0]);
    client.send(&request(1, "connector.no\n\u{1b}[31m.\"such", "{}"));
    client.answer(1);
    log += &served.until_logged("such");
    drop(client);
    log += &served.until_logged("session closed");
    // A file with problems is told, too; then the level and the form change, without a restart.
    folder.write("shaddock.toml", "x = 1\n");
    served.signal(Signal::HUP);
    log += &served.until_logged("nothing was changed");
    folder.write("shaddock.toml", &text.replace("debug", "info").replace("json", "text"));
    served.signal(Signal::HUP);
    served.until_logged("INFO shaddock::cli::serve: log.level has changed");
    for line in log.lines() {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        for name in ["timestamp", "level", "message", "target"] {
            assert!(value[name].is_string(), "{name}: {line}");
        }
        // Not even the escaped form has what could steer a terminal.
        assert!(!value.to_string().contains("\\u001b"), "{line}");
    }
    assert!(log.contains("\"level\":\"DEBUG\"") && log.contains("\"level\":\"WARN\""), "{log}");
    served.signal(Signal::TERM);
    let rest = served.until_logged("stopped");
    assert!(!rest.contains("DEBUG") && !rest.contains("{\""), "{rest}");
    assert_eq!(served.until_end(), Some(0));
}

/// A log driver that does not read costs lines, which are counted, and nothing else.
#[cfg(feature = "admin")]
#[test]
fn lines_that_nobody_reads_are_a_metric() {
    let folder = Folder::create();
    let socket = folder.path().join("admin.sock");
    let text = format!(
        "[server]\nshards = 1\n[[listener]]\naddress = \"127.0.0.1:0\"\n\
         [log]\nformat = \"json\"\n[admin]\nsocket = \"{}\"\n",
        socket.display()
    );
    let path = folder.write("shaddock.toml", &text);
    let mut command = Command::new(BINARY);
    command.args(["serve", "--log", "debug", "--config"]).arg(path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    let mut unread = BufReader::new(child.stderr.take().unwrap());
    let served = Served { child, log: BufReader::new(Box::new(std::io::empty())), addresses };
    let metric = || {
        let output = ctl(&socket, &["metrics"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let line = text.lines().find(|line| line.starts_with("shaddock_log_lines_lost_total "));
        line.and_then(|line| line.split(' ').nth(1)?.parse::<f64>().ok()).expect("the metric")
    };
    assert_eq!(metric(), 0.0);
    // Each is a line at least; the queue holds 4,096, and the pipe some hundreds.
    eventually("lines are lost", || {
        for _ in 0..500 {
            drop(TcpStream::connect(served.addresses[0]).unwrap());
        }
        metric() > 0.0
    });
    drop(Client::ready(served.addresses[0]));
    let lost = "log lines were lost";
    let mut line = String::new();
    while !line.contains(lost) {
        line.clear();
        assert_ne!(unread.read_line(&mut line).unwrap(), 0, "never told");
        let value: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{line}"));
        assert!(value["message"].is_string(), "{line}");
    }
    std::thread::spawn(move || std::io::copy(&mut unread, &mut std::io::sink()));
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

#[cfg(feature = "admin")]
#[test]
fn top_asks_by_tcp_too_and_tells_where_nobody_answers() {
    let folder = Folder::create();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listening.local_addr().unwrap().to_string();
    // A port that nobody listens on.
    drop(listening);
    let output = top(&["--address", &address]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && error.contains(&address), "{error}");
    let token = folder.write("token", "0123456789abcdef");
    let text = "[server]\nshards = 1\ndemo = true\n[[listener]]\naddress = \"127.0.0.1:0\"\n";
    let text = format!("{text}[admin]\nlisten = \"{address}\"\ntoken_file = \"token\"\n");
    let served = Served::start(&folder.write("shaddock.toml", &text));
    let words = ["--address", &address, "--token-file", token.to_str().unwrap(), "--sort", "age_s"];
    let output = top(&words);
    let screen = String::from_utf8(output.stdout).unwrap();
    assert!(screen.contains("sessions by age_s: 0 in all"), "{screen}");
    // Without a terminal there is nothing to watch.
    let watched = Command::new(BINARY).arg("top").stdin(Stdio::null()).output().unwrap();
    let error = String::from_utf8(watched.stderr).unwrap();
    assert!(watched.status.code() == Some(1) && error.contains("--once"), "{error}");
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

#[cfg(feature = "admin")]
#[test]
fn the_demo_serves_without_its_page_where_the_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().map(|address| (taken, address.to_string())).unwrap();
    let mut child = Command::new(BINARY)
        .args(["demo", "--listen", "127.0.0.1:0", "--shards", "1", "--admin", &taken.1])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    let mut told = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut told).unwrap();
    let answer = Client::ready(addresses[0]).ask(1, "connector.entryHandler.echo", "{}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(told.contains(&taken.1) && told.contains("--admin"), "{told}");
    assert_eq!(answer, "{}");
}
