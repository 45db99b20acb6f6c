//! The state of one frontend in its cluster: every server, every request, every user.
//!
//! It does no I/O and reads no clock. Its shell, in this order and over again:
//!
//! 1. [`Member::begin_turn`] with the time;
//! 2. [`Member::handle_connected`], [`Member::handle_lost`], [`Member::handle_servers`] and
//!    the other `handle_` methods for what NATS and etcd have brought, behind
//!    [`Member::advance`] where the turn began some time ago;
//! 3. [`Member::run`], which reads mail and lets deadlines pass;
//! 4. [`Member::poll_command`] as long as NATS takes what it gives, and [`Member::poll_bell`]
//!    until it gives nothing more;
//! 5. it waits for the next event, for no longer than [`Member::next_deadline_us`] allows.
//!
//! # Order
//! All requests of a session to one server go out on one connection, in the order in which they
//! came, and all answers come back on one subject of that connection, in the order in which the
//! server has given them. Nothing is waited for in between.

use std::sync::Arc;

use bytes::Bytes;

use super::cluster::PitayaCluster;
use super::commands::{Command, Commands, Next};
use super::forwards::Forwards;
use super::member_config::MemberConfig;
use super::remotes::Remotes;
use super::servers::{Change, Random, Servers};
use super::subjects::Subject;
use super::turn::{Caller, Turn};
use crate::forward::remote::{Received, Remote};
use crate::forward::{Party, Route};
use crate::metrics::ClusterFigures;

/// The coordinators of a Pitaya cluster.
pub(crate) const NATS: &str = "nats";
pub(crate) const ETCD: &str = "etcd";

/// Everything that a frontend knows of its cluster.
pub(crate) struct Member {
    config: MemberConfig,
    remote: Remote<Caller, Bytes>,
    pub(super) commands: Commands,
    pub(super) forwards: Forwards,
    remotes: Remotes,
    now_us: u64,
}

impl Member {
    pub(crate) fn new(
        config: MemberConfig,
        cluster: &PitayaCluster,
        routers: &[(String, Route)],
        remote: Remote<Caller, Bytes>,
    ) -> Self {
        let limits = &config.limits;
        let random = Random::new(config.id_head);
        let servers = Servers::new(
            &cluster.server_types,
            routers,
            limits.servers_max,
            random,
            config.share.is_first(),
        );
        Self {
            remote,
            commands: Commands::new(&config),
            forwards: Forwards::new(servers),
            remotes: Remotes::new(limits.callers_max),
            now_us: 0,
            config,
        }
    }

    fn parts(&mut self) -> (Turn<'_>, &mut Forwards, &mut Remotes) {
        let Self { config, remote, commands, forwards, remotes, now_us } = self;
        (Turn { config, remote, commands, now_us: *now_us }, forwards, remotes)
    }

    /// The beginning of the subjects of all answers, in front of a call's number in hexadecimal
    /// digits.
    pub(crate) fn inbox(&self) -> Arc<str> {
        Arc::clone(&self.config.inbox)
    }

    /// The subject on which a call is answered.
    #[cfg(any(test, feature = "internals"))]
    pub(crate) fn reply_subject(&self, call: u64) -> String {
        format!("{}{call:x}", self.config.inbox)
    }

    /// Begins a turn at the given time.
    pub(crate) fn begin_turn(&mut self, now_us: u64) {
        self.advance(now_us);
        self.remote.begin_turn();
    }

    /// Tells the time, for what is handed in before the next turn.
    pub(crate) fn advance(&mut self, now_us: u64) {
        self.now_us = self.now_us.max(now_us);
    }

    /// There is a connection to NATS. What has waited for it is sent, behind what it takes to
    /// listen to all users.
    pub(crate) fn handle_connected(&mut self) {
        self.commands.handle_connected(self.remotes.users());
        let (mut turn, forwards, _) = self.parts();
        forwards.pump_all(&mut turn);
    }

    /// There is another one in place of the one there was; all users are to be listened to there.
    pub(crate) fn handle_moved(&mut self) {
        self.commands.set_stale();
        self.handle_connected();
    }

