//! The one crate that knows rustls and webpki.
//!
//! Other crates ask for a finished acceptor, context or certificate and never see the libraries' builders.
//! Sources: RFC 8446 (TLS 1.3), RFC 5280 (certificates), RFC 7301 (ALPN), and for the contexts of the data plane
//! Envoy's messages in `envoy.extensions.transport_sockets.tls.v3`.
//!
//! - [`server_acceptor`], [`CertificateAuthority`]: for our own API servers on loopback.
//! - [`settings`] → [`ServerContext`], [`ClientContext`]: for the data plane; [`Rotation`] renews them as secrets come.
//! - [`Stream`]: the bytes after a handshake, on either side.
//! - [`ConnectionInfo`]: what a handshake told. [`HandshakeFailure`]: why there was none.
//! - [`client_cert_element`], [`forwarded_client_cert`]: the header `x-forwarded-client-cert`.
//! - [`Inspector`]: reads a ClientHello without answering it.
//!
//! Where the contexts differ from Envoy's, besides what [`settings`] says to refuse: there is no TLS below 1.2, no RSA
//! key exchange, no CBC and no P-521; an authority's own certificate is nobody's peer certificate; a leaf that is not
//! valid now is refused when it is loaded; an SVID has one URI exactly; `require_client_certificate` without anything to
//! verify by is an error, where Envoy would not even ask; a chain has six intermediates at most; of suites of equal
//! preference the first counts.

mod alpn;
mod authority;
mod certificate;
mod client;
mod client_hello;
mod configuration;
mod connection;
mod distinguished_name;
mod forwarded;
mod handshake;
pub mod limits;
mod parameters;
mod pem;
mod refusal;
mod rotation;
mod server;
pub mod settings;
mod signing;
mod stream;
mod verification;

pub use authority::{CertificateAuthority, Issued};
pub use tokio_rustls::TlsAcceptor;

pub use certificate::Certificate;
pub use client::{ClientContext, ClientStream, ConnectOptions};
pub use client_hello::{ClientHello, Inspected, Inspector, inspect};
pub use configuration::server_acceptor;
pub use connection::{ConnectionInfo, PeerCertificates, PeerValidation};
pub use forwarded::{ClientCertDetails, ForwardClientCert, client_cert_element, forwarded_client_cert};
pub use handshake::HandshakeFailure;
pub use pem::{Identity, read_certificates};
pub use refusal::ContextError;
pub use rotation::{ContextSettings, Current, Rotation, Step};
pub use server::{ServerContext, ServerStream};
pub use settings::Awaited;
pub use stream::Stream;
pub use verification::VerificationFailure;

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
