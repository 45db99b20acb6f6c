//! The addresses of NATS's servers.

/// The address of a server, as configured or as another server has told it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NatsAddress {
    /// A name or an IP address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// True if the connection is to be encrypted.
    pub(crate) has_tls: bool,
    /// User and password that stand in the address; a token is a user without password.
    pub(crate) login: Option<(String, Option<String>)>,
}

/// NATS's own port.
const PORT: u16 = 4222;

impl NatsAddress {
    /// Reads `nats://host:port`, `tls://host:port` or `host:port`, each perhaps with a login.
    /// `None` if it is none of these.
    pub(crate) fn parse(address: &str) -> Option<Self> {
        let (scheme, rest) = address.split_once("://").unwrap_or(("nats", address));
        let has_tls = match scheme {
            "nats" => false,
            "tls" => true,
            _ => return None,
        };
        // The path means nothing to NATS.
        let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
        let (login, place) = match authority.rsplit_once('@') {
            Some((login, place)) => (Some(login), place),
            None => (None, authority),
        };
        let authority: http::uri::Authority = place.parse().ok()?;
        let has_port =
            place.ends_with(|last: char| last.is_ascii_digit()) && authority.port().is_some();
        let port = if has_port { authority.port_u16()? } else { PORT };
        if !has_port && place.len() != authority.host().len() {
            return None;
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let login = login.map(|login| match login.split_once(':') {
            Some((user, password)) => (unescaped(user), Some(unescaped(password))),
            None => (unescaped(login), None),
        });
        (!host.is_empty()).then_some(Self { host, port, has_tls, login })
    }
}

/// Text of an address, where `%` and two digits stand for a byte.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).filter(|_| *first == b'%');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = &tail[if byte.is_some() { 2 } else { 0 }..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(host: &str, port: u16) -> NatsAddress {
        NatsAddress { host: host.into(), port, has_tls: false, login: None }
    }

    #[test]
    fn addresses_are_read_as_nats_writes_them() {
        let login = |user: &str, password: Option<&str>| {
            Some((user.to_owned(), password.map(str::to_owned)))
        };
        for (text, wanted) in [
            ("nats://h:1", address("h", 1)),
            ("h", address("h", 4222)),
            ("h:1/", address("h", 1)),
            ("nats://[::1]:7", address("::1", 7)),
            ("[::1]", address("::1", 4222)),
            ("tls://h:1", NatsAddress { has_tls: true, ..address("h", 1) }),
            (
                "nats://amy:p%40ss@h:1",
                NatsAddress { login: login("amy", Some("p@ss")), ..address("h", 1) },
            ),
            ("nats://t0ken@h:1", NatsAddress { login: login("t0ken", None), ..address("h", 1) }),
        ] {
            assert_eq!(NatsAddress::parse(text), Some(wanted), "{text}");
        }
        for bad in ["", "ftp://h:1", "nats://", "h:70000", "h:x", "h:", "[::1", "a b:1"] {
            assert_eq!(NatsAddress::parse(bad), None, "{bad}");
        }
    }
}
