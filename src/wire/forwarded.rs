//! The client's address from a header by which proxies pass it on in a WebSocket upgrade request:
//! `X-Forwarded-For`, `X-Real-IP`, and others of the same form.

use std::net::{IpAddr, SocketAddr};

/// The client's address from the values of such a header, in the order sent.
///
/// Each proxy appends the address that it was connected from, so entries on the left may be the
/// client's own invention. The list is therefore read from the right, and the first address that is
/// not a trusted proxy's is the client's. If all are trusted, the leftmost is.
///
/// An entry that is not an address ends the list, as nothing to its left can be believed. An
/// address may have a port (`192.0.2.1:4711`, `[2001:db8::1]:4711`); without one the port is 0. An
/// IPv4 address written as `::ffff:a.b.c.d` is returned as IPv4. `None` if there is no address.
///
/// ```
/// use shaddock::wire::forwarded::client_address;
///
/// let trusted = |address: std::net::IpAddr| address.is_loopback();
/// let values = [&b"10.9.9.9, 203.0.113.7"[..], b"127.0.0.2"];
/// let client = client_address(values.into_iter(), trusted);
/// assert_eq!(client, Some("203.0.113.7:0".parse().unwrap()));
/// ```
pub fn client_address<'a>(
    values: impl DoubleEndedIterator<Item = &'a [u8]>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<SocketAddr> {
    let mut client = None;
    for entry in values.rev().flat_map(|value| value.rsplit(|&byte| byte == b',')) {
        let Some(address) = entry_address(entry.trim_ascii()) else { break };
        client = Some(address);
        if !is_trusted(address.ip()) {
            break;
        }
    }
    client
}

fn entry_address(entry: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(entry).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = match bare.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, 0),
        Err(_) => text.parse().ok()?,
    };
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The client's address in these header lines, where 10.0.0.0/8 and ::1 are proxies.
    fn client(values: &[&str]) -> Option<String> {
        let is_trusted = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets()[0] == 10,
            IpAddr::V6(address) => address.is_loopback(),
        };
        let client = client_address(values.iter().map(|value| value.as_bytes()), is_trusted);
        client.map(|client| client.to_string())
    }

    #[test]
    fn the_rightmost_address_that_is_not_trusted_is_the_clients() {
        for (values, expected) in [
            (&["203.0.113.7"][..], "203.0.113.7:0"),
            (&["1.1.1.1, 203.0.113.7"], "203.0.113.7:0"),
            (&["1.1.1.1,203.0.113.7 ,10.0.0.1,::1"], "203.0.113.7:0"),
            (&["1.1.1.1, 2.2.2.2", "203.0.113.7", "10.0.0.1, 10.0.0.2"], "203.0.113.7:0"),
            (&["10.0.0.1, 10.0.0.2"], "10.0.0.1:0"),
            (&["2001:db8::1"], "[2001:db8::1]:0"),
            (&["::ffff:203.0.113.7"], "203.0.113.7:0"),
            (&["::ffff:10.0.0.1"], "10.0.0.1:0"),
        ] {
            assert_eq!(client(values).as_deref(), Some(expected), "{values:?}");
        }
    }

    #[test]
    fn ports_and_brackets_are_understood() {
        for (value, expected) in [
            ("203.0.113.7:4711", "203.0.113.7:4711"),
            ("[2001:db8::1]:4711", "[2001:db8::1]:4711"),
            ("[2001:db8::1]", "[2001:db8::1]:0"),
            ("[::ffff:203.0.113.7]:1", "203.0.113.7:1"),
        ] {
            assert_eq!(client(&[value]).as_deref(), Some(expected));
        }
    }

    #[test]
    fn what_stands_left_of_an_unreadable_entry_is_not_believed() {
        assert_eq!(client(&["1.1.1.1, unknown, 10.0.0.1"]).as_deref(), Some("10.0.0.1:0"));
        for value in ["", " ", "unknown", "203.0.113.7,", "203.0.113.7, x", "1.2.3", "\u{e9}", "[1"]
        {
            assert_eq!(client(&[value]), None, "{value}");
        }
        assert_eq!(client(&[]), None);
    }
}
