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
use std::time::Duration;

use super::cluster::PomeloCluster;
use super::forwards::Forwards;
use super::mailbox::{Beat, Mailbox, Pulse, State, micros};
use super::mailboxes::Mailboxes;
use super::master::{Heard, JOIN_TIMEOUT, Master, State as MasterState};
use super::member_config::MemberConfig;
use super::mqtt::{self, Packet};
use super::peer::{Output, Owner, Peer, PeerId};
use super::peers::Peers;
use super::remotes::{Caller, Remotes};
use super::servers::{Change, Server};
use crate::forward::remote::{Received, Remote};
use crate::forward::{Chunk, Party, Route};
use crate::metrics::{ClusterFigures, ForwardEnd};
use crate::session::Slot;

/// Everything that a frontend knows of its cluster.
pub(crate) struct Member {
    config: MemberConfig,
    remote: Remote<Caller, Vec<u8>>,
    peers: Peers,
    mailboxes: Mailboxes,
    master: Option<Master>,
    /// Connections of backends.
    callers: usize,
    commands: VecDeque<Command>,
    now_us: u64,
    is_backed_up: bool,
    chunk: Chunk,
}

/// A command to the shell about a socket.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Make a connection, and tell how it went.
    Connect { peer: PeerId, host: String, port: u16 },
    /// Close one, and say no more of it.
    Close(PeerId),
    /// The master asks this server to stop.
    Stop,
}

/// The coordinator of a Pomelo cluster.
pub(crate) const MASTER: &str = "master";
/// Bytes of one packet from the master: thousands of servers' entries.
const MASTER_PACKET_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a CONNECT, about.
const CONNECT_BYTES: usize = 64;
/// The longest time that a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The time that a server that answers stays in the list though the master that is back does not
/// name it: longer than its own wait before it comes back, too.
const GRACE: Duration = Duration::from_secs(90);

impl Member {
    pub(crate) fn new(
        config: MemberConfig,
        cluster: &PomeloCluster,
        routers: &[(String, Route)],
        remote: Remote<Caller, Vec<u8>>,
    ) -> Self {
        let servers_max = config.limits.servers_max;
        Self {
            remote,
            peers: Peers::new(&config.limits),
            mailboxes: Mailboxes::new(&cluster.server_types, routers, servers_max),
            master: None,
            callers: 0,
            commands: VecDeque::new(),
            now_us: 0,
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
        self.peers.begin_turn();
        // What is left after that found no room in a lane.
        self.is_backed_up = self.remote.has_backlog();
    }

    /// True if too much waits for the shards: nothing more is to be read from servers then.
    pub(crate) fn is_backed_up(&self) -> bool {
        self.is_backed_up
    }

    /// A backend has connected. `None` turns it away: the shell closes the socket.
    pub(crate) fn handle_accept(&mut self) -> Option<PeerId> {
        if self.callers >= self.config.limits.callers_max {
            crate::log::seldom!(warn, "too many connections of backends; one was closed");
            return None;
        }
        let id = self.peers.add(Peer::new(Owner::Caller, true))?;
        self.callers += 1;
        Some(id)
    }

    /// A connection that was asked for is made.
    pub(crate) fn handle_open(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(id) else { return };
        peer.is_open = true;
        if let Owner::Mailbox(slot) = peer.owner
            && let Some(mailbox) = self.mailboxes.at_mut(slot)
        {
            let server = mailbox.server.id.as_str();
            crate::log::seldom!(of server, info, server, "connected");
            let pulse = Pulse::new(self.config.keepalive, self.now_us);
            mailbox.state = State::Open { peer: id, pulse };
            mailbox.queued = 0;
            mailbox.retry.succeed();
        }
        self.peers.mark_dirty(id);
    }

    /// A connection has ended, or could not be made.
    pub(crate) fn handle_closed(&mut self, id: PeerId, why: &str) {
        let Some(Peer { owner, is_open: was_open, .. }) = self.peers.remove(id) else { return };
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
            self.forwards().answer_failed(waiter.shard, waiter.token, ForwardEnd::Lost);
        }
    }

    /// Bytes have come on a connection.
    pub(crate) fn handle_input(&mut self, id: PeerId, input: &[u8]) {
        let Some(owner) = self.peers.get(id).map(|peer| peer.owner) else { return };
        // Taken out, as a packet may lead anywhere.
        let Some(mut reader) = self.peers.take_reader(id) else { return };
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
        if self.peers.put_reader(id, reader, more).is_err() {
            self.config.counters.cluster_overflows.one();
            self.close(id, "too much has come in part on all connections");
        }
    }

