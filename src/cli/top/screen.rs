//! The screen: figures above, shards and backends in the middle, sessions below.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Cell, Paragraph, Row, Table};
use serde_json::Value;

use super::state::{Mode, State};
use crate::cli::ctl::show::{members, plain};

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Foot {
    /// The keys, or a question.
    Keys,
    None,
}

/// Rows of shards and of server types that are shown; the page and `/status` have all.
const ROWS_MAX: usize = 8;
/// The lines of the figures above.
const HEAD_LINES: u16 = 2;
/// The lines of a table beside its rows: its title and its columns' names.
const TABLE_LINES: u16 = 2;
/// Sessions of a screen that is printed.
const PRINTED_MAX: usize = 20;

/// Lines of a whole screen as it is printed.
pub(super) fn height(state: &State) -> u16 {
    let sessions = state.sessions.len().clamp(1, PRINTED_MAX) as u16;
    HEAD_LINES
        + table_height(&state.status, "shards")
        + table_height(&state.status, "server_types")
        + TABLE_LINES
        + sessions
}

fn table_height(status: &Value, name: &str) -> u16 {
    match list(status, name).len() {
        0 => 0,
        rows => TABLE_LINES + rows.min(ROWS_MAX) as u16,
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, state: &mut State, foot: Foot) {
    let areas = Layout::vertical([
        Constraint::Length(HEAD_LINES),
        Constraint::Length(table_height(&state.status, "shards")),
        Constraint::Length(table_height(&state.status, "server_types")),
        Constraint::Min(TABLE_LINES + 1),
        Constraint::Length(u16::from(foot == Foot::Keys)),
    ]);
    let [head, shards, types, sessions, last] = areas.areas(frame.area());
    frame.render_widget(Paragraph::new(head_lines(state)), head);
    draw_shards(frame, &state.status, shards);
    draw_types(frame, &state.status, types);
    match &state.mode {
        Mode::List => draw_sessions(frame, state, sessions),
        Mode::One { id, session } => draw_one(frame, id, session.as_ref(), sessions),
    }
    if foot == Foot::Keys {
        frame.render_widget(foot_line(state), last);
    }
}

fn head_lines(state: &State) -> Vec<Line<'static>> {
    let status = &state.status;
    let is = |name| status.get(name).and_then(Value::as_bool).unwrap_or_default();
    let text = |name| plain(status.get(name).unwrap_or(&Value::Null));
    let condition = match &state.error {
        Some(error) => Span::from(error.clone()).red().bold(),
        None if status.is_null() => "asking …".into(),
        None if !state.missing_shards.is_empty() => {
            let shards = state.missing_shards.iter().map(plain).collect::<Vec<_>>().join(", ");
            Span::from(format!("not answering: shard {shards}")).red().bold()
        }
        None if is("draining") => "draining".yellow().bold(),
        None if is("ready") => "ready".green().bold(),
        None => Span::from(format!("not ready: {}", unready(status))).yellow().bold(),
    };
    let latency = status.get("latency").unwrap_or(&Value::Null);
    vec![
        Line::from(vec![
            Span::from(format!("{} ", text("server_id"))).bold(),
            format!("{}  up {}  ", text("version"), seconds(number(status, "uptime_s"))).into(),
            condition,
        ]),
        format!(
            "connections {}  uids {}  in {}/s {}/s  out {}/s {}/s  p50 {}  p99 {}",
            count(number(status, "connections")),
            count(number(status, "uids")),
            count(number(status, "messages_in_per_s")),
            bytes(number(status, "bytes_in_per_s")),
            count(number(status, "messages_out_per_s")),
            bytes(number(status, "bytes_out_per_s")),
            micros(latency, "p50_us"),
            micros(latency, "p99_us"),
        )
        .into(),
    ]
}

fn unready(status: &Value) -> String {
    list(status, "unready").iter().map(plain).collect::<Vec<_>>().join(", ")
}

fn foot_line(state: &State) -> Line<'static> {
    if let Some(id) = &state.asks_kick {
        return Line::from(format!("Kick session {id}? y kicks, any other key does not."))
            .yellow()
            .bold();
    }
    if let Some(told) = &state.told {
        return Line::from(told.clone()).bold();
    }
    let keys = match state.mode {
        Mode::List => "↑↓ choose  Enter show  s order  K kick  q end",
        Mode::One { .. } => "Esc back  K kick  q end",
    };
    Line::from(keys).dim()
}

/// A table: each column's name, its width (0 takes what is left), and the side it stands at.
struct Columns(&'static [(&'static str, u16, Side)]);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

use Side::{Left, Right};

