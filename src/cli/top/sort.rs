//! The order of the sessions.

use clap::ValueEnum;

/// An order of sessions, by the names of the admin server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(super) enum Sort {
    /// Those that came first
    Number,
    /// The oldest first
    AgeS,
    /// The most bytes that clients have not taken
    OutboxBytes,
    /// The longest wait of such bytes
    OutboxMs,
    /// The most requests without an answer
    InFlight,
    /// The most bytes kept
    KeptBytes,
    /// The longest silence
    SilentMs,
    /// The most messages, both ways
    Messages,
    /// The most bytes received
    ReceivedBytes,
    /// The most bytes sent
    SentBytes,
}

impl Sort {
    /// The name that the admin server knows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Number => "number",
            Self::AgeS => "age_s",
            Self::OutboxBytes => "outbox_bytes",
            Self::OutboxMs => "outbox_ms",
            Self::InFlight => "in_flight",
            Self::KeptBytes => "kept_bytes",
            Self::SilentMs => "silent_ms",
            Self::Messages => "messages",
            Self::ReceivedBytes => "received_bytes",
            Self::SentBytes => "sent_bytes",
        }
    }

    /// The order behind this one.
    pub(super) fn next(self) -> Self {
        let all = Self::value_variants();
        let at = all.iter().position(|it| *it == self).unwrap_or_default();
        all[(at + 1) % all.len()]
    }
}
