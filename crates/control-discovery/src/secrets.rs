//! Credentials over SDS (istiod's `xds/sds.go`): `kubernetes://name` is a certificate with its key,
//! `kubernetes://name-cacert` what peers are verified against.
//!
//! A proxy gets Secrets only when it has proven who it is, and those of its own namespace only, unless another grants
//! it one of its own. What it may not have,
//! and what is not there, is answered as removed, and logged with the reason; so is what is damaged, unless the proxy
//! holds it from before. What is in a Secret is never part of a message.

use std::sync::Arc;

use api_envoy::any::pack;
use api_envoy::envoy::config::core::v3::{DataSource, data_source};
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
use control_snapshot::{Credential, CredentialError, CredentialName, KeyPair, Snapshot, TrustedAuthorities};
use xds::server::Outgoing;

/// Which Secrets a proxy may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SecretAccess {
    /// None, and it is told nothing: it has not proven who it is.
    #[default]
    Unproven,
    /// At present nobody knows. What it holds stays, and it is told nothing.
    Unknown,
    /// Of its own namespace the authorities, which are no secret. No keys.
    Authorities {
        /// The namespace.
        namespace: Arc<str>,
        /// Why it gets no keys.
        reason: Arc<str>,
    },
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
    /// It holds something else, or is damaged.
    #[error(transparent)]
    Content(#[from] CredentialError),
}

/// The resource of this name, for a proxy with this access.
///
/// # Errors
/// Why it gets none.
pub fn resource(snapshot: &Snapshot, access: &SecretAccess, resource: &str) -> Result<Outgoing, Withheld> {
    let name = CredentialName::parse(resource).ok_or(Withheld::Name)?;
    let own = match access {
        SecretAccess::Namespace(own) => own,
        SecretAccess::Authorities { namespace, .. } if name.authorities => namespace,
        SecretAccess::Authorities { reason, .. } => return Err(Withheld::Denied(Arc::clone(reason))),
        SecretAccess::Unknown => return Err(Withheld::Denied("nobody knows whether it may have it".into())),
        SecretAccess::Unproven => return Err(Withheld::Denied("the proxy has not proven who it is".into())),
    };
    let namespace = if name.namespace.is_empty() {
        own
    } else {
        name.namespace
    };
    if namespace != &**own && !snapshot.lends_credential(own, resource) {
        return Err(Withheld::Foreign);
    }
    let message = match name.authorities {
        false => key_pair(find(snapshot, namespace, name.name)?.key_pair()?),
        // A Secret of its own, or else a part of the one that holds the key.
        true => match find(snapshot, namespace, &name.of_authorities_alone()) {
            Err(Withheld::Absent { .. }) => authorities(find(snapshot, namespace, name.name)?.authorities()?),
            alone => authorities(alone?.authorities()?),
        },
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

/// What a Secret holds, or held before it was damaged.
fn find<'s>(snapshot: &'s Snapshot, namespace: &str, name: &str) -> Result<&'s Credential, Withheld> {
    if let Some(credential) = snapshot.credential(namespace, name) {
        return Ok(credential);
    }
    Err(match snapshot.refused_credential(namespace, name) {
        Some(reason) => Withheld::Content(reason.clone()),
        None => Withheld::Absent {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        },
    })
}

fn key_pair(pair: KeyPair<'_>) -> tls::secret::Type {
    tls::secret::Type::TlsCertificate(tls::TlsCertificate {
        certificate_chain: inline(pair.chain),
        private_key: inline(pair.key),
        ocsp_staple: pair.ocsp_staple.and_then(inline),
        ..tls::TlsCertificate::default()
    })
}

fn authorities(trusted: TrustedAuthorities<'_>) -> tls::secret::Type {
    tls::secret::Type::ValidationContext(tls::CertificateValidationContext {
        trusted_ca: inline(trusted.certificates),
        crl: trusted.revocations.and_then(inline),
        ..tls::CertificateValidationContext::default()
    })
}
