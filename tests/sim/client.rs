//! One connection as its client sees it: what it sends, and what it makes of what it gets.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::{Value, json};
use shaddock::wire::message::{self, MessageType, RouteRef};
use shaddock::wire::package::{self, PackageType, Status};

use crate::plan::{Plan, fault};
use crate::random::Random;

/// What becomes true for the server once it has read a client's bytes up to an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The handshake is acknowledged.
    Ack,
    Heartbeat,
    /// Any other package.
    Package,
    Request(u32),
}

/// One request that waits for its answer, or has it.
#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) tag: u64,
    pub(crate) route: String,
    pub(crate) body: Vec<u8>,
    /// True if the server has read all of it while the session worked.
    pub(crate) is_read: bool,
    pub(crate) is_answered: bool,
    /// True if filters were told to do something.
    pub(crate) has_mischief: bool,
}

/// One connection, from its client's side.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) number: u64,
    pub(crate) is_websocket: bool,
    /// True if it has sent bytes that are no packages; little can be said of it then.
    pub(crate) is_hostile: bool,
    /// True if it sends no heartbeats.
    pub(crate) is_silent: bool,
    /// Written and not yet with the server.
    pub(crate) pipe: VecDeque<u8>,
    pub(crate) written: u64,
    pub(crate) marks: VecDeque<(u64, Mark)>,
    pub(crate) has_begun: bool,
    pub(crate) requests: BTreeMap<u32, Sent>,
    /// The uids that it has asked to be bound to.
    pub(crate) asked: BTreeSet<String>,
    /// What has been read of the server's bytes and not yet understood.
    inbox: Vec<u8>,
    has_head: bool,
    payload: Vec<u8>,
    /// Set by a KICK or a close frame: nothing may follow.
    pub(crate) is_told_off: bool,
    /// True if it has asked for a kick, or for a uid that may be kicked.
    pub(crate) may_be_kicked: bool,
    is_closed: bool,
    last_id: u32,
    /// The last answer in order, by server.
    pub(crate) last_answers: BTreeMap<String, u32>,
    /// The last push, by sender and receiver.
    last_pushes: BTreeMap<(String, String), u64>,
    pub(crate) packages: u64,
}

const HEAD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
pub(crate) const UIDS: [&str; 12] =
    ["amy", "bob", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "joe", "kim", "lee"];

