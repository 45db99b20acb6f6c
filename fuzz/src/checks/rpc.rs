//! A stream of a backend's packets, and the calls and answers in it.

use serde_json::Value;
use shaddock::internals::rpc::{self, Answer, Call, DEPTH_MAX, First, Packet, Reader};

/// The stream gives the same packets and the same end whole and in pieces. What was read encodes
/// and decodes to itself, and a client's body becomes one JSON value in a call.
pub fn check(input: &[u8]) {
    for bytes_max in [SHORT_BYTES_MAX, LONG_BYTES_MAX] {
        let (packets, end) = read(input, std::iter::repeat(input.len().max(1)), bytes_max);
        for step in [1, 2, 5] {
            let pieces = read(input, std::iter::repeat(step), bytes_max);
            assert_eq!(pieces, (packets.clone(), end.clone()), "in pieces of {step}");
        }
        // The input decides the cuts.
        let steps = input.iter().rev().map(|&byte| usize::from(byte) % 97 + 1);
        let pieces = read(input, steps.chain(std::iter::repeat(97)), bytes_max);
        assert_eq!(pieces, (packets.clone(), end), "in pieces of {:?}", input.last());
        check_first(input, bytes_max, packets.first());
        for packet in &packets {
            if let Packet::Publish { topic, payload } = packet {
                check_publish(topic, payload);
            }
        }
    }
    // The input that makes no packet is a payload, too.
    check_payload(input);
    check_forward(input);
}

/// Reads packets from pieces, as a connection does.
fn read(
    input: &[u8],
    steps: impl Iterator<Item = usize>,
    bytes_max: usize,
) -> (Vec<Packet>, Result<(), String>) {
    let (mut reader, mut packets) = (Reader::new(bytes_max), Vec::new());
    let mut rest = input;
    for step in steps {
        let (piece, after) = rest.split_at(step.min(rest.len()));
        rest = after;
        let end = reader.read(piece, &mut packets);
        if end.is_err() {
            return (packets, end);
        }
        assert!(reader.partial_len() < bytes_max.max(LENGTH_END), "it keeps whole packets");
        if rest.is_empty() {
            break;
        }
    }
    (packets, Ok(()))
}

/// A prefix of the first packet asks for more, and for no more than the packet has; or it is
/// refused for the whole packet's reason. The packet is the reader's first. Its encoding equals its
/// bytes if these have the encoder's form.
fn check_first(input: &[u8], bytes_max: usize, read: Option<&Packet>) {
    let whole = rpc::first(input, bytes_max);
    let len = match &whole {
        First::Packet(packet, len) => {
            assert_eq!(read, Some(packet));
            assert!(*len <= bytes_max && *len <= input.len());
            *len
        }
        First::Partial(needed) => {
            assert!(input.len() < *needed && *needed <= bytes_max.max(LENGTH_END));
            input.len()
        }
        First::Bad(_) => input.len(),
    };
    let mut is_refused = false;
    for cut in super::cuts(len) {
        match rpc::first(&input[..cut], bytes_max) {
            First::Partial(needed) => {
                assert!(!is_refused, "refused, and then incomplete at {cut}");
                assert!(cut < needed);
                if let First::Packet(_, len) = whole {
                    assert!(needed <= len);
                }
            }
            First::Bad(error) => {
                assert_eq!(First::Bad(error), whole, "cut at {cut}");
                is_refused = true;
            }
            // A malformed packet may have others behind it; the cuts pass over them, too.
            First::Packet(..) => panic!("a packet in {cut} of its {len} bytes"),
        }
    }
}

/// Publishes a payload and reads it again.
fn check_publish(topic: &[u8], payload: &[u8]) {
    check_payload(payload);
    let Ok(topic) = std::str::from_utf8(topic) else { return };
    let mut out = b"before".to_vec();
    rpc::publish(topic, payload, &mut out);
    let packet = Packet::Publish { topic: topic.into(), payload: payload.into() };
    let len = out.len() - b"before".len();
    assert_eq!(rpc::first(&out[b"before".len()..], len), First::Packet(packet, len));
}

