//! The output of a soak.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Results, Row};

const COLUMNS: [&str; 11] = [
    "interval",
    "requests/s",
    "load p50 / p99, µs",
    "healthy p50 / p99, µs",
    "memory, MiB",
    "most, MiB",
    "descriptors",
    "threads",
    "connections",
    "closes by reason",
    "troubles",
];

fn cells(place: usize, row: &Row) -> [String; 11] {
    let mib = |bytes: u64| format!("{:.1}", bytes as f64 / f64::from(1 << 20));
    let pair = |p50: f64, p99: f64| format!("{p50:.0} / {p99:.0}");
    [
        (place + 1).to_string(),
        format!("{:.0}", row.requests_per_second),
        pair(row.load_p50_us, row.load_p99_us),
        pair(row.healthy_p50_us, row.healthy_p99_us),
        mib(row.resident_bytes),
        mib(row.resident_max_bytes),
        row.descriptors.to_string(),
        row.threads.to_string(),
        row.connections.to_string(),
        list(&row.closes),
        row.troubles.values().sum::<u64>().to_string(),
    ]
}

fn list<K: std::fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let each: Vec<String> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    each.join(", ")
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let cells: Vec<&str> = cells.iter().map(AsRef::as_ref).collect();
    format!("| {} |", cells.join(" | "))
}

pub(super) fn head() {
    println!("{}", line(&COLUMNS));
}

pub(super) fn print(place: usize, row: &Row) {
    println!("{}", line(&cells(place, row)));
}

/// Writes `soak.json` and `soak.md` into the folder of build results.
pub(super) fn write(results: &Results) -> std::io::Result<()> {
    let target = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".into());
    std::fs::create_dir_all(&target)?;
    std::fs::write(format!("{target}/soak.json"), serde_json::to_string_pretty(results)?)?;
    std::fs::write(format!("{target}/soak.md"), page(results))?;
    println!("\nwritten: {target}/soak.json and .md");
    Ok(())
}

fn page(results: &Results) -> String {
    let mut page = String::new();
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let (first, last) = (results.first_third_max_bytes, results.last_third_max_bytes);
    let mut troubles: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in results.rows.iter().flat_map(|row| &row.troubles) {
        *troubles.entry(name).or_default() += count;
    }
    let _ = writeln!(
        page,
        "{}. {} minutes, seed {}; a closed loop reached {:.0} requests/s at the start, the load was \
         {:.0} a second.\n",
        results.machine, results.minutes, results.seed, results.capacity, results.rate,
    );
    let _ = writeln!(
        page,
        "- memory, most in the first and the last third: {:.1} and {:.1} MiB ({:+.1} %)\n\
         - descriptors before and after: {} and {}; threads: {} and {}\n\
         - connections when all had gone: {}\n\
         - troubles: {}\n\
         - failed: {}\n",
        mib(first),
        mib(last),
        (last as f64 / first as f64 - 1.0) * 100.0,
        results.descriptors_before,
        results.descriptors_after,
        results.threads_before,
        results.threads_after,
        results.connections_after,
        list(&troubles),
        if results.failures.is_empty() { "nothing".into() } else { results.failures.join("; ") },
    );
    let _ = writeln!(page, "{}\n|{}", line(&COLUMNS), "---|".repeat(COLUMNS.len()));
    for (place, row) in results.rows.iter().enumerate() {
        let _ = writeln!(page, "{}", line(&cells(place, row)));
    }
    page
}
