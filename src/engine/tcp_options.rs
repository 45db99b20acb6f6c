//! Options of the kernel's TCP for the connections of a listener, on networks that lose packets.
//!
//! Accepted sockets inherit all of it from the listening socket, so that no connection costs a
//! system call more.

#![allow(unsafe_code)] // Options that no crate knows; the block says what the kernel reads.

use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use rustix::io::Errno;
use socket2::Socket;

/// Options of TCP for the connections of a listener. Without any the kernel's own settings hold.
///
/// ```
/// use std::time::Duration;
/// use shaddock::{Listener, TcpOptions};
///
/// let options = TcpOptions::new()
///     .thin(true)
///     .user_timeout(Duration::from_secs(30)) // Then the network is taken for gone.
///     .notsent_lowat(16 * 1024)
///     .rto_min(Duration::from_millis(40))
///     .rto_max(Duration::from_secs(2))
///     .congestion("bbr");
/// let listener = Listener::new("0.0.0.0:3010").tcp(options);
/// ```
///
/// An option that the kernel does not have is left out, with a warning; one whose value it refuses
/// is an error of [`Builder::start`](crate::Builder::start).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it is given to `Listener::tcp`"]
pub struct TcpOptions {
    thin: bool,
    user_timeout: Option<Duration>,
    notsent_lowat: Option<u32>,
    rto_min: Option<Duration>,
    rto_max: Option<Duration>,
    congestion: Option<String>,
}

/// An option that the kernel refuses: its key, the value that would do, and the reason.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) key: &'static str,
    pub(super) expected: &'static str,
    pub(super) error: io::Error,
}

/// `TCP_RTO_MAX_MS` and `TCP_RTO_MIN_US` of Linux 6.15.
const TCP_RTO_MAX_MS: i32 = 44;
const TCP_RTO_MIN_US: i32 = 45;

impl TcpOptions {
    /// The kernel's own settings.
    pub fn new() -> Self {
        Self::default()
    }

    /// Repeats a lost packet of a thin stream, one with few packets under way as a game's is, at
    /// intervals that do not double (`TCP_THIN_LINEAR_TIMEOUTS`), for the first six times.
    pub fn thin(mut self, thin: bool) -> Self {
        self.thin = thin;
        self
    }

    /// Ends a connection whose client has acknowledged nothing of what was sent for that long, in
    /// milliseconds (`TCP_USER_TIMEOUT`); the kernel by itself takes some 15 minutes.
    pub fn user_timeout(mut self, timeout: Duration) -> Self {
        self.user_timeout = Some(timeout);
        self
    }

    /// The bytes that the kernel takes of what it can't send yet (`TCP_NOTSENT_LOWAT`). What is
    /// above waits in the session's outbox, where a push may replace an older one.
    pub fn notsent_lowat(mut self, bytes: u32) -> Self {
        self.notsent_lowat = Some(bytes);
        self
    }

    /// The shortest time after which a packet is repeated, in microseconds, at most 200 ms (Linux
    /// 6.15).
    pub fn rto_min(mut self, time: Duration) -> Self {
        self.rto_min = Some(time);
        self
    }

    /// The longest time between two repetitions of a packet, in milliseconds, 1 s to 120 s (Linux
    /// 6.15).
    pub fn rto_max(mut self, time: Duration) -> Self {
        self.rto_max = Some(time);
        self
    }

    /// The congestion control, such as `bbr`; see `net.ipv4.tcp_available_congestion_control`.
    pub fn congestion(mut self, name: impl Into<String>) -> Self {
        self.congestion = Some(name.into());
        self
    }

    /// Sets all of them on a listening socket.
    pub(super) fn apply(&self, socket: &Socket) -> Result<(), Refused> {
        let Self { thin, user_timeout, notsent_lowat, rto_min, rto_max, congestion } = self;
        if *thin {
            told("thin", "left out", socket.set_tcp_thin_linear_timeouts(true))?;
        }
        if user_timeout.is_some() {
            told("user_timeout", "1 ms or more", socket.set_tcp_user_timeout(*user_timeout))?;
        }
        if let Some(bytes) = notsent_lowat {
            told("notsent_lowat", "a number of bytes", socket.set_tcp_notsent_lowat(*bytes))?;
        }
        if let Some(time) = rto_min {
            let micros = i32::try_from(time.as_micros()).unwrap_or(i32::MAX);
            told("rto_min", "1us to 200ms", set(socket, TCP_RTO_MIN_US, micros))?;
        }
        if let Some(time) = rto_max {
            let millis = i32::try_from(time.as_millis()).unwrap_or(i32::MAX);
            told("rto_max", "1s to 120s", set(socket, TCP_RTO_MAX_MS, millis))?;
        }
        if let Some(name) = congestion {
            let expected = "one of those in /proc/sys/net/ipv4/tcp_available_congestion_control";
            told("congestion", expected, socket.set_tcp_congestion(name.as_bytes()))?;
        }
        Ok(())
    }
}

