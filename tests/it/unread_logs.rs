//! A log that nobody reads: a process goes on, and counts the lines that are lost.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::json;
use support::folder::Folder;
use support::{Client, Event, eventually};

use crate::serve::{BINARY, ECHO, Served, announced, config, ctl, told};

/// Runs a process whose log nobody reads through more lines than a pipe takes, from shards and from
/// the main thread, and then through all that it may be asked for.
fn goes_on_without_a_log(child: Child, addresses: Vec<SocketAddr>, folder: &Folder, log: Log) {
    let address = addresses[0];
    let served = Served { child, log: BufReader::new(Box::new(std::io::empty())), addresses };
    // A line for each at `--log debug`, of about 100 bytes.
    for _ in 0..1_000 {
        drop(TcpStream::connect(address).unwrap());
    }
    folder.write("shaddock.toml", &"x = 1\n".repeat(100));
    served.signal(Signal::HUP);
    let mut client = Client::ready(address);
    assert_eq!(client.next(), Event::Heartbeat);
    assert_eq!(client.ask(1, ECHO, "[1]"), "[1]");
    folder.write("shaddock.toml", &told_config(folder, "routes = [\"onChat\"]"));
    served.signal(Signal::HUP);
    eventually("the file is read again", || told(address) == json!({"onChat": 1}));
    assert_eq!(client.ask(2, ECHO, "[2]"), "[2]");
    let lost = || {
        let scraped = ctl(&folder.path().join("admin.sock"), &["metrics"]).stdout;
        let scraped = String::from_utf8(scraped).unwrap();
        let name = "shaddock_log_lines_lost_total ";
        let count = scraped.lines().find_map(|line| line.strip_prefix(name));
        count.unwrap_or_else(|| panic!("no {name}: {scraped}")).parse::<u64>().unwrap()
    };
    if log == Log::Unread {
        // More lines than wait for a reader.
        (0..5_000).for_each(|_| drop(TcpStream::connect(address).unwrap()));
    }
    eventually("what is lost is counted", || log == Log::Nowhere || lost() > 0);
    served.signal(Signal::TERM);
    assert_eq!(served.until_end(), Some(0));
}

/// What has become of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Log {
    Closed,
    Unread,
    /// There was no stderr from the start, so the standard library has opened `/dev/null`.
    Nowhere,
}

/// The same file with an admin server, which tells how many lines were lost.
fn told_config(folder: &Folder, codes: &str) -> String {
    let socket = folder.path().join("admin.sock");
    config(codes, "", 64) + &format!("[admin]\nsocket = \"{}\"\n", socket.display())
}

fn serve_with_details(folder: &Folder) -> Command {
    let path = folder.write("shaddock.toml", &told_config(folder, ""));
    let mut command = Command::new(BINARY);
    command.args(["serve", "--log", "debug", "--config"]).arg(path).stdout(Stdio::piped());
    command
}

/// The reader of stderr may end, as ssh and log drivers do.
#[test]
fn a_process_goes_on_when_the_reader_of_its_log_has_gone() {
    let folder = Folder::create();
    let mut child = serve_with_details(&folder).stderr(Stdio::piped()).spawn().unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    drop(child.stderr.take());
    goes_on_without_a_log(child, addresses, &folder, Log::Closed);
}

/// A pipe holds 64 KiB, and whoever writes more waits for its reader.
#[test]
fn a_process_goes_on_when_nobody_reads_its_log() {
    let folder = Folder::create();
    let mut child = serve_with_details(&folder).stderr(Stdio::piped()).spawn().unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    let unread = child.stderr.take();
    goes_on_without_a_log(child, addresses, &folder, Log::Unread);
    let mut log = String::new();
    unread.unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("session closed") && log.len() <= 64 * 1024, "{}", log.len());
}

/// As some init systems start a process.
#[test]
fn a_process_starts_and_goes_on_without_a_stderr() {
    let folder = Folder::create();
    let command = serve_with_details(&folder);
    let mut shell = Command::new("sh");
    shell.args(["-c", "exec \"$0\" \"$@\" 2>&-"]).arg(BINARY).args(command.get_args());
    let mut child = shell.stdout(Stdio::piped()).spawn().unwrap();
    let addresses = announced(child.stdout.take().unwrap());
    goes_on_without_a_log(child, addresses, &folder, Log::Nowhere);
}

/// A terminal that has been closed, with the figures on it: writing there fails with EIO.
#[test]
fn a_process_goes_on_when_its_terminal_has_gone() {
    let folder = Folder::create();
    // Not for the processes of other tests, which would keep it open.
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags).unwrap();
    grantpt(&master).and_then(|()| unlockpt(&master)).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let open = || fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap());
    let (out, log) = (open().unwrap(), open().unwrap());
    let mut command = serve_with_details(&folder);
    let child = command.stdout(out).stderr(log).spawn().unwrap();
    drop(command);
    let mut terminal = BufReader::new(fs::File::from(master));
    let mut line = String::new();
    while !line.contains("listening on") {
        line.clear();
        terminal.read_line(&mut line).unwrap();
    }
    drop(terminal);
    let addresses = announced(std::io::Cursor::new(line));
    goes_on_without_a_log(child, addresses, &folder, Log::Closed);
}
