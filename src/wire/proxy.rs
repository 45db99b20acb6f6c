//! The PROXY protocol, versions 1 and 2: a header in which a load balancer states the client's
//! address in front of the client's own bytes.
//!
//! The specification is HAProxy's `proxy-protocol.txt`, quoted where it decides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use super::package::Status;

/// The longest header accepted, in bytes; a longer one is [`ProxyError::TooLong`]. The addresses
/// need at most 232; the rest is for balancers' own additions.
pub const HEADER_BYTES_MAX: usize = 4096;

/// The content of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyHeader {
    /// The client's address. `None` if the balancer connects for itself (a health check), or the
    /// client has no IP address; then the connection's own address counts.
    pub source: Option<SocketAddr>,
}

/// Decodes the header at the start of `input`, which may still grow.
///
/// ```text
/// version 1:  PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010 \r \n
///
/// version 2:  | \r \n \r \n \0 \r \n Q U I T \n | version, command | family, transport |
///             | length, 2 bytes | source address | destination | source port | its port | more |
/// ```
///
/// Bytes behind the addresses in version 2 are skipped. Both versions are accepted, as their first
/// bytes differ.
///
/// ```
/// use shaddock::wire::package::Status;
/// use shaddock::wire::proxy;
///
/// let input = b"PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010\r\n\x01\0\0\x02";
/// let Status::Complete { value, consumed } = proxy::decode(input)? else { panic!() };
/// assert_eq!(value.source, Some("203.0.113.7:56324".parse().unwrap()));
/// assert_eq!(input[consumed..], [1, 0, 0, 2]);
///
/// let (source, destination) = (value.source.unwrap(), "192.0.2.1:3010".parse().unwrap());
/// let mut header = Vec::new();
/// proxy::encode(source, destination, &mut header);
/// let Status::Complete { value: same, .. } = proxy::decode(&header)? else { panic!() };
/// assert_eq!(same, value);
/// # Ok::<(), proxy::ProxyError>(())
/// ```
///
/// # Errors
/// [`ProxyError`]; the sender is at fault. "The receiver MUST NOT try to guess whether the protocol
/// header is present or not", so bytes that are not a header are an error too.
pub fn decode(input: &[u8]) -> Result<Status<ProxyHeader>, ProxyError> {
    match input.first() {
        None => Ok(Status::Partial { needed: 1 }),
        Some(&byte) if byte == V2_SIGNATURE[0] => decode_v2(input),
        Some(_) => decode_v1(input),
    }
}

/// Appends a header of version 2 for a TCP connection, as a balancer would.
///
/// If the families differ, both addresses are written as IPv6.
pub fn encode(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    out.extend_from_slice(&V2_SIGNATURE);
    out.push(V2_VERSION << 4 | V2_COMMAND_PROXY);
    if let (IpAddr::V4(from), IpAddr::V4(to)) = (source.ip(), destination.ip()) {
        out.push(FAMILY_TCP4);
        out.extend_from_slice(&(TCP4_BYTES as u16).to_be_bytes());
        out.extend_from_slice(&from.octets());
        out.extend_from_slice(&to.octets());
    } else {
        out.push(FAMILY_TCP6);
        out.extend_from_slice(&(TCP6_BYTES as u16).to_be_bytes());
        for address in [source.ip(), destination.ip()] {
            let address = match address {
                IpAddr::V4(address) => address.to_ipv6_mapped(),
                IpAddr::V6(address) => address,
            };
            out.extend_from_slice(&address.octets());
        }
    }
    out.extend_from_slice(&source.port().to_be_bytes());
    out.extend_from_slice(&destination.port().to_be_bytes());
}

/// The reasons why bytes are not a header; the sender is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProxyError {
    /// The bytes begin like neither version.
    NotProxy,
    /// A header of version 1 that breaks its syntax.
    Malformed,
    /// A version, command or family that the specification does not define, or too few bytes for
    /// the addresses.
    Unknown,
    /// More than 107 bytes in version 1, or more than [`HEADER_BYTES_MAX`] in version 2.
    TooLong,
}

