//! The agent's part for a proxy with an identity: it takes the proxy's stream on loopback and carries it to the control
//! plane's secure port, with the workload's certificate as proof.
//!
//! The bytes of the stream are carried as they are; both data planes get their configuration and their Secrets in this
//! way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use control_ca::Authority;
use identity::{KeyKind, PrivateKey, SubjectName};
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// Where the proxy finds it.
pub(crate) const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15011);

/// Where the control plane takes proven proxies: Istio's port.
pub(crate) const SECURE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15012);

/// What the control plane's certificate says.
pub(crate) const CONTROL_PLANE: &str = "istiod.istio-system.svc";

/// How long the workload's certificate is valid: longer than any page plays.
const LIFETIME: Duration = Duration::from_secs(3600);

/// Carries streams of the workload of this SPIFFE id until the runtime ends.
///
/// # Errors
/// The authority certifies no such id, or the address is taken.
pub(crate) async fn start(authority: &Authority, workload: &str) -> Result<()> {
    let context = Arc::new(ClientContext::new(
        &settings(authority, workload)?,
        SystemTime::now(),
    )?);
    let listener = TcpListener::bind(ADDRESS)
        .await
        .with_context(|| format!("relay on {ADDRESS}"))?;
    tokio::spawn(async move {
        while let Ok((proxy, _)) = listener.accept().await {
            let context = Arc::clone(&context);
            // A stream that breaks is opened again by the proxy; one that never comes up fails the page by its time.
            tokio::spawn(async move { carry(&context, proxy).await });
        }
    });
    Ok(())
}

async fn carry(context: &ClientContext, mut proxy: TcpStream) -> Result<()> {
    let connection = TcpStream::connect(SECURE).await?;
    let (mut control_plane, _) = context.connect(connection, ConnectOptions::default()).await?;
    copy_bidirectional(&mut proxy, &mut control_plane).await?;
    Ok(())
}

fn settings(authority: &Authority, workload: &str) -> Result<UpstreamTlsContext> {
    let key = PrivateKey::generate(KeyKind::default())?;
    let id = [SubjectName::Uri(workload.to_owned())];
    let issued = authority.certify(key.public_key(), &id, LIFETIME, SystemTime::now())?;
    Ok(UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: TlsParameters {
                maximum_version: Some(TlsVersion::V1_3),
                ..TlsParameters::default()
            },
            tls_certificates: vec![TlsCertificate {
                certificate_chain: issued.into_pem_chain()?.concat().into_bytes(),
                private_key: Secret::new(key.to_pem()?.as_bytes()),
            }],
            alpn_protocols: vec!["h2".to_owned()],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(authority.roots_pem().into_bytes()),
                ..CertificateValidationContext::default()
            }),
        },
        sni: CONTROL_PLANE.to_owned(),
        auto_sni_san_validation: true,
        ..UpstreamTlsContext::default()
    })
}
