//! The settings of a member, and what its messages say of it.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use super::cluster::{PitayaCluster, PitayaLimits};
use super::share::Share;
use crate::metrics::Counters;
use crate::route::table::RouteTable;
use crate::span::SpanContext;

/// The settings of a member.
pub(crate) struct MemberConfig {
    pub(crate) frontend_id: Arc<str>,
    pub(crate) frontend_type: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) counters: Arc<Counters>,
    /// The part of the frontend that this member is.
    pub(crate) share: Share,
    /// Its part of the frontend's bounds.
    pub(crate) limits: PitayaLimits,
    pub(crate) request_timeout_us: u64,
    /// The same as Go writes it.
    pub(super) request_timeout_text: String,
    /// The time that a server lives on in etcd's list without a word.
    pub(super) lease_us: u64,
    pub(crate) unique_session: bool,
    /// Nanoseconds from 1970 to the engine's start.
    pub(crate) started_unix_ns: u64,
    /// The prefix of every answer's subject, which is this process's alone.
    pub(crate) inbox: Arc<str>,
    /// The head of every request's metadata.
    metadata_head: Vec<u8>,
    /// The first half of every request's id.
    pub(super) id_head: u64,
}

/// Characters of a request's id in the metadata, half of which count.
const REQUEST_ID_DIGITS: usize = 22;

impl MemberConfig {
    /// The part of a description that the member needs; it has been checked. `random` is any two
    /// numbers that no other process has.
    pub(crate) fn new(
        cluster: &PitayaCluster,
        server_type: &Arc<str>,
        server_id: &Arc<str>,
        routes: &Arc<RouteTable>,
        counters: &Arc<Counters>,
        (random, started_unix_ms): ([u64; 2], u64),
        share: Share,
    ) -> Self {
        let json = |text: &str| serde_json::Value::from(text).to_string();
        let (id, kind) = (json(server_id), json(server_type));
        let timeout = go_duration(cluster.request_timeout);
        let head = format!(
            "{{\"peer.id\":{id},\"peer.service\":{kind},\"reqTimeout\":\"{timeout}\",\
             \"req-route\":"
        );
        Self {
            frontend_id: Arc::clone(server_id),
            frontend_type: Arc::clone(server_type),
            routes: Arc::clone(routes),
            counters: Arc::clone(counters),
            share,
            limits: share.of(&cluster.limits),
            request_timeout_us: micros(cluster.request_timeout),
            request_timeout_text: timeout,
            lease_us: micros(cluster.heartbeat_ttl),
            unique_session: cluster.unique_session,
            started_unix_ns: started_unix_ms.saturating_mul(1_000_000),
            inbox: format!("_INBOX.{:016x}{:016x}.", random[0], random[1]).into(),
            metadata_head: head.into_bytes(),
            id_head: random[0],
        }
    }

    /// The context that a backend demands of every request (docs/protocol/pitaya.md,
    /// "Forwarding a client message", `metadata`).
    /// `requests` are those so far.
    pub(super) fn push_metadata(
        &self,
        route: &str,
        span: Option<&SpanContext>,
        (now_us, requests): (u64, u64),
        out: &mut Vec<u8>,
    ) {
        out.extend_from_slice(&self.metadata_head);
        let is_plain = |byte: u8| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
        if route.bytes().all(is_plain) {
            out.push(b'"');
            out.extend_from_slice(route.as_bytes());
            out.push(b'"');
        } else {
            out.extend_from_slice(serde_json::Value::from(route).to_string().as_bytes());
        }
        let started_ns = self.started_unix_ns.saturating_add(now_us.saturating_mul(1_000));
        // To write to memory can't fail.
        write!(out, ",\"req-start-time\":{started_ns},\"request.id\":\"").ok();
        push_digits(self.id_head, out);
        push_digits(requests, out);
        out.push(b'"');
        if let Some(span) = span {
            push_span(span, out);
        }
        out.push(b'}');
    }
}

/// Appends the member by which backends know the span of a sampled message
/// (docs/protocol/pitaya.md, "Forwarding a client message", `otel-span`).
#[cold]
fn push_span(span: &SpanContext, out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"otel-span\":{\"traceparent\":\"");
    out.extend_from_slice(span.traceparent().as_bytes());
    out.extend_from_slice(b"\"}");
}

/// Appends a number as half of a request's id.
fn push_digits(mut number: u64, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let start = out.len();
    for _ in 0..REQUEST_ID_DIGITS / 2 {
        out.push(DIGITS[(number % 62) as usize]);
        number /= 62;
    }
    out[start..].reverse();
}

/// A duration as Go writes it.
fn go_duration(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
