//! `shaddock serve` while it is steered: drains by signals, and its log as programs read it.

#[cfg(feature = "admin")]
use std::io::Write as _;
use std::io::{BufRead as _, BufReader, Read};
#[cfg(feature = "admin")]
use std::net::TcpStream;
use std::process::{Command, Stdio};
#[cfg(feature = "admin")]
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
#[cfg(feature = "admin")]
use support::eventually;
use support::folder::Folder;
use support::{Client, request};

#[cfg(feature = "admin")]
use crate::serve::ctl;
use crate::serve::{BINARY, Served, announced};

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
