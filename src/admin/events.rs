//! The events of `/events`: figures each second, and what was met at limits.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use super::http::Response;
use super::samples::Samples;
use super::status::{Figures, limits_met};

/// The head of a stream of events, with the time after which a page connects again.
pub(super) fn head() -> Response {
    Response::of(200, "text/event-stream", b"retry: 2000\n\n".to_vec())
}

/// The events of one second.
pub(super) fn of(samples: &Samples, is_draining: bool, was_draining: bool) -> Vec<u8> {
    let mut text = Vec::new();
    push(&mut text, "figures", &Figures::new(samples));
    let before: BTreeMap<_, _> = limits_met(&samples.before.metrics.counters);
    for (limit, count) in limits_met(&samples.last.metrics.counters) {
        let more = count - before.get(limit).copied().unwrap_or(0).min(count);
        if more > 0 {
            push(&mut text, "warning", &json!({ "limit": limit, "count": more }));
        }
    }
    if is_draining != was_draining {
        push(&mut text, "draining", &json!({ "draining": is_draining }));
    }
    text
}

fn push(text: &mut Vec<u8>, event: &str, data: &impl Serialize) {
    // JSON in one line.
    let data = serde_json::to_string(data).unwrap_or_default();
    text.extend_from_slice(format!("event: {event}\ndata: {data}\n\n").as_bytes());
}
