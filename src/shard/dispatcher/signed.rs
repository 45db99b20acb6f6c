//! Signed requests (docs/protocol/sessions.md, "Crypto").

use super::Dispatcher;
use super::plan::Target;
use crate::dispatch::Request;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::session::SessionId;

impl Dispatcher {
    /// True if a message's signature may be checked now. Without a key there is nothing to do.
    pub(super) fn may_verify(&self, session: SessionId) -> bool {
        self.work.is_free() || !self.keys.contains_key(&session)
    }

    /// Lets a message go on if its client has signed it, without the signature. The original
    /// drops others without a word; here a request gets its error.
    pub(super) fn handle_signed(
        &mut self,
        client: &ClientCall,
        target: Target,
        request: &Request<'_>,
    ) {
        let body = request.body();
        let fits = body.len() <= self.config.limits.signed_bytes_max;
        let key = self.keys.get(&client.session).filter(|_| fits);
        let verified = key.map(|key| (key.verify(body), key.verify_work(body)));
        if let Some((_, work)) = verified {
            self.charge(work);
        }
        match verified {
            Some((Ok(body), _)) => {
                let request = Request::new(request.route(), request.id(), &body);
                self.handle_request(client, target, request);
            }
            Some((Err(_), _)) | None => {
                self.counters.bad_signature.one();
                let session = client.session;
                crate::log::seldom!(warn, ?session, "a message is not signed as it has to be");
                self.outbound().answer(client, &Reply::error());
            }
        }
    }
}
