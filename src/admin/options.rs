//! The options of the admin server.

use std::path::PathBuf;
use std::sync::Arc;

use crate::engine::Drain;

/// Called when the engine is to stop, or to read its configuration again.
pub(super) type Hook = Arc<dyn Fn() + Send + Sync>;
/// Called with the level that the log is to have; an error says what may be written instead.
pub(super) type LevelHook = Arc<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

/// Called at each scrape for a count that the process keeps.
pub(super) type CountHook = Arc<dyn Fn() -> u64 + Send + Sync>;

/// Describes the admin server of [`Builder::admin`](crate::Builder::admin): where it listens, who
/// may change anything, and what it calls for what only the process itself can do.
///
/// ```
/// use std::time::Duration;
/// use shaddock::{AdminOptions, Drain, Engine};
///
/// let drain = Drain::within(Duration::from_secs(5)).delay(Duration::from_secs(10));
/// let builder = Engine::builder().admin(
///     AdminOptions::new()
///         .socket("/run/game/admin.sock")
///         .listen("127.0.0.1:3011")
///         .token("correct horse battery staple")
///         .on_drain(drain, || println!("time to shut the engine down")),
/// );
/// ```
#[derive(Clone, Default)]
pub struct AdminOptions {
    pub(super) socket: Option<PathBuf>,
    pub(super) listen: Option<String>,
    pub(super) token: Option<String>,
    pub(super) hosts: Vec<String>,
    pub(super) redact: Vec<String>,
    pub(super) redact_routes: Vec<String>,
    pub(super) on_drain: Option<(Drain, Hook)>,
    pub(super) on_reload: Option<Hook>,
    pub(super) on_log_level: Option<LevelHook>,
    pub(super) lost_log_lines: Option<CountHook>,
    pub(super) page: PageOptions,
}

/// The part of the page at `/`.
#[derive(Clone, Default)]
pub(super) struct PageOptions {
    pub(super) may_change: bool,
    /// True if it has the demo's chat and echo.
    pub(super) has_play: bool,
    /// The token that it changes things with; made at the start.
    pub(super) token: Option<String>,
}

impl std::fmt::Debug for AdminOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdminOptions")
            .field("socket", &self.socket)
            .field("listen", &self.listen)
            .field("hosts", &self.hosts)
            .finish_non_exhaustive()
    }
}