impl Conn {
    pub(crate) fn new(number: u64, is_websocket: bool, is_silent: bool) -> Self {
        Self {
            number,
            is_websocket,
            is_hostile: false,
            is_silent,
            pipe: VecDeque::new(),
            written: 0,
            marks: VecDeque::new(),
            has_begun: false,
            requests: BTreeMap::new(),
            asked: BTreeSet::new(),
            inbox: Vec::new(),
            has_head: !is_websocket,
            payload: Vec::new(),
            is_told_off: false,
            may_be_kicked: false,
            is_closed: false,
            last_id: 0,
            last_answers: BTreeMap::new(),
            last_pushes: BTreeMap::new(),
            packages: 0,
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        self.pipe.extend(bytes);
        self.written += bytes.len() as u64;
    }

    /// Writes one package, in a masked frame or two where there are frames.
    fn send(&mut self, kind: PackageType, body: &[u8], mark: Mark, random: &mut Random) {
        let mut bytes = Vec::new();
        package::encode(kind, body, &mut bytes).expect("a short body");
        if !self.is_websocket {
            self.write(&bytes);
        } else if random.percent(10) && bytes.len() > 1 {
            let (first, second) = bytes.split_at(1 + random.below(bytes.len() - 1));
            let first = frame(0x02, first, random);
            self.write(&first);
            if random.percent(30) {
                let ping = frame(0x89, b"p", random);
                self.write(&ping);
            }
            let second = frame(0x80, second, random);
            self.write(&second);
        } else {
            let bytes = frame(0x82, &bytes, random);
            self.write(&bytes);
        }
        self.marks.push_back((self.written, mark));
    }

    /// Connects: handshake, and what may be pipelined behind it.
    pub(crate) fn begin(&mut self, random: &mut Random) {
        self.has_begun = true;
        if self.is_websocket {
            self.write(HEAD);
        }
        let body = json!({ "sys": { "type": "js-websocket", "version": "0.0.1" }, "user": {} });
        let body = body.to_string();
        self.send(PackageType::Handshake, body.as_bytes(), Mark::Package, random);
        self.send(PackageType::HandshakeAck, b"", Mark::Ack, random);
    }

    pub(crate) fn heartbeat(&mut self, random: &mut Random) {
        self.send(PackageType::Heartbeat, b"", Mark::Heartbeat, random);
    }

    pub(crate) fn garbage(&mut self, random: &mut Random) {
        self.is_hostile = true;
        let mut bytes: Vec<u8> = (0..random.within(1, 40)).map(|_| random.next() as u8).collect();
        if random.percent(50) {
            // Something that begins well.
            let head = random.pick(&[&[4, 0, 0, 9][..], &[1, 0], &[3, 0, 0, 0, 4], &[4, 0xff]]);
            bytes.splice(0..0, head.iter().copied());
        }
        if self.is_websocket && random.percent(70) {
            let first = random.pick(&[0x82, 0x02, 0x80, 0x81, 0x88, 0x89, 0x8a, 0xc2]);
            bytes = frame(first, &bytes, random);
        }
        self.write(&bytes);
    }

    /// Sends a request or a notify of any kind.
    pub(crate) fn message(&mut self, plan: &Plan, random: &mut Random) {
        let is_notify = random.percent(15);
        let id = if is_notify { 0 } else { self.last_id + 1 };
        let tag = self.number << 20 | u64::from(self.last_id + 1) << 1 | u64::from(is_notify);
        self.last_id += 1;
        let route = self.route(plan, random);
        let uids = if plan.has(fault::DOUBLE_LOGINS) { 2 } else { UIDS.len() };
        let uid = random.pick(&UIDS[..uids]);
        let mut body = json!({ "t": tag, "u": uid, "ms": random.within(1, 60) });
        let has_mischief = self.add_mischief(&mut body, plan, random);
        if plan.has(fault::SMALL_OUTBOXES) && random.percent(40) {
            body["p"] = Value::String("x".repeat(random.below(3000)));
        } else if random.percent(3) {
            // A turn has room for one or two such answers.
            body["n"] = random.below(100_000).into();
        }
        let body = body.to_string().into_bytes();
        self.may_be_kicked |= route.ends_with("login") || route.ends_with(".kick");
        if route.ends_with("login") {
            self.asked.insert(uid.to_owned());
        }
        let mut data = Vec::new();
        let kind = if is_notify { MessageType::Notify } else { MessageType::Request };
        let route_ref = Some(RouteRef::Text(route.as_bytes()));
        let message = message::Message { id, kind, route: route_ref, body: &body, gzip: false };
        message::encode(&message, &mut data).expect("a short route");
        let mark = if is_notify { Mark::Package } else { Mark::Request(id) };
        if !is_notify {
            let sent = Sent { tag, route, body, is_read: false, is_answered: false, has_mischief };
            self.requests.insert(id, sent);
        }
        self.send(PackageType::Data, &data, mark, random);
    }

    fn route(&self, plan: &Plan, random: &mut Random) -> String {
        // Most log in first, as games do.
        if self.last_id == 1 && random.percent(60) {
            return random.pick(&["connector.e.login", "chat.c.login"]).to_owned();
        }
        if random.percent(5) {
            return random
                .pick(&["nowhere.a.b", "unknown", "connector.e.missing", "chat.c.missing"])
                .to_owned();
        }
        let mut methods = vec!["echo", "echo", "echo", "later", "defer", "say", "say", "sayLater"];
        methods.extend(["set", "login", "login", "logout", "all", "relogin"]);
        if plan.has(fault::PANICS) {
            methods.extend(["panic", "latePanic"]);
        }
        if plan.has(fault::DISCONNECTS) && random.percent(20) {
            methods.push("kick");
        }
        let server = random.pick(&["connector.e", "chat.c", "chat.c"]);
        format!("{server}.{}", random.pick(&methods))
    }

    fn add_mischief(&self, body: &mut Value, plan: &Plan, random: &mut Random) -> bool {
        let mut kinds = Vec::new();
        if plan.has(fault::FILTERS) {
            kinds.extend(["refuse", "wait", "waitRefuse"]);
        }
        if plan.has(fault::FILTERS) && plan.has(fault::PANICS) {
            kinds.extend(["panic", "waitPanic", "after"]);
        }
        if kinds.is_empty() || random.percent(70) {
            return false;
        }
        body[random.pick(&["f", "g"])] = random.pick(&kinds).into();
        true
    }

    /// Reads bytes of the server's; gives what came of them that must not.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Result<Vec<Package>, String> {
        self.inbox.extend_from_slice(bytes);
        let mut packages = Vec::new();
        if self.is_websocket {
            self.read_frames()?;
        } else {
            self.payload.append(&mut self.inbox);
        }
        let mut at = 0;
        loop {
            let decoded = package::decode(&self.payload[at..], package::BODY_BYTES_MAX)
                .map_err(|error| format!("the server has sent no package: {error}"))?;
            let Status::Complete { value, consumed } = decoded else { break };
            if self.is_told_off {
                return Err("a package came after a KICK".to_owned());
            }
            self.is_told_off = value.kind == PackageType::Kick;
            packages.push((value.kind, value.body.to_vec()));
            at += consumed;
        }
        self.payload.drain(..at);
        self.packages += packages.len() as u64;
        if self.is_websocket && !self.payload.is_empty() {
            return Err("a frame did not hold whole packages".to_owned());
        }
        Ok(packages)
    }

