//! Certificates that are not what they seem.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::{Authority, SelfSigned};
use identity::{SubjectName, TrustDomain};
use rcgen::{CertificateParams, DistinguishedName, Issuer as Signer, KeyPair, SanType};
use tls::ClientContext;
use tls::settings::{
    CommonTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion, UpstreamTlsContext,
};

use super::mesh::{FRESH, Mesh, context};
use crate::identities::Issuer;

/// Whom the impostor would like to be.
const VICTIM: &str = "spiffe://cluster.local/ns/default/sa/admin";

/// How long certificates of the mesh's authority are valid here ([`Issuer::pair`]).
const LIFETIME: Duration = Duration::from_secs(3600);

/// A certificate and its key in PEM, and what its owner's clock shows, who would not offer what it takes for expired.
pub(super) struct Pair {
    chain: String,
    key: String,
    clock: SystemTime,
}

impl Pair {
    fn new((chain, key): (String, zeroize::Zeroizing<String>), clock: SystemTime) -> Self {
        let key = key.to_string();
        Self { chain, key, clock }
    }
}

fn names(id: &str) -> [SubjectName; 1] {
    [SubjectName::Uri(id.to_owned())]
}

/// One that has ended half a minute ago.
pub(super) fn expired(mesh: &Mesh<'_>) -> Result<Pair> {
    let now = SystemTime::now();
    let from = now - LIFETIME - Duration::from_secs(30);
    let pair = mesh.issuer.pair(&names(VICTIM), from)?;
    Ok(Pair::new(pair, now - Duration::from_secs(60)))
}

/// One that begins tomorrow.
pub(super) fn of_the_future(mesh: &Mesh<'_>) -> Result<Pair> {
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    Ok(Pair::new(mesh.issuer.pair(&names(VICTIM), tomorrow)?, tomorrow))
}

/// One of an authority that calls itself as the mesh's does.
pub(super) fn foreign() -> Result<Pair> {
    let now = SystemTime::now();
    let settings = SelfSigned::for_trust_domain(&TrustDomain::new("cluster.local")?);
    let authority = Issuer::new(Arc::new(Authority::self_signed(&settings, now)?));
    Ok(Pair::new(authority.pair(&names(VICTIM), now)?, now))
}

/// One of the mesh's authority for a workload of another mesh.
pub(super) fn of_another_mesh(mesh: &Mesh<'_>) -> Result<Pair> {
    let now = SystemTime::now();
    let id = "spiffe://elsewhere/ns/default/sa/admin";
    Ok(Pair::new(mesh.issuer.pair(&names(id), now)?, now))
}

/// The authority's own, with its key.
pub(super) async fn of_the_authority(mesh: &Mesh<'_>) -> Result<Pair> {
    let stored = mesh
        .control_plane
        .secret("istio-system", "istio-ca-secret")
        .await?;
    let entry = |name: &str| {
        let bytes = stored.get(name).with_context(|| name.to_owned())?;
        anyhow::Ok(String::from_utf8(bytes.clone())?)
    };
    Ok(Pair {
        chain: entry("ca-cert.pem")?,
        key: entry("ca-key.pem")?,
        clock: SystemTime::now(),
    })
}

/// One that a workload has signed with the key of its own, good certificate.
pub(super) fn signed_by_a_workload(mesh: &Mesh<'_>) -> Result<Pair> {
    let own = Pair::new(
        mesh.issuer.pair(
            &names("spiffe://cluster.local/ns/default/sa/frontend"),
            SystemTime::now(),
        )?,
        SystemTime::now(),
    );
    let own_key = KeyPair::from_pem(&own.key)?;
    let mut workload = CertificateParams::default();
    workload.distinguished_name = DistinguishedName::new();
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(VICTIM.try_into()?)];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = params.signed_by(&key, &Signer::from_params(&workload, &own_key))?;
    Ok(Pair {
        chain: format!("{}{}", leaf.pem(), own.chain),
        key: key.serialize_pem(),
        clock: own.clock,
    })
}

/// What a sidecar offers, with this certificate or without one. Whom it speaks to is all the same to it.
pub(super) fn caller(pair: Option<&Pair>, server_name: &str) -> Result<ClientContext> {
    let shown = pair.map(|pair| TlsCertificate {
        certificate_chain: pair.chain.clone().into_bytes(),
        private_key: Secret::new(pair.key.as_bytes()),
    });
    let settings = UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: TlsParameters {
                maximum_version: Some(TlsVersion::V1_3),
                ..TlsParameters::default()
            },
            tls_certificates: shown.into_iter().collect(),
            alpn_protocols: ["istio-http/1.1", "istio", "http/1.1"].map(str::to_owned).into(),
            validation_context: None,
        },
        sni: server_name.to_owned(),
        ..UpstreamTlsContext::default()
    };
    context(&settings, pair.map_or_else(SystemTime::now, |pair| pair.clock))
}

/// The name by which sidecars call the service under test.
pub(super) fn server_name() -> String {
    Mesh::server_name(FRESH)
}
