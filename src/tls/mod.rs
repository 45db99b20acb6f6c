//! TLS, as a layer between a socket's bytes and a connection's own. No I/O, but for the files that
//! hold certificates.

mod certificate;
mod fault;
mod stream;

pub(crate) use certificate::ServerConfig;
pub use certificate::{Tls, TlsError};
pub use fault::CertificateFault;
pub(crate) use stream::{TlsRead, TlsStream};
