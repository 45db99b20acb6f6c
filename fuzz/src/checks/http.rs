//! The request that opens a WebSocket, and the protocol detection in front of it.

use shaddock::wire::http::{self, HttpError, Upgrade, UpgradeStatus};
use shaddock::wire::sniff::{Sniff, sniff};

/// A prefix is incomplete or has the result of the whole. An accepted request is answered as
/// another implementation would, and none of its values can add a line to the answer.
pub fn check(input: &[u8]) {
    for head_bytes_max in [256, 8 * 1024] {
        let whole = http::decode(input, head_bytes_max);
        let mut decided = false;
        for cut in super::cuts(input.len()) {
            let prefix = http::decode(&input[..cut], head_bytes_max);
            if prefix == Ok(UpgradeStatus::Partial) {
                assert!(!decided, "the request became incomplete at {cut}");
                assert!(cut < head_bytes_max);
            } else {
                assert_eq!(prefix, whole, "cut at {cut}");
                decided = true;
            }
            let sniffed = sniff(&input[..cut]);
            assert!(sniffed == Sniff::NeedMore || sniffed == sniff(input));
        }
        match whole {
            Ok(UpgradeStatus::Complete { upgrade, consumed }) => {
                assert!(consumed <= input.len().min(head_bytes_max));
                let more = [input, b"GET"].concat();
                assert_eq!(http::decode(&more, head_bytes_max), whole);
                check_accepted(&upgrade);
            }
            Ok(UpgradeStatus::Partial) => assert!(input.len() < head_bytes_max),
            Err(error) => check_refused(error),
        }
    }
    let is_short = input.len() < 4 && input.iter().all(|byte| matches!(byte, 0x20..=0x7e));
    assert_eq!(sniff(input) == Sniff::NeedMore, is_short);
}

fn check_accepted(upgrade: &Upgrade<'_>) {
    let mut out = Vec::new();
    http::encode_accept(upgrade, &mut out);
    let (mut headers, status) = (response(&out), 101);
    assert_eq!(headers.remove(0), (status.to_string(), String::new()));
    let accept = tungstenite::handshake::derive_accept_key(upgrade.key.as_bytes());
    let mut expected = vec![
        ("Upgrade".to_owned(), "websocket".to_owned()),
        ("Connection".to_owned(), "Upgrade".to_owned()),
        ("Sec-WebSocket-Accept".to_owned(), accept),
    ];
    if let Some(protocol) = upgrade.protocol {
        expected.push(("Sec-WebSocket-Protocol".to_owned(), protocol.to_owned()));
    }
    assert_eq!(headers, expected);
    for (name, _) in upgrade.headers() {
        let name = std::str::from_utf8(name).expect("a header name is ASCII");
        assert!(upgrade.header(&name.to_ascii_uppercase()).is_some());
    }
    assert_eq!(upgrade.header("sec-websocket-key"), Some(upgrade.key.as_bytes()));
}

fn check_refused(error: HttpError) {
    let headers = response(error.response());
    assert_eq!(headers[0].0, error.status().to_string());
    assert!(headers.contains(&("Content-Length".to_owned(), "0".to_owned())));
}

/// The status and the headers of a response that holds nothing else.
fn response(bytes: &[u8]) -> Vec<(String, String)> {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let parsed = response.parse(bytes).expect("the response is HTTP");
    assert_eq!(parsed, httparse::Status::Complete(bytes.len()));
    let code = response.code.expect("it is parsed").to_string();
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("the response is ASCII");
    let headers = response.headers.iter().map(|h| (h.name.to_owned(), text(h.value)));
    std::iter::once((code, String::new())).chain(headers).collect()
}
