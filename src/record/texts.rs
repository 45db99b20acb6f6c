//! Texts that are secret by their form, whatever the name of the member that they stand in.

use std::ops::ControlFlow;

/// Bytes of a name that are looked at.
const NAME_BYTES_MAX: usize = 64;
/// Bytes of a URL that are searched for a login.
const LOGIN_BYTES_MAX: usize = 256;
/// Bytes from which on a word is taken for credentials or for a token's part.
const CREDENTIAL_BYTES_MIN: usize = 8;

/// True if a text has a secret in it: the credentials of a scheme (`Bearer …`, `Basic …`), a JSON
/// Web Token, a private key, a URL with a login, or a parameter or header line (`token=…`,
/// `Cookie: …`) with a name that `is_secret_name` takes for a secret's. The text may be cut off.
pub(super) fn are_secret(text: &[u8], mut is_secret_name: impl FnMut(&[u8]) -> bool) -> bool {
    let found = text.iter().enumerate().try_for_each(|(at, byte)| {
        let is_secret = match byte {
            b' ' => is_scheme(&text[..at]) && is_credential(&text[at + 1..]),
            b'e' => is_token(&text[at..]),
            b'-' => text[at..].starts_with(b"-----BEGIN ") && is_key(&text[at..]),
            b'=' | b':' => {
                let rest = &text[at + 1..];
                *byte == b':' && rest.starts_with(b"//") && has_login(&rest[2..])
                    || !rest.trim_ascii().is_empty() && is_secret_name(name_before(text, at))
            }
            _ => false,
        };
        if is_secret { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    found.is_break()
}

fn is_scheme(before: &[u8]) -> bool {
    let word = &before[before.len().saturating_sub(6)..];
    let has = |scheme: &[u8]| {
        let at = word.len().checked_sub(scheme.len());
        at.is_some_and(|at| word[at..].eq_ignore_ascii_case(scheme))
    };
    has(b"bearer") || has(b"basic")
}

fn is_credential(rest: &[u8]) -> bool {
    let is_of_one = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(byte);
    let len = rest.iter().take(CREDENTIAL_BYTES_MIN).take_while(is_of_one).count();
    len == CREDENTIAL_BYTES_MIN || len > 0 && len == rest.len()
}

/// The head of a JSON Web Token is an object, whose base64 begins with `eyJ`.
fn is_token(text: &[u8]) -> bool {
    let Some(rest) = text.strip_prefix(b"eyJ") else { return false };
    let is_of_one = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_".contains(byte);
    let len = rest.iter().take(CREDENTIAL_BYTES_MIN).take_while(is_of_one).count();
    len == CREDENTIAL_BYTES_MIN || len == rest.len()
}

fn is_key(text: &[u8]) -> bool {
    let line = &text[..text.len().min(NAME_BYTES_MAX)];
    line.windows(11).any(|word| word == b"PRIVATE KEY") || line.len() < NAME_BYTES_MAX
}

/// True if what stands behind `://` begins with `user:password@`, or is cut off within it.
fn has_login(rest: &[u8]) -> bool {
    let is_end = |byte: &u8| b"/?# \"'".contains(byte);
    let host = &rest[..rest.len().min(LOGIN_BYTES_MAX)];
    let host = &host[..host.iter().position(is_end).unwrap_or(host.len())];
    if host.contains(&b'@') || host.len() == LOGIN_BYTES_MAX {
        return true;
    }
    // A port has digits alone.
    let port = host.iter().rposition(|byte| *byte == b':').map(|at| &host[at + 1..]);
    let is_ipv6 = host.first() == Some(&b'[');
    !is_ipv6 && port.is_some_and(|port| !port.iter().all(u8::is_ascii_digit))
}

/// The name that ends before a place.
fn name_before(text: &[u8], at: usize) -> &[u8] {
    let before = &text[at.saturating_sub(NAME_BYTES_MAX)..at];
    let is_of_one = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-.[]%".contains(byte);
    let start = before.iter().rposition(|byte| !is_of_one(byte)).map_or(0, |place| place + 1);
    &before[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_secret(text: &str) -> bool {
        are_secret(text.as_bytes(), |name| name.ends_with(b"token") || name == b"Cookie")
    }

    #[test]
    fn forms_of_secrets_are_known() {
        for text in [
            "Bearer abcdefgh",
            "Authorization: basic YW15OnB3",
            "see eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x",
            "-----BEGIN RSA PRIVATE KEY-----",
            "mongodb://amy:pw@db:27017/a",
            "https://amy@example.com",
            "a=1&token=x",
            "Cookie: a",
            "a\nx-token:x",
        ] {
            assert!(is_secret(text), "{text}");
        }
        for text in [
            "",
            "the bearer of news",
            "basic",
            "token=",
            "a token",
            "https://example.com:80",
            "http://[::1]:80/",
            "https://example.com/@amy",
            "-----BEGIN CERTIFICATE-----\nMIIBszCCAVmgAwIBAgIUYJ8l0mN3Xy5u1x7bq2m3xqk3",
            "=",
            ":",
        ] {
            assert!(!is_secret(text), "{text}");
        }
    }

    #[test]
    fn what_is_cut_off_is_known_by_what_is_there() {
        for text in ["Bearer ab", "https://amy:p", "x eyJhb", "-----BEGIN PRIV", "token=h"] {
            assert!(is_secret(text), "{text}");
        }
    }
}
