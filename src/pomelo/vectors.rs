//! The packets that the original's library writes, byte for byte (`tests/vectors/rpc.json`).

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::mqtt::{self, Decoded, Packet};
use super::rpc::{self, Message};
use crate::session::{SessionData, Uid};

/// Read once, which takes Miri long enough.
static CASES: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let file: Value = serde_json::from_str(include_str!("../../tests/vectors/rpc.json")).unwrap();
    file["cases"].as_array().unwrap().clone()
});

/// The packet of a name, and its topic and payload if it has any.
fn vector(name: &str) -> (Vec<u8>, Option<(String, String)>) {
    let case = CASES.iter().find(|case| case["name"] == name);
    let case = case.unwrap_or_else(|| panic!("no vector `{name}`"));
    let text = |key: &str| case[key].as_str().map(str::to_owned);
    let hex = text("hex").unwrap();
    let bytes = (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    (bytes.collect::<Result<_, _>>().unwrap(), text("topic").zip(text("payload")))
}

fn all() -> Vec<String> {
    CASES.iter().map(|case| case["name"].as_str().unwrap().to_owned()).collect()
}

fn payload(name: &str) -> String {
    vector(name).1.unwrap().1
}

fn session(number: u64, uid: Option<Uid>, settings: Value) -> Vec<u8> {
    let mut data = SessionData::new(number, SocketAddr::from((Ipv4Addr::LOCALHOST, 9)));
    data.uid = uid;
    data.settings = settings.as_object().unwrap().clone();
    rpc::export(&data, "connector-1")
}

#[test]
fn every_packet_is_read_and_written_again() {
    let names = all();
    assert_eq!(names.len(), 50);
    for name in crate::test_cases::cases(2, names) {
        let (bytes, publish) = vector(&name);
        let Ok(Decoded::Packet(packet, len)) = mqtt::decode(&bytes, 1 << 20) else {
            panic!("{name} is not read")
        };
        assert_eq!(len, bytes.len(), "{name}");
        for cut in 0..bytes.len().min(400) {
            let partial = mqtt::decode(&bytes[..cut], 1 << 20);
            assert!(
                matches!(partial, Ok(Decoded::Partial { needed }) if needed > cut),
                "{name} cut at {cut}"
            );
        }
        match (packet, publish) {
            (Packet::Publish { topic, payload }, Some((wanted_topic, wanted))) => {
                assert_eq!((topic, payload), (wanted_topic.as_bytes(), wanted.as_bytes()));
                let mut out = Vec::new();
                mqtt::encode_publish(&wanted_topic, &mut out, |out| {
                    out.extend_from_slice(wanted.as_bytes());
                });
                assert_eq!(out, bytes, "{name}");
            }
            (Packet::Publish { .. }, None) | (_, Some(_)) => panic!("{name} is misread"),
            (_, None) => {}
        }
    }
}

#[test]
fn packets_without_a_payload_are_the_originals() {
    for (name, bytes) in [
        ("pingreq", &mqtt::PINGREQ[..]),
        ("pingresp", &mqtt::PINGRESP),
        ("admin_connack", &mqtt::CONNACK),
    ] {
        assert_eq!(vector(name).0, bytes, "{name}");
    }
    for (name, client_id) in
        [("connect", "MQTT_RPC_1700000000000"), ("admin_connect", "MQTT_ADMIN_1700000000000")]
    {
        let mut out = Vec::new();
        mqtt::encode_connect(client_id, &mut out);
        assert_eq!(out, vector(name).0, "{name}");
    }
}

#[test]
fn forwarded_messages_are_the_originals() {
    let bound = session(1, Some("u1".into()), json!({"room": 7}));
    let unbound = session(2, None, json!({}));
    let send = "chat.chatHandler.send";
    for (name, id, message, session) in [
        ("forward_request", 0, (5, send, "{\"b\":\"中\"}"), &bound),
        ("forward_notify", 1, (0, send, ""), &unbound),
        ("forward_size_127_boundary", 4, (9, "c.h.m", "{}"), &unbound),
    ] {
        let (message_id, route, body) = message;
        let body = body.as_bytes();
        let message = Message { id: message_id, route, body, span: None };
        let mut out = Vec::new();
        mqtt::encode_publish(rpc::TOPIC, &mut out, |out| {
            rpc::encode_forward(id, "chat", &message, session, out);
        });
        let wanted = vector(name).0;
        assert_eq!(String::from_utf8_lossy(&out), String::from_utf8_lossy(&wanted), "{name}");
        assert_eq!(out, wanted);
    }
}

#[test]
fn answers_are_read() {
    let read = |name: &str| {
        let payload = payload(name);
        let mut answers = Vec::new();
        let bad = rpc::decode_answers(payload.as_bytes(), |answer| {
            answers.push((answer.id, answer.failed, answer.body.map(str::to_owned)));
        });
        assert_eq!(bad, 0, "{name}");
        answers
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(read("resp_ok"), [(0, false, some("{\"code\":200}"))]);
    assert_eq!(read("resp_ok_opts"), [(0, false, some("{\"code\":200}"))]);
    assert_eq!(read("resp_noresp"), [(1, false, some("null"))]);
    assert_eq!(read("resp_empty"), [(1, false, None)]);
    assert_eq!(read("resp_error"), [(2, true, some("null"))]);
    assert_eq!(read("resp_error_with_resp"), [(3, true, some("{\"a\":1}"))]);
    assert_eq!(read("resp_no_such_service"), [(4, true, None)]);
    assert_eq!(read("batch_resp"), [(6, false, some("{\"code\":200}")), (7, false, some("null"))]);
}

#[test]
fn calls_are_read() {
    let read = |name: &str| {
        let payload = payload(name);
        let mut calls = Vec::new();
        rpc::decode_requests(payload.as_bytes(), |request| {
            let call = request.call.expect("a vector is a call");
            let args: Vec<_> = call.args.iter().map(|arg| arg.get()).collect();
            calls.push((
                request.id.unwrap(),
                format!("{}.{}.{}({})", call.namespace, call.service, call.method, args.join(";")),
            ));
        });
        calls
    };
    let ten = |text: &str| vec![(10, text.to_owned())];
    assert_eq!(read("session_bind"), ten("sys.sessionRemote.bind(1;\"u1\")"));
    assert_eq!(read("session_bind_num"), ten("sys.sessionRemote.bind(1;42)"));
    assert_eq!(
        read("session_pushAll"),
        ten("sys.sessionRemote.pushAll(1;{\"room\":7,\"x\":null})")
    );
    assert_eq!(read("kickBySid_null"), ten("sys.sessionRemote.kickBySid(1;null)"));
    assert_eq!(
        read("push"),
        ten("sys.channelRemote.pushMessage(\"onChat\";{\"m\":\"hi\"};[\"u1\",42];\
             {\"type\":\"push\",\"userOptions\":{},\"isPush\":true})")
    );
    assert_eq!(read("batch_request").len(), 2);
    assert_eq!(read("forward_traced")[0].0, 5, "what a trace adds is passed over");
}

#[test]
fn answers_are_the_originals() {
    let write = |values: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        rpc::encode_answer(Some(10), &mut out, values);
        String::from_utf8(out).unwrap()
    };
    assert_eq!(write(&|_| {}), payload("bind_answer_ok"));
    assert_eq!(write(&|_| {}), payload("getBySid_none"));
    let one = session(1, Some("u1".into()), json!({"room": 7}));
    let found = write(&|out| {
        out.extend_from_slice(b"null,");
        out.extend_from_slice(&one);
    });
    assert_eq!(found, payload("getBySid_answer"));
}
