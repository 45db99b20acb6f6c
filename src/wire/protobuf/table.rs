//! The schemas of both directions, as the handshake sends them to a client.

use super::schema::Protos;
use crate::wire::fingerprint::fingerprint;

/// A connector's schemas, and their form in its handshake answers.
///
/// The default is a server without schema files; its version is the empty text.
#[derive(Clone, Debug)]
pub struct ProtoTable {
    client: Protos,
    server: Protos,
    version: String,
    json: String,
}

impl ProtoTable {
    /// Combines the two directions: `client` describes bodies from clients (`clientProtos.json`),
    /// `server` bodies to clients (`serverProtos.json`).
    #[must_use]
    pub fn new(client: Protos, server: Protos) -> Self {
        let version = fingerprint(&[client.to_json(), server.to_json()]);
        Self::with_version(client, server, version)
    }

    /// Schemas of bodies from clients.
    #[must_use]
    pub fn client(&self) -> &Protos {
        &self.client
    }

    /// Schemas of bodies to clients.
    #[must_use]
    pub fn server(&self) -> &Protos {
        &self.server
    }

    /// The version text that a client compares with the one it stored: base64 of the MD5 of the
    /// parsed client schemas followed by the parsed server schemas, both as compact JSON.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The handshake's `sys.protos` as compact JSON: `{"server":…,"client":…,"version":…}`.
    #[must_use]
    pub fn protos_json(&self) -> &str {
        &self.json
    }

    fn with_version(client: Protos, server: Protos, version: String) -> Self {
        // Base64 needs no escaping in JSON.
        let json = format!(
            r#"{{"server":{},"client":{},"version":"{version}"}}"#,
            server.to_json(),
            client.to_json()
        );
        Self { client, server, version, json }
    }
}

impl Default for ProtoTable {
    fn default() -> Self {
        Self::with_version(Protos::default(), Protos::default(), String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::{ProtoTable, Protos};

    const CLIENT: &str = r#"{
        "connector.entryHandler.proto": {
            "required uInt32 n": 1,
            "optional string s": 2,
            "repeated sInt32 xs": 3,
            "message Point": { "required float x": 1, "required double y": 2 },
            "optional Point p": 4,
            "repeated Point ps": 5
        }
    }"#;

    const SERVER: &str = r#"{
        "connector.entryHandler.proto": {
            "required uInt32 code": 1,
            "optional uInt32 n": 2,
            "optional string s": 3,
            "repeated sInt32 xs": 4,
            "message Point": { "required float x": 1, "required double y": 2 },
            "optional Point p": 5,
            "repeated Point ps": 6
        },
        "onProto": {
            "required string msg": 1,
            "optional sInt32 n": 2,
            "repeated string tags": 3
        }
    }"#;

    /// The answer of Pomelo 2.2.7 with the two files above.
    const HANDSHAKE: &str = concat!(
        r#"{"server":{"connector.entryHandler.proto":{"#,
        r#""code":{"option":"required","type":"uInt32","tag":1},"#,
        r#""n":{"option":"optional","type":"uInt32","tag":2},"#,
        r#""s":{"option":"optional","type":"string","tag":3},"#,
        r#""xs":{"option":"repeated","type":"sInt32","tag":4},"#,
        r#""p":{"option":"optional","type":"Point","tag":5},"#,
        r#""ps":{"option":"repeated","type":"Point","tag":6},"#,
        r#""__messages":{"Point":{"x":{"option":"required","type":"float","tag":1},"#,
        r#""y":{"option":"required","type":"double","tag":2},"#,
        r#""__messages":{},"__tags":{"1":"x","2":"y"}}},"#,
        r#""__tags":{"1":"code","2":"n","3":"s","4":"xs","5":"p","6":"ps"}},"#,
        r#""onProto":{"msg":{"option":"required","type":"string","tag":1},"#,
        r#""n":{"option":"optional","type":"sInt32","tag":2},"#,
        r#""tags":{"option":"repeated","type":"string","tag":3},"#,
        r#""__messages":{},"__tags":{"1":"msg","2":"n","3":"tags"}}},"#,
        r#""client":{"connector.entryHandler.proto":{"#,
        r#""n":{"option":"required","type":"uInt32","tag":1},"#,
        r#""s":{"option":"optional","type":"string","tag":2},"#,
        r#""xs":{"option":"repeated","type":"sInt32","tag":3},"#,
        r#""p":{"option":"optional","type":"Point","tag":4},"#,
        r#""ps":{"option":"repeated","type":"Point","tag":5},"#,
        r#""__messages":{"Point":{"x":{"option":"required","type":"float","tag":1},"#,
        r#""y":{"option":"required","type":"double","tag":2},"#,
        r#""__messages":{},"__tags":{"1":"x","2":"y"}}},"#,
        r#""__tags":{"1":"n","2":"s","3":"xs","4":"p","5":"ps"}}},"#,
        r#""version":"cawcjjqsI8REkXuwWAhE5w=="}"#,
    );

    #[test]
    fn the_handshake_is_that_of_a_real_pomelo() {
        let client = Protos::parse_text(CLIENT).expect("valid schemas");
        let server = Protos::parse_text(SERVER).expect("valid schemas");
        let table = ProtoTable::new(client, server);
        assert_eq!(table.protos_json(), HANDSHAKE);
        assert_eq!(table.version(), "cawcjjqsI8REkXuwWAhE5w==");
    }

    #[test]
    fn without_files_the_version_is_empty() {
        let table = ProtoTable::default();
        assert_eq!(table.protos_json(), r#"{"server":{},"client":{},"version":""}"#);
        assert_eq!(table.version(), "");
    }
}
