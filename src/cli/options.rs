//! The options of the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use shaddock::Driver;
use tracing::level_filters::LevelFilter;

use super::ctl::CtlOptions;
use super::demo::DemoOptions;
use super::load::LoadOptions;
use super::log_form::LogFormat;
use super::top::TopOptions;

/// The connector tier of a Pomelo game cluster, on io_uring or epoll.
#[derive(Debug, Parser)]
#[command(name = "shaddock", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    #[command(subcommand)]
    command: Option<Command>,

    /// Without a subcommand it is the demo that runs, and takes these.
    #[command(flatten)]
    demo: DemoOptions,

    /// Level of the log on stderr: off, error, warn, info, debug or trace [default: warn, or what
    /// the file of `serve` says]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log: Option<LevelFilter>,

    /// Form of the log [default: text, or what the file of `serve` says]
    #[arg(long, global = true, value_name = "FORM")]
    pub(crate) log_format: Option<LogFormat>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the demo app to any Pomelo client (the default)
    Demo(DemoOptions),
    /// Serve as a configuration file says; SIGHUP reads it again
    Serve(ConfigOptions),
    /// Tell what is wrong with a configuration file, without serving
    Check(ConfigOptions),
    /// Load any server that speaks Pomelo's protocol, and report throughput and latency
    Load(LoadOptions),
    /// Write the completions of a shell to stdout
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages into a folder
    #[command(hide = true)]
    Man {
        /// The folder, which has to be there
        folder: PathBuf,
    },
    /// Look at a running `shaddock serve`, and steer it, by its admin server
    Ctl(CtlOptions),
    /// Watch a running connector on the terminal: shards, backends, sessions
    Top(TopOptions),
}

/// The place of the configuration.
#[derive(Debug, Clone, Args)]
pub(crate) struct ConfigOptions {
    /// The configuration file; shaddock.example.toml has every key
    #[arg(long, value_name = "FILE", default_value = "shaddock.toml")]
    pub(crate) config: PathBuf,

    /// I/O of the threads, instead of what the file says: auto, ring or poll
    #[arg(long)]
    pub(crate) driver: Option<Driver>,
}

impl Options {
    /// The options of `ctl`, if it is that.
    pub(crate) fn ctl(&self) -> Option<&CtlOptions> {
        match &self.command {
            Some(Command::Ctl(options)) => Some(options),
            _ => None,
        }
    }

    /// The options of `top`, if it is that.
    pub(crate) fn top(&self) -> Option<&TopOptions> {
        match &self.command {
            Some(Command::Top(options)) => Some(options),
            _ => None,
        }
    }

    /// The command to run, the demo if none is named.
    pub(crate) fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Demo(self.demo))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::CommandFactory as _;

    use super::*;

    fn demo(words: &[&str]) -> Result<DemoOptions, clap::Error> {
        let words = ["shaddock"].iter().chain(words);
        match Options::try_parse_from(words)?.into_command() {
            Command::Demo(options) => Ok(options),
            _ => panic!("not the demo"),
        }
    }

    #[test]
    fn the_command_line_holds_together() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_demo_runs_with_and_without_its_name() {
        for words in [&["--full", "--shards", "3"][..], &["demo", "--full", "--shards", "3"]] {
            let options = demo(words).unwrap();
            assert!(options.full);
            assert_eq!(options.shards(), 3);
            assert_eq!(options.heartbeat(), Some(Duration::from_secs(3)));
            assert_eq!((options.listen.as_str(), options.workers), ("127.0.0.1:3010", 2));
        }
    }

    #[test]
    fn without_options_there_is_a_shard_for_each_core() {
        assert!(demo(&[]).unwrap().shards() >= 1);
        assert_eq!(demo(&["--heartbeat", "0"]).unwrap().heartbeat(), None);
    }

    #[test]
    fn the_demo_has_its_page_unless_told_otherwise() {
        let options = demo(&[]).unwrap();
        assert_eq!((options.admin.as_str(), options.no_admin), ("127.0.0.1:3011", false));
        assert!(demo(&["demo", "--no-admin"]).unwrap().no_admin);
        assert!(demo(&["demo", "--no-admin", "--admin", "127.0.0.1:1"]).is_err());
    }

    #[test]
    fn the_log_level_may_follow_the_subcommand() {
        for words in [&["shaddock", "demo", "--log", "debug"][..], &["shaddock", "--log", "debug"]]
        {
            assert_eq!(Options::try_parse_from(words).unwrap().log, Some(LevelFilter::DEBUG));
        }
    }

    #[test]
    fn the_demo_may_join_a_cluster() {
        assert!(demo(&[]).unwrap().pomelo.cluster().is_none());
        let options = demo(&["--pomelo", "127.0.0.1:3005", "--pomelo-listen", "127.0.0.1:4050"]);
        assert!(options.unwrap().pomelo.cluster().is_some());
    }

    #[test]
    fn a_load_is_described_on_the_command_line() {
        let words = ["shaddock", "load", "--transport", "ws", "--rate", "1000", "--pipeline", "16"];
        let Command::Load(options) = Options::try_parse_from(words).unwrap().into_command() else {
            panic!("not a load")
        };
        let options = options.to_library();
        assert_eq!(options.transport, shaddock::load::Transport::WebSocket);
        assert_eq!((options.rate, options.pipeline), (Some(1000.0), 16));
        assert_eq!((options.opening, options.addresses.len()), (128, 1));
        for (option, value) in [("--rate", "0"), ("--login", "a\"b"), ("--body-bytes", "15")] {
            assert!(Options::try_parse_from(["shaddock", "load", option, value]).is_err());
        }
    }

    #[test]
    fn in_a_storm_all_come_at_once() {
        let addresses = "127.0.0.1:1,127.0.0.1:2";
        let words =
            ["shaddock", "load", "--mode", "storm", "--connections", "500", "--addr", addresses];
        let Command::Load(options) = Options::try_parse_from(words).unwrap().into_command() else {
            panic!("not a load")
        };
        let options = options.to_library();
        assert_eq!((options.opening, options.addresses.len()), (500, 2));
    }

    #[test]
    fn what_can_not_be_is_refused() {
        for words in [
            ["--workers", "0"],
            ["--workers", "65"],
            ["--shards", "0"],
            ["--heartbeat", "-1"],
            ["--log", "loud"],
            ["--pomelo-token", "oracle"],
            ["--pomelo-timeout", "0"],
        ] {
            assert!(demo(&words).is_err(), "{words:?}");
        }
    }
}