impl AdminOptions {
    /// Options that listen nowhere yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Listens on a Unix socket, which only this user can reach (mode 0600). Whoever reaches it may
    /// change things without a token. The socket of a process that is gone is replaced.
    #[must_use]
    pub fn socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.socket = Some(path.into());
        self
    }

    /// Listens on an address by TCP, such as `127.0.0.1:3011`; port 0 takes a free one
    /// ([`Engine::admin_addr`](crate::Engine::admin_addr)). Whoever reaches it sees everything, and
    /// changes things with the token.
    #[must_use]
    pub fn listen(mut self, address: impl Into<String>) -> Self {
        self.listen = Some(address.into());
        self
    }

    /// Lets those change things by TCP who send `Authorization: Bearer` with this token. Without
    /// one nobody can.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Accepts these names in the header `Host` by TCP, with the port where it is not 80, besides
    /// `localhost`, `127.0.0.1`, `[::1]` and the address itself. Other names are refused, so that
    /// no page in an operator's browser gets in by a name of its own (DNS rebinding).
    ///
    /// ```
    /// use shaddock::AdminOptions;
    ///
    /// let admin = AdminOptions::new().listen("0.0.0.0:3011").hosts(["admin.game.example:3011"]);
    /// ```
    #[must_use]
    pub fn hosts<T: Into<String>>(mut self, hosts: impl IntoIterator<Item = T>) -> Self {
        self.hosts.extend(hosts.into_iter().map(Into::into));
        self
    }

    /// Covers the values of these members of JSON in recordings of sessions, besides those whose
    /// names have `password`, `token`, `secret` and the like in them. Case, `_` and `-` do not
    /// count.
    ///
    /// ```
    /// let admin = shaddock::AdminOptions::new().redact(["email", "cardNumber"]);
    /// ```
    #[must_use]
    pub fn redact<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> Self {
        self.redact.extend(names.into_iter().map(Into::into));
        self
    }

    /// Keeps no body of routes that have one of these texts in them in recordings of sessions, nor
    /// those of their answers, besides routes with `login`, `auth`, `password` and the like, and
    /// those whose methods begin with `entry` or `enter`. Case, `.`, `_` and `-` do not count.
    ///
    /// ```
    /// let admin = shaddock::AdminOptions::new().redact_routes(["shop.pay", "mail"]);
    /// ```
    #[must_use]
    pub fn redact_routes<T: Into<String>>(mut self, routes: impl IntoIterator<Item = T>) -> Self {
        self.redact_routes.extend(routes.into_iter().map(Into::into));
        self
    }

    /// Lets `/drain` begin this drain, or another one by its parameters, as
    /// [`Handle::drain`](crate::Handle::drain) does. The function is called once, when it closes
    /// sessions: the place to have the engine shut down by whoever holds it. It runs on the admin
    /// server's thread, so it must not wait. Without it `/drain` tells balancers, and no more.
    #[must_use]
    pub fn on_drain(mut self, drain: Drain, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_drain = Some((drain, Arc::new(call)));
        self
    }

    /// Called by `/reload`, on the admin server's thread; without it that is answered 501.
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use shaddock::{AdminOptions, Engine};
    ///
    /// let (ask, asked) = mpsc::channel();
    /// let admin = AdminOptions::new().on_reload(move || _ = ask.send(()));
    /// let builder = Engine::builder().admin(admin);
    /// // The thread that has the engine waits there, and reads the configuration again.
    /// let _: mpsc::Receiver<()> = asked;
    /// ```
    #[must_use]
    pub fn on_reload(mut self, call: impl Fn() + Send + Sync + 'static) -> Self {
        self.on_reload = Some(Arc::new(call));
        self
    }

    /// Called by `/log` with a level's name, on the admin server's thread; without it that is
    /// answered 501. An error says what may be written instead.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use shaddock::AdminOptions;
    ///
    /// static IS_VERBOSE: AtomicBool = AtomicBool::new(false);
    ///
    /// let admin = AdminOptions::new().on_log_level(|level| match level {
    ///     "debug" | "info" => Ok(IS_VERBOSE.store(level == "debug", Ordering::Relaxed)),
    ///     _ => Err("debug or info".to_owned()),
    /// });
    /// ```
    #[must_use]
    pub fn on_log_level(
        mut self,
        call: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static,
    ) -> Self {
        self.on_log_level = Some(Arc::new(call));
        self
    }

    /// Lets the page at `/` change things without being given a token, for whoever opens it on
    /// this machine by a loopback address: each start makes a random token, which only that page
    /// has. So every user of the machine may change things, and nobody else may; see
    /// `docs/operating.md`, "The page". Without it the page asks for [`Self::token`].
    ///
    /// ```
    /// use shaddock::AdminOptions;
    ///
    /// let admin = AdminOptions::new().listen("127.0.0.1:3011").page_may_change();
    /// ```
    #[must_use]
    pub fn page_may_change(mut self) -> Self {
        self.page.may_change = true;
        self
    }

    /// Adds a chat and an echo to the page, for an engine with the handlers of `shaddock demo`.
    #[doc(hidden)]
    #[must_use]
    pub fn page_with_demo(mut self) -> Self {
        self.page.has_play = true;
        self
    }
}

impl AdminOptions {
    /// Called at each scrape for the number of lines that the process's log has lost since the
    /// start, on the admin server's thread: `shaddock_log_lines_lost_total`. Without it there is no
    /// such metric.
    ///
    /// ```
    /// use std::sync::atomic::{AtomicU64, Ordering};
    /// use shaddock::AdminOptions;
    ///
    /// static LOST: AtomicU64 = AtomicU64::new(0);
    ///
    /// let admin = AdminOptions::new().lost_log_lines(|| LOST.load(Ordering::Relaxed));
    /// ```
    #[must_use]
    pub fn lost_log_lines(mut self, count: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        self.lost_log_lines = Some(Arc::new(count));
        self
    }
}
