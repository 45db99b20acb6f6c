//! Tells a raw TCP client from an HTTP one by its first byte.

/// What the first bytes of a connection look like.
#[allow(clippy::exhaustive_enums, reason = "one port serves these two; callers match all")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniff {
    /// Nothing has arrived yet.
    NeedMore,
    /// Pomelo packages follow, or bytes that [`package::decode`](super::package::decode) refuses.
    Tcp,
    /// An HTTP request follows, or bytes that [`http::decode`](super::http::decode) refuses.
    Http,
}

/// Decides by `prefix`, the bytes a connection has sent so far.
///
/// A package starts with its type, 1 to 5; an HTTP method starts with a printable character. One
/// byte is therefore enough, and a request cut after it is still recognised; the stock server
/// compares four bytes of the first read with a list of methods, takes a first read of `G` for TCP
/// and closes. Methods outside that list, such as `OPTIONS`, get an HTTP answer here.
#[inline]
#[must_use]
pub const fn sniff(prefix: &[u8]) -> Sniff {
    match prefix.first() {
        None => Sniff::NeedMore,
        Some(0x20..) => Sniff::Http,
        Some(_) => Sniff::Tcp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::package::PackageType;

    #[test]
    fn a_request_cut_anywhere_is_http() {
        assert_eq!(sniff(b""), Sniff::NeedMore);
        for request in ["GET / HTTP/1.1", "OPTIONS * HTTP/1.1", "DELETE / HTTP/1.1", "get"] {
            for cut in 1..=request.len() {
                assert_eq!(sniff(&request.as_bytes()[..cut]), Sniff::Http, "{request}");
            }
        }
    }

    #[test]
    fn no_package_type_is_taken_for_http() {
        for byte in (0..=u8::MAX).filter(|&byte| PackageType::from_byte(byte).is_some()) {
            assert_eq!(sniff(&[byte]), Sniff::Tcp);
            assert_eq!(sniff(&[byte, 0, 0, 0]), Sniff::Tcp);
        }
        // A TLS client on a plain port fails the package type check at once.
        assert_eq!(sniff(&[0x16, 3, 1]), Sniff::Tcp);
    }
}
