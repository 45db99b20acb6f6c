//! `shaddock serve`: a connector as a file describes it, and `shaddock check` of that file.

use std::io::{self, Write as _};
use std::net::SocketAddr;

use anyhow::Context as _;
use shaddock::Handle;

use super::config::{Config, Problem};
use super::notify::{self, Notify};
use super::options::ConfigOptions;
use super::signals::Stop;
use super::wording::several;
use super::{aside, figures, lines};

/// Serves until a signal asks for the end. SIGHUP reads the file again.
pub(crate) fn run(options: &ConfigOptions, stop: io::Result<Stop>) -> anyhow::Result<()> {
    let stop = stop.context("can't listen for signals")?;
    let path = options.config.clone();
    let read = aside::run(|| stop.is_stopping(), move || Config::read(&path));
    let mut config = or_tell(read.context("can't read the configuration")?)?;
    config.log.apply();
    // The text of the error says all that its source would.
    let builder = match options.driver {
        Some(driver) => config.builder().driver(driver),
        None => config.builder(),
    };
    let engine = builder.start().map_err(anyhow::Error::msg)?;
    if !config.forwards() {
        tracing::warn!("there are no backends: a message for another server type is answered 500");
    }
    announce(engine.local_addrs(), &config);
    let handle = engine.handle();
    let notify = Notify::from_environment();
    notify::feed_watchdog(&notify, &handle).context("can't start the thread of the watchdog")?;
    notify.ready(SERVING);
    let drain = config.server.drain();
    figures::show(&handle, &stop, drain, || {
        notify.reloading();
        notify.ready(reload(&mut config, options, &handle, &stop));
    });
    notify.stopping();
    let report = engine.shutdown(drain);
    tracing::info!(?report, "stopped");
    match handle.failure() {
        Some(failure) => anyhow::bail!("{failure}"),
        None => Ok(()),
    }
}

/// Tells what a file and the environment set, if they would do.
pub(crate) fn check(options: &ConfigOptions) -> anyhow::Result<()> {
    let settings = or_tell(Config::read(&options.config))?.settings.join("\n");
    let end = if settings.is_empty() { "" } else { "\n" };
    writeln!(io::stdout(), "{settings}{end}{}: no problems", options.config.display())
        .context("can't write to stdout")
}

/// A configuration, or its problems on stderr.
fn or_tell(read: Result<Config, Vec<Problem>>) -> anyhow::Result<Config> {
    read.map_err(|problems| {
        for problem in &problems {
            // Nothing is served yet, so whoever reads it may take the time it needs.
            writeln!(io::stderr(), "{problem}").ok();
        }
        let count = u16::try_from(problems.len()).unwrap_or(u16::MAX);
        anyhow::anyhow!("the configuration has {}", several(count, "problem"))
    })
}

/// The state that the service manager shows of a server that does as its file says.
const SERVING: &str = "Serving";

/// Takes over what has changed in the file. A file with problems changes nothing. Gives the state
/// for the service manager to show.
fn reload(
    config: &mut Config,
    options: &ConfigOptions,
    handle: &Handle,
    stop: &Stop,
) -> &'static str {
    let is_stopping = || stop.is_stopping() || handle.is_closing();
    let path = options.config.clone();
    let next = match aside::run(is_stopping, move || Config::read_again(&path)) {
        Ok(Ok(next)) => next,
        Err(error) => {
            tracing::error!(%error, "nothing was changed, as the configuration can't be read");
            return "Serving; the configuration could not be read, and nothing of it was taken";
        }
        Ok(Err(problems)) => {
            let log = |problem: &Problem| tracing::error!("{problem}");
            problems.iter().for_each(log);
            tracing::error!("nothing was changed, as the configuration has problems");
            return "Serving; the configuration has problems, and nothing of it was taken";
        }
    };
    let mut state = SERVING;
    match config.change_to(next, handle) {
        Ok(changed) => {
            if !changed.needs_restart.is_empty() {
                state = "Serving; some of the configuration needs a restart";
            }
            for key in &changed.needs_restart {
                tracing::warn!("{key} has changed, and needs a restart");
            }
            for key in &changed.applied {
                tracing::info!("{key} has changed");
            }
        }
        Err(error) => {
            tracing::error!(%error, "not everything could be changed; send SIGHUP again");
            state = "Serving; not everything could be changed, ask for a reload again";
        }
    }
    // From the files that the engine was started with, whose names need a restart to change.
    let engine = handle.clone();
    let certificates = move || engine.reload_certificates().map_err(|error| error.to_string());
    let count = aside::run(is_stopping, certificates);
    match count.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(0) => {}
        Ok(_) => tracing::info!("the certificates have been read again"),
        Err(error) => {
            tracing::error!(%error, "the certificates can't be read again: the old ones stay");
            state = "Serving; the certificates could not be read, and stay as they were";
        }
    }
    state
}

/// Tells where to connect. Whoever started the process may wait for the first line.
fn announce(addresses: &[SocketAddr], config: &Config) {
    let addresses: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    let line = format!(
        "shaddock serve: {} listening on {} ({})\n",
        config.server.id,
        addresses.join(", "),
        several(config.server.shards(), "shard"),
    );
    lines::stdout().write(line.as_bytes());
}