impl Columns {
    fn table(&self, title: String, rows: impl Iterator<Item = Vec<String>>) -> Table<'static> {
        let cell = |text: String, at: usize| match self.0[at].2 {
            Left => Cell::from(text),
            Right => Cell::from(Line::from(text).right_aligned()),
        };
        let cells =
            |texts: Vec<String>| texts.into_iter().enumerate().map(move |(at, it)| cell(it, at));
        let names = self.0.iter().map(|(name, ..)| (*name).to_owned()).collect();
        let width = |(_, width, _): &(&str, u16, Side)| match width {
            0 => Constraint::Fill(1),
            width => Constraint::Length(*width),
        };
        Table::new(rows.map(|row| Row::new(cells(row))), self.0.iter().map(width))
            .header(Row::new(cells(names)).dim())
            .column_spacing(2)
            .block(titled(title))
    }
}

fn titled(title: String) -> Block<'static> {
    Block::new().borders(Borders::TOP).border_style(Style::new().dim()).title(title.bold().reset())
}

const SHARDS: Columns = Columns(&[
    ("SHARD", 5, Left),
    ("CPU", 15, Left),
    ("CONNECTIONS", 11, Right),
    ("TURNS/S", 8, Right),
    ("TURN P99", 9, Right),
    ("OUTBOX", 9, Right),
    ("HELD", 9, Right),
    ("KEPT", 9, Right),
]);

fn draw_shards(frame: &mut Frame<'_>, status: &Value, area: Rect) {
    let shards = list(status, "shards");
    let rows = shards.iter().take(ROWS_MAX).map(|it| {
        let cpu = it.get("cpu").and_then(Value::as_f64).unwrap_or_else(|| number(it, "busy"));
        vec![
            count(number(it, "shard")),
            load(cpu),
            count(number(it, "connections")),
            count(number(it, "turns_per_s")),
            micros(it, "turn_p99_us"),
            bytes(number(it, "outbox_bytes")),
            bytes(number(it, "held_bytes")),
            bytes(number(it, "kept_bytes")),
        ]
    });
    frame.render_widget(SHARDS.table(title("shards", shards.len()), rows), area);
}

const TYPES: Columns = Columns(&[
    ("SERVER TYPE", 16, Left),
    ("BY", 7, Left),
    ("UP", 4, Right),
    ("DOWN", 4, Right),
    ("IN FLIGHT", 9, Right),
    ("ANSWERED", 10, Right),
    ("FAILED", 8, Right),
    ("TIMED OUT", 9, Right),
    ("LOST", 7, Right),
    ("P50", 8, Right),
    ("P99", 8, Right),
]);

fn draw_types(frame: &mut Frame<'_>, status: &Value, area: Rect) {
    let types = list(status, "server_types");
    let rows = types.iter().take(ROWS_MAX).map(|it| {
        let text = |name| plain(it.get(name).unwrap_or(&Value::Null));
        let mut row = vec![text("server_type"), text("target")];
        let counts = ["up", "down", "in_flight", "answered", "failed", "timed_out", "lost"];
        row.extend(counts.map(|name| count(number(it, name))));
        row.extend(["p50_us", "p99_us"].map(|name| micros(it, name)));
        row
    });
    frame.render_widget(TYPES.table(title("backends", types.len()), rows), area);
}

const SESSIONS: Columns = Columns(&[
    ("ID", 12, Left),
    ("UID", 0, Left),
    ("PEER", 21, Left),
    ("BY", 9, Left),
    ("STATE", 7, Left),
    ("AGE", 9, Right),
    ("SILENT", 9, Right),
    ("OUTBOX", 9, Right),
    ("IN FLIGHT", 9, Right),
    ("MESSAGES", 9, Right),
]);

fn draw_sessions(frame: &mut Frame<'_>, state: &mut State, area: Rect) {
    let rows = state.sessions.iter().map(|it| {
        let text = |name| plain(it.get(name).unwrap_or(&Value::Null));
        let mut row = ["id", "uid", "peer", "transport", "state"].map(text).to_vec();
        row.extend([
            seconds(number(it, "age_s")),
            seconds(number(it, "silent_ms") / 1_000.0),
            bytes(number(it, "outbox_bytes")),
            count(number(it, "in_flight")),
            count(number(it, "received_messages") + number(it, "sent_messages")),
        ]);
        row
    });
    let title = format!(" sessions by {}: {} in all ", state.sort.name(), state.all);
    let table = SESSIONS.table(title, rows).row_highlight_style(Style::new().reversed());
    frame.render_stateful_widget(table, area, &mut state.table);
}

fn draw_one(frame: &mut Frame<'_>, id: &str, session: Option<&Value>, area: Rect) {
    let text = match session {
        Some(session) => match session.get("reason") {
            Some(reason) => format!("It has ended: {}.\n{}", plain(reason), members(session)),
            None => members(session),
        },
        None => "It has ended.".to_owned(),
    };
    let title = format!(" session {id} ");
    frame.render_widget(Paragraph::new(text).block(titled(title)), area);
}

