//! Credentials for gateways over SDS (istiod's `xds/sds.go`): `kubernetes://name` is a certificate with its key,
//! `kubernetes://name-cacert` what clients are verified against.
//!
//! A proxy gets the Secrets of its own namespace only, and only when it has proven who it is. What it may not have, what
//! is not there and what is damaged is answered as removed, and logged with the reason. What is in a Secret is never
//! part of a message.

use std::sync::Arc;

use api_envoy::any::pack;
use api_envoy::envoy::config::core::v3::{DataSource, data_source};
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
use control_snapshot::{CredentialError, KeyPair, Snapshot, TrustedAuthorities};
use identity::{Certificate, CertificateError, KeyError, PrivateKey};
use xds::server::Outgoing;

/// The prefix of names of Secrets of Kubernetes.
const KUBERNETES: &str = "kubernetes://";
/// The suffix of names that mean the authorities.
const AUTHORITIES: &str = "-cacert";

/// Which Secrets a proxy may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretAccess {
    /// None, and it is told nothing: it has not proven who it is.
    #[default]
    Unproven,
    /// None, for this reason.
    Denied(Arc<str>),
    /// Those of this namespace, which is its own.
    Namespace(Arc<str>),
}

/// Why a proxy does not get a Secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The name is of another kind.
    #[error("the name is none of a Kubernetes Secret")]
    Name,
    /// The proxy may not have any.
    #[error("{0}")]
    Denied(Arc<str>),
    /// It is another namespace's.
    #[error("cross namespace secret reference requires ReferenceGrant")]
    Foreign,
    /// There is no such Secret.
    #[error("secret {namespace}/{name} not found")]
    Absent {
        /// Where it should be.
        namespace: String,
        /// What it should be called.
        name: String,
    },
    /// It holds something else.
    #[error(transparent)]
    Content(#[from] CredentialError),
    /// The certificates are damaged.
    #[error("the certificates: {0}")]
    Certificate(#[from] CertificateError),
    /// The key is damaged, or another one's.
    #[error("the key: {0}")]
    Key(#[from] KeyError),
}

/// The resource of this name, for a proxy with this access.
///
/// # Errors
/// Why it gets none.
pub fn resource(snapshot: &Snapshot, access: &SecretAccess, resource: &str) -> Result<Outgoing, Withheld> {
    let own = match access {
        SecretAccess::Namespace(own) => own,
        SecretAccess::Denied(reason) => return Err(Withheld::Denied(Arc::clone(reason))),
        SecretAccess::Unproven => return Err(Withheld::Denied("the proxy has not proven who it is".into())),
    };
    let path = resource.strip_prefix(KUBERNETES).ok_or(Withheld::Name)?;
    let (namespace, name) = path.split_once('/').unwrap_or((&**own, path));
    if name.is_empty() || name.contains('/') {
        return Err(Withheld::Name);
    }
    if namespace != &**own {
        return Err(Withheld::Foreign);
    }
    let found = snapshot.credential(namespace, name);
    let absent = |name: &str| Withheld::Absent {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let message = match name.strip_suffix(AUTHORITIES) {
        None => key_pair(found.ok_or_else(|| absent(name))?.key_pair()?)?,
        // A Secret of its own, or else a part of the one that holds the key.
        Some(whole) => {
            let found = found.or_else(|| snapshot.credential(namespace, whole));
            authorities(found.ok_or_else(|| absent(name))?.authorities()?)?
        }
    };
    let secret = tls::Secret {
        name: resource.to_owned(),
        r#type: Some(message),
    };
    Ok(Outgoing::new(resource, pack(&secret)))
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    })
}

/// What a proxy would refuse, and then have nothing to show, is not sent.
fn key_pair(pair: KeyPair<'_>) -> Result<tls::secret::Type, Withheld> {
    let chain = Certificate::chain_from_pem(pair.chain)?;
    let key = PrivateKey::from_pem(pair.key)?;
    if let Some(leaf) = chain.first() {
        key.check_belongs_to(leaf)?;
    }
    Ok(tls::secret::Type::TlsCertificate(tls::TlsCertificate {
        certificate_chain: inline(pair.chain),
        private_key: inline(pair.key),
        ocsp_staple: pair.ocsp_staple.and_then(inline),
        ..tls::TlsCertificate::default()
    }))
}

fn authorities(trusted: TrustedAuthorities<'_>) -> Result<tls::secret::Type, Withheld> {
    Certificate::bundle_from_pem(trusted.certificates)?;
    let context = tls::CertificateValidationContext {
        trusted_ca: inline(trusted.certificates),
        crl: trusted.revocations.and_then(inline),
        ..tls::CertificateValidationContext::default()
    };
    Ok(tls::secret::Type::ValidationContext(context))
}
