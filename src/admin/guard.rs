//! Rules for who may ask, and who may change things.

use std::net::SocketAddr;

use super::http::{Method, Request, Response};
use super::options::AdminOptions;

/// The way in which a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    /// By the Unix socket, which only its owner reaches.
    Unix,
    /// By TCP, on this address.
    Tcp(SocketAddr),
}

/// A request that is refused, by what is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Host,
    Origin,
    NoToken,
    Token,
}

impl Refusal {
    pub(super) fn response(self) -> Response {
        match self {
            Self::Host => Response::error(
                421,
                "the header Host names another server; ask by the server's address, or add the \
                 name to `admin.hosts`",
            ),
            Self::Origin => Response::error(403, "pages of other origins may change nothing"),
            Self::NoToken => Response::error(
                403,
                "nothing can be changed by TCP, nor a recording read, as there is no \
                 `admin.token`; set one, or use the Unix socket",
            ),
            Self::Token => Response::error(
                401,
                "send the header Authorization: Bearer, with the token in `admin.token`",
            )
            .with_header("WWW-Authenticate", "Bearer"),
        }
    }
}

/// Checks that a request may be answered.
pub(super) fn check(options: &AdminOptions, from: From, request: &Request) -> Result<(), Refusal> {
    let From::Tcp(address) = from else { return Ok(()) };
    let host = request.host.as_deref().unwrap_or_default();
    if !is_own_host(options, address, host) {
        return Err(Refusal::Host);
    }
    // A recording shows what players have written.
    let is_read = matches!(request.path.first(), Some(first) if first == "recordings")
        && request.path.len() > 1;
    if !matches!(request.method, Method::Post | Method::Delete) && !is_read {
        return Ok(());
    }
    // Browsers send it with each POST of a page, whatever the page does (CSRF).
    if let Some(origin) = &request.origin {
        let (_, of) = origin.split_once("://").unwrap_or_default();
        if !of.eq_ignore_ascii_case(host) {
            return Err(Refusal::Origin);
        }
    }
    // The page's token is known on this machine only, and good there only.
    let of_page = options.page.token.as_ref().filter(|_| is_local(from));
    if options.token.is_none() && of_page.is_none() {
        return Err(Refusal::NoToken);
    }
    let given = request.authorization.as_deref().unwrap_or_default();
    let (scheme, given) = given.split_once(' ').unwrap_or_default();
    let is_given = |token: &String| is_same(token.as_bytes(), given.trim().as_bytes());
    let is_right = options.token.iter().chain(of_page).any(is_given);
    match scheme.eq_ignore_ascii_case("bearer") && is_right {
        true => Ok(()),
        false => Err(Refusal::Token),
    }
}

/// True if a request has come by TCP over the loopback interface: nobody else reaches its
/// addresses.
pub(super) fn is_local(from: From) -> bool {
    matches!(from, From::Tcp(address) if address.ip().to_canonical().is_loopback())
}

/// True if a `Host` is this server: an attacker's page, whose name leads here for a while, says the
/// name. Addresses are as the client has reached them.
fn is_own_host(options: &AdminOptions, address: SocketAddr, host: &str) -> bool {
    let port = address.port();
    let own = ["localhost", "127.0.0.1", "[::1]"];
    let is_own = |name: &&str| {
        let with_port = format!("{name}:{port}");
        host.eq_ignore_ascii_case(&with_port) || port == 80 && host.eq_ignore_ascii_case(name)
    };
    let canonical = SocketAddr::new(address.ip().to_canonical(), port);
    own.iter().any(is_own)
        || host == canonical.to_string()
        || port == 80 && host == canonical.ip().to_string()
        || options.hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(host))
}

/// Compares in a time that tells nothing of where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let differs = one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b));
    std::hint::black_box(differs) == 0
}

#[cfg(test)]
mod tests {
    use super::super::http::Parsed;
    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn request(method: &str, lines: &str) -> Request {
        let text = format!("{method} /drain HTTP/1.1\r\n{lines}\r\n");
        match Request::parse(text.as_bytes()) {
            Parsed::Complete(request) => request,
            other => panic!("{other:?}"),
        }
    }

    fn checked(options: &AdminOptions, method: &str, lines: &str) -> Result<(), Refusal> {
        let from = From::Tcp("10.0.0.5:3011".parse().unwrap());
        check(options, from, &request(method, lines))
    }

