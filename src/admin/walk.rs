//! A look at sessions: at all of them, a part of a shard in each of its turns, or at one.
//!
//! The shards are asked by mail, one part at a time and so many in a second, and go on meanwhile.
//! A list goes on without a shard that does not answer in time, and names it.
//! What is kept here are not many more sessions than the answer may have, bounded in bytes, too.

use std::cmp::Ordering;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Instant;

use serde_json::json;

use super::arm::Wish;
use super::bounds::{OFFSET_MAX, SESSIONS_MAX, SHARD_TIME_MAX, WALK_BYTES_MAX};
use super::closed::ClosedSearch;
use super::http::{Request, Response};
use super::pages::Pages;
use crate::engine::Handle;
use crate::error::HandleError;
use crate::forward::mail::Look;
use crate::record::{RECORDINGS_MAX, Target};
use crate::session::{SessionId, SessionInfo, SessionPage, ShardIndex};

/// A look that is under way.
pub(super) struct Walk {
    goal: Goal,
    shard: ShardIndex,
    at: Look,
    answer: Option<Receiver<SessionPage>>,
    /// The time at which the shard was first asked for the part that is wanted from it.
    asked: Option<Instant>,
    /// Shards that have not answered in time.
    missing: Vec<u16>,
    /// Sessions that match; a thousand and a part more than are wanted at the most.
    found: Vec<SessionInfo>,
    /// The bytes of them.
    found_bytes: usize,
    /// True if some of those that are wanted were left out for their bytes.
    is_cut: bool,
    /// All that match.
    matching: usize,
    /// All that were seen.
    seen: usize,
}

enum Goal {
    List(Wanted),
    Show,
    Kick { reason: Option<String> },
    Closed(ClosedSearch),
    Record(Wish),
}

/// The sessions that are wanted, and in which order.
struct Wanted {
    sort: Sort,
    limit: usize,
    offset: usize,
    uid: Option<String>,
    state: Option<String>,
    /// Text that the id, the uid or the peer has somewhere, in lower case.
    search: Option<String>,
    /// The session behind which those are that are wanted, by their ids.
    after: Option<SessionId>,
}

/// An order: those with the most of something first, but for the number.
#[derive(Debug, Clone, Copy)]
struct Sort {
    name: &'static str,
    key: fn(&SessionInfo) -> u64,
}

const SORTS: [Sort; 12] = [
    Sort { name: "number", key: |it| u64::MAX - it.number },
    Sort { name: "age_s", key: |it| it.age_s },
    Sort { name: "outbox_bytes", key: |it| it.outbox_bytes as u64 },
    Sort { name: "outbox_ms", key: |it| it.outbox_ms },
    Sort { name: "in_flight", key: |it| it.in_flight.into() },
    Sort { name: "in_flight_bytes", key: |it| it.in_flight_bytes.into() },
    Sort { name: "kept_bytes", key: |it| it.kept_bytes as u64 },
    Sort { name: "silent_ms", key: |it| it.silent_ms },
    Sort { name: "received_bytes", key: |it| it.received_bytes },
    Sort { name: "sent_bytes", key: |it| it.sent_bytes },
    Sort {
        name: "messages",
        key: |it| u64::from(it.received_messages) + u64::from(it.sent_messages),
    },
    // That of shards and slots, in which a look finds them.
    Sort { name: BY_ID, key: |it| u64::MAX - place_of(it.id) },
];
const STATES: [&str; 3] = ["opening", "working", "closing"];
const BY_ID: &str = "id";
const PARAMETERS: [&str; 7] = ["sort", "limit", "offset", "uid", "state", "search", "after"];

/// The place of a session among all.
fn place_of(id: SessionId) -> u64 {
    u64::from(id.shard().0) << 32 | u64::from(id.slot().0)
}

impl Walk {
    /// A look at all sessions, as the parameters say.
    pub(super) fn list(request: &Request) -> Result<Self, Response> {
        let wanted = Wanted::of(request)?;
        let (shard, at) = match wanted.after {
            Some(after) => (after.shard(), Look::From(after.slot().0.saturating_add(1))),
            None => (ShardIndex(0), Look::From(0)),
        };
        Ok(Self::new(Goal::List(wanted), shard, at))
    }

    /// A look at one session.
    pub(super) fn show(session: SessionId) -> Self {
        Self::new(Goal::Show, session.shard(), Look::One(session))
    }

    /// A look at one session, which is then kicked.
    pub(super) fn kick(session: SessionId, reason: Option<String>) -> Self {
        Self::new(Goal::Kick { reason }, session.shard(), Look::One(session))
    }

    /// A look at the sessions that have ended.
    pub(super) fn closed(request: &Request) -> Result<Self, Response> {
        let goal = Goal::Closed(ClosedSearch::of(request)?);
        Ok(Self::new(goal, ShardIndex(0), Look::Closed(None)))
    }

