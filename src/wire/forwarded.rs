//! The client's address as proxies tell it in a header of the request that opens a WebSocket:
//! `X-Forwarded-For`, `X-Real-IP`, and others written alike.

use std::net::{IpAddr, SocketAddr};

/// The client's address by the values of such a header, in the order they were sent.
///
/// Each proxy appends the address that it was connected from, so what stands on the left may be
/// the client's own invention: the list is read from the right, and the first address that is
/// none of a trusted proxy's is the client's. If all are trusted, it is the leftmost.
///
/// An entry that is no address ends the list: nothing to its left can be believed. A port may
/// stand behind an address (`192.0.2.1:4711`, `[2001:db8::1]:4711`); it is 0 where none does.
/// An IPv4 address written as `::ffff:a.b.c.d` is taken for what it is. `None` if there is no
/// address at all.
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

    /// The client of these header lines where 10.0.0.0/8 and ::1 are proxies.
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
