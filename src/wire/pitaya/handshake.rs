//! The handshake of Pitaya's dialect.
//!
//! ```text
//! request:  {"sys": {"platform", "libVersion", "clientBuildNumber", "clientVersion"}, "user": {…}}
//! success:  {"code": 200, "sys": {"dict": {route: code}, "heartbeat": N, "serializer": text}}
//! failure:  {"code": n, "sys": {…the same…}, "msg": text}
//! ```
//!
//! Every member of a request may be left out. The answer may be compressed without a mark: a client
//! recognises it by zlib's first byte, with which no JSON begins.
//!
//! ```
//! use shaddock::wire::pitaya::Serializer;
//! use shaddock::wire::pitaya::handshake::{self, CODE_BAD_REQUEST, HEARTBEAT};
//!
//! let mut body = Vec::new();
//! match handshake::parse(br#"{"sys":{"platform":"mac","libVersion":"0.3.5"}}"#) {
//!     Some(request) => {
//!         assert_eq!(request.sys_type.as_deref(), Some("mac"));
//!         handshake::success(r#"{"onChat":1}"#, HEARTBEAT, Serializer::Json, None, &mut body);
//!     }
//!     None => {
//!         let (code, text) = (CODE_BAD_REQUEST, None);
//!         handshake::failure(code, text, "{}", HEARTBEAT, Serializer::Json, &mut body);
//!     }
//! }
//! let expected = r#"{"code":200,"sys":{"dict":{"onChat":1},"heartbeat":30,"serializer":"json"}}"#;
//! assert_eq!(body, expected.as_bytes());
//! ```

use std::io::Write as _;
use std::time::Duration;

use serde_json::{Map, Value};

use super::Serializer;
use crate::wire::handshake::{CODE_OK, HandshakeRequest, Seconds};
use crate::wire::surrogate::parse_json;
use crate::wire::truthy::is_truthy;

/// The request is malformed, or the client is refused.
pub const CODE_BAD_REQUEST: u16 = 400;

/// The interval of the server's heartbeats if none is configured, as a client has to be given one.
pub const HEARTBEAT: Duration = Duration::from_secs(30);

/// The members of `sys`; all are texts.
const SYS: [&str; 4] = ["platform", "libVersion", "clientBuildNumber", "clientVersion"];

/// Reads the body of a handshake package. `None` if it is not JSON or has one of the known members
/// in another shape; it is then answered with [`CODE_BAD_REQUEST`].
///
/// The embedder sees a request in Pomelo's form: the platform is its `sys_type`, and the library's
/// version its `version`. [`HandshakeRequest::sys`] returns the other members.
#[must_use]
pub fn parse(body: &[u8]) -> Option<HandshakeRequest> {
    let message = parse_json(String::from_utf8_lossy(body).as_bytes()).ok()?;
    let mut members = match message {
        Value::Object(members) => members,
        Value::Null => Map::new(),
        _ => return None,
    };
    if !matches!(members.get("user"), None | Some(Value::Null | Value::Object(_))) {
        return None;
    }
    let sys = match members.remove("sys") {
        Some(Value::Object(sys)) => sys,
        None | Some(Value::Null) => Map::new(),
        Some(_) => return None,
    };
    let is_text =
        |member: &str| matches!(sys.get(member), None | Some(Value::Null | Value::String(_)));
    if !SYS.into_iter().all(is_text) {
        return None;
    }
    let text = |member: &str| sys.get(member).and_then(Value::as_str).map(str::to_owned);
    let (sys_type, version) = (text("platform"), text("libVersion"));
    let user = members.get("user").cloned();
    members.insert("sys".to_owned(), Value::Object(sys));
    let message = Value::Object(members);
    let (dict_version, proto_version) = (None, None);
    Some(HandshakeRequest { sys_type, version, dict_version, proto_version, user, message })
}

