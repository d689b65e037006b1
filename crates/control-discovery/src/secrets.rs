//! Credentials over SDS (istiod's `xds/sds.go`): `kubernetes://name` is a certificate with its key,
//! `kubernetes://name-cacert` what peers are verified against, as is `configmap://namespace/name`.
//!
//! A proxy gets Secrets only when it has proven who it is, and those of its own namespace only, unless another grants
//! it one of its own. Authorities in ConfigMaps, which are no secret, are for everybody who has proven who it is. What a
//! proxy may not have, and what is not there, is answered as removed, and logged with the reason; so is what is damaged,
//! unless the proxy holds it from before. What is in a Secret is never part of a message.

use std::sync::Arc;

use api_envoy::any::pack;
use api_envoy::envoy::config::core::v3::{DataSource, data_source};
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
use control_snapshot::{
    Credential, CredentialError, CredentialName, Holder, KeyPair, Snapshot, TrustedAuthorities,
};
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
    #[error("the name is none of a Kubernetes Secret or ConfigMap")]
    Name,
    /// The proxy may not have any.
    #[error("{0}")]
    Denied(Arc<str>),
    /// It is another namespace's.
    #[error("cross namespace secret reference requires ReferenceGrant")]
    Foreign,
    /// There is no such object, or it is a ConfigMap without authorities.
    #[error("{kind} {namespace}/{name} not found")]
    Absent {
        /// What it should be.
        kind: &'static str,
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
    let namespace = readable(snapshot, access, resource, &name)?;
    let credential = find(snapshot, namespace, &name)?;
    let message = match name.authorities {
        false => key_pair(credential.key_pair()?),
        true => authorities(credential.authorities()?),
    };
    let secret = tls::Secret {
        name: resource.to_owned(),
        r#type: Some(message),
    };
    Ok(Outgoing::new(resource, pack(&secret)))
}

/// The namespace where the proxy may read what it asks for.
fn readable<'n>(
    snapshot: &Snapshot,
    access: &'n SecretAccess,
    resource: &str,
    name: &CredentialName<'n>,
) -> Result<&'n str, Withheld> {
    let own = match access {
        SecretAccess::Unproven => return Err(Withheld::Denied("the proxy has not proven who it is".into())),
        // Its namespace is always said.
        _ if name.holder == Holder::ConfigMap => return Ok(name.namespace),
        SecretAccess::Namespace(own) => own,
        SecretAccess::Authorities { namespace, .. } if name.authorities => namespace,
        SecretAccess::Authorities { reason, .. } => return Err(Withheld::Denied(Arc::clone(reason))),
        SecretAccess::Unknown => return Err(Withheld::Denied("nobody knows whether it may have it".into())),
    };
    if name.namespace.is_empty() || *name.namespace == **own {
        return Ok(own);
    }
    if !snapshot.lends_credential(own, resource) {
        return Err(Withheld::Foreign);
    }
    Ok(name.namespace)
}

fn inline(bytes: &[u8]) -> Option<DataSource> {
    Some(DataSource {
        specifier: Some(data_source::Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    })
}

/// What the first object holds that is there, or held before it was damaged.
fn find<'s>(
    snapshot: &'s Snapshot,
    namespace: &str,
    name: &CredentialName<'_>,
) -> Result<&'s Credential, Withheld> {
    for place in name.places() {
        if let Some(credential) = snapshot.credential(name.holder, namespace, place) {
            return Ok(credential);
        }
        if let Some(reason) = snapshot.refused_credential(name.holder, namespace, place) {
            return Err(Withheld::Content(reason.clone()));
        }
    }
    Err(Withheld::Absent {
        kind: name.holder.kind().name(),
        namespace: namespace.to_owned(),
        name: name.name.to_owned(),
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
