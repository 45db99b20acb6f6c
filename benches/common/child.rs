//! A server in a child process, which runs this program again.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child as Process, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use shaddock::load::ProcessCpu;

/// A running server; it ends when this is dropped.
pub(crate) struct Child {
    process: Process,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// The addresses it listens on, at least one.
    pub(crate) addresses: Vec<SocketAddr>,
}

impl Child {
    /// Starts this program with other arguments, with which it serves by [`obey`].
    pub(crate) fn start(arguments: &[&str]) -> std::io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = process.stdin.take().expect("it is piped");
        let answers = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut child = Self { process, orders, answers, addresses: Vec::new() };
        let line = child.answer()?;
        let addresses: Result<_, _> = line.split(',').map(str::parse).collect();
        child.addresses = addresses.map_err(std::io::Error::other)?;
        child.addresses.iter().try_for_each(|address| wait_for(*address))?;
        Ok(child)
    }

    /// Sends the server one line, a query or a command, and returns its answer.
    pub(crate) fn ask(&mut self, order: &str) -> std::io::Result<String> {
        writeln!(self.orders, "{order}")?;
        self.answer()
    }

    fn answer(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.is_empty() {
            return Err(std::io::Error::other("a server has ended"));
        }
        Ok(line.trim().to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn cpu(&self) -> std::io::Result<ProcessCpu> {
        ProcessCpu::of(self.pid())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.process.kill().and_then(|()| self.process.wait()).ok();
    }
}

/// The child's side: prints its addresses, and answers each line of standard input with a line,
/// until the input ends.
pub(crate) fn obey(addresses: &[SocketAddr], mut answer: impl FnMut(&str) -> String) {
    let mut out = std::io::stdout();
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    let mut say = |text: String| writeln!(out, "{text}").and_then(|()| out.flush());
    say(addresses.join(",")).expect("the parent reads");
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { return };
        say(answer(&line)).expect("the parent reads");
    }
}

/// Waits until an address accepts connections.
pub(crate) fn wait_for(address: SocketAddr) -> std::io::Result<()> {
    for _ in 0..200 {
        if std::net::TcpStream::connect(address).is_ok() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Err(std::io::Error::other("a server does not come up"))
}
