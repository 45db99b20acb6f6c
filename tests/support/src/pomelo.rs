//! The other servers of a Pomelo cluster, played by the test itself: a Node backend, the calls it
//! makes, and the master. Everything blocks, so that a test reads like the conversation it plays.

use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{More, PATIENCE, read_more};

/// A packet, as far as it matters here.
#[derive(Debug, Clone, PartialEq)]
pub enum Packet {
    Connect,
    Publish {
        topic: String,
        payload: Value,
    },
    Ping,
    Pong,
    /// The other end has closed.
    End,
}

/// One connection, from either side.
pub struct Peer {
    pub stream: TcpStream,
    buffer: Vec<u8>,
    next_id: u64,
}

/// A port of the loopback that somebody may call.
pub struct Server {
    listener: TcpListener,
}

/// A port that nobody listens on, at least just now.
pub fn free_address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], super::free_port()))
}

impl Server {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap())
    }

    pub fn start_at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        Self { listener }
    }

    pub fn address(&self) -> String {
        self.listener.local_addr().unwrap().to_string()
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().unwrap().port()
    }

    /// The next connection, once it has said CONNECT.
    pub fn accept(&self) -> Peer {
        let mut peer = self.accept_within(PATIENCE).expect("nobody connects");
        assert_eq!(peer.next(), Packet::Connect);
        peer
    }

    pub fn accept_within(&self, patience: Duration) -> Option<Peer> {
        let deadline = Instant::now() + patience;
        loop {
            match self.listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    return Some(Peer::new(stream));
                }
                Err(_) if Instant::now() > deadline => return None,
                Err(_) => std::thread::sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Peer {
    fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new(), next_id: 0 }
    }

    /// Connects as a server that calls another one does.
    pub fn connect(address: SocketAddr) -> Self {
        let mut peer = Self::new(TcpStream::connect_timeout(&address, PATIENCE).unwrap());
        let id = b"MQTT_RPC_1700000000000";
        let mut connect = vec![0x10, 12 + id.len() as u8, 0, 4];
        connect.extend_from_slice(b"MQTT\x04\x02\0\0\0");
        connect.push(id.len() as u8);
        connect.extend_from_slice(id);
        peer.write(&connect);
        peer
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Sends a payload, in two segments as the original does.
    pub fn publish(&mut self, topic: &str, payload: &str) {
        let mut rest = Vec::new();
        let mut remaining = 2 + topic.len() + payload.len();
        loop {
            let more = if remaining > 0x7f { 0x80 } else { 0 };
            rest.push((remaining & 0x7f) as u8 | more);
            remaining >>= 7;
            if more == 0 {
                break;
            }
        }
        rest.extend_from_slice(&(topic.len() as u16).to_be_bytes());
        rest.extend_from_slice(topic.as_bytes());
        rest.extend_from_slice(payload.as_bytes());
        self.write(&[0x30]);
        self.write(&rest);
    }

    pub fn next(&mut self) -> Packet {
        self.next_within(PATIENCE).expect("the other end says nothing")
    }

    pub fn next_within(&mut self, patience: Duration) -> Option<Packet> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(packet) = self.decode() {
                return Some(packet);
            }
            if let More::End = read_more(&mut self.stream, &mut self.buffer, deadline)? {
                return Some(Packet::End);
            }
        }
    }

    fn decode(&mut self) -> Option<Packet> {
        let first = *self.buffer.first()?;
        let (mut remaining, mut at) = (0_usize, 1);
        loop {
            let byte = *self.buffer.get(at)?;
            remaining |= usize::from(byte & 0x7f) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        let body = self.buffer.get(at..at + remaining)?.to_vec();
        self.buffer.drain(..at + remaining);
        Some(match first >> 4 {
            1 => Packet::Connect,
            3 => {
                let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
                let (topic, payload) = body[2..].split_at(topic_len);
                Packet::Publish {
                    topic: String::from_utf8(topic.to_vec()).unwrap(),
                    payload: serde_json::from_slice(payload).expect("every payload is JSON"),
                }
            }
            12 => Packet::Ping,
            13 => Packet::Pong,
            other => panic!("nobody sends packets of type {other}"),
        })
    }

    /// The next payload.
    pub fn payload(&mut self) -> Value {
        match self.next() {
            Packet::Publish { payload, .. } => payload,
            other => panic!("{other:?} instead of a payload"),
        }
    }

    /// The next forwarded message: the call's id, the message, and the session.
    pub fn forwarded(&mut self) -> (u64, Value, Value) {
        let call = self.payload();
        let msg = &call["msg"];
        assert_eq!((&msg["namespace"], &msg["service"]), (&json!("sys"), &json!("msgRemote")));
        assert_eq!(msg["method"], "forwardMessage");
        let id = call["id"].as_u64().unwrap();
        (id, msg["args"][0].clone(), msg["args"][1].clone())
    }

    /// Answers a call with what its callback gets.
    pub fn answer(&mut self, id: u64, resp: Value) {
        self.publish("rpc", &json!({ "id": id, "resp": resp }).to_string());
    }

    /// Calls a remote of the frontend's, and waits for what the callback gets.
    pub fn call(&mut self, remote: &str, args: Value) -> Value {
        let id = self.next_id;
        self.next_id += 1;
        self.publish("rpc", &call(id, remote, args).to_string());
        let answer = self.payload();
        assert_eq!(answer["id"], id);
        answer["resp"].clone()
    }

    /// A request or notify of the master's and what it is about; the JSON text that wraps a
    /// request is taken off.
    pub fn heard(&mut self) -> (String, Value) {
        match self.next() {
            Packet::Publish { topic, payload: Value::String(text) } => {
                (topic, serde_json::from_str(&text).unwrap())
            }
            Packet::Publish { topic, payload } => (topic, payload),
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Says something as the master does: JSON text inside a JSON string.
    pub fn say(&mut self, message: Value) {
        self.publish("monitor", &Value::String(message.to_string()).to_string());
    }
}

/// A call of a remote, `service.method`.
pub fn call(id: u64, remote: &str, args: Value) -> Value {
    let (service, method) = remote.split_once('.').unwrap();
    json!({ "id": id, "msg": {
        "namespace": "sys", "service": service, "method": method, "args": args,
    } })
}
