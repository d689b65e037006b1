//! One small document over HTTPS, as issuers of JWTs publish their keys.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::header::{ACCEPT, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, TlsParameters, TlsVersion, UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions, ContextError, HandshakeFailure};
use tokio::net::TcpStream;

use crate::limits::{FETCH_TIMEOUT, MAX_KEYS_BYTES};

const HTTPS_PORT: u16 = 443;

/// Why a document is not there.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebError {
    #[error("{0:?} is no URL of the form https://HOST[:PORT][/PATH]")]
    Url(String),
    #[error("the authorities of web servers, {path}: {error}", path = .0.display(), error = .1)]
    Authorities(PathBuf, io::Error),
    #[error("TLS: {0}")]
    Context(#[from] ContextError),
    #[error("no connection: {0}")]
    Connect(#[from] io::Error),
    #[error("TLS: {0}")]
    Handshake(#[from] HandshakeFailure),
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("the server answers {0}, where 200 is expected; redirects are not followed")]
    Status(StatusCode),
    #[error("the document: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("the server does not answer within {FETCH_TIMEOUT:?}")]
    Late,
}

/// Gets a document of at most [`MAX_KEYS_BYTES`] from a server whose certificate an authority in `authorities` (PEM) has
/// signed for the URL's host.
pub(super) async fn get(url: &str, authorities: &Path) -> Result<Bytes, WebError> {
    let asked = async {
        let (uri, host) = parse(url)?;
        let context = context(host.clone(), authorities)?;
        let connection = TcpStream::connect((&*host, uri.port_u16().unwrap_or(HTTPS_PORT))).await?;
        let (stream, _) = context.connect(connection, ConnectOptions::default()).await?;
        fetch(TokioIo::new(stream), &uri).await
    };
    tokio::time::timeout(FETCH_TIMEOUT, asked)
        .await
        .map_err(|_| WebError::Late)?
}

fn parse(url: &str) -> Result<(Uri, String), WebError> {
    let refused = || WebError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| refused())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(refused)?.to_owned();
    Ok((uri, host))
}

/// What is spoken to nobody but `host`.
fn context(host: String, authorities: &Path) -> Result<ClientContext, WebError> {
    let failed = |error| WebError::Authorities(authorities.to_owned(), error);
    let trusted = std::fs::read(authorities).map_err(failed)?;
    let settings = UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: TlsParameters {
                maximum_version: Some(TlsVersion::V1_3),
                ..TlsParameters::default()
            },
            alpn_protocols: vec!["http/1.1".to_owned()],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(trusted),
                ..CertificateValidationContext::default()
            }),
            ..CommonTlsContext::default()
        },
        sni: host,
        auto_sni_san_validation: true,
        ..UpstreamTlsContext::default()
    };
    Ok(ClientContext::new(&settings, SystemTime::now())?)
}

async fn fetch<IO>(stream: IO, uri: &Uri) -> Result<Bytes, WebError>
where
    IO: hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await?;
    let connection = tokio::spawn(connection);
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(path)
        .header(HOST, host)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("lateen/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| WebError::Body(error.into()))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_KEYS_BYTES).collect().await;
    connection.abort();
    match status {
        StatusCode::OK => Ok(body.map_err(WebError::Body)?.to_bytes()),
        other => Err(WebError::Status(other)),
    }
}
