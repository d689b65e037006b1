//! Connections to a server: over TCP or a Unix socket, in plaintext or with TLS over it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tls::{ClientContext, ConnectOptions};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service as _;

use super::target::{Security, Server, Target};
use super::traffic::{Counted, Traffic};
use crate::limits;

/// A connection of any kind.
trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

pub(super) async fn connect(
    server: &Server,
    traffic: &Arc<Traffic>,
) -> Result<Channel, tonic::transport::Error> {
    let (endpoint, below) = match &server.target {
        Target::Tcp(address) => {
            let mut http = HttpConnector::new();
            http.set_nodelay(true);
            http.set_connect_timeout(Some(limits::CONNECT_TIMEOUT));
            (endpoint(format!("http://{address}"))?, Below::Tcp(http))
        }
        // The authority is never looked up; HTTP/2 only wants one.
        Target::Unix(path) => (endpoint("http://xds".to_owned())?, Below::Unix(path.clone())),
    };
    let (traffic, security) = (Arc::clone(traffic), server.security.clone());
    let connector = tower::service_fn(move |uri| {
        let (below, traffic, security) = (below.clone(), Arc::clone(&traffic), security.clone());
        async move {
            let stream: Box<dyn Connection> = match &security {
                None => below.connect(uri).await?,
                Some(security) => {
                    let context = context(security).await?;
                    secured(below.connect(uri).await?, &context, security).await?
                }
            };
            io::Result::Ok(TokioIo::new(Counted::new(stream, traffic)))
        }
    });
    endpoint.connect_with_connector(connector).await
}

#[derive(Clone)]
enum Below {
    Tcp(HttpConnector),
    Unix(PathBuf),
}

impl Below {
    async fn connect(self, uri: Uri) -> io::Result<Box<dyn Connection>> {
        match self {
            Self::Tcp(mut http) => {
                let stream: TokioIo<TcpStream> = http.call(uri).await.map_err(io::Error::other)?;
                Ok(Box::new(stream.into_inner()))
            }
            Self::Unix(path) => Ok(Box::new(UnixStream::connect(path).await?)),
        }
    }
}

/// What the handshake is done with. Secrets that are on their way are waited for: a proxy that starts gets them within
/// moments, and a failed attempt would cost it a wait before the next.
async fn context(security: &Security) -> io::Result<Arc<ClientContext>> {
    let coming = async {
        loop {
            match security.context.get() {
                Some(context) => return context,
                None => tokio::time::sleep(limits::SECRETS_POLL_INTERVAL).await,
            }
        }
    };
    let come = tokio::time::timeout(limits::SECRETS_TIMEOUT, coming).await;
    come.map_err(|_| io::Error::other("the secrets of its TLS context have not come"))
}

/// Does the handshake; gRPC is spoken in HTTP/2 and in nothing else. The connect timeout of the endpoint bounds it.
async fn secured(
    stream: Box<dyn Connection>,
    context: &ClientContext,
    security: &Security,
) -> io::Result<Box<dyn Connection>> {
    let alpn = ["h2".to_owned()];
    let options = ConnectOptions {
        endpoint_hostname: security.hostname.as_deref(),
        alpn: &alpn,
        ..ConnectOptions::default()
    };
    let (stream, _) = context.connect(stream, options).await.map_err(io::Error::other)?;
    Ok(Box::new(tls::Stream::from(stream)))
}

fn endpoint(uri: String) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(uri)?
        .connect_timeout(limits::CONNECT_TIMEOUT)
        .http2_keep_alive_interval(limits::KEEPALIVE_INTERVAL)
        .keep_alive_timeout(limits::KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}
