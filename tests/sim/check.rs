//! What must hold after each step, after each turn of a shard, and in the end.

use std::collections::BTreeSet;

use serde_json::Value;
use shaddock::SessionId;
use shaddock::internals::simulated::{SessionProbe, Stage};
use shaddock::metrics::CounterSnapshot;
use shaddock::wire::message::{self, MessageType, RouteRef};
use shaddock::wire::package::{HEADER_BYTES, PackageType};

use crate::app::lock;
use crate::client::UIDS;
use crate::net::ClientEnd;
use crate::plan::fault;
use crate::world::{Rest, World};

/// The wheel's tick: a deadline may be that late, and the turn that notices it.
const TICK_MS: u64 = 50;
/// What an answer without a body is.
const FAILED: &[u8] = br#"{"code":500}"#;
/// Bytes that go out beside packages and are not held against an outbox: an upgrade, a close.
const OUTBOX_SLACK: usize = 256;
/// A frame's header.
const FRAME_HEADER_BYTES: usize = 14;

type Checked = Result<(), String>;

fn ensure(holds: bool, text: impl FnOnce() -> String) -> Checked {
    if holds { Ok(()) } else { Err(text()) }
}

impl World {
    /// What a client may get.
    pub(crate) fn check_package(&mut self, at: usize, kind: PackageType, body: &[u8]) -> Checked {
        let number = self.sockets[at].conn.number;
        match kind {
            PackageType::Data => {
                self.check_message(at, body).map_err(|error| format!("client {number}: {error}"))
            }
            PackageType::Heartbeat => ensure(self.heartbeat.is_some(), || {
                format!("client {number}: a heartbeat that nobody asked for")
            }),
            _ => Ok(()),
        }
    }

    fn check_message(&mut self, at: usize, body: &[u8]) -> Checked {
        let message = message::decode(body).map_err(|error| error.to_string())?;
        match (message.kind, message.route) {
            (MessageType::Push, Some(RouteRef::Text(route))) => {
                self.totals.pushes += 1;
                let conn = &mut self.sockets[at].conn;
                if conn.is_hostile {
                    return Ok(());
                }
                conn.on_push(&String::from_utf8_lossy(route), message.body)
            }
            (MessageType::Response, None) => {
                self.totals.answers += 1;
                self.check_answer(at, message.id, message.body)
            }
            _ => Err(format!("a message of the wrong kind: {message:?}")),
        }
    }

    fn check_answer(&mut self, at: usize, id: u32, body: &[u8]) -> Checked {
        let is_strict_everywhere = !self.has_serial && !self.plan.has(fault::SMALL_LIMITS);
        let conn = &mut self.sockets[at].conn;
        let is_hostile = conn.is_hostile;
        let Some(sent) = conn.requests.get_mut(&id) else {
            return ensure(is_hostile, || format!("an answer to {id}, which was not asked"));
        };
        if std::mem::replace(&mut sent.is_answered, true) {
            return ensure(is_hostile, || format!("a second answer to {id} {}", sent.route));
        }
        if is_hostile {
            return Ok(());
        }
        let route = sent.route.as_str();
        let must_fail = route.ends_with("anic") || !is_known(route);
        if body == FAILED {
            let may_fail = must_fail
                || sent.has_mischief
                || !is_strict_everywhere
                || route.starts_with("chat.")
                || route.ends_with(".defer")
                || route.ends_with(".later") && self.plan.has(fault::SMALL_LIMITS);
            // Without limits in its way a connector answers what it can.
            let tasks_are_full = route.ends_with("login")
                || route.ends_with("logout")
                || route.ends_with("later")
                || route.ends_with("set");
            return ensure(may_fail || tasks_are_full, || format!("{id} {route} has failed"));
        }
        let text = || format!("{id} {route}: {}", String::from_utf8_lossy(body));
        ensure(!must_fail, text)?;
        let is_echo = route.ends_with("echo") || route.ends_with("later");
        ensure(!is_echo || body.trim_ascii_end() == sent.body, text)?;
        let value: Value = serde_json::from_slice(body).map_err(|_| text())?;
        ensure(value["t"].as_u64() == Some(sent.tag), text)?;
        let blanks = value["n"].as_u64().unwrap_or_default() as usize;
        ensure(!is_echo || body.len() == sent.body.len() + blanks, text)?;
        if !route.ends_with("echo") || sent.has_mischief || self.has_serial {
            return Ok(());
        }
        let server = lock(&self.log).handled.get(&sent.tag).cloned();
        let server = server.ok_or_else(|| format!("{id} {route}: answered by nobody"))?;
        let last = conn.last_answers.insert(server.clone(), id).unwrap_or_default();
        ensure(last < id, || format!("{server} has answered {id} after {last}"))
    }

