//! The client's side of TLS.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::{ALL_VERSIONS, ClientConfig, RootCertStore, SupportedProtocolVersion};

/// A client that trusts this certificate alone.
pub fn client_config(certificate: &CertificateDer<'static>) -> Arc<ClientConfig> {
    client_config_of(certificate, ALL_VERSIONS)
}

/// A client that trusts this certificate alone, and speaks these versions.
pub fn client_config_of(
    certificate: &CertificateDer<'static>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Arc::new(config)
}
