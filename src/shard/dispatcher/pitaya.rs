//! Messages of clients of Pitaya's.

use super::Dispatcher;
use crate::session::SessionId;
use crate::shard::outbound::{NAMES_FIRST, rename, wide_id};
use crate::wire::pitaya;

impl Dispatcher {
    /// Handles a DATA package of a client of Pitaya's.
    #[inline(never)]
    pub(super) fn handle_pitaya_data(&mut self, session: SessionId, body: &[u8]) {
        match wide_id(body) {
            Some((id, id_end)) => self.handle_wide(session, body, id, id_end),
            None => self.handle_narrow(session, body),
        }
    }

    fn handle_narrow(&mut self, session: SessionId, body: &[u8]) {
        match pitaya::is_compressed(body) {
            true => self.handle_compressed_data(session, body),
            false => self.handle_data(session, body),
        }
    }

    /// Handles a request whose id has more bits than any other one's as the same with another id.
    #[cold]
    fn handle_wide(&mut self, session: SessionId, body: &[u8], id: u64, id_end: usize) {
        let name = match u32::try_from(id) {
            Ok(id) if id < NAMES_FIRST => Some(id),
            _ => self.outbound().wide_ids().name(session, id),
        };
        let Some(name) = name else {
            self.counters.session_in_flight_rejects.one();
            crate::log::seldom!(
                warn,
                ?session,
                "a session has too much in flight; some is refused"
            );
            return;
        };
        let mut narrow = self.connections().pool().take();
        rename(body, id_end, name, &mut narrow);
        self.handle_narrow(session, &narrow);
        self.connections().pool().give(narrow);
    }
}
