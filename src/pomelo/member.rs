//! The state of one frontend in its cluster: every connection, every server, every call.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Member::begin_turn`] with the time;
//! 2. [`Member::handle_accept`], [`Member::handle_open`], [`Member::handle_input`] and
//!    [`Member::handle_closed`] for what the sockets did;
//! 3. [`Member::run`], which reads mail and lets deadlines pass;
//! 4. [`Member::poll_command`], [`Member::poll_dirty`] and [`Member::poll_bell`], each until it
//!    gives nothing more;
//! 5. it waits for the next event, for no longer than [`Member::next_deadline_us`] allows.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::calls::ServerType;
use super::cluster::{ClosedArg, Occasion, PomeloCluster, PomeloLimits};
use super::link::{Link, LinkId, Output, Owner};
use super::mailbox::{Beat, Mailbox, Pulse, State, micros};
use super::master::{Heard, JOIN_TIMEOUT, Master, State as MasterState};
use super::mqtt::{self, Packet};
use super::remotes::Caller;
use super::rpc::RemoteName;
use super::servers::{Change, Server};
use crate::forward::remote::{Received, Remote};
use crate::forward::{Chunk, Party, Route};
use crate::metrics::Counters;
use crate::route::table::RouteTable;
use crate::session::{Slot, Table};

/// Everything that a frontend knows of its cluster.
pub(crate) struct Member {
    pub(super) config: MemberConfig,
    pub(super) remote: Remote<Caller, Vec<u8>>,
    pub(super) links: Table<Link>,
    pub(super) mailboxes: Table<Mailbox>,
    pub(super) types: Vec<ServerType>,
    master: Option<Master>,
    callers: usize,
    commands: VecDeque<Command>,
    dirty: VecDeque<LinkId>,
    pub(super) now_us: u64,
    pub(super) held: Held,
    is_backed_up: bool,
    /// The answers' bodies are carved from this.
    pub(super) chunk: Chunk,
}

/// What a member is made of, besides its place among the parties.
pub(crate) struct MemberConfig {
    pub(crate) frontend_id: Arc<str>,
    pub(crate) routes: Arc<RouteTable>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) limits: PomeloLimits,
    pub(crate) call_timeout_us: u64,
    pub(crate) keepalive: Duration,
    pub(crate) hooks: Vec<(Occasion, RemoteName, Vec<ClosedArg>)>,
}

/// The memory that all connections take together, at most: it is counted anew when a bound seems to
/// be reached, as sending gives memory back without a word.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Of what waits to be sent.
    pub(super) output: usize,
    /// Of packets that have come in part.
    pub(super) input: usize,
    /// Whether it has been counted in this turn.
    is_counted: bool,
}

/// What the shell has to do with a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Make a connection, and tell how it went.
    Connect { link: LinkId, host: String, port: u16 },
    /// Close one, and say no more of it.
    Close(LinkId),
    /// The master asks this server to stop.
    Stop,
}

/// Connections at most: more than there can be servers, callers and masters.
const LINKS_MAX: usize = 1 << 20;
/// What each connection may hold whatever the others do, of what is to be sent and of a packet.
const ALWAYS_BYTES: usize = 64 * 1024;
/// Bytes of one packet from the master: thousands of servers' entries.
const MASTER_PACKET_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a CONNECT takes, about.
const CONNECT_BYTES: usize = 64;
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server that answers stays in the list though the master that has come back does not
/// name it: longer than its own wait before it comes back, too.
const GRACE: Duration = Duration::from_secs(90);

impl MemberConfig {
    /// The part of a description that the member needs; it has been checked.
    pub(crate) fn new(
        cluster: &PomeloCluster,
        frontend_id: &Arc<str>,
        routes: &Arc<RouteTable>,
        counters: &Arc<Counters>,
    ) -> Self {
        let hooks = cluster.hooks.iter().filter_map(|(occasion, name, args)| {
            Some((*occasion, RemoteName::parse(name)?, args.clone()))
        });
        Self {
            frontend_id: Arc::clone(frontend_id),
            routes: Arc::clone(routes),
            counters: Arc::clone(counters),
            limits: cluster.limits.clone(),
            call_timeout_us: micros(cluster.call_timeout),
            keepalive: cluster.keepalive,
            hooks: hooks.collect(),
        }
    }
}

