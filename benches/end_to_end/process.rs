//! A server's process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::SERVER_CORE;
use crate::common::child::Child;
use crate::servers::Server;

/// A running server; it ends when this is dropped.
pub(crate) struct Process {
    kind: Kind,
    pub(crate) address: SocketAddr,
}

/// The counts of a server since it was started.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts {
    pub(crate) allocations: Option<u64>,
    /// Times that it has waited for something to do, with all it has done then.
    pub(crate) turns: Option<u64>,
}

enum Kind {
    /// This program or one that it became, which tells its counts on request.
    Own(Child),
    /// The original, of whose processes the connector is measured.
    Pomelo { script: PathBuf, connector: u32 },
}

/// The folder into which `.ci/oracle` installs the original; its address follows.
const POMELO_FOLDER: &str = "target/oracle";
const POMELO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 13010);

/// True if the original can be started.
pub(crate) fn has_pomelo() -> bool {
    Path::new(POMELO_FOLDER).join("node_modules/pomelo").exists()
}

impl Process {
    pub(crate) fn start(server: Server) -> std::io::Result<Self> {
        if server == Server::Pomelo {
            return Self::start_pomelo();
        }
        let child = Child::start(&["--serve", server.name()])?;
        Ok(Self { address: child.addresses[0], kind: Kind::Own(child) })
    }

    fn start_pomelo() -> std::io::Result<Self> {
        let script = Path::new(POMELO_FOLDER).join("oracle.sh").canonicalize()?;
        let output = Command::new(&script)
            .args(["start", "plain"])
            .env("ORACLE_CPU", SERVER_CORE.to_string())
            .stderr(Stdio::inherit())
            .output()?;
        // It prints "pid server-id" for each of its processes.
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let connector =
            text.lines().find_map(|line| line.strip_suffix(" connector-1")?.parse().ok());
        let connector = connector.ok_or_else(|| std::io::Error::other("Pomelo does not start"))?;
        Ok(Self { kind: Kind::Pomelo { script, connector }, address: POMELO_ADDRESS })
    }

    /// The server's counts so far, those that it has.
    pub(crate) fn counts(&mut self) -> std::io::Result<Counts> {
        let Kind::Own(child) = &mut self.kind else { return Ok(Counts::default()) };
        let line = child.ask("")?;
        let mut counts = line.split(' ').map(|word| word.parse().ok());
        let mut next = || counts.next().flatten();
        Ok(Counts { allocations: next(), turns: next() })
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Own(child) => child.pid(),
            Kind::Pomelo { connector, .. } => *connector,
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Kind::Pomelo { script, .. } = &self.kind {
            let stopped = Command::new(script).args(["stop", "plain"]).status();
            if !stopped.is_ok_and(|status| status.success()) {
                eprintln!("Pomelo may still be running");
            }
        }
    }
}
