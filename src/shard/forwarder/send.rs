//! Mail to other parties, and questions.

use super::Forwarder;
use crate::forward::asker::{AskCompletion, Asker, PendingAsks, tell_refused};
use crate::forward::mail::{Mail, Outcome, ReplyTo};
use crate::session::{ShardIndex, Uid};

impl Forwarder {
    /// Sends mail that must arrive, to any shard, this one included.
    pub(super) fn send(&mut self, to: ShardIndex, mail: Mail) {
        if to == self.outbound.connections.index() {
            self.own_mail.push_back(mail);
        } else {
            self.endpoint.send(to.into(), mail);
        }
    }

    pub(super) fn reply(&mut self, to: ReplyTo, outcome: Outcome) {
        if to.party == self.endpoint.me() {
            self.asks.complete(to.token, outcome);
        } else {
            self.endpoint.send(to.party, Mail::Result { token: to.token, outcome });
        }
    }

    /// Sends mail about a session to several workers, by their bits.
    pub(super) fn tell_workers(&mut self, workers: u64, mail: impl Fn() -> Mail) {
        if workers == 0 {
            return;
        }
        let all = self.endpoint.hub().workers();
        for worker in all.filter(|worker| workers & worker.bit() != 0) {
            let party = self.endpoint.hub().worker(worker);
            self.endpoint.send(party, mail());
        }
    }
}

impl Asker for Forwarder {
    type Caller = AskCompletion;

    fn asks_mut(&mut self) -> &mut PendingAsks<AskCompletion> {
        &mut self.asks
    }

    /// Sends mail that may be refused, which is counted, to any shard, this one included.
    fn try_mail(&mut self, to: ShardIndex, mail: Mail) -> Result<(), Mail> {
        if to == self.outbound.connections.index() {
            self.own_mail.push_back(mail);
            return Ok(());
        }
        self.endpoint.try_send(to.into(), mail).inspect_err(|_| tell_refused(&self.counters))
    }

    fn note_refused(&mut self) {
        tell_refused(&self.counters);
    }

    fn handle_refused_push(&mut self, token: u64, uids: Vec<Uid>) -> Result<(), AskCompletion> {
        self.asks.complete(token, Outcome::Pushed(uids));
        Ok(())
    }
}
