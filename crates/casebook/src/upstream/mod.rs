//! Scripted upstreams: servers that say who they are and what they received.
//!
//! HTTP: the answer's header [`NAME_HEADER`] names the upstream and its body is a [`Seen`] in JSON. Paths that begin
//! with `/status/NNN` are answered with that status, `/delay/500ms` after that time, `/grpc/NN` with that `grpc-status`, `/call/NN` with it in
//! trailers. Who asks for WebSocket gets it.
//! The header [`PROTOCOL_HEADER`] says whether they came in HTTP/1 or HTTP/2. TCP: the upstream answers each
//! line with its own name, the caller's identity when it showed one, and the line.
//!
//! Where workloads have identities a sidecar stands before each pod, and takes mutual TLS as well as plain text. An
//! upstream outside of Kubernetes may speak TLS of its own.

mod connection;
mod http;
mod tcp;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tls::ServerContext;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate,
};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::certificates::{AUTHORITY, Files};
use crate::identities::Issuer;
use crate::world::{Encryption, World};
use connection::Front;

/// The answer's header that names the upstream.
pub const NAME_HEADER: &str = "x-upstream";

/// The header by which an upstream knows who called it, from the certificate that it was shown.
pub const PEER_HEADER: &str = "x-peer-identity";

/// The header by which it knows which server name it was called by.
pub const SERVER_NAME_HEADER: &str = "x-server-name";

/// The answer's header that says in which version of HTTP the upstream was asked.
pub const PROTOCOL_HEADER: &str = "x-protocol";

/// A request as the upstream received it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct Seen {
    /// The upstream's name.
    pub upstream: String,
    /// Method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Host, or `:authority`.
    pub authority: String,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
}

/// Starts every upstream of a world on tasks of the current runtime; they end with it. Sidecars have identities once
/// `mesh` has an issuer.
///
/// # Errors
/// An address that cannot be bound, or a certificate that the page does not make.
pub async fn start(world: &World, files: &Files, mesh: &watch::Receiver<Option<Arc<Issuer>>>) -> Result<()> {
    for upstream in world.upstream_listeners() {
        let listener = TcpListener::bind(upstream.address)
            .await
            .with_context(|| format!("upstream {} cannot listen on {}", upstream.name, upstream.address))?;
        let front = front(&upstream.encryption, files, mesh)?;
        if upstream.tcp {
            tokio::spawn(tcp::serve(listener, front, upstream.name));
        } else {
            tokio::spawn(http::serve(listener, front, upstream.name));
        }
    }
    Ok(())
}

fn front(
    encryption: &Encryption,
    files: &Files,
    mesh: &watch::Receiver<Option<Arc<Issuer>>>,
) -> Result<Front> {
    Ok(match encryption {
        Encryption::None => Front::Plain,
        Encryption::Server(certificate) => Front::Tls(context(certificate, false, files)?),
        Encryption::Mutual(certificate) => Front::Tls(context(certificate, true, files)?),
        Encryption::Sidecar { namespace, account } => Front::Sidecar {
            namespace: namespace.clone(),
            account: account.clone(),
            mesh: mesh.clone(),
        },
    })
}

/// TLS with a certificate of the page, which may ask callers for another one.
fn context(certificate: &str, demanding: bool, files: &Files) -> Result<Arc<ServerContext>> {
    let callers = demanding.then(|| {
        anyhow::Ok(CertificateValidationContext {
            trusted_ca: Some(files.read(&format!("{AUTHORITY}.crt"))?.into()),
            ..CertificateValidationContext::default()
        })
    });
    let settings = DownstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: files.read(&format!("{certificate}.crt"))?.into(),
                private_key: Secret::new(files.read(&format!("{certificate}.key"))?),
            }],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            validation_context: callers.transpose()?,
            ..CommonTlsContext::default()
        },
        require_client_certificate: demanding,
        ..DownstreamTlsContext::default()
    };
    Ok(Arc::new(ServerContext::new(&settings, SystemTime::now())?))
}
