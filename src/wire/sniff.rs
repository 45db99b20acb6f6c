//! Detection of TCP and WebSocket clients by their first bytes.

/// The protocol that the first bytes of a connection suggest.
#[allow(clippy::exhaustive_enums, reason = "one port serves these two; callers match all")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Too few bytes have arrived.
    NeedMore,
    /// Pomelo packages follow, or bytes that [`package::decode`](super::package::decode) refuses.
    Tcp,
    /// An HTTP request follows, or bytes that [`http::decode`](super::http::decode) refuses.
    Http,
}

/// Decides by `prefix`, the bytes that a connection has sent so far.
///
/// A package starts with its type, 1 to 5, and an HTTP request with four printable characters; so a
/// header of an undefined type is not awaited like a request. A request cut within them is still
/// recognised. The stock server compares four bytes of the first read with a list of methods, so it
/// treats a first read of `G` as TCP and closes. Methods outside that list, such as `OPTIONS`, get
/// an HTTP answer here.
///
/// ```
/// use shaddock::wire::sniff::{Sniff, sniff};
///
/// assert_eq!(sniff(b"GET / HTTP/1.1\r\n"), Sniff::Http);
/// assert_eq!(sniff(b"GE"), Sniff::NeedMore);
/// assert_eq!(sniff(&[1, 0, 0, 40]), Sniff::Tcp);
/// ```
#[inline]
#[must_use]
pub fn sniff(prefix: &[u8]) -> Sniff {
    let start = &prefix[..prefix.len().min(PRINTABLE_BYTES)];
    if start.iter().any(|byte| !matches!(byte, 0x20..=0x7e)) {
        Sniff::Tcp
    } else if start.len() == PRINTABLE_BYTES {
        Sniff::Http
    } else {
        Sniff::NeedMore
    }
}

/// The length of the shortest HTTP method with the space behind it, which is also that of a
/// package's header.
const PRINTABLE_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::package::PackageType;

    #[test]
    fn a_request_cut_anywhere_is_http() {
        for request in ["GET / HTTP/1.1", "OPTIONS * HTTP/1.1", "DELETE / HTTP/1.1", "get /"] {
            for cut in 0..=request.len() {
                let expected = if cut < 4 { Sniff::NeedMore } else { Sniff::Http };
                assert_eq!(sniff(&request.as_bytes()[..cut]), expected, "{request}");
            }
        }
    }

    #[test]
    fn a_header_of_an_unknown_type_is_not_taken_for_http() {
        for header in [b" \0\0\0", b"G\0\0\x03", b"\x7f\0\0\0", b"\xc8 x ", b"GET\0"] {
            assert_eq!(sniff(header), Sniff::Tcp);
        }
    }

    #[test]
    fn no_package_type_is_taken_for_http() {
        for byte in (0..=u8::MAX).filter(|&byte| PackageType::from_byte(byte).is_some()) {
            assert_eq!(sniff(&[byte]), Sniff::Tcp);
            assert_eq!(sniff(&[byte, 0, 0, 0]), Sniff::Tcp);
        }
        // A TLS client on a plain port fails the check of the package's type at once.
        assert_eq!(sniff(&[0x16, 3, 1]), Sniff::Tcp);
    }
}
