//! The client's side of the handshake: its request, and the answer.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::error::{Closed, Fault};
use super::options::Options;
use super::tables::Tables;
use crate::wire::handshake::CODE_OK;
use crate::wire::surrogate::parse_json;

/// The bounds within which a server's heartbeat is kept, so that none makes its client busy.
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
const HEARTBEAT_MAX: Duration = Duration::from_secs(60 * 60);

/// The outcome of a handshake.
#[derive(Debug)]
pub(super) struct Welcome {
    pub(super) heartbeat: Option<Duration>,
    pub(super) tables: Tables,
    /// The answer's `user`.
    pub(super) user: Option<Value>,
}

/// The body of the request.
pub(super) fn request(options: &Options) -> Vec<u8> {
    let mut sys = Map::new();
    sys.insert("type".into(), options.client_type.as_str().into());
    sys.insert("version".into(), options.client_version.as_str().into());
    sys.insert("rsa".into(), json!({}));
    if let Some(tables) = &options.tables {
        if let Some(version) = tables.dict_version() {
            sys.insert("dictVersion".into(), version.into());
        }
        if let Some(version) = tables.proto_version() {
            sys.insert("protoVersion".into(), version.into());
        }
    }
    let mut request = Map::from_iter([("sys".to_owned(), Value::Object(sys))]);
    if let Some(user) = &options.user {
        request.insert("user".into(), user.clone());
    }
    Value::Object(request).to_string().into_bytes()
}

/// Reads the answer to a request that told the versions of `known`.
pub(super) fn read(body: &[u8], known: Option<&Tables>) -> Result<Welcome, Closed> {
    let answer = parse_json(body).map_err(|_| Fault::Handshake)?;
    match answer.get("code").and_then(Value::as_i64).ok_or(Fault::Handshake)? {
        code if code == i64::from(CODE_OK) => {}
        code => return Err(Closed::Refused { code }),
    }
    let sys = answer.get("sys").unwrap_or(&Value::Null);
    let heartbeat = sys.get("heartbeat").and_then(Value::as_f64).filter(|&seconds| seconds > 0.0);
    let heartbeat = heartbeat.map(|seconds| {
        let interval = Duration::try_from_secs_f64(seconds).unwrap_or(HEARTBEAT_MAX);
        interval.clamp(HEARTBEAT_MIN, HEARTBEAT_MAX)
    });
    let tables = match known {
        Some(known) => known.updated(sys)?,
        None => Tables::from_handshake(sys)?,
    };
    Ok(Welcome { heartbeat, tables, user: answer.get("user").cloned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::handshake::HandshakeRequest;

    #[test]
    fn the_server_reads_the_request() {
        let sys = json!({
            "dict": {"a": 1}, "dictVersion": "d1",
            "protos": {"version": "p1"}, "useDict": true, "useProto": true,
        });
        let tables = Tables::from_handshake(&sys).unwrap();
        let options = Options::new()
            .client_type("bot", "7")
            .user(json!({"token": "t"}))
            .tables(std::sync::Arc::new(tables));
        let read = HandshakeRequest::parse(&request(&options)).unwrap();
        assert_eq!((read.sys_type.as_deref(), read.version.as_deref()), (Some("bot"), Some("7")));
        assert_eq!(read.dict_version.as_deref(), Some("d1"));
        assert_eq!(read.proto_version.as_deref(), Some("p1"));
        assert_eq!(read.user, Some(json!({"token": "t"})));
    }

    #[test]
    fn the_heartbeat_is_kept_within_bounds() {
        for (heartbeat, expected) in [
            (json!(3), Some(Duration::from_secs(3))),
            (json!(2.5), Some(Duration::from_millis(2500))),
            (json!(1e-300), Some(HEARTBEAT_MIN)),
            (json!(1e300), Some(HEARTBEAT_MAX)),
            (json!(0), None),
            (json!(-1), None),
            (json!("3"), None),
            (json!(null), None),
        ] {
            let body = json!({"code": 200, "sys": {"heartbeat": heartbeat}}).to_string();
            assert_eq!(read(body.as_bytes(), None).unwrap().heartbeat, expected, "{body}");
        }
    }

    #[test]
    fn a_refusal_has_its_code_and_nonsense_is_a_fault() {
        for (body, error) in [
            (&br#"{"code":501}"#[..], Closed::Refused { code: 501 }),
            (b"{\"code\":-1,\"sys\":{}}", Closed::Refused { code: -1 }),
            (b"", Fault::Handshake.into()),
            (b"[]", Fault::Handshake.into()),
            (b"{\"code\":\"200\"}", Fault::Handshake.into()),
        ] {
            assert_eq!(read(body, None).unwrap_err(), error);
        }
        let body = br#"{"code":200,"sys":{"dict":{"a":0}}}"#;
        assert!(matches!(read(body, None), Err(Closed::Fault(Fault::Dictionary(_)))));
        assert!(read(br#"{"code":200}"#, None).is_ok(), "a server without anything to tell");
    }
}
