//! Pushes: each is encoded once, for any number of sessions.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::edition::{Edition, EditionId};
use super::slow_consumer::SlowConsumer;
use super::table::{RouteId, RouteTable};
use crate::wire::message::{self, RouteRef};
use crate::wire::package::{self, HEADER_BYTES, Header, PackageType};
use crate::wire::pitaya::{self, Compression, Deflater};
use crate::wire::protobuf::EncodeError;

/// A whole package as TCP carries it, or a WebSocket frame's payload.
#[derive(Debug)]
pub(crate) struct Push {
    package: Bytes,
    /// The offset of the message's body.
    body_at: usize,
    /// The code, if the route was encoded as one.
    coded: Option<Coded>,
    /// The route, if it is a known one: those may have schemas.
    route: Option<RouteId>,
    /// The schemas by which the body is as it is.
    schemas: EditionId,
    /// The package for sessions of another edition than its own, for the first such one.
    earlier: OnceLock<(EditionId, Bytes)>,
    /// The body as it was given, if a schema encoded another one.
    json: Option<Bytes>,
    /// The package for Pitaya's clients, by compression; made on first use.
    pitaya: [OnceLock<Bytes>; 2],
    lossy: Option<Lossy>,
}

/// The policy of a push that may be dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lossy {
    DropOldest,
    KeepLatest(RouteId),
}

/// A code, and the route that it stands for in its edition.
#[derive(Debug)]
struct Coded {
    edition: EditionId,
    code: u16,
    route: Box<str>,
}

impl Push {
    /// Encodes a push for the sessions of an edition.
    pub(crate) fn encode(
        routes: &RouteTable,
        edition: &Edition,
        route: &str,
        body: &[u8],
    ) -> Result<Arc<Self>, PushError> {
        if body.is_empty() || body == b"null" {
            return Err(PushError::Empty);
        }
        Self::encode_any(routes, edition, route, body)
    }

    /// The same for any body, also an empty one: in protobuf that is a message whose fields all
    /// have their defaults (docs/protocol/pitaya.md, "Client dialect").
    pub(crate) fn encode_any(
        routes: &RouteTable,
        edition: &Edition,
        route: &str,
        body: &[u8],
    ) -> Result<Arc<Self>, PushError> {
        if route.is_empty() {
            return Err(PushError::RouteMissing);
        }
        let code = edition.code(route);
        let mut out = begin(route, code, body.len())?;
        let body_at = out.len();
        let id = routes.find(route.as_bytes());
        let schema = id.and_then(|id| edition.server_schema(id));
        let mut json = None;
        // A schema does not apply to an empty body.
        match schema.filter(|_| !body.is_empty()) {
            None => out.extend_from_slice(body),
            // If the original's encoder throws, no client gets the push there either.
            Some(schema) => match schema.encode_json_text(body, &mut out) {
                Ok(()) | Err(EncodeError::Nothing) => json = Some(Bytes::copy_from_slice(body)),
                Err(error) => return Err(PushError::Schema(error)),
            },
        }
        let package = finish(out)?;
        let (edition, schemas) = (edition.id(), edition.schemas().id());
        let coded = code.map(|code| Coded { edition, code, route: route.into() });
        let lossy = id.and_then(|id| match routes.entry(id).slow_consumer {
            SlowConsumer::Disconnect => None,
            SlowConsumer::DropOldest => Some(Lossy::DropOldest),
            SlowConsumer::KeepLatest => Some(Lossy::KeepLatest(id)),
        });
        Ok(Arc::new(Self {
            package,
            body_at,
            coded,
            route: id,
            schemas,
            earlier: OnceLock::new(),
            json,
            pitaya: Default::default(),
            lossy,
        }))
    }

    pub(crate) fn package(&self) -> &Bytes {
        &self.package
    }

    /// The policy by which it may be dropped while it waits, if it may.
    #[inline]
    pub(crate) fn lossy(&self) -> Option<Lossy> {
        self.lossy
    }

    /// True if the package has its meaning in a session of that edition.
    #[inline]
    pub(crate) fn suits(&self, edition: &Edition) -> bool {
        self.suits_code(edition)
            && (self.schemas == edition.schemas().id() || self.has_plain_body(edition))
    }

    /// True if its body is JSON, both as it is and in a session of that edition.
    fn has_plain_body(&self, edition: &Edition) -> bool {
        self.json.is_none() && self.route.and_then(|it| edition.server_schema(it)).is_none()
    }

