//! The reasons for which the admin server refuses something.

/// The reasons for which something is refused, as a metric names them.
pub(super) const REASONS: [&str; 11] = [
    "connections",
    "time",
    "request",
    "host",
    "origin",
    "token",
    "streams",
    "events",
    "recordings",
    "walks",
    "answers",
];

/// One of [`REASONS`], by its place.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reason {
    Connections,
    Time,
    Request,
    Host,
    Origin,
    Token,
    Streams,
    Events,
    Recordings,
    Walks,
    Answers,
}
