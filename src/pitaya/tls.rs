//! TLS towards the servers that a cluster stands on.

use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::files::{FILE_BYTES_MAX, read_file};

/// TLS towards NATS or etcd: whom to trust there, and a certificate of one's own.
///
/// Files are in PEM, and read again for each connection.
///
/// ```
/// use shaddock::{ClusterTls, PitayaCluster};
///
/// let tls = ClusterTls::new()
///     .ca_file("/etc/shaddock/ca.pem")
///     .certificate_files("/etc/shaddock/client.pem", "/etc/shaddock/client.key");
/// let cluster = PitayaCluster::new(["tls://nats-1:4222"], ["https://etcd-1:2379"])
///     .nats_tls(tls.clone())
///     .etcd_tls(tls);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "it is given to `PitayaCluster::nats_tls` or `etcd_tls`"]
pub struct ClusterTls {
    ca: Option<PathBuf>,
    certificate: Option<(PathBuf, PathBuf)>,
}

/// A file that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadFile {
    path: PathBuf,
    why: String,
}

impl std::fmt::Display for BadFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.why)
    }
}

impl std::error::Error for BadFile {}

impl BadFile {
    fn new(path: &Path, why: impl std::fmt::Display) -> Self {
        Self { path: path.to_owned(), why: why.to_string() }
    }
}

/// The content of the files, in PEM.
pub(crate) struct Pem {
    pub(crate) ca: Option<Vec<u8>>,
    pub(crate) certificate: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClusterTls {
    /// Trusts the authorities that the system trusts, and shows no certificate.
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities of a file, and no others.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca = Some(path.into());
        self
    }

    /// Shows a certificate, with its chain, by its private key.
    pub fn certificate_files(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.certificate = Some((certificate.into(), key.into()));
        self
    }

    /// Reads the files.
    ///
    /// # Errors
    /// The first one that can't be read.
    pub(crate) fn read(&self) -> Result<Pem, BadFile> {
        let read = |path: &PathBuf| {
            read_file(path, FILE_BYTES_MAX).map_err(|error| BadFile::new(path, error))
        };
        let certificate = match &self.certificate {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Pem { ca: self.ca.as_ref().map(read).transpose()?, certificate })
    }

    /// The configuration of a connection, of the files as they are now.
    ///
    /// # Errors
    /// The first file that can't be read, or is none of its kind.
    pub(crate) fn client_config(&self) -> Result<ClientConfig, BadFile> {
        let Pem { ca, certificate } = self.read()?;
        let mut roots = RootCertStore::empty();
        match self.ca.as_ref().zip(ca) {
            Some((path, pem)) => {
                for root in certificates(path, &pem)? {
                    roots.add(root).map_err(|error| BadFile::new(path, error))?;
                }
            }
            // Those that can't be used are left out, as everywhere.
            None => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = rustls::crypto::ring::default_provider().into();
        let versions =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = versions.map_err(|error| BadFile::new(Path::new(""), error))?;
        let config = config.with_root_certificates(roots);
        let files = self.certificate.as_ref().zip(certificate);
        let Some(((certificate_path, key_path), (chain, key))) = files else {
            return Ok(config.with_no_client_auth());
        };
        let chain = certificates(certificate_path, &chain)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| BadFile::new(key_path, "no private key in PEM, without a passphrase"))?;
        let config = config.with_client_auth_cert(chain, key);
        config.map_err(|error| BadFile::new(certificate_path, error))
    }
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadFile> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let certificates = certificates.map_err(|error| BadFile::new(path, error))?;
    if certificates.is_empty() {
        return Err(BadFile::new(path, "no certificate in PEM"));
    }
    Ok(certificates)
}
