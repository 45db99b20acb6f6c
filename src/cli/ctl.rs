//! `shaddock ctl`: what the admin server of a running connector tells, for people and programs.

pub(crate) mod client;
pub(crate) mod show;

use std::fs;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::Value;

use client::{Answer, Client};

/// The options of `ctl`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Exit codes: 0 done, or ready; 1 no answer; 2 wrong options; \
    3 refused, or not ready (the answer tells why).")]
pub(crate) struct CtlOptions {
    #[command(flatten)]
    server: ServerOptions,

    /// Print the answer as it is, for programs
    #[arg(long, global = true)]
    json: bool,

    #[command(subcommand)]
    command: Ask,
}

/// The way to an admin server.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerOptions {
    /// The Unix socket of the admin server, `admin.socket` in its file
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/shaddock/admin.sock")]
    socket: PathBuf,

    /// Its address by TCP instead, `admin.listen`, such as http://127.0.0.1:3011
    #[arg(long, global = true, value_name = "URL", conflicts_with = "socket")]
    address: Option<String>,

    /// A file that holds the token of `admin.token`, to change something by TCP
    #[arg(long, global = true, value_name = "FILE", requires = "address")]
    token_file: Option<PathBuf>,
}

impl ServerOptions {
    /// A client of that server.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        match &self.address {
            Some(address) => Client::tcp(address, self.token_file.as_deref()),
            None => Ok(Client::unix(self.socket.clone())),
        }
    }
}

