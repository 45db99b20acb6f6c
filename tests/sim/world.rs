//! The engine and its clients in one thread: what happens next, and to whom.

use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use shaddock::internals::simulated::{Setup, Simulated, Stage, Wish};
use shaddock::{LaneFull, Limits, OnSecondBind, SessionId};

use crate::app::{self, Shared, lock};
use crate::client::{Conn, Mark, UIDS};
use crate::net::{ClientEnd, Progress, Socket};
use crate::plan::{Plan, fault};
use crate::random::Random;

/// A world and everything in it.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) engine: Simulated,
    pub(crate) log: Shared,
    pub(crate) limits: Limits,
    pub(crate) now_us: u64,
    /// By party: shards first.
    pub(crate) parties: Vec<PartyState>,
    pub(crate) sockets: Vec<Socket>,
    conns: u64,
    host_pushes: u64,
    /// Sessions that are gone, whose ids may reach nobody.
    past: Vec<SessionId>,
    /// Sessions that the host has kicked.
    pub(crate) kicked: BTreeSet<String>,
    /// True if faults are over and everything is to come to rest.
    pub(crate) is_settling: bool,
    pub(crate) is_draining: bool,
    /// The hooks of the shutdown have begun.
    pub(crate) has_ended: bool,
    pub(crate) heartbeat: Option<Duration>,
    pub(crate) any_package: bool,
    pub(crate) single_session: bool,
    pub(crate) has_serial: bool,
    /// Sends that were done at once are told in their own turn, as by epoll.
    pub(crate) is_polling: bool,
    pub(crate) totals: Totals,
    trace: Option<String>,
}

/// How a shard or worker rests.
#[derive(Debug, Clone)]
pub(crate) struct PartyState {
    pub(crate) rest: Rest,
    pub(crate) is_dead: bool,
    /// The shard's clock as its deadlines count it.
    pub(crate) patient_us: u64,
    pub(crate) turn_us: u64,
    /// The times of a drain, once the shard has begun it.
    pub(crate) drain_us: Option<[u64; 3]>,
    /// The hooks of a shutdown run behind the party's next turn.
    pub(crate) runs_hooks: bool,
    stalled_until_us: u64,
    /// Sockets whose sends the kernel has yet to take, in order.
    pub(crate) untaken: VecDeque<u32>,
    /// Sockets whose sends were done at once, which the core has not heard yet, in order.
    pub(crate) done: VecDeque<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rest {
    Awake,
    /// The bell is armed; the second look comes next.
    Armed,
    Asleep {
        until_us: u64,
    },
}

/// What the engine's counters have to agree with.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Totals {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) answers: u64,
    pub(crate) pushes: u64,
    /// Sends that were done at once, and that were done in part.
    pub(crate) sends_at_once: u64,
    pub(crate) sends_in_part: u64,
    /// Messages that have waited for room in a lane.
    pub(crate) lane_pauses: u64,
    /// Times that a session was not read because it did not read.
    pub(crate) outbox_pauses: u64,
}

/// The longest turn that a shard's patient clock counts whole.
const PATIENCE_US: u64 = 200_000;
/// The shell's longest sleep, and how soon it tries a full lane again.
const SLEEP_US: u64 = 20_000;
const BACKLOG_RETRY_US: u64 = 1_000;
const PEER: &str = "127.0.0.1:9";