fn title(name: &str, rows: usize) -> String {
    match rows > ROWS_MAX {
        true => format!(" {name}: {ROWS_MAX} of {rows} "),
        false => format!(" {name} "),
    }
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], |list| list)
}

fn number(value: &Value, name: &str) -> f64 {
    value.get(name).and_then(Value::as_f64).unwrap_or_default()
}

/// A bar of ten and the share in percent.
fn load(share: f64) -> String {
    let full = (share.clamp(0.0, 1.0) * 10.0).round() as usize;
    format!("{}{} {:3.0}%", "█".repeat(full), "░".repeat(10 - full), share * 100.0)
}

fn count(value: f64) -> String {
    match value {
        ..1e5 => format!("{value:.0}"),
        ..1e7 => format!("{:.0}k", value / 1e3),
        _ => format!("{:.0}M", value / 1e6),
    }
}

fn bytes(value: f64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if value < 1_024.0 {
        return format!("{value:.0} B");
    }
    let power = ((value.log2() / 10.0) as usize).clamp(1, UNITS.len());
    format!("{:.1} {}", value / 1_024_f64.powi(power as i32), UNITS[power - 1])
}

fn micros(value: &Value, name: &str) -> String {
    match value.get(name).and_then(Value::as_f64) {
        // No request takes none.
        None | Some(0.0) => "-".into(),
        Some(value) if value < 1e3 => format!("{value:.0} µs"),
        Some(value) if value < 1e6 => format!("{:.1} ms", value / 1e3),
        Some(value) => format!("{:.1} s", value / 1e6),
    }
}

/// A time in its two largest units.
fn seconds(value: f64) -> String {
    let value = value as u64;
    match value {
        0..60 => format!("{value}s"),
        60..3_600 => format!("{}m {}s", value / 60, value % 60),
        3_600..86_400 => format!("{}h {}m", value / 3_600, value / 60 % 60),
        _ => format!("{}d {}h", value / 86_400, value / 3_600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::feed::Seen;
    use super::super::sort::Sort;
    use super::super::text_of;
    use super::*;

    fn state() -> State {
        let status = json!({
            "server_id": "connector-1", "version": "1.2.3", "uptime_s": 3_720, "ready": true,
            "draining": false, "connections": 2, "uids": 1, "messages_in_per_s": 1_500.2,
            "bytes_in_per_s": 2_048.0, "latency": {"requests": 9, "p50_us": 80, "p99_us": 2_500},
            "shards": [{"shard": 0, "cpu": 0.52, "connections": 2, "turns_per_s": 900.0,
                "turn_p99_us": 40, "outbox_bytes": 0, "held_bytes": 0, "kept_bytes": 5_000_000}],
            "server_types": [{"server_type": "chat", "target": "worker", "up": 2, "down": 0,
                "answered": 123_456}],
        });
        let session = json!({"id": "0.1.2", "uid": "amy\u{1b}[2J", "peer": "127.0.0.1:9",
            "transport": "tcp", "state": "working", "age_s": 90, "outbox_bytes": 1_536});
        let sessions = json!({"sessions": [session], "matching": 1, "all": 2});
        let mut state = State::new(Sort::AgeS);
        state.take(Seen::All { status, sessions, one: None });
        state
    }

    #[test]
    fn a_screen_is_text() {
        let text = text_of(&mut state(), 130).unwrap();
        for part in [
            "connector-1 1.2.3  up 1h 2m  ready",
            "connections 2  uids 1  in 1500/s 2.0 KiB/s",
            "p50 80 µs  p99 2.5 ms",
            "█████░░░░░  52%",
            "4.8 MiB",
            "chat              worker      2     0",
            "123k",
            "sessions by age_s: 2 in all",
            "0.1.2         amy\\u{1b}[2J",
            "1m 30s",
            "1.5 KiB",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert_eq!(text.lines().count(), usize::from(height(&state())));
    }

    #[test]
    fn any_size_will_do() {
        for width in [1, 20, 80, 300] {
            text_of(&mut state(), width).unwrap();
        }
        let mut state = state();
        state.mode = Mode::One { id: "0.1.2".into(), session: Some(json!({"uid": "amy"})) };
        assert!(text_of(&mut state, 80).unwrap().contains("uid: amy"));
        let session = Some(json!({"reason": "kick", "age_ms": 9}));
        state.mode = Mode::One { id: "0.1.2".into(), session };
        assert!(text_of(&mut state, 80).unwrap().contains("It has ended: kick."));
        state.mode = Mode::One { id: "0.1.2".into(), session: None };
        assert!(text_of(&mut state, 80).unwrap().contains("It has ended."));
    }
}
