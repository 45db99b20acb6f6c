//! Recordings that are asked for: of which sessions, how much, and for how long.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use super::http::{Request, Response};
use super::recordings;
use crate::engine::Handle;
use crate::record::{
    RECORDING_BYTES_MAX, RECORDING_BYTES_MIN, RECORDING_SECONDS_MAX, RECORDINGS_MAX, RecordOptions,
    Recording, Secrets, Target,
};
use crate::session::{SessionId, SessionInfo, ShardIndex};

/// A wish to record.
pub(super) struct Wish {
    pub(super) target: Target,
    options: RecordOptions,
    /// True if only a session that has yet to come is wanted.
    pub(super) is_next: bool,
}

const PARAMETERS: [&str; 4] = ["bytes", "bodies", "seconds", "next"];
const BYTES: usize = 256 * 1024;
const SECONDS: u64 = 300;

impl Wish {
    /// Reads a wish: `sessions/ID`, `uids/UID` or `peers/IP`, and parameters from query and body.
    pub(super) fn of(
        (kind, name): (&str, &str),
        request: &Request,
        secrets: &Arc<Secrets>,
    ) -> Result<Self, Response> {
        let bad = |text: String| Response::error(400, &text);
        let target = match kind {
            "sessions" => SessionId::parse(name).map(Target::Session).ok_or_else(|| {
                let text = "a session's id is as `/sessions` tells it, such as 0.17.3";
                Response::error(404, text)
            })?,
            "uids" => Target::Uid(name.to_owned()),
            _ => match name.parse::<IpAddr>() {
                Ok(peer) => Target::Peer(peer.to_canonical()),
                Err(_) => return Err(bad(format!("`{name}` is no address such as 10.0.0.7"))),
            },
        };
        let form = request.form();
        if let Some((other, _)) = form.iter().find(|(name, _)| !PARAMETERS.contains(&&**name)) {
            let known = PARAMETERS.join(", ");
            return Err(bad(format!("unknown parameter `{other}`; known here: {known}")));
        }
        let given = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, it)| &**it);
        let number = |name: &str, by_default: u64, min: u64, max: u64| match given(name) {
            None => Ok(by_default),
            Some(text) => text
                .parse()
                .ok()
                .filter(|number| (min..=max).contains(number))
                .ok_or_else(|| bad(format!("`{name}` must be a number from {min} to {max}"))),
        };
        let (min, max) = (RECORDING_BYTES_MIN as u64, RECORDING_BYTES_MAX as u64);
        let has_bodies = match given("bodies") {
            None | Some("headers") => false,
            Some("on") => true,
            Some(_) => return Err(bad("`bodies` must be headers or on".into())),
        };
        let is_next = match given("next") {
            None | Some("false") => false,
            Some("true" | "") => true,
            Some(_) => return Err(bad("`next` must be true or false".into())),
        };
        if is_next && matches!(target, Target::Session(_)) {
            return Err(bad("`next` is for a uid or an address: a session is there or not".into()));
        }
        let options = RecordOptions {
            bytes_max: number("bytes", BYTES as u64, min, max)? as usize,
            has_bodies,
            seconds: number("seconds", SECONDS, 1, RECORDING_SECONDS_MAX)?,
            secrets: Arc::clone(secrets),
        };
        Ok(Self { target, options, is_next })
    }

    /// True if a session is one of those wanted.
    pub(super) fn wants(&self, session: &SessionInfo) -> bool {
        session.state != "closing"
            && match &self.target {
                Target::Session(id) => session.id == *id,
                Target::Uid(uid) => session.uid.as_ref().is_some_and(|it| it.text() == uid),
                Target::Peer(peer) => session.peer.ip() == *peer,
            }
    }

    /// Arms recordings of the sessions that were found, or of the next one that comes. `None`
    /// where a session is wanted that is gone.
    pub(super) fn arm(&self, found: Vec<SessionInfo>, handle: &Handle) -> Option<Response> {
        let now_us = handle.recorder_now_us();
        let arm = |session: Option<SessionInfo>| {
            let (target, options) = (self.target.clone(), self.options.clone());
            handle.recorder().arm(target, options, session, now_us)
        };
        let mut armed: Vec<Arc<Recording>> = Vec::new();
        let sessions = found.len();
        if found.is_empty() {
            if matches!(self.target, Target::Session(_)) {
                return None;
            }
            armed.extend(arm(None));
            for (recording, shard) in armed
                .iter()
                .flat_map(|it| (0..handle.shard_count()).map(move |shard| (it, ShardIndex(shard))))
            {
                if let Err(error) = handle.record_next(shard, Arc::clone(recording)) {
                    handle.recorder().stop(recording.id, false);
                    return Some(Response::error(503, &error.to_string()));
                }
            }
        }
        for session in found {
            let id = session.id;
            let Some(recording) = arm(Some(session)) else { break };
            if let Err(error) = handle.record(id, Arc::clone(&recording)) {
                handle.recorder().stop(recording.id, false);
                return Some(Response::error(503, &error.to_string()));
            }
            armed.push(recording);
        }
        if armed.is_empty() {
            let text = format!(
                "{RECORDINGS_MAX} sessions are recorded or waited for already; stop one of \
                 /recordings"
            );
            return Some(Response::error(503, &text));
        }
        let shown: Vec<_> = armed.iter().map(|it| recordings::describe(it, now_us)).collect();
        Some(Response::json(200, &json!({ "recordings": shown, "sessions": sessions })))
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::Parsed;
    use super::*;

    fn wish(kind: &str, name: &str, query: &str, body: &str) -> Result<Wish, u16> {
        let len = body.len();
        let text = format!("POST /x?{query} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n{body}");
        let Parsed::Complete(request) = Request::parse(text.as_bytes()) else { panic!("{text}") };
        Wish::of((kind, name), &request, &Arc::default()).map_err(|response| response.status)
    }

    #[test]
    fn wishes_are_read_from_query_and_body() {
        let wish_of = |query, body| wish("uids", "amy", query, body).unwrap();
        let by_default = wish_of("", "");
        assert_eq!(by_default.target, Target::Uid("amy".into()));
        assert!(!by_default.options.has_bodies && !by_default.is_next);
        assert_eq!((by_default.options.bytes_max, by_default.options.seconds), (262_144, 300));
        let asked = wish_of("bodies=on&next", "seconds=7&bytes=65536\n");
        assert!(asked.options.has_bodies && asked.is_next);
        assert_eq!((asked.options.bytes_max, asked.options.seconds), (65_536, 7));
        for query in ["bytes=65535", "bytes=1048577", "seconds=0", "seconds=3601", "bodies=1", "x"]
        {
            assert_eq!(wish("uids", "amy", query, "").err(), Some(400), "{query}");
        }
        assert_eq!(wish("sessions", "0.1.2", "next", "").err(), Some(400));
        assert_eq!(wish("sessions", "amy", "", "").err(), Some(404));
        assert_eq!(wish("peers", "amy", "", "").err(), Some(400));
        let peer = wish("peers", "::ffff:10.0.0.7", "", "").unwrap();
        assert_eq!(peer.target, Target::Peer("10.0.0.7".parse().unwrap()));
    }
}