impl World {
    pub(crate) fn new(plan: Plan, has_trace: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let mut limits = limits(&plan, &mut random);
        let heartbeat = random.percent(60).then_some(Duration::from_millis(600));
        let any_package = random.percent(30);
        let single_session = match random.within(0, 4) {
            0 => Some(OnSecondBind::Refuse),
            1 => Some(OnSecondBind::KickFirst("elsewhere".into())),
            2 => Some(OnSecondBind::CloseFirst),
            _ => None,
        };
        let has_single_session = single_session.is_some();
        let lane_full = random.pick(&[LaneFull::Reject, LaneFull::Pause]);
        if lane_full == LaneFull::Pause && random.percent(70) {
            limits.lane_len = random.within(1, 3);
        }
        let filters = plan.has(fault::FILTERS);
        let has_serial = filters && random.percent(40);
        let log = Shared::default();
        let engine = Simulated::new(Setup {
            shards: plan.shards,
            workers: plan.workers,
            limits: limits.clone(),
            heartbeat,
            any_package,
            single_session,
            lane_full,
            // By the seed alone, as older seeds are to give the same runs.
            sample_every: [None, Some(1), Some(3), Some(10)][(plan.seed % 4) as usize],
            routes: ["chat.c.echo", "connector.e.echo", "chat.c.say"].map(str::to_owned).into(),
            connector: Arc::new(app::connector(&log, filters, has_serial)),
            chat: Arc::new(app::chat(&log, filters)),
        });
        let party = PartyState {
            rest: Rest::Awake,
            is_dead: false,
            patient_us: 0,
            turn_us: 0,
            drain_us: None,
            runs_hooks: false,
            stalled_until_us: 0,
            untaken: VecDeque::new(),
            done: VecDeque::new(),
        };
        let is_polling = random.percent(30);
        Self {
            plan,
            random,
            engine,
            log,
            limits,
            now_us: 0,
            parties: vec![party; usize::from(plan.shards + plan.workers)],
            sockets: Vec::new(),
            conns: 0,
            host_pushes: 0,
            past: Vec::new(),
            kicked: BTreeSet::new(),
            is_settling: false,
            is_draining: false,
            has_ended: false,
            heartbeat,
            any_package,
            single_session: has_single_session,
            has_serial,
            is_polling,
            totals: Totals::default(),
            trace: has_trace.then(String::new),
        }
    }

