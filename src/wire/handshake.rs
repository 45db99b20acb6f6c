//! The handshake: the JSON bodies of the first package in each direction.
//!
//! ```text
//! request:  {"sys": {"type", "version", "dictVersion", "protoVersion", ...}, "user": any}
//! success:  {"code": 200, "sys": {...}, "user": value}
//! failure:  {"code": n, "msg": text}
//! ```

use std::{fmt, io::Write as _, time::Duration};

use serde_json::Value;

use super::surrogate::parse_json;
use super::truthy::is_truthy;

/// The client may continue.
pub const CODE_OK: u16 = 200;
/// The request is malformed or the user's handshake handler refused it.
pub const CODE_FAIL: u16 = 500;
/// The client's type or version is no longer served.
pub const CODE_OLD_CLIENT: u16 = 501;

/// A client's handshake request, made by [`HandshakeRequest::parse`].
///
/// ```
/// use shaddock::wire::handshake::HandshakeRequest;
///
/// let request = HandshakeRequest::parse(br#"{"sys":{"type":"unity","language":"de"}}"#)?;
/// assert_eq!(request.sys_type.as_deref(), Some("unity"));
/// assert_eq!(request.sys("language").unwrap(), "de");
/// # Ok::<(), shaddock::wire::handshake::HandshakeError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HandshakeRequest {
    /// `sys.type`, the client library; `None` if absent or not a text.
    pub sys_type: Option<String>,
    /// `sys.version`, the client library's version; `None` if absent or not a text.
    pub version: Option<String>,
    /// `sys.dictVersion`, the dictionary the client has cached; never empty.
    pub dict_version: Option<String>,
    /// `sys.protoVersion`, the schemas the client has cached; never empty. The JavaScript client
    /// sends the number 0 as long as it has none, which is `None` here.
    pub proto_version: Option<String>,
    /// `user`: any value that the game's client has sent.
    pub user: Option<Value>,
    /// The whole request. INVARIANT: an object with a `sys` member that is true in JavaScript.
    pub message: Value,
}

impl HandshakeRequest {
    /// Reads the body of a handshake package.
    ///
    /// Invalid UTF-8 becomes U+FFFD before the text is read, as on the stock server, and so does
    /// half of a surrogate pair. Nesting deeper than 128 levels is refused.
    ///
    /// # Errors
    /// [`HandshakeError`] for everything the stock server answers with `{"code":500}`.
    pub fn parse(body: &[u8]) -> Result<Self, HandshakeError> {
        let message = parse_json(String::from_utf8_lossy(body).as_bytes())
            .map_err(|_| HandshakeError::NotJson)?;
        let members = message.as_object().ok_or(HandshakeError::NotAnObject)?;
        let sys = members.get("sys").filter(|sys| is_truthy(sys));
        let sys = sys.ok_or(HandshakeError::SysMissing)?;
        // `get` finds nothing in a `sys` that is true or a text, as in JavaScript.
        let text = |member| sys.get(member).and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            sys_type: text("type"),
            version: text("version"),
            dict_version: text("dictVersion").filter(|version| !version.is_empty()),
            proto_version: text("protoVersion").filter(|version| !version.is_empty()),
            user: members.get("user").cloned(),
            message,
        })
    }

    /// A member of `sys`, for members that are not texts or have no field here.
    #[must_use]
    pub fn sys(&self, member: &str) -> Option<&Value> {
        self.message.get("sys")?.get(member)
    }
}

/// The reasons to refuse a handshake request; the peer is at fault.
///
/// ```
/// use shaddock::wire::handshake::{self, HandshakeRequest};
///
/// let error = HandshakeRequest::parse(b"[]").unwrap_err();
/// let mut body = Vec::new();
/// handshake::failure(error.code(), &mut body);
/// assert_eq!(body, br#"{"code":500}"#);
/// ```
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandshakeError {
    /// The body is empty or not JSON.
    NotJson,
    /// The body is `null`, a number, a text, a boolean or an array.
    NotAnObject,
    /// `sys` is absent or `null`, `false`, zero or empty.
    SysMissing,
}

impl HandshakeError {
    /// The code to answer with, see [`failure`].
    #[must_use]
    pub const fn code(self) -> u16 {
        CODE_FAIL
    }
}

impl fmt::Display for HandshakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotJson => "the handshake is not JSON",
            Self::NotAnObject => "the handshake is not a JSON object",
            Self::SysMissing => "the handshake has no sys member",
        })
    }
}

impl std::error::Error for HandshakeError {}

