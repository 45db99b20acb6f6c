//! A collector of OpenTelemetry, played by the test: it parses what it is sent by OTLP's messages,
//! written down here once more, and answers as the test says.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use prost::Message as _;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::PATIENCE;

/// A listening collector, which ends when this is dropped.
pub(crate) struct Collector {
    address: SocketAddr,
    scheme: &'static str,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    posts: Receiver<Post>,
    /// Spans that have come and were not asked for yet.
    spans: Vec<Seen>,
}

/// What a collector does with a request.
#[derive(Clone, Copy)]
pub(crate) enum Does {
    Take,
    /// It answers with this status.
    Refuse(u16),
    /// It takes all but so many.
    Reject(i64),
    /// It answers the first requests, so many, with these bytes, and takes the others.
    TakeAfter(usize, &'static str),
    /// It never answers, and keeps the connection.
    Nothing,
    /// It answers with these bytes.
    Say(&'static str),
    /// It begins its answer with the first, and goes on with the second slowly, or as fast as that
    /// is taken.
    Repeat(&'static str, &'static [u8], Duration),
}

/// A request.
pub(crate) struct Post {
    /// Its first line and its headers, in lower case.
    pub(crate) head: String,
    resource: BTreeMap<String, String>,
    spans: Vec<Span>,
}

/// A span as a test looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// As it stands in a `traceparent`.
    pub(crate) context: String,
    pub(crate) name: String,
    pub(crate) kind: i32,
    pub(crate) times_ns: [u64; 2],
    pub(crate) attributes: BTreeMap<String, String>,
    /// The code of its status; 0 where it has none.
    pub(crate) status: i32,
    /// The attributes of its resource.
    pub(crate) resource: BTreeMap<String, String>,
}

impl Collector {
    pub(crate) fn start(does: Does) -> Self {
        Self::start_with(does, None)
    }

    /// One that is reached with TLS.
    pub(crate) fn start_secured(does: Does, tls: Arc<ServerConfig>) -> Self {
        Self::start_with(does, Some(tls))
    }

    fn start_with(does: Does, tls: Option<Arc<ServerConfig>>) -> Self {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let (told, posts) = channel();
        let over = Arc::clone(&is_over);
        let thread = std::thread::spawn(move || {
            let mut kept = Vec::new();
            for (place, stream) in listener.incoming().enumerate() {
                if over.load(Ordering::Relaxed) {
                    return;
                }
                let does = match does {
                    Does::TakeAfter(count, text) if place < count => Does::Say(text),
                    Does::TakeAfter(..) => Does::Take,
                    does => does,
                };
                // A client that is gone has sent nothing.
                let Ok(socket) = stream else { continue };
                let stream = socket.try_clone().unwrap();
                let is_kept = match &tls {
                    None => serve(stream, &socket, does, &told),
                    Some(tls) => {
                        let tls = ServerConnection::new(Arc::clone(tls)).unwrap();
                        serve(StreamOwned::new(tls, stream), &socket, does, &told)
                    }
                };
                kept.extend(is_kept.map(|()| socket));
            }
        });
        Self { address, scheme, is_over, thread: Some(thread), posts, spans: Vec::new() }
    }

