//! The one crate that knows rustls and rcgen.
//!
//! Other crates ask for a finished acceptor or certificate and never see the libraries' builders.
//! Sources: RFC 8446 (TLS 1.3), RFC 5280 (certificates), RFC 7301 (ALPN).

mod authority;
mod configuration;

pub use authority::{CertificateAuthority, Issued};
pub use tokio_rustls::TlsAcceptor;

pub use configuration::server_acceptor;

/// What the certificates and configurations of this crate may fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate or key could not be made, or a stored one could not be read back.
    #[error("certificate")]
    Certificate(#[from] rcgen::Error),
    /// PEM text holds no certificate or key, or is damaged.
    #[error("PEM: {0}")]
    Pem(String),
    /// rustls refuses the certificate, the key or the combination of both.
    #[error("TLS configuration")]
    Configuration(#[from] rustls::Error),
}