impl fmt::Display for ProxyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotProxy => "no PROXY header",
            Self::Malformed => "malformed PROXY header",
            Self::Unknown => "unknown kind of PROXY header",
            Self::TooLong => "PROXY header too long",
        })
    }
}

impl std::error::Error for ProxyError {}

/// Decodes version 1: "a 107-byte buffer is always enough to store all the line and a trailing
/// zero", the line's end included.
fn decode_v1(input: &[u8]) -> Result<Status<ProxyHeader>, ProxyError> {
    let known = input.len().min(V1_PREFIX.len());
    if input[..known] != V1_PREFIX[..known] {
        return Err(ProxyError::NotProxy);
    }
    let head = &input[..input.len().min(V1_BYTES_MAX)];
    let Some(end) = head.windows(2).position(|pair| pair == b"\r\n") else {
        return match head.len() {
            V1_BYTES_MAX => Err(ProxyError::TooLong),
            len => Ok(Status::Partial { needed: len + 1 }),
        };
    };
    let line = std::str::from_utf8(&head[V1_PREFIX.len().min(end)..end]);
    let source = line.ok().and_then(v1_source).ok_or(ProxyError::Malformed)?;
    Ok(Status::Complete { value: ProxyHeader { source }, consumed: end + 2 })
}

/// The source in the text behind `PROXY `; `None` if that is malformed.
fn v1_source(text: &str) -> Option<Option<SocketAddr>> {
    // "the receiver must ignore anything presented before the CRLF is found".
    if text == "UNKNOWN" || text.starts_with("UNKNOWN ") {
        return Some(None);
    }
    let mut parts = text.split(' ');
    let family = parts.next()?;
    let (source, destination) = (parts.next()?, parts.next()?);
    let (port, _) = (v1_port(parts.next()?)?, v1_port(parts.next()?)?);
    if parts.next().is_some() {
        return None;
    }
    let source = match family {
        "TCP4" => IpAddr::V4(both::<Ipv4Addr>(source, destination)?),
        "TCP6" => IpAddr::V6(both::<Ipv6Addr>(source, destination)?),
        _ => return None,
    };
    Some(Some(SocketAddr::new(source, port)))
}

/// The first of two addresses of one family, if both are valid.
fn both<A: FromStr>(source: &str, destination: &str) -> Option<A> {
    destination.parse::<A>().ok()?;
    source.parse().ok()
}

/// Reads a port "in decimal and without leading zeroes".
fn v1_port(text: &str) -> Option<u16> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    if is_plain && !is_padded { text.parse().ok() } else { None }
}

fn decode_v2(input: &[u8]) -> Result<Status<ProxyHeader>, ProxyError> {
    let known = input.len().min(V2_SIGNATURE.len());
    if input[..known] != V2_SIGNATURE[..known] {
        return Err(ProxyError::NotProxy);
    }
    let Some((head, rest)) = input.split_at_checked(V2_HEAD_BYTES) else {
        return Ok(Status::Partial { needed: V2_HEAD_BYTES });
    };
    let (command, family) = (head[12], head[13]);
    // "values other than 0x2 ... must be rejected"; "Receivers must drop connections presenting
    // unexpected values here".
    if command >> 4 != V2_VERSION || command & 0xf > V2_COMMAND_PROXY {
        return Err(ProxyError::Unknown);
    }
    if family >> 4 > FAMILY_MAX || family & 0xf > TRANSPORT_MAX {
        return Err(ProxyError::Unknown);
    }
    let len = usize::from(u16::from_be_bytes([head[14], head[15]]));
    let needed = V2_HEAD_BYTES + len;
    if needed > HEADER_BYTES_MAX {
        return Err(ProxyError::TooLong);
    }
    let is_told = command & 0xf == V2_COMMAND_PROXY;
    let addresses_len = match family {
        FAMILY_TCP4 if is_told => TCP4_BYTES,
        FAMILY_TCP6 if is_told => TCP6_BYTES,
        // "the receiver must accept this connection as valid and must use the real connection
        // endpoints"; the same holds for a family or transport other than these.
        _ => 0,
    };
    if len < addresses_len {
        return Err(ProxyError::Unknown);
    }
    let Some(addresses) = rest.get(..len) else { return Ok(Status::Partial { needed }) };
    let source = v2_source(&addresses[..addresses_len]);
    Ok(Status::Complete { value: ProxyHeader { source }, consumed: needed })
}

