//! A server's process.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use shaddock::load::ProcessCpu;

use crate::servers::{SERVER_CORE, Server};

/// A running server; it ends when this is dropped.
pub(crate) struct Process {
    kind: Kind,
    pub(crate) address: SocketAddr,
}

enum Kind {
    /// This program, which counts its allocations when it is asked to.
    Own { child: Child, orders: Option<ChildStdin>, answers: BufReader<ChildStdout> },
    /// The original, of whose processes the connector is measured.
    Pomelo { script: PathBuf, connector: u32 },
}

/// Where `.ci/oracle` installs the original, and where that listens.
const POMELO_FOLDER: &str = "target/oracle";
const POMELO_ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 13010);

/// Whether the original can be started.
pub(crate) fn has_pomelo() -> bool {
    Path::new(POMELO_FOLDER).join("node_modules/pomelo").exists()
}

impl Process {
    pub(crate) fn start(server: Server) -> std::io::Result<Self> {
        if server == Server::Pomelo {
            return Self::start_pomelo();
        }
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--serve", server.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take();
        let mut answers = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut line = String::new();
        answers.read_line(&mut line)?;
        let address = line.trim().parse().map_err(std::io::Error::other)?;
        wait_for(address)?;
        Ok(Self { kind: Kind::Own { child, orders, answers }, address })
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

    /// How much the server has allocated, if it can tell.
    pub(crate) fn allocations(&mut self) -> std::io::Result<Option<u64>> {
        let Kind::Own { orders, answers, .. } = &mut self.kind else { return Ok(None) };
        if let Some(orders) = orders {
            orders.write_all(b"\n")?;
        }
        let mut line = String::new();
        answers.read_line(&mut line)?;
        line.trim().parse().map(Some).map_err(std::io::Error::other)
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.kind {
            Kind::Own { child, .. } => child.id(),
            Kind::Pomelo { connector, .. } => *connector,
        }
    }

    pub(crate) fn cpu(&self) -> std::io::Result<ProcessCpu> {
        ProcessCpu::of(self.pid())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        match &mut self.kind {
            Kind::Own { child, orders, .. } => {
                *orders = None;
                child.kill().and_then(|()| child.wait()).ok();
            }
            Kind::Pomelo { script, .. } => {
                let stopped = Command::new(script).args(["stop", "plain"]).status();
                if !stopped.is_ok_and(|status| status.success()) {
                    eprintln!("Pomelo may still be running");
                }
            }
        }
    }
}

/// Waits until somebody listens.
fn wait_for(address: SocketAddr) -> std::io::Result<()> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(std::io::Error::other("a server does not come up"))
}