fn told(key: &'static str, expected: &'static str, set: io::Result<()>) -> Result<(), Refused> {
    match set {
        Err(error) if Errno::from_io_error(&error) == Some(Errno::NOPROTOOPT) => {
            crate::log::seldom!(warn, key, "this kernel does not have an option of [listener.tcp]");
            Ok(())
        }
        set => set.map_err(|error| Refused { key, expected, error }),
    }
}

fn set(socket: &Socket, option: i32, value: i32) -> io::Result<()> {
    let len = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the kernel reads `len` bytes of the value, which lives until it has.
    let set = unsafe {
        let value = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, len)
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpStream;

    use socket2::{Domain, Type};

    use super::*;

    /// The value of an option, as the kernel tells it.
    fn value(socket: &Socket, option: i32) -> io::Result<i32> {
        let (mut value, mut len) = (0_i32, size_of::<i32>() as libc::socklen_t);
        // SAFETY: the kernel writes at most `len` bytes of the value, and its own `len`.
        let got = unsafe {
            let value = (&raw mut value).cast();
            libc::getsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, option, value, &raw mut len)
        };
        if got == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
    }

    /// A listening socket with these options, and a connection that it has accepted.
    fn accepted(options: &TcpOptions) -> (Socket, TcpStream, Socket) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        options.apply(&socket).unwrap();
        socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let (accepted, _) = socket.accept().unwrap();
        (socket, client, accepted)
    }

    #[test]
    fn accepted_sockets_inherit_the_options() {
        let options = TcpOptions::new()
            .thin(true)
            .user_timeout(Duration::from_millis(12_345))
            .notsent_lowat(54_321)
            .rto_min(Duration::from_millis(50))
            .rto_max(Duration::from_secs(2))
            .congestion("reno");
        let (_listener, mut client, accepted) = accepted(&options);
        for (key, option, expected) in [
            ("thin", libc::TCP_THIN_LINEAR_TIMEOUTS, 1..=1),
            ("user_timeout", libc::TCP_USER_TIMEOUT, 12_345..=12_345),
            ("notsent_lowat", libc::TCP_NOTSENT_LOWAT, 54_321..=54_321),
            // In ticks of the kernel's clock, of 10 ms at most.
            ("rto_min", TCP_RTO_MIN_US, 50_000..=60_000),
            ("rto_max", TCP_RTO_MAX_MS, 2_000..=2_000),
        ] {
            match value(&accepted, option) {
                Ok(value) => assert!(expected.contains(&value), "{key}: {value}"),
                Err(error) => {
                    let is_unknown = Errno::from_io_error(&error) == Some(Errno::NOPROTOOPT);
                    assert!(is_unknown && key.starts_with("rto"), "{key}: {error}");
                    println!("skipped: this kernel does not have {key}: {error}");
                }
            }
        }
        assert!(accepted.tcp_congestion().unwrap().starts_with(b"reno"));
        drop(accepted);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }

    /// Without any of them, the kernel's own settings are left as they are.
    #[test]
    fn no_option_is_set_unasked() {
        let (_listener, _client, plain) = accepted(&TcpOptions::new());
        let untouched = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for option in [
            libc::TCP_THIN_LINEAR_TIMEOUTS,
            libc::TCP_USER_TIMEOUT,
            libc::TCP_NOTSENT_LOWAT,
            TCP_RTO_MIN_US,
            TCP_RTO_MAX_MS,
        ] {
            let of = |socket| value(socket, option).map_err(|error| error.raw_os_error());
            assert_eq!(of(&plain), of(&untouched), "option {option}");
        }
        assert_eq!(plain.tcp_congestion().unwrap(), untouched.tcp_congestion().unwrap());
    }

    #[test]
    fn a_value_that_the_kernel_refuses_is_told_by_its_key() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for (options, key) in [
            (TcpOptions::new().congestion("nothing"), "congestion"),
            (TcpOptions::new().rto_min(Duration::from_secs(60)), "rto_min"),
            (TcpOptions::new().rto_max(Duration::from_millis(1)), "rto_max"),
        ] {
            match options.apply(&socket) {
                Err(refused) => assert_eq!(refused.key, key),
                Ok(()) => println!("skipped: this kernel does not have {key}"),
            }
        }
    }
}
