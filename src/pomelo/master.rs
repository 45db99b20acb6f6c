//! The conversation with the master: registering, the list of servers, and its changes
//! (docs/protocol/rpc.md, "Joining the cluster").

use std::time::Duration;

use serde_json::{Value, json};

use super::mailbox::{Backoff, Beat, Pulse};
use super::mqtt::{self, Packet};
use super::peer::PeerId;
use super::servers::{Change, Server};
use crate::forward::ServerId;

/// This server, as the master is told of it.
#[derive(Debug, Clone)]
pub(crate) struct Registration {
    pub(crate) id: String,
    pub(crate) server_type: String,
    pub(crate) token: String,
    pub(crate) pid: u32,
    /// The server's entry, as others get it.
    pub(crate) info: Value,
    /// Tells the memory of the process.
    pub(crate) resident_bytes: fn() -> u64,
}

/// The client of one master.
#[derive(Debug)]
pub(super) struct Master {
    pub(super) host: String,
    pub(super) port: u16,
    registration: Registration,
    pub(super) state: State,
    /// The master knows us from before: we come back by `reconnect`.
    was_registered: bool,
    retry: Backoff,
    next_request: u64,
}

/// The state of the connection to the master.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No connection, until then.
    Waiting {
        until_us: u64,
    },
    /// A connection and then the master's answers, until then at the latest.
    Joining {
        peer: PeerId,
        until_us: u64,
    },
    Joined {
        peer: PeerId,
        pulse: Pulse,
    },
}

/// The outcome of a packet from the master.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Nothing,
    Change(Change),
    /// This server is to stop.
    Stop,
    /// There is nothing to expect from this connection.
    Over {
        why: String,
    },
}

/// From the connection's beginning to the list of servers.
pub(super) const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
const KEEPALIVE: Duration = Duration::from_secs(60);

const TO_MASTER: &str = "__masterwatcher__";
const TO_SERVER: &str = "__monitorwatcher__";
/// Of the admin console, whose `pomelo list`, `stop` and `kill` the master passes on.
const CONSOLE: &str = "__console__";
/// The signals that answer a master's request, in the place of an error.
const SIGNAL_OK: u8 = 1;
const SIGNAL_FAIL: u8 = 0;

impl Master {
    pub(super) fn new(host: String, port: u16, registration: Registration) -> Self {
        Self {
            host,
            port,
            registration,
            state: State::Waiting { until_us: 0 },
            was_registered: false,
            retry: Backoff::new(RETRY_FIRST, RETRY_MAX),
            next_request: 1,
        }
    }

    pub(super) fn peer(&self) -> Option<PeerId> {
        match self.state {
            State::Waiting { .. } => None,
            State::Joining { peer, .. } | State::Joined { peer, .. } => Some(peer),
        }
    }

    /// The connection has ended; it is tried again after a while.
    pub(super) fn handle_lost(&mut self, now_us: u64) {
        let until_us = now_us + self.retry.fail();
        self.state = State::Waiting { until_us };
    }

    /// A packet has come; what is to be said goes to `out`.
    pub(super) fn handle_packet(
        &mut self,
        packet: &Packet<'_>,
        now_us: u64,
        out: &mut Vec<u8>,
    ) -> Heard {
        let over = |why: &str| Heard::Over { why: why.into() };
        match *packet {
            Packet::ConnAck { code: 0 } => {
                let (topic, message) = self.greeting();
                send(topic, &message, out);
                Heard::Nothing
            }
            Packet::ConnAck { code } => over(&format!("it refuses the connection with {code}")),
            Packet::Disconnect => over("it says goodbye"),
            Packet::PingReq => {
                out.extend_from_slice(&mqtt::PINGRESP);
                Heard::Nothing
            }
            Packet::PingResp => {
                if let State::Joined { pulse, .. } = &mut self.state {
                    pulse.handle_pong();
                }
                Heard::Nothing
            }
            Packet::Publish { topic, payload } => {
                let Ok(message) = serde_json::from_slice::<Value>(payload) else {
                    return over("it sends what is no JSON");
                };
                match topic {
                    b"register" | b"reconnect_ok" => self.handle_registered(&message, now_us, out),
                    b"monitor" => self.handle_monitor(message, now_us, out),
                    _ => Heard::Nothing,
                }
            }
            Packet::Connect | Packet::Other => Heard::Nothing,
        }
    }

    /// Lets time pass: `None` while all is well, and what to say meanwhile.
    pub(super) fn beat(&mut self, now_us: u64, out: &mut Vec<u8>) -> Option<String> {
        match &mut self.state {
            State::Joining { until_us, .. } if now_us >= *until_us => {
                Some("it does not answer".into())
            }
            State::Joined { pulse, .. } => match pulse.beat(now_us) {
                Beat::None => None,
                Beat::Lost => Some("it answers no ping".into()),
                Beat::Ping => {
                    out.extend_from_slice(&mqtt::PINGREQ);
                    None
                }
            },
            _ => None,
        }
    }

    pub(super) fn next_deadline_us(&self) -> u64 {
        match &self.state {
            State::Waiting { until_us } | State::Joining { until_us, .. } => *until_us,
            State::Joined { pulse, .. } => pulse.next_us(),
        }
    }

    fn greeting(&self) -> (&'static str, Value) {
        let Registration { id, server_type, token, pid, info, .. } = &self.registration;
        let mut message = json!({
            "id": id, "type": "monitor", "serverType": server_type, "pid": pid, "info": info,
        });
        if self.was_registered {
            return ("reconnect", message);
        }
        message["token"] = token.as_str().into();
        ("register", message)
    }