/// The dictionary as the success answer carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DictionaryParts<'a> {
    /// The map from route to code, a JSON object; sent as `dict` and as `routeToCode`.
    pub dict: &'a str,
    /// The map from code to route, a JSON object.
    pub code_to_route: &'a str,
    /// Base64 MD5 of the dictionary, plain text.
    pub version: &'a str,
}

/// The protobuf schemas as the success answer carries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProtosParts<'a> {
    /// The whole JSON object: `{"server":…,"client":…,"version":…}`.
    pub json: &'a str,
    /// The same version as in `json`, plain text.
    pub version: &'a str,
}

/// The success answers of one configuration.
///
/// A client that has the current dictionary or schemas cached gets an answer without them, so there
/// are four bodies. All are encoded when the server starts or a file changes; an answer is one
/// copy.
///
/// ```
/// use std::time::Duration;
/// use shaddock::wire::handshake::{Answers, HandshakeRequest};
///
/// let answers = Answers::new(Some(Duration::from_secs(3)), None, None);
/// let request = HandshakeRequest::parse(br#"{"sys":{"type":"unity"}}"#)?;
/// let mut body = Vec::new();
/// answers.success(&request, None, &mut body);
/// assert_eq!(body, br#"{"code":200,"sys":{"heartbeat":3}}"#);
/// # Ok::<(), shaddock::wire::handshake::HandshakeError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The bodies without the final brace, as `user` may follow. Indexed by [`variant`].
    bodies: [Vec<u8>; 4],
    /// `None` if no dictionary is used.
    dict_version: Option<String>,
    /// `None` if no schemas are used.
    proto_version: Option<String>,
}

impl Answers {
    /// Encodes the answers. `None` stands for a feature that is off; its members are then absent.
    #[must_use]
    pub fn new(
        heartbeat: Option<Duration>,
        dictionary: Option<DictionaryParts<'_>>,
        protos: Option<ProtosParts<'_>>,
    ) -> Self {
        let body = |dict_cache, protos_cache| {
            let mut sys = Vec::new();
            if let Some(heartbeat) = heartbeat {
                sys.push(format!("\"heartbeat\":{}", Seconds(heartbeat)));
            }
            if let Some(dictionary) = dictionary {
                append_dictionary(dictionary, dict_cache, &mut sys);
            }
            if let Some(protos) = protos {
                append_protos(protos, protos_cache, &mut sys);
            }
            format!("{{\"code\":{CODE_OK},\"sys\":{{{}}}", sys.join(",")).into_bytes()
        };
        let mut bodies = [const { Vec::new() }; 4];
        for dict_cache in [Cache::Stale, Cache::Current] {
            for protos_cache in [Cache::Stale, Cache::Current] {
                bodies[variant(dict_cache, protos_cache)] = body(dict_cache, protos_cache);
            }
        }
        Self {
            bodies,
            dict_version: dictionary.map(|parts| parts.version.to_owned()),
            proto_version: protos.map(|parts| parts.version.to_owned()),
        }
    }

    /// Appends the body of the success answer to `request`.
    ///
    /// `user` is the result of the game's handshake handler. It is left out if it is `null`,
    /// `false`, zero or empty, as by the stock server.
    pub fn success(&self, request: &HandshakeRequest, user: Option<&Value>, out: &mut Vec<u8>) {
        let dict_cache = Cache::of(&request.dict_version, &self.dict_version);
        let protos_cache = Cache::of(&request.proto_version, &self.proto_version);
        out.extend_from_slice(&self.bodies[variant(dict_cache, protos_cache)]);
        if let Some(user) = user.filter(|user| is_truthy(user)) {
            write!(out, ",\"user\":{user}").expect("writing to a vector cannot fail");
        }
        out.push(b'}');
    }
}

/// Appends the body of a failure answer, `{"code":N}`.
pub fn failure(code: u16, out: &mut Vec<u8>) {
    write!(out, "{{\"code\":{code}}}").expect("writing to a vector cannot fail");
}

/// Appends the body of a failure answer with a text for the player, `{"code":N,"msg":"..."}`. The
/// stock server has no text, and its clients look at the code only.
///
/// ```
/// use shaddock::wire::handshake::{CODE_OLD_CLIENT, failure, failure_with_text};
///
/// let [mut plain, mut with_text] = [Vec::new(), Vec::new()];
/// failure(CODE_OLD_CLIENT, &mut plain);
/// assert_eq!(plain, br#"{"code":501}"#);
/// failure_with_text(CODE_OLD_CLIENT, "please update", &mut with_text);
/// assert_eq!(with_text, br#"{"code":501,"msg":"please update"}"#);
/// ```
pub fn failure_with_text(code: u16, text: &str, out: &mut Vec<u8>) {
    let text = Value::from(text);
    write!(out, "{{\"code\":{code},\"msg\":{text}}}").expect("writing to a vector cannot fail");
}

