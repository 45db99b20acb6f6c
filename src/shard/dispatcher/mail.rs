//! Mail to this shard.

use std::sync::Arc;

use super::{Dispatcher, plan};
use crate::forward::Party;
#[cfg(feature = "admin")]
use crate::forward::mail::Look;
use crate::forward::mail::{Mail, Report, ReportKind};
use crate::route::edition::Edition;
use crate::session::ShardIndex;

impl Dispatcher {
    /// Handles mail from another party.
    pub(in crate::shard) fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Answer { token, reply } => self.handle_worker_answer(token, reply),
            Mail::Answers { token, answered, failed, bytes } => {
                self.handle_answers(token, answered, failed, &bytes);
            }
            Mail::Batch(batch) => self.handle_batch(batch),
            Mail::Part { token, index, reply } => self.handle_part(token, index, reply),
            Mail::Edition(edition) => self.handle_edition(edition),
            Mail::Report { to, kind } => to.send(self.report(kind)),
            #[cfg(feature = "admin")]
            Mail::Look { at, to } => {
                let connections = self.connections();
                let page = match at {
                    Look::From(slot) => connections.page(slot),
                    Look::One(session) => connections.page_of_one(session),
                    Look::Closed(from) => connections.page_of_closed(from),
                    Look::ClosedEarly => connections.page_of_closed_early(),
                };
                to.try_send(page).ok();
            }
            #[cfg(feature = "admin")]
            Mail::Record { session, recording } => self.outbound().record(session, recording),
            #[cfg(feature = "admin")]
            Mail::RecordNext(recording) => self.outbound().record_next(recording),
            #[cfg(feature = "admin")]
            Mail::StopRecording(session) => self.outbound().stop_recording(session),
            mail => self.forwarder.handle_mail(mail),
        }
    }

    fn report(&mut self, kind: ReportKind) -> Report {
        let logins = match kind {
            ReportKind::Logins => self.forwarder.logins().list(),
            ReportKind::Presence => Vec::new(),
        };
        Report { connections: self.connections().len(), logins }
    }

    /// Takes a newer edition of dictionary and schemas, and passes it on to the workers.
    fn handle_edition(&mut self, edition: Arc<Edition>) {
        self.thread.edition.replace(Arc::clone(&edition));
        // The host has no lane to workers.
        if self.connections().index() == ShardIndex(0) {
            let endpoint = self.forwarder.endpoint();
            let hub = Arc::clone(endpoint.hub());
            for worker in (hub.shards()..hub.parties()).map(Party) {
                endpoint.send(worker, Mail::Edition(Arc::clone(&edition)));
            }
        }
        self.outbound().add_edition(edition);
        let outbound = &self.forwarder.outbound;
        self.plans = plan::plans(&self.config, &self.registry, |it| outbound.has_schema(it));
    }
}