/// A question or a wish.
#[derive(Debug, Clone, Subcommand)]
enum Ask {
    /// Figures of the connector, its shards and its backends
    Status,
    /// The server types behind it: servers up and down, what became of messages, lanes
    Backends,
    /// Figures each second, limits that are met, and drains, until Ctrl-C
    Events {
        /// End after so many
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Sessions, those with the most of something first
    Sessions(ListOptions),
    /// One session
    Session {
        /// Its id, as `sessions` tells it
        id: String,
    },
    /// Close a session, or all sessions of a uid
    Kick(KickOptions),
    /// Let nobody connect from an address, for a while
    Deny {
        /// The address, or a block such as 203.0.113.0/24
        #[arg(value_name = "ADDRESS")]
        host: String,
        /// The time, such as 10m; open connections stay
        #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = seconds)]
        time: u64,
    },
    /// Take a denial back
    Allow {
        /// The address or block, as `denied` tells it
        #[arg(value_name = "ADDRESS")]
        host: String,
    },
    /// The addresses that may not connect
    Denied,
    /// Sessions that have ended, the newest first, and why
    Closed(ClosedOptions),
    /// Record what a client sends and gets
    Record(RecordOptions),
    /// The recordings that there are
    Recordings,
    /// Print a recording, or write it for Wireshark
    Recording(ReadOptions),
    /// Tell balancers to send nobody more, close sessions a while later, and stop
    Drain(DrainOptions),
    /// Call a drain off, as long as it closes no sessions
    Undrain,
    /// Change the level of the log: off, error, warn, info, debug or trace
    Log {
        /// The level
        level: String,
    },
    /// Read the configuration again
    Reload,
    /// Tell if clients may be sent there
    Health,
    /// The metrics as Prometheus gets them
    Metrics,
}

/// Which sessions.
#[derive(Debug, Clone, Args)]
struct ListOptions {
    /// number, age_s, outbox_bytes, outbox_ms, in_flight, in_flight_bytes, kept_bytes, silent_ms,
    /// received_bytes, sent_bytes, messages or id
    #[arg(long, default_value = "number")]
    sort: String,
    /// Sessions at most, up to 1000
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u16,
    /// Sessions to leave out in front
    #[arg(long, value_name = "N", default_value_t = 0)]
    offset: u16,
    /// Only those behind this one, in the order of ids: `next` of the answer before
    #[arg(long, value_name = "ID", conflicts_with_all = ["sort", "offset"])]
    after: Option<String>,
    /// Only those of this uid
    #[arg(long)]
    uid: Option<String>,
    /// Only those in this state: opening, working or closing
    #[arg(long)]
    state: Option<String>,
    /// Only those with this text in their id, uid or address
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
}

/// The times of a drain, as the file sets them unless they are given.
#[derive(Debug, Clone, Args)]
struct DrainOptions {
    /// Time for balancers before anything is closed, such as 10s
    #[arg(long, value_name = "TIME")]
    delay: Option<String>,
    /// Time over which sessions are closed evenly, such as 5m
    #[arg(long, value_name = "TIME")]
    over: Option<String>,
    /// Time for pending answers and saves then, such as 5s
    #[arg(long, value_name = "TIME")]
    within: Option<String>,
    /// Close those who connect before sessions are closed
    #[arg(long)]
    refuse_logins: bool,
}

/// Which ended sessions.
#[derive(Debug, Clone, Args)]
struct ClosedOptions {
    /// Only those that ended so: peer, kick, heartbeat_timeout, idle, handshake_timeout, protocol,
    /// refused, slow_consumer, outbox_age, shutdown or memory
    #[arg(long)]
    reason: Option<String>,
    /// Only those of this uid
    #[arg(long)]
    uid: Option<String>,
    /// Sessions at most, up to 1000
    #[arg(long, value_name = "N", default_value_t = 20)]
    limit: u16,
}

/// The sessions to record, and the parts of them.
#[derive(Debug, Clone, Args)]
struct RecordOptions {
    /// The session's id, as `sessions` tells it
    #[arg(required_unless_present_any = ["uid", "peer"])]
    id: Option<String>,
    /// The sessions of this uid instead; if there is none, the next that logs in
    #[arg(long, conflicts_with_all = ["id", "peer"])]
    uid: Option<String>,
    /// The sessions from this address instead; if there is none, the next that connects
    #[arg(long, value_name = "IP", conflicts_with = "id")]
    peer: Option<String>,
    /// Wait for the next in any case
    #[arg(long, conflicts_with = "id")]
    next: bool,
    /// Keep bodies that are JSON, without secrets; else only heads and lengths are kept
    #[arg(long)]
    bodies: bool,
    /// Bytes to keep, 65536 to 1048576; the oldest make room
    #[arg(long, value_name = "N", default_value_t = 262_144)]
    bytes: u32,
    /// Stop after so many seconds, up to 3600
    #[arg(long, value_name = "N", default_value_t = 300)]
    seconds: u32,
}

/// Which recording, and how.
#[derive(Debug, Clone, Args)]
struct ReadOptions {
    /// Its id, as `recordings` tells it
    id: u32,
    /// Write it to this file for Wireshark
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
    /// Record no more, and keep it
    #[arg(long, conflicts_with = "pcapng")]
    stop: bool,
    /// Record no more, and forget it
    #[arg(long, conflicts_with_all = ["pcapng", "stop"])]
    forget: bool,
}

/// The sessions to kick.
#[derive(Debug, Clone, Args)]
struct KickOptions {
    /// The session's id, as `sessions` tells it
    #[arg(required_unless_present = "uid", conflicts_with = "uid")]
    id: Option<String>,
    /// All sessions of this uid
    #[arg(long)]
    uid: Option<String>,
    /// The reason, which clients are told in a KICK package; without it they are closed only
    #[arg(long)]
    reason: Option<String>,
}

/// The exit code where the server has refused, or is not ready.
const REFUSED: u8 = 3;

/// Asks, and prints the answer.
pub(crate) fn run(options: &CtlOptions) -> ExitCode {
    match ask(options) {
        Ok(code) => code,
        Err(error) => {
            writeln!(io::stderr(), "shaddock ctl: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn ask(options: &CtlOptions) -> anyhow::Result<ExitCode> {
    let client = options.server.client()?;
    if let Ask::Events { count } = options.command {
        return follow(&client, count, options.json);
    }
    let (method, target) = target(&options.command);
    let answer = client.ask(method, &target)?;
    let is_good = answer.status < 400;
    if let (Ask::Recording(ReadOptions { pcapng: Some(file), .. }), true) =
        (&options.command, is_good)
    {
        let written = fs::write(file, answer.bytes());
        written.with_context(|| format!("can't write {}", file.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_text = is_good && matches!(&options.command, Ask::Recording(read) if read.is_text());
    let text = match (&options.command, options.json) {
        _ if is_text => answer.text()?.to_owned(),
        (_, true) | (Ask::Metrics | Ask::Health, false) => answer.text()?.to_owned(),
        (command, false) => text_of(command, &answer)?,
    };
    let mut out: Box<dyn io::Write> = match is_good || options.json {
        true => Box::new(io::stdout()),
        false => Box::new(io::stderr()),
    };
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("can't print")?;
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::from(REFUSED) })
}

/// Prints events as they come.
fn follow(client: &Client, count: Option<u64>, is_json: bool) -> anyhow::Result<ExitCode> {
    let mut left = count;
    let refused = client.follow("/events", |name, data| {
        let line = match is_json {
            true => format!("{{\"event\":\"{name}\",\"data\":{data}}}\n"),
            false => {
                show::event(name, &serde_json::from_str(data).context("the event is no JSON")?)
            }
        };
        let mut out = io::stdout();
        out.write_all(line.as_bytes()).and_then(|()| out.flush()).context("can't print")?;
        left = left.map(|left| left.saturating_sub(1));
        Ok(left != Some(0))
    });
    match refused? {
        None => Ok(ExitCode::SUCCESS),
        Some(answer) => {
            let text = text_of(&Ask::Events { count }, &answer)?;
            io::stderr().write_all(text.as_bytes()).context("can't print")?;
            Ok(ExitCode::from(REFUSED))
        }
    }
}

/// The method and the target that a command stands for.
fn target(ask: &Ask) -> (&'static str, String) {
    let escaped = client::escape;
    let reason = |reason: &Option<String>| match reason {
        Some(reason) => format!("?reason={}", escaped(reason)),
        None => String::new(),
    };
    match ask {
        Ask::Status => ("GET", "/status".into()),
        Ask::Backends => ("GET", "/backends".into()),
        Ask::Events { .. } => ("GET", "/events".into()),
        Ask::Sessions(list) => ("GET", list.target()),
        Ask::Session { id } => ("GET", format!("/sessions/{}", escaped(id))),
        Ask::Kick(KickOptions { id: Some(id), reason: why, .. }) => {
            ("POST", format!("/sessions/{}/kick{}", escaped(id), reason(why)))
        }
        Ask::Kick(KickOptions { uid, reason: why, .. }) => {
            let uid = escaped(uid.as_deref().unwrap_or_default());
            ("POST", format!("/uids/{uid}/kick{}", reason(why)))
        }
        Ask::Deny { host, time } => {
            ("POST", format!("/deny?address={}&seconds={time}", escaped(host)))
        }
        Ask::Allow { host } => ("POST", format!("/allow?address={}", escaped(host))),
        Ask::Denied => ("GET", "/denied".into()),
        Ask::Drain(drain) => {
            let times = [("delay", &drain.delay), ("over", &drain.over), ("within", &drain.within)];
            let times = times.into_iter().filter_map(|(name, time)| Some((name, time.as_deref()?)));
            let logins = drain.refuse_logins.then_some(("refuse_logins", "true"));
            let mut target = "/drain".to_owned();
            for (place, (name, value)) in times.chain(logins).enumerate() {
                let before = if place == 0 { '?' } else { '&' };
                target.push_str(&format!("{before}{name}={}", escaped(value)));
            }
            ("POST", target)
        }
        Ask::Closed(closed) => {
            let mut target = format!("/closed?limit={}", closed.limit);
            for (name, value) in [("reason", &closed.reason), ("uid", &closed.uid)] {
                if let Some(value) = value {
                    target.push_str(&format!("&{name}={}", escaped(value)));
                }
            }
            ("GET", target)
        }
        Ask::Record(record) => ("POST", record.target()),
        Ask::Recordings => ("GET", "/recordings".into()),
        Ask::Recording(ReadOptions { id, pcapng, stop, forget }) => match (stop, forget, pcapng) {
            (true, ..) => ("POST", format!("/recordings/{id}/stop")),
            (_, true, _) => ("DELETE", format!("/recordings/{id}")),
            (.., Some(_)) => ("GET", format!("/recordings/{id}.pcapng")),
            (.., None) => ("GET", format!("/recordings/{id}.txt")),
        },
        Ask::Undrain => ("POST", "/undrain".into()),
        Ask::Log { level } => ("POST", format!("/log?level={}", escaped(level))),
        Ask::Reload => ("POST", "/reload".into()),
        Ask::Health => ("GET", "/readyz".into()),
        Ask::Metrics => ("GET", "/metrics".into()),
    }
}

/// Whole seconds of a time such as `1h 30m`.
fn seconds(text: &str) -> Result<u64, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    match time.as_secs() {
        0 => Err("it is less than a second".to_owned()),
        seconds => Ok(seconds),
    }
}

impl ListOptions {
    fn target(&self) -> String {
        let (Self { sort, limit, offset, .. }, escaped) = (self, client::escape);
        let mut target = match &self.after {
            Some(after) => format!("/sessions?sort=id&limit={limit}&after={}", escaped(after)),
            None => format!("/sessions?sort={}&limit={limit}&offset={offset}", escaped(sort)),
        };
        for (name, value) in [("uid", &self.uid), ("state", &self.state), ("search", &self.search)]
        {
            if let Some(value) = value {
                target.push_str(&format!("&{name}={}", escaped(value)));
            }
        }
        target
    }
}

impl RecordOptions {
    fn target(&self) -> String {
        let (kind, name) = match (&self.id, &self.uid, &self.peer) {
            (Some(id), ..) => ("sessions", id),
            (_, Some(uid), _) => ("uids", uid),
            (_, _, Some(peer)) => ("peers", peer),
            // The options require one.
            _ => return "/recordings".into(),
        };
        let bodies = if self.bodies { "on" } else { "headers" };
        let next = if self.next { "&next=true" } else { "" };
        let (name, Self { bytes, seconds, .. }) = (client::escape(name), self);
        format!("/{kind}/{name}/record?bodies={bodies}&bytes={bytes}&seconds={seconds}{next}")
    }
}

impl ReadOptions {
    /// True if the answer is the text of a recording.
    fn is_text(&self) -> bool {
        self.pcapng.is_none() && !self.stop && !self.forget
    }
}

/// An answer as people read it.
fn text_of(ask: &Ask, answer: &Answer) -> anyhow::Result<String> {
    let value: Value = serde_json::from_str(answer.text()?).context("the answer is no JSON")?;
    if let Some(error) = value.get("error") {
        return Ok(format!("{}\n", show::plain(error)));
    }
    Ok(match ask {
        Ask::Status => show::status(&value),
        Ask::Backends => show::backends(&value),
        Ask::Sessions(_) => show::sessions(&value),
        Ask::Denied => show::denied(&value),
        Ask::Closed(_) => show::closed(&value),
        Ask::Record(_) | Ask::Recordings => show::recordings(&value),
        _ => show::members(&value),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::options::Options;

    fn asked(words: &[&str]) -> Result<(&'static str, String), clap::Error> {
        let words = ["shaddock", "ctl"].iter().chain(words);
        let options = Options::try_parse_from(words)?;
        Ok(target(&options.ctl().expect("it is ctl").command))
    }

    /// The positional of a command must not be taken for the option of the same name.
    #[test]
    fn an_address_to_deny_is_not_that_of_the_server() {
        for words in ["deny 10.0.0.1", "allow 10.0.0.1"] {
            let words = ["shaddock", "ctl"].into_iter().chain(words.split(' '));
            let options = Options::try_parse_from(words).unwrap();
            assert_eq!(options.ctl().expect("it is ctl").server.address, None);
        }
    }

    #[test]
    fn commands_are_requests() {
        for (words, method, expected) in [
            (&["status"][..], "GET", "/status"),
            (
                &["sessions", "--uid", "a b", "--limit", "5"],
                "GET",
                "/sessions?sort=number&limit=5&offset=0&uid=a%20b",
            ),
            (&["session", "0.1.2"], "GET", "/sessions/0.1.2"),
            (
                &["sessions", "--after", "0.1.2", "--limit", "5"],
                "GET",
                "/sessions?sort=id&limit=5&after=0.1.2",
            ),
            (&["backends"], "GET", "/backends"),
            (&["events", "--count", "2"], "GET", "/events"),
            (&["kick", "0.1.2"], "POST", "/sessions/0.1.2/kick"),
            (&["kick", "--uid", "a/b", "--reason", "no"], "POST", "/uids/a%2Fb/kick?reason=no"),
            (&["log", "debug"], "POST", "/log?level=debug"),
            (&["health"], "GET", "/readyz"),
            (&["deny", "10.0.0.0/8"], "POST", "/deny?address=10.0.0.0%2F8&seconds=3600"),
            (&["deny", "::1", "--for", "1m 30s"], "POST", "/deny?address=%3A%3A1&seconds=90"),
            (&["allow", "10.0.0.1"], "POST", "/allow?address=10.0.0.1"),
            (&["denied"], "GET", "/denied"),
            (&["drain"], "POST", "/drain"),
            (
                &["drain", "--over", "5m", "--delay", "10s", "--refuse-logins"],
                "POST",
                "/drain?delay=10s&over=5m&refuse_logins=true",
            ),
            (&["closed", "--reason", "kick"], "GET", "/closed?limit=20&reason=kick"),
            (
                &["record", "0.1.2", "--bodies"],
                "POST",
                "/sessions/0.1.2/record?bodies=on&bytes=262144&seconds=300",
            ),
            (
                &["record", "--uid", "a b", "--next", "--seconds", "9"],
                "POST",
                "/uids/a%20b/record?bodies=headers&bytes=262144&seconds=9&next=true",
            ),
            (&["recordings"], "GET", "/recordings"),
            (&["recording", "7"], "GET", "/recordings/7.txt"),
            (&["recording", "7", "--pcapng", "x"], "GET", "/recordings/7.pcapng"),
            (&["recording", "7", "--stop"], "POST", "/recordings/7/stop"),
            (&["recording", "7", "--forget"], "DELETE", "/recordings/7"),
        ] {
            assert_eq!(asked(words).unwrap(), (method, expected.to_owned()), "{words:?}");
        }
        for words in [
            &["kick"][..],
            &["kick", "0.1.2", "--uid", "a"],
            &["nothing"],
            &["deny", "10.0.0.1", "--for", "10"],
            &["deny", "10.0.0.1", "--for", "1ms"],
            &["kick", "--reason", "x"],
            &["record"],
            &["record", "0.1.2", "--next"],
            &["record", "--uid", "a", "--peer", "10.0.0.7"],
            &["recording"],
        ] {
            assert!(asked(words).is_err(), "{words:?}");
        }
    }
}