    /// What `Traces::endpoint` takes.
    pub(crate) fn endpoint(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The next request.
    pub(crate) fn post(&self) -> Post {
        self.posts.recv_timeout(PATIENCE).expect("nobody sends spans")
    }

    /// The next span.
    pub(crate) fn span(&mut self) -> Seen {
        while self.spans.is_empty() {
            self.spans = self.post().seen();
        }
        self.spans.remove(0)
    }

    /// Makes sure that no request has come.
    pub(crate) fn nothing(&self) {
        assert!(self.posts.try_recv().is_err(), "somebody sends spans");
    }

    /// All spans that have come, once the engine has stopped.
    pub(crate) fn rest(&mut self) -> Vec<Seen> {
        let mut all = std::mem::take(&mut self.spans);
        while let Ok(post) = self.posts.try_recv() {
            all.extend(post.seen());
        }
        all
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // To be looked at, the flag takes a connection.
        TcpStream::connect_timeout(&self.address, PATIENCE).ok();
        self.thread.take().map(JoinHandle::join);
    }
}

impl Post {
    fn seen(self) -> Vec<Seen> {
        let resource = self.resource;
        let spans = self.spans.into_iter();
        spans.map(|span| seen(span, resource.clone())).collect()
    }
}

/// Serves one request; something if its connection is to be kept.
fn serve(
    mut stream: impl Read + Write,
    socket: &TcpStream,
    does: Does,
    told: &Sender<Post>,
) -> Option<()> {
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut input = Vec::new();
    let head_len = read_until(&mut stream, &mut input, |input| {
        input.windows(4).position(|it| it == b"\r\n\r\n").map(|at| at + 4)
    })?;
    let head = String::from_utf8_lossy(&input[..head_len]).to_ascii_lowercase();
    let body_len = head.split_once("content-length: ")?.1.split("\r\n").next()?;
    let len = head_len + body_len.parse::<usize>().ok()?;
    read_until(&mut stream, &mut input, |input| (input.len() >= len).then_some(len))?;
    let request = ExportRequest::decode(&input[head_len..len]).expect("a request of OTLP's");
    for ResourceSpans { resource, scope_spans } in request.resource_spans {
        let resource = strings(resource.unwrap_or_default().attributes);
        let spans = scope_spans.into_iter().flat_map(|scope| {
            assert_eq!(scope.scope.unwrap_or_default().name, "shaddock");
            scope.spans
        });
        let post = Post { head: head.clone(), resource, spans: spans.collect() };
        told.send(post).ok()?;
    }
    let (status, rejected) = match does {
        Does::Take | Does::TakeAfter(..) => (200, 0),
        Does::Refuse(status) => (status, 0),
        Does::Reject(spans) => (200, spans),
        Does::Nothing => return Some(()),
        Does::Say(text) => return stream.write_all(text.as_bytes()).ok().and(None),
        Does::Repeat(head, more, pause) => {
            stream.write_all(head.as_bytes()).ok()?;
            loop {
                stream.write_all(more).ok()?;
                std::thread::sleep(pause);
            }
        }
    };
    let partial = PartialSuccess { rejected_spans: rejected, error_message: "no".into() };
    let body = ExportResponse { partial_success: Some(partial) }.encode_to_vec();
    let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), &body].concat()).ok()?;
    // The client closes; before it has read all, a close of ours could cut that off.
    socket.set_read_timeout(Some(Duration::from_secs(1))).ok()?;
    stream.read_exact(&mut [0]).ok();
    None
}

/// Reads until something is found.
fn read_until(
    stream: &mut impl Read,
    input: &mut Vec<u8>,
    find: impl Fn(&[u8]) -> Option<usize>,
) -> Option<usize> {
    loop {
        if let Some(found) = find(input) {
            return Some(found);
        }
        let mut more = [0; 4096];
        match stream.read(&mut more) {
            Ok(len) if len > 0 => input.extend_from_slice(&more[..len]),
            _ => return None,
        }
    }
}

fn seen(span: Span, resource: BTreeMap<String, String>) -> Seen {
    assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    assert_eq!(span.flags & 1, 1, "it is sampled");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    Seen {
        context: format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)),
        name: span.name,
        kind: span.kind,
        times_ns: [span.start_time_unix_nano, span.end_time_unix_nano],
        attributes: strings(span.attributes),
        status: span.status.map_or(0, |status| status.code),
        resource,
    }
}

fn strings(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::Text(text)) => text,
        Some(Value::Number(number)) => number.to_string(),
        None => panic!("an attribute without a value"),
    };
    attributes.into_iter().map(|KeyValue { key, value }| (key, text(value))).collect()
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ExportResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Scope {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Span {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    flags: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnyValue {
    #[prost(oneof = "Value", tags = "1, 3")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}
