//! A look at the sessions that have ended.

use serde_json::json;

use super::bounds::{SESSIONS_MAX, WALK_BYTES_MAX};
use super::http::{Request, Response};
use crate::session::{CLOSE_REASONS, ClosedSession, SessionId};

/// The ended sessions that are wanted, and those found so far.
pub(super) struct ClosedSearch {
    reason: Option<String>,
    uid: Option<String>,
    id: Option<SessionId>,
    limit: usize,
    /// Those that match; a thousand and a part more than are wanted at the most.
    found: Vec<ClosedSession>,
    /// The bytes of them, which are bounded, too.
    found_bytes: usize,
    matching: usize,
    seen: usize,
}

const PARAMETERS: [&str; 4] = ["reason", "uid", "id", "limit"];
/// Sessions in an answer where nobody asks for more.
const LIMIT: usize = 100;

impl ClosedSearch {
    pub(super) fn of(request: &Request) -> Result<Self, Response> {
        let bad = |text: String| Response::error(400, &text);
        if let Some(other) = request.parameters().find(|name| !PARAMETERS.contains(name)) {
            let known = PARAMETERS.join(", ");
            return Err(bad(format!("unknown parameter `{other}`; known here: {known}")));
        }
        let reason = request.parameter("reason").map(str::to_owned);
        if reason.as_ref().is_some_and(|reason| !CLOSE_REASONS.contains(&reason.as_str())) {
            return Err(bad(format!("`reason` must be one of {}", CLOSE_REASONS.join(", "))));
        }
        let limit = match request.parameter("limit") {
            None => Some(LIMIT),
            Some(text) => text.parse().ok().filter(|limit| *limit <= SESSIONS_MAX),
        };
        let limit =
            limit.ok_or_else(|| bad(format!("`limit` must be a number up to {SESSIONS_MAX}")))?;
        let uid = request.parameter("uid").map(str::to_owned);
        let id = request.parameter("id").map(|text| {
            SessionId::parse(text)
                .ok_or_else(|| bad("`id` is as `/sessions` tells it, such as 0.17.3".into()))
        });
        let id = id.transpose()?;
        let found = Vec::new();
        Ok(Self { reason, uid, id, limit, found, found_bytes: 0, matching: 0, seen: 0 })
    }

    pub(super) fn take(&mut self, closed: Vec<ClosedSession>) {
        self.seen += closed.len();
        let before = self.found.len();
        let has = |it: &ClosedSession| {
            self.reason.as_ref().is_none_or(|reason| *reason == it.reason)
                && self.id.is_none_or(|id| it.id == id)
                && self
                    .uid
                    .as_ref()
                    .is_none_or(|uid| it.uid.as_ref().is_some_and(|bound| bound.text() == uid))
        };
        self.found.extend(closed.into_iter().filter(has));
        self.matching += self.found.len() - before;
        self.found_bytes += self.found[before..].iter().map(bytes_of).sum::<usize>();
        if self.found.len() >= self.limit + SESSIONS_MAX || self.found_bytes > WALK_BYTES_MAX {
            self.cut();
        }
    }

    /// Keeps the newest.
    fn cut(&mut self) {
        self.found.sort_by_key(|it| std::cmp::Reverse((it.closed_unix_ms, it.number)));
        self.found.truncate(self.limit);
        self.found_bytes = self.found.iter().map(bytes_of).sum();
        while self.found_bytes > WALK_BYTES_MAX / 2
            && let Some(last) = self.found.pop()
        {
            self.found_bytes -= bytes_of(&last);
        }
    }

    pub(super) fn finish(&mut self, missing_shards: &[u16]) -> Response {
        self.cut();
        let (found, Self { matching, seen, .. }) = (std::mem::take(&mut self.found), self);
        let rest = json!({ "matching": matching, "all": seen, "missing_shards": missing_shards });
        Response::list("closed", found, &rest)
    }
}

/// The bytes that an ended session counts with.
fn bytes_of(session: &ClosedSession) -> usize {
    size_of::<ClosedSession>() + session.uid.as_ref().map_or(0, |uid| uid.text().len())
}
