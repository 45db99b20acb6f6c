//! Sessions as those who look from outside see them, a part in a turn.

use std::sync::Arc;

use super::connection::{State, Transport};
use super::{Connection, Connections};
use crate::limits::turn::SESSIONS_SHOWN_PER_TURN;
use crate::route::table::RouteId;
use crate::session::{SessionId, SessionInfo, SessionPage, Slot};
use crate::shard::listener_config::Dialect;

impl Connections {
    /// The sessions in the slots from one on, as many as a turn has time for.
    #[cold]
    pub(in crate::shard) fn page(&self, from: u32) -> SessionPage {
        let slots = u32::try_from(self.slots_len()).unwrap_or(u32::MAX);
        let end = from.saturating_add(SESSIONS_SHOWN_PER_TURN).min(slots);
        let shown = (from..end).map(Slot).filter_map(|slot| {
            let connection = self.at(slot)?;
            Some(self.info(self.id_of(slot), connection))
        });
        SessionPage {
            sessions: shown.collect(),
            closed: Vec::new(),
            next: Some(end).filter(|end| *end < slots),
        }
    }

    /// One session, unless it is gone.
    #[cold]
    pub(in crate::shard) fn page_of_one(&self, session: SessionId) -> SessionPage {
        let shown = self.get(session).map(|connection| self.info(session, connection));
        SessionPage { sessions: shown.into_iter().collect(), closed: Vec::new(), next: None }
    }

    /// The text of a route.
    pub(super) fn route_text(&self, route: Option<RouteId>) -> Option<Arc<str>> {
        Some(Arc::clone(&self.config.routes.entry(route?).text))
    }

    /// A session as it is now.
    pub(in crate::shard) fn info(&self, id: SessionId, connection: &Connection) -> SessionInfo {
        let listener = self.config.listener(connection.listener);
        let (now_ms, traffic) = (self.patient_ms(), connection.traffic);
        SessionInfo {
            id,
            number: connection.session.number,
            uid: connection.uid().cloned(),
            peer: connection.peer,
            listener: connection.listener.0,
            transport: connection.transport.text(),
            tls: connection.layer.has_tls(),
            dialect: match listener.dialect {
                Dialect::Pomelo => "pomelo",
                Dialect::Pitaya => "pitaya",
            },
            state: match connection.state {
                State::Sniff | State::Http | State::Inited | State::WaitAck => "opening",
                State::Working(_) => "working",
                State::Closing | State::Lingering | State::Dead => "closing",
            },
            age_s: self.closed.age_ms(id.slot(), self.now_us()) / 1_000,
            silent_ms: now_ms.saturating_sub(connection.heard_ms),
            outbox_bytes: connection.outbox.bytes(),
            outbox_ms: connection.outbox.wait_ms(now_ms).unwrap_or(0),
            in_flight: connection.session.in_flight,
            in_flight_bytes: connection.session.in_flight_bytes,
            kept_bytes: connection.kept_bytes(),
            held: self.budgets.is_held(id),
            received_bytes: traffic.received_bytes,
            sent_bytes: traffic.sent_bytes,
            received_messages: traffic.received_messages,
            sent_messages: traffic.sent_messages,
            last_route: self.route_text(traffic.last_route),
        }
    }
}

impl Transport {
    /// The transport as operators read it.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::WebSocket => "websocket",
        }
    }
}