    pub(crate) fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            writeln!(trace, "{:>10} us  {}", self.now_us, text()).expect("a string takes all");
        }
    }

    pub(crate) fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }

    /// One step of chance.
    pub(crate) fn step(&mut self) -> Result<(), String> {
        self.pass_time();
        match self.random.below(100) {
            0..30 => self.client_step(),
            30..42 => self.read_step()?,
            42..75 => {
                let shard = self.random.below(usize::from(self.plan.shards));
                self.party_step(shard)?;
            }
            75..92 if self.plan.workers > 0 => {
                let worker = self.random.below(usize::from(self.plan.workers));
                if !self.plan.has(fault::SLOW_WORKERS) || self.random.percent(10) {
                    self.party_step(usize::from(self.plan.shards) + worker)?;
                }
            }
            92..95 => self.host_step(),
            95..98 => self.responder_step(),
            98 if self.plan.has(fault::DEAD_WORKER) && self.plan.workers > 0 => {
                let worker = self.random.below(usize::from(self.plan.workers));
                let party = usize::from(self.plan.shards) + worker;
                if self.random.percent(20) {
                    self.note(|| format!("worker {worker} ends"));
                    self.parties[party].is_dead = true;
                }
            }
            99 if self.plan.has(fault::STALLS) => {
                let shard = self.random.below(usize::from(self.plan.shards));
                let until_us = self.now_us + 1000 * self.random.below(100) as u64;
                self.parties[shard].stalled_until_us = until_us;
                self.note(|| format!("shard {shard} receives nothing until {until_us}"));
            }
            _ => {}
        }
        self.check_step()
    }

    fn pass_time(&mut self) {
        self.now_us += match self.random.below(100) {
            0..60 => self.random.below(50) as u64,
            60..97 => self.random.below(3_000) as u64,
            _ => self.random.below(60_000) as u64,
        };
        if self.plan.has(fault::JUMPS) && self.random.percent(1) {
            let jump_us = 1000 * self.random.within(150, 20_000) as u64;
            self.note(|| format!("the clock jumps by {jump_us} us"));
            self.now_us += jump_us;
        }
    }

    /// A client connects, sends, goes.
    fn client_step(&mut self) {
        if self.sockets.len() < usize::from(self.plan.clients)
            && (self.sockets.is_empty() || self.random.percent(25))
        {
            return self.connect();
        }
        if self.sockets.is_empty() {
            return;
        }
        let at = self.random.below(self.sockets.len());
        let (plan, random) = (&self.plan, &mut self.random);
        let socket = &mut self.sockets[at];
        let number = socket.conn.number;
        if socket.client_end != ClientEnd::Open {
            return;
        }
        if !socket.conn.has_begun {
            if !(plan.has(fault::SILENCE) && random.percent(20)) {
                socket.conn.begin(random);
                self.note(|| format!("client {number} begins"));
            }
            return;
        }
        if plan.has(fault::DISCONNECTS) && random.percent(4) {
            let end = random.pick(&[ClientEnd::Eof, ClientEnd::Reset]);
            socket.client_end = end;
            if end == ClientEnd::Reset && random.percent(50) {
                let lost = random.below(socket.conn.pipe.len() + 1);
                socket.conn.pipe.truncate(socket.conn.pipe.len() - lost);
            }
            return self.note(|| format!("client {number} ends: {end:?}"));
        }
        if plan.has(fault::GARBAGE) && random.percent(4) {
            socket.conn.garbage(random);
            return self.note(|| format!("client {number} sends garbage"));
        }
        if !socket.conn.is_silent && random.percent(25) {
            return socket.conn.heartbeat(random);
        }
        for _ in 0..random.within(1, 4) {
            socket.conn.message(plan, random);
        }
        let last = socket.conn.requests.last_key_value().map(|(id, sent)| {
            format!("request {id} {} {}", sent.route, String::from_utf8_lossy(&sent.body))
        });
        self.note(|| format!("client {number} sends up to {last:.200?}"));
    }

    fn connect(&mut self) {
        let shard = self.random.below(usize::from(self.plan.shards)) as u16;
        let is_taken =
            |index: u32| self.sockets.iter().any(|s| s.shard == shard && s.index == index);
        let index = (0..).find(|index| !is_taken(*index)).expect("few are taken");
        self.conns += 1;
        let is_silent = self.plan.has(fault::SILENCE) && self.random.percent(40);
        let conn = Conn::new(self.conns, self.random.percent(40), is_silent);
        self.note(|| {
            let kind = if conn.is_websocket { "WebSocket" } else { "TCP" };
            format!("client {} connects to shard {shard} by {kind}, socket {index}", conn.number)
        });
        self.sockets.push(Socket::new(shard, index, conn));
    }

    /// The network carries, and clients read.
    pub(crate) fn read_step(&mut self) -> Result<(), String> {
        for at in 0..self.sockets.len() {
            let is_slow = self.plan.has(fault::SLOW_READERS) && !self.is_settling;
            let room = self.room();
            let socket = &mut self.sockets[at];
            socket.transmit(room);
            let len = match is_slow {
                // Some of them never read.
                true if socket.conn.number.is_multiple_of(3) => 0,
                true => self.random.below(socket.arriving.len() / 2 + 1),
                false => socket.arriving.len(),
            };
            if socket.client_end == ClientEnd::Reset {
                socket.arriving.clear();
                continue;
            }
            let bytes: Vec<u8> = socket.arriving.drain(..len).collect();
            let packages = socket
                .conn
                .read(&bytes)
                .map_err(|error| format!("client {}: {error}", socket.conn.number))?;
            for (kind, body) in packages {
                self.check_package(at, kind, &body)?;
            }
            let socket = &mut self.sockets[at];
            // A client that has read the end closes too, sooner or later.
            if socket.is_writing_finished
                && socket.arriving.is_empty()
                && socket.client_end == ClientEnd::Open
                && self.random.percent(50)
            {
                socket.client_end = ClientEnd::Eof;
            }
        }
        Ok(())
    }

    fn host_step(&mut self) {
        if !self.plan.has(fault::HOST) {
            return;
        }
        let uid = self.random.pick(&UIDS[..4]);
        match self.random.below(10) {
            0 => {
                let told = self.engine.host_kick(uid, Some("host"));
                self.note(|| format!("the host kicks {uid}: {told}"));
            }
            1 | 2 => {
                let open = self.sockets.iter().filter_map(|socket| socket.session);
                let sessions: Vec<SessionId> = open.chain(self.past.iter().copied()).collect();
                if sessions.is_empty() {
                    return;
                }
                let session = self.random.pick(&sessions);
                let taken = self.engine.host_kick_session(session, None);
                self.kicked.insert(format!("{session:?}"));
                self.note(|| format!("the host kicks session {session:?}: {taken}"));
            }
            _ => {
                self.host_pushes += 1;
                let body = format!(r#"{{"from":"host","u":"{uid}","n":{}}}"#, self.host_pushes);
                let taken = self.engine.host_push(uid, "onChat", body.as_bytes());
                self.note(|| format!("the host pushes {body}: {taken}"));
            }
        }
    }

    /// Another thread answers, or gives up.
    pub(crate) fn responder_step(&mut self) {
        let taken = {
            let responders = &mut lock(&self.log).responders;
            if responders.is_empty() {
                return;
            }
            let at = self.random.below(responders.len());
            responders.swap_remove(at)
        };
        let (tag, responder) = taken;
        if self.random.percent(70) {
            responder.answer(shaddock::Reply::bytes(format!(r#"{{"t":{tag},"r":"deferred"}}"#)));
        } else {
            drop(responder);
        }
        self.note(|| format!("another thread answers {tag}"));
    }

    /// A shard or worker gets the processor: it does what its shell does next.
    pub(crate) fn party_step(&mut self, party: usize) -> Result<(), String> {
        let index = party as u16;
        if self.parties[party].is_dead {
            return Ok(());
        }
        match self.parties[party].rest {
            Rest::Awake => {}
            Rest::Armed if self.engine.has_work(index) => {
                self.engine.disarm(index);
                self.parties[party].rest = Rest::Awake;
                return Ok(());
            }
            Rest::Armed => {
                let deadline_us = self.engine.next_deadline_us(index).unwrap_or(u64::MAX);
                let retry_us = match self.backlog(party) {
                    0 => SLEEP_US,
                    _ => BACKLOG_RETRY_US,
                };
                let until_us = deadline_us.min(self.now_us + retry_us);
                self.parties[party].rest = Rest::Asleep { until_us };
                return Ok(());
            }
            Rest::Asleep { until_us } => {
                let is_rung = !self.engine.is_armed(index);
                if !is_rung && until_us > self.now_us && !self.has_completion(party) {
                    return Ok(());
                }
                self.engine.disarm(index);
            }
        }
        let mut has_more = match party < usize::from(self.plan.shards) {
            true => self.shard_turn(index)?,
            false => self.engine.run_worker(index - self.plan.shards, self.now_us),
        };
        if std::mem::take(&mut self.parties[party].runs_hooks) {
            self.engine.begin_shutdown(index);
        }
        while let Some(rung) = self.engine.poll_bell(index) {
            self.note(|| format!("party {index} wakes party {rung}"));
        }
        if party < usize::from(self.plan.shards) {
            self.submit(index)?;
            if self.is_polling && self.tell_done(index)? {
                has_more |= self.engine.has_transmits(index);
                self.grant_wishes(index)?;
            }
            self.engine.end_turn(index, self.now_us);
            // The shell asks the kernel again before it sleeps.
            has_more |= !self.parties[party].untaken.is_empty();
            self.check_turn(index)?;
        }
        self.parties[party].rest = if has_more {
            Rest::Awake
        } else {
            self.engine.arm(index);
            Rest::Armed
        };
        Ok(())
    }

    pub(crate) fn backlog(&self, party: usize) -> usize {
        match party.checked_sub(usize::from(self.plan.shards)) {
            Some(worker) => self.engine.probe_worker(worker as u16).backlog,
            None => {
                let probe = self.engine.probe(party as u16);
                probe.backlog + probe.lane_waits
            }
        }
    }

    fn has_completion(&self, party: usize) -> bool {
        self.parties[party].drain_us.is_some()
            || self.parties[party].runs_hooks
            || self
                .sockets
                .iter()
                .any(|socket| usize::from(socket.shard) == party && socket.has_completion())
    }

    fn shard_turn(&mut self, shard: u16) -> Result<bool, String> {
        let party = &mut self.parties[usize::from(shard)];
        party.patient_us += (self.now_us - party.turn_us).min(PATIENCE_US);
        party.turn_us = self.now_us;
        self.engine.begin_turn(shard, self.now_us);
        // In front of what comes, whose answers may go out then.
        self.tell_done(shard)?;
        let mut at = 0;
        while at < self.sockets.len() {
            let is_closed = self.sockets[at].shard == shard && self.deliver(at)?;
            if is_closed {
                self.sockets.swap_remove(at);
            } else {
                at += 1;
            }
        }
        self.deliver_late(shard);
        let has_more = self.engine.run(shard);
        if let Some(times_us) = self.parties[usize::from(shard)].drain_us {
            self.engine.drain(shard, times_us);
        }
        while let Some(sending) = self.engine.poll_transmit(shard) {
            self.begin_send(shard, sending)?;
        }
        self.grant_wishes(shard)?;
        Ok(has_more)
    }

    fn grant_wishes(&mut self, shard: u16) -> Result<(), String> {
        while let Some(wish) = self.engine.poll_command(shard) {
            self.grant(shard, wish)?;
        }
        Ok(())
    }

    /// Tells the core what has happened on one socket; whether it is closed for good.
    fn deliver(&mut self, at: usize) -> Result<bool, String> {
        let is_late = self.plan.has(fault::STALLS) && !self.is_settling;
        let patient_ms = self.parties[usize::from(self.sockets[at].shard)].patient_us / 1000;
        let socket = &mut self.sockets[at];
        let Some(session) = socket.session else {
            let peer: SocketAddr = PEER.parse().expect("an address");
            let session = self.engine.accept(socket.shard, socket.index, peer);
            socket.session = session;
            socket.model.since_ms = patient_ms;
            let number = socket.conn.number;
            self.note(|| format!("client {number} is accepted as {session:?}"));
            return Ok(session.is_none());
        };
        let is_under_way = matches!(socket.progress, Progress::Sending | Progress::InPart);
        if socket.is_closing
            && socket.sending.is_some()
            && socket.send_end.is_none()
            && is_under_way
        {
            // Cancelled, or all but.
            socket.send_end = Some(self.random.percent(50));
        }
        if socket.progress == Progress::InPart && (!is_late || self.random.percent(50)) {
            socket.progress = Progress::Sending;
        }
        if socket.progress == Progress::Sending
            && (!is_late || self.random.percent(50))
            && let Some(is_sent) = socket.send_end.take()
        {
            let sending = socket.sending.take().ok_or("a send ends that never began")?;
            if is_sent {
                self.totals.bytes_out += sending.bytes().len() as u64;
            }
            self.engine.sent(sending, is_sent);
        }
        if socket.is_closing {
            if socket.sending.is_some() || is_late && self.random.percent(50) {
                return Ok(false);
            }
            self.engine.socket_closed(session);
            self.past.push(session);
            self.note(|| format!("session {session:?} is closed"));
            return Ok(true);
        }
        self.receive(at, patient_ms);
        Ok(false)
    }

    /// Tells the core once more, or only now, that a session has ended whose socket is closed: the
    /// shell tells of few ends in a turn, so some come after their sockets' ends. The place may be
    /// another's by then.
    fn deliver_late(&mut self, shard: u16) {
        if !self.plan.has(fault::DISCONNECTS) || !self.random.percent(20) {
            return;
        }
        let recent =
            self.past.iter().rev().filter(|session| session.shard().index() as u16 == shard);
        let recent: Vec<SessionId> = recent.take(4).copied().collect();
        if recent.is_empty() {
            return;
        }
        let session = self.random.pick(&recent);
        match self.random.below(4) {
            0 => self.engine.receive_error(session),
            1 => self.engine.socket_closed(session),
            _ => self.engine.receive_eof(session),
        }
        self.note(|| format!("an end of session {session:?} comes late"));
    }

    fn receive(&mut self, at: usize, patient_ms: u64) {
        let socket = &mut self.sockets[at];
        let Some(session) = socket.session.filter(|_| !socket.is_end_told) else { return };
        let is_stalled = self.parties[usize::from(socket.shard)].stalled_until_us > self.now_us;
        if is_stalled && !self.is_settling {
            return;
        }
        if socket.is_paused && socket.pieces_left == 0 && socket.client_end != ClientEnd::Reset {
            return;
        }
        socket.pieces_left = 0;
        let waiting = socket.conn.pipe.len();
        if waiting > 0 {
            let len = match self.plan.has(fault::CUTS) && !self.is_settling {
                true if self.random.percent(30) => 1,
                true => self.random.within(1, waiting),
                false => waiting,
            };
            let mut bytes: Vec<u8> = socket.conn.pipe.drain(..len).collect();
            self.totals.bytes_in += len as u64;
            socket.delivered += len as u64;
            if self.heartbeat.is_none() && socket.model.is_working {
                socket.model.heard_ms = patient_ms;
            }
            while let Some((_, mark)) =
                socket.conn.marks.pop_front_if(|(offset, _)| *offset <= socket.delivered)
            {
                let model = &mut socket.model;
                match mark {
                    Mark::Ack => (model.is_working, model.heard_ms) = (true, patient_ms),
                    Mark::Heartbeat => model.heard_ms = patient_ms,
                    Mark::Package | Mark::Request(_) if self.any_package => {
                        model.heard_ms = patient_ms;
                    }
                    Mark::Package | Mark::Request(_) => {}
                }
                if let Mark::Request(id) = mark
                    && model.stage <= Stage::Working
                    && let Some(sent) = socket.conn.requests.get_mut(&id)
                {
                    sent.is_read = true;
                }
            }
            self.engine.receive(session, &mut bytes);
            self.note(|| format!("session {session:?} gets {len} bytes"));
        }
        let socket = &mut self.sockets[at];
        if socket.conn.pipe.is_empty() && socket.client_end != ClientEnd::Open {
            socket.is_end_told = true;
            match socket.client_end {
                ClientEnd::Reset => self.engine.receive_error(session),
                _ => self.engine.receive_eof(session),
            }
            self.note(|| format!("session {session:?} is read to its end"));
        }
    }

    fn grant(&mut self, shard: u16, wish: Wish) -> Result<(), String> {
        self.note(|| format!("shard {shard} wishes {wish:?}"));
        match wish {
            Wish::FinishWriting(index) => {
                let socket = self.socket(shard, index)?;
                if socket.is_writing_finished || socket.is_closing || socket.sending.is_some() {
                    return Err(format!("a wish to finish writing at the wrong time: {socket:?}"));
                }
                socket.is_writing_finished = true;
            }
            Wish::PauseReading(index) => {
                // What the kernel has under way comes all the same.
                let pieces_left = u8::from(self.random.percent(30));
                let socket = self.socket(shard, index)?;
                socket.is_paused = true;
                socket.pieces_left = pieces_left;
            }
            Wish::ResumeReading(index) => self.socket(shard, index)?.is_paused = false,
            Wish::Close(index) => {
                let socket = self.socket(shard, index)?;
                if socket.is_closing {
                    return Err(format!("a wish to close twice: {socket:?}"));
                }
                socket.is_closing = true;
            }
        }
        Ok(())
    }

    pub(crate) fn socket(&mut self, shard: u16, index: u32) -> Result<&mut Socket, String> {
        self.sockets
            .iter_mut()
            .find(|socket| socket.shard == shard && socket.index == index)
            .ok_or_else(|| format!("shard {shard} has no socket {index}"))
    }
}

fn limits(plan: &Plan, random: &mut Random) -> Limits {
    let mut limits = Limits {
        connections_max: 64,
        connections_per_shard_max: 64,
        handshake_package_bytes_max: 1024,
        package_bytes_max: 4096,
        http_head_bytes_max: 512,
        outbox_bytes_max: 256 * 1024,
        handshake_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_millis(800),
        close_linger: Duration::from_millis(200),
        forward_timeout: Duration::from_millis(300),
        forwards_in_flight_max: 256,
        lane_len: 64,
        inbox_len: 64,
        backlog_len_max: 64,
        in_flight_per_session_max: 64,
        tasks_max: 64,
        uid_bytes_max: 3,
        ..Limits::default()
    };
    if plan.has(fault::SHORT_LANES) {
        limits.lane_len = random.within(1, 3);
        limits.inbox_len = random.within(1, 3);
        limits.backlog_len_max = random.within(1, 8);
    }
    if plan.has(fault::SMALL_OUTBOXES) {
        limits.outbox_bytes_max = 4097 + random.below(3000);
    }
    if plan.has(fault::SMALL_LIMITS) {
        limits.connections_max = random.within(1, 6);
        limits.connections_per_shard_max = random.within(1, 4) as u32;
        limits.forwards_in_flight_max = random.within(1, 6);
        limits.in_flight_per_session_max = random.within(1, 4) as u16;
        limits.tasks_max = random.within(1, 6);
        limits.held_bytes_max = random.below(4000);
        limits.messages_per_turn_max = random.within(1, 20) as u32;
        limits.lane_bytes_max = random.within(4096, 20_000);
        limits.in_flight_bytes_per_session_max = random.within(4096, 20_000);
        limits.shard_bytes_max = 2 * limits.outbox_bytes_max + random.below(20_000);
    }
    assert_eq!(limits.check(), Ok(()));
    limits
}
