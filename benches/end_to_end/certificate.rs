//! The certificate of the servers that speak TLS.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::common::report;

/// A certificate in the folder of build results, where servers find it, too.
pub(crate) struct Certificate {
    folder: PathBuf,
}

/// The name that clients ask for.
pub(crate) const NAME: &str = "localhost";

impl Certificate {
    /// Signs one anew.
    pub(crate) fn create() -> io::Result<Self> {
        let certificate = Self::open();
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]);
        let made = made.map_err(io::Error::other)?;
        std::fs::create_dir_all(&certificate.folder)?;
        std::fs::write(certificate.chain_path(), made.cert.pem())?;
        std::fs::write(certificate.key_path(), made.signing_key.serialize_pem())?;
        Ok(certificate)
    }

    /// The one that this program has made before it started its servers.
    pub(crate) fn open() -> Self {
        Self { folder: PathBuf::from(report::target()).join("end_to_end_tls") }
    }

    pub(crate) fn chain_path(&self) -> PathBuf {
        self.folder.join("cert.pem")
    }

    pub(crate) fn key_path(&self) -> PathBuf {
        self.folder.join("key.pem")
    }

    pub(crate) fn read(
        &self,
    ) -> io::Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let chain = CertificateDer::from_pem_file(self.chain_path()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_file(self.key_path()).map_err(io::Error::other)?;
        Ok((vec![chain], key))
    }

    /// The settings of a client that trusts this certificate alone, and resumes no session.
    pub(crate) fn client(&self) -> io::Result<Arc<ClientConfig>> {
        let mut roots = RootCertStore::empty();
        for certificate in self.read()?.0 {
            roots.add(certificate).map_err(io::Error::other)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider);
        let config = config.with_safe_default_protocol_versions().map_err(io::Error::other)?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.resumption = Resumption::disabled();
        Ok(Arc::new(config))
    }
}
