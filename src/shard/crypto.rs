//! Signed requests (docs/protocol/sessions.md, "Crypto").

use super::Shard;
use super::global_handle::Target;
use crate::dispatch::Request;
use crate::dispatch::context::ClientCall;
use crate::dispatch::reply::Reply;
use crate::session::{SessionId, Slot};
use crate::wire::handshake::HandshakeRequest;
use crate::wire::signature::PublicKey;

impl Shard {
    /// Keeps the key that a client tells in its handshake, if it is one. Without one the client
    /// works as in the original, but each of its requests fails.
    pub(super) fn keep_key(&mut self, slot: Slot, request: &HandshakeRequest) {
        if !self.config.use_crypto {
            return;
        }
        if let Some(key) = request.sys("rsa").and_then(PublicKey::from_handshake) {
            self.keys.insert(self.id_of(slot), key);
        }
    }

    /// Whether a message's signature may be checked now. Without a key there is nothing to do.
    pub(super) fn may_verify(&self, session: SessionId) -> bool {
        self.may_work() || !self.keys.contains_key(&session)
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
                self.handle_authentic(client, target, &request);
            }
            Some((Err(_), _)) | None => {
                self.counters.bad_signature.one();
                self.answer(client, &Reply::error());
            }
        }
    }
}
