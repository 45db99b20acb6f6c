//! The `shaddock` binary: the demo app on a connector, ready for any Pomelo client.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
