//! The demo as one frontend of a Pomelo cluster: its chat then runs on the cluster's Node servers.

use std::time::Duration;

use clap::Args;
use shaddock::{ClosedArg, PomeloCluster, Router};

/// The cluster to join.
#[derive(Debug, Clone, Args)]
pub(crate) struct PomeloOptions {
    /// Forward the chat to the Node servers of a Pomelo cluster, whose master is there
    #[arg(long = "pomelo", value_name = "HOST:PORT")]
    pomelo_master: Option<String>,

    /// The token of the connectors in the cluster's adminServer.json
    #[arg(long, value_name = "TOKEN", default_value = "ok", requires = "pomelo_master")]
    pomelo_token: String,

    /// The address at which the cluster's servers call this one
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:0")]
    #[arg(requires = "pomelo_master")]
    pomelo_listen: String,

    /// Milliseconds that a call to the cluster may take
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=30_000))]
    #[arg(requires = "pomelo_master")]
    pomelo_timeout: u64,

    /// The name of this server
    #[arg(long, value_name = "ID", default_value = "connector-1")]
    pub(crate) server_id: String,
}

impl PomeloOptions {
    /// The cluster to join, if there is one.
    pub(crate) fn cluster(&self) -> Option<PomeloCluster> {
        let master = self.pomelo_master.as_deref()?;
        let drop_args =
            [ClosedArg::Uid, ClosedArg::FrontendId, ClosedArg::Setting("room".to_owned())];
        let cluster = PomeloCluster::new(master)
            .token(&self.pomelo_token)
            .listen(&self.pomelo_listen)
            .call_timeout(Duration::from_millis(self.pomelo_timeout))
            .server_type("chat", Router::custom(super::router::pick))
            .on_closed("chat.chatRemote.drop", drop_args)
            .on_stop(crate::cli::signals::stop);
        Some(cluster)
    }
}
