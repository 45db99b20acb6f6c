//! Medians, ratios, a table, JSON, and a page with plots.

use std::fmt::Write as _;

use serde::Serialize;

use crate::common::report::{self, Spread, machine, print_table, table, unknown};
use crate::measure::Sample;
use crate::servers::Server;
use crate::work::{Point, Rate};

/// All samples of a run of the benchmark.
#[derive(Serialize)]
pub(crate) struct Results {
    machine: String,
    /// The server to which ratios are.
    base: &'static str,
    #[serde(rename = "rows")]
    pub(crate) points: Rows<Point>,
    open_loop: Vec<OpenLoop>,
    pub(crate) rates: Rows<Rate>,
    /// By the number of connections that are made at a time. A message is a connection.
    pub(crate) handshakes: Rows<u32>,
}

/// A kind of load with its numbers.
pub(crate) trait Load: Copy + PartialEq {
    /// The text that names it in a table.
    fn name(self) -> String;
}

impl Load for Point {
    fn name(self) -> String {
        self.name()
    }
}

impl Load for Rate {
    fn name(self) -> String {
        self.name()
    }
}

/// TLS connections that are made at a time.
impl Load for u32 {
    fn name(self) -> String {
        format!("handshakes, {self} at a time")
    }
}

/// The samples of servers under some kind of load, in the order in which they were first measured.
#[derive(Serialize)]
#[serde(transparent)]
pub(crate) struct Rows<P>(Vec<Row<P>>);

/// The samples of one server at one point, in the order of the rounds.
#[derive(Serialize)]
struct Row<P> {
    server: &'static str,
    point: P,
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

impl<P: Load> Rows<P> {
    fn find(&self, server: &str, point: P) -> Option<&Row<P>> {
        self.0.iter().find(|row| row.server == server && row.point == point)
    }

    fn find_mut(&mut self, server: Server, point: P) -> &mut Row<P> {
        let server = server.name();
        let place = self.0.iter().position(|row| row.server == server && row.point == point);
        let place = place.unwrap_or_else(|| {
            self.0.push(Row { server, point, samples: Vec::new(), system_calls: None });
            self.0.len() - 1
        });
        &mut self.0[place]
    }

    pub(crate) fn add(&mut self, server: Server, point: P, sample: Sample) {
        self.find_mut(server, point).samples.push(sample);
    }

    pub(crate) fn set_system_calls(&mut self, server: Server, point: P, calls: Option<f64>) {
        self.find_mut(server, point).system_calls = calls;
    }

    /// The median rate of a server at a point.
    pub(crate) fn rate(&self, server: Server, point: P) -> Option<f64> {
        let row = self.find(server.name(), point)?;
        Some(row.spread(|sample| sample.messages_per_second)?.median)
    }

    /// CPU per message as a multiple of another server's, within each round.
    fn ratio(&self, row: &Row<P>, base: &str) -> Option<Spread> {
        let base = self.find(base, row.point)?;
        let pairs = row.samples.iter().zip(&base.samples);
        Spread::of(pairs.map(|(sample, base)| sample.cpu_us / base.cpu_us))
    }

    /// Shaddock's CPU per message as a multiple of that of each peer, by peer and point.
    fn pairs(&self) -> Vec<[String; 4]> {
        let cells = |point: P| {
            PAIRS.iter().filter_map(move |(server, peer)| {
                let row = self.find(server.name(), point)?;
                let ratio = self.ratio(row, peer.name())?;
                Some([
                    point.name(),
                    server.name().to_owned(),
                    peer.name().to_owned(),
                    ratio.text(2),
                ])
            })
        };
        self.points().into_iter().flat_map(cells).collect()
    }

    /// A table for README.md: the base's CPU per message, and that of the others as its multiple.
    fn markdown(&self, base: &str) -> String {
        let mut others: Vec<&str> = Vec::new();
        for row in self.0.iter().filter(|row| row.server != base) {
            if !others.contains(&row.server) {
                others.push(row.server);
            }
        }
        let mut text = format!("| | {base} | {} |\n", others.join(" | "));
        let _ = writeln!(text, "|---{}|", "|---".repeat(1 + others.len()));
        for point in self.points() {
            let cpu =
                self.find(base, point).map_or_else(unknown, |row| row.median(2, |s| s.cpu_us));
            let _ = write!(text, "| {} | {cpu} µs |", point.name().replace('x', " × "));
            for server in &others {
                let ratio = self.find(server, point).and_then(|row| self.ratio(row, base));
                let cell = ratio.map_or_else(String::new, |ratio| format!("{:.2}×", ratio.median));
                let _ = write!(text, " {cell} |");
            }
            text.push('\n');
        }
        text
    }