/// The source in the addresses of version 2, whose length gives the family.
fn v2_source(addresses: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| u16::from_be_bytes([addresses[at], addresses[at + 1]]);
    match addresses.len() {
        TCP4_BYTES => {
            let octets: [u8; 4] = *addresses.first_chunk()?;
            Some(SocketAddr::new(octets.into(), port(8)))
        }
        TCP6_BYTES => {
            let octets: [u8; 16] = *addresses.first_chunk()?;
            Some(SocketAddr::new(octets.into(), port(32)))
        }
        _ => None,
    }
}

const V1_PREFIX: &[u8] = b"PROXY ";
/// The longest line with its end. The zero that the specification counts is not sent.
const V1_BYTES_MAX: usize = 107;

const V2_SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD_BYTES: usize = 16;
const V2_VERSION: u8 = 2;
const V2_COMMAND_PROXY: u8 = 1;
const FAMILY_TCP4: u8 = 0x11;
const FAMILY_TCP6: u8 = 0x21;
/// Unspecified, IPv4, IPv6, Unix.
const FAMILY_MAX: u8 = 3;
/// Unspecified, stream, datagram.
const TRANSPORT_MAX: u8 = 2;
const TCP4_BYTES: usize = 12;
const TCP6_BYTES: usize = 36;

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(source: Option<&str>, consumed: usize) -> Result<Status<ProxyHeader>, ProxyError> {
        let source = source.map(|source| source.parse().unwrap());
        Ok(Status::Complete { value: ProxyHeader { source }, consumed })
    }

    /// Decodes, and checks that every way to cut the input gives the same result.
    fn outcome(input: &[u8]) -> Result<Status<ProxyHeader>, ProxyError> {
        let whole = decode(input);
        for cut in 0..input.len() {
            match decode(&input[..cut]) {
                Ok(Status::Partial { needed }) => assert!(needed > cut, "{needed} at {cut}"),
                other => assert_eq!(other, whole, "cut at {cut}"),
            }
        }
        let more = [input, b"\x01\0\0\0"].concat();
        if let Ok(Status::Complete { .. }) = whole {
            assert_eq!(decode(&more), whole);
        }
        whole
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let len = u16::try_from(body.len()).unwrap().to_be_bytes();
        [&V2_SIGNATURE[..], &[command, family], &len, body].concat()
    }

    #[test]
    fn version_1_tells_the_source() {
        for (line, source) in [
            ("PROXY TCP4 203.0.113.7 192.0.2.1 56324 3010\r\n", Some("203.0.113.7:56324")),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n",
                Some("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::1 ::1 1 3010\r\n", Some("[2001:db8::1]:1")),
            ("PROXY UNKNOWN\r\n", None),
            ("PROXY UNKNOWN what ever stands here\r\n", None),
        ] {
            assert_eq!(outcome(line.as_bytes()), complete(source, line.len()), "{line}");
        }
    }

    #[test]
    fn version_1_is_read_strictly() {
        for line in [
            "PROXY \r\n",
            "PROXY TCP4\r\n",
            "PROXY TCP5 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n",
            "PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 -\r\n",
            "PROXY TCP4 1.2.3.4 ::1 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3 1.2.3.4 1 2\r\n",
            "PROXY tcp4 1.2.3.4 1.2.3.4 1 2\r\n",
        ] {
            assert_eq!(outcome(line.as_bytes()), Err(ProxyError::Malformed), "{line}");
        }
        assert_eq!(outcome(b"PROXY \xff\r\n"), Err(ProxyError::Malformed));
    }

    #[test]
    fn a_line_without_end_is_not_waited_for() {
        let line = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert_eq!(outcome(line.as_bytes()), Err(ProxyError::TooLong));
        assert_eq!(decode(&line.as_bytes()[..106]), Ok(Status::Partial { needed: 107 }));
        let longest = format!("PROXY UNKNOWN {}\r\n", "x".repeat(107 - 16));
        assert_eq!(outcome(longest.as_bytes()), complete(None, 107));
    }

    #[test]
    fn other_bytes_show_at_the_first_that_proves_it() {
        for input in [&b"\x01\0\0\0"[..], b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"proxy "] {
            assert_eq!(outcome(input), Err(ProxyError::NotProxy));
            assert_eq!(decode(&input[..1]), Err(ProxyError::NotProxy));
        }
        assert_eq!(decode(b"PROXX"), Err(ProxyError::NotProxy));
        assert_eq!(decode(b"\r\n\r\n\r"), Err(ProxyError::NotProxy));
    }

    #[test]
    fn version_2_tells_the_source_and_skips_what_follows() {
        let tcp4 = [203, 0, 113, 7, 192, 0, 2, 1, 0xdc, 4, 0x0b, 0xc2];
        let input = v2(0x21, FAMILY_TCP4, &tcp4);
        assert_eq!(outcome(&input), complete(Some("203.0.113.7:56324"), 28));
        let input = v2(0x21, FAMILY_TCP4, &[&tcp4[..], b"\x04\0\x02ab"].concat());
        assert_eq!(outcome(&input), complete(Some("203.0.113.7:56324"), 33));
        let mut tcp6 = [0; TCP6_BYTES];
        tcp6[15] = 1;
        tcp6[33] = 9;
        assert_eq!(outcome(&v2(0x21, FAMILY_TCP6, &tcp6)), complete(Some("[::1]:9"), 52));
    }

    #[test]
    fn a_balancer_that_speaks_for_itself_names_nobody() {
        for (command, family, len) in [
            (0x20, 0, 0),
            (0x20, FAMILY_TCP4, 12),
            (0x20, FAMILY_TCP4, 3),
            (0x21, 0, 0),
            (0x21, 0x12, 12),
            (0x21, 0x31, 216),
        ] {
            let input = v2(command, family, &vec![7; len]);
            assert_eq!(outcome(&input), complete(None, V2_HEAD_BYTES + len));
        }
    }

    #[test]
    fn version_2_refuses_what_it_does_not_know() {
        for (command, family, len) in [
            (0x11, FAMILY_TCP4, 12),
            (0x31, FAMILY_TCP4, 12),
            (0x22, FAMILY_TCP4, 12),
            (0x21, 0x41, 12),
            (0x21, 0x13, 12),
            (0x21, FAMILY_TCP4, 11),
            (0x21, FAMILY_TCP6, 12),
        ] {
            let input = v2(command, family, &vec![0; len]);
            assert_eq!(outcome(&input), Err(ProxyError::Unknown), "{command:x} {family:x} {len}");
        }
        let fits = v2(0x21, 0, &vec![0; HEADER_BYTES_MAX - V2_HEAD_BYTES]);
        assert_eq!(outcome(&fits), complete(None, HEADER_BYTES_MAX));
        let long = v2(0x21, 0, &vec![0; HEADER_BYTES_MAX - V2_HEAD_BYTES + 1]);
        assert_eq!(outcome(&long), Err(ProxyError::TooLong));
    }

    #[test]
    fn what_is_encoded_is_decoded() {
        for (source, destination, bytes, read) in [
            ("1.2.3.4:5", "6.7.8.9:10", 28, "1.2.3.4:5"),
            ("[2001:db8::1]:5", "[::1]:10", 52, "[2001:db8::1]:5"),
            ("1.2.3.4:5", "[::1]:10", 52, "[::ffff:1.2.3.4]:5"),
        ] {
            let mut out = Vec::new();
            encode(source.parse().unwrap(), destination.parse().unwrap(), &mut out);
            assert_eq!(outcome(&out), complete(Some(read), bytes));
        }
    }
}