    #[test]
    fn a_page_of_another_name_gets_nothing() {
        let options = AdminOptions::new().hosts(["ops.example:3011"]);
        for host in
            ["localhost:3011", "127.0.0.1:3011", "[::1]:3011", "10.0.0.5:3011", "OPS.example:3011"]
        {
            assert_eq!(checked(&options, "GET", &format!("Host: {host}\r\n")), Ok(()), "{host}");
        }
        for host in ["evil.example:3011", "localhost", "localhost:3012", "10.0.0.6:3011", ""] {
            let outcome = checked(&options, "GET", &format!("Host: {host}\r\n"));
            assert_eq!(outcome, Err(Refusal::Host), "{host}");
        }
        assert_eq!(checked(&options, "GET", ""), Err(Refusal::Host));
    }

    #[test]
    fn recordings_are_read_with_the_token() {
        let options = AdminOptions::new().token(TOKEN);
        let from = From::Tcp("10.0.0.5:3011".parse().unwrap());
        let good = format!("Authorization: Bearer {TOKEN}\r\n");
        for (method, path, lines, expected) in [
            ("GET", "/recordings", "", Ok(())),
            ("GET", "/recordings/1.txt", "", Err(Refusal::Token)),
            ("HEAD", "//recordings//1.pcapng", "", Err(Refusal::Token)),
            ("DELETE", "/recordings/1", "", Err(Refusal::Token)),
            ("GET", "/recordings/1.txt", &*good, Ok(())),
            ("DELETE", "/recordings/1", &good, Ok(())),
        ] {
            let text = format!("{method} {path} HTTP/1.1\r\nHost: localhost:3011\r\n{lines}\r\n");
            let Parsed::Complete(request) = Request::parse(text.as_bytes()) else {
                panic!("{text}")
            };
            assert_eq!(check(&options, from, &request), expected, "{text}");
        }
    }

    #[test]
    fn who_changes_things_has_the_token_and_is_no_foreign_page() {
        let options = AdminOptions::new().token(TOKEN);
        let post =
            |lines: &str| checked(&options, "POST", &format!("Host: localhost:3011\r\n{lines}"));
        let good = format!("Authorization: Bearer {TOKEN}\r\n");
        assert_eq!(post(&good), Ok(()));
        assert_eq!(post(&format!("{good}Origin: http://localhost:3011\r\n")), Ok(()));
        for origin in ["http://evil.example", "null", "http://localhost:3012", "localhost:3011"] {
            let outcome = post(&format!("{good}Origin: {origin}\r\n"));
            assert_eq!(outcome, Err(Refusal::Origin), "{origin}");
        }
        for given in ["", "Bearer", "Bearer 0123456789abcdeg", "Basic 0123456789abcdef", TOKEN] {
            let outcome = post(&format!("Authorization: {given}\r\n"));
            assert_eq!(outcome, Err(Refusal::Token), "{given}");
        }
        let open = checked(&AdminOptions::new(), "POST", "Host: localhost:3011\r\n");
        assert_eq!(open, Err(Refusal::NoToken));
        assert_eq!(check(&AdminOptions::new(), From::Unix, &request("POST", "")), Ok(()));
    }

    #[test]
    fn the_token_of_the_page_is_good_on_this_machine_only() {
        let mut options = AdminOptions::new();
        options.page.token = Some(TOKEN.into());
        let good = format!("Host: localhost:3011\r\nAuthorization: Bearer {TOKEN}\r\n");
        let asked = |from: &str, lines: &str| {
            check(&options, From::Tcp(from.parse().unwrap()), &request("POST", lines))
        };
        for address in ["127.0.0.1:3011", "[::1]:3011", "[::ffff:127.0.0.1]:3011"] {
            assert_eq!(asked(address, &good), Ok(()), "{address}");
        }
        assert_eq!(asked("10.0.0.5:3011", &good), Err(Refusal::NoToken));
        assert_eq!(asked("127.0.0.1:3011", "Host: localhost:3011\r\n"), Err(Refusal::Token));
        let foreign = format!("{good}Origin: http://evil.example\r\n");
        assert_eq!(asked("127.0.0.1:3011", &foreign), Err(Refusal::Origin));
        let rebound = good.replace("localhost", "evil.example");
        assert_eq!(asked("127.0.0.1:3011", &rebound), Err(Refusal::Host));
    }
}
