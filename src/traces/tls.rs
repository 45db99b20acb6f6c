//! TLS towards the collector.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::files::{FILE_BYTES_MAX, read_file};

/// Reads the certificates of authorities from a file in PEM.
///
/// # Errors
/// What is wrong with it.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read_file(path, FILE_BYTES_MAX).map_err(|error| error.to_string())?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| error.to_string())?;
    if all.is_empty() {
        return Err("no certificate in PEM".to_owned());
    }
    let mut roots = RootCertStore::empty();
    for authority in &all {
        roots.add(authority.clone()).map_err(|error| error.to_string())?;
    }
    Ok(all)
}

/// The configuration that trusts these authorities alone, or those that the system trusts.
pub(super) fn config(authorities: Option<&[CertificateDer<'static>]>) -> TlsConfig {
    let certificate = |it: &CertificateDer<'static>| Certificate::from_der(it).to_owned();
    let roots: RootCerts = match authorities {
        Some(authorities) => authorities.iter().map(certificate).into(),
        // Those that can't be used are left out, as everywhere.
        None => rustls_native_certs::load_native_certs().certs.iter().map(certificate).into(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    TlsConfig::builder().root_certs(roots).unversioned_rustls_crypto_provider(provider).build()
}
