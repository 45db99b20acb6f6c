//! `shaddock demo`: the app that the reference server runs, handler by handler.

mod answers;
mod chat;
mod config;
mod connector;
mod filters;
mod js;
mod options;
mod pomelo;
mod router;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use shaddock::{AdminOptions, Builder, Drain, Engine, Shards, Workers};

pub(crate) use options::DemoOptions;

use super::signals::Stop;
use super::wording::several;
use super::{figures, lines, log};

/// The time that clients and workers get to finish when the engine stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(5);
/// The time in which a drain can be called off, by the page's own button.
const DRAIN_DELAY: Duration = Duration::from_secs(10);

/// Serves until a signal asks for the end.
pub(crate) fn run(options: &DemoOptions) -> anyhow::Result<()> {
    let stop = Stop::on_signals().context("can't listen for signals")?;
    // The text of the error says all that its source would.
    let engine = builder(options)?.start().map_err(anyhow::Error::msg)?;
    announce(engine.local_addr(), engine.admin_addr(), options);
    let handle = engine.handle();
    let drain = Drain::within(DRAIN_WITHIN);
    figures::show(&handle, &stop, drain, || {});
    let report = engine.shutdown(drain);
    tracing::info!(?report, "stopped");
    match handle.failure() {
        Some(failure) => anyhow::bail!("{failure}"),
        None => Ok(()),
    }
}

/// The demo app, ready to start.
pub(crate) fn builder(options: &DemoOptions) -> anyhow::Result<Builder> {
    let mut builder = Engine::builder()
        .listen(&options.listen)
        .shards(Shards::Count(options.shards()))
        .driver(options.driver)
        .check_client(config::check_client)
        .user_handshake(|handshake| config::greet(handshake.user()))
        .routes(config::handler_routes())
        .server_id(&options.pomelo.server_id);
    builder = with_connector(builder);
    builder = match options.pomelo.cluster() {
        Some(cluster) => builder.pomelo(cluster),
        None => with_chat(builder, options.workers),
    };
    if let Some(interval) = options.heartbeat() {
        builder = builder.heartbeat(interval);
    }
    if has_admin(options) {
        let drain = Drain::within(DRAIN_WITHIN).delay(DRAIN_DELAY);
        // Whoever shows the figures sees that sessions are closed, and shuts the engine down.
        let admin = AdminOptions::new().listen(&options.admin).on_drain(drain, || {});
        let admin = admin.page_may_change().page_with_demo();
        let admin = admin.lost_log_lines(|| lines::stderr().lost());
        builder = builder.admin(admin.on_log_level(log::set_level));
    }
    if options.full {
        let dictionary = config::dictionary().context("the demo's routes")?;
        let protos = config::protos().context("the demo's schemas")?;
        builder = builder.dictionary(dictionary).protos(protos);
    }
    Ok(builder)
}

/// True if there is to be an admin server. Where another process has taken its port, the demo tells
/// that and serves without.
fn has_admin(options: &DemoOptions) -> bool {
    if options.no_admin {
        return false;
    }
    let is_taken = |error: std::io::Error| error.kind() == ErrorKind::AddrInUse;
    let is_taken = TcpListener::bind(&options.admin).is_err_and(is_taken);
    if is_taken {
        lines::tell(&format!(
            "shaddock demo: no page, as another process listens on {}; name a free address with \
             --admin\n",
            options.admin
        ));
    }
    !is_taken
}

/// Adds the handlers of the server type `connector`.
pub(crate) fn with_connector(builder: Builder) -> Builder {
    let shared = Arc::<connector::Shared>::default();
    builder.register(move |handlers| connector::register(handlers, &shared))
}

/// Adds the server type `chat`, on workers.
pub(crate) fn with_chat(builder: Builder, workers: u16) -> Builder {
    builder.forward("chat", Workers::new(workers, chat::register)).route("chat", router::pick)
}

/// Tells where to connect and how. Whoever started the process may wait for the first line.
fn announce(address: SocketAddr, admin: Option<SocketAddr>, options: &DemoOptions) {
    let mut lines = format!(
        "shaddock demo: listening on {address} ({}, {})\n\
         Connect a Pomelo client to it by TCP or WebSocket (ws://{address}) and request \
         connector.entryHandler.entry with {{\"uid\":\"amy\"}}, then chat.chatHandler.join with \
         {{}}. Ctrl-C stops.\n",
        several(options.shards(), "shard"),
        several(options.workers, "chat worker"),
    );
    if let Some(admin) = admin {
        lines.push_str(&format!(
            "Play, and watch it: http://{admin}/ (metrics, sessions and more below it)\n"
        ));
    }
    lines::stdout().write(lines.as_bytes());
}
