//! The address of a server, with the transport to reach it by.

use std::net::IpAddr;
use std::{error, fmt};

/// An address as [`Client::connect`](super::Client::connect) takes it, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// A name or an IP address, without brackets.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_tls: bool,
    /// The path and query of a WebSocket; `None` for plain packages.
    pub(super) path: Option<String>,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("tcp", text));
        let (is_tls, default_port, is_websocket) = match scheme {
            "tcp" => (false, None, false),
            "tls" => (true, None, false),
            "ws" => (false, Some(80), true),
            "wss" => (true, Some(443), true),
            _ => return Err(AddressError::Scheme),
        };
        let path_at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(path_at);
        if !is_websocket && !path.is_empty() {
            return Err(AddressError::Path);
        }
        // The path becomes part of a line of HTTP.
        if !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(AddressError::Path);
        }
        let (host, port) = host_and_port(authority)?;
        let port = port.or(default_port).ok_or(AddressError::Port)?;
        let slash = if path.starts_with('/') { "" } else { "/" };
        let path = is_websocket.then(|| format!("{slash}{path}"));
        Ok(Self { host: host.to_owned(), port, is_tls, path })
    }

    /// The `Host` of an HTTP request.
    pub(super) fn host_header(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// The host as an IP address, if it is one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn host_and_port(authority: &str) -> Result<(&str, Option<u16>), AddressError> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::Host)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| AddressError::Host)?;
            match rest {
                "" => (host, None),
                rest => (host, Some(rest.strip_prefix(':').ok_or(AddressError::Port)?)),
            }
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_host) {
        return Err(AddressError::Host);
    }
    let port = port.map(|port| port.parse().map_err(|_| AddressError::Port)).transpose()?;
    Ok((host, port))
}

/// The reasons why a text is no address of a server; the program is at fault.
#[non_exhaustive]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressError {
    /// The scheme is none of `tcp`, `tls`, `ws`, `wss`.
    Scheme,
    /// The host is missing, or neither a name nor an IP address. An IPv6 address needs brackets.
    Host,
    /// The port is missing or not a number up to 65,535. `ws` has 80 and `wss` 443 by default.
    Port,
    /// A path behind an address that is not a WebSocket's, or one with spaces, a fragment or
    /// characters beyond ASCII, which have to be percent-encoded.
    Path,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Scheme => "the address begins with none of tcp://, tls://, ws:// and wss://",
            Self::Host => "the address has no host; write HOST:PORT, with an IPv6 host in brackets",
            Self::Port => "the address has no port; write HOST:PORT",
            Self::Path => "the address has a path that can't be; only ws:// and wss:// have one",
        })
    }
}

impl error::Error for AddressError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> (String, u16, bool, Option<String>) {
        let Address { host, port, is_tls, path } = Address::parse(text).expect(text);
        (host, port, is_tls, path)
    }

    #[test]
    fn each_scheme_has_its_transport() {
        let path = |path: &str| Some(path.to_owned());
        for (text, host, port, is_tls, path) in [
            ("127.0.0.1:3010", "127.0.0.1", 3010, false, None),
            ("tcp://game.example:1", "game.example", 1, false, None),
            ("[::1]:3010", "::1", 3010, false, None),
            ("tls://game.example:3011", "game.example", 3011, true, None),
            ("ws://localhost", "localhost", 80, false, path("/")),
            ("ws://[::1]:3010/a/b?c=d", "::1", 3010, false, path("/a/b?c=d")),
            ("wss://game.example", "game.example", 443, true, path("/")),
            ("wss://game.example:7?x", "game.example", 7, true, path("/?x")),
        ] {
            assert_eq!(parsed(text), (host.to_owned(), port, is_tls, path), "{text}");
        }
        assert_eq!(Address::parse("ws://[::1]:3/").unwrap().host_header(), "[::1]:3");
    }

    #[test]
    fn a_text_that_is_no_address_says_what_is_missing() {
        for (text, error) in [
            ("http://a:1", AddressError::Scheme),
            ("", AddressError::Host),
            (":3010", AddressError::Host),
            ("ws:///path", AddressError::Host),
            ("[::1", AddressError::Host),
            ("[a]:1", AddressError::Host),
            ("a b:1", AddressError::Host),
            ("a\r\nb:1", AddressError::Host),
            ("a", AddressError::Port),
            ("a:", AddressError::Port),
            ("a:65536", AddressError::Port),
            ("::1:3010", AddressError::Host),
            ("a:1/path", AddressError::Path),
            ("ws://a:1/b c", AddressError::Path),
            ("ws://a:1/\r\nX: y", AddressError::Path),
        ] {
            assert_eq!(Address::parse(text), Err(error), "{text:?}");
        }
    }
}
