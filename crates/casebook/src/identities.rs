//! Who the pods of a world are: certificates of the mesh's own authority for their sidecars.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::Authority;
use identity::{KeyKind, PrivateKey, SubjectName, Svid};
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate,
    TlsParameters, TlsVersion, UpstreamTlsContext,
};
use tls::{ClientContext, ServerContext};

/// How long a certificate is valid: longer than any page plays.
const LIFETIME: Duration = Duration::from_secs(3600);

/// The trust domain of every world.
const TRUST_DOMAIN: &str = "cluster.local";

/// What a sidecar of the mesh offers to speak when it carries requests.
const HTTP_ALPN: [&str; 3] = ["istio-http/1.1", "istio", "http/1.1"];

/// What it offers when it carries bytes. It exchanges no metadata with its peer, so it does not offer to.
const TCP_ALPN: [&str; 1] = ["istio"];

/// A chain and its key, both in PEM.
struct KeyPair {
    chain: String,
    key: zeroize::Zeroizing<String>,
}

impl KeyPair {
    /// A new key that an authority certifies for these names.
    fn issue(authority: &Authority, names: &[SubjectName], from: SystemTime) -> Result<Self> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256)?;
        let issued = authority.certify(key.public_key(), names, LIFETIME, from)?;
        let mut chain = issued.into_pem_chain()?;
        // The roots, which come last, are for those who verify.
        chain.pop();
        Ok(Self {
            chain: chain.concat(),
            key: key.to_pem()?,
        })
    }

    /// What both sides of a connection have in common: this certificate, and what peers are verified against.
    fn context(&self, roots: &str, alpn: &[&str]) -> CommonTlsContext {
        CommonTlsContext {
            tls_params: TlsParameters {
                minimum_version: Some(TlsVersion::V1_2),
                maximum_version: Some(TlsVersion::V1_3),
                ..TlsParameters::default()
            },
            tls_certificates: vec![TlsCertificate {
                certificate_chain: self.chain.clone().into_bytes(),
                private_key: Secret::new(self.key.as_bytes()),
            }],
            alpn_protocols: alpn.iter().map(|name| (*name).to_owned()).collect(),
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(roots.as_bytes().to_vec()),
                ..CertificateValidationContext::default()
            }),
        }
    }
}

/// Gives out identities of the mesh.
#[derive(Debug)]
pub struct Issuer {
    authority: Arc<Authority>,
}

impl Issuer {
    /// In the name of the control plane's authority.
    pub fn new(authority: Arc<Authority>) -> Self {
        Self { authority }
    }

    fn certificate(&self, namespace: &str, account: &str) -> Result<KeyPair> {
        let id = format!("spiffe://{TRUST_DOMAIN}/ns/{namespace}/sa/{account}");
        KeyPair::issue(&self.authority, &[SubjectName::Uri(id)], SystemTime::now())
    }

    /// The identity of a service account, for the agent of a proxy.
    ///
    /// # Errors
    /// The authority does not sign.
    pub fn svid(&self, namespace: &str, account: &str) -> Result<Svid> {
        let pair = self.certificate(namespace, account)?;
        Svid::from_pem(pair.chain.as_bytes(), pair.key.as_bytes()).context("read an identity")
    }

    /// The roots of the mesh.
    pub fn roots(&self) -> &[identity::Certificate] {
        self.authority.roots()
    }

    /// A certificate for these names by the mesh's authority, valid for an hour from this moment on: its chain and its key
    /// in PEM.
    ///
    /// # Errors
    /// The authority does not sign.
    pub fn pair(
        &self,
        names: &[SubjectName],
        from: SystemTime,
    ) -> Result<(String, zeroize::Zeroizing<String>)> {
        let pair = KeyPair::issue(&self.authority, names, from)?;
        Ok((pair.chain, pair.key))
    }

    /// The server's side of a sidecar that takes mutual TLS for an account.
    pub(crate) fn server(&self, namespace: &str, account: &str) -> Result<ServerContext> {
        let pair = self.certificate(namespace, account)?;
        let settings = DownstreamTlsContext {
            common: pair.context(&self.authority.roots_pem(), &["h2", "http/1.1", "istio"]),
            require_client_certificate: true,
            ..DownstreamTlsContext::default()
        };
        Ok(ServerContext::new(&settings, SystemTime::now())?)
    }

    /// The client's side of a sidecar that calls `server_name` for an account.
    pub(crate) fn client(
        &self,
        account: (&str, &str),
        server_name: &str,
        http: bool,
    ) -> Result<ClientContext> {
        let pair = self.certificate(account.0, account.1)?;
        let alpn: &[&str] = if http { &HTTP_ALPN } else { &TCP_ALPN };
        let settings = UpstreamTlsContext {
            common: pair.context(&self.authority.roots_pem(), alpn),
            sni: server_name.to_owned(),
            ..UpstreamTlsContext::default()
        };
        Ok(ClientContext::new(&settings, SystemTime::now())?)
    }
}
