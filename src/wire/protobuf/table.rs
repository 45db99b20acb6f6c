//! The schemas of both directions, as the handshake sends them to a client.

use serde_json::Value;

use super::schema::Protos;
use super::schema_error::{SchemaError, SchemaErrorKind};
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
    ///
    /// ```
    /// use shaddock::wire::protobuf::{ProtoTable, Protos};
    ///
    /// let client = Protos::parse_text(r#"{"area.a.move": {"required sInt32 x": 1}}"#)?;
    /// let table = ProtoTable::new(client, Protos::default());
    /// assert_eq!(table.client().routes().collect::<Vec<_>>(), ["area.a.move"]);
    /// assert!(table.server().schema("area.a.move").is_none());
    /// let told: serde_json::Value = serde_json::from_str(table.protos_json())?;
    /// assert_eq!(told["version"], table.version());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(client: Protos, server: Protos) -> Self {
        let version = fingerprint(&[client.to_json(), server.to_json()]);
        Self::with_version(client, server, version)
    }

    /// Reads `sys.protos` of a handshake's answer. The version stays the one that the server tells.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] if a schema can't be compiled, or `protos` is not an object.
    ///
    /// # Examples
    ///
    /// ```
    /// use serde_json::json;
    /// use shaddock::wire::protobuf::ProtoTable;
    ///
    /// let table = ProtoTable::from_handshake(&json!({
    ///     "server": {"onMove": {"x": {"option": "required", "type": "int32", "tag": 1}}},
    ///     "client": {},
    ///     "version": "cawcjjqsI8REkXuwWAhE5w==",
    /// }))?;
    /// let mut json = Vec::new();
    /// table.server().schema("onMove").unwrap().decode_to_json(b"\x08\x03", &mut json)?;
    /// assert_eq!(json, br#"{"x":-2}"#);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn from_handshake(protos: &Value) -> Result<Self, SchemaError> {
        if !protos.is_object() {
            return Err(SchemaError::new("", "", SchemaErrorKind::NotAnObject));
        }
        let direction = |name| match protos.get(name) {
            None | Some(Value::Null) => Ok(Protos::default()),
            Some(form) => Protos::parse_form(form),
        };
        let version = protos.get("version").and_then(Value::as_str).unwrap_or_default();
        Ok(Self::with_version(direction("client")?, direction("server")?, version.to_owned()))
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
        let json = format!(
            r#"{{"server":{},"client":{},"version":{}}}"#,
            server.to_json(),
            client.to_json(),
            Value::from(version.as_str())
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
    fn what_a_real_pomelo_sends_is_read_as_its_files_are() {
        let sent = serde_json::from_str(HANDSHAKE).expect("the recording is JSON");
        let table = ProtoTable::from_handshake(&sent).expect("valid schemas");
        assert_eq!(table.protos_json(), HANDSHAKE);
        assert_eq!(table.version(), "cawcjjqsI8REkXuwWAhE5w==");

        let route = "connector.entryHandler.proto";
        let json = br#"{"n":7,"xs":[-1,2],"p":{"x":0.5,"y":2},"ps":[{"x":1,"y":-1}]}"#;
        let file = Protos::parse_text(CLIENT).expect("valid schemas");
        let [mut expected, mut bytes, mut read] = [const { Vec::new() }; 3];
        file.schema(route).unwrap().encode_json_text(json, &mut expected).unwrap();
        let schema = table.client().schema(route).unwrap();
        schema.encode_json_text(json, &mut bytes).unwrap();
        assert_eq!(bytes, expected);
        schema.decode_to_json(&bytes, &mut read).unwrap();
        assert_eq!(read, json);
    }

    #[test]
    fn what_a_server_may_send_besides_is_told_or_ignored() {
        use serde_json::json;
        for (protos, error) in [
            (json!(null), "the schema file is not a JSON object"),
            (json!({"server": 1}), "the schema file is not a JSON object"),
            (
                json!({"client": {"r": {"n": {"option": "required", "type": "int32"}}}}),
                "route r, field \"n\": the tag is not an integer from 0 to 2^28 - 1",
            ),
            (
                json!({"server": {"r": {"n": {"option": "optional", "type": "Q", "tag": 1}}}}),
                "route r, field \"n\": unsupported type",
            ),
        ] {
            let told = ProtoTable::from_handshake(&protos).expect_err(error);
            assert_eq!(told.to_string(), error);
        }
        let table = ProtoTable::from_handshake(&json!({
            "server": {"r": {"a": 1, "b": {"option": "any"}, "c": {}, "__messages": 7,
                "__tags": {"x": "a", "1": "nobody", "9": 3}}},
            "version": "a\"b",
        }));
        let table = table.expect("nothing but members that are no fields");
        assert_eq!(table.server().schema("r").map(|schema| format!("{schema:?}")).unwrap(), "{}");
        assert!(serde_json::from_str::<serde_json::Value>(table.protos_json()).is_ok());
    }

    #[test]
    fn without_files_the_version_is_empty() {
        let table = ProtoTable::default();
        assert_eq!(table.protos_json(), r#"{"server":{},"client":{},"version":""}"#);
        assert_eq!(table.version(), "");
    }
}
