//! A listener's certificate and key, read from files.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use super::fault::{self, CertificateFault};
use crate::error::HandleError;
use crate::files::{FILE_BYTES_MAX, read_file};

/// The certificate of a listener and its TLS settings.
///
/// TLS 1.3 and 1.2 are supported, with the cipher suites that rustls considers safe. Clients may
/// resume a session by a ticket for twelve hours, on any shard; the server keeps no state for that.
/// Early data, renegotiation and client certificates are not supported.
///
/// ```no_run
/// use shaddock::{Engine, Listener, Tls};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let tls = Tls::from_files("/etc/game/fullchain.pem", "/etc/game/key.pem")?;
/// let engine = Engine::builder().listen(Listener::new("0.0.0.0:3443").tls(tls)).start()?;
/// // The files have been renewed.
/// engine.handle().reload_certificates()?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tls {
    certificate: PathBuf,
    key: PathBuf,
    /// One key for tickets over all reloads, so that tickets stay valid.
    ticketer: Arc<dyn ProducesTickets>,
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Reads a certificate with its chain, and its key (PKCS #8, PKCS #1 or SEC 1), both as PEM.
    /// One file may hold both.
    ///
    /// # Errors
    /// [`TlsError`] names the file and the fault.
    pub fn from_files(
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Result<Self, TlsError> {
        let (certificate, key) = (certificate.into(), key.into());
        let ticketer = ring::Ticketer::new().map_err(TlsError::Tickets)?;
        let config = read(&certificate, &key, &ticketer)?;
        Ok(Self { certificate, key, ticketer, config })
    }

    /// The configuration from the first read of the files.
    pub(crate) fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The configuration from a new read of the files.
    pub(crate) fn reload(&self) -> Result<Arc<ServerConfig>, TlsError> {
        read(&self.certificate, &self.key, &self.ticketer)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("certificate", &self.certificate)
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// The reasons why a certificate can't be used; the embedder or the operator is at fault.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read, or is not PEM.
    File {
        /// The file.
        path: PathBuf,
        /// The error of reading it.
        error: pem::Error,
    },
    /// There is no certificate in the file.
    NoCertificate(PathBuf),
    /// The certificate or its key can't be used, for a reason that was recognised.
    Unfit {
        /// The file that has to be changed.
        path: PathBuf,
        /// The reason.
        fault: CertificateFault,
    },
    /// The certificate or its key can't be used, for a reason that rustls gives.
    Refused {
        /// The certificate's file.
        path: PathBuf,
        /// The reason.
        error: rustls::Error,
    },
    /// The system provides no random numbers for tickets.
    Tickets(rustls::Error),
    /// The engine did not take the certificates: it has stopped, or a shard is busy. The shards
    /// before that one have taken them.
    Engine(HandleError),
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, error } => write!(f, "`{}`: {error}", path.display()),
            Self::NoCertificate(path) => {
                write!(f, "`{}` holds no certificate in PEM", path.display())
            }
            Self::Unfit { path, fault } => write!(f, "`{}`: {fault}", path.display()),
            Self::Refused { path, error } => {
                write!(f, "the certificate in `{}` can't be used: {error}", path.display())
            }
            Self::Tickets(error) => write!(f, "no keys for TLS tickets: {error}"),
            Self::Engine(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for TlsError {}

impl From<HandleError> for TlsError {
    fn from(error: HandleError) -> Self {
        Self::Engine(error)
    }
}

/// Tickets per full handshake: a game's client opens one connection.
const TICKETS: usize = 1;

fn read(
    certificate: &Path,
    key: &Path,
    ticketer: &Arc<dyn ProducesTickets>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = read_chain(certificate)?;
    let provider = Arc::new(ring::default_provider());
    let refused = |error| TlsError::Refused { path: certificate.to_owned(), error };
    let unfit = |path: &Path, fault| TlsError::Unfit { path: path.to_owned(), fault };
    let key_der = read_key(key)?;
    let signer = provider.key_provider.load_private_key(key_der.clone_key()).map_err(|error| {
        fault::of_unread_key(&chain).map_or_else(|| refused(error), |fault| unfit(key, fault))
    })?;
    let public_key = signer.public_key();
    let fault = public_key.and_then(|public_key| fault::of_chain(&chain, &public_key));
    if let Some(fault) = fault {
        return Err(unfit(certificate, fault));
    }
    // Explicit, as another crate of the process may install another provider.
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key_der))
        .map_err(refused)?;
    config.ticketer = Arc::clone(ticketer);
    config.send_tls13_tickets = TICKETS;
    // Sessions are stored in their tickets; a store would be a lock shared by all shards.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read_pem(path)?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        Ok(chain) => Ok(chain),
        Err(error) => Err(TlsError::File { path: path.to_owned(), error }),
    }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read_pem(path)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| {
        let path = path.to_owned();
        // RFC 7468 section 11, and RFC 1421 section 4.6.1.1 as OpenSSL writes it.
        let is_in = |mark: &[u8]| text.windows(mark.len()).any(|window| window == mark);
        match is_in(b"BEGIN ENCRYPTED PRIVATE KEY") || is_in(b"Proc-Type: 4,ENCRYPTED") {
            true => TlsError::Unfit { path, fault: CertificateFault::EncryptedKey },
            false => TlsError::File { path, error },
        }
    })
}

/// Reads a file without the byte order mark that editors on Windows prepend.
fn read_pem(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut text = read_file(path, FILE_BYTES_MAX)
        .map_err(|error| TlsError::File { path: path.to_owned(), error: pem::Error::Io(error) })?;
    if text.starts_with(BYTE_ORDER_MARK) {
        text.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(text)
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
