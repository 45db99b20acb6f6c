//! The codes of answers that the engine gives by itself.

use super::failure::Failure;

/// The codes with which clients of Pomelo's dialect are answered where the engine answers by
/// itself: the number in `{"code":500}`. Given to
/// [`Builder::answer_codes`](crate::Builder::answer_codes).
///
/// A handler's own error keeps its code, and [`Reply::error`](crate::Reply::error) its 500. Clients
/// of Pitaya's dialect have codes of Pitaya's, which stay as they are.
///
/// ```
/// use shaddock::Codes;
///
/// let codes = Codes::pomelo().rate_limited(429).unknown_route(404);
/// assert_eq!((codes.rate_limited, codes.unknown_route, codes.panicked), (429, 404, 500));
/// assert_eq!(codes.timed_out(504).panicked(500).busy(503), Codes::http());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Codes {
    /// A session sends more than
    /// [`messages_per_second`](crate::Limits::messages_per_second).
    pub rate_limited: u16,
    /// Nobody handles the route: it is none, its server type is unknown, or has no such handler.
    pub unknown_route: u16,
    /// No answer came within [`forward_timeout`](crate::Limits::forward_timeout), or a cluster's
    /// own time.
    pub timed_out: u16,
    /// A handler or filter has panicked.
    pub panicked: u16,
    /// A bound on what waits is reached, such as a full lane, no server can take the request, or
    /// [`TooBusy`](crate::TooBusy) refuses it.
    pub busy: u16,
}

impl Default for Codes {
    fn default() -> Self {
        Self::pomelo()
    }
}

impl Codes {
    /// Pomelo's: 500 for everything.
    #[must_use]
    pub const fn pomelo() -> Self {
        Self { rate_limited: 500, unknown_route: 500, timed_out: 500, panicked: 500, busy: 500 }
    }

    /// Those that HTTP has for the same: 429, 404, 504, 500 and 503.
    #[must_use]
    pub const fn http() -> Self {
        Self { rate_limited: 429, unknown_route: 404, timed_out: 504, panicked: 500, busy: 503 }
    }

    /// Sets the code of a session that sends too fast.
    #[must_use]
    pub const fn rate_limited(self, code: u16) -> Self {
        Self { rate_limited: code, ..self }
    }

    /// Sets the code of a route that nobody handles.
    #[must_use]
    pub const fn unknown_route(self, code: u16) -> Self {
        Self { unknown_route: code, ..self }
    }

    /// Sets the code of a request that was not answered in time.
    #[must_use]
    pub const fn timed_out(self, code: u16) -> Self {
        Self { timed_out: code, ..self }
    }

    /// Sets the code of a panic.
    #[must_use]
    pub const fn panicked(self, code: u16) -> Self {
        Self { panicked: code, ..self }
    }

    /// Sets the code of a request that there is no room for.
    #[must_use]
    pub const fn busy(self, code: u16) -> Self {
        Self { busy: code, ..self }
    }
}

/// The bodies of such answers.
#[derive(Debug)]
pub(crate) struct FailureBodies {
    rate_limited: Box<[u8]>,
    unknown_route: Box<[u8]>,
    timed_out: Box<[u8]>,
    panicked: Box<[u8]>,
    busy: Box<[u8]>,
}

impl Default for FailureBodies {
    fn default() -> Self {
        Self::new(&Codes::default())
    }
}

impl FailureBodies {
    pub(crate) fn new(codes: &Codes) -> Self {
        let body = |code: u16| format!("{{\"code\":{code}}}").into_bytes().into_boxed_slice();
        Self {
            rate_limited: body(codes.rate_limited),
            unknown_route: body(codes.unknown_route),
            timed_out: body(codes.timed_out),
            panicked: body(codes.panicked),
            busy: body(codes.busy),
        }
    }

    pub(crate) fn of(&self, failure: Failure) -> &[u8] {
        match failure {
            Failure::BadRoute | Failure::NoHandler | Failure::NoServerType => &self.unknown_route,
            Failure::NoServer | Failure::Busy => &self.busy,
            Failure::TimedOut => &self.timed_out,
            Failure::RateLimited => &self.rate_limited,
            Failure::Panicked => &self.panicked,
        }
    }
}
