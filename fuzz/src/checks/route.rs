//! The dictionary and the default route.

use serde_json::{Map, Value};
use shaddock::route::{Dictionary, default_route};

/// Each line is a route: a handler's, or one of the user's list if it starts with `+`. The whole
/// input is also a uid.
pub fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (user, handlers): (Vec<&str>, Vec<&str>) =
        text.lines().partition(|line| line.starts_with('+'));
    let user = user.iter().map(|line| &line[1..]);
    let lines = text.lines().count();
    match Dictionary::new(handlers, user) {
        Ok(dictionary) => check_dictionary(&dictionary, lines),
        Err(_) => assert!(lines > usize::from(u16::MAX)),
    }
    check_default_route(&text);
}

/// The codes count up from 1 and lead to a route and back. Both tables are JSON that another server
/// can import with the same version.
fn check_dictionary(dictionary: &Dictionary, lines: usize) {
    let codes: Vec<u16> = dictionary.iter().map(|(code, _)| code).collect();
    assert!(codes.iter().map(|&code| usize::from(code)).eq(1..=lines));
    let by_code: Map<String, Value> =
        serde_json::from_str(dictionary.code_to_route_json()).expect("the table is JSON");
    let by_route: Map<String, Value> =
        serde_json::from_str(dictionary.route_to_code_json()).expect("the table is JSON");
    assert_eq!((by_code.len(), by_route.len()), (codes.len(), dictionary.len()));
    for (code, route) in dictionary.iter() {
        assert_eq!(dictionary.route(code), Some(route));
        let last = dictionary.code(route).expect("a listed route has a code");
        assert!(last >= code);
        assert_eq!(dictionary.route(last), Some(route));
        assert_eq!(by_route[route], last);
        assert_eq!(by_code[&code.to_string()], route);
    }
    let entries = by_route.iter().map(|(route, code)| {
        let code = code.as_u64().and_then(|code| u32::try_from(code).ok());
        (route.as_str(), code.expect("a code is a number"))
    });
    let imported = Dictionary::from_map(entries).expect("the table contradicts nothing");
    assert_eq!(imported.version(), dictionary.version());
    assert_eq!(imported.route_to_code_json(), dictionary.route_to_code_json());
}

/// The index is the checksum modulo the number of servers.
fn check_default_route(uid: &str) {
    assert_eq!(default_route(uid, 0), None);
    let checksum = crc32(uid.encode_utf16().map(|unit| unit as u8)).cast_signed().unsigned_abs();
    for servers in [1, 2, 3, 16, 1000] {
        assert_eq!(default_route(uid, servers), Some(checksum as usize % servers));
    }
}

/// CRC-32, bit by bit.
fn crc32(bytes: impl Iterator<Item = u8>) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| bit(crc)))
}
