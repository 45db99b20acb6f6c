//! Keys that the environment sets: `SHADDOCK__LIMITS__BACKLOG=9` is `backlog = 9` under `[limits]`.
//!
//! Two underscores stand between a table and its key, and a number, from 1, for one of several
//! tables: `SHADDOCK__LISTENER__1__ADDRESS`. What is set here wins over the file.

use std::borrow::Cow;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::problem::Source;

/// The beginning of all names of variables that set a key.
pub(super) const PREFIX: &str = "SHADDOCK__";

/// Sets what the environment says in the table of the whole file. Gives those variables for which
/// there is no place, and why.
pub(super) fn overlay<'i>(
    source: &'i Source,
    root: &mut DeTable<'i>,
) -> Vec<(Range<usize>, &'static str)> {
    let mut misplaced = Vec::new();
    let mut variables: Vec<(Vec<String>, Range<usize>)> = Vec::new();
    for variable in &source.variables {
        let path = variable.name[PREFIX.len()..].split("__").map(str::to_ascii_lowercase);
        variables.push((path.collect(), variable.range.clone()));
    }
    // The tenth of several tables comes behind the second.
    let place = |part: &String| (part.parse::<usize>().ok(), part.clone());
    variables.sort_by_cached_key(|(path, _)| path.iter().map(place).collect::<Vec<_>>());
    for (path, range) in variables {
        let text = DeValue::String(Cow::Borrowed(&source.text[range.clone()]));
        let value = Spanned::new(range.clone(), text);
        if path.iter().any(String::is_empty) {
            misplaced.push((range, "a key such as SHADDOCK__SERVER__ID"));
        } else if let Err(expected) = set(root, &path, value) {
            misplaced.push((range, expected));
        }
    }
    misplaced
}

/// Sets a key below a table, and makes the tables on the way.
fn set<'i>(
    table: &mut DeTable<'i>,
    path: &[String],
    value: Spanned<DeValue<'i>>,
) -> Result<(), &'static str> {
    let (first, rest) = path.split_first().expect("a path has a key at least");
    let span = value.span();
    if rest.is_empty() {
        // With the key's own place, as that is where the value is from now on.
        table.remove(first.as_str());
        table.insert(Spanned::new(span, Cow::Owned(first.clone())), value);
        return Ok(());
    }
    if !table.contains_key(first.as_str()) {
        let empty = match rest[0].parse::<usize>() {
            Ok(_) => DeValue::Array(DeArray::new()),
            Err(_) => DeValue::Table(DeTable::new()),
        };
        let key = Spanned::new(span.clone(), Cow::Owned(first.clone()));
        table.insert(key, Spanned::new(span.clone(), empty));
    }
    let below = table.get_mut(first.as_str()).expect("it was there, or has been inserted");
    match below.get_mut() {
        DeValue::Table(table) => set(table, rest, value),
        DeValue::Array(tables) => {
            let number =
                rest[0].parse::<usize>().map_err(|_| "a number, from 1, for one of them")?;
            if number == tables.len() + 1 {
                tables.push(Spanned::new(span, DeValue::Table(DeTable::new())));
            }
            let element = number.checked_sub(1).and_then(|place| tables.get_mut(place));
            let element = element.ok_or("a number, from 1, without one left out before it")?;
            match (element.get_mut(), &rest[1..]) {
                (DeValue::Table(table), rest @ [_, ..]) => set(table, rest, value),
                (_, []) => {
                    *element = value;
                    Ok(())
                }
                _ => Err("a list without keys below it"),
            }
        }
        // A table that says where the value is, in the place of the value itself.
        other => {
            let mut table = DeTable::new();
            set(&mut table, rest, value)?;
            *other = DeValue::Table(table);
            Ok(())
        }
    }
}
