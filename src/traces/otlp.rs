//! OTLP's messages for spans, as far as they are used here (`opentelemetry-proto`,
//! `opentelemetry/proto/collector/trace/v1/trace_service.proto` and what it imports).
//!
//! Written by hand, like Pitaya's: these are few, and no build needs `protoc` or OpenTelemetry's
//! SDK.

use std::time::Duration;

use crate::metrics::ForwardEnd;
use crate::span::Span as Forwarded;

/// A request to a collector.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_spans: Vec<ResourceSpans>,
}

/// Its answer.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    pub(super) partial_success: Option<ExportTracePartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportTracePartialSuccess {
    #[prost(int64, tag = "1")]
    pub(super) rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub(super) error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub(super) scope: Option<InstrumentationScope>,
    #[prost(message, repeated, tag = "2")]
    pub(super) spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct InstrumentationScope {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub(super) span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub(super) name: String,
    #[prost(int32, tag = "6")]
    pub(super) kind: i32,
    #[prost(fixed64, tag = "7")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub(super) end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    pub(super) status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub(super) flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Status {
    #[prost(int32, tag = "3")]
    pub(super) code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    pub(super) value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

/// `SPAN_KIND_CLIENT`: the caller's side of a call of another server.
const KIND_CLIENT: i32 = 3;
/// `STATUS_CODE_ERROR`. Where nothing is wrong, instrumentation leaves the status unset.
const STATUS_ERROR: i32 = 2;
/// The flag of W3C's that a span is sampled, and those that say that it is known to have no parent
/// elsewhere.
const FLAGS: u32 = 0x101;

impl KeyValue {
    pub(super) fn text(key: &str, value: &str) -> Self {
        Self::new(key, Value::Text(value.to_owned()))
    }

    fn new(key: &str, value: Value) -> Self {
        Self { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
    }
}

impl Span {
    /// A forwarded message, as OpenTelemetry's conventions for RPCs have it; the shards' clock was
    /// 0 at that time.
    pub(super) fn of(span: &Forwarded, clock_zero_unix: Duration) -> Self {
        let at = |time_us| {
            let time = clock_zero_unix.saturating_add(Duration::from_micros(time_us));
            u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
        };
        let error = span.end.and_then(error_type);
        Self {
            trace_id: span.context.trace.to_vec(),
            span_id: span.context.span.to_vec(),
            name: span.route.to_string(),
            kind: KIND_CLIENT,
            start_time_unix_nano: at(span.started_us),
            end_time_unix_nano: at(span.ended_us),
            attributes: attributes(span, error),
            status: error.map(|_| Status { code: STATUS_ERROR }),
            flags: FLAGS,
        }
    }
}

fn attributes(span: &Forwarded, error: Option<&str>) -> Vec<KeyValue> {
    let system = if span.carrier == "pitaya" { "pitaya" } else { "pomelo" };
    let (service, method) = span.route.rsplit_once('.').unwrap_or(("", &span.route));
    let session = i64::try_from(span.session).unwrap_or(i64::MAX);
    let mut attributes = vec![
        KeyValue::text("rpc.system", system),
        KeyValue::text("rpc.service", service),
        KeyValue::text("rpc.method", method),
        KeyValue::text("shaddock.route", &span.route),
        KeyValue::text("shaddock.message", if span.is_notify { "notify" } else { "request" }),
        KeyValue::text("shaddock.server_type", &span.server_type),
        KeyValue::text("shaddock.target", span.carrier),
        KeyValue::new("shaddock.shard", Value::Number(span.shard.into())),
        KeyValue::new("shaddock.session", Value::Number(session)),
    ];
    let some = [
        ("shaddock.server", span.worker.as_deref()),
        ("user.id", span.uid.as_deref()),
        ("error.type", error),
    ];
    let some = some.into_iter().filter_map(|(key, value)| Some(KeyValue::text(key, value?)));
    attributes.extend(some);
    attributes
}

/// The fault of an end that has one, by the words of `shaddock_forwards_total`.
fn error_type(end: ForwardEnd) -> Option<&'static str> {
    match end {
        ForwardEnd::Answered => None,
        ForwardEnd::Failed => Some("error"),
        ForwardEnd::TimedOut => Some("timeout"),
        ForwardEnd::Lost => Some("lost"),
        ForwardEnd::Rejected => Some("rejected"),
    }
}
