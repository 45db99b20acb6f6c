//! Input from Pitaya's clients: messages whose bodies may be compressed, handshakes, and the errors
//! made from any body.

use shaddock::wire::message::{self, Message, MessageType, RouteRef};
use shaddock::wire::pitaya::{
    self, COMPRESSED_BIT, CompressedError, Deflater, Error, InflateError, Inflater, Serializer,
};

/// A message that can be inflated is the same message without its bit and with a body within the
/// bound; a smaller bound refuses it. The input as a body survives compression, makes an error that
/// reads back, and is accepted or refused as a handshake.
pub fn check(input: &[u8]) {
    check_inflate(input);
    check_round_trip(input);
    check_error(input);
    if let Some(request) = pitaya::handshake::parse(input) {
        assert!(request.message["sys"].is_object());
    }
}

fn check_inflate(input: &[u8]) {
    let (mut inflater, mut out) = (Inflater::default(), b"before".to_vec());
    let outcome = pitaya::inflate_message(input, BODY_BYTES_MAX, &mut inflater, &mut out);
    assert!(out.starts_with(b"before"));
    assert!(out.len() <= 6 + input.len() + BODY_BYTES_MAX + 1, "{} bytes", out.len());
    match (outcome, message::decode(input)) {
        (Err(CompressedError::Message(error)), whole) => assert_eq!(whole, Err(error)),
        (Err(_), whole) => assert!(whole.is_ok()),
        (Ok(()), whole) => {
            let whole = whole.expect("its head is good");
            let plain = message::decode(&out[6..]).expect("its head is the same");
            assert_eq!(plain, Message { body: plain.body, gzip: false, ..whole });
            assert!(plain.body.len() <= BODY_BYTES_MAX);
            if let Some(less) = plain.body.len().checked_sub(1) {
                let mut again = Vec::new();
                let outcome = pitaya::inflate_message(input, less, &mut inflater, &mut again);
                assert_eq!(outcome, Err(CompressedError::Body(InflateError::TooLong)));
            }
        }
    }
}

fn check_round_trip(body: &[u8]) {
    let mut short = Vec::new();
    if !Deflater::default().deflate(body, &mut short) {
        assert!(short.is_empty());
        return;
    }
    assert!(short.len() < body.len());
    let (kind, route) = (MessageType::Request, Some(RouteRef::Code(7)));
    let mut out = Vec::new();
    message::encode(&Message { id: 1, kind, route, body: &short, gzip: true }, &mut out)
        .expect("its route is a code");
    assert!(pitaya::is_compressed(&out));
    let mut plain = Vec::new();
    pitaya::inflate_message(&out, body.len(), &mut Inflater::default(), &mut plain)
        .expect("it was made here");
    assert_eq!((plain[0], &plain[4..]), (out[0] & !COMPRESSED_BIT, body));
}

fn check_error(body: &[u8]) {
    let error = Error::from_body(body);
    assert!(!error.code.is_empty());
    let (mut json, mut protobuf) = (Vec::new(), Vec::new());
    error.encode(Serializer::Json, &mut json);
    error.encode(Serializer::Protobuf, &mut protobuf);
    assert_eq!(Error::from_body(&json), error, "it is one already");
    assert_eq!((protobuf[0], protobuf.is_empty()), (0x0a, false));
}

/// The largest body, small enough that a fuzzer reaches it.
const BODY_BYTES_MAX: usize = 4096;
