//! Every route that is known when the engine starts, by text, by code and by id.

use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::Dictionary;
use crate::wire::message::{self, RouteRef};
use crate::wire::package::{self, PackageType};
use crate::wire::protobuf::{EncodeError, ProtoTable, Schema};

/// A route's place in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RouteId(u32);

impl RouteId {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What is known of a route.
#[derive(Debug)]
pub(crate) struct RouteEntry {
    pub(crate) text: Arc<str>,
    code: Option<u16>,
    /// How its requests are laid out; JSON if there is none.
    pub(crate) client: Option<Schema>,
    /// How its answers and pushes are laid out; JSON if there is none.
    pub(crate) server: Option<Schema>,
}

/// The routes of handlers, dictionary and schemas. Built once, shared, never changed.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    entries: Vec<RouteEntry>,
    /// Its keys are ours alone, so a fast hash is safe.
    by_text: FxHashMap<Box<[u8]>, RouteId>,
    by_code: Vec<Option<RouteId>>,
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
        for (code, route) in dictionary.into_iter().flat_map(Dictionary::iter) {
            let id = table.add(route);
            let place = usize::from(code);
            if table.by_code.len() <= place {
                table.by_code.resize(place + 1, None);
            }
            table.by_code[place] = Some(id);
            table.entries[id.index()].code = dictionary.and_then(|d| d.code(route));
        }
        if let Some(protos) = protos {
            for route in protos.client().routes() {
                let id = table.add(route);
                table.entries[id.index()].client = protos.client().schema(route).cloned();
            }
            for route in protos.server().routes() {
                let id = table.add(route);
                table.entries[id.index()].server = protos.server().schema(route).cloned();
            }
        }
        table
    }

    fn add(&mut self, route: &str) -> RouteId {
        let next = RouteId(u32::try_from(self.entries.len()).expect("routes fit in memory"));
        let id = *self.by_text.entry(route.as_bytes().into()).or_insert(next);
        if id == next {
            let text = route.into();
            self.entries.push(RouteEntry { text, code: None, client: None, server: None });
        }
        id
    }

    #[inline]
    pub(crate) fn find(&self, route: RouteRef<'_>) -> Option<RouteId> {
        match route {
            RouteRef::Text(text) => self.by_text.get(text).copied(),
            RouteRef::Code(code) => self.by_code.get(usize::from(code)).copied().flatten(),
        }
    }

    #[inline]
    pub(crate) fn entry(&self, id: RouteId) -> &RouteEntry {
        &self.entries[id.index()]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &RouteEntry> {
        self.entries.iter()
    }

    /// Lays out a push: a whole package, ready for TCP, or for a WebSocket frame round it.
    pub(crate) fn encode_push(&self, route: &str, body: &[u8]) -> Result<Bytes, PushError> {
        if body.is_empty() || body == b"null" {
            return Err(PushError::Empty);
        }
        if route.is_empty() {
            return Err(PushError::RouteMissing);
        }
        let entry = self.find(RouteRef::Text(route.as_bytes())).map(|id| self.entry(id));
        let on_wire = match entry.and_then(|entry| entry.code) {
            Some(code) => RouteRef::Code(code),
            None => RouteRef::Text(route.as_bytes()),
        };
        let mut out = Vec::with_capacity(package::HEADER_BYTES + 8 + route.len() + body.len());
        out.extend_from_slice(&[0; package::HEADER_BYTES]);
        message::encode_push_head(&on_wire, &mut out).map_err(|_| PushError::RouteTooLong)?;
        match entry.and_then(|entry| entry.server.as_ref()) {
            None => out.extend_from_slice(body),
            // What makes the original's encoder throw reaches nobody there either.
            Some(schema) => match schema.encode_json_text(body, &mut out) {
                Ok(()) | Err(EncodeError::Nothing) => {}
                Err(error) => return Err(PushError::Schema(error)),
            },
        }
        let len = out.len() - package::HEADER_BYTES;
        if len > package::BODY_BYTES_MAX {
            return Err(PushError::TooLong { bytes: len });
        }
        let header = package::Header::encode(PackageType::Data, len);
        out[..package::HEADER_BYTES].copy_from_slice(&header);
        Ok(out.into())
    }
}

