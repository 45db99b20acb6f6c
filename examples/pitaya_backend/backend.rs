//! A backend of a Pitaya cluster, written from the protocol, with which the connector can be tried,
//! tested and measured. It uses nothing of the engine.
//!
//! ```sh
//! cargo run --release --example pitaya_backend -- nats://127.0.0.1:4222 127.0.0.1:2379 room room-1
//! ```
//!
//! Like a real backend at its defaults, it reads its subject through a channel of 75 messages, and
//! a message that finds the channel full is dropped without an error (docs/protocol/pitaya.md,
//! "NATS subjects"). `--buffer N` sets another length.
//!
//! Its routes are `type.service.method`, with any service and these methods:
//!
//! | method | effect or answer |
//! |---|---|
//! | `echo` | the body |
//! | `session` | the session and the request as the backend got them, as JSON |
//! | `bind` | binds the session to the uid in the body, pushes `onBound` to it, then answers |
//! | `pushsession` | replaces the session's data by the body |
//! | `kick` | kicks the uid in the body, by `sys.kick` |
//! | `kickuser` | kicks the uid in the body, on its subject |
//! | `push` | pushes `{"uid","route","data"}`, without waiting |
//! | `slow` | `"slow"`, after the number of milliseconds in the body |
//! | `silent` | no answer |
//! | `error` | an error |
//! | `count` | the number of requests and notifies so far, itself included |
//! | `call` | the frontend's answer to `{"route","data"}`, data in hexadecimal |
//! | `length` | the body's length in bytes |
//! | `empty` | an empty body |
//! | `nopush` | pushes an empty body by `{"uid","route"}`, without waiting |
//!
//! A notify is acknowledged with `ack` on its reply subject once it is handled, whatever its method
//! would answer; `silent` never acknowledges.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{Client, Message as NatsMessage, Subject};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures_util::StreamExt as _;
use prost::Message as _;
use serde_json::{Value, json};

/// The backend's addresses, identity and buffer.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// NATS's URL.
    pub(crate) nats: String,
    /// The host and port of etcd.
    pub(crate) etcd: String,
    /// The server type, such as `room`.
    pub(crate) server_type: String,
    /// The server id, unique in the cluster.
    pub(crate) id: String,
    /// The most messages that may wait to be read; further ones are dropped.
    pub(crate) buffer: usize,
}

/// Pitaya's default.
const BUFFER: usize = 75;

impl Options {
    /// Reads the options from the words of a command line.
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut next = || words.next();
        let (nats, etcd, server_type, id) = (next()?, next()?, next()?, next()?);
        let buffer = match next() {
            None => BUFFER,
            Some(flag) if flag == "--buffer" => next()?.parse().ok().filter(|len| *len > 0)?,
            Some(_) => return None,
        };
        Some(Self { nats, etcd, server_type, id, buffer })
    }
}

/// Serves until the process ends.
pub(crate) fn run(options: Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(serve(options)).expect("NATS serves");
}