    fn read_frames(&mut self) -> Result<(), String> {
        if !self.has_head {
            let Some(end) = self.inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                return Ok(());
            };
            self.has_head = true;
            let is_accepted = self.inbox.starts_with(b"HTTP/1.1 101 ");
            self.inbox.drain(..end + 4);
            if !is_accepted {
                self.is_closed = true;
                // The body of a refusal.
                self.inbox.clear();
                return if self.is_hostile { Ok(()) } else { Err("no upgrade".to_owned()) };
            }
        }
        while let [first, second, rest @ ..] = &self.inbox[..] {
            let (len_bytes, mut len) = match second {
                126 => (2, 0),
                127 => (8, 0),
                len => (0, usize::from(*len)),
            };
            let Some(more) = rest.get(..len_bytes) else { return Ok(()) };
            if len_bytes > 0 {
                len = more.iter().fold(0, |len, byte| len << 8 | usize::from(*byte));
            }
            let start = 2 + len_bytes;
            let Some(payload) = self.inbox.get(start..start + len) else { return Ok(()) };
            if self.is_closed {
                return Err("a frame came after a close".to_owned());
            }
            match first {
                0x82 => self.payload.extend_from_slice(payload),
                0x88 => self.is_closed = true,
                0x8a => {}
                _ => return Err(format!("the server has sent a frame {first:#x}")),
            }
            self.inbox.drain(..start + len);
        }
        Ok(())
    }

    /// A push: the sender's numbers must grow, and the uid must be one of this client's.
    pub(crate) fn on_push(&mut self, route: &str, body: &[u8]) -> Result<(), String> {
        let value: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        let (from, to) = (text("from"), text("u"));
        match route {
            "onChat" if !self.asked.contains(&to) => {
                return Err(format!("a push for {to} reached somebody else"));
            }
            "onAll" if value["b"] == true && self.asked.is_empty() => {
                return Err("a push to the bound reached somebody else".to_owned());
            }
            "onChat" | "onAll" => {}
            _ => return Err(format!("a push of an unknown route {route}")),
        }
        let n = value["n"].as_u64().unwrap_or_default();
        let last = self.last_pushes.entry((from.clone(), to.clone())).or_default();
        if n <= *last {
            return Err(format!("push {n} from {from} to {to} came after {last}"));
        }
        *last = n;
        Ok(())
    }
}

/// A package as it came.
pub(crate) type Package = (PackageType, Vec<u8>);

fn frame(first: u8, payload: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = vec![first];
    match payload.len() {
        len @ 0..=125 => bytes.push(0x80 | len as u8),
        len => {
            bytes.push(0x80 | 126);
            bytes.extend((len as u16).to_be_bytes());
        }
    }
    let mask = (random.next() as u32).to_be_bytes();
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}