    fn handle_packet(&mut self, id: PeerId, owner: Owner, packet: &Packet<'_>) {
        // What stands behind the packet that closed its connection is not looked at.
        if self.peers.get(id).is_none() {
            return;
        }
        match owner {
            Owner::Master => self.handle_master(id, packet),
            Owner::Mailbox(slot) => match *packet {
                Packet::Publish { payload, .. } => self.forwards().handle_answers(slot, payload),
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
                Packet::Publish { payload, .. } => self.remotes().handle_requests(id, payload),
                Packet::PingReq => {
                    self.peers.write(id, |out| out.extend_from_slice(&mqtt::PINGRESP));
                }
                Packet::Disconnect => self.close(id, "it says goodbye"),
                _ => {}
            },
        }
        self.close_overflowed();
    }

    /// Closes the connections of backends that do not read what they are answered.
    fn close_overflowed(&mut self) {
        while let Some(id) = self.peers.poll_overflowed() {
            self.config.counters.cluster_overflows.one();
            self.close(id, "it does not read what it is answered");
        }
    }

    fn forwards(&mut self) -> Forwards<'_> {
        Forwards {
            config: &self.config,
            remote: &mut self.remote,
            mailboxes: &mut self.mailboxes,
            peers: &mut self.peers,
            chunk: &mut self.chunk,
            now_us: self.now_us,
        }
    }

    fn remotes(&mut self) -> Remotes<'_> {
        Remotes { config: &self.config, remote: &mut self.remote, peers: &mut self.peers }
    }

    fn handle_master(&mut self, id: PeerId, packet: &Packet<'_>) {
        let Some(master) = &mut self.master else { return };
        let mut out = Vec::new();
        let heard = master.handle_packet(packet, self.now_us, &mut out);
        self.peers.write(id, |bytes| bytes.extend_from_slice(&out));
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
                Received::Forward { forward, span } => {
                    self.forwards().handle_forward(forward, span.as_deref());
                }
                Received::Closed { session, data } => {
                    self.forwards().handle_session_closed(session, &data);
                }
                Received::Login { data } => self.forwards().handle_session_bound(&data),
                // Nobody has asked for these.
                Received::Logout { .. } => {}
                Received::Done { caller, result } => self.remotes().handle_done(caller, result),
            }
            self.close_overflowed();
        }
        let mailboxes = self.mailboxes.iter();
        let due: Vec<Slot> = mailboxes
            .filter(|(_, mailbox)| mailbox.next_deadline_us() <= self.now_us)
            .map(|(slot, _)| slot)
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
        let (beat, peer) = match &mut mailbox.state {
            State::Open { peer, pulse } => (pulse.beat(now_us), Some(*peer)),
            State::Connecting { peer, until_us } if *until_us <= now_us => {
                (Beat::Lost, Some(*peer))
            }
            State::Waiting { until_us } if *until_us <= now_us && !leaves => {
                self.connect_mailbox(slot);
                (Beat::None, None)
            }
            _ => (Beat::None, None),
        };
        if !timeouts.is_empty() {
            self.config.counters.forward_timeouts.add(timeouts.len() as u64);
            let (server, messages) = (id.as_str(), timeouts.len());
            crate::log::seldom!(
                of server,
                warn,
                server,
                messages,
                "a server has not answered in time"
            );
        }
        for waiter in timeouts {
            self.forwards().answer_failed(waiter.shard, waiter.token, ForwardEnd::TimedOut);
        }
        if leaves {
            return self.apply(Change::Remove(id));
        }
        match (beat, peer) {
            (Beat::Ping, Some(peer)) => {
                self.peers.write(peer, |out| out.extend_from_slice(&mqtt::PINGREQ));
            }
            (Beat::Lost, Some(peer)) => self.close(peer, "it does not answer"),
            _ => {}
        }
    }

    fn connect_mailbox(&mut self, slot: Slot) {
        let Some(id) = self.new_peer(Owner::Mailbox(slot), "MQTT_RPC_") else { return };
        let Some(mailbox) = self.mailboxes.at_mut(slot) else { return };
        mailbox.queued = 0;
        let until_us = self.now_us + micros(CONNECT_TIMEOUT);
        mailbox.state = State::Connecting { peer: id, until_us };
        let (host, port) = (mailbox.server.host.clone(), mailbox.server.port);
        self.commands.push_back(Command::Connect { peer: id, host, port });
    }

    fn run_master(&mut self) {
        let Some(master) = &mut self.master else { return };
        let mut out = Vec::new();
        if let MasterState::Waiting { until_us } = master.state {
            if until_us > self.now_us {
                return;
            }
            let (host, port) = (master.host.clone(), master.port);
            let Some(peer) = self.new_peer(Owner::Master, "MQTT_ADMIN_") else { return };
            self.commands.push_back(Command::Connect { peer, host, port });
            if let Some(master) = &mut self.master {
                let until_us = self.now_us + micros(JOIN_TIMEOUT);
                master.state = MasterState::Joining { peer, until_us };
            }
            return;
        }
        let (lost, peer) = (master.beat(self.now_us, &mut out), master.peer());
        let Some(peer) = peer else { return };
        self.peers.write(peer, |bytes| bytes.extend_from_slice(&out));
        if let Some(why) = lost {
            self.close(peer, &why);
        }
    }

    /// A connection to be made, which begins with a CONNECT.
    fn new_peer(&mut self, owner: Owner, client: &str) -> Option<PeerId> {
        let mut peer = Peer::new(owner, false);
        // The original puts the time there; nobody looks at it.
        let client_id = format!("{client}{}", self.now_us / 1000);
        peer.output.append(CONNECT_BYTES, |out| mqtt::encode_connect(&client_id, out));
        self.peers.add(peer)
    }

    /// The list of servers has changed.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Add(server) => self.add_server(server),
            Change::Remove(id) => {
                if let Some(slot) = self.mailboxes.find(&id) {
                    self.remove_server(slot);
                }
            }
            Change::Replace(servers) => {
                let (now_us, grace_us) = (self.now_us, micros(GRACE));
                let mailboxes = self.mailboxes.iter();
                let missing: Vec<(Slot, bool)> = mailboxes
                    .filter(|(_, mailbox)| servers.iter().all(|s| s.id != mailbox.server.id))
                    .map(|(slot, mailbox)| (slot, mailbox.is_open()))
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
        self.mailboxes.refresh();
    }

    fn add_server(&mut self, server: Server) {
        if !self.mailboxes.has_type(&server.server_type) {
            return;
        }
        let Some(slot) = self.mailboxes.find(&server.id) else {
            return self.mailboxes.add(server, self.now_us);
        };
        let address = (server.host.clone(), server.port);
        let Some(old) = self.mailboxes.replace(slot, server) else { return };
        // One that has moved is called where it is now.
        if (old.host, old.port) != address
            && let Some(peer) = self.mailboxes.at(slot).and_then(Mailbox::peer)
        {
            self.close(peer, "it has moved");
        }
    }

    fn remove_server(&mut self, slot: Slot) {
        if let Some(peer) = self.mailboxes.at(slot).and_then(Mailbox::peer) {
            self.close(peer, "the master has taken it off the list");
        }
        self.mailboxes.remove(slot);
    }

    /// Closes a connection, and goes on as if it had ended by itself.
    fn close(&mut self, id: PeerId, why: &str) {
        if self.peers.get(id).is_some() {
            self.commands.push_back(Command::Close(id));
            self.handle_closed(id, why);
        }
    }

    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// A connection that has something to send; see [`Self::output`].
    pub(crate) fn poll_dirty(&mut self) -> Option<PeerId> {
        self.peers.poll_dirty()
    }

    /// The bytes that are to be sent on an open connection.
    pub(crate) fn output(&mut self, id: PeerId) -> Option<&mut Output> {
        self.peers.output(id)
    }

    /// Calls that wait for answers.
    pub(crate) fn calls_under_way(&self) -> usize {
        self.mailboxes.iter().map(|(_, mailbox)| mailbox.calls.len()).sum()
    }

    /// The memory that waits to be sent on a connection.
    #[cfg(test)]
    pub(crate) fn held_by(&self, id: PeerId) -> usize {
        self.peers.get(id).map_or(0, |peer| peer.output.held_bytes())
    }

    /// True if an open connection has something to send.
    pub(crate) fn is_sending(&self) -> bool {
        self.peers.is_sending()
    }

    /// Shows the state of the cluster to those who look.
    pub(crate) fn show(&self, figures: &ClusterFigures) {
        if let Some(master) = &self.master {
            let is_joined = matches!(master.state, MasterState::Joined { .. });
            figures.set_coordinator(MASTER, is_joined);
        }
        for shown in &figures.server_types {
            let servers = self.mailboxes.iter().map(|(_, mailbox)| mailbox);
            let servers = servers.filter(|mailbox| *mailbox.server.server_type == *shown.name);
            let (up, down): (Vec<_>, Vec<_>) = servers.partition(|mailbox| mailbox.is_open());
            shown.up.set(up.len() as u64);
            shown.down.set(down.len() as u64);
        }
    }

    /// A party that sleeps and has got mail: the shell wakes it.
    pub(crate) fn poll_bell(&mut self) -> Option<Party> {
        self.remote.poll_bell()
    }

    /// True if mail has come that [`Self::run`] has not seen. To be asked again once the
    /// doorbell is armed.
    pub(crate) fn has_work(&self) -> bool {
        self.remote.has_work()
    }

    /// The time at which the shell has to run again at the latest.
    pub(crate) fn next_deadline_us(&self) -> Option<u64> {
        let mailboxes = self.mailboxes.iter().map(|(_, mailbox)| mailbox.next_deadline_us());
        let master = self.master.iter().map(Master::next_deadline_us);
        let backlog = self.remote.backlog_retry_us(self.now_us);
        mailboxes.chain(master).chain(backlog).min()
    }
}
