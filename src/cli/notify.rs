//! Word to a service manager by systemd's protocol (sd_notify(3)), and food for its watchdog.
//!
//! The protocol is a datagram of lines to the socket that `NOTIFY_SOCKET` names. A library for
//! that would bring more than these lines are, so there is none.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use shaddock::{Handle, HandleError};

/// The service manager that has started this process, if one has asked to be told.
#[derive(Debug, Clone)]
pub(super) struct Notify {
    socket: Option<Arc<(UnixDatagram, SocketAddr)>>,
}

impl Notify {
    /// The one that `NOTIFY_SOCKET` names.
    pub(super) fn from_environment() -> Self {
        let name = env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| match open(&name) {
            Ok(socket) => Some(Arc::new(socket)),
            Err(error) => {
                tracing::warn!(%error, "the service manager can't be reached: it is told nothing");
                None
            }
        });
        Self { socket }
    }

    /// Tells that clients are served, and the state in words.
    pub(super) fn ready(&self, state: &str) {
        self.tell(&format!("READY=1\nSTATUS={state}\n"));
    }

    /// Tells that the configuration is read again, until [`Self::ready`] follows.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=Reading its files\n"));
    }

    /// Tells that clients are being closed.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=Closing its clients\n");
    }

    fn tell(&self, text: &str) {
        let Some(socket) = &self.socket else { return };
        // A manager that does not read must not hold up who serves clients.
        if let Err(error) = socket.0.send_to_addr(text.as_bytes(), &socket.1) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }
}

fn open(name: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// Feeds the manager's watchdog, if this process has one, on a thread of its own, as long as every
/// shard turns.
pub(super) fn feed_watchdog(notify: &Notify, handle: &Handle) -> io::Result<()> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    let is_for_this = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
    let micros = number("WATCHDOG_USEC").filter(|micros| *micros > 0 && is_for_this);
    let (Some(micros), Some(_)) = (micros, &notify.socket) else { return Ok(()) };
    let (notify, handle) = (notify.clone(), handle.clone());
    // Twice in each period, as sd_watchdog_enabled(3) advises; a shard may take one of the halves.
    let every = Duration::from_micros(micros) / 2;
    let feed = move || {
        while let Ok(should_feed) = is_turning(&handle, every) {
            if should_feed {
                notify.tell("WATCHDOG=1\n");
            } else {
                tracing::error!("a shard does not turn: a handler may not have returned");
            }
            thread::sleep(every);
        }
    };
    thread::Builder::new().name("watchdog".into()).spawn(feed)?;
    Ok(())
}

/// True if every shard ends a turn within that time; an error once the engine has stopped.
fn is_turning(handle: &Handle, within: Duration) -> Result<bool, HandleError> {
    match handle.wait_for_turns(within) {
        Ok(()) => Ok(true),
        Err(HandleError::Stopped) => Err(HandleError::Stopped),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc;

    use shaddock::{Drain, Engine, Reply, Shards};
    use support::{Client, request};

    use super::*;

    /// A request to a handler that does not return until it is let go.
    #[test]
    fn a_shard_whose_handler_does_not_return_is_not_turning() {
        let (let_go, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        let engine = Engine::builder()
            .listen("127.0.0.1:0")
            .shards(Shards::Count(1))
            .handler("connector.a.hold", move |_, _| {
                held.lock().unwrap().recv().ok();
                Reply::json(&1)
            })
            .start()
            .unwrap();
        let handle = engine.handle();
        let long = Duration::from_secs(10);
        assert_eq!(is_turning(&handle, long), Ok(true));
        let mut client = Client::ready(engine.local_addr());
        client.send(&request(1, "connector.a.hold", "{}"));
        let short = Duration::from_millis(20);
        while is_turning(&handle, short) == Ok(true) {}
        assert_eq!(is_turning(&handle, short), Ok(false));
        drop(let_go);
        assert_eq!(client.answer(1), "1");
        assert_eq!(is_turning(&handle, long), Ok(true));
        engine.shutdown(Drain::now());
        assert_eq!(is_turning(&handle, long), Err(HandleError::Stopped));
    }
}
