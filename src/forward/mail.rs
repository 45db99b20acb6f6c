//! The mail that shards, workers and the host send each other.

use std::sync::Arc;
#[cfg(feature = "admin")]
use std::sync::mpsc::SyncSender;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::message_batch::MessageBatch;
use super::party::Party;
use super::reports::ReportTo;
use crate::dispatch::denied_hosts::DeniedHosts;
use crate::dispatch::reply::{Reply, ReplyBody};
use crate::dispatch::{Audience, BindError, ClientRules, Failure, Login, Maintenance};
use crate::metrics::ForwardEnd;
#[cfg(feature = "admin")]
use crate::record::Recording;
use crate::route::edition::Edition;
use crate::route::push::Push;
use crate::route::table::{RouteId, RouteTable};
#[cfg(feature = "admin")]
use crate::session::SessionPage;
use crate::session::{SessionData, SessionId, Uid};
use crate::span::SpanContext;
#[cfg(feature = "tls")]
use crate::tls::ServerConfig;

/// One piece of mail. Who gets it stands in front of each group.
// Look-ups and logins are for network forwarders.
#[cfg_attr(not(any(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
pub(crate) enum Mail {
    // A worker; and back, with answers, the shard that it came from.
    Batch(Box<MessageBatch>),

    // A worker.
    Forward(Forward),
    /// A message that is sampled, for a network forwarder: its server is told of the span.
    Traced(Box<Forward>, Box<SpanContext>),
    Closed {
        session: SessionId,
        data: Arc<SessionData>,
    },

    // A network forwarder that wants logins. A session that logs out is described as it was.
    Login {
        session: SessionId,
        data: Arc<SessionData>,
    },
    Logout {
        data: Arc<SessionData>,
    },

    // The shard that owns the session.
    Answer {
        token: u64,
        reply: WorkerReply,
    },
    /// Answers to some of a batch's messages, a bit each, laid out as the client gets them.
    Answers {
        token: u64,
        answered: u64,
        /// Of these, those whose handlers have failed.
        failed: u16,
        bytes: Vec<u8>,
    },
    /// The answer to one of a batch's messages, by its place.
    Part {
        token: u64,
        index: u8,
        reply: WorkerReply,
    },
    Set {
        session: SessionId,
        settings: Box<Map<String, Value>>,
        others: Others,
        reply_to: ReplyTo,
    },
    Bind {
        session: SessionId,
        uid: Uid,
        reply_to: ReplyTo,
    },
    Unbind {
        session: SessionId,
        uid: Uid,
        reply_to: ReplyTo,
    },
    Kick {
        session: SessionId,
        reason: Option<Arc<str>>,
    },
    Export {
        sessions: Vec<SessionId>,
        reply_to: ReplyTo,
    },
    Deliver {
        sessions: Vec<SessionId>,
        push: Arc<Push>,
    },
    /// The home has decided about the bind that the session waits for.
    Bound {
        session: SessionId,
        is_free: bool,
    },
    /// The home has given the uid to a newer session.
    Replaced {
        session: SessionId,
        uid: Uid,
    },

    // The home shard of the uid.
    HomeBind {
        session: SessionId,
        uid: Uid,
    },
    HomeUnbind {
        session: SessionId,
        uid: Uid,
    },
    HomeKick {
        uid: Uid,
        reason: Option<Arc<str>>,
        reply_to: Option<ReplyTo>,
    },
    HomeSessions {
        uid: Uid,
        reply_to: ReplyTo,
    },
    HomePush {
        uids: Vec<Uid>,
        push: Arc<Push>,
        reply_to: Option<ReplyTo>,
    },

    // Every shard.
    Broadcast {
        push: Arc<Push>,
        audience: Audience,
    },

    // Whoever asked.
    Result {
        token: u64,
        outcome: Outcome,
    },

    // A shard, from the host; a worker, from the first shard.
    Edition(Arc<Edition>),

    // A shard, from the host.
    Report {
        to: ReportTo<Report>,
        kind: ReportKind,
    },
    /// To see the sessions in the slots from one on, or one session.
    #[cfg(feature = "admin")]
    Look {
        at: Look,
        to: SyncSender<SessionPage>,
    },
    /// To record a session.
    #[cfg(feature = "admin")]
    Record {
        session: SessionId,
        recording: Arc<Recording>,
    },
    /// To record the next session that is wanted.
    #[cfg(feature = "admin")]
    RecordNext(Arc<Recording>),
    /// To record it no longer.
    #[cfg(feature = "admin")]
    StopRecording(SessionId),
    Hosts(Arc<DeniedHosts>),
    ClientRules(Arc<ClientRules>),
    Maintenance(Option<Arc<Maintenance>>),
    // A shard, for new connections of a listener, by its place.
    #[cfg(feature = "tls")]
    Certificate {
        listener: u8,
        config: Arc<ServerConfig>,
    },
}

impl Mail {
    /// The messages of clients that it counts for where they are shared out.
    #[inline]
    pub(crate) fn messages(&self) -> usize {
        match self {
            Self::Batch(batch) => batch.messages.len(),
            _ => 1,
        }
    }
}

// A lane of thousands is filled with these: 80 bytes each.
const _: () = assert!(size_of::<Mail>() <= 80);

