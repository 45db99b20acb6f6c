//! TLS between a client's socket and its protocol.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::sync::Arc;
use std::{error, fmt};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::error::Closed;

/// The certificates that a client trusts.
///
/// # Examples
/// ```no_run
/// use shaddock::client::{Options, Trust};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// // Those of the system: this is their place on Debian and Ubuntu.
/// let trust = Trust::pem(&std::fs::read("/etc/ssl/certs/ca-certificates.crt")?)?;
/// let client = Options::new().trust(trust).connect("wss://game.example").await?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the certificates in a text of PEM: those of authorities, or a server's own that
    /// signed itself.
    ///
    /// # Errors
    /// [`TrustError`] if the text is no PEM, or has no certificate that can be trusted.
    pub fn pem(certificates: &[u8]) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(certificates) {
            // The system's list may have some that nobody can read.
            let _ = roots.add(certificate.map_err(|_| TrustError)?);
        }
        if roots.is_empty() {
            return Err(TrustError);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|_| TrustError)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }
}

/// Trusts as the configuration says, which may have certificates of the client as well.
impl From<Arc<ClientConfig>> for Trust {
    fn from(config: Arc<ClientConfig>) -> Self {
        Self(config)
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").finish_non_exhaustive()
    }
}

/// A text without a certificate that can be trusted; the program is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustError;

impl fmt::Display for TrustError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the text has no certificate in PEM that can be trusted")
    }
}

impl error::Error for TrustError {}

/// The client's side of TLS on one connection.
pub(super) struct Tls(Box<ClientConnection>);

impl Tls {
    pub(super) fn new(trust: &Trust, host: &str) -> Result<Self, Closed> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| Closed::Tls(error.to_string()))?;
        let connection = ClientConnection::new(Arc::clone(&trust.0), name).map_err(told)?;
        Ok(Self(Box::new(connection)))
    }

    /// Decrypts `input` and hands its content to `plain`, piece by piece.
    pub(super) fn receive(
        &mut self,
        mut input: &[u8],
        mut plain: impl FnMut(&[u8]),
    ) -> Result<(), Closed> {
        let mut buffer = [0; 16 * 1024];
        while !input.is_empty() {
            self.0.read_tls(&mut input).map_err(|error| Closed::Tls(error.to_string()))?;
            self.0.process_new_packets().map_err(told)?;
            loop {
                match self.0.reader().read(&mut buffer) {
                    // The server has said that it sends no more.
                    Ok(0) => return Err(Closed::ByServer),
                    Ok(len) => plain(&buffer[..len]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(Closed::Tls(error.to_string())),
                }
            }
        }
        Ok(())
    }

    /// Encrypts as much of `plain` as there is room for, and gives its length.
    pub(super) fn send(&mut self, plain: &[u8]) -> usize {
        if self.0.is_handshaking() {
            return 0;
        }
        // A writer into memory does not fail.
        self.0.writer().write(plain).unwrap_or(0)
    }

    pub(super) fn wants_write(&self) -> bool {
        self.0.wants_write()
    }

    pub(super) fn write(&mut self, socket: &mut impl io::Write) -> io::Result<usize> {
        self.0.write_tls(socket)
    }

    /// Tells the server that nothing more comes.
    pub(super) fn end(&mut self) {
        self.0.send_close_notify();
    }
}

fn told(error: rustls::Error) -> Closed {
    Closed::Tls(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_is_no_trust() {
        for text in
            ["", "certificate", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
        {
            assert_eq!(Trust::pem(text.as_bytes()).unwrap_err(), TrustError, "{text}");
        }
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        assert!(Trust::pem(made.cert.pem().as_bytes()).is_ok());
    }
}