    /// The points, in the order in which they were first measured.
    fn points(&self) -> Vec<P> {
        let mut points: Vec<P> = Vec::new();
        for row in &self.0 {
            if !points.contains(&row.point) {
                points.push(row.point);
            }
        }
        points
    }
}

impl<P> Row<P> {
    fn spread(&self, value: fn(&Sample) -> f64) -> Option<Spread> {
        Spread::of(self.samples.iter().map(value))
    }

    fn median(&self, digits: usize, value: fn(&Sample) -> f64) -> String {
        let spread = self.spread(value);
        spread.map_or_else(unknown, |spread| format!("{:.digits$}", spread.median))
    }

    /// The median of what not all servers count.
    fn counted(&self, value: fn(&Sample) -> Option<f64>) -> String {
        let spread = Spread::of(self.samples.iter().filter_map(value));
        spread.map_or_else(unknown, |spread| format!("{:.3}", spread.median))
    }

    fn system_calls(&self) -> String {
        self.system_calls.map_or_else(unknown, |calls| format!("{calls:.3}"))
    }
}

fn ratio_text(ratio: Option<Spread>) -> String {
    ratio.map_or_else(unknown, |ratio| ratio.text(2))
}

impl Results {
    pub(crate) fn new(base: Server) -> Self {
        Self {
            machine: machine(),
            base: base.name(),
            points: Rows(Vec::new()),
            open_loop: Vec::new(),
            rates: Rows(Vec::new()),
            handshakes: Rows(Vec::new()),
        }
    }

    pub(crate) fn add_open_loop(&mut self, open_loop: OpenLoop) {
        self.open_loop.push(open_loop);
    }

    pub(crate) fn print(&self) {
        println!("{}; ratios are to {}", self.machine, self.base);
        let points: Vec<_> = self.points.0.iter().map(|row| self.cells(row)).collect();
        if !points.is_empty() {
            println!();
            print_table(&COLUMNS, &points, 2);
        }
        if let Some(first) = self.open_loop.first() {
            println!("\n{}", open_loop_title(first.rate));
            print_table(&OPEN_LOOP_COLUMNS, &self.open_loop_cells(), 1);
        }
        if !self.rates.0.is_empty() {
            println!("\n{RATES_TITLE}");
            print_table(&RATES_COLUMNS, &self.rates_cells(), 2);
        }
        if !self.handshakes.0.is_empty() {
            println!("\n{HANDSHAKES_TITLE}");
            print_table(&HANDSHAKES_COLUMNS, &self.handshakes_cells(), 1);
        }
        let pairs = self.pairs();
        if !pairs.is_empty() {
            println!("\n{PAIRS_TITLE}");
            print_table(&PAIRS_COLUMNS, &pairs, 3);
        }
    }

    /// Shaddock beside its peers under all loads.
    fn pairs(&self) -> Vec<[String; 4]> {
        [self.points.pairs(), self.rates.pairs(), self.handshakes.pairs()].concat()
    }

    /// A row as text, in the order of [`COLUMNS`].
    fn cells(&self, row: &Row<Point>) -> [String; 12] {
        [
            row.point.name(),
            row.server.to_owned(),
            row.median(0, |s| s.messages_per_second),
            row.median(3, |s| s.cpu_us),
            row.median(3, |s| s.user_us),
            row.median(3, |s| s.system_us),
            ratio_text(self.points.ratio(row, self.base)),
            row.median(1, |s| s.p50_us),
            row.median(1, |s| s.p99_us),
            row.median(1, |s| s.p999_us),
            row.system_calls(),
            row.counted(|s| s.allocations),
        ]
    }

    fn rates_cells(&self) -> Vec<[String; 13]> {
        let cells = |point: &Rate| {
            let rows = self.rates.0.iter().filter(move |row| row.point == *point);
            rows.map(|row| {
                [
                    row.point.name(),
                    row.server.to_owned(),
                    row.median(0, |s| s.messages_per_second),
                    row.median(2, |s| s.cpu_us),
                    row.median(2, |s| s.user_us),
                    row.median(2, |s| s.system_us),
                    ratio_text(self.rates.ratio(row, self.base)),
                    row.counted(|s| s.turns),
                    row.system_calls(),
                    row.counted(|s| s.allocations),
                    row.median(1, |s| s.p50_us),
                    row.median(1, |s| s.p99_us),
                    row.median(1, |s| s.p999_us),
                ]
            })
            .collect::<Vec<_>>()
        };
        self.rates.points().iter().flat_map(cells).collect()
    }

