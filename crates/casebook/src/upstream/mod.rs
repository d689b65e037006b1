//! Scripted upstreams: servers that say who they are and what they received.
//!
//! HTTP: the answer's header [`NAME_HEADER`] names the upstream and its body is a [`Seen`] in JSON. Paths that begin
//! with `/status/NNN` are answered with that status, `/delay/500ms` after that time. TCP: the upstream answers each
//! line with its own name and the line.

mod http;
mod tcp;

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tls::ServerContext;
use tls::settings::{CommonTlsContext, DownstreamTlsContext, Secret, TlsCertificate};
use tokio::net::TcpListener;

use crate::certificates::Files;
use crate::world::World;

/// The answer's header that names the upstream.
pub const NAME_HEADER: &str = "x-upstream";

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

/// Starts every upstream of a world on tasks of the current runtime; they end with it.
///
/// # Errors
/// An address that cannot be bound, or a certificate that the page does not make.
pub async fn start(world: &World, files: &Files) -> Result<()> {
    for upstream in world.upstream_listeners() {
        let listener = TcpListener::bind(upstream.address)
            .await
            .with_context(|| format!("upstream {} cannot listen on {}", upstream.name, upstream.address))?;
        let tls = upstream
            .certificate
            .map(|name| context(&name, files))
            .transpose()?;
        if upstream.tcp {
            tokio::spawn(tcp::serve(listener, tls, upstream.name));
        } else {
            tokio::spawn(http::serve(listener, tls, upstream.name));
        }
    }
    Ok(())
}

/// TLS with a certificate of the page.
fn context(certificate: &str, files: &Files) -> Result<Arc<ServerContext>> {
    let settings = DownstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: files.read(&format!("{certificate}.crt"))?.into(),
                private_key: Secret::new(files.read(&format!("{certificate}.key"))?),
            }],
            alpn_protocols: vec!["h2".to_owned(), "http/1.1".to_owned()],
            ..CommonTlsContext::default()
        },
        ..DownstreamTlsContext::default()
    };
    Ok(Arc::new(ServerContext::new(&settings, SystemTime::now())?))
}
