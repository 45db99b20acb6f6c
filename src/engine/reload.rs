//! Changes that a handle makes in a running engine: dictionary, schemas, certificates.

use std::sync::Arc;

use super::handle::Handle;
#[cfg(feature = "tls")]
use super::threads::is_of_engine;
use crate::error::HandleError;
use crate::forward::mail::Mail;
use crate::route::Dictionary;
use crate::route::schemas::known_schemas;
#[cfg(feature = "tls")]
use crate::session::ShardIndex;
#[cfg(feature = "tls")]
use crate::tls::TlsError;
use crate::wire::protobuf::ProtoTable;

impl Handle {
    /// Uses another dictionary, or none, from the next handshake on. A session that works keeps
    /// the one it was told of until it ends: in both directions each gets its own codes.
    ///
    /// A route that was not known when the engine started is taken apart with each message, which
    /// takes a little longer than a look at a table.
    ///
    /// ```
    /// # fn change(handle: &shaddock::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// use shaddock::route::Dictionary;
    ///
    /// handle.set_dictionary(Dictionary::new(["connector.a.echo"], ["onChat", "onNews"])?)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`HandleError`]. If a shard is [`Busy`](HandleError::Busy), those before it have got
    /// it; to ask again is safe.
    pub fn set_dictionary(
        &self,
        dictionary: impl Into<Option<Dictionary>>,
    ) -> Result<(), HandleError> {
        // Held until all have got it, so that shards get editions in their order.
        let _changing = self.config.changing();
        let edition = self.config.with_dictionary(dictionary.into());
        self.tell_all(|| Mail::Edition(Arc::clone(&edition)))
    }

    /// Uses other schemas, or none, from the next handshake on. A session that works keeps those
    /// it was told of until it ends: bodies are read and written by each session's own.
    ///
    /// Gives the routes whose schemas are left out, as no handler, schema, dictionary or
    /// [`Builder::routes`](crate::Builder::routes) named them when the engine started: their
    /// messages stay JSON until it starts again, and clients are told of no schema for them.
    ///
    /// # Errors
    /// As [`Self::set_dictionary`].
    ///
    /// # Examples
    /// ```no_run
    /// use shaddock::wire::protobuf::{ProtoTable, Protos};
    ///
    /// # fn reload(handle: &shaddock::Handle) -> Result<(), Box<dyn std::error::Error>> {
    /// let server = Protos::parse_text(&std::fs::read_to_string("serverProtos.json")?)?;
    /// let left_out = handle.set_protos(ProtoTable::new(Protos::default(), server))?;
    /// assert!(left_out.is_empty(), "these need another start: {left_out:?}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_protos(
        &self,
        protos: impl Into<Option<ProtoTable>>,
    ) -> Result<Vec<String>, HandleError> {
        let _changing = self.config.changing();
        let known = protos.into().map(|protos| known_schemas(&protos, &self.config.routes));
        let (protos, left_out) = known.unzip();
        let edition = self.config.with_protos(protos);
        self.tell_all(|| Mail::Edition(Arc::clone(&edition)))?;
        Ok(left_out.unwrap_or_default())
    }

    /// Reads the certificates of all listeners from their files again. New connections get them;
    /// open ones keep what they have, and tickets stay good. Gives the number of listeners that
    /// have one. It reads files, so a shard or worker leaves it to another thread.
    ///
    /// ```
    /// # fn renewed(handle: &shaddock::Handle) {
    /// match handle.reload_certificates() {
    ///     Ok(listeners) => println!("{listeners} listeners have the new certificate"),
    ///     Err(error) => println!("the old one stays: {error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first file that is wrong: nothing has changed then. [`TlsError::Engine`] if an engine
    /// has stopped or a shard is busy, or if this is the thread of a shard or worker
    /// ([`HandleError::OnShard`]).
    #[cfg(feature = "tls")]
    pub fn reload_certificates(&self) -> Result<usize, TlsError> {
        if is_of_engine() {
            return Err(TlsError::Engine(HandleError::OnShard));
        }
        let mut fresh = Vec::new();
        for (listener, described) in (0_u8..).zip(&self.config.listeners) {
            if let Some(tls) = &described.tls {
                fresh.push((listener, tls.reload()?));
            }
        }
        for shard in (0..self.shards()).map(ShardIndex) {
            for (listener, config) in &fresh {
                let (listener, config) = (*listener, Arc::clone(config));
                self.tell(shard, Mail::Certificate { listener, config })?;
            }
        }
        Ok(fresh.len())
    }
}
