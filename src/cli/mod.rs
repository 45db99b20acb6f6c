//! The command line.

mod aside;
mod config;
mod ctl;
mod demo;
mod figures;
mod lines;
mod load;
mod log;
mod log_form;
mod notify;
mod options;
mod pages;
mod serve;
mod signals;
mod terminal;
mod top;
mod wording;

use std::env;
use std::process::ExitCode;

use clap::Parser as _;

use options::{Command, Options};
use signals::Stop;

/// Runs what the command line asks for. What goes wrong is one line on stderr.
pub(crate) fn main() -> ExitCode {
    // First of all, as a SIGHUP that nobody handles ends the process. Other commands leave it so.
    let is_serve = env::args_os().nth(1).is_some_and(|word| word == "serve");
    let stop = is_serve.then(Stop::on_signals_and_hangup);
    let options = Options::parse();
    if let Some(options) = options.ctl() {
        return ctl::run(options);
    }
    if let Some(options) = options.top() {
        return top::run(options);
    }
    shaddock::return_large_memory();
    let _flush = log::start(options.log, options.log_format);
    shaddock::raise_descriptor_limit();
    let outcome = match options.into_command() {
        Command::Demo(options) => demo::run(&options),
        Command::Serve(options) => {
            serve::run(&options, stop.unwrap_or_else(Stop::on_signals_and_hangup))
        }
        Command::Check(options) => serve::check(&options),
        Command::Load(options) => load::run(&options),
        Command::Completions { shell } => pages::write_completions(shell),
        Command::Man { folder } => pages::write_man(&folder),
        Command::Ctl(_) | Command::Top(_) => Ok(()), // It has been run.
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            lines::tell(&log_form::line("ERROR", &format!("shaddock: {error:#}")));
            ExitCode::FAILURE
        }
    }
}
