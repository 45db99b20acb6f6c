//! The server types that are forwarded, and the ways to their servers.

use std::sync::Arc;

use super::Builder;
#[cfg(any(feature = "pitaya", feature = "pomelo"))]
use crate::engine::network::NetworkForwarder;
use crate::forward::{LaneFull, ServerId, Workers};
use crate::session::SessionView;

impl Builder {
    /// Forwards a server type to workers of this process.
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::{Engine, Reply, Workers, testing};
    ///
    /// let rooms = Workers::new(2, |handlers| {
    ///     handlers.handler("room.a.hello", |_, _| Reply::json("hello"));
    /// });
    /// let t = testing::Engine::new(Engine::builder().forward("room", rooms));
    /// assert_eq!(t.connect().request("room.a.hello", json!({})), "hello");
    /// ```
    pub fn forward(mut self, server_type: impl Into<String>, workers: Workers) -> Self {
        self.forwards.push((server_type.into(), workers));
        self
    }

    /// Adds a forwarder to servers outside the process.
    #[cfg(any(feature = "pitaya", feature = "pomelo"))]
    pub(in crate::engine) fn network(mut self, network: impl NetworkForwarder + 'static) -> Self {
        self.networks.push(Box::new(network));
        self
    }

    /// Picks the server of a forwarded type, instead of Pomelo's default rule. `route` gets the
    /// servers in order and gives the index of one; `None` answers 500.
    ///
    /// ```
    /// use shaddock::{Engine, Workers};
    ///
    /// let builder = Engine::builder()
    ///     .forward("room", Workers::new(4, |_handlers| {}))
    ///     .route("room", |session, servers| {
    ///         let name = session.setting("roomServer")?.as_str()?; // Such as `room-3`.
    ///         servers.iter().position(|server| server.as_str() == name)
    ///     });
    /// ```
    pub fn route(
        mut self,
        server_type: impl Into<String>,
        route: impl Fn(&SessionView<'_>, &[ServerId]) -> Option<usize> + Send + Sync + 'static,
    ) -> Self {
        self.routers.push((server_type.into(), Arc::new(route)));
        self
    }

    /// Sets the policy for messages of a forwarded type that find the lane to their server full.
    /// Without it they are refused; see [`LaneFull`].
    ///
    /// ```
    /// use shaddock::{Engine, LaneFull, Workers};
    ///
    /// let builder = Engine::builder()
    ///     .forward("room", Workers::new(4, |_handlers| {}))
    ///     .lane_full("room", LaneFull::Pause);
    /// ```
    pub fn lane_full(mut self, server_type: impl Into<String>, policy: LaneFull) -> Self {
        self.lanes_full.push((server_type.into(), policy));
        self
    }
}
