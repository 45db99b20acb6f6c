//! Mail to this shard.

use std::sync::Arc;

use super::Dispatcher;
use crate::forward::Party;
use crate::forward::mail::{Mail, Report, ReportKind};
use crate::metrics::Latency;
use crate::route::edition::Edition;
use crate::session::ShardIndex;

impl Dispatcher {
    /// Handles mail from another party.
    pub(in crate::shard) fn handle_mail(&mut self, mail: Mail) {
        match mail {
            Mail::Answer { token, reply } => self.handle_worker_answer(token, reply),
            Mail::Answers { token, answered, bytes } => {
                self.handle_answers(token, answered, &bytes);
            }
            Mail::Batch(batch) => self.handle_batch(batch),
            Mail::Part { token, index, reply } => self.handle_part(token, index, reply),
            Mail::Edition(edition) => self.handle_edition(edition),
            Mail::Report { to, kind } => to.send(self.report(kind)),
            mail => self.forwarder.handle_mail(mail),
        }
    }

    fn report(&mut self, kind: ReportKind) -> Report {
        let (logins, latency) = match kind {
            ReportKind::Logins => (self.forwarder.logins().list(), Latency::default()),
            ReportKind::Presence => (Vec::new(), Latency::default()),
            ReportKind::Latency => (Vec::new(), self.latency.take()),
        };
        let uids = self.forwarder.directory().len();
        Report { connections: self.connections().len(), logins, latency, uids }
    }

    /// Takes a newer edition of the dictionary, and passes it on to the workers.
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
    }
}
