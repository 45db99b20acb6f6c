//! `[log]`: the level and the form of the log.

use tracing::level_filters::LevelFilter;

use super::kind::{LOG_FORMAT, LOG_LEVEL};
use super::table::Table;
use crate::cli::log;
use crate::cli::log_form::LogFormat;

/// The log, where the command line does not say how it is.
#[derive(Debug)]
pub(crate) struct Log {
    level: String,
    format: String,
}

pub(super) fn read(table: &mut Table<'_>) -> Log {
    table.changes_while_running();
    let mut log = Log { level: "warn".into(), format: "text".into() };
    table.read("level", &mut log.level, LOG_LEVEL);
    table.read("format", &mut log.format, LOG_FORMAT);
    log
}

impl Log {
    /// Logs so from now on.
    pub(crate) fn apply(&self) {
        let format = if self.format == "json" { LogFormat::Json } else { LogFormat::Text };
        let level = self.level.parse().unwrap_or(LevelFilter::WARN);
        log::take_settings(level, format);
    }
}
