//! Editions of the dictionary and the schemas: the tables that a handshake sends, and their meaning
//! in the session that got them.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;

use super::Dictionary;
pub(crate) use super::edition_id::EditionId;
use super::schemas::Schemas;
use super::table::{RouteId, RouteTable};
use crate::wire::handshake::{Answers, DictionaryParts, ProtosParts};
use crate::wire::pitaya::{self, Compression, Deflater, Serializer};
#[cfg(feature = "testing")]
use crate::wire::protobuf::ProtoTable;
use crate::wire::protobuf::Schema;

/// A dictionary and schemas in use, and the handshake answers that carry them.
///
/// A change of either while the engine runs makes a new edition. A session keeps the edition of its
/// handshake until it ends, so neither a code nor a body changes its meaning for a client.
#[derive(Debug)]
pub(crate) struct Edition {
    id: EditionId,
    dictionary: Option<Dictionary>,
    schemas: Arc<Schemas>,
    /// Route ids by code; a route that was unknown when the engine started has only a text.
    known: Vec<Option<RouteId>>,
    answers: Answers,
    heartbeat: Option<Duration>,
    /// The answers to Pitaya's clients, by serializer and compression; each is made on first use.
    pitaya_answers: [OnceLock<Vec<u8>>; 4],
}

impl Edition {
    pub(crate) fn new(
        id: EditionId,
        heartbeat: Option<Duration>,
        dictionary: Option<Dictionary>,
        schemas: Arc<Schemas>,
        routes: &RouteTable,
    ) -> Self {
        let parts = dictionary.as_ref().map(|dictionary| DictionaryParts {
            dict: dictionary.route_to_code_json(),
            code_to_route: dictionary.code_to_route_json(),
            version: dictionary.version(),
        });
        let protos = schemas
            .protos()
            .map(|protos| ProtosParts { json: protos.protos_json(), version: protos.version() });
        let answers = Answers::new(heartbeat, parts, protos);
        let mut known = Vec::new();
        for (code, route) in dictionary.iter().flat_map(Dictionary::iter) {
            let index = usize::from(code);
            known.resize(known.len().max(index + 1), None);
            known[index] = routes.find(route.as_bytes());
        }
        let pitaya_answers = Default::default();
        Self { id, dictionary, schemas, known, answers, heartbeat, pitaya_answers }
    }

    pub(crate) fn id(&self) -> EditionId {
        self.id
    }

    pub(crate) fn dictionary(&self) -> Option<&Dictionary> {
        self.dictionary.as_ref()
    }

    pub(crate) fn schemas(&self) -> &Arc<Schemas> {
        &self.schemas
    }

    #[cfg(feature = "testing")]
    pub(crate) fn protos(&self) -> Option<&ProtoTable> {
        self.schemas.protos()
    }

    /// The schema of a route's requests.
    pub(crate) fn client_schema(&self, route: RouteId) -> Option<&Schema> {
        self.schemas.client(route)
    }

    /// The schema of a route's answers and pushes.
    pub(crate) fn server_schema(&self, route: RouteId) -> Option<&Schema> {
        self.schemas.server(route)
    }

    pub(crate) fn answers(&self) -> &Answers {
        &self.answers
    }

    /// Appends the answer to a handshake in Pitaya's dialect, with the game's `user`.
    pub(crate) fn answer_pitaya(
        &self,
        serializer: Serializer,
        compression: Compression,
        user: Option<&Value>,
        deflater: &mut Deflater,
        out: &mut Vec<u8>,
    ) {
        let index = 2 * serializer as usize + compression as usize;
        if user.is_none()
            && let Some(answer) = self.pitaya_answers[index].get()
        {
            out.extend_from_slice(answer);
            return;
        }
        let dict = self.dictionary.as_ref().map_or("{}", Dictionary::route_to_code_json);
        let heartbeat = self.heartbeat.unwrap_or(pitaya::handshake::HEARTBEAT);
        let mut answer = Vec::new();
        pitaya::handshake::success(dict, heartbeat, serializer, user, &mut answer);
        let start = out.len();
        if compression == Compression::Off || !deflater.deflate(&answer, out) {
            out.extend_from_slice(&answer);
        }
        if user.is_none() {
            // Shards that need it at the same time all make it, so that none waits for another.
            self.pitaya_answers[index].set(out[start..].to_vec()).ok();
        }
    }

    /// Appends the refusal of a handshake in Pitaya's dialect, with a code and a text.
    pub(crate) fn refuse_pitaya(
        &self,
        (code, text): (u16, Option<&str>),
        serializer: Serializer,
        compression: Compression,
        deflater: &mut Deflater,
        out: &mut Vec<u8>,
    ) {
        let dict = self.dictionary.as_ref().map_or("{}", Dictionary::route_to_code_json);
        let heartbeat = self.heartbeat.unwrap_or(pitaya::handshake::HEARTBEAT);
        let mut answer = Vec::new();
        pitaya::handshake::failure(code, text, dict, heartbeat, serializer, &mut answer);
        if compression == Compression::Off || !deflater.deflate(&answer, out) {
            out.extend_from_slice(&answer);
        }
    }