/// Answers and calls are encoded and decoded, alone and several at once.
fn check_payload(payload: &[u8]) {
    let (answers, _) = rpc::answers(payload);
    let written: Vec<String> = answers.iter().map(written_answer).collect();
    for (answer, written) in answers.iter().zip(&written) {
        assert_eq!(rpc::answers(written.as_bytes()), (vec![answer.clone()], 0));
    }
    let batch = format!("[{}]", written.join(","));
    assert_eq!(rpc::answers(batch.as_bytes()), (answers, 0));

    for (id, call) in rpc::calls(payload) {
        let Some(call) = call else { continue };
        // An id that is not a number of ours is answered without one.
        let mut out = Vec::new();
        rpc::answer(id, "null", &mut out);
        let (answers, bad) = rpc::answers(&out);
        assert_eq!((answers.first().map(|answer| answer.id), bad), (id, usize::from(id.is_none())));
        check_call(id.unwrap_or(u64::MAX), &call);
    }
}

fn written_answer(answer: &Answer) -> String {
    let error = if answer.failed { "{\"stack\":\"\"}" } else { "null" };
    let arguments = match &answer.body {
        Some(body) => format!("{error},{body}"),
        None => error.to_owned(),
    };
    let mut out = Vec::new();
    rpc::answer(Some(answer.id), &arguments, &mut out);
    String::from_utf8(out).expect("JSON is text")
}

/// A call from the game decodes with the same names and arguments.
fn check_call(id: u64, call: &Call) {
    let values = call.arguments.iter().map(|text| serde_json::from_str(text).ok());
    // Some JSON has no value here: numbers beyond a double's, and halves of surrogate pairs.
    let Some(arguments) = values.collect::<Option<Vec<Value>>>() else { return };
    let name = format!("chat.{}.{}", call.service, call.method);
    let mut out = Vec::new();
    let has_a_name = |name: &String| !name.is_empty() && !name.contains('.');
    let is_written = rpc::user_call(id, &name, &arguments, &mut out);
    assert_eq!(is_written, [&call.service, &call.method].into_iter().all(has_a_name));
    if !is_written {
        return;
    }
    let (read_id, read) = rpc::calls(&out).pop().expect("one call");
    let read = read.expect("a call that we have written");
    assert_eq!(read_id, Some(id));
    assert_eq!(
        (&*read.namespace, &read.service, &read.method),
        ("user", &call.service, &call.method)
    );
    let values = read.arguments.iter().map(|text| serde_json::from_str(text));
    assert_eq!(values.collect::<Result<Vec<Value>, _>>().expect("our own JSON"), arguments);
}

/// Whatever a client sends, the call that carries it is one call, and its body one JSON value.
fn check_forward(body: &[u8]) {
    let spliced = rpc::spliced(body);
    assert_eq!(rpc::spliced(&spliced), spliced);
    let text = std::str::from_utf8(&spliced).expect("JSON is text");
    assert!(depth(&spliced) <= DEPTH_MAX);
    if spliced.len() > 2 && std::str::from_utf8(body).is_ok() {
        assert_eq!(body, spliced);
    }
    let route = String::from_utf8_lossy(&body[..body.len().min(ROUTE_BYTES_MAX)]);
    for message_id in [0, 1, u32::MAX] {
        let out = rpc::forward(7, message_id, &route, body, SESSION);
        let [(Some(7), Some(call))] = &rpc::calls(&out)[..] else {
            panic!("{:?} is no call", String::from_utf8_lossy(&out))
        };
        let Call { namespace, service, method, arguments } = call;
        assert_eq!((&**namespace, &**service, &**method), ("sys", "msgRemote", "forwardMessage"));
        let [message, session] = &arguments[..] else { panic!("{arguments:?}") };
        assert_eq!(session, SESSION);
        let end = format!(",\"body\":{text},\"compressGzip\":0}}");
        let head = message.strip_suffix(&*end).expect("the body, and nothing behind it");
        let head: Value = serde_json::from_str(&format!("{head}}}")).expect("its head is JSON");
        assert_eq!(head["id"], message_id);
        assert_eq!(head["route"], *route);
    }
}

/// The depth to which JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut depth, mut depth_max, mut bytes) = (0_usize, 0, json.iter());
    let mut is_text = false;
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => _ = bytes.next(),
            b'"' => is_text = !is_text,
            b'[' | b'{' if !is_text => depth += 1,
            b']' | b'}' if !is_text => depth -= 1,
            _ => {}
        }
        depth_max = depth_max.max(depth);
    }
    depth_max
}

const SESSION: &str = r#"{"id":1,"frontendId":"connector-1","uid":null,"settings":{}}"#;
const ROUTE_BYTES_MAX: usize = 255;
/// A bound short enough that a fuzzer's inputs reach it.
const SHORT_BYTES_MAX: usize = 130;
const LONG_BYTES_MAX: usize = 1 << 20;
/// The last byte at which a packet's length can end; a shorter part may be kept whatever the bound.
const LENGTH_END: usize = 5;