    /// True if the shell listens to all users, and has nothing else to do.
    pub(crate) fn is_settled(&self) -> bool {
        self.commands.is_settled()
    }

    /// There is none any more. What is under way may be answered when there is one again, so it is
    /// left to its deadline, as by Pitaya: its handler runs, and would run twice for a client that
    /// were told to try again.
    pub(crate) fn handle_lost(&mut self) {
        self.commands.handle_lost();
    }

    /// The list of servers has changed.
    pub(crate) fn handle_servers(&mut self, change: Change) {
        let (mut turn, forwards, _) = self.parts();
        forwards.handle_servers(&mut turn, change);
    }

    /// An answer has come, on one of the subjects of [`Self::inbox`].
    pub(crate) fn handle_answer(&mut self, subject: &str, status: Option<u16>, payload: Bytes) {
        let (mut turn, forwards, _) = self.parts();
        forwards.handle_answer(&mut turn, subject, status, payload);
    }

    /// A message could not be sent, as it is too long.
    pub(crate) fn handle_unsent(&mut self, call: u64) {
        let (mut turn, forwards, _) = self.parts();
        forwards.handle_unsent(&mut turn, call);
    }

    /// A request has come on this server's own subject. One that can't be read gets no answer.
    pub(crate) fn handle_request(&mut self, reply: Option<Subject>, payload: Bytes) {
        let (mut turn, _, remotes) = self.parts();
        remotes.handle_request(&mut turn, reply, payload);
    }

    /// A push has come for a user who is logged in here. Nobody waits for an answer.
    pub(crate) fn handle_push(&mut self, payload: Bytes) {
        let (mut turn, _, remotes) = self.parts();
        remotes.handle_push(&mut turn, payload);
    }

    /// A user who is logged in here is to be kicked. Nobody waits for an answer.
    pub(crate) fn handle_kick(&mut self, payload: Bytes) {
        let (mut turn, _, remotes) = self.parts();
        remotes.handle_kick(&mut turn, payload);
    }

    /// Some frontend of this type has told who has logged in at it.
    pub(crate) fn handle_binding(&mut self, payload: Bytes) {
        let (mut turn, _, remotes) = self.parts();
        remotes.handle_binding(&mut turn, payload);
    }

    /// Reads mail, and lets deadlines pass.
    pub(crate) fn run(&mut self) {
        let (mut turn, forwards, remotes) = self.parts();
        while let Some(received) = turn.remote.receive() {
            match received {
                Received::Forward { forward, span } => {
                    forwards.handle_forward(&mut turn, forward, span);
                }
                Received::Login { data } => remotes.handle_login(&mut turn, &data),
                Received::Logout { data } | Received::Closed { data, .. } => {
                    remotes.handle_logout(&mut turn, &data);
                }
                Received::Done { caller, result } => {
                    remotes.handle_done(&mut turn, caller, result);
                }
            }
        }
        forwards.pass_deadlines(&mut turn);
    }

    /// The next command.
    pub(crate) fn poll_command(&mut self) -> Option<Command> {
        loop {
            match self.commands.pop(self.remotes.users())? {
                Next::Command(command) => return Some(command),
                Next::Sent(token) => {
                    let command = self.forwards.publish_sent(token);
                    if command.is_some() {
                        return command;
                    }
                }
            }
        }
    }

    /// True if anybody is logged in here by a uid.
    pub(crate) fn has_user(&self, uid: &str) -> bool {
        self.remotes.has_user(uid)
    }

    /// True if anything waits for NATS to take it.
    pub(crate) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Shows the state of the cluster to those who look.
    pub(crate) fn show(&self, figures: &ClusterFigures) {
        figures.set_coordinator(NATS, self.commands.is_connected());
        for shown in &figures.server_types {
            let (known, doubted) = self.forwards.servers_known(&shown.name);
            shown.up.set((known - doubted) as u64);
            shown.down.set(doubted as u64);
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
        let backlog = self.remote.backlog_retry_us(self.now_us);
        [self.forwards.next_deadline_us(), backlog].into_iter().flatten().min()
    }
}
