//! TLS as a layer between a socket's bytes and a connection's. It does no I/O, except for reading
//! certificate files.

mod certificate;
mod fault;
mod stream;

pub(crate) use certificate::ServerConfig;
pub use certificate::{Tls, TlsError};
pub use fault::CertificateFault;
pub(crate) use stream::{TlsRead, TlsStream};
