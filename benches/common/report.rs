//! Medians, tables, JSON and a page.

use std::fmt::Write as _;

use serde::Serialize;

/// The least value, the median and the greatest.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) median: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { min, median: values[values.len() / 2], max })
    }

    /// The median, followed by the least and the greatest.
    pub(crate) fn text(self, digits: usize) -> String {
        format!("{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.min, self.max)
    }
}

/// The text for a missing figure.
pub(crate) fn unknown() -> String {
    "?".into()
}

/// Prints a table, as wide as its cells: names to the left, figures behind them to the right.
pub(crate) fn print_table<const N: usize>(columns: &[&str; N], rows: &[[String; N]], names: usize) {
    let columns = columns.map(String::from);
    let lines = || std::iter::once(&columns).chain(rows);
    let width = |place: usize| lines().map(|line| line[place].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for line in lines() {
        for (place, (cell, width)) in line.iter().zip(widths).enumerate() {
            match place < names {
                true => print!("{cell:<width$}  "),
                false => print!("{cell:>width$}  "),
            }
        }
        println!();
    }
}

/// A table of an HTML page.
pub(crate) fn table<const N: usize>(
    columns: &[&str; N],
    rows: impl Iterator<Item = [String; N]>,
    page: &mut String,
) {
    let _ = write!(page, "<table><tr><th>{}</tr>", columns.join("<th>"));
    for cells in rows {
        let _ = write!(page, "<tr><td>{}</tr>", cells.join("<td>"));
    }
    page.push_str("</table>");
}

/// The head of an HTML page.
pub(crate) fn page(title: &str) -> String {
    format!(
        "<!doctype html><meta charset=utf-8><title>Shaddock, {title}</title>\
         <style>body{{font:14px sans-serif;max-width:60em;margin:2em auto}}\
         svg text{{font:12px sans-serif}}table{{border-collapse:collapse}}\
         td,th{{padding:2px 8px;text-align:right;border-bottom:1px solid #ddd}}</style>\
         <h1>Shaddock, {title}</h1><p>{}</p>",
        machine()
    )
}

/// The folder of build results.
pub(crate) fn target() -> String {
    std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into())
}

/// Writes `NAME.json` and `NAME.html` into the folder of build results.
pub(crate) fn write(name: &str, results: &impl Serialize, page: &str) -> std::io::Result<()> {
    let target = target();
    std::fs::create_dir_all(&target)?;
    let json = serde_json::to_string_pretty(results)?;
    std::fs::write(format!("{target}/{name}.json"), json)?;
    std::fs::write(format!("{target}/{name}.html"), page)?;
    println!("\nwritten: {target}/{name}.json and .html");
    Ok(())
}

/// The kernel and processor, as the system names them.
pub(crate) fn machine() -> String {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("");
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    format!("Linux {}, {cores} cores, {model}", kernel.trim())
}
