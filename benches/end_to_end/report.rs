//! Medians, ratios, a table, JSON, and a page with plots.

use std::fmt::Write as _;

use serde::Serialize;

use crate::common::report::{self, Spread, machine, table, unknown};
use crate::measure::{Point, Sample};
use crate::servers::Server;

/// All samples of a run of the benchmark.
#[derive(Serialize)]
pub(crate) struct Results {
    machine: String,
    rows: Vec<Row>,
    open_loop: Vec<OpenLoop>,
}

/// The samples of one server at one point, in the order of the rounds.
#[derive(Serialize)]
struct Row {
    server: &'static str,
    point: Point,
    samples: Vec<Sample>,
    system_calls: Option<f64>,
}

/// One server at a fixed rate.
#[derive(Serialize)]
pub(crate) struct OpenLoop {
    pub(crate) server: &'static str,
    pub(crate) rate: f64,
    pub(crate) sample: Sample,
}

impl Results {
    pub(crate) fn new(servers: &[Server], points: &[Point]) -> Self {
        let row = |point: Point, server: Server| Row {
            server: server.name(),
            point,
            samples: Vec::new(),
            system_calls: None,
        };
        let rows = points.iter().flat_map(|point| servers.iter().map(move |s| row(*point, *s)));
        Self { machine: machine(), rows: rows.collect(), open_loop: Vec::new() }
    }

    fn row(&self, server: &str, point: Point) -> Option<&Row> {
        self.rows.iter().find(|row| row.server == server && row.point == point)
    }

    fn row_mut(&mut self, server: Server, point: Point) -> &mut Row {
        let mut rows = self.rows.iter_mut();
        rows.find(|row| row.server == server.name() && row.point == point).expect("it was made")
    }

    pub(crate) fn add(&mut self, server: Server, point: Point, sample: Sample) {
        self.row_mut(server, point).samples.push(sample);
    }

    pub(crate) fn set_system_calls(&mut self, server: Server, point: Point, calls: Option<f64>) {
        self.row_mut(server, point).system_calls = calls;
    }

    pub(crate) fn add_open_loop(&mut self, open_loop: OpenLoop) {
        self.open_loop.push(open_loop);
    }

    /// The median rate of a server at a point.
    pub(crate) fn rate(&self, server: Server, point: Point) -> Option<f64> {
        let row = self.row(server.name(), point)?;
        Some(row.spread(|sample| sample.messages_per_second)?.median)
    }

    /// CPU per message as a multiple of the ceiling's, within each round.
    fn ratio(&self, row: &Row) -> Option<Spread> {
        let ceiling = self.row(Server::CEILING.name(), row.point)?;
        let pairs = row.samples.iter().zip(&ceiling.samples);
        Spread::of(pairs.map(|(sample, ceiling)| sample.cpu_us / ceiling.cpu_us))
    }

    pub(crate) fn print(&self) {
        println!("{}\n", self.machine);
        print_line(&COLUMNS.map(String::from));
        self.rows.iter().for_each(|row| print_line(&self.cells(row)));
        let Some(rate) = self.open_loop.first().map(|first| first.rate) else { return };
        println!("\n{}", open_loop_title(rate));
        for cells in
            std::iter::once(OPEN_LOOP_COLUMNS.map(String::from)).chain(self.open_loop_cells())
        {
            for (place, cell) in cells.iter().enumerate() {
                match place {
                    0 => print!("{cell:<17}"),
                    _ => print!(" {cell:>17}"),
                }
            }
            println!();
        }
    }

    /// A row as text, in the order of [`COLUMNS`].
    fn cells(&self, row: &Row) -> [String; 12] {
        let median = |digits: usize, value: fn(&Sample) -> f64| {
            row.spread(value).map_or_else(unknown, |s| format!("{:.digits$}", s.median))
        };
        let ratio = self.ratio(row).map_or_else(unknown, |ratio| ratio.text(2));
        let allocations = Spread::of(row.samples.iter().filter_map(|sample| sample.allocations));
        [
            row.point.name(),
            row.server.to_owned(),
            median(0, |s| s.messages_per_second),
            median(3, |s| s.cpu_us),
            median(3, |s| s.user_us),
            median(3, |s| s.system_us),
            ratio,
            median(1, |s| s.p50_us),
            median(1, |s| s.p99_us),
            median(1, |s| s.p999_us),
            row.system_calls.map_or_else(unknown, |calls| format!("{calls:.3}")),
            allocations.map_or_else(unknown, |spread| format!("{:.3}", spread.median)),
        ]
    }