    /// The known route of a code.
    #[inline]
    pub(crate) fn find(&self, code: u16) -> Option<RouteId> {
        self.known.get(usize::from(code)).copied().flatten()
    }

    /// The text of a code's route, known or not.
    pub(crate) fn text(&self, code: u16) -> Option<&str> {
        self.dictionary.as_ref()?.route(code)
    }

    pub(crate) fn code(&self, route: &str) -> Option<u16> {
        self.dictionary.as_ref()?.code(route)
    }
}

/// Constructors for code that runs a single shard.
#[cfg(any(test, feature = "internals"))]
impl Edition {
    /// The first edition, without heartbeat and schemas.
    pub(crate) fn bare(dictionary: Option<&Dictionary>, routes: &RouteTable) -> Self {
        Self::plain(EditionId::FIRST, dictionary.cloned(), routes)
    }

    /// An edition without heartbeat and schemas.
    pub(crate) fn plain(
        id: EditionId,
        dictionary: Option<Dictionary>,
        routes: &RouteTable,
    ) -> Self {
        let schemas = Schemas::new(EditionId::FIRST, None, routes);
        Self::new(id, None, dictionary, Arc::new(schemas), routes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::pitaya::Inflater;

    #[test]
    fn clients_of_pitaya_are_told_the_same_codes() {
        let routes = RouteTable::default();
        let names: Vec<String> = (0..40).map(|number| format!("room.room.r{number}")).collect();
        let dictionary = Dictionary::new([""; 0], names.iter().map(String::as_str)).unwrap();
        let dict = dictionary.route_to_code_json().to_owned();
        let heartbeat = Some(Duration::from_millis(1500));
        let schemas = Arc::new(Schemas::new(EditionId::FIRST, None, &routes));
        let edition = Edition::new(EditionId(1), heartbeat, Some(dictionary), schemas, &routes);
        let mut deflater = Deflater::default();
        let mut answer = |serializer, compression, user: Option<&Value>| {
            let mut out = Vec::new();
            edition.answer_pitaya(serializer, compression, user, &mut deflater, &mut out);
            out
        };
        let expected = |name: &str| {
            format!(r#"{{"code":200,"sys":{{"dict":{dict},"heartbeat":1.5,"serializer":"{name}"}}"#)
        };
        for _ in ["made", "kept"] {
            let plain = answer(Serializer::Json, Compression::Off, None);
            assert_eq!(String::from_utf8(plain).unwrap(), expected("json") + "}");
            let plain = answer(Serializer::Protobuf, Compression::Off, None);
            assert_eq!(String::from_utf8(plain).unwrap(), expected("protobuf") + "}");
            let user = Value::from(7);
            let plain = answer(Serializer::Json, Compression::Off, Some(&user));
            assert_eq!(String::from_utf8(plain).unwrap(), expected("json") + ",\"user\":7}");
            let short = answer(Serializer::Json, Compression::On, None);
            assert_eq!(short[0], 0x78);
            let mut back = Vec::new();
            Inflater::default().inflate(&short, 10_000, &mut back).unwrap();
            assert_eq!(String::from_utf8(back).unwrap(), expected("json") + "}");
        }
        let mut bare = Vec::new();
        let edition = Edition::bare(None, &routes);
        let compression = Compression::Off;
        edition.answer_pitaya(Serializer::Json, compression, None, &mut deflater, &mut bare);
        let expected = br#"{"code":200,"sys":{"dict":{},"heartbeat":30,"serializer":"json"}}"#;
        assert_eq!(bare, expected);
    }

    #[test]
    fn a_code_leads_to_a_known_route_or_to_a_text() {
        let routes = RouteTable::new(["a.b.c".to_owned()], None, None);
        let dictionary = Dictionary::new(["a.b.c", "x.y.z"], ["onChat"]).unwrap();
        let edition = Edition::bare(Some(&dictionary), &routes);
        assert_eq!(edition.find(1), routes.find(b"a.b.c"));
        assert_eq!((edition.find(2), edition.text(2)), (None, Some("x.y.z")));
        assert_eq!(edition.code("onChat"), Some(3));
        for code in [0, 4, u16::MAX] {
            assert_eq!((edition.find(code), edition.text(code)), (None, None));
        }
        let empty = Edition::bare(None, &routes);
        assert_eq!((empty.find(1), empty.text(1), empty.code("a.b.c")), (None, None, None));
    }
}
