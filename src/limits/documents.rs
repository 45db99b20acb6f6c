//! A comparison of the table of limits with the documents that list them.

use std::collections::BTreeMap;

use super::{Limit, Limits, turn};

const DOCUMENT: &str = include_str!("../../docs/limits.md");
const EXAMPLE: &str = include_str!("../../shaddock.example.toml");

#[test]
fn the_document_has_every_limit_as_it_is() {
    let differences = differences_of_document(DOCUMENT);
    assert!(differences.is_empty(), "docs/limits.md:\n{}", differences.join("\n"));
}

#[test]
fn the_example_has_every_limit_as_it_is() {
    let differences = differences_of_example(EXAMPLE);
    assert!(differences.is_empty(), "shaddock.example.toml:\n{}", differences.join("\n"));
}

#[test]
fn a_document_that_differs_is_found() {
    let row = |text: &str| DOCUMENT.replace("| `tasks_max` | 65,536 |", text);
    let of_turn = |text: &str| DOCUMENT.replace("| `HELD_PER_TURN` | 8 | sessions", text);
    for (text, key) in [
        (row("| tasks | 65,536 |"), "tasks_max"),
        (row("| `tasks_max` | 65,535 |"), "tasks_max"),
        (row("| `tasks_max` | 65,536 | x"), "tasks_max"),
        (row("| `task_max` | 65,536 |"), "task_max"),
        (DOCUMENT.replace(" | `task_rejects` |", " | |"), "tasks_max"),
        (DOCUMENT.replace(" | `task_rejects` |", " | `task_rejects`, `answers` |"), "tasks_max"),
        (of_turn("| held | 8 | sessions"), "HELD_PER_TURN"),
        (of_turn("| `HELD_PER_TURN` | 9 | sessions"), "HELD_PER_TURN"),
        (of_turn("| `HELD_PER_TURN` | 8 | clients"), "HELD_PER_TURN"),
        (DOCUMENT.replace(" | `compression_skips` |", " | |"), "DEFLATED_PER_TURN"),
    ] {
        let differences = differences_of_document(&text);
        assert!(differences.iter().any(|of| of.starts_with(key)), "{key}: {differences:?}");
    }
    let line = "tasks_max = 65_536";
    for (text, key) in [
        (EXAMPLE.replace(line, ""), "tasks_max"),
        (EXAMPLE.replace(line, "tasks_max = 65_535"), "tasks_max"),
        (EXAMPLE.replace("# Async handlers, filters", "# Handlers"), "tasks_max"),
        (EXAMPLE.replace(line, "task_max = 65_536"), "task_max"),
    ] {
        let differences = differences_of_example(&text);
        assert!(differences.iter().any(|of| of.starts_with(key)), "{key}: {differences:?}");
    }
}

/// Compares the tables whose heads begin with `| limit | default |` and `| bound | value |` with
/// those of the code. A row is of a limit if its first cell is a name in code and nothing else.
fn differences_of_document(text: &str) -> Vec<String> {
    let expected = |limit: &Limit| {
        let counters: Vec<_> = limit.counters.iter().map(|name| format!("`{name}`")).collect();
        let told = if counters.is_empty() { limit.told.to_owned() } else { counters.join(", ") };
        vec![default_of_document(limit), unit_of_document(limit), told]
    };
    let mut differences = Vec::new();
    for (head, limits) in
        [("| limit | default | unit |", Limits::table()), ("| bound | value | unit |", turn::TABLE)]
    {
        let rows = rows_of_document(text, head, &mut differences);
        differences.extend(compare(limits, rows, expected));
    }
    differences
}

/// Finds the rows of all tables with such a head: default, unit and counter by the name.
fn rows_of_document<'t>(
    text: &'t str,
    head: &str,
    differences: &mut Vec<String>,
) -> BTreeMap<&'t str, Vec<String>> {
    let mut rows = BTreeMap::new();
    let mut is_inside = false;
    for line in text.lines() {
        is_inside = line.starts_with(head) || is_inside && line.starts_with('|');
        let cells = line.strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        let cells: Vec<&str> = cells.unwrap_or_default().split('|').map(str::trim).collect();
        let [key, default, unit, _, counters] = cells[..] else { continue };
        let Some(key) = key.strip_prefix('`').and_then(|key| key.strip_suffix('`')) else {
            continue;
        };
        let row = [default, unit, counters].map(str::to_owned).to_vec();
        if is_inside && rows.insert(key, row).is_some() {
            differences.push(format!("{key}: there are two rows"));
        }
    }
    rows
}

/// Compares keys, their values and the beginning of the comment above each.
fn differences_of_example(text: &str) -> Vec<String> {
    let (_, section) = text.split_once("\n[limits]\n").expect("a section of limits");
    let (section, _) = section.split_once("\n[").expect("a section behind it");
    let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut comment = String::new();
    for line in section.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment.push_str(text);
            comment.push(' ');
        } else if let Some((key, value)) = line.split_once(" = ") {
            let unit = Limits::table().iter().find(|limit| limit.key == key).map(unit_of_example);
            let unit = unit.filter(|unit| comment.starts_with(unit));
            let comment_start = unit.map_or_else(|| comment.clone(), str::to_owned);
            rows.insert(key, vec![value.to_owned(), comment_start]);
            comment.clear();
        }
    }
    let expected =
        |limit: &Limit| vec![default_of_example(limit), unit_of_example(limit).to_owned()];
    compare(Limits::table(), rows, expected)
}

/// Finds the limits without a row, with another one, and the rows without a limit.
fn compare(
    limits: &[Limit],
    mut rows: BTreeMap<&str, Vec<String>>,
    expected: impl Fn(&Limit) -> Vec<String>,
) -> Vec<String> {
    let mut differences = Vec::new();
    for limit in limits {
        let expected = expected(limit);
        match rows.remove(limit.key) {
            Some(row) if row == expected => {}
            Some(row) => {
                let key = limit.key;
                differences.push(format!("{key}: expected {expected:?}, found {row:?}"));
            }
            None => differences.push(format!("{}: missing; {expected:?}", limit.key)),
        }
    }
    differences.extend(rows.keys().map(|key| format!("{key}: no such limit")));
    differences
}

fn default_of_document(limit: &Limit) -> String {
    match limit.default {
        "0" => "0: no bound".to_owned(),
        default => default.replace('_', ","),
    }
}

/// The unit as it stands in a cell: no sentence.
fn unit_of_document(limit: &Limit) -> String {
    let (first, rest) = unit_of_example(limit).split_at(1);
    first.to_ascii_lowercase() + rest
}

/// The unit as a comment begins with it, which may go on behind it.
fn unit_of_example(limit: &Limit) -> &str {
    limit.unit.trim_end_matches('.')
}

fn default_of_example(limit: &Limit) -> String {
    match limit.default.split_once(' ') {
        None => limit.default.to_owned(),
        Some((millis, "ms")) => format!("\"{millis}ms\""),
        Some((seconds, "s")) => format!("\"{seconds}s\""),
        Some(_) => format!("\"{}\"", limit.default),
    }
}
