//! The version texts by which a client decides whether its stored tables are current.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

/// Base64 of the MD5 of `parts`, one after the other.
///
/// Pomelo derives both `dictVersion` and the `version` of the schemas this way. Clients keep the
/// text between runs, so the result must be the same as Pomelo's.
pub(crate) fn fingerprint(parts: &[&str]) -> String {
    let mut hash = Md5::new();
    for part in parts {
        hash.update(part.as_bytes());
    }
    STANDARD.encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::fingerprint;

    #[test]
    fn parts_are_hashed_as_one_text() {
        assert_eq!(fingerprint(&["{}"]), "mZFLkyvTelC5g8XnyQrpOw==");
        assert_eq!(fingerprint(&["{", "}"]), fingerprint(&["{}"]));
    }
}
