//! The table of all routes that are known when the engine starts, by text and by id.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{Dictionary, SlowConsumer};
use crate::wire::protobuf::{EncodeError, ProtoTable, Schema};

/// A route's index in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId(u32);

impl RouteId {
    #[inline]
    pub(crate) fn to_bits(self) -> u32 {
        self.0
    }

    /// The id whose [`Self::to_bits`] is `bits`.
    #[inline]
    pub(crate) fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// A route's text and policy. Its schemas are the edition's.
#[derive(Debug)]
pub(crate) struct RouteEntry {
    pub(crate) text: Arc<str>,
    /// The policy for its pushes to clients that do not read.
    pub(crate) slow_consumer: SlowConsumer,
}

/// The routes of handlers, dictionary and schemas that an engine starts with: built once, shared,
/// never changed.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    entries: Vec<RouteEntry>,
    /// The keys come from the server's own configuration, so a fast hash is safe.
    by_text: FxHashMap<Box<[u8]>, RouteId>,
}

impl RouteTable {
    pub(crate) fn new(
        routes: impl IntoIterator<Item = String>,
        dictionary: Option<&Dictionary>,
        protos: Option<&ProtoTable>,
    ) -> Self {
        let mut table = Self::default();
        for route in routes {
            table.add(&route);
        }
        for (_, route) in dictionary.into_iter().flat_map(Dictionary::iter) {
            table.add(route);
        }
        if let Some(protos) = protos {
            for route in protos.client().routes().chain(protos.server().routes()) {
                table.add(route);
            }
        }
        table
    }

    /// Sets the push policy of some routes; the last one for a route counts.
    pub(crate) fn with_push_policies(
        mut self,
        policies: impl IntoIterator<Item = (String, SlowConsumer)>,
    ) -> Self {
        for (route, policy) in policies {
            let id = self.add(&route);
            self.entries[id.index()].slow_consumer = policy;
        }
        self
    }

    fn add(&mut self, route: &str) -> RouteId {
        let next = RouteId(u32::try_from(self.entries.len()).expect("routes fit in memory"));
        let id = *self.by_text.entry(route.as_bytes().into()).or_insert(next);
        if id == next {
            let text = route.into();
            let slow_consumer = SlowConsumer::default();
            self.entries.push(RouteEntry { text, slow_consumer });
        }
        id
    }

    #[inline]
    pub(crate) fn find(&self, text: &[u8]) -> Option<RouteId> {
        self.by_text.get(text).copied()
    }

    #[inline]
    pub(crate) fn entry(&self, id: RouteId) -> &RouteEntry {
        &self.entries[id.index()]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter()
    }
}

/// Encodes a body by a schema. A body that does not fit is sent empty, as by the original
/// (docs/protocol/protobuf.md, "Encoding rules and failures").
pub(crate) fn encode_body(schema: &Schema, route: &str, body: &[u8], out: &mut Vec<u8>) {
    match schema.encode_json_text(body, out) {
        Ok(()) | Err(EncodeError::Nothing) => {}
        Err(error) => crate::log::seldom!(warn, route, %error, "a body does not fit its schema"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_of_handlers_and_dictionary_are_known() {
        let dictionary = Dictionary::new(["a.b.c"], ["onChat"]).unwrap();
        let routes = ["x.y.z".to_owned(), "a.b.c".to_owned()];
        let table = RouteTable::new(routes, Some(&dictionary), None);
        assert_eq!(table.iter().count(), 3);
        for route in ["x.y.z", "a.b.c", "onChat"] {
            let id = table.find(route.as_bytes()).unwrap();
            assert_eq!(&*table.entry(id).text, route);
        }
        assert_eq!(table.find(b"a.b"), None);
    }
}
