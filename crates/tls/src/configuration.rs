//! rustls configurations: always aws-lc-rs, TLS 1.2 and 1.3, no session resumption across restarts.

use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::Error;

/// An acceptor that presents `certificate_chain_pem` and offers the application protocols `alpn`, best first
/// (`h2`, `http/1.1`). Clients are not asked for certificates.
///
/// # Errors
/// When the PEM texts are damaged or do not belong together.
pub fn server_acceptor(
    certificate_chain_pem: &str,
    key_pem: &str,
    alpn: &[&str],
) -> Result<TlsAcceptor, Error> {
    let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(pem_error)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates(certificate_chain_pem)?, key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let found = found.map_err(pem_error)?;
    if found.is_empty() {
        return Err(Error::Pem("no certificate found".to_owned()));
    }
    Ok(found)
}

/// The library's own words repeat the line that it stumbled over, which may be a part of a key.
fn pem_error(error: rustls::pki_types::pem::Error) -> Error {
    Error::Pem(crate::pem::words(&error).to_owned())
}