/// Appends the body of the answer to a valid request.
///
/// `dict` is a JSON object of routes and their codes. `user` is the result of the game's handshake
/// handler. Pitaya has no such member, so a client that does not know it ignores it.
pub fn success(
    dict: &str,
    heartbeat: Duration,
    serializer: Serializer,
    user: Option<&Value>,
    out: &mut Vec<u8>,
) {
    let sys = Sys { dict, heartbeat, serializer };
    let user = user.filter(|user| is_truthy(user));
    let user = user.map_or_else(String::new, |user| format!(r#","user":{user}"#));
    write!(out, r#"{{"code":{CODE_OK},"sys":{sys}{user}}}"#)
        .expect("writing to a vector cannot fail");
}

/// Appends the body of the answer to a refused request, with the same members as a success.
/// Pitaya's own Go client reads `sys` before it looks at the code, and panics if it is absent.
///
/// Pitaya's code is [`CODE_BAD_REQUEST`], and it has no `msg`, which is left out without a text.
pub fn failure(
    code: u16,
    text: Option<&str>,
    dict: &str,
    heartbeat: Duration,
    serializer: Serializer,
    out: &mut Vec<u8>,
) {
    let sys = Sys { dict, heartbeat, serializer };
    let msg = text.map_or_else(String::new, |text| format!(r#","msg":{}"#, Value::from(text)));
    write!(out, r#"{{"code":{code},"sys":{sys}{msg}}}"#).expect("writing to a vector cannot fail");
}

/// The server's members, which both kinds of answers have.
struct Sys<'a> {
    dict: &'a str,
    heartbeat: Duration,
    serializer: Serializer,
}

impl std::fmt::Display for Sys<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dict, heartbeat, serializer } = *self;
        let (seconds, name) = (Seconds(heartbeat), serializer.name());
        write!(f, r#"{{"dict":{dict},"heartbeat":{seconds},"serializer":"{name}"}}"#)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_may_be_left_out() {
        for body in ["{}", "null", r#"{"sys":null,"user":null}"#, r#"{"sys":{},"user":{}}"#] {
            let request = parse(body.as_bytes()).unwrap();
            assert_eq!((&request.sys_type, &request.version), (&None, &None), "{body}");
            assert!(request.message["sys"].is_object(), "{body}");
        }
    }

    #[test]
    fn a_request_is_shown_as_one_of_pomelo() {
        let body = br#"{"sys":{"platform":"mac","libVersion":"0.3.5-release",
            "clientBuildNumber":"20","clientVersion":"2.1","more":1},"user":{"age":30}}"#;
        let request = parse(body).unwrap();
        assert_eq!(request.sys_type.as_deref(), Some("mac"));
        assert_eq!(request.version.as_deref(), Some("0.3.5-release"));
        assert_eq!(request.sys("clientVersion"), Some(&json!("2.1")));
        assert_eq!(request.user, Some(json!({"age": 30})));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        for body in [
            "",
            "{",
            "[]",
            "5",
            "\"a\"",
            r#"{"sys":[]}"#,
            r#"{"sys":"a"}"#,
            r#"{"sys":{"platform":1}}"#,
            r#"{"sys":{"clientVersion":{}}}"#,
            r#"{"user":5}"#,
        ] {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn the_answer_is_what_the_original_sends() {
        let answer = |user: Option<&Value>| {
            let mut out = Vec::new();
            success(r#"{"a.b.c":1}"#, HEARTBEAT, Serializer::Json, user, &mut out);
            String::from_utf8(out).unwrap()
        };
        let sys = r#"{"dict":{"a.b.c":1},"heartbeat":30,"serializer":"json"}"#;
        assert_eq!(answer(None), format!(r#"{{"code":200,"sys":{sys}}}"#));
        assert_eq!(answer(Some(&json!(0))), format!(r#"{{"code":200,"sys":{sys}}}"#));
        assert_eq!(answer(Some(&json!(1))), format!(r#"{{"code":200,"sys":{sys},"user":1}}"#));
        let mut out = Vec::new();
        let mut fail = |code, text| {
            out.clear();
            failure(code, text, r#"{"a.b.c":1}"#, HEARTBEAT, Serializer::Json, &mut out);
            String::from_utf8(out.clone()).unwrap()
        };
        assert_eq!(fail(CODE_BAD_REQUEST, None), format!(r#"{{"code":400,"sys":{sys}}}"#));
        let no = format!(r#"{{"code":401,"sys":{sys},"msg":"\"no\""}}"#);
        assert_eq!(fail(401, Some("\"no\"")), no);
    }
}
