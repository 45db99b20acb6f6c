//! The reasons for which connections end.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

/// The reason for which a connection has ended, as the load client saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DisconnectReason {
    /// There is no socket, for the reason of that number.
    Open(i32),
    /// It did not come up, for the reason of that number.
    Connect(i32),
    /// It broke, for the reason of that number.
    Receive(i32),
    /// The server has closed it.
    Ended,
    /// The server has kicked the client.
    Kicked,
    /// The server has refused the upgrade or the handshake.
    Refused,
    /// The server has sent what is not of the protocol.
    Malformed,
}

/// The number of connections that have ended, by reason.
///
/// ```
/// # fn print(report: &shaddock::load::LoadReport) {
/// if report.disconnects.total() > 0 {
///     for (reason, connections) in report.disconnects.iter() {
///         println!("{connections} connections: {reason}");
///     }
/// }
/// # }
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DisconnectCounts {
    by_reason: BTreeMap<DisconnectReason, u64>,
}

impl DisconnectCounts {
    pub(super) fn one(&mut self, reason: DisconnectReason) {
        *self.by_reason.entry(reason).or_default() += 1;
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (reason, count) in other.iter() {
            *self.by_reason.entry(reason).or_default() += count;
        }
    }

    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.by_reason.values().sum()
    }

    /// Each reason that there was, and its count.
    pub fn iter(&self) -> impl Iterator<Item = (DisconnectReason, u64)> {
        self.by_reason.iter().map(|(reason, count)| (*reason, *count))
    }
}

impl fmt::Display for DisconnectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let why = |number: i32| io::Error::from_raw_os_error(number);
        match self {
            Self::Open(number) => write!(f, "no socket: {}", why(*number)),
            Self::Connect(number) => write!(f, "not connected: {}", why(*number)),
            Self::Receive(number) => write!(f, "broken: {}", why(*number)),
            Self::Ended => f.write_str("closed by the server"),
            Self::Kicked => f.write_str("kicked"),
            Self::Refused => f.write_str("handshake refused"),
            Self::Malformed => f.write_str("not understood"),
        }
    }
}

impl fmt::Display for DisconnectCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (reason, count)) in self.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{count} {reason}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_their_reasons() {
        let (mut all, mut some) = (DisconnectCounts::default(), DisconnectCounts::default());
        all.one(DisconnectReason::Kicked);
        some.one(DisconnectReason::Connect(111));
        some.one(DisconnectReason::Kicked);
        all.add(&some);
        assert_eq!(all.total(), 3);
        let text = "1 not connected: Connection refused (os error 111), 2 kicked";
        assert_eq!(all.to_string(), text);
    }
}