    /// A look at the sessions that are to be recorded.
    pub(super) fn record(wish: Wish) -> Self {
        let (shard, at) = match wish.target {
            Target::Session(session) => (session.shard(), Look::One(session)),
            // None that is there.
            _ if wish.is_next => (ShardIndex(u16::MAX), Look::From(0)),
            _ => (ShardIndex(0), Look::From(0)),
        };
        Self::new(Goal::Record(wish), shard, at)
    }

    /// True if it is to arm a recording.
    pub(super) fn is_to_record(&self) -> bool {
        matches!(self.goal, Goal::Record(_))
    }

    fn new(goal: Goal, shard: ShardIndex, at: Look) -> Self {
        Self {
            goal,
            shard,
            at,
            answer: None,
            asked: None,
            missing: Vec::new(),
            found: Vec::new(),
            found_bytes: 0,
            is_cut: false,
            matching: 0,
            seen: 0,
        }
    }

    /// The shard that it is at.
    pub(super) fn shard(&self) -> ShardIndex {
        self.shard
    }

    /// True if a shard was asked and has not answered yet.
    pub(super) fn is_asking(&self) -> bool {
        self.answer.is_some()
    }

    /// Goes on as far as the shards have answered; the answer, once there is one.
    pub(super) fn poll(
        &mut self,
        handle: &Handle,
        pages: &mut Pages,
        now: Instant,
    ) -> Option<Response> {
        loop {
            let Some(answer) = &self.answer else {
                if self.shard.0 >= handle.shard_count() || self.has_enough() {
                    return Some(self.finish(handle));
                }
                if pages.is_silent(self.shard, now) {
                    self.go_on_without();
                    continue;
                }
                if !pages.take(self.shard, now) {
                    return None;
                }
                let asked = *self.asked.get_or_insert(now);
                let (to, answer) = sync_channel(1);
                match handle.look(self.shard, self.at, to) {
                    Ok(()) => self.answer = Some(answer),
                    Err(HandleError::Busy) if now < asked + SHARD_TIME_MAX => return None,
                    Err(HandleError::Busy) => pages.give_up(self.shard, None, now),
                    Err(_) => return Some(Response::error(503, "the engine has stopped")),
                }
                continue;
            };
            let page = match answer.try_recv() {
                Ok(page) => page,
                Err(TryRecvError::Empty) => {
                    if self.asked.is_some_and(|asked| now < asked + SHARD_TIME_MAX) {
                        return None;
                    }
                    pages.give_up(self.shard, self.answer.take(), now);
                    continue;
                }
                // The shard has ended with the question unread.
                Err(TryRecvError::Disconnected) => {
                    SessionPage { sessions: Vec::new(), closed: Vec::new(), next: None }
                }
            };
            (self.answer, self.asked) = (None, None);
            match &mut self.goal {
                Goal::Closed(search) => search.take(page.closed),
                _ => self.take(page.sessions),
            }
            match (page.next, self.at) {
                (Some(next), Look::Closed(_)) => self.at = Look::Closed(Some(next)),
                (None, Look::Closed(_)) => self.at = Look::ClosedEarly,
                (Some(next), Look::From(_) | Look::One(_)) => self.at = Look::From(next),
                (_, Look::ClosedEarly) | (None, Look::From(_) | Look::One(_)) => self.go_on(),
            }
        }
    }

    /// Goes on with the next shard, where another is wanted.
    fn go_on(&mut self) {
        (self.shard, self.at) = match self.at {
            Look::Closed(_) | Look::ClosedEarly => {
                (ShardIndex(self.shard.0 + 1), Look::Closed(None))
            }
            Look::From(_) => (ShardIndex(self.shard.0 + 1), Look::From(0)),
            Look::One(_) => (ShardIndex(u16::MAX), self.at),
        };
    }

    /// Leaves out a shard that does not answer, or what it has not told yet.
    fn go_on_without(&mut self) {
        self.missing.push(self.shard.0);
        self.asked = None;
        self.go_on();
    }

    fn take(&mut self, sessions: Vec<SessionInfo>) {
        self.seen += sessions.len();
        let wanted = match &self.goal {
            Goal::List(wanted) => wanted,
            Goal::Record(wish) => {
                let room = RECORDINGS_MAX - self.found.len();
                let wanted = sessions.into_iter().filter(|session| wish.wants(session));
                return self.found.extend(wanted.take(room));
            }
            _ => return self.found.extend(sessions),
        };
        let before = self.found.len();
        self.found.extend(sessions.into_iter().filter(|session| wanted.has(session)));
        self.matching += self.found.len() - before;
        self.found_bytes += self.found[before..].iter().map(bytes_of).sum::<usize>();
        if self.found.len() >= wanted.kept() + SESSIONS_MAX || self.found_bytes > WALK_BYTES_MAX {
            wanted.cut(&mut self.found);
            self.found_bytes = self.found.iter().map(bytes_of).sum();
            while self.found_bytes > WALK_BYTES_MAX / 2
                && let Some(last) = self.found.pop()
            {
                self.found_bytes -= bytes_of(&last);
                self.is_cut = true;
            }
        }
    }

