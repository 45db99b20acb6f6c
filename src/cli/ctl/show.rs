//! Answers of the admin server as text. What clients have chosen, such as their uids, is escaped:
//! a terminal obeys what it is sent.

use std::fmt::Write as _;

use serde_json::Value;

/// A value by itself, in one line.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.escape_debug().to_string().replace("\\'", "'"),
        Value::Null => "-".to_owned(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.3}", number.as_f64().unwrap_or_default())
        }
        other => other.to_string(),
    }
}

/// The members of an object, each in a line.
pub(crate) fn members(value: &Value) -> String {
    let mut text = String::new();
    add_members(&mut text, "", value);
    text
}

fn add_members(text: &mut String, before: &str, value: &Value) {
    let Value::Object(members) = value else { return };
    for (name, value) in members {
        match value {
            Value::Object(_) => add_members(text, &format!("{before}{name}."), value),
            Value::Array(_) => {}
            _ => drop(writeln!(text, "{before}{name}: {}", plain(value))),
        }
    }
}

const SHARD_COLUMNS: [&str; 7] =
    ["shard", "connections", "busy", "cpu", "turns_per_s", "turn_p99_us", "kept_bytes"];
const TYPE_COLUMNS: [&str; 12] = [
    "server_type",
    "target",
    "up",
    "down",
    "in_flight",
    "answered",
    "failed",
    "timed_out",
    "lost",
    "rejected",
    "p50_us",
    "p99_us",
];

/// `/status`.
pub(super) fn status(value: &Value) -> String {
    let mut text = members(value);
    for reason in list(value, "unready") {
        writeln!(text, "not ready: {}", plain(reason)).ok();
    }
    for (name, columns) in [("shards", &SHARD_COLUMNS[..]), ("server_types", &TYPE_COLUMNS)] {
        let rows = list(value, name);
        if !rows.is_empty() {
            text.push('\n');
            text.push_str(&table(columns, rows));
        }
    }
    text
}

/// `/backends`.
pub(super) fn backends(value: &Value) -> String {
    let rows = list(value, "backends");
    let mut text = table(&TYPE_COLUMNS, rows);
    for row in rows {
        let Some(Value::Object(lanes)) = row.get("lanes") else { continue };
        for (server, depth) in lanes {
            writeln!(text, "lane to {}: {}", plain(&server.as_str().into()), plain(depth)).ok();
        }
    }
    text
}

/// An event of `/events`, in one line.
pub(super) fn event(name: &str, data: &Value) -> String {
    let figure = |name: &str| plain(data.get(name).unwrap_or(&Value::Null));
    let p99 = data.get("latency").and_then(|latency| latency.get("p99_us"));
    match name {
        "figures" => format!(
            "figures: connections {}, in {}/s, out {}/s, p99 {} us\n",
            figure("connections"),
            figure("messages_in_per_s"),
            figure("messages_out_per_s"),
            plain(p99.unwrap_or(&Value::Null)),
        ),
        _ => {
            let members = members(data);
            let members: Vec<_> = members.lines().collect();
            format!("{}: {}\n", name.escape_debug(), members.join(", "))
        }
    }
}

/// `/sessions`.
pub(super) fn sessions(value: &Value) -> String {
    let columns = [
        "id",
        "uid",
        "peer",
        "transport",
        "state",
        "age_s",
        "silent_ms",
        "outbox_bytes",
        "in_flight",
        "kept_bytes",
        "received_messages",
        "sent_messages",
        "sent_bytes",
        "last_route",
    ];
    let rows = list(value, "sessions");
    let mut text = table(&columns, rows);
    let count = |name| plain(value.get(name).unwrap_or(&Value::Null));
    let (shown, matching, all) = (rows.len(), count("matching"), count("all"));
    writeln!(text, "{shown} shown of {matching} that match, of {all} in all").ok();
    if let Some(next) = value.get("next").filter(|next| !next.is_null()) {
        writeln!(text, "there are more: --after {}", plain(next)).ok();
    }
    text + &missing_shards(value)
}

/// `/denied`.
pub(super) fn denied(value: &Value) -> String {
    let rows = list(value, "denied");
    let mut text = table(&["address", "seconds"], rows);
    let all = plain(value.get("all").unwrap_or(&Value::Null));
    writeln!(text, "{} shown of {all}; those without seconds have no end", rows.len()).ok();
    text
}

/// `/closed`.
pub(super) fn closed(value: &Value) -> String {
    let columns = [
        "id",
        "uid",
        "peer",
        "transport",
        "reason",
        "closed_unix_ms",
        "age_ms",
        "silent_ms",
        "outbox_bytes",
        "in_flight",
        "received_messages",
        "sent_messages",
        "last_route",
    ];
    let rows = list(value, "closed");
    let mut text = table(&columns, rows);
    let count = |name| plain(value.get(name).unwrap_or(&Value::Null));
    let (shown, matching, all) = (rows.len(), count("matching"), count("all"));
    writeln!(text, "{shown} shown of {matching} that match, of {all} that are kept").ok();
    text + &missing_shards(value)
}

/// The shards whose sessions a list lacks.
fn missing_shards(value: &Value) -> String {
    let missing: Vec<_> = list(value, "missing_shards").iter().map(plain).collect();
    match missing.is_empty() {
        true => String::new(),
        false => format!("shards that have not answered in time: {}\n", missing.join(", ")),
    }
}

/// `/recordings`.
pub(super) fn recordings(value: &Value) -> String {
    let columns = ["id", "of", "state", "over", "bodies", "records", "bytes", "lost"];
    table(&columns, list(value, "recordings"))
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], |list| list)
}

/// Rows below their columns' names.
fn table(columns: &[&str], rows: &[Value]) -> String {
    let cell = |row: &Value, column: &str| plain(row.get(column).unwrap_or(&Value::Null));
    let mut lines = vec![columns.iter().map(|name| name.to_uppercase()).collect::<Vec<_>>()];
    lines.extend(rows.iter().map(|row| columns.iter().map(|it| cell(row, it)).collect()));
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let cells: Vec<_> = cells.collect();
        writeln!(text, "{}", cells.join("  ").trim_end()).ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn columns_stand_below_each_other_and_no_client_writes_to_the_terminal() {
        let value = json!({
            "sessions": [
                {"id": "0.1.2", "uid": "amy\u{1b}[2J", "silent_ms": 5},
                {"id": "0.12.2", "uid": null},
            ],
            "matching": 2,
            "all": 3,
        });
        let text = sessions(&value);
        assert!(!text.contains('\u{1b}'), "{text}");
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("ID      UID"), "{text}");
        assert!(lines[1].starts_with("0.1.2   amy\\u{1b}[2J"), "{text}");
        assert!(lines[2].starts_with("0.12.2  -"), "{text}");
        assert_eq!(lines[3], "2 shown of 2 that match, of 3 in all");
        assert_eq!(lines.len(), 4);
        let text = sessions(&json!({"sessions": [], "missing_shards": [1, 3]}));
        assert!(text.ends_with("shards that have not answered in time: 1, 3\n"), "{text}");
    }

    #[test]
    fn members_are_lines() {
        let text = members(&json!({"a": 1, "b": {"c": "x y"}, "d": [1], "e": 0.5, "f": "it's"}));
        assert_eq!(text, "a: 1\nb.c: x y\ne: 0.500\nf: it's\n");
    }
}
