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
mod samples;
mod server;
mod status;
mod transcript;
mod walk;

pub use options::AdminOptions;

use crate::engine::Builder;

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
