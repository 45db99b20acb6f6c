//! A look at the sessions that have ended.

use serde_json::json;

use super::bounds::SESSIONS_MAX;
use super::http::{Request, Response};
use crate::session::ClosedSession;

/// The ended sessions that are wanted, and those found so far.
pub(super) struct ClosedSearch {
    reason: Option<String>,
    uid: Option<String>,
    limit: usize,
    /// Those that match; no more than twice of what is wanted, and a page.
    found: Vec<ClosedSession>,
    matching: usize,
    seen: usize,
}

const PARAMETERS: [&str; 3] = ["reason", "uid", "limit"];
const REASONS: [&str; 11] = [
    "peer",
    "kick",
    "heartbeat_timeout",
    "idle",
    "handshake_timeout",
    "protocol",
    "refused",
    "slow_consumer",
    "outbox_age",
    "shutdown",
    "memory",
];
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
        if reason.as_ref().is_some_and(|reason| !REASONS.contains(&reason.as_str())) {
            return Err(bad(format!("`reason` must be one of {}", REASONS.join(", "))));
        }
        let limit = match request.parameter("limit") {
            None => Some(LIMIT),
            Some(text) => text.parse().ok().filter(|limit| *limit <= SESSIONS_MAX),
        };
        let limit =
            limit.ok_or_else(|| bad(format!("`limit` must be a number up to {SESSIONS_MAX}")))?;
        let uid = request.parameter("uid").map(str::to_owned);
        Ok(Self { reason, uid, limit, found: Vec::new(), matching: 0, seen: 0 })
    }

    pub(super) fn take(&mut self, closed: Vec<ClosedSession>) {
        self.seen += closed.len();
        let before = self.found.len();
        let has = |it: &ClosedSession| {
            self.reason.as_ref().is_none_or(|reason| *reason == it.reason)
                && self
                    .uid
                    .as_ref()
                    .is_none_or(|uid| it.uid.as_ref().is_some_and(|bound| bound.text() == uid))
        };
        self.found.extend(closed.into_iter().filter(has));
        self.matching += self.found.len() - before;
        if self.found.len() >= 2 * self.limit {
            self.cut();
        }
    }

    /// Keeps the newest.
    fn cut(&mut self) {
        self.found.sort_by_key(|it| std::cmp::Reverse((it.closed_unix_ms, it.number)));
        self.found.truncate(self.limit);
    }

    pub(super) fn finish(&mut self) -> Response {
        self.cut();
        let Self { found, matching, seen, .. } = self;
        Response::json(200, &json!({ "closed": found, "matching": matching, "all": seen }))
    }
}