/// Long enough for a process that is stopped for a while to stay registered.
const LEASE_SECONDS: u64 = 15;
/// The time within which a frontend must answer.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Clone, PartialEq, prost::Message)]
struct Request {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    session: Option<Session>,
    #[prost(message, optional, tag = "3")]
    msg: Option<Msg>,
    #[prost(string, tag = "4")]
    frontend_id: String,
    #[prost(bytes = "vec", tag = "5")]
    metadata: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Msg {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(string, tag = "2")]
    route: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
    #[prost(int32, tag = "5")]
    kind: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Session {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Response {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
    #[prost(message, optional, tag = "2")]
    error: Option<Error>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Error {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(string, tag = "2")]
    msg: String,
    #[prost(map = "string, string", tag = "3")]
    metadata: HashMap<String, String>,
}

/// `Push`, and with the first field alone `KickMsg` under another number.
#[derive(Clone, PartialEq, prost::Message)]
struct Push {
    #[prost(string, tag = "1")]
    route: String,
    #[prost(string, tag = "2")]
    uid: String,
    #[prost(bytes = "vec", tag = "3")]
    data: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KickMsg {
    #[prost(string, tag = "1")]
    user_id: String,
}

/// The `Msg.type` of a notify.
const NOTIFY: i32 = 1;

/// A running backend.
struct Backend {
    client: Client,
    handled: AtomicU64,
}

async fn serve(options: Options) -> Result<(), async_nats::Error> {
    let connect = async_nats::ConnectOptions::new().retry_on_initial_connect();
    // This client drops messages for a full subscription channel, as Go's does.
    let connect = connect.max_reconnects(None).subscription_capacity(options.buffer);
    let connect = connect.reconnect_delay_callback(|_| Duration::from_millis(100));
    let client = connect.connect(&*options.nats).await?;
    let own = format!("pitaya/servers/{}/{}", options.server_type, options.id);
    let mut requests = client.subscribe(own).await?;
    client.flush().await?;
    let registered = options.clone();
    std::thread::spawn(move || register(&registered));
    let backend = Arc::new(Backend { client, handled: AtomicU64::new(0) });
    while let Some(message) = requests.next().await {
        let Ok(request) = Request::decode(message.payload.clone()) else { continue };
        backend.handled.fetch_add(1, Ordering::Relaxed);
        let (Some(session), Some(msg)) = (request.session, request.msg) else { continue };
        let call = Call {
            session,
            msg,
            frontend_id: request.frontend_id,
            metadata: serde_json::from_slice(&request.metadata).unwrap_or_default(),
            reply: message,
        };
        let method = call.msg.route.rsplit('.').next().unwrap_or_default();
        if matches!(method, "echo" | "session" | "error" | "count" | "silent" | "length" | "empty")
        {
            backend.answer(&call, backend.handle_at_once(&call)).await;
        } else {
            let backend = Arc::clone(&backend);
            tokio::spawn(async move {
                let answer = backend.handle(&call).await;
                backend.answer(&call, Some(answer)).await;
            });
        }
    }
    Ok(())
}

/// One request of a client.
struct Call {
    session: Session,
    msg: Msg,
    frontend_id: String,
    metadata: Value,
    reply: NatsMessage,
}

type Answer = Result<Vec<u8>, Error>;

impl Backend {
    async fn answer(&self, call: &Call, answer: Option<Answer>) {
        let (Some(reply), Some(answer)) = (call.reply.reply.clone(), answer) else { return };
        let response = match answer {
            Ok(_) if call.msg.kind == NOTIFY => Response { data: b"ack".to_vec(), error: None },
            Ok(data) => Response { data, error: None },
            Err(error) => Response { data: Vec::new(), error: Some(error) },
        };
        self.client.publish(reply, response.encode_to_vec().into()).await.ok();
    }

    fn handle_at_once(&self, call: &Call) -> Option<Answer> {
        let Call { session, msg, frontend_id, metadata, .. } = call;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        // A real backend needs an object, too.
        if !metadata.is_object() {
            let msg = "no context found".to_owned();
            return Some(Err(Error { code: "PIT-500".into(), msg, ..Error::default() }));
        }
        let value = match msg.route.rsplit('.').next().unwrap_or_default() {
            "echo" => return Some(Ok(msg.data.clone())),
            "empty" => return Some(Ok(Vec::new())),
            "length" => json!(msg.data.len()),
            "silent" => return None,
            "error" => {
                let metadata = [("route".to_owned(), msg.route.clone())].into();
                let (code, text) = ("PIT-404".to_owned(), text(&msg.data));
                return Some(Err(Error { code, msg: text, metadata }));
            }
            "count" => json!(self.handled.load(Ordering::Relaxed)),
            _ => json!({
                "id": session.id,
                "uid": session.uid,
                "data": serde_json::from_slice::<Value>(&session.data).unwrap_or_default(),
                "frontend": frontend_id,
                "metadata": metadata,
                "mid": msg.id,
                "type": msg.kind,
                "route": msg.route,
            }),
        };
        Some(Ok(value.to_string().into_bytes()))
    }

    async fn handle(&self, call: &Call) -> Answer {
        let body = String::from_utf8_lossy(&call.msg.data).into_owned();
        let id = call.session.id;
        let kick = |user_id: &str| KickMsg { user_id: user_id.into() }.encode_to_vec();
        match call.msg.route.rsplit('.').next().unwrap_or_default() {
            "slow" => {
                tokio::time::sleep(Duration::from_millis(body.parse().unwrap_or(0))).await;
                Ok(b"\"slow\"".to_vec())
            }
            "bind" => {
                let session = Session { id, uid: body.clone(), data: Vec::new() };
                let answer = self.call(call, "sys.bindsession", session.encode_to_vec()).await?;
                // The first push follows directly on the bind.
                self.push(call, &body, "onBound", b"{\"bound\":true}").await;
                Ok(answer)
            }
            "pushsession" => {
                let data = call.msg.data.clone();
                let session = Session { id, uid: call.session.uid.clone(), data };
                self.call(call, "sys.pushsession", session.encode_to_vec()).await
            }
            "kick" => self.call(call, "sys.kick", kick(&body)).await,
            "kickuser" => {
                let subject = format!("pitaya/{}/user/{body}/kick", call.frontend_type());
                self.client.publish(subject, kick(&body).into()).await.ok();
                Ok(b"\"ok\"".to_vec())
            }
            "push" => {
                let push: Value = serde_json::from_str(&body).unwrap_or_default();
                let text = |key: &str| push[key].as_str().unwrap_or_default();
                let data = push["data"].to_string();
                self.push(call, text("uid"), text("route"), data.as_bytes()).await;
                Ok(b"\"ok\"".to_vec())
            }
            "nopush" => {
                let push: Value = serde_json::from_str(&body).unwrap_or_default();
                let text = |key: &str| push[key].as_str().unwrap_or_default();
                self.push(call, text("uid"), text("route"), b"").await;
                Ok(b"\"ok\"".to_vec())
            }
            "call" => {
                let wanted: Value = serde_json::from_str(&body).unwrap_or_default();
                let data = from_hex(wanted["data"].as_str().unwrap_or_default());
                self.call(call, wanted["route"].as_str().unwrap_or_default(), data).await
            }
            other => {
                let msg = format!("no such method: {other}");
                Err(Error { code: "PIT-404".into(), msg, ..Error::default() })
            }
        }
    }

    async fn push(&self, call: &Call, uid: &str, route: &str, data: &[u8]) {
        let subject = format!("pitaya/{}/user/{uid}/push", call.frontend_type());
        let push = Push { route: route.into(), uid: uid.into(), data: data.to_vec() };
        self.client.publish(subject, push.encode_to_vec().into()).await.ok();
    }

    /// Calls the client's frontend; returns the answer's data in hexadecimal.
    async fn call(&self, call: &Call, route: &str, data: Vec<u8>) -> Answer {
        let request = Request {
            kind: 1,
            msg: Some(Msg { route: route.into(), data, ..Msg::default() }),
            metadata: b"{}".to_vec(),
            ..Request::default()
        };
        let subject = format!("pitaya/servers/{}/{}", call.frontend_type(), call.frontend_id);
        let failed = |msg: String| Error { code: "PIT-500".into(), msg, ..Error::default() };
        let asked = self.client.request(Subject::from(subject), request.encode_to_vec().into());
        let answer = tokio::time::timeout(CALL_TIMEOUT, asked).await;
        let answer = answer.map_err(|_| failed("the frontend does not answer".into()))?;
        let answer = answer.map_err(|error| failed(error.to_string()))?;
        let response = Response::decode(answer.payload);
        let response = response.map_err(|error| failed(error.to_string()))?;
        match response.error {
            Some(error) => Err(error),
            None => Ok(format!("\"{}\"", to_hex(&response.data)).into_bytes()),
        }
    }
}

impl Call {
    fn frontend_type(&self) -> &str {
        self.metadata["peer.service"].as_str().unwrap_or_default()
    }
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let pair = |at: usize| u8::from_str_radix(text.get(at..at + 2)?, 16).ok();
    (0..text.len()).step_by(2).filter_map(pair).collect()
}

/// Registers the backend in etcd and keeps its lease alive, by etcd's JSON gateway.
fn register(options: &Options) {
    let Options { etcd, server_type, id, .. } = options;
    let key = format!("pitaya/servers/{server_type}/{id}");
    let value = json!({"id": id, "type": server_type, "metadata": {}, "frontend": false,
                       "hostname": ""});
    let mut lease = None;
    loop {
        let is_alive = lease.as_ref().is_some_and(|lease: &Value| {
            let answer = post(etcd, "/v3/lease/keepalive", &json!({"ID": lease}));
            answer.is_ok_and(|answer| answer["result"]["TTL"].is_string())
        });
        if !is_alive {
            let grant = post(etcd, "/v3/lease/grant", &json!({"TTL": LEASE_SECONDS}));
            let granted = grant.map(|answer| answer["ID"].clone()).unwrap_or_default();
            let put = json!({"key": STANDARD.encode(&key), "lease": granted,
                             "value": STANDARD.encode(value.to_string())});
            let is_put = granted.is_string() && post(etcd, "/v3/kv/put", &put).is_ok();
            lease = is_put.then_some(granted);
            if is_put {
                // The process that started this one may have closed the pipe.
                writeln!(std::io::stdout(), "\npitaya_backend: {server_type} {id} is ready").ok();
            }
        }
        let wait = if lease.is_some() { LEASE_SECONDS * 1000 / 5 } else { 100 };
        std::thread::sleep(Duration::from_millis(wait));
    }
}

/// Makes one call of etcd's JSON gateway.
pub(crate) fn post(etcd: &str, path: &str, body: &Value) -> std::io::Result<Value> {
    let mut stream = TcpStream::connect(etcd)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    let body = body.to_string();
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nHost: {etcd}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let json = answer.split_once("\r\n\r\n").map_or("", |(_, json)| json);
    if !answer.contains(" 200 ") {
        return Err(std::io::Error::other(answer.clone()));
    }
    serde_json::from_str(json.trim()).map_err(std::io::Error::other)
}