/// Lays out a body by a schema. One that does not fit goes out empty, as the original does
/// (Pomelo protobuf, "Encoding rules and failures").
pub(crate) fn encode_body(schema: &Schema, route: &str, body: &[u8], out: &mut Vec<u8>) {
    match schema.encode_json_text(body, out) {
        Ok(()) | Err(EncodeError::Nothing) => {}
        Err(error) => tracing::warn!(route, %error, "a body does not fit its schema"),
    }
}

/// A message that can't be pushed (made by the embedder).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The body is empty, or `null`.
    Empty,
    /// The route is empty, so no client could tell what it is.
    RouteMissing,
    /// The route has more than 255 bytes.
    RouteTooLong,
    /// The body does not fit the schema of the route.
    Schema(EncodeError),
    /// The message does not fit in a package of 2^24 - 1 bytes.
    TooLong {
        /// What it takes.
        bytes: usize,
    },
}

impl std::fmt::Display for PushError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Empty => f.write_str("can not send empty message."),
            Self::RouteMissing => f.write_str("a push needs a route"),
            Self::RouteTooLong => f.write_str("a route has at most 255 bytes"),
            Self::Schema(error) => write!(f, "a body does not fit its schema: {error}"),
            Self::TooLong { bytes } => write!(
                f,
                "a message of {bytes} bytes does not fit in a package of {} bytes",
                package::BODY_BYTES_MAX
            ),
        }
    }
}

impl std::error::Error for PushError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> RouteTable {
        let dictionary = Dictionary::new(["a.b.c"], ["onChat"]).unwrap();
        RouteTable::new(["x.y.z".to_owned(), "a.b.c".to_owned()], Some(&dictionary), None)
    }

    #[test]
    fn text_and_code_lead_to_the_same_route() {
        let table = table();
        let id = table.find(RouteRef::Code(1)).unwrap();
        assert_eq!(&*table.entry(id).text, "a.b.c");
        assert_eq!(table.find(RouteRef::Text(b"a.b.c")), Some(id));
        assert_eq!(table.find(RouteRef::Code(0)), None);
        assert_eq!(table.find(RouteRef::Code(3)), None);
        assert_eq!(table.find(RouteRef::Code(u16::MAX)), None);
        assert_eq!(table.find(RouteRef::Text(b"a.b")), None);
    }

    #[test]
    fn pushes_use_the_code_where_there_is_one() {
        let table = table();
        assert_eq!(
            &*table.encode_push("onChat", b"{}").unwrap(),
            &[4, 0, 0, 5, 7, 0, 2, b'{', b'}']
        );
        assert_eq!(
            &*table.encode_push("on", b"{}").unwrap(),
            &[4, 0, 0, 6, 6, 2, b'o', b'n', b'{', b'}']
        );
    }

    #[test]
    fn what_can_not_be_pushed_is_an_error() {
        let table = table();
        assert_eq!(table.encode_push("on", b""), Err(PushError::Empty));
        assert_eq!(table.encode_push("on", b"null"), Err(PushError::Empty));
        assert_eq!(table.encode_push("", b"{}"), Err(PushError::RouteMissing));
        assert_eq!(table.encode_push(&"x".repeat(256), b"{}"), Err(PushError::RouteTooLong));
        let body = vec![b'1'; package::BODY_BYTES_MAX];
        assert!(matches!(table.encode_push("on", &body), Err(PushError::TooLong { .. })));
    }

    #[test]
    fn a_push_that_does_not_fit_its_schema_is_an_error() {
        use crate::wire::protobuf::Protos;

        let server = Protos::parse_text(r#"{"on":{"required string s":1}}"#).unwrap();
        let protos = ProtoTable::new(Protos::parse_text("{}").unwrap(), server);
        let table = RouteTable::new([], None, Some(&protos));
        let push = |body| table.encode_push("on", body).map(|package| package.to_vec());
        assert_eq!(push(br#"{"s":"a"}"#).unwrap()[4..], [6, 2, b'o', b'n', 0x0a, 1, b'a']);
        assert_eq!(push(b"{}").unwrap()[4..], [6, 2, b'o', b'n'], "empty, as by Pomelo");
        assert!(matches!(push(br#"{"s":5}"#), Err(PushError::Schema(_))));
    }
}