    /// After each step, whatever it was.
    pub(crate) fn check_step(&mut self) -> Checked {
        if let Some(violation) = lock(&self.log).violations.pop() {
            return Err(violation);
        }
        self.check_sleepers()?;
        self.check_sizes()?;
        for uid in UIDS {
            let sessions = self.engine.sessions_of(uid);
            let unique: BTreeSet<String> = sessions.iter().map(|id| format!("{id:?}")).collect();
            ensure(unique.len() == sessions.len(), || format!("{uid} twice: {sessions:?}"))?;
            ensure(!self.single_session || sessions.len() <= 1, || {
                format!("{uid} has several sessions: {sessions:?}")
            })?;
        }
        Ok(())
    }

    /// Nobody sleeps on work that nobody will wake it for.
    fn check_sleepers(&self) -> Checked {
        for (party, state) in self.parties.iter().enumerate() {
            let index = party as u16;
            let Rest::Asleep { until_us } = state.rest else { continue };
            if state.is_dead || !self.engine.is_armed(index) || self.backlog(party) > 0 {
                continue;
            }
            ensure(!self.engine.has_work(index), || {
                let lanes: Vec<_> = (0..self.parties.len())
                    .map(|from| self.engine.mail_len(from as u16, index))
                    .collect();
                format!("party {party} sleeps over its work: {lanes:?} {}", self.describe())
            })?;
            let deadline_us = self.engine.next_deadline_us(index);
            ensure(deadline_us.is_none_or(|deadline_us| until_us <= deadline_us), || {
                format!("party {party} sleeps until {until_us} over its {deadline_us:?}")
            })?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Checked {
        let limits = &self.limits;
        let parties = self.parties.len();
        // What may be refused is bounded by itself; what must arrive by what it answers.
        let backlog_max = (limits.backlog_len_max + limits.tasks_max) * (parties + 1)
            + limits.forwards_in_flight_max
            + 16 * limits.connections_max;
        let mut connections = 0;
        for shard in 0..self.plan.shards {
            let probe = self.engine.probe(shard);
            connections += probe.connections;
            let text = || format!("shard {shard}: {probe:?}");
            ensure(probe.connections <= limits.connections_per_shard_max as usize, text)?;
            ensure(probe.deadlines <= probe.connections, text)?;
            ensure(probe.calls <= limits.forwards_in_flight_max, text)?;
            ensure(probe.spans <= probe.calls, text)?;
            ensure(probe.asks <= limits.backlog_len_max, text)?;
            ensure(probe.tasks <= limits.tasks_max, text)?;
            ensure(probe.backlog <= backlog_max, text)?;
            // Above it by what a turn lays out for one session before it is counted.
            let kept_max = limits.shard_bytes_max + limits.outbox_bytes_max + OUTBOX_SLACK;
            ensure(probe.kept_bytes <= kept_max, text)?;
            let kept: usize = self.engine.sessions(shard).map(|session| session.kept_bytes).sum();
            ensure(kept <= probe.kept_bytes, || format!("{kept} of {}", text()))?;
            // One message of each session, but for those that filters have held.
            let waits_max = match self.plan.has(fault::FILTERS) || self.has_serial {
                true => probe.connections * usize::from(limits.in_flight_per_session_max),
                false => probe.connections,
            };
            ensure(probe.lane_waits <= waits_max, text)?;
        }
        for worker in 0..self.plan.workers {
            let probe = self.engine.probe_worker(worker);
            let text = || format!("worker {worker}: {probe:?}");
            ensure(probe.asks <= limits.backlog_len_max, text)?;
            ensure(probe.tasks <= limits.tasks_max, text)?;
            ensure(probe.backlog <= backlog_max, text)?;
        }
        let counted = self.engine.connections();
        ensure(connections == counted, || format!("{connections} connections, {counted} counted"))?;
        ensure(counted <= limits.connections_max, || format!("{counted} connections"))
    }

    /// After a turn of a shard: each session is where its deadlines allow it to be.
    pub(crate) fn check_turn(&mut self, shard: u16) -> Checked {
        let patient_ms = self.parties[usize::from(shard)].patient_us / 1000;
        let probes: Vec<SessionProbe> = self.engine.sessions(shard).collect();
        for at in 0..self.sockets.len() {
            if self.sockets[at].shard != shard {
                continue;
            }
            let Some(session) = self.sockets[at].session else { continue };
            let Some(probe) = probes.iter().find(|probe| probe.id == session) else {
                return Err(format!("{session:?} has gone before its socket was closed"));
            };
            self.check_bounds(probe)?;
            self.check_stage(at, probe, patient_ms)?;
        }
        let sockets = self.sockets.iter();
        let open = sockets.filter(|socket| socket.shard == shard && socket.session.is_some());
        ensure(open.count() == probes.len(), || format!("{} sessions on {shard}", probes.len()))
    }

    fn check_bounds(&self, probe: &SessionProbe) -> Checked {
        let limits = &self.limits;
        let text = || format!("{probe:?}");
        ensure(probe.in_flight <= usize::from(limits.in_flight_per_session_max), text)?;
        // One message alone always fits, twice where filters are to see it again.
        let alone_max = 2 * limits.package_bytes_max;
        let in_flight_max = limits.in_flight_bytes_per_session_max.max(alone_max);
        ensure(probe.in_flight_bytes <= in_flight_max, text)?;
        if probe.stage == Stage::Dead {
            // What is with the kernel comes back.
            return ensure(probe.partial_bytes + probe.message_bytes == 0, text);
        }
        ensure(probe.outbox_bytes <= limits.outbox_bytes_max + OUTBOX_SLACK, text)?;
        let payload_max = 2 * (HEADER_BYTES + limits.package_bytes_max);
        let partial_max = (payload_max + FRAME_HEADER_BYTES).max(limits.http_head_bytes_max);
        ensure(probe.partial_bytes <= partial_max, text)?;
        ensure(probe.message_bytes <= payload_max, text)
    }

    fn check_stage(&mut self, at: usize, probe: &SessionProbe, patient_ms: u64) -> Checked {
        let silence = self.heartbeat.unwrap_or(self.limits.idle_timeout).as_millis() as u64;
        let opening = self.limits.handshake_timeout.as_millis() as u64;
        let linger = self.limits.close_linger.as_millis() as u64;
        let is_draining = self.is_draining;
        let socket = &mut self.sockets[at];
        let is_hostile = socket.conn.is_hostile;
        if probe.is_held || socket.model.is_held {
            // What keeps it alive waits for its shard.
            socket.model.heard_ms = patient_ms;
        }
        socket.model.is_held = probe.is_held;
        let before = socket.model;
        let model = &mut socket.model;
        let text = |what: &str| format!("{what}: {probe:?} at {patient_ms}, {before:?}");
        ensure(probe.stage >= before.stage, || text("back to life"))?;
        if probe.stage > Stage::Working && before.stage <= Stage::Working {
            model.since_ms = patient_ms;
        }
        model.stage = probe.stage;
        match probe.stage {
            Stage::Opening => ensure(patient_ms < before.since_ms + opening + TICK_MS, || {
                text("a handshake takes too long")
            })?,
            Stage::Working => {
                ensure(is_hostile || before.is_working, || text("works without an ACK"))?;
                ensure(is_hostile || patient_ms < before.heard_ms + silence + TICK_MS, || {
                    text("silent for too long")
                })?;
            }
            Stage::Closing | Stage::Lingering => {
                ensure(patient_ms < model.since_ms + linger + TICK_MS, || {
                    text("takes too long to close")
                })?
            }
            Stage::Dead => ensure(socket.is_closing, || text("dead and not closed"))?,
        }
        // A well-behaved session ends for a reason that its model knows of.
        let is_working = before.is_working && before.stage <= Stage::Working;
        let ends = is_working && probe.stage > Stage::Working;
        let is_silent = patient_ms >= before.heard_ms + silence;
        let may_end = is_hostile
            || is_draining
            || is_silent
            || socket.is_end_told
            || self.plan.has(fault::SMALL_OUTBOXES)
            || self.plan.has(fault::SLOW_READERS)
            || socket.send_failed()
            || self.may_be_kicked(at);
        ensure(!ends || may_end, || text("closed for nothing"))
    }

    /// True if anybody has asked for a kick that may hit this client.
    fn may_be_kicked(&self, at: usize) -> bool {
        let socket = &self.sockets[at];
        socket.conn.may_be_kicked
            || socket.session.is_some_and(|id| self.kicked.contains(&format!("{id:?}")))
    }

    /// Lets everything come to rest without further faults, and checks what must hold then.
    pub(crate) fn settle(&mut self) -> Checked {
        self.note(|| "the faults are over".to_owned());
        self.is_settling = true;
        for round in 0..ROUNDS_MAX {
            self.quiet_round(round)?;
            if self.is_at_rest() {
                return self.check_rest();
            }
        }
        Err(format!("no rest: {}", self.describe()))
    }

    /// Everybody does what there is to do, once.
    fn quiet_round(&mut self, round: usize) -> Checked {
        self.now_us += ROUND_US;
        while !lock(&self.log).responders.is_empty() {
            self.responder_step();
        }
        for socket in &mut self.sockets {
            let conn = &mut socket.conn;
            if round.is_multiple_of(20)
                && !conn.is_silent
                && !conn.is_hostile
                && conn.has_begun
                && socket.client_end == ClientEnd::Open
            {
                conn.heartbeat(&mut self.random);
            }
        }
        for party in 0..self.parties.len() {
            // To look, to arm the bell, to sleep.
            for _ in 0..3 {
                self.party_step(party)?;
            }
        }
        self.read_step()?;
        self.check_step()
    }

    fn is_at_rest(&self) -> bool {
        let shards = (0..self.plan.shards).map(|shard| self.engine.probe(shard));
        let mut workers = self.live_workers().map(|worker| self.engine.probe_worker(worker));
        let has_dead = self.live_workers().count() < usize::from(self.plan.workers);
        let are_read = self.sockets.iter().all(|socket| {
            socket.session.is_some()
                && (socket.conn.pipe.is_empty() || socket.model.stage > Stage::Working)
                && (socket.model.stage <= Stage::Working || socket.is_closing)
                && socket.sending.is_none()
                && socket.arriving.is_empty()
        });
        let shards_rest = shards.into_iter().all(|probe| {
            probe.calls + probe.asks + probe.tasks + probe.timers == 0
                && probe.lane_waits + probe.held_bytes == 0
                // A worker that stands keeps what was sent to it.
                && (has_dead || probe.kept_bytes == 0)
        });
        are_read
            && shards_rest
            && workers.all(|probe| probe.asks + probe.tasks + probe.timers == 0)
            && self.lanes_are_empty()
    }

    /// All shards, and the workers that are not dead.
    fn live_parties(&self) -> Vec<u16> {
        let shards = self.plan.shards;
        (0..shards).chain(self.live_workers().map(|worker| shards + worker)).collect()
    }

    fn live_workers(&self) -> impl Iterator<Item = u16> {
        let shards = usize::from(self.plan.shards);
        (0..self.plan.workers).filter(move |w| !self.parties[shards + usize::from(*w)].is_dead)
    }

    fn lanes_are_empty(&self) -> bool {
        let parties = self.parties.len();
        (0..parties * parties).all(|place| {
            let (from, to) = (place / parties, place % parties);
            // Mail for a dead worker stays; a dead one's is never sent.
            let is_dead = self.parties[to].is_dead || self.parties[from].is_dead;
            is_dead || self.engine.mail_len(from as u16, to as u16) == (0, 0)
        })
    }

    fn describe(&self) -> String {
        let shards: Vec<_> = (0..self.plan.shards).map(|shard| self.engine.probe(shard)).collect();
        let workers: Vec<_> =
            (0..self.plan.workers).map(|worker| self.engine.probe_worker(worker)).collect();
        let sockets: Vec<_> = self
            .sockets
            .iter()
            .map(|s| (s.session, s.model, s.conn.pipe.len(), s.is_closing, s.client_end))
            .collect();
        format!("{shards:?} {workers:?} {sockets:?}")
    }

    /// At rest: all is answered, and the directory is what the sessions say.
    fn check_rest(&self) -> Checked {
        let mut bound: BTreeSet<(String, String)> = BTreeSet::new();
        for probe in (0..self.plan.shards).flat_map(|shard| self.engine.sessions(shard)) {
            ensure(probe.in_flight == 0, || format!("{probe:?} waits for nothing"))?;
            ensure(!probe.is_held, || format!("{probe:?} is held for nothing"))?;
            let uid = probe.uid.filter(|_| probe.stage == Stage::Working);
            bound.extend(uid.map(|uid| (uid, format!("{:?}", probe.id))));
        }
        let listed: BTreeSet<(String, String)> = UIDS
            .iter()
            .flat_map(|uid| {
                let sessions = self.engine.sessions_of(uid);
                sessions.into_iter().map(|id: SessionId| (uid.to_string(), format!("{id:?}")))
            })
            .collect();
        ensure(bound == listed, || format!("sessions say {bound:?}, the directory {listed:?}"))?;
        for socket in &self.sockets {
            if socket.model.stage != Stage::Working || socket.conn.is_hostile {
                continue;
            }
            let mut requests = socket.conn.requests.iter();
            let unanswered = requests.find(|(_, sent)| sent.is_read && !sent.is_answered);
            ensure(unanswered.is_none(), || {
                format!("client {} waits for {unanswered:?}", socket.conn.number)
            })?;
        }
        Ok(())
    }

    /// Everybody leaves; nothing may stay behind.
    pub(crate) fn finish(&mut self) -> Checked {
        if self.plan.has(fault::DRAIN) {
            self.is_draining = true;
            self.drain();
        } else {
            for socket in &mut self.sockets {
                let end = self.random.pick(&[ClientEnd::Eof, ClientEnd::Reset]);
                if socket.client_end == ClientEnd::Open {
                    socket.client_end = end;
                }
            }
        }
        for round in 0..ROUNDS_MAX {
            self.quiet_round(round)?;
            if self.engine.connections() > 0 || !self.is_at_rest() {
                continue;
            }
            if !self.is_draining || self.has_ended {
                return self.check_end();
            }
            self.has_ended = true;
            for party in self.live_parties() {
                self.parties[usize::from(party)].runs_hooks = true;
            }
        }
        Err(format!("somebody stays: {}", self.describe()))
    }

    /// Closes everybody, at once or over some rounds.
    fn drain(&mut self) {
        let over_us = self.random.pick(&[0, 10 * ROUND_US, 100 * ROUND_US]);
        let closed_us = self.now_us + over_us;
        let times_us = [self.now_us, closed_us, closed_us + DRAIN_US];
        self.note(|| format!("all shards drain over {over_us} us"));
        let shards = usize::from(self.plan.shards);
        self.parties[..shards].iter_mut().for_each(|party| party.drain_us = Some(times_us));
    }

    fn check_end(&mut self) -> Checked {
        let mut sum = CounterSnapshot::default();
        for shard in 0..self.plan.shards {
            let probe = self.engine.probe(shard);
            let left = probe.deadlines + probe.uids + probe.logins;
            ensure(left == 0, || format!("shard {shard} keeps {probe:?}"))?;
            sum += self.engine.counters(shard);
        }
        let text = |what: &str| format!("{what}: {:?} {sum:?}", self.totals);
        ensure(sum.connections_accepted == sum.connections_closed, || text("connections"))?;
        let ends = sum.closed_by_peer
            + sum.closed_by_kick
            + sum.closed_heartbeat_timeout
            + sum.closed_idle
            + sum.closed_handshake_timeout
            + sum.closed_protocol
            + sum.closed_slow_consumer
            + sum.closed_shutdown
            + sum.refused_handshake
            + sum.refused_version
            + sum.refused_http;
        ensure(ends == sum.connections_accepted, || text("ends"))?;
        ensure(sum.bytes_in == self.totals.bytes_in, || text("bytes in"))?;
        ensure(sum.bytes_out == self.totals.bytes_out, || text("bytes out"))?;
        ensure(sum.answers <= sum.requests, || text("answers"))?;
        ensure(self.totals.answers <= sum.answers, || text("answers read"))?;
        ensure(self.totals.pushes <= sum.pushes, || text("pushes read"))?;
        self.check_saves(sum.task_rejects)?;
        self.totals.lane_pauses = sum.lane_pauses;
        self.totals.outbox_pauses = sum.outbox_pauses;
        self.check_log()
    }

    /// All that is owed is done, but for what there was no room for.
    fn check_saves(&self, task_rejects: u64) -> Checked {
        let live = self.live_parties();
        let owed: usize = live.iter().map(|&party| self.engine.owed(party)).sum();
        ensure(owed == 0, || format!("{owed} futures are owed"))?;
        let log = lock(&self.log);
        let (begun, done, lost) = (log.saves, log.saves_done, log.saves_lost);
        let is_all = live.len() < self.parties.len() || begun == done + lost;
        ensure(is_all, || format!("{begun} saves were begun, {done} done and {lost} lost"))?;
        let of_workers = self.plan.workers > 0;
        ensure(of_workers || lost <= task_rejects, || format!("{lost} saves were lost"))?;
        let hooks = if self.is_draining { live.len() as u64 } else { 0 };
        ensure(log.hooks == hooks, || format!("{} of {hooks} hooks have ended", log.hooks))
    }

    /// Servers have heard of every end, filters of every message.
    fn check_log(&self) -> Checked {
        let log = lock(&self.log);
        let dead: Vec<String> = (1..=self.plan.workers)
            .filter(|n| self.parties[usize::from(self.plan.shards + n - 1)].is_dead)
            .map(|n| format!("chat-{n}"))
            .collect();
        for ((server, number), seen) in &log.seen {
            let is_told = seen.session.is_none() || seen.ends == 1 || dead.contains(server);
            ensure(is_told, || format!("{server} was not told of the end of session {number}"))?;
        }
        for ((name, tag), (before, after)) in &log.filtered {
            let is_dead = dead.iter().any(|server| name.ends_with(server));
            ensure(is_dead || before == after, || {
                format!("filter {name} saw {tag} {before} times before and {after} times after")
            })?;
        }
        Ok(())
    }
}

fn is_known(route: &str) -> bool {
    let (prefix, method) = route.rsplit_once('.').unwrap_or_default();
    ["connector.e", "chat.c"].contains(&prefix) && method != "missing"
}

/// A quiet round's length, and how many there are at most: 40 s.
const ROUND_US: u64 = 5_000;
/// The time for answers that are pending, a second of which is for those who are closed without.
const DRAIN_US: u64 = 1_250_000;
const ROUNDS_MAX: usize = 8_000;