    fn handshakes_cells(&self) -> Vec<[String; 9]> {
        let cells = |row: &Row<u32>| {
            [
                row.server.to_owned(),
                row.median(0, |s| s.messages_per_second),
                row.median(1, |s| s.cpu_us),
                row.median(1, |s| s.user_us),
                row.median(1, |s| s.system_us),
                ratio_text(self.handshakes.ratio(row, self.base)),
                row.median(1, |s| s.client_cpu_us),
                row.median(2, |s| s.p50_us / 1e3),
                row.median(2, |s| s.p99_us / 1e3),
            ]
        };
        self.handshakes.0.iter().map(cells).collect()
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
        report::write("end_to_end", self, &self.page())?;
        let regimes = [self.points.markdown(self.base), self.rates.markdown(self.base)];
        let path = format!("{}/end_to_end.md", report::target());
        std::fs::write(path, regimes.join("\n"))
    }

    fn page(&self) -> String {
        let mut page = report::page("end to end");
        for point in self.points.points() {
            let _ = write!(page, "<h2>{} (connections × in flight)</h2>", point.name());
            self.plot(point, &mut page);
            let rows = self.points.0.iter().filter(|row| row.point == point);
            table(&COLUMNS, rows.map(|row| self.cells(row)), &mut page);
        }
        if let Some(first) = self.open_loop.first() {
            let _ = write!(page, "<h2>{}</h2>", open_loop_title(first.rate));
            table(&OPEN_LOOP_COLUMNS, self.open_loop_cells().into_iter(), &mut page);
        }
        if !self.rates.0.is_empty() {
            let _ = write!(page, "<h2>{RATES_TITLE}</h2>");
            table(&RATES_COLUMNS, self.rates_cells().into_iter(), &mut page);
        }
        if !self.handshakes.0.is_empty() {
            let _ = write!(page, "<h2>{HANDSHAKES_TITLE}</h2>");
            table(&HANDSHAKES_COLUMNS, self.handshakes_cells().into_iter(), &mut page);
        }
        let pairs = self.pairs();
        if !pairs.is_empty() {
            let _ = write!(page, "<h2>{PAIRS_TITLE}</h2>");
            table(&PAIRS_COLUMNS, pairs.into_iter(), &mut page);
        }
        page
    }

    /// Bars of CPU per message, with the spread over the rounds.
    fn plot(&self, point: Point, page: &mut String) {
        let rows: Vec<(&Row<Point>, Spread)> = self
            .points
            .0
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
            let ratio = self.points.ratio(row, self.base);
            let ratio = ratio.map_or(String::new(), |ratio| format!(", {:.2}×", ratio.median));
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
const RATES_TITLE: &str =
    "open loop, messages/s × connections, each figure per message, latency from when it was due:";
const RATES_COLUMNS: [&str; 13] = [
    "rate",
    "server",
    "msg/s",
    "CPU µs",
    "user",
    "system",
    "ratio (min–max)",
    "turns",
    "syscalls",
    "allocs",
    "p50 µs",
    "p99 µs",
    "p99.9 µs",
];
const HANDSHAKES_TITLE: &str =
    "connections, each with TLS's full handshake and Pomelo's, 16 at a time:";
const HANDSHAKES_COLUMNS: [&str; 9] = [
    "server",
    "/s",
    "CPU µs",
    "user",
    "system",
    "ratio (min–max)",
    "client CPU µs",
    "p50 ms",
    "p99 ms",
];

const PAIRS_TITLE: &str = "CPU of Shaddock ÷ that of a peer, within each round:";
const PAIRS_COLUMNS: [&str; 4] = ["load", "server", "÷", "ratio (min–max)"];
/// Shaddock's servers, each with one that does the same.
const PAIRS: [(Server, Server); 9] = [
    (Server::Shaddock, Server::Tokio),
    (Server::Shaddock, Server::Glommio),
    (Server::ShaddockPoll, Server::Tokio),
    (Server::ShaddockWebSocket, Server::FastWebSockets),
    (Server::ShaddockWebSocket, Server::Tungstenite),
    (Server::ShaddockWebSocket, Server::Bun),
    (Server::ShaddockTls, Server::TokioTls),
    (Server::ShaddockWss, Server::BunWss),
    (Server::Shaddock, Server::Pomelo),
];

fn open_loop_title(rate: f64) -> String {
    format!("open loop, 50 connections at {rate:.0} msg/s, latency from when a request was due:")
}
