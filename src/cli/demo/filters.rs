//! A global filter, which sees what every client sends, and a local one, which sees what is
//! handled on its own server. Both count, and refuse what asks for it. And one that does what
//! Pomelo itself does to arrays.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::{Value, json};
use shaddock::{Filter, Reply, Request, Session, Verdict};

use super::js;

/// Counts of the runs of one thread's filters, which alone counts here. On a cache line of its own,
/// as every message counts four times.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct Counts {
    global_before: AtomicU64,
    global_after: AtomicU64,
    before: AtomicU64,
    after: AtomicU64,
}

impl Counts {
    /// The sum of all threads, as `filterCounts` answers it.
    pub(crate) fn sum<'a>(all: impl Iterator<Item = &'a Self> + Clone) -> Value {
        let sum = |count: fn(&Self) -> &AtomicU64| -> u64 {
            all.clone().map(|counts| count(counts).load(Ordering::Relaxed)).sum()
        };
        json!({
            "gb": sum(|counts| &counts.global_before),
            "ga": sum(|counts| &counts.global_after),
            "lb": sum(|counts| &counts.before),
            "la": sum(|counts| &counts.after),
        })
    }
}

/// Counts, on the only thread that does.
fn count(counter: &AtomicU64) {
    counter.store(counter.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

/// Refuses bodies with a `globalRefuse`.
#[derive(Debug)]
pub(crate) struct GlobalFilter(pub(crate) Arc<Counts>);

impl Filter for GlobalFilter {
    fn before(&self, request: &Request<'_>, _: &mut Session) -> Verdict {
        count(&self.0.global_before);
        refuse(request, global_refusal)
    }

    fn after(&self, _: &Request<'_>, _: &mut Session, _: &mut Reply<'_>) {
        count(&self.0.global_after);
    }
}

/// Refuses bodies with a `localRefuse` or `localRefuseBare`.
#[derive(Debug, Default)]
pub(crate) struct LocalFilter(pub(crate) Arc<Counts>);

impl Filter for LocalFilter {
    fn before(&self, request: &Request<'_>, _: &mut Session) -> Verdict {
        count(&self.0.before);
        refuse(request, local_refusal)
    }

    fn after(&self, _: &Request<'_>, _: &mut Session, _: &mut Reply<'_>) {
        count(&self.0.after);
    }
}

/// Refuses bodies that are arrays.
///
/// Pomelo spreads an array over the arguments of a handler, so that one on a backend throws, which
/// answers 500 (docs/protocol/differences.md, "Hostile input", A6).
#[derive(Debug)]
pub(crate) struct NoArrays;

impl Filter for NoArrays {
    fn before(&self, request: &Request<'_>, _: &mut Session) -> Verdict {
        if is_array(request) { Verdict::Refuse(Reply::error()) } else { Verdict::Continue }
    }
}

/// The body is parsed only if it begins like one.
fn is_array(request: &Request<'_>) -> bool {
    request.body().trim_ascii_start().starts_with(b"[") && request.value().is_array()
}

fn refuse(
    request: &Request<'_>,
    refusal: impl FnOnce(&Value) -> Option<Reply<'static>>,
) -> Verdict {
    if !may_refuse(request.body()) {
        return Verdict::Continue;
    }
    refusal(&request.value()).map_or(Verdict::Continue, Verdict::Refuse)
}

fn global_refusal(body: &Value) -> Option<Reply<'static>> {
    js::truthy(body, "globalRefuse")
        .map(|_| Reply::error_json(&json!({"code": 403, "by": "global"})))
}

fn local_refusal(body: &Value) -> Option<Reply<'static>> {
    if js::truthy(body, "localRefuse").is_some() {
        return Some(Reply::error_json(&json!({"code": 403, "by": "local"})));
    }
    js::truthy(body, "localRefuseBare").map(|_| Reply::error())
}

/// True if a body may name a member that the filters look for. Only then is it parsed.
///
/// A backslash may be part of an escape that spells the name.
fn may_refuse(body: &[u8]) -> bool {
    // Whole chunks without an early exit, which compile to vector instructions.
    let is_suspect = |chunk: &[u8]| {
        chunk.iter().fold(false, |found, byte| found | (*byte == b'R') | (*byte == b'\\'))
    };
    body.chunks(64).any(is_suspect)
        && (body.contains(&b'\\') || body.windows(b"Refuse".len()).any(|part| part == b"Refuse"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_suspect_bodies_are_parsed() {
        for body in [&b"{\"localRefuse\":1}"[..], b"{\"global\\u0052efuse\":1}", b"\\"] {
            assert!(may_refuse(body));
        }
        for body in [&b""[..], b"{}", b"Refus", b"{\"Room\":\"lobby\"}", &[b'x'; 300]] {
            assert!(!may_refuse(body));
        }
        let mut long = vec![b'x'; 300];
        long.extend_from_slice(b"Refuse");
        assert!(may_refuse(&long));
    }

    #[test]
    fn the_refusals_are_those_of_the_reference() {
        let reply = global_refusal(&json!({"globalRefuse": 1})).unwrap();
        assert!(reply.is_error());
        assert_eq!(reply.body(), Some(&br#"{"code":403,"by":"global"}"#[..]));
        let reply = local_refusal(&json!({"localRefuse": "y", "localRefuseBare": 1})).unwrap();
        assert_eq!(reply.body(), Some(&br#"{"code":403,"by":"local"}"#[..]));
        let reply = local_refusal(&json!({"localRefuseBare": true})).unwrap();
        assert!(reply.is_error() && reply.body().is_none());
    }

    #[test]
    fn what_is_falsy_refuses_nothing() {
        for body in [json!({"globalRefuse": 0, "localRefuse": ""}), json!([1]), json!("Refuse")] {
            assert!(global_refusal(&body).is_none());
            assert!(local_refusal(&body).is_none());
        }
    }

    #[test]
    fn arrays_are_told_from_what_looks_like_them() {
        let is_array = |body: &str| is_array(&Request::new("chat.a.b", 1, body.as_bytes()));
        assert!(is_array("[]") && is_array(" [1,2]"));
        assert!(!is_array("{}") && !is_array("") && !is_array("[1,") && !is_array("\"[]\""));
    }

    #[test]
    fn counts_of_several_threads_add_up() {
        let all = [Counts::default(), Counts::default()];
        all.iter().for_each(|counts| count(&counts.global_before));
        count(&all[0].after);
        assert_eq!(Counts::sum(all.iter()), json!({"gb": 2, "ga": 0, "lb": 0, "la": 1}));
    }
}
