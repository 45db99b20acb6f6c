//! The figures of all parts.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::common::report::{self, Spread, machine, unknown};
use crate::measure::{Count, Memory, Push, SetUp, Storm};
use crate::servers::Server;
use crate::watched::Watched;

/// All samples, in the order in which they were taken.
#[derive(Serialize)]
pub(crate) struct Results {
    machine: String,
    pub(crate) memory: Vec<Memory>,
    pub(crate) set_up: Vec<SetUp>,
    pub(crate) storm: Vec<Storm>,
    pub(crate) push: Vec<Push>,
    pub(crate) count: Vec<Count>,
    pub(crate) watched: Vec<Watched>,
}

/// A part as text.
struct Table {
    title: &'static str,
    columns: [&'static str; COLUMNS],
    rows: Vec<[String; COLUMNS]>,
}

const COLUMNS: usize = 7;
/// Bytes of a connection from which a cache of the kernel is shown.
const CACHE_BYTES_MIN: f64 = 16.0;

impl Results {
    pub(crate) fn new() -> Self {
        Self {
            machine: machine(),
            memory: Vec::new(),
            set_up: Vec::new(),
            storm: Vec::new(),
            push: Vec::new(),
            count: Vec::new(),
            watched: Vec::new(),
        }
    }

    pub(crate) fn print(&self) {
        println!("{}", self.machine);
        for table in self.tables() {
            println!("\n{}", table.title);
            let cells = |place: usize| table.rows.iter().map(move |row| &*row[place]);
            let widths: Vec<usize> = (0..COLUMNS)
                .map(|place| {
                    let head = table.columns[place].chars().count();
                    cells(place).map(|cell| cell.chars().count()).fold(head, usize::max)
                })
                .collect();
            let print = |cells: &mut dyn Iterator<Item = &str>| {
                cells.zip(&widths).for_each(|(cell, width)| print!("{cell:>width$}  "));
                println!();
            };
            print(&mut table.columns.iter().copied());
            table.rows.iter().for_each(|row| print(&mut row.iter().map(String::as_str)));
        }
    }

    pub(crate) fn write(&self) -> std::io::Result<()> {
        let mut page = report::page("scale");
        for table in self.tables() {
            page.push_str(&format!("<h2>{}</h2>", table.title));
            report::table(&table.columns, table.rows.into_iter(), &mut page);
        }
        report::write("scale", self, &page)
    }

    /// The tables of the parts that were measured.
    fn tables(&self) -> Vec<Table> {
        let tables = [
            self.memory(),
            self.kernel_caches(),
            self.set_up(),
            self.storm(),
            self.push_to_all(),
            self.counts(),
            self.watched(),
        ];
        tables.into_iter().filter(|table| !table.rows.is_empty()).collect()
    }

    fn memory(&self) -> Table {
        let row = |samples: Vec<&Memory>| {
            row([
                samples[0].connections.to_string(),
                samples[0].server.name().into(),
                spread(&samples, 0, |sample| sample.bytes),
                spread(&samples, 0, |sample| sample.kernel_bytes),
            ])
        };
        let key = |sample: &Memory| (sample.connections, sample.server);
        Table {
            title: "memory of an idle connection, bytes (min–max)",
            columns: columns(["connections", "server", "process", "kernel, both ends"]),
            rows: groups(&self.memory, key).into_iter().map(row).collect(),
        }
    }

    /// The kernel's part by its caches, at the largest number of connections.
    fn kernel_caches(&self) -> Table {
        let most = self.memory.iter().map(|sample| sample.connections).max();
        let samples = self.memory.iter().filter(|sample| Some(sample.connections) == most);
        let samples: Vec<Memory> = samples.cloned().collect();
        let servers = groups(&samples, |sample| sample.server);
        let bytes = |samples: &[&Memory], cache: &str| {
            let bytes = |sample: &&Memory| sample.kernel_caches.get(cache).copied();
            Spread::of(samples.iter().map(|sample| bytes(sample).unwrap_or_default()))
        };
        let is_worth = |cache: &&String| {
            let medians = servers.iter().filter_map(|samples| bytes(samples, cache));
            medians.map(|spread| spread.median.abs()).fold(0.0, f64::max) >= CACHE_BYTES_MIN
        };
        let caches: BTreeSet<&String> =
            samples.iter().flat_map(|sample| sample.kernel_caches.keys()).collect();
        let cells = |cache: &String| {
            let mut cells: [String; COLUMNS] = std::array::from_fn(|_| String::new());
            cells[0].clone_from(cache);
            for (cell, samples) in cells[1..].iter_mut().zip(&servers) {
                *cell = bytes(samples, cache)
                    .map_or_else(unknown, |spread| format!("{:.0}", spread.median));
            }
            cells
        };
        let mut columns = [""; COLUMNS];
        columns[0] = "cache";
        for (column, samples) in columns[1..].iter_mut().zip(&servers) {
            *column = samples[0].server.name();
        }
        Table {
            title: "of the kernel's, by its caches, bytes, at the most connections; one \
                    name stands for all that the kernel has merged",
            columns,
            rows: caches.into_iter().filter(is_worth).map(cells).collect(),
        }
    }

    fn set_up(&self) -> Table {
        let row = |samples: Vec<&SetUp>| {
            row([
                samples[0].connections.to_string(),
                samples[0].server.name().into(),
                spread(&samples, 0, |sample| sample.per_second),
                spread(&samples, 1, |sample| sample.cpu_us),
                spread(&samples, 2, |sample| sample.p50_ms),
                spread(&samples, 2, |sample| sample.p99_ms),
            ])
        };
        Table {
            title: "connecting, 128 at a time, until the handshake is done",
            columns: columns(["connections", "server", "/s", "CPU µs", "p50 ms", "p99 ms"]),
            rows: groups(&self.set_up, |sample| sample.server).into_iter().map(row).collect(),
        }
    }