/// A message on its way to a worker.
pub(crate) struct Forward {
    /// Comes back with the answer; 0 for a notify, which gets none.
    pub(crate) token: u64,
    pub(crate) session: SessionId,
    pub(crate) data: Arc<SessionData>,
    pub(crate) route: ForwardRoute,
    /// The client's request id.
    pub(crate) id: u32,
    /// The body; behind the route's text where that is not known by id.
    pub(crate) bytes: Bytes,
}

/// The route of a forwarded message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ForwardRoute {
    Known(RouteId),
    /// The first bytes of the message are the route.
    Inline {
        len: u8,
    },
}

impl ForwardRoute {
    /// The route's text, and the body, of what stands in [`Forward::bytes`].
    pub(crate) fn split<'a>(self, routes: &'a RouteTable, bytes: &'a [u8]) -> (&'a str, &'a [u8]) {
        match self {
            Self::Known(route) => (&routes.entry(route).text, bytes),
            Self::Inline { len } => {
                let (route, body) = bytes.split_at(usize::from(len));
                // The shard has looked at the text already; what is not UTF-8 it answers itself.
                (std::str::from_utf8(route).unwrap_or_default(), body)
            }
        }
    }
}

/// A worker's answer.
pub(crate) struct WorkerReply {
    pub(crate) body: WorkerBody,
    /// The end that it has come to: all but one have failed.
    pub(crate) end: ForwardEnd,
    /// The request's own, if the worker still has it: a count that only its shard changes costs
    /// next to nothing.
    pub(crate) data: Option<Arc<SessionData>>,
}

/// The body of a worker's answer.
pub(crate) enum WorkerBody {
    /// The handler has written none.
    None,
    Bytes(Bytes),
    /// The engine answers by itself, for this reason.
    Failed(Failure),
}

#[cfg(any(test, feature = "internals"))]
impl WorkerBody {
    pub(crate) fn bytes(&self) -> Option<&Bytes> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::None | Self::Failed(_) => None,
        }
    }
}

impl From<Option<Bytes>> for WorkerBody {
    fn from(bytes: Option<Bytes>) -> Self {
        bytes.map_or(Self::None, Self::Bytes)
    }
}

impl WorkerReply {
    pub(crate) fn new(reply: Reply<'_>, data: Option<Arc<SessionData>>) -> Self {
        let body = match reply.body {
            ReplyBody::None | ReplyBody::Later(_) => WorkerBody::None,
            ReplyBody::Failed(failure) => WorkerBody::Failed(failure),
            ReplyBody::Borrowed(bytes) => WorkerBody::Bytes(Bytes::copy_from_slice(bytes)),
            ReplyBody::Written(bytes) => WorkerBody::Bytes(Bytes::copy_from_slice(&bytes)),
            ReplyBody::Owned(bytes) => WorkerBody::Bytes(bytes.into()),
            ReplyBody::Shared(bytes) => WorkerBody::Bytes(bytes),
        };
        Self { body, end: ForwardEnd::of_handler(reply.failed), data }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.end != ForwardEnd::Answered
    }

    pub(crate) fn into_reply(self) -> Reply<'static> {
        let failed = self.has_failed();
        drop(self.data);
        let body = match self.body {
            WorkerBody::None => ReplyBody::None,
            WorkerBody::Bytes(bytes) => ReplyBody::Shared(bytes),
            WorkerBody::Failed(failure) => return Reply::failure(failure),
        };
        Reply { body, failed }
    }
}

/// The fate of a session's settings that are not named when others are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(feature = "pitaya"), allow(dead_code))] // Only Pitaya's backends write all at once.
pub(crate) enum Others {
    Keep,
    Remove,
}

/// The party and the question of it that wait for an outcome.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReplyTo {
    pub(crate) party: Party,
    pub(crate) token: u64,
}

/// The outcome of a question.
// Look-ups are for network forwarders.
#[cfg_attr(not(any(feature = "pitaya", feature = "pomelo")), allow(dead_code))]
pub(crate) enum Outcome {
    Bound(Result<(), BindError>),
    Set(bool),
    Kicked(usize),
    /// The uids that have no session.
    Pushed(Vec<Uid>),
    /// The sessions of a uid.
    Sessions(Vec<SessionId>),
    /// The data of sessions; without those that have ended.
    Exported(Vec<(SessionId, Arc<SessionData>)>),
}

impl Outcome {
    /// Two outcomes of one question as one.
    pub(super) fn and(mut self, more: Self) -> Self {
        match (&mut self, more) {
            (Self::Pushed(fails), Self::Pushed(more)) => fails.extend(more),
            (Self::Exported(sessions), Self::Exported(more)) => sessions.extend(more),
            _ => debug_assert!(false, "an outcome answers another question"),
        }
        self
    }
}

/// The sessions of a shard that are to be seen.
#[cfg(feature = "admin")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    From(u32),
    One(SessionId),
    /// Those that have ended, from one on, or from the oldest.
    Closed(Option<u32>),
    /// Those that have ended before they had worked.
    ClosedEarly,
}

/// The purpose of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReportKind {
    Logins,
    /// The shard shows that it turns, and tells nothing that costs it anything.
    Presence,
}

/// The figures of one shard.
pub(crate) struct Report {
    pub(crate) connections: usize,
    pub(crate) logins: Vec<Login>,
}