    #[inline]
    fn suits_code(&self, edition: &Edition) -> bool {
        self.coded.as_ref().is_none_or(|coded| {
            coded.edition == edition.id() || edition.code(&coded.route) == Some(coded.code)
        })
    }

    /// Encodes the same push for a session of another edition: once for all of the first such one,
    /// which most of them have.
    pub(crate) fn encode_for(
        &self,
        routes: &RouteTable,
        edition: &Edition,
    ) -> Result<Bytes, PushError> {
        if let Some((id, package)) = self.earlier.get()
            && *id == edition.id()
        {
            return Ok(package.clone());
        }
        let is_same = self.schemas == edition.schemas().id() || self.has_plain_body(edition);
        let package = match self.route {
            Some(route) if !is_same => self.encode_anew(route, routes, edition)?,
            _ => self.recode(&self.package, edition)?,
        };
        self.earlier.set((edition.id(), package.clone())).ok();
        Ok(package)
    }

    /// Encodes route and body as another edition has them.
    fn encode_anew(
        &self,
        route: RouteId,
        routes: &RouteTable,
        edition: &Edition,
    ) -> Result<Bytes, PushError> {
        let body = self.plain_body();
        let text = &*routes.entry(route).text;
        let mut out = begin(text, edition.code(text), body.len())?;
        match edition.server_schema(route).filter(|_| !body.is_empty()) {
            None => out.extend_from_slice(body),
            Some(schema) => match schema.encode_json_text(body, &mut out) {
                Ok(()) | Err(EncodeError::Nothing) => {}
                Err(error) => return Err(PushError::Schema(error)),
            },
        }
        finish(out)
    }

    /// The body as it was given.
    fn plain_body(&self) -> &[u8] {
        self.json.as_deref().unwrap_or_else(|| &self.package[self.body_at..])
    }

    /// The package for a session of Pitaya's dialect and that edition.
    ///
    /// It is encoded once for all of them, and again only after a change of the dictionary.
    pub(crate) fn pitaya(
        &self,
        edition: Option<&Edition>,
        compression: Compression,
        deflater: &mut Deflater,
    ) -> Result<Bytes, PushError> {
        let cell = &self.pitaya[compression as usize];
        let package = match cell.get() {
            Some(package) => package,
            None => {
                // Shards that need it at the same time all make it, so that none waits for another.
                let package = self.encode_pitaya(compression, deflater)?;
                cell.get_or_init(|| package)
            }
        };
        // Bodies are JSON for Pitaya's clients, whatever the edition.
        match edition.filter(|edition| !self.suits_code(edition)) {
            None => Ok(package.clone()),
            Some(edition) => self.recode(package, edition),
        }
    }

    /// Encodes the package for Pitaya's clients, which know compression and no schemas.
    fn encode_pitaya(
        &self,
        compression: Compression,
        deflater: &mut Deflater,
    ) -> Result<Bytes, PushError> {
        let body = self.plain_body();
        let mut out = self.package[..self.body_at].to_vec();
        if deflater.compress(body, compression, &mut out) {
            out[HEADER_BYTES] |= pitaya::COMPRESSED_BIT;
        } else if self.json.is_none() {
            return Ok(self.package.clone());
        } else {
            out.extend_from_slice(body);
        }
        finish(out)
    }

    /// Replaces the route in one of this push's packages by its code or text in an edition.
    fn recode(&self, package: &Bytes, edition: &Edition) -> Result<Bytes, PushError> {
        let Some(Coded { route, .. }) = &self.coded else { return Ok(package.clone()) };
        let mut out = begin(route, edition.code(route), package.len() - self.body_at)?;
        out[HEADER_BYTES] |= package[HEADER_BYTES] & pitaya::COMPRESSED_BIT;
        out.extend_from_slice(&package[self.body_at..]);
        finish(out)
    }
}

/// Begins a package: all that precedes the message's body.
fn begin(route: &str, code: Option<u16>, body_len: usize) -> Result<Vec<u8>, PushError> {
    let on_wire = code.map_or(RouteRef::Text(route.as_bytes()), RouteRef::Code);
    let mut out = Vec::with_capacity(HEADER_BYTES + 8 + route.len() + body_len);
    out.extend_from_slice(&[0; HEADER_BYTES]);
    message::encode_push_head(&on_wire, &mut out).map_err(|_| PushError::RouteTooLong)?;
    Ok(out)
}

