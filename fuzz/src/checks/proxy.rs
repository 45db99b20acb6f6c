//! The client's address from a proxy: the PROXY header, and the list in an HTTP header.

use std::net::IpAddr;

use shaddock::wire::forwarded::client_address;
use shaddock::wire::package::Status;
use shaddock::wire::proxy::{self, HEADER_BYTES_MAX};

/// A prefix of a header is incomplete or has the result of the whole, and asks for no more than the
/// whole takes. A decoded source encodes and decodes to itself.
pub fn check(input: &[u8]) {
    let whole = proxy::decode(input);
    let len = match whole {
        Ok(Status::Complete { consumed, .. }) => consumed,
        Ok(Status::Partial { needed }) => needed,
        Err(_) => HEADER_BYTES_MAX,
    };
    assert!(len <= HEADER_BYTES_MAX);
    let mut is_decided = false;
    for cut in super::cuts(input.len()) {
        match proxy::decode(&input[..cut]) {
            Ok(Status::Partial { needed }) => {
                assert!(!is_decided, "the header became incomplete at {cut}");
                assert!(cut < needed && needed <= len);
            }
            other => {
                assert_eq!(other, whole, "cut at {cut}");
                is_decided = true;
            }
        }
    }
    if let Ok(Status::Complete { value, consumed }) = whole {
        assert!(consumed <= input.len());
        if let Some(source) = value.source {
            let mut out = Vec::new();
            proxy::encode(source, source, &mut out);
            let again = Status::Complete { value, consumed: out.len() };
            assert_eq!(proxy::decode(&out), Ok(again));
        }
    }
    check_list(input);
}

/// A decoded address stands in the list; without trusted proxies it is the last one.
fn check_list(input: &[u8]) {
    let values = || input.split(|&byte| byte == b'\n');
    let last = client_address(values(), |_| false);
    let first = client_address(values(), |_| true);
    assert_eq!(last.is_some(), first.is_some());
    let Some(last) = last else { return };
    let trusts_all_but_last = |address: IpAddr| address != last.ip();
    assert_eq!(client_address(values(), trusts_all_but_last), Some(last));
    assert_eq!(last.ip().to_canonical(), last.ip());
}