    fn storm(&self) -> Table {
        let row = |samples: Vec<&Storm>| {
            let sum = |value: fn(&Storm) -> u64| samples.iter().map(|s| value(s)).sum::<u64>();
            row([
                samples[0].connections.to_string(),
                samples[0].server.name().into(),
                spread(&samples, 2, |sample| sample.seconds),
                spread(&samples, 0, |sample| sample.p50_ms),
                spread(&samples, 0, |sample| sample.p99_ms),
                sum(|sample| sample.lost).to_string(),
                sum(|sample| sample.heartbeat_closes).to_string(),
            ])
        };
        let names =
            ["connections", "server", "all back, s", "p50 ms", "p99 ms", "lost", "for heartbeats"];
        Table {
            title: "all clients drop and come again at once",
            columns: columns(names),
            rows: groups(&self.storm, |sample| sample.server).into_iter().map(row).collect(),
        }
    }

    fn push_to_all(&self) -> Table {
        let key = |sample: &Push| (sample.body_bytes, sample.server);
        let groups = groups(&self.push, key);
        let row = |samples: &Vec<&Push>| {
            let first = samples[0];
            let is_ceiling = |other: &&Vec<&Push>| {
                other[0].server == Server::Ceiling && other[0].body_bytes == first.body_bytes
            };
            let ceiling = groups.iter().find(is_ceiling);
            row([
                format!("{} B to {}", first.body_bytes, first.connections),
                first.server.name().into(),
                spread(samples, 3, |sample| sample.cpu_us),
                spread(samples, 3, |sample| sample.user_us),
                ratio(samples, ceiling, |sample| sample.cpu_us),
            ])
        };
        Table {
            title: "a push to all, for each session",
            columns: columns(["push", "server", "CPU µs", "user", "ratio to the ceiling"]),
            rows: groups.iter().map(row).collect(),
        }
    }

    fn counts(&self) -> Table {
        let groups = groups(&self.count, |sample| (sample.connections, sample.server));
        let row = |samples: &Vec<&Count>| {
            let first = samples[0];
            // The fewest connections come first.
            let fewest = groups.iter().find(|other| other[0].server == first.server);
            let ceiling = groups.iter().find(|other| {
                other[0].server == Server::Ceiling && other[0].connections == first.connections
            });
            row([
                first.connections.to_string(),
                first.server.name().into(),
                spread(samples, 2, |sample| sample.cpu_us),
                spread(samples, 2, |sample| sample.user_us),
                ratio(samples, fewest, |sample| sample.cpu_us),
                ratio(samples, ceiling, |sample| sample.cpu_us),
                spread(samples, 0, |sample| sample.resident_mib),
            ])
        };
        let names =
            ["connections", "server", "CPU µs", "user", "to the fewest", "to the ceiling", "MiB"];
        Table {
            title: "messages at the same rate over more connections",
            columns: columns(names),
            rows: groups.iter().map(row).collect(),
        }
    }
}

impl Results {
    fn watched(&self) -> Table {
        let row = |samples: Vec<&Watched>| {
            let first = samples[0];
            row([
                format!("{} at {:.0}/s", first.sessions, first.without.rate),
                spread(&samples, 3, |sample| sample.without.cpu_us),
                spread(&samples, 3, |sample| sample.with.cpu_us),
                spread(&samples, 3, |sample| sample.with.cpu_us / sample.without.cpu_us),
                spread(&samples, 0, |sample| sample.without.p99_us),
                spread(&samples, 0, |sample| sample.with.p99_us),
                spread(&samples, 3, |sample| sample.with.p99_us / sample.without.p99_us),
            ])
        };
        let names = ["sessions", "CPU µs", "watched", "ratio", "p99 µs", "watched", "ratio"];
        Table {
            title: "scraped each second, with top, a page and a recording of one session; ratios \
                    of 1.02 at most are wanted",
            columns: columns(names),
            rows: groups(&self.watched, |sample| sample.sessions).into_iter().map(row).collect(),
        }
    }
}

/// Samples of the same kind, in the order of the rounds.
fn groups<T, K: PartialEq>(samples: &[T], key: impl Fn(&T) -> K) -> Vec<Vec<&T>> {
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for sample in samples {
        match groups.iter_mut().find(|group| key(group[0]) == key(sample)) {
            Some(group) => group.push(sample),
            None => groups.push(vec![sample]),
        }
    }
    groups
}

fn spread<T>(samples: &[&T], digits: usize, value: impl Fn(&T) -> f64) -> String {
    let spread = Spread::of(samples.iter().map(|sample| value(sample)));
    spread.map_or_else(unknown, |spread| spread.text(digits))
}

/// The ratio within each round.
fn ratio<T>(samples: &[&T], base: Option<&Vec<&T>>, value: impl Fn(&T) -> f64) -> String {
    let pairs = samples.iter().zip(base.into_iter().flatten());
    let spread = Spread::of(pairs.map(|(sample, base)| value(sample) / value(base)));
    spread.map_or_else(unknown, |spread| spread.text(2))
}

fn columns<const N: usize>(names: [&'static str; N]) -> [&'static str; COLUMNS] {
    std::array::from_fn(|place| names.get(place).copied().unwrap_or_default())
}

fn row<const N: usize>(cells: [String; N]) -> [String; COLUMNS] {
    let mut cells = cells.into_iter();
    std::array::from_fn(|_| cells.next().unwrap_or_default())
}
