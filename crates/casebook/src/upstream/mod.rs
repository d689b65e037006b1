//! Scripted upstreams: servers that say who they are and what they received.
//!
//! HTTP: the answer's header [`NAME_HEADER`] names the upstream and its body is a [`Seen`] in JSON. Paths that begin
//! with `/status/NNN` are answered with that status, `/delay/500ms` after that time, `/grpc/NN` with that `grpc-status`.
//! The header [`PROTOCOL_HEADER`] says whether they came in HTTP/1 or HTTP/2. TCP: the upstream answers each
//! line with its own name and the line.

mod http;
mod tcp;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::world::World;

/// The answer's header that names the upstream.
pub const NAME_HEADER: &str = "x-upstream";

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

/// Starts every upstream of a world on tasks of the current runtime; they end with it.
///
/// # Errors
/// An address that cannot be bound.
pub async fn start(world: &World) -> Result<()> {
    for upstream in world.upstream_listeners() {
        let listener = TcpListener::bind(upstream.address)
            .await
            .with_context(|| format!("upstream {} cannot listen on {}", upstream.name, upstream.address))?;
        if upstream.tcp {
            tokio::spawn(tcp::serve(listener, upstream.name));
        } else {
            tokio::spawn(http::serve(listener, upstream.name));
        }
    }
    Ok(())
}
