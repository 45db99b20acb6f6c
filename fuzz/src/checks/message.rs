//! One message: decode, encode, decode again, and every prefix.

use shaddock::wire::message::{self, Message, MessageError, MessageType};

/// A message that decodes survives the round trip. A prefix is truncated, or the same message with
/// less body, or refused for the same reason.
pub fn check(input: &[u8]) {
    let whole = message::decode(input);
    if let Ok(message) = whole {
        check_round_trip(input, &message);
    }
    for cut in super::cuts(input.len()) {
        let prefix = message::decode(&input[..cut]);
        match (prefix, whole) {
            (Err(MessageError::Empty), _) => assert_eq!(cut, 0),
            (Err(MessageError::Truncated), Ok(message)) => {
                assert!(cut < input.len() - message.body.len(), "the head was there at {cut}");
            }
            (Err(MessageError::Truncated), Err(_)) => {}
            (Ok(prefix), Ok(message)) => {
                let body_len = cut + message.body.len() - input.len();
                assert_eq!(prefix, Message { body: &message.body[..body_len], ..message });
            }
            (prefix, whole) => assert_eq!(prefix, whole, "cut at {cut}"),
        }
    }
}

fn check_round_trip(input: &[u8], message: &Message<'_>) {
    assert_eq!(message.route.is_none(), message.kind == MessageType::Response);
    assert!(input.ends_with(message.body));
    let mut encoded = Vec::new();
    message::encode(message, &mut encoded).expect("a decoded message can be sent");
    assert_eq!(message::decode(&encoded), Ok(*message));
    // Only a request id may have been encoded longer than necessary.
    assert!(encoded.len() <= input.len());
    if let Some(route) = message.route
        && message.kind == MessageType::Push
    {
        let mut head = Vec::new();
        message::encode_push_head(&route, &mut head).expect("a decoded route can be sent");
        assert_eq!(head.len(), message::push_head_len(&route));
    }
    if message.kind == MessageType::Response && !message.gzip {
        let mut head = Vec::new();
        message::encode_response_head(message.id, &mut head);
        assert_eq!(head.len(), message::response_head_len(message.id));
        assert_eq!(encoded, [&head, message.body].concat());
    }
}
