//! The form of the lines on stderr: text for people, or JSON for programs.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::ValueEnum;
use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{Format, FormatEvent, FormatFields, Json, Writer};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// The form of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// A line for people
    Text,
    /// A JSON object in each line
    Json,
}

static IS_JSON: AtomicBool = AtomicBool::new(false);

/// Writes all lines in this form from now on.
pub(super) fn set_format(format: LogFormat) {
    IS_JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

fn format() -> LogFormat {
    if IS_JSON.load(Ordering::Relaxed) { LogFormat::Json } else { LogFormat::Text }
}

/// A line that is no event of tracing's, in the form of the log.
pub(super) fn line(level: &'static str, text: &str) -> String {
    line_in(format(), level, text)
}

fn line_in(format: LogFormat, level: &'static str, text: &str) -> String {
    let text = text.trim_end();
    if format == LogFormat::Text {
        return format!("{text}\n");
    }
    let mut timestamp = String::new();
    SystemTime.format_time(&mut Writer::new(&mut timestamp)).ok();
    let line = json!({
        "timestamp": timestamp, "level": level, "message": text, "target": "shaddock",
    });
    format!("{line}\n")
}

/// Formats the events of tracing in the form of the log, which may change at any time.
pub(super) struct Form {
    text: Format,
    json: Format<Json>,
}

impl Form {
    pub(super) fn new() -> Self {
        let json = Format::default().json().flatten_event(true);
        let json = json.with_current_span(false).with_span_list(false);
        Self { text: Format::default(), json }
    }
}

impl<S, N> FormatEvent<S, N> for Form
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match format() {
            LogFormat::Text => self.text.format_event(context, writer, event),
            LogFormat::Json => self.json.format_event(context, writer, event),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn a_line_is_one_line_as_json_whatever_is_in_it() {
        let text = "thread 'a' panicked:\n\"quoted\" \u{1b}[31m\r\n";
        assert_eq!(line_in(LogFormat::Text, "ERROR", text), format!("{}\n", text.trim_end()));
        let line = line_in(LogFormat::Json, "ERROR", text);
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{1b}'), "{line}");
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (&value["level"], &value["message"]),
            (&"ERROR".into(), &text.trim_end().into())
        );
        assert!(value["timestamp"].as_str().unwrap().ends_with('Z'), "{line}");
    }
}
