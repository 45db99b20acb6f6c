//! The admin server: what is to be seen of an engine while it runs, and to be asked of it, over
//! HTTP on a Unix socket or an address of its own.
//!
//! It is one thread, `shaddock-admin`, which waits for nobody: it polls its sockets, and whatever
//! it asks of a shard comes back as mail. It reads the figures where the engine's threads leave
//! them. Its own bounds are in `src/admin/bounds.rs`; `docs/operating.md` lists them, and all that
//! may be asked.

mod api;
mod arm;
mod bounds;
mod closed;
mod connection;
mod context;
mod events;
mod guard;
mod hosts;
mod http;
mod listen;
mod metrics;
mod options;
mod page;
mod pages;
mod pcapng;
mod process;
mod recordings;
mod refused;
mod samples;
mod server;
mod status;
mod transcript;
mod walk;

pub use options::AdminOptions;

use std::net::SocketAddr;

use listen::Listening;
use server::{Admin, Server};

use crate::engine::{Attached, Attachment, Builder, Handle};
use crate::error::{EngineOption, StartError};

impl Builder {
    /// Serves metrics, sessions and what operators ask for beside the engine, on a Unix socket or
    /// an address of its own (feature `admin`). It starts with the engine and stops behind it; see
    /// `docs/operating.md`.
    ///
    /// ```no_run
    /// use shaddock::{AdminOptions, Engine, Reply};
    ///
    /// # fn main() -> Result<(), shaddock::StartError> {
    /// let engine = Engine::builder()
    ///     .listen("127.0.0.1:3010")
    ///     .handler("connector.entryHandler.hello", |_, _| Reply::json("hello"))
    ///     .admin(AdminOptions::new().listen("127.0.0.1:3011"))
    ///     .start()?;
    /// println!("metrics at http://{}/metrics", engine.admin_addr().unwrap());
    /// # Ok(())
    /// # }
    /// ```
    pub fn admin(self, options: AdminOptions) -> Self {
        self.attach(options)
    }
}

/// The least length of a token: as many characters can't be tried out.
const TOKEN_LEN_MIN: usize = 16;

impl Attachment for AdminOptions {
    fn check(&self) -> Result<(), StartError> {
        let bad = |option, expected: &str| {
            let option = EngineOption::Admin(option);
            Err(StartError::Option { option, expected: expected.into() })
        };
        if self.socket.is_none() && self.listen.is_none() {
            return bad("admin.listen", "an address, or `admin.socket` a path");
        }
        if self.token.as_ref().is_some_and(|token| token.len() < TOKEN_LEN_MIN) {
            return bad("admin.token", "of 16 characters at least");
        }
        if self.token.as_ref().is_some_and(|token| !token.bytes().all(|it| it.is_ascii_graphic())) {
            return bad("admin.token", "of printable ASCII characters without spaces");
        }
        if let Some(address) = &self.listen {
            listen::resolve(address)?;
        }
        Ok(())
    }

    fn start(
        mut self: Box<Self>,
        handle: Handle,
        game: SocketAddr,
    ) -> Result<Box<dyn Attached>, StartError> {
        let listening = Listening::open(&self)?;
        if self.page.may_change {
            let failed = |error| StartError::System { what: "a random token", error };
            self.page.token = Some(page::random_token().map_err(failed)?);
        }
        Ok(Box::new(Server::start(*self, listening, handle, game)?))
    }
}

impl Attached for Admin {
    fn address(&self) -> Option<SocketAddr> {
        Self::address(self)
    }
}