impl Member {
    pub(crate) fn new(
        config: MemberConfig,
        cluster: &PomeloCluster,
        routers: &[(String, Route)],
        remote: Remote<Caller, Vec<u8>>,
    ) -> Self {
        let types = cluster.server_types.iter();
        Self {
            remote,
            links: Table::new(LINKS_MAX),
            mailboxes: Table::new(config.limits.servers_max),
            types: types.map(|(name, router)| ServerType::new(name, router, routers)).collect(),
            master: None,
            callers: 0,
            commands: VecDeque::new(),
            dirty: VecDeque::new(),
            now_us: 0,
            held: Held::default(),
            is_backed_up: false,
            chunk: Chunk::default(),
            config,
        }
    }

    /// Follows a master from now on.
    pub(crate) fn follow(
        &mut self,
        host: String,
        port: u16,
        registration: super::master::Registration,
    ) {
        self.master = Some(Master::new(host, port, registration));
    }

    /// Uses servers that nobody announces.
    pub(crate) fn set_servers(&mut self, servers: Vec<Server>) {
        self.apply(Change::Replace(servers));
    }

    /// Begins a turn at the given time.
    pub(crate) fn begin_turn(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
        self.remote.begin_turn();
        self.held.is_counted = false;
        // What is left after that found no room in a lane.
        self.is_backed_up = self.remote.has_backlog();
    }

    /// Whether `bytes` more may wait to be sent on a connection where `waiting` do, by what waits
    /// on all of them. A little may always, so that nobody pays for others that do not read.
    pub(super) fn has_room(&mut self, waiting: usize, bytes: usize) -> bool {
        let bytes_max = self.config.limits.output_total_bytes_max;
        if self.held.output + bytes > bytes_max {
            self.count_held();
        }
        self.held.output + bytes <= bytes_max || waiting + bytes <= ALWAYS_BYTES
    }

    /// Counts what is held; once a turn, as memory is given back between turns.
    fn count_held(&mut self) {
        if self.held.is_counted {
            return;
        }
        self.held = Held { is_counted: true, ..Held::default() };
        for (.., link) in self.links.iter() {
            let (output, input) = link.held_bytes();
            self.held.output += output;
            self.held.input += input;
        }
    }