    /// The master has said whether it takes us. Then it is asked for the servers, also by who
    /// comes back: what it sends of its own accord then may not be all there is yet.
    fn handle_registered(&mut self, message: &Value, now_us: u64, out: &mut Vec<u8>) -> Heard {
        if message.get("code").and_then(Value::as_i64) != Some(1) {
            let why = message.get("msg").and_then(Value::as_str).unwrap_or("no reason given");
            // A master that still holds our old connection refuses until it has noticed its end.
            return Heard::Over { why: format!("it refuses us: {why}") };
        }
        let State::Joining { peer, .. } = self.state else { return Heard::Nothing };
        let id = &self.registration.id;
        if self.was_registered {
            let pulse = Pulse::new(KEEPALIVE, now_us);
            self.state = State::Joined { peer, pulse };
            self.retry.succeed();
        } else {
            let body = json!({"action": "subscribe", "id": id});
            let request = json!({"reqId": self.next_request, "moduleId": TO_MASTER, "body": body});
            self.next_request += 1;
            send("monitor", &Value::String(request.to_string()), out);
        }
        Heard::Nothing
    }

    /// Something on the topic `monitor`: as JSON text inside a JSON string, or plain.
    fn handle_monitor(&mut self, message: Value, now_us: u64, out: &mut Vec<u8>) -> Heard {
        let message = match message {
            Value::String(text) => match serde_json::from_str(&text) {
                Ok(message) => message,
                Err(_) => return Heard::Over { why: "it sends what is no JSON".into() },
            },
            message => message,
        };
        if message.get("command").is_some() {
            return Heard::Nothing;
        }
        if message.get("respId").is_some() {
            return self.handle_servers(&message, now_us, out);
        }
        let module = message.get("moduleId").and_then(Value::as_str).unwrap_or_default();
        let body = message.get("body");
        let (error, heard) = match module {
            TO_SERVER => {
                let change = body.map_or(Err(NoChange), change_of);
                let signal = if change.is_ok() { SIGNAL_OK } else { SIGNAL_FAIL };
                (json!(signal), change.ok().flatten().map_or(Heard::Nothing, Heard::Change))
            }
            CONSOLE => self.handle_console(body.unwrap_or(&Value::Null), now_us),
            _ => (json!(format!("unknown moduleId:{module}")), Heard::Nothing),
        };
        if let Some(id) = message.get("reqId") {
            let answer = json!({"respId": id, "error": error});
            send("monitor", &Value::String(answer.to_string()), out);
        }
        heard
    }

    /// A command of the admin console. Its modules answer with what is the error elsewhere.
    fn handle_console(&self, body: &Value, now_us: u64) -> (Value, Heard) {
        let Registration { id, server_type, pid, resident_bytes, .. } = &self.registration;
        match body.get("signal").and_then(Value::as_str).unwrap_or_default() {
            "list" => {
                let text = |number: f64| format!("{number:.2}");
                let entry = json!({
                    "serverId": id,
                    "serverType": server_type,
                    "pid": pid,
                    "rss": text(resident_bytes() as f64 / MIB),
                    // There is no JavaScript heap.
                    "heapTotal": text(0.0),
                    "heapUsed": text(0.0),
                    "uptime": text(now_us as f64 / MINUTE_US),
                });
                (json!({"serverId": id, "body": entry}), Heard::Nothing)
            }
            "stop" => (Value::Null, Heard::Stop),
            "kill" => (json!(id), Heard::Stop),
            // Nothing is restarted, as the master would start Node; others expect no answer.
            _ => (Value::Null, Heard::Nothing),
        }
    }

    /// The answer to our one question: the servers there are.
    fn handle_servers(&mut self, message: &Value, now_us: u64, out: &mut Vec<u8>) -> Heard {
        let Some(servers) = message.get("body").and_then(Server::from_entries) else {
            return Heard::Over { why: format!("it lists no servers: {message}") };
        };
        if let State::Joining { peer, .. } = self.state {
            let pulse = Pulse::new(KEEPALIVE, now_us);
            self.state = State::Joined { peer, pulse };
            self.was_registered = true;
            self.retry.succeed();
            let body = json!({"action": "record", "id": self.registration.id});
            send("monitor", &json!({"moduleId": TO_MASTER, "body": body}), out);
        }
        Heard::Change(Change::Replace(servers))
    }
}

const MIB: f64 = 1024.0 * 1024.0;
const MINUTE_US: f64 = 60e6;

/// A request of the master's that says nothing of servers.
struct NoChange;

/// Reads a master's request about servers. One about a server that nobody could call, or about the
/// cluster's start, is all right and changes nothing.
fn change_of(body: &Value) -> Result<Option<Change>, NoChange> {
    let part = |key: &str| body.get(key).ok_or(NoChange);
    match part("action")?.as_str() {
        Some("addServer") => Ok(Server::from_entry(part("server")?).map(Change::Add)),
        Some("removeServer") => {
            let id = part("id")?.as_str().ok_or(NoChange)?;
            Ok(Some(Change::Remove(ServerId::from(id))))
        }
        Some("replaceServer") => {
            let servers = Server::from_entries(part("servers")?).ok_or(NoChange)?;
            Ok(Some(Change::Replace(servers)))
        }
        Some("startOver") => Ok(None),
        _ => Err(NoChange),
    }
}

fn send(topic: &str, message: &Value, out: &mut Vec<u8>) {
    mqtt::encode_publish(topic, out, |out| super::rpc::push_json(message, out));
}