/// The state of the client's copy of a table, compared with the table in use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cache {
    Stale,
    Current,
}

impl Cache {
    fn of(client: &Option<String>, server: &Option<String>) -> Self {
        if client.is_some() && client == server { Self::Current } else { Self::Stale }
    }
}

const fn variant(dict: Cache, protos: Cache) -> usize {
    (dict as usize) << 1 | protos as usize
}

fn append_dictionary(parts: DictionaryParts<'_>, cache: Cache, sys: &mut Vec<String>) {
    if cache == Cache::Stale {
        let DictionaryParts { dict, code_to_route, version } = parts;
        sys.push(format!("\"dict\":{dict}"));
        sys.push(format!("\"routeToCode\":{dict}"));
        sys.push(format!("\"codeToRoute\":{code_to_route}"));
        sys.push(format!("\"dictVersion\":{}", Value::from(version)));
    }
    sys.push("\"useDict\":true".to_owned());
}

fn append_protos(parts: ProtosParts<'_>, cache: Cache, sys: &mut Vec<String>) {
    if cache == Cache::Stale {
        sys.push(format!("\"protos\":{}", parts.json));
    }
    sys.push("\"useProto\":true".to_owned());
}

/// Seconds as JavaScript prints them: whole ones without a fraction.
pub(super) struct Seconds(pub(super) Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_nanos() {
            0 => self.0.as_secs().fmt(f),
            _ => self.0.as_secs_f64().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DICTIONARY: DictionaryParts<'_> = DictionaryParts {
        dict: r#"{"a.b.c":1}"#,
        code_to_route: r#"{"1":"a.b.c"}"#,
        version: "ZGljdA==",
    };
    const PROTOS: ProtosParts<'_> = ProtosParts {
        json: r#"{"server":{},"client":{},"version":"cHJvdG8="}"#,
        version: "cHJvdG8=",
    };
    const HEARTBEAT: Option<Duration> = Some(Duration::from_secs(3));

    fn parse(body: &str) -> HandshakeRequest {
        HandshakeRequest::parse(body.as_bytes()).unwrap()
    }

    fn success(answers: &Answers, body: &str, user: Option<&Value>) -> String {
        let mut out = Vec::new();
        answers.success(&parse(body), user, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_javascript_client_request_is_read() {
        let request = parse(
            r#"{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{},"protoVersion":0},
            "user":{"token":"t"}}"#,
        );
        assert_eq!(request.sys_type.as_deref(), Some("js-websocket"));
        assert_eq!(request.version.as_deref(), Some("0.0.1"));
        assert_eq!(request.dict_version, None);
        assert_eq!(request.proto_version, None);
        assert_eq!(request.sys("protoVersion"), Some(&json!(0)));
        assert_eq!(request.sys("rsa"), Some(&json!({})));
        assert_eq!(request.user, Some(json!({"token": "t"})));
    }

    #[test]
    fn what_the_stock_server_answers_with_500_is_an_error() {
        for (body, error) in [
            ("", HandshakeError::NotJson),
            ("{", HandshakeError::NotJson),
            ("{}x", HandshakeError::NotJson),
            ("null", HandshakeError::NotAnObject),
            ("[]", HandshakeError::NotAnObject),
            ("[{\"sys\":{}}]", HandshakeError::NotAnObject),
            ("1", HandshakeError::NotAnObject),
            ("\"sys\"", HandshakeError::NotAnObject),
            ("true", HandshakeError::NotAnObject),
            ("{}", HandshakeError::SysMissing),
            ("{\"user\":1}", HandshakeError::SysMissing),
            ("{\"sys\":null}", HandshakeError::SysMissing),
            ("{\"sys\":0}", HandshakeError::SysMissing),
            ("{\"sys\":\"\"}", HandshakeError::SysMissing),
        ] {
            assert_eq!(HandshakeRequest::parse(body.as_bytes()), Err(error), "{body}");
            assert_eq!(error.code(), 500);
        }
        let deep = "[".repeat(crate::test_cases::repetitions(100_000) as usize);
        assert_eq!(HandshakeRequest::parse(deep.as_bytes()), Err(HandshakeError::NotJson));
    }

    #[test]
    fn a_true_sys_without_members_is_enough() {
        for body in ["{\"sys\":{}}", "{\"sys\":[]}", "{\"sys\":true}", "{\"sys\":\"x\"}"] {
            let request = parse(body);
            assert_eq!(request.sys_type, None, "{body}");
            assert_eq!(request.user, None, "{body}");
        }
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let request = HandshakeRequest::parse(b"{\"sys\":{\"type\":\"a\xff\"}}").unwrap();
        assert_eq!(request.sys_type.as_deref(), Some("a\u{fffd}"));
        assert_eq!(parse(r#"{"sys":{},"user":"\ud800"}"#).user, Some("\u{fffd}".into()));
    }

    #[test]
    fn members_come_in_the_order_of_the_stock_server() {
        let answers = Answers::new(HEARTBEAT, Some(DICTIONARY), Some(PROTOS));
        assert_eq!(
            success(&answers, r#"{"sys":{}}"#, Some(&json!({"echo": "é"}))),
            concat!(
                r#"{"code":200,"sys":{"heartbeat":3,"dict":{"a.b.c":1},"routeToCode":{"a.b.c":1},"#,
                r#""codeToRoute":{"1":"a.b.c"},"dictVersion":"ZGljdA==","useDict":true,"#,
                r#""protos":{"server":{},"client":{},"version":"cHJvdG8="},"useProto":true},"#,
                r#""user":{"echo":"é"}}"#,
            )
        );
    }

    #[test]
    fn a_current_version_leaves_the_table_out_and_keeps_the_flag() {
        let answers = Answers::new(HEARTBEAT, Some(DICTIONARY), Some(PROTOS));
        let dict_only = r#"{"sys":{"dictVersion":"ZGljdA==","protoVersion":"old"}}"#;
        assert_eq!(
            success(&answers, dict_only, None),
            concat!(
                r#"{"code":200,"sys":{"heartbeat":3,"useDict":true,"#,
                r#""protos":{"server":{},"client":{},"version":"cHJvdG8="},"useProto":true}}"#,
            )
        );
        let both = r#"{"sys":{"dictVersion":"ZGljdA==","protoVersion":"cHJvdG8="}}"#;
        assert_eq!(
            success(&answers, both, None),
            r#"{"code":200,"sys":{"heartbeat":3,"useDict":true,"useProto":true}}"#
        );
        let protos_only = success(&answers, r#"{"sys":{"protoVersion":"cHJvdG8="}}"#, None);
        assert!(protos_only.contains("\"dictVersion\""));
        assert!(!protos_only.contains("\"protos\""));
    }

    #[test]
    fn features_that_are_off_leave_no_member() {
        let body = r#"{"sys":{"dictVersion":"","protoVersion":"x"}}"#;
        let heartbeat = Answers::new(HEARTBEAT, None, None);
        assert_eq!(success(&heartbeat, body, None), r#"{"code":200,"sys":{"heartbeat":3}}"#);
        let nothing = Answers::new(None, None, None);
        assert_eq!(success(&nothing, body, None), r#"{"code":200,"sys":{}}"#);
        let fraction = Answers::new(Some(Duration::from_millis(2500)), None, None);
        assert_eq!(success(&fraction, body, None), r#"{"code":200,"sys":{"heartbeat":2.5}}"#);
    }

    #[test]
    fn an_empty_server_version_never_counts_as_cached() {
        let protos = ProtosParts { json: "{}", version: "" };
        let answers = Answers::new(None, None, Some(protos));
        let answer = success(&answers, r#"{"sys":{"protoVersion":""}}"#, None);
        assert_eq!(answer, r#"{"code":200,"sys":{"protos":{},"useProto":true}}"#);
    }

    #[test]
    fn a_false_user_value_is_left_out() {
        let answers = Answers::new(None, None, None);
        for user in [json!(null), json!(false), json!(0), json!(-0.0), json!("")] {
            let answer = success(&answers, r#"{"sys":{}}"#, Some(&user));
            assert_eq!(answer, r#"{"code":200,"sys":{}}"#, "{user}");
        }
        let answer = success(&answers, r#"{"sys":{}}"#, Some(&json!([])));
        assert_eq!(answer, r#"{"code":200,"sys":{},"user":[]}"#);
    }

    #[test]
    fn a_failure_is_the_code_alone_or_with_a_text() {
        let mut out = Vec::new();
        failure(CODE_OLD_CLIENT, &mut out);
        assert_eq!(out, br#"{"code":501}"#);
        out.clear();
        failure_with_text(401, "no \"token\"", &mut out);
        assert_eq!(out, br#"{"code":401,"msg":"no \"token\""}"#);
    }
}
