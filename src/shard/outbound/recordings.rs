//! The recorded sessions of a shard, by their ids. They stand beside the connections, so that those
//! without are no larger.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::record::{Cut, Direction, Record, Recording, Tap};
use crate::route::edition::Edition;
use crate::session::SessionId;
use crate::shard::connections::Connections;
use crate::wire::message::{self, RouteRef};

/// The recorded sessions of a shard.
#[derive(Debug, Default)]
pub(super) struct Recordings {
    pub(super) taps: FxHashMap<SessionId, Box<Taps>>,
    /// Memory for what is cut out of a piece; empty in between.
    pub(super) cuts: Vec<Cut>,
}

/// The most packages that memory is kept for between two pieces.
const CUTS_KEPT: usize = 1024;

#[derive(Debug)]
pub(super) struct Taps {
    pub(super) recording: Arc<Recording>,
    pub(super) input: Tap,
    pub(super) output: Tap,
}

impl Recordings {
    /// Records bytes of a session; false if its recording is over.
    pub(super) fn note(
        &mut self,
        session: SessionId,
        direction: Direction,
        bytes: &[u8],
        edition: Option<&Edition>,
        at_us: u64,
    ) -> bool {
        let Some(taps) = self.taps.get_mut(&session) else { return false };
        if taps.recording.is_over(at_us) {
            return false;
        }
        let tap = match direction {
            Direction::FromClient => &mut taps.input,
            Direction::ToClient => &mut taps.output,
        };
        tap.feed(bytes, &mut self.cuts);
        taps.push(direction, &mut self.cuts, edition, at_us);
        if self.cuts.capacity() > CUTS_KEPT {
            self.cuts = Vec::new();
        }
        true
    }
}

impl Recordings {
    /// Ends the recording of a session; false if it has none.
    pub(super) fn end(
        &mut self,
        session: SessionId,
        reason: &'static str,
        connections: &Connections,
    ) -> bool {
        let Some(taps) = self.taps.remove(&session) else { return false };
        taps.recording.end(reason);
        if let Some(connection) = connections.get(session) {
            taps.recording.update(connections.info(session, connection));
        }
        true
    }

    /// Ends the recording of a session that is gone, with the reason of its end.
    pub(super) fn remove(&mut self, session: SessionId, connections: &Connections) {
        if self.taps.contains_key(&session) {
            let reason = connections.last_close(session.slot());
            self.end(session, reason.unwrap_or("the session has ended"), connections);
        }
    }
}

impl Taps {
    pub(super) fn push(
        &self,
        direction: Direction,
        cuts: &mut Vec<Cut>,
        edition: Option<&Edition>,
        at_us: u64,
    ) {
        for Cut { kind, len, kept } in cuts.drain(..) {
            let code = match message::decode(&kept).ok().and_then(|message| message.route) {
                Some(RouteRef::Code(code)) => Some(code),
                _ => None,
            };
            let route = code.and_then(|code| edition?.text(code)).map(Box::from);
            let kept = kept.into_boxed_slice();
            self.recording.push(Record { at_us, direction, kind, len, route, kept });
        }
    }
}