    /// True if what is behind is not looked at: in the order of ids no other comes before those.
    fn has_enough(&self) -> bool {
        matches!(&self.goal, Goal::List(wanted)
            if wanted.sort.name == BY_ID && (self.found.len() > wanted.kept() || self.is_cut))
    }

    fn finish(&mut self, handle: &Handle) -> Response {
        let mut found = std::mem::take(&mut self.found);
        let missing = &self.missing;
        match &mut self.goal {
            Goal::Closed(search) => search.finish(missing),
            // One of the sessions may be there.
            Goal::Record(_) | Goal::Show | Goal::Kick { .. }
                if found.is_empty() && !missing.is_empty() =>
            {
                silent(missing)
            }
            Goal::Record(wish) => wish.arm(found, handle).unwrap_or_else(gone),
            Goal::List(wanted) => {
                let has_more = found.len() > wanted.kept() || self.is_cut;
                wanted.cut(&mut found);
                let last = found.last().filter(|_| has_more && wanted.sort.name == BY_ID);
                let rest = json!({
                    "offset": wanted.offset,
                    "matching": self.matching,
                    "all": self.seen,
                    "next": last.map(|last| format!("{:?}", last.id)),
                    "missing_shards": missing,
                });
                Response::list("sessions", found.iter().skip(wanted.offset), &rest)
            }
            Goal::Show => match found.first() {
                Some(session) => Response::json(200, session),
                None => gone(),
            },
            Goal::Kick { reason } => {
                let Some(session) = found.first() else { return gone() };
                match handle.kick_session(session.id, reason.as_deref()) {
                    Ok(()) => Response::json(200, &json!({ "kicked": session })),
                    Err(error) => Response::error(503, &error.to_string()),
                }
            }
        }
    }
}

/// The bytes that a session counts with.
fn bytes_of(session: &SessionInfo) -> usize {
    size_of::<SessionInfo>() + session.uid.as_ref().map_or(0, |uid| uid.text().len())
}

fn silent(shards: &[u16]) -> Response {
    let text = format!("a shard has not answered in time: {shards:?}; try again");
    Response::error(504, &text)
}

fn gone() -> Response {
    Response::error(404, "there is no such session; it may have ended")
}

impl Wanted {
    fn of(request: &Request) -> Result<Self, Response> {
        let bad = |text: String| Err(Response::error(400, &text));
        if let Some(other) = request.parameters().find(|name| !PARAMETERS.contains(name)) {
            let known = PARAMETERS.join(", ");
            return bad(format!("unknown parameter `{other}`; known here: {known}"));
        }
        let name = request.parameter("sort").unwrap_or(SORTS[0].name);
        let Some(sort) = SORTS.iter().find(|sort| sort.name == name) else {
            let names: Vec<_> = SORTS.iter().map(|sort| sort.name).collect();
            return bad(format!("`sort` must be one of {}", names.join(", ")));
        };
        let number = |name: &str, by_default: usize, max: usize| {
            let Some(text) = request.parameter(name) else { return Ok(by_default) };
            let number = text.parse().ok().filter(|number| *number <= max);
            number.ok_or_else(|| {
                Response::error(400, &format!("`{name}` must be a number up to {max}"))
            })
        };
        let state = request.parameter("state").map(str::to_owned);
        if state.as_ref().is_some_and(|state| !STATES.contains(&state.as_str())) {
            return bad(format!("`state` must be one of {}", STATES.join(", ")));
        }
        let after = request.parameter("after");
        let Ok(after) = after.map(|text| SessionId::parse(text).ok_or(())).transpose() else {
            return bad("`after` is a session's id, such as 0.17.3: `next` of the answer".into());
        };
        if after.is_some() && (name != BY_ID || request.parameter("offset").is_some()) {
            return bad("`after` is for sort=id alone, without `offset`".into());
        }
        Ok(Self {
            sort: *sort,
            limit: number("limit", SESSIONS_MAX, SESSIONS_MAX)?,
            offset: number("offset", 0, OFFSET_MAX)?,
            uid: request.parameter("uid").map(str::to_owned),
            state,
            search: request.parameter("search").map(str::to_lowercase),
            after,
        })
    }

    fn has(&self, session: &SessionInfo) -> bool {
        let uid = || session.uid.as_ref().map(|uid| uid.text());
        self.state.as_ref().is_none_or(|state| *state == session.state)
            && self.uid.as_ref().is_none_or(|wanted| uid() == Some(wanted))
            && self.search.as_ref().is_none_or(|wanted| {
                uid().is_some_and(|uid| uid.to_lowercase().contains(wanted))
                    || format!("{:?}", session.id).contains(wanted)
                    || session.peer.to_string().contains(wanted)
            })
    }

    /// Sessions that the answer may need.
    fn kept(&self) -> usize {
        self.offset + self.limit
    }

    fn cut(&self, found: &mut Vec<SessionInfo>) {
        found.sort_by(|a, b| self.order(a, b));
        found.truncate(self.kept());
    }

    fn order(&self, a: &SessionInfo, b: &SessionInfo) -> Ordering {
        let key = self.sort.key;
        key(b).cmp(&key(a)).then(a.number.cmp(&b.number))
    }
}
