//! The handshake request, and the answer to it.

use std::time::Duration;

use serde_json::Value;
use shaddock::wire::handshake::{self, Answers, DictionaryParts, HandshakeRequest, ProtosParts};

/// A request that is accepted reads the same after printing, and every answer is JSON with the
/// tables that the client lacks.
pub fn check(input: &[u8]) {
    let request = match HandshakeRequest::parse(input) {
        Ok(request) => request,
        Err(error) => {
            let mut out = Vec::new();
            handshake::failure(error.code(), &mut out);
            assert_eq!(object(&out)["code"], 500);
            return;
        }
    };
    let printed = request.message.to_string();
    let again = HandshakeRequest::parse(printed.as_bytes()).expect("printed JSON reads");
    assert_eq!(again, request);
    assert!(request.sys("type").is_none_or(|_| request.message["sys"].is_object()));
    for version in [&request.dict_version, &request.proto_version].into_iter().flatten() {
        assert!(!version.is_empty());
    }
    check_answers(&request);
}

fn check_answers(request: &HandshakeRequest) {
    let dictionary = DictionaryParts {
        dict: r#"{"a.b.c":1}"#,
        code_to_route: r#"{"1":"a.b.c"}"#,
        version: DICT_VERSION,
    };
    let protos = ProtosParts { json: r#"{"server":{},"client":{}}"#, version: PROTO_VERSION };
    for dictionary in [None, Some(dictionary)] {
        for protos in [None, Some(protos)] {
            let answers = Answers::new(Some(Duration::from_secs(3)), dictionary, protos);
            let mut out = b"before".to_vec();
            // The client's own value stands for any result of a handshake handler.
            answers.success(request, request.user.as_ref(), &mut out);
            let answer = object(out.strip_prefix(b"before").expect("answers are appended"));
            assert_eq!(answer["code"], 200);
            let has_dictionary = request.dict_version.as_deref() == Some(DICT_VERSION);
            let has_protos = request.proto_version.as_deref() == Some(PROTO_VERSION);
            let sys = &answer["sys"];
            assert_eq!(sys.get("useDict").is_some(), dictionary.is_some());
            assert_eq!(sys.get("dict").is_some(), dictionary.is_some() && !has_dictionary);
            assert_eq!(sys.get("useProto").is_some(), protos.is_some());
            assert_eq!(sys.get("protos").is_some(), protos.is_some() && !has_protos);
            if let Some(user) = answer.get("user") {
                assert_eq!(Some(user), request.user.as_ref());
            }
        }
    }
}

fn object(json: &[u8]) -> Value {
    let value: Value = serde_json::from_slice(json).expect("an answer is JSON");
    assert!(value.is_object());
    value
}

/// Short texts, so that a fuzzer finds them.
const DICT_VERSION: &str = "d";
const PROTO_VERSION: &str = "p";
