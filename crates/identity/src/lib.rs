//! Who somebody is, and how it is proven: SPIFFE ids, X.509 SVIDs, signing requests.
//!
//! This crate reads certificates, makes keys and signing requests, and answers questions about both. It opens no
//! file, no socket and no clock: "now" is an argument. Signing is the authority's work, TLS that of `tls`.
//!
//! A private key is [`PrivateKey`]: it prints its kind only, and its bytes leave it in wiped buffers.
//! Sources: SPIFFE-ID and X509-SVID (spiffe.io), RFC 5280 (certificates), RFC 2986 (signing requests),
//! RFC 7468 (PEM).

mod certificate;
mod chain;
mod envelope;
mod key;
pub mod limits;
mod pem;
mod public_key;
mod request;
mod revocation;
mod spiffe;
mod svid;
mod trust_domain;
mod trust_domains;

pub use certificate::{Certificate, CertificateError, SubjectName};
pub use chain::{ChainError, path_to_root};
pub use key::{KeyError, KeyKind, PrivateKey, SignatureAlgorithm};
pub use pem::PemError;
pub use public_key::{KeyType, PublicKey};
pub use request::{CertificateRequest, RequestError, request_certificate};
pub use revocation::{RevocationError, RevocationList};
pub use spiffe::{ServiceAccount, SpiffeId, SpiffeIdError};
pub use svid::{Svid, SvidError};
pub use trust_domain::{TrustDomain, TrustDomainError};
pub use trust_domains::TrustDomains;
