//! Latencies as a picture: how many messages took how long, and the quantiles.

use std::fmt::Write as _;

use hdrhistogram::Histogram;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 50.0;
const BOTTOM: f64 = 40.0;
/// Bars to each doubling of the latency.
const BARS_PER_OCTAVE: f64 = 8.0;

/// A histogram over a logarithmic scale of latencies.
pub(crate) fn svg(latency: &Histogram<u64>) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" \
         font-family=\"sans-serif\" font-size=\"12\">",
        WIDTH + LEFT + 20.0,
        HEIGHT + BOTTOM + 20.0
    );
    if !latency.is_empty() {
        bars(latency, &mut svg);
        quantiles(latency, &mut svg);
    }
    svg.push_str("</svg>\n");
    svg
}

/// The position of a latency on the axis: 0 at the least, 1 at the greatest.
fn position(latency: &Histogram<u64>, ns: f64) -> f64 {
    let (min, max) = ((latency.min().max(1) as f64).log2(), (latency.max().max(2) as f64).log2());
    ((ns.max(1.0).log2() - min) / (max - min).max(0.01)).clamp(0.0, 1.0)
}

fn bars(latency: &Histogram<u64>, svg: &mut String) {
    let mut counts: Vec<(i32, u64)> = Vec::new();
    for step in latency.iter_recorded() {
        let bar = ((step.value_iterated_to().max(1) as f64).log2() * BARS_PER_OCTAVE) as i32;
        match counts.last_mut() {
            Some((last, count)) if *last == bar => *count += step.count_since_last_iteration(),
            _ => counts.push((bar, step.count_since_last_iteration())),
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
    for (bar, count) in counts {
        let edge = |bar: i32| {
            LEFT + position(latency, f64::exp2(f64::from(bar) / BARS_PER_OCTAVE)) * WIDTH
        };
        let (from, to) = (edge(bar), edge(bar + 1));
        let height = count as f64 / most * HEIGHT;
        let _ = write!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{height:.1}\" \
             fill=\"#e8825a\"/>",
            10.0 + HEIGHT - height,
            (to - from - 1.0).max(1.0)
        );
    }
}

fn quantiles(latency: &Histogram<u64>, svg: &mut String) {
    for (row, (share, name)) in
        [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (1.0, "max")].into_iter().enumerate()
    {
        let ns = latency.value_at_quantile(share) as f64;
        let x = LEFT + position(latency, ns) * WIDTH;
        let base = 10.0 + HEIGHT;
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"10\" y2=\"{:.1}\" stroke=\"#333\" \
             stroke-dasharray=\"2 3\"/><text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">\
             {name} {:.1} µs</text>",
            base + 4.0,
            x.max(LEFT + 70.0),
            base + 14.0 + (row % 2) as f64 * 14.0,
            ns / 1e3
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_shows_its_quantiles() {
        let mut latency = Histogram::new(3).unwrap();
        for us in 1..1000_u64 {
            latency.record(us * 1000).unwrap();
        }
        let svg = svg(&latency);
        assert!(svg.contains("p99.9") && svg.contains("<rect"));
        assert!(!self::svg(&Histogram::new(3).unwrap()).contains("<rect"));
    }
}
