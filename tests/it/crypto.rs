//! Signed requests (`useCrypto`): the recorded signatures of a stock client, by themselves and
//! through an engine.

use std::path::Path;

use serde_json::{Value, json};
use shaddock::wire::package::PackageType;
use shaddock::wire::signature::{PublicKey, SignatureError};
use shaddock::{Drain, Engine, Limits, Reply};
use support::{Client, Event, ack, builder, package, request};

const ECHO: &str = "connector.entryHandler.echo";

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/crypto.json");
    let text = std::fs::read_to_string(path).unwrap();
    let mut vectors: Value = serde_json::from_str(&text).unwrap();
    serde_json::from_value(vectors["cases"].take()).unwrap()
}

fn rsa(case: &Value) -> Value {
    json!({"rsa_n": case["rsa_n"], "rsa_e": case["rsa_e"]})
}

/// The body as the client sends it: the signature comes last.
fn signed(body: &Value, signature: &Value) -> String {
    let mut body = body.clone();
    body["__crypto__"] = signature.clone();
    body.to_string()
}

#[test]
fn every_recorded_signature_verifies_and_no_other() {
    let cases = cases();
    assert!(cases.len() >= 12);
    for case in &cases {
        let name = &case["name"];
        let key = PublicKey::from_handshake(&rsa(case)).unwrap();
        let body = signed(&case["body"], &case["sig"]);
        let verified = key.verify(body.as_bytes());
        assert_eq!(case["verifies"], true);
        assert_eq!(verified.as_deref(), Ok(case["json"].as_str().unwrap().as_bytes()), "{name}");

        assert_eq!(case["tampered_verifies"], false);
        let mut tampered = case["body"].clone();
        tampered["tampered"] = json!(1);
        let body = signed(&tampered, &case["sig"]);
        assert_eq!(key.verify(body.as_bytes()), Err(SignatureError::Wrong), "{name}");
        for (signature, error) in [
            (json!(case["sig"].as_str().unwrap().to_uppercase()), None),
            (
                json!(format!("{}00", case["sig"].as_str().unwrap())),
                Some(SignatureError::Malformed),
            ),
            (json!(case["sig"].as_str().unwrap()[2..]), Some(SignatureError::Malformed)),
            (json!("x".repeat(256)), Some(SignatureError::Malformed)),
            (json!("0".repeat(256)), Some(SignatureError::Wrong)),
            (json!("f".repeat(256)), Some(SignatureError::Wrong)),
        ] {
            let body = signed(&case["body"], &signature);
            assert_eq!(key.verify(body.as_bytes()).err(), error, "{name} {signature}");
        }
    }
}

fn engine() -> Engine {
    bounded(Limits::default())
}

fn bounded(limits: Limits) -> Engine {
    builder(1)
        .limits(limits)
        .use_crypto()
        .handler(ECHO, |request: &shaddock::Request<'_>, _: &mut shaddock::Session| {
            Reply::borrowed(request.body())
        })
        .start()
        .unwrap()
}

fn ready(engine: &Engine, rsa: &Value) -> Client {
    let mut client = Client::connect(engine.local_addr());
    let body = json!({"sys": {"type": "js-websocket", "version": "0.0.1", "rsa": rsa}}).to_string();
    client.send(&package(PackageType::Handshake, body.as_bytes()));
    assert!(matches!(client.next(), Event::Handshake(answer) if answer["code"] == 200));
    client.send(&ack());
    client
}

#[test]
fn a_signed_request_is_handled_without_its_signature() {
    let engine = engine();
    for case in &cases() {
        let mut client = ready(&engine, &rsa(case));
        let answer = client.ask(1, ECHO, &signed(&case["body"], &case["sig"]));
        assert_eq!(answer, case["json"].as_str().unwrap());
        // Another client's request does not pass, nor does one of its own that was changed.
        let other = client.ask_json(2, ECHO, &signed(&json!({"a": 2}), &case["sig"]));
        assert_eq!(other, json!({"code": 500}));
        assert_eq!(client.ask(3, ECHO, &signed(&case["body"], &case["sig"])), answer);
    }
    let counters = engine.shutdown(Drain::now()).counters;
    assert_eq!(counters.bad_signature, cases().len() as u64);
}

#[test]
fn requests_without_a_good_signature_are_answered_with_an_error() {
    let engine = engine();
    let case = &cases()[0];
    let good = signed(&case["body"], &case["sig"]);
    let mut client = ready(&engine, &rsa(case));
    let refused = json!({"code": 500});
    let bodies = ["null", "", "{}", "[]", "5", r#"{"__crypto__":1}"#, r#"{"__crypto__":"zz"}"#];
    for (id, body) in (1..).zip(bodies) {
        assert_eq!(client.ask_json(id, ECHO, body), refused, "{body}");
    }
    // A client that has told no key, or one that is none, works in all but its requests.
    for rsa in [
        json!({}),
        json!(null),
        json!({"rsa_n": "zz", "rsa_e": 3}),
        json!({"rsa_n": "f".repeat(256), "rsa_e": 1}),
        // Each bit of an exponent takes time; the stock client's is 65,537.
        json!({"rsa_n": case["rsa_n"], "rsa_e": u32::MAX}),
        json!({"rsa_n": "f".repeat(1024), "rsa_e": 65537}),
    ] {
        let mut client = ready(&engine, &rsa);
        assert_eq!(client.ask_json(1, ECHO, &good), refused, "{rsa}");
    }
    // What is not signed does not even kick its sender.
    assert_eq!(client.ask_json(50, "a.b.constructor", "{}"), refused);
    assert_eq!(client.ask(99, ECHO, &good), case["json"].as_str().unwrap());
}

#[test]
fn a_body_longer_than_may_be_signed_is_refused_unread() {
    let case = &cases()[0];
    let good = signed(&case["body"], &case["sig"]);
    let answer = case["json"].as_str().unwrap();
    for (bytes_max, expected) in [(good.len(), answer), (good.len() - 1, r#"{"code":500}"#)] {
        let limits = Limits { signed_bytes_max: bytes_max, ..Limits::default() };
        let engine = bounded(limits);
        let mut client = ready(&engine, &rsa(case));
        assert_eq!(client.ask(1, ECHO, &good), expected, "{bytes_max} bytes");
        let refused = u64::from(bytes_max < good.len());
        assert_eq!(engine.shutdown(Drain::now()).counters.bad_signature, refused);
    }
}

#[test]
fn a_session_has_its_own_key_only() {
    let engine = engine();
    let case = &cases()[0];
    let good = signed(&case["body"], &case["sig"]);
    let mut client = ready(&engine, &rsa(case));
    client.send(&request(1, ECHO, &good));
    assert_eq!(client.answer(1), case["json"].as_str().unwrap());
    drop(client);
    // The next one may have the same place in the table, but not its key.
    support::eventually("the connection is closed", || {
        engine.handle().counters().connections_closed == 1
    });
    let mut client = ready(&engine, &json!({}));
    assert_eq!(client.ask_json(1, ECHO, &good), json!({"code": 500}));
}

#[test]
fn without_the_option_signatures_are_part_of_the_body() {
    let engine = builder(1)
        .handler(ECHO, |request: &shaddock::Request<'_>, _: &mut shaddock::Session| {
            Reply::borrowed(request.body())
        })
        .start()
        .unwrap();
    let mut client = ready(&engine, &json!({}));
    let body = signed(&json!({"a": 1}), &json!("ab"));
    assert_eq!(client.ask(1, ECHO, &body), body);
}
