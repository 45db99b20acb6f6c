//! The engine's handle, for the code on its own threads.

use std::sync::Arc;

use super::handle::Handle;
use crate::dispatch::Context;
use crate::dispatch::context::Host;

impl Handle {
    /// The handle as the engine's threads keep it. They are told where it is by the configuration,
    /// which it holds itself, so that somebody else has to keep it until they have started.
    pub(super) fn host(&self) -> Host {
        let host: Host = Arc::new(self.clone());
        self.config.host.set(Arc::downgrade(&host)).ok();
        host
    }
}

impl Context {
    /// The handle of the engine that this is a thread of, also while its handlers are registered:
    /// for what only a handle can do, and for other threads, such as those of a runtime.
    ///
    /// What it would block for it refuses here ([`HandleError::OnShard`](crate::HandleError)), or
    /// has an async form of.
    ///
    /// ```
    /// use shaddock::{Engine, Fault, Session, testing};
    ///
    /// async fn online((): (), session: Session) -> Result<usize, Fault> {
    ///     let handle = session.context().handle();
    ///     let statistics = handle.statistics_async().await.map_err(Fault::internal)?;
    ///     Ok(statistics.connections)
    /// }
    ///
    /// let builder = Engine::builder()
    ///     .register(|handlers| _ = handlers.call_async("connector.hall.online", online));
    /// let t = testing::Engine::new(builder);
    /// assert_eq!(t.connect().request("connector.hall.online", ()), 1);
    /// ```
    #[must_use]
    pub fn handle(&self) -> Handle {
        let handle = self.thread.host.get().and_then(|host| host.downcast_ref::<Handle>());
        handle.expect("an engine gives its threads a handle before they start").clone()
    }
}