/// Writes the header into the bytes reserved for it.
fn finish(mut out: Vec<u8>) -> Result<Bytes, PushError> {
    let len = out.len() - HEADER_BYTES;
    if len > package::BODY_BYTES_MAX {
        return Err(PushError::TooLong { bytes: len });
    }
    out[..HEADER_BYTES].copy_from_slice(&Header::encode(PackageType::Data, len));
    Ok(out.into())
}

/// A message that can't be pushed; the embedder is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushError {
    /// The body is empty, or `null`.
    Empty,
    /// The route is empty, so no client could recognise the push.
    RouteMissing,
    /// The route has more than 255 bytes.
    RouteTooLong,
    /// The body does not fit the schema of the route.
    Schema(EncodeError),
    /// The message does not fit in a package of 2^24 - 1 bytes.
    TooLong {
        /// The bytes it would take.
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
    use crate::route::Dictionary;
    use crate::route::schemas::Schemas;
    use crate::wire::protobuf::{ProtoTable, Protos};

    fn edition(id: u16, user: &[&str], routes: &RouteTable) -> Edition {
        let dictionary = Dictionary::new([""; 0], user.iter().copied()).unwrap();
        Edition::plain(EditionId(id), Some(dictionary), routes)
    }

    fn with_schemas(id: u16, protos: Option<ProtoTable>, routes: &RouteTable) -> Edition {
        let schemas = Arc::new(Schemas::new(EditionId(id), protos, routes));
        Edition::new(EditionId(id), None, None, schemas, routes)
    }

    #[test]
    fn pushes_use_the_code_where_there_is_one() {
        let routes = RouteTable::default();
        let edition = edition(0, &["a", "onChat"], &routes);
        let push = |route| Push::encode(&routes, &edition, route, b"{}").unwrap();
        assert_eq!(**push("onChat").package(), [4, 0, 0, 5, 7, 0, 2, b'{', b'}']);
        assert_eq!(**push("on").package(), [4, 0, 0, 6, 6, 2, b'o', b'n', b'{', b'}']);
    }

    #[test]
    fn what_can_not_be_pushed_is_an_error() {
        let routes = RouteTable::default();
        let edition = edition(0, &[], &routes);
        let error =
            |route: &str, body: &[u8]| Push::encode(&routes, &edition, route, body).unwrap_err();
        assert_eq!(error("on", b""), PushError::Empty);
        assert_eq!(error("on", b"null"), PushError::Empty);
        assert_eq!(error("", b"{}"), PushError::RouteMissing);
        assert_eq!(error(&"x".repeat(256), b"{}"), PushError::RouteTooLong);
        let body = vec![b'1'; package::BODY_BYTES_MAX];
        assert!(matches!(error("on", &body), PushError::TooLong { .. }));
    }

    #[test]
    fn a_push_that_does_not_fit_its_schema_is_an_error() {
        let server = Protos::parse_text(r#"{"on":{"required string s":1}}"#).unwrap();
        let protos = ProtoTable::new(Protos::parse_text("{}").unwrap(), server);
        let routes = RouteTable::new([], None, Some(&protos));
        let edition = with_schemas(0, Some(protos), &routes);
        let push = |body: &[u8]| {
            Push::encode(&routes, &edition, "on", body).map(|push| push.package().to_vec())
        };
        assert_eq!(push(br#"{"s":"a"}"#).unwrap()[4..], [6, 2, b'o', b'n', 0x0a, 1, b'a']);
        assert_eq!(push(b"{}").unwrap()[4..], [6, 2, b'o', b'n'], "empty, as by Pomelo");
        assert!(matches!(push(br#"{"s":5}"#), Err(PushError::Schema(_))));
    }

    /// Sessions get the same bytes, encoded once.
    #[test]
    fn clients_of_pitaya_share_a_package_of_their_own() {
        let routes = RouteTable::default();
        let new = edition(1, &["on", "onChat"], &routes);
        let mut deflater = Deflater::default();
        let body = [b'a'; pitaya::COMPRESS_BYTES_MIN];
        let push = Push::encode(&routes, &new, "onChat", &body).unwrap();
        let mut pitaya = |push: &Push, edition: &Edition, compression| {
            push.pitaya(Some(edition), compression, &mut deflater).unwrap()
        };
        let plain = pitaya(&push, &new, Compression::Off);
        assert_eq!(plain.as_ptr(), push.package().as_ptr(), "what Pomelo's clients get is it");
        let first = pitaya(&push, &new, Compression::On);
        let second = pitaya(&push, &new, Compression::On);
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(first[..8], [4, 0, 0, first[3], 0x17, 0, 2, 0x78]);

        let moved = pitaya(&push, &edition(0, &["onChat"], &routes), Compression::On);
        assert_eq!(
            (moved[..7].to_vec(), &moved[7..]),
            (vec![4, 0, 0, first[3], 0x17, 0, 1], &first[7..])
        );
        let text = pitaya(&push, &edition(0, &["x"], &routes), Compression::On);
        assert_eq!((&text[4..12], &text[12..]), (&b"\x16\x06onChat"[..], &first[7..]));

        let short = Push::encode(&routes, &new, "onChat", b"{}").unwrap();
        let package = pitaya(&short, &new, Compression::On);
        assert_eq!(package.as_ptr(), short.package().as_ptr());
    }

    #[test]
    fn clients_of_pitaya_get_what_a_schema_was_applied_to() {
        let server = Protos::parse_text(r#"{"on":{"required string s":1}}"#).unwrap();
        let protos = ProtoTable::new(Protos::parse_text("{}").unwrap(), server);
        let routes = RouteTable::new([], None, Some(&protos));
        let edition = with_schemas(0, Some(protos), &routes);
        let push = Push::encode(&routes, &edition, "on", br#"{"s":"a"}"#).unwrap();
        for compression in [Compression::On, Compression::Off] {
            let package = push.pitaya(Some(&edition), compression, &mut Deflater::default());
            assert_eq!(&package.unwrap()[..], b"\x04\0\0\x0d\x06\x02on{\"s\":\"a\"}");
        }
    }

    /// A code that another edition gives to another route never reaches that edition's sessions.
    #[test]
    fn a_session_of_another_edition_gets_its_own_code_or_the_text() {
        let routes = RouteTable::default();
        let new = edition(1, &["on", "onChat"], &routes);
        let push = Push::encode(&routes, &new, "onChat", b"{}").unwrap();
        assert!(push.suits(&new));
        assert!(push.suits(&edition(0, &["x", "onChat", "y"], &routes)), "the same code");
        let moved = edition(0, &["onChat", "on"], &routes);
        assert!(!push.suits(&moved));
        let package = push.encode_for(&routes, &moved).unwrap();
        assert_eq!(package[..], [4, 0, 0, 5, 7, 0, 1, b'{', b'}']);
        let without = edition(2, &["x", "y"], &routes);
        assert!(!push.suits(&without));
        let package = push.encode_for(&routes, &without).unwrap();
        assert_eq!(&package[..], b"\x04\0\0\x0a\x06\x06onChat{}");
        let text = Push::encode(&routes, &new, "other", b"{}").unwrap();
        assert!(text.suits(&moved), "a text is understood by everyone");
    }

    /// Each gets a body by the schema that it was told of, whichever the push was encoded by.
    #[test]
    fn a_session_of_other_schemas_gets_a_body_by_its_own() {
        let protos = |fields: &str| {
            let server = Protos::parse_text(&format!(r#"{{"on":{{{fields}}}}}"#)).unwrap();
            ProtoTable::new(Protos::default(), server)
        };
        let [first, second] = [r#""required uInt32 n":1"#, r#""required uInt32 n":2"#].map(protos);
        let routes = RouteTable::new([], None, Some(&first));
        let editions = [Some(first), Some(second), None];
        let editions: Vec<Edition> =
            (0..).zip(editions).map(|(id, protos)| with_schemas(id, protos, &routes)).collect();
        let expected = [&b"\x08\x05"[..], b"\x10\x05", b"{\"n\":5}"];
        for (edition, own) in editions.iter().zip(expected) {
            let push = Push::encode(&routes, edition, "on", b"{\"n\":5}").unwrap();
            assert!(push.suits(edition));
            assert_eq!(push.package()[8..], *own);
            for (other, body) in editions.iter().zip(expected) {
                assert_eq!(push.suits(other), body == own);
                assert_eq!(push.encode_for(&routes, other).unwrap()[8..], *body);
            }
            let push = Push::encode(&routes, edition, "other", b"{}").unwrap();
            assert!(editions.iter().all(|other| push.suits(other)), "it has no schema in any");
        }
        let push = Push::encode(&routes, &editions[2], "on", b"{\"n\":\"x\"}").unwrap();
        assert!(matches!(push.encode_for(&routes, &editions[0]), Err(PushError::Schema(_))));
    }
}
