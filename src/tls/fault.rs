//! Diagnosis of a certificate or key that can't be used.

use std::fmt;

use rustls::pki_types::CertificateDer;

/// The reasons why a certificate or its key can't be used. The text says what to change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateFault {
    /// The key is encrypted.
    EncryptedKey,
    /// An X.509 certificate of version 1 or 2, which clients refuse.
    Version(u8),
    /// An RSA key that is too short, or longer than implementations accept.
    RsaBits(usize),
    /// A key on the curve P-521, or on an unknown curve.
    Curve,
    /// The key belongs to another certificate of the chain than the first; its position is counted
    /// from 1.
    NotFirst(usize),
    /// The key belongs to none of the certificates.
    OtherKey,
}

impl fmt::Display for CertificateFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EncryptedKey => f.write_str(
                "the key is encrypted, and the server can't ask for its password; decrypt it with \
                 `openssl pkey -in KEY -out NEW`",
            ),
            Self::Version(version) => write!(
                f,
                "the certificate is of X.509 version {version}, which clients refuse; get one of \
                 version 3, with the server's name as a subjectAltName"
            ),
            Self::RsaBits(bits) => write!(
                f,
                "the RSA key has {bits} bits and must have 2048 to 8192; a key on the curve P-256 \
                 is better"
            ),
            Self::Curve => {
                f.write_str("the key must be on the curve P-256 or P-384, be Ed25519, or be RSA")
            }
            Self::NotFirst(position) => write!(
                f,
                "the key belongs to certificate {position} of the file; put the server's own \
                 certificate first, then its issuers up to the root"
            ),
            Self::OtherKey => f.write_str(
                "the key belongs to none of the certificates; check which files belong together",
            ),
        }
    }
}

/// The fault of a chain whose key could not be read.
pub(super) fn of_unread_key(chain: &[CertificateDer<'_>]) -> Option<CertificateFault> {
    chain.iter().find_map(|certificate| Parts::of(certificate)?.key_fault())
}

/// The fault of a chain with this key.
pub(super) fn of_chain(chain: &[CertificateDer<'_>], key: &[u8]) -> Option<CertificateFault> {
    let first = Parts::of(chain.first()?)?;
    if first.version < 3 {
        return Some(CertificateFault::Version(first.version));
    }
    let is_its = |certificate: &CertificateDer<'_>| {
        Parts::of(certificate).is_some_and(|parts| parts.key == key)
    };
    match chain.iter().position(is_its) {
        Some(0) => None,
        Some(position) => Some(CertificateFault::NotFirst(position + 1)),
        None => Some(CertificateFault::OtherKey),
    }
}

/// The parts of a certificate (RFC 5280, section 4.1) that the diagnosis needs.
struct Parts<'a> {
    version: u8,
    /// The whole SubjectPublicKeyInfo.
    key: &'a [u8],
}

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OBJECT: u8 = 0x06;
/// `[0] EXPLICIT Version`, which version 1 omits.
const VERSION: u8 = 0xa0;
/// 1.2.840.113549.1.1.1
const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
/// 1.2.840.10045.2.1, and its curves P-256 and P-384.
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];

impl<'a> Parts<'a> {
    fn of(certificate: &'a CertificateDer<'_>) -> Option<Self> {
        let mut outer = Der(certificate);
        let mut signed = Der(Der(outer.take(SEQUENCE)?).take(SEQUENCE)?);
        let version = match signed.take(VERSION) {
            Some(version) => Der(version).take(INTEGER)?.last()?.saturating_add(1),
            None => 1,
        };
        // Serial number, signature's algorithm, issuer, validity, subject.
        signed.take(INTEGER)?;
        for _ in 0..4 {
            signed.take(SEQUENCE)?;
        }
        let rest = signed.0;
        signed.take(SEQUENCE)?;
        Some(Self { version, key: &rest[..rest.len() - signed.0.len()] })
    }

    /// The fault of the key's kind or size.
    fn key_fault(&self) -> Option<CertificateFault> {
        let mut info = Der(Der(self.key).take(SEQUENCE)?);
        let mut algorithm = Der(info.take(SEQUENCE)?);
        match algorithm.take(OBJECT)? {
            RSA => {
                // Behind the number of unused bits, which is 0.
                let key = info.take(BIT_STRING)?.get(1..)?;
                let modulus = Der(Der(key).take(SEQUENCE)?).take(INTEGER)?;
                let zeros = modulus.iter().take_while(|byte| **byte == 0).count();
                let leading = modulus.get(zeros)?.leading_zeros() as usize;
                let bits = (modulus.len() - zeros) * 8 - leading;
                (!(2048..=8192).contains(&bits)).then_some(CertificateFault::RsaBits(bits))
            }
            EC => match algorithm.take(OBJECT) {
                Some(P256 | P384) => None,
                _ => Some(CertificateFault::Curve),
            },
            _ => None,
        }
    }
}

/// The rest of some DER (X.690, section 8.1).
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Takes the content of the next value if it has this tag; otherwise takes nothing.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let [first, len, rest @ ..] = self.0 else { return None };
        if *first != tag {
            return None;
        }
        let (len, rest) = match *len {
            short @ ..0x80 => (usize::from(short), rest),
            long => {
                let (digits, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
                if digits.len() > 4 {
                    return None;
                }
                let len = digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit));
                (len, rest)
            }
        };
        let (content, rest) = rest.split_at_checked(len)?;
        self.0 = rest;
        Some(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_taken_apart_and_never_past_the_end() {
        let mut der = Der(&[0x02, 0x01, 0x07, 0x30, 0x82, 0x00, 0x01, 0xff]);
        assert_eq!(der.take(SEQUENCE), None);
        assert_eq!(der.take(INTEGER), Some(&[7][..]));
        assert_eq!(der.take(SEQUENCE), Some(&[0xff][..]));
        assert_eq!(der.take(INTEGER), None);
        for cut in [&[0x30][..], &[0x30, 1], &[0x30, 0x82, 1], &[0x30, 0x85, 0, 0, 0, 0, 0]] {
            assert_eq!(Der(cut).take(SEQUENCE), None, "{cut:x?}");
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let whole = made.cert.der();
        let parts = Parts::of(whole).unwrap();
        assert_eq!((parts.version, parts.key_fault()), (3, None));
        for len in 0..whole.len() {
            assert!(Parts::of(&CertificateDer::from(&whole[..len])).is_none(), "{len}");
        }
    }
}
