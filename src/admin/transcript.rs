//! A recording as text: a line for each package. What clients have written is escaped.

use std::collections::HashMap;
use std::fmt::Write as _;

use super::bounds::RECORDING_BYTES_MAX;
use crate::record::{Direction, Record, RecordKind, Recording, State};
use crate::wire::message::{self, Message, MessageType, RouteRef};
use crate::wire::package::PackageType;

/// Characters of a body that are shown.
const BODY_SHOWN: usize = 512;

/// The text of a recording.
pub(super) fn of(recording: &Recording, now_us: u64) -> String {
    let snapshot = recording.snapshot(now_us);
    let mut text = format!("# recording {} of ", recording.id);
    push_escaped(&mut text, &recording.target.to_string());
    if let Some(session) = &snapshot.session {
        let uid = session.uid.as_ref().map_or("-", |uid| uid.text());
        write!(text, ": session {:?}, uid ", session.id).ok();
        push_escaped(&mut text, uid);
        let tls = if session.tls { " with TLS" } else { "" };
        let (peer, transport, dialect) = (session.peer, session.transport, session.dialect);
        write!(text, ", {peer}, {transport}{tls}, {dialect}").ok();
    }
    let bodies = if recording.options.has_bodies { "with bodies" } else { "heads only" };
    let (len, lost) = (snapshot.records.len(), snapshot.lost);
    write!(text, "\n# {bodies}, {len} records, {lost} lost before them").ok();
    match snapshot.state {
        State::Waiting => text.push_str("; no session has come yet\n"),
        State::Recording => text.push_str("; it goes on\n"),
        State::Over(reason) => _ = writeln!(text, "; over: {reason}"),
    }
    let mut routes = Routes::default();
    for (place, record) in snapshot.records.iter().enumerate() {
        if text.len() > RECORDING_BYTES_MAX {
            writeln!(text, "# {} records more are left out", len - place).ok();
            break;
        }
        push_time(&mut text, record.at_us);
        text.push_str(match record.direction {
            Direction::FromClient => "  >  ",
            Direction::ToClient => "  <  ",
        });
        let (summary, head_len) = routes.summary(record);
        push_escaped(&mut text, &summary);
        write!(text, "  {} bytes", record.len - head_len.min(record.len)).ok();
        let body = &record.kept[head_len.min(record.kept.len())..];
        if !body.is_empty() {
            let body = String::from_utf8_lossy(body);
            text.push_str("  ");
            push_escaped(&mut text, &body.chars().take(BODY_SHOWN).collect::<String>());
            if body.chars().nth(BODY_SHOWN).is_some() || record.kept.len() < record.len {
                text.push('…');
            }
        }
        text.push('\n');
    }
    text
}

/// The routes of requests that are not answered yet, so that answers can be told by them.
#[derive(Default)]
pub(super) struct Routes(HashMap<u32, String>);

impl Routes {
    /// A record in a few words, and the bytes of its message's head.
    pub(super) fn summary(&mut self, record: &Record) -> (String, usize) {
        let kind = match record.kind {
            RecordKind::Package(PackageType::Data) => return self.message(record),
            RecordKind::Package(PackageType::Handshake) => "handshake".to_owned(),
            RecordKind::Package(PackageType::HandshakeAck) => "ack".to_owned(),
            RecordKind::Package(PackageType::Heartbeat) => "heartbeat".to_owned(),
            RecordKind::Package(PackageType::Kick) => "kick".to_owned(),
            RecordKind::Http => "http".to_owned(),
            RecordKind::Control { opcode: 8, code: Some(code) } => format!("close {code}"),
            RecordKind::Control { opcode: 8, .. } => "close".to_owned(),
            RecordKind::Control { opcode: 9, .. } => "ping".to_owned(),
            RecordKind::Control { .. } => "pong".to_owned(),
            RecordKind::Unreadable => "unreadable".to_owned(),
        };
        (kind, 0)
    }

    fn message(&mut self, record: &Record) -> (String, usize) {
        let Ok(message) = message::decode(&record.kept) else {
            return ("message that can't be read".to_owned(), 0);
        };
        let Message { id, kind, route, body, .. } = message;
        let mut route = match (&record.route, route) {
            (Some(route), _) => route.to_string(),
            (None, Some(RouteRef::Code(code))) => format!("code {code}"),
            (None, Some(RouteRef::Text(text))) => String::from_utf8_lossy(text).into_owned(),
            (None, None) => String::new(),
        };
        let name = match kind {
            MessageType::Request => {
                self.0.insert(id, route.clone());
                "request"
            }
            MessageType::Notify => "notify",
            MessageType::Response => {
                route = self.0.remove(&id).unwrap_or_default();
                "response"
            }
            MessageType::Push => "push",
        };
        let id = if id > 0 { format!(" {id}") } else { String::new() };
        (format!("{name}{id} {route}"), record.kept.len() - body.len())
    }
}

/// Appends text of which a terminal obeys nothing.
fn push_escaped(out: &mut String, text: &str) {
    for char in text.chars() {
        match char {
            '"' | '\'' | '\\' => out.push(char),
            _ => out.extend(char.escape_debug()),
        }
    }
}

/// Appends a time, in microseconds since 1970, as RFC 3339 has it.
fn push_time(out: &mut String, at_us: u64) {
    let (seconds, micros) = (at_us / 1_000_000, at_us % 1_000_000);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // Years that begin in March, so that the day of a leap year is their last.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = 400 * era + year + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let time = format!("{hour:02}:{minute:02}:{second:02}.{micros:06}Z");
    write!(out, "{year:04}-{month:02}-{day:02}T{time}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (at_us, expected) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400_000_000, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (1_796_043_411_123_456, "2026-11-30T12:56:51.123456Z"),
            (4_107_542_400_000_000, "2100-03-01T00:00:00.000000Z"),
        ] {
            let mut text = String::new();
            push_time(&mut text, at_us);
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn text_of_clients_is_escaped() {
        let mut text = String::new();
        push_escaped(&mut text, "{\"a\":\"\u{1b}[2J\n\u{202e}\"}");
        assert_eq!(text, "{\"a\":\"\\u{1b}[2J\\n\\u{202e}\"}");
    }
}