    /// A server's median, and its ratio to the ceiling's within each round.
    fn open_loop_latency(&self, server: &'static str, value: fn(&Sample) -> f64) -> [String; 2] {
        let values = |server: &'static str| {
            let runs = self.open_loop.iter().filter(move |run| run.server == server);
            runs.map(move |run| value(&run.sample))
        };
        let median = Spread::of(values(server));
        let pairs = values(server).zip(values(Server::CEILING.name()));
        let ratio = Spread::of(pairs.map(|(value, ceiling)| value / ceiling));
        [
            median.map_or_else(unknown, |spread| format!("{:.1}", spread.median)),
            ratio.map_or_else(unknown, |ratio| ratio.text(2)),
        ]
    }

    /// Latencies of each server, in the order of measuring: medians, each followed by the ratio to
    /// the ceiling's within each round.
    fn open_loop_cells(&self) -> Vec<[String; 7]> {
        let mut servers: Vec<&'static str> = Vec::new();
        for run in &self.open_loop {
            if !servers.contains(&run.server) {
                servers.push(run.server);
            }
        }
        let row = |server: &&'static str| {
            let [p50, p50_ratio] = self.open_loop_latency(server, |sample| sample.p50_us);
            let [p99, p99_ratio] = self.open_loop_latency(server, |sample| sample.p99_us);
            let [p999, p999_ratio] = self.open_loop_latency(server, |sample| sample.p999_us);
            [(*server).to_owned(), p50, p50_ratio, p99, p99_ratio, p999, p999_ratio]
        };
        servers.iter().map(row).collect()
    }

    pub(crate) fn write(&self) -> std::io::Result<()> {
        report::write("end_to_end", self, &self.page())
    }

    fn page(&self) -> String {
        let mut page = report::page("end to end");
        let mut points: Vec<Point> = Vec::new();
        for row in &self.rows {
            if !points.contains(&row.point) {
                points.push(row.point);
            }
        }
        for point in points {
            let _ = write!(page, "<h2>{} (connections × in flight)</h2>", point.name());
            self.plot(point, &mut page);
            let rows = self.rows.iter().filter(|row| row.point == point);
            table(&COLUMNS, rows.map(|row| self.cells(row)), &mut page);
        }
        if let Some(first) = self.open_loop.first() {
            let _ = write!(page, "<h2>{}</h2>", open_loop_title(first.rate));
            table(&OPEN_LOOP_COLUMNS, self.open_loop_cells().into_iter(), &mut page);
        }
        page
    }

    /// Bars of CPU per message, with the spread over the rounds.
    fn plot(&self, point: Point, page: &mut String) {
        let rows: Vec<(&Row, Spread)> = self
            .rows
            .iter()
            .filter(|row| row.point == point)
            .filter_map(|row| Some((row, row.spread(|sample| sample.cpu_us)?)))
            .collect();
        let most = rows.iter().map(|(_, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
        let height = rows.len() * 26 + 8;
        let _ = write!(page, "<svg width=760 height={height}>");
        for (place, (row, spread)) in rows.iter().enumerate() {
            let y = place * 26 + 6;
            let width = |value: f64| value / most * 400.0;
            let ratio =
                self.ratio(row).map_or(String::new(), |ratio| format!(", {:.2}×", ratio.median));
            let _ = write!(
                page,
                "<text x=0 y={}>{}</text><rect x=140 y={y} width={:.1} height=16 fill=#e8825a/>\
                 <line x1={:.1} x2={:.1} y1={m} y2={m} stroke=#333 />\
                 <text x={:.1} y={}>{:.3} µs{ratio}</text>",
                y + 13,
                row.server,
                width(spread.median),
                140.0 + width(spread.min),
                140.0 + width(spread.max),
                150.0 + width(spread.max),
                y + 13,
                spread.median,
                m = y + 8,
            );
        }
        page.push_str("</svg>");
    }
}

const COLUMNS: [&str; 12] = [
    "point",
    "server",
    "msg/s",
    "CPU µs",
    "user",
    "system",
    "ratio (min–max)",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
    "syscalls",
    "allocs",
];
const OPEN_LOOP_COLUMNS: [&str; 7] =
    ["server", "p50 µs", "ratio (min–max)", "p99 µs", "ratio", "p99.9 µs", "ratio"];
const WIDTHS: [usize; 12] = [8, 17, 9, 8, 7, 7, 18, 9, 9, 9, 8, 7];

fn open_loop_title(rate: f64) -> String {
    format!("open loop, 50 connections at {rate:.0} msg/s, latency from when a request was due:")
}

fn print_line(cells: &[String; 12]) {
    for (place, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        // Names to the left, figures to the right.
        match place {
            0 | 1 => print!("{cell:<width$} "),
            _ => print!("{cell:>width$} "),
        }
    }
    println!();
}

impl Row {
    fn spread(&self, value: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(value))
    }
}