    /// Whether too much waits for the shards, so that nothing more is to be read from servers.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.is_backed_up
    }

    /// A backend has connected. `None` turns it away: the shell closes the socket.
    pub(crate) fn handle_accept(&mut self) -> Option<LinkId> {
        if self.callers >= self.config.limits.callers_max {
            crate::log::seldom!(warn, "too many connections of backends; one was closed");
            return None;
        }
        let (slot, generation) = self.links.insert(Link::new(Owner::Caller, true))?;
        self.callers += 1;
        Some(LinkId { slot, generation })
    }

    /// A connection that was asked for is made.
    pub(crate) fn handle_open(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(id.slot, id.generation) else { return };
        link.is_open = true;
        if let Owner::Mailbox(slot) = link.owner
            && let Some(mailbox) = self.mailboxes.at_mut(slot)
        {
            let server = mailbox.server.id.as_str();
            crate::log::seldom!(of server, info, server, "connected");
            let pulse = Pulse::new(self.config.keepalive, self.now_us);
            mailbox.state = State::Open { link: id, pulse };
            mailbox.queued = 0;
            mailbox.retry.succeed();
        }
        self.mark_dirty(id);
    }

    /// A connection has ended, or could not be made.
    pub(crate) fn handle_closed(&mut self, id: LinkId, why: &str) {
        let Some(link) = self.links.get(id.slot, id.generation) else { return };
        let (owner, was_open) = (link.owner, link.is_open);
        self.links.remove(id.slot);
        match owner {
            Owner::Caller => self.callers -= 1,
            Owner::Master => {
                if let Some(master) = &mut self.master {
                    crate::log::seldom!(
                        warn,
                        why,
                        "no connection to the master; serving on without it"
                    );
                    master.handle_lost(self.now_us);
                }
            }
            Owner::Mailbox(slot) => self.handle_mailbox_lost(slot, was_open, why),
        }
    }

    /// A connection to a server has ended: its calls fail at once. One that was open is tried again
    /// at once, too.
    fn handle_mailbox_lost(&mut self, slot: Slot, was_open: bool, why: &str) {
        let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
        let wait_us = if was_open { 0 } else { mailbox.retry.fail() };
        mailbox.state = State::Waiting { until_us: self.now_us + wait_us };
        mailbox.queued = 0;
        let waiters = mailbox.calls.take_all();
        let server = mailbox.server.id.as_str();
        let calls = waiters.len();
        crate::log::seldom!(of server, warn, server, why, calls, "no connection to a server");
        self.config.counters.forward_lost.add(waiters.len() as u64);
        for waiter in waiters {
            self.answer_failed(waiter.shard, waiter.token);
        }
    }

    /// Bytes have come on a connection.
    pub(crate) fn handle_input(&mut self, id: LinkId, input: &[u8]) {
        let Some(link) = self.links.get_mut(id.slot, id.generation) else { return };
        let owner = link.owner;
        // Taken out, as a packet may lead anywhere.
        let mut reader = std::mem::take(&mut link.reader);
        let held = reader.held_bytes();
        let bytes_max = match owner {
            Owner::Master => MASTER_PACKET_BYTES_MAX.min(self.config.limits.packet_bytes_max),
            Owner::Mailbox(_) | Owner::Caller => self.config.limits.packet_bytes_max,
        };
        let read = reader.read(input, bytes_max, |packet| self.handle_packet(id, owner, &packet));
        if let Err(error) = read {
            self.config.counters.cluster_bad_packets.one();
            return self.close(id, &error.to_string());
        }
        let more = reader.held_bytes().saturating_sub(held);
        if let Some(link) = self.links.get_mut(id.slot, id.generation) {
            link.reader = reader;
        }
        if more > 0 {
            self.held.input += more;
            self.check_input(id);
        }
    }

    /// A packet in part has taken more memory; where that is too much, its connection is closed.
    fn check_input(&mut self, id: LinkId) {
        let bytes_max = self.config.limits.input_total_bytes_max;
        if self.held.input > bytes_max {
            self.count_held();
        }
        let Some(link) = self.links.get(id.slot, id.generation) else { return };
        let (_, own) = link.held_bytes();
        if self.held.input > bytes_max && own > ALWAYS_BYTES {
            self.held.input -= own;
            self.config.counters.cluster_overflows.one();
            self.close(id, "too much has come in part on all connections");
        }
    }

    fn handle_packet(&mut self, id: LinkId, owner: Owner, packet: &Packet<'_>) {
        // What stands behind the packet that closed its connection is not looked at.
        if self.links.get(id.slot, id.generation).is_none() {
            return;
        }
        match owner {
            Owner::Master => self.handle_master(id, packet),
            Owner::Mailbox(slot) => match *packet {
                Packet::Publish { payload, .. } => self.handle_answers(slot, payload),
                Packet::PingResp => {
                    if let Some(Mailbox { state: State::Open { pulse, .. }, .. }) =
                        self.mailboxes.at_mut(slot)
                    {
                        pulse.handle_pong();
                    }
                }
                Packet::Disconnect => self.close(id, "it says goodbye"),
                _ => {}
            },
            Owner::Caller => match *packet {
                Packet::Publish { payload, .. } => self.handle_requests(id, payload),
                Packet::PingReq => self.write(id, |out| out.extend_from_slice(&mqtt::PINGRESP)),
                Packet::Disconnect => self.close(id, "it says goodbye"),
                _ => {}
            },
        }
    }

    fn handle_master(&mut self, id: LinkId, packet: &Packet<'_>) {
        let Some(master) = &mut self.master else { return };
        let mut out = Vec::new();
        let heard = master.handle_packet(packet, self.now_us, &mut out);
        self.write(id, |bytes| bytes.extend_from_slice(&out));
        match heard {
            Heard::Nothing => {}
            Heard::Change(change) => self.apply(change),
            Heard::Stop => self.commands.push_back(Command::Stop),
            Heard::Over { why } => self.close(id, &why),
        }
    }

    /// Reads mail, and lets deadlines pass.
    pub(crate) fn run(&mut self) {
        while let Some(received) = self.remote.receive() {
            match received {
                Received::Forward(forward) => self.handle_forward(forward),
                Received::Closed { session, data } => self.handle_session_closed(session, &data),
                Received::Login { data } => self.handle_session_bound(&data),
                // Nobody has asked for these.
                Received::Logout { .. } => {}
                Received::Done { caller, result } => self.handle_done(caller, result),
            }
        }
        let mailboxes = self.mailboxes.iter();
        let due: Vec<Slot> = mailboxes
            .filter(|(.., mailbox)| mailbox.next_deadline_us() <= self.now_us)
            .map(|(slot, ..)| slot)
            .collect();
        due.into_iter().for_each(|slot| self.handle_mailbox_due(slot));
        self.run_master();
    }

    fn handle_mailbox_due(&mut self, slot: Slot) {
        let now_us = self.now_us;
        let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
        let mut timeouts = Vec::new();
        while let Some(waiter) = mailbox.calls.take_due(now_us) {
            timeouts.push(waiter);
        }
        let id = mailbox.server.id.clone();
        let leaves = mailbox.leaves_us.is_some_and(|leaves_us| leaves_us <= now_us);
        let (beat, link) = match &mut mailbox.state {
            State::Open { link, pulse } => (pulse.beat(now_us), Some(*link)),
            State::Connecting { link, until_us } if *until_us <= now_us => {
                (Beat::Lost, Some(*link))
            }
            State::Waiting { until_us } if *until_us <= now_us && !leaves => {
                self.connect_mailbox(slot);
                (Beat::None, None)
            }
            _ => (Beat::None, None),
        };
        self.config.counters.forward_timeouts.add(timeouts.len() as u64);
        for waiter in timeouts {
            self.answer_failed(waiter.shard, waiter.token);
        }
        if leaves {
            return self.apply(Change::Remove(id));
        }
        match (beat, link) {
            (Beat::Ping, Some(link)) => {
                self.write(link, |out| out.extend_from_slice(&mqtt::PINGREQ));
            }
            (Beat::Lost, Some(link)) => self.close(link, "it does not answer"),
            _ => {}
        }
    }

    fn connect_mailbox(&mut self, slot: Slot) {
        let Some(id) = self.new_link(Owner::Mailbox(slot), "MQTT_RPC_") else { return };
        let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
        mailbox.queued = 0;
        let until_us = self.now_us + micros(CONNECT_TIMEOUT);
        mailbox.state = State::Connecting { link: id, until_us };
        let (host, port) = (mailbox.server.host.clone(), mailbox.server.port);
        self.commands.push_back(Command::Connect { link: id, host, port });
    }

    fn run_master(&mut self) {
        let Some(master) = &mut self.master else { return };
        let mut out = Vec::new();
        if let MasterState::Waiting { until_us } = master.state {
            if until_us > self.now_us {
                return;
            }
            let (host, port) = (master.host.clone(), master.port);
            let Some(link) = self.new_link(Owner::Master, "MQTT_ADMIN_") else { return };
            self.commands.push_back(Command::Connect { link, host, port });
            if let Some(master) = &mut self.master {
                let until_us = self.now_us + micros(JOIN_TIMEOUT);
                master.state = MasterState::Joining { link, until_us };
            }
            return;
        }
        let (lost, link) = (master.beat(self.now_us, &mut out), master.link());
        let Some(link) = link else { return };
        self.write(link, |bytes| bytes.extend_from_slice(&out));
        if let Some(why) = lost {
            self.close(link, &why);
        }
    }

    /// A connection to be made, which begins with a CONNECT.
    fn new_link(&mut self, owner: Owner, client: &str) -> Option<LinkId> {
        let mut link = Link::new(owner, false);
        // The original puts the time there; nobody looks at it.
        let client_id = format!("{client}{}", self.now_us / 1000);
        link.output.append(CONNECT_BYTES, |out| mqtt::encode_connect(&client_id, out));
        let (slot, generation) = self.links.insert(link)?;
        Some(LinkId { slot, generation })
    }

    /// The list of servers has changed.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Add(server) => self.add_server(server),
            Change::Remove(id) => {
                if let Some(slot) = self.find_server(&id) {
                    self.remove_server(slot);
                }
            }
            Change::Replace(servers) => {
                let (now_us, grace_us) = (self.now_us, micros(GRACE));
                let mailboxes = self.mailboxes.iter();
                let missing: Vec<(Slot, bool)> = mailboxes
                    .filter(|(.., mailbox)| servers.iter().all(|s| s.id != mailbox.server.id))
                    .map(|(slot, _, mailbox)| (slot, mailbox.is_open()))
                    .collect();
                for (slot, is_open) in missing {
                    match self.mailboxes.at_mut(slot) {
                        // A master that has been away learns of its servers one by one.
                        Some(mailbox) if is_open => {
                            mailbox.leaves_us.get_or_insert(now_us + grace_us);
                        }
                        _ => self.remove_server(slot),
                    }
                }
                servers.into_iter().for_each(|server| self.add_server(server));
            }
        }
        self.types.iter_mut().for_each(|kind| kind.refresh(&self.mailboxes));
    }

    fn find_server(&self, id: &crate::forward::ServerId) -> Option<Slot> {
        let mut mailboxes = self.mailboxes.iter();
        mailboxes.find(|(.., mailbox)| mailbox.server.id == *id).map(|(slot, ..)| slot)
    }

    fn add_server(&mut self, server: Server) {
        let Some(place) = self.types.iter().position(|kind| *kind.name == *server.server_type)
        else {
            return;
        };
        if let Some(slot) = self.find_server(&server.id) {
            let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
            mailbox.leaves_us = None;
            let old = std::mem::replace(&mut mailbox.server, server);
            let new = &mailbox.server;
            let is_same_place = (&old.host, old.port) == (&new.host, new.port);
            if old.server_type != new.server_type {
                self.types.iter_mut().for_each(|kind| kind.servers.retain(|s| *s != slot));
                self.types[place].servers.push(slot);
            }
            // One that has moved is called where it is now.
            if !is_same_place && let Some(link) = self.mailboxes.at(slot).and_then(Mailbox::link) {
                self.close(link, "it has moved");
            }
            return;
        }
        let (id, mailbox) = (server.id.clone(), Mailbox::new(server, self.now_us));
        match self.mailboxes.insert(mailbox) {
            Some((slot, _)) => self.types[place].servers.push(slot),
            None => {
                crate::log::seldom!(
                    warn,
                    server = id.as_str(),
                    "too many servers; one is left out"
                );
            }
        }
    }

    fn remove_server(&mut self, slot: Slot) {
        if let Some(link) = self.mailboxes.at(slot).and_then(Mailbox::link) {
            self.close(link, "the master has taken it off the list");
        }
        self.types.iter_mut().for_each(|kind| kind.servers.retain(|server| *server != slot));
        self.mailboxes.remove(slot);
    }

    /// Closes a connection, and goes on as if it had ended by itself.
    pub(super) fn close(&mut self, id: LinkId, why: &str) {
        if self.links.get(id.slot, id.generation).is_some() {
            self.commands.push_back(Command::Close(id));
            self.handle_closed(id, why);
        }
    }

    /// Appends to what is sent on a connection.
    pub(super) fn write(&mut self, id: LinkId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(link) = self.links.get_mut(id.slot, id.generation) else { return };
        let held = link.output.held_bytes();
        link.output.append(0, write);
        self.held.output += link.output.held_bytes().saturating_sub(held);
        let (len, owner) = (link.output.len(), link.owner);
        let is_too_much = len > self.config.limits.output_bytes_max || !self.has_room(len, 0);
        if is_too_much && owner == Owner::Caller {
            self.config.counters.cluster_overflows.one();
            self.close(id, "it does not read what it is answered");
        } else {
            self.mark_dirty(id);
        }
    }

    pub(super) fn mark_dirty(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(id.slot, id.generation)
            && link.is_open
            && link.output.len() > 0
            && !std::mem::replace(&mut link.is_dirty, true)
        {
            self.dirty.push_back(id);
        }
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A connection that has something to send; see [`Self::output`].
    pub(crate) fn poll_dirty(&mut self) -> Option<LinkId> {
        while let Some(id) = self.dirty.pop_front() {
            if let Some(link) = self.links.get_mut(id.slot, id.generation) {
                link.is_dirty = false;
                return Some(id);
            }
        }
        None
    }

    /// What is to be sent on an open connection.
    pub(crate) fn output(&mut self, id: LinkId) -> Option<&mut Output> {
        let link = self.links.get_mut(id.slot, id.generation)?;
        link.is_open.then_some(&mut link.output)
    }

    /// Calls that wait for answers.
    pub(crate) fn calls_under_way(&self) -> usize {
        self.mailboxes.iter().map(|(.., mailbox)| mailbox.calls.len()).sum()
    }

    /// The memory that waits to be sent on a connection.
    #[cfg(test)]
    pub(crate) fn held_by(&self, id: LinkId) -> usize {
        self.links.get(id.slot, id.generation).map_or(0, |link| link.output.held_bytes())
    }

    /// Whether an open connection has something to send.
    pub(crate) fn is_sending(&self) -> bool {
        self.links.iter().any(|(.., link)| link.is_open && link.output.len() > 0)
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.remote.poll_bell()
    }

    /// Whether mail has come that [`Self::run`] has not seen. To be asked again once the doorbell
    /// is armed.
    pub(crate) fn has_work(&self) -> bool {
        self.remote.has_work()
    }

    /// When the shell has to run again at the latest.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let mailboxes = self.mailboxes.iter().map(|(.., mailbox)| mailbox.next_deadline_us());
        let master = self.master.iter().map(Master::next_deadline_us);
        let backlog = self.remote.backlog_retry_us(self.now_us);
        mailboxes.chain(master).chain(backlog).min()
    }
}
