//! What stands before an upstream: nothing, its sidecar, or TLS of its own.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use tls::{ConnectionInfo, ServerContext};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::identities::Issuer;
use crate::limits::REQUEST_TIME;

/// The first byte of a TLS connection: a record that holds a handshake.
const TLS_HANDSHAKE: u8 = 0x16;

/// A connection, decrypted.
pub(super) trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

/// What stands before an upstream.
#[derive(Clone)]
pub(super) enum Front {
    /// Nothing.
    Plain,
    /// A sidecar that takes the mesh's mutual TLS and plain text.
    Sidecar {
        namespace: String,
        account: String,
        mesh: watch::Receiver<Option<Arc<Issuer>>>,
    },
    /// TLS of its own.
    Tls(Arc<ServerContext>),
}

/// What is known about the caller.
#[derive(Clone, Debug, Default)]
pub(super) struct Caller {
    /// The name in the certificate that it showed; nothing without one.
    pub(super) identity: Option<String>,
    /// The server name that it asked for.
    pub(super) server_name: Option<String>,
}

impl Front {
    /// Takes a connection.
    ///
    /// # Errors
    /// The handshake fails, or does not end in time.
    pub(super) async fn accept(&self, connection: TcpStream) -> Result<(Box<dyn Connection>, Caller)> {
        timeout(REQUEST_TIME, self.shake_hands(connection))
            .await
            .context("no handshake in time")?
    }

    async fn shake_hands(&self, connection: TcpStream) -> Result<(Box<dyn Connection>, Caller)> {
        let own;
        let context = match self {
            Self::Plain => return Ok((Box::new(connection), Caller::default())),
            Self::Tls(context) => context,
            Self::Sidecar {
                namespace,
                account,
                mesh,
            } => {
                let mut first = [0];
                connection.peek(&mut first).await?;
                if first != [TLS_HANDSHAKE] {
                    return Ok((Box::new(connection), Caller::default()));
                }
                let mut mesh = mesh.clone();
                let issuer = mesh.wait_for(Option::is_some).await?.clone();
                own = Arc::new(issuer.context("an authority")?.server(namespace, account)?);
                &own
            }
        };
        let (stream, info) = context.accept(connection).await?;
        Ok((Box::new(stream), caller(&info)))
    }
}

/// The SPIFFE id of a workload, or the DNS name of somebody else.
fn caller(info: &ConnectionInfo) -> Caller {
    let leaf = info.peer.as_ref().map(|peer| peer.leaf());
    let name = leaf.and_then(|leaf| leaf.uris.first().or(leaf.dns_names.first()));
    Caller {
        identity: name.cloned(),
        server_name: info.server_name.clone(),
    }
}
