//! The application's side: sends requests from a pod's address and notes what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, Secret, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions};
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::certificates::Files;
use crate::limits::{BEFORE_THE_END, MAX_BODY_BYTES, REQUEST_TIME};
use crate::page::traffic::{Request, Tls};
use crate::world::EXCHANGE_HEADER;

/// What came of one request.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The answer, or why there is none.
    pub answer: Result<Answer, String>,
    /// From connecting to the last byte.
    pub elapsed: Duration,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status; 0 for TCP.
    pub status: u16,
    /// Headers, in order.
    pub headers: Vec<(String, String)>,
    /// The body; for TCP everything that was said.
    pub body: String,
    /// The file of the page that holds the server's certificate.
    pub certificate: Option<String>,
}

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The address it starts from.
    pub source: Ipv4Addr,
    /// The address it goes to.
    pub target: SocketAddr,
    /// How TLS is spoken; not at all when nothing is said.
    pub secured: Option<Secured>,
}

/// How TLS is spoken.
#[derive(Clone, Debug)]
pub enum Secured {
    /// As the page says, with its files.
    ByPage(Tls, Arc<Files>),
    /// As a sidecar of the mesh does.
    ByMesh(Arc<ClientContext>),
}

/// Sends one request on this way; `mark` goes into [`EXCHANGE_HEADER`].
pub async fn send(way: &Way, request: &Request, mark: &str) -> Outcome {
    let start = Instant::now();
    let answer = match timeout(REQUEST_TIME, exchange(way, request, mark)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer within {REQUEST_TIME:?}")),
    };
    Outcome {
        answer,
        elapsed: start.elapsed(),
    }
}

async fn exchange(way: &Way, request: &Request, mark: &str) -> anyhow::Result<Answer> {
    let connection = connect(way.source, way.target).await?;
    let context = match &way.secured {
        None => {
            return match request {
                Request::Tcp {
                    text, waits: true, ..
                } => hear_out(connection, text).await,
                Request::Tcp { text, .. } => talk(connection, text).await,
                Request::Http { .. } => ask(connection, request, mark).await,
            };
        }
        Some(Secured::ByMesh(context)) => Arc::clone(context),
        Some(Secured::ByPage(tls, files)) => {
            Arc::new(ClientContext::new(&settings(tls, files)?, SystemTime::now())?)
        }
    };
    let (connection, about) = context.connect(connection, ConnectOptions::default()).await?;
    let mut answer = match request {
        Request::Tcp { text, .. } => say(connection, text).await?,
        Request::Http { .. } => ask(connection, request, mark).await?,
    };
    if let Some(Secured::ByPage(_, files)) = &way.secured {
        answer.certificate = about.peer.and_then(|peer| files.holding(peer.leaf().der()));
    }
    Ok(answer)
}

fn settings(tls: &Tls, files: &Files) -> anyhow::Result<UpstreamTlsContext> {
    let shown = tls.certificate.as_ref().map(|(chain, key)| {
        anyhow::Ok(TlsCertificate {
            certificate_chain: files.read(chain)?.into(),
            private_key: Secret::new(files.read(key)?),
        })
    });
    let authorities = tls
        .authorities
        .as_ref()
        .map(|file| files.read(file))
        .transpose()?;
    Ok(UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: TlsParameters {
                maximum_version: Some(if tls.old {
                    TlsVersion::V1_2
                } else {
                    TlsVersion::V1_3
                }),
                ..TlsParameters::default()
            },
            tls_certificates: shown.into_iter().collect::<anyhow::Result<_>>()?,
            alpn_protocols: vec!["http/1.1".to_owned()],
            validation_context: authorities.map(|pem| CertificateValidationContext {
                trusted_ca: Some(pem.into()),
                ..CertificateValidationContext::default()
            }),
        },
        sni: tls.server_name.clone(),
        auto_sni_san_validation: authorities.is_some(),
        ..UpstreamTlsContext::default()
    })
}

/// Sends a request and reads the answer.
async fn ask<IO>(connection: IO, request: &Request, mark: &str) -> anyhow::Result<Answer>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (http2, said) = match request {
        Request::Http { http2, said, .. } => (*http2, said.clone()),
        Request::Tcp { .. } => (false, None),
    };
    let request = http_request(request, mark)?;
    let io = TokioIo::new(connection);
    if http2 {
        let (mut sender, driver) = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
        let driver = tokio::spawn(driver);
        let answer = read(sender.send_request(request).await?).await;
        driver.abort();
        return answer;
    }
    let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
    let driver = tokio::spawn(driver.with_upgrades());
    let response = sender.send_request(request).await?;
    let answer = match said {
        Some(said) if response.status() == hyper::StatusCode::SWITCHING_PROTOCOLS => {
            say_through(response, &said).await
        }
        _ => read(response).await,
    };
    driver.abort();
    answer
}

/// Says a line through what an upgrade has made, and reads one.
async fn say_through(mut response: hyper::Response<Incoming>, text: &str) -> anyhow::Result<Answer> {
    let upgraded = hyper::upgrade::on(&mut response).await?;
    let said = say(TokioIo::new(upgraded), text).await?;
    Ok(Answer {
        body: said.body,
        ..read(response).await?
    })
}

/// The request to send; in HTTP/2 its target says the host too.
pub(crate) fn http_request(request: &Request, mark: &str) -> anyhow::Result<hyper::Request<Empty<Bytes>>> {
    let Request::Http {
        method,
        authority,
        path,
        headers,
        http2,
        said,
    } = request
    else {
        anyhow::bail!("not an HTTP request");
    };
    let host = headers.iter().find(|(name, _)| name == "host");
    let host = host.map_or(authority, |(_, value)| value);
    let mut builder = hyper::Request::builder().method(method.as_str());
    builder = match http2 {
        true => builder.uri(format!("http://{host}{path}")),
        false => builder.uri(path).header("host", host),
    };
    if said.is_some() {
        builder = builder
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    }
    for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
        builder = builder.header(name, value);
    }
    Ok(builder
        .header(EXCHANGE_HEADER.to_ascii_lowercase(), mark)
        .body(Empty::new())?)
}

/// Reads an answer to its end; trailers count as headers.
pub(crate) async fn read(response: hyper::Response<Incoming>) -> anyhow::Result<Answer> {
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES)
        .collect()
        .await
        .map_err(anyhow::Error::from_boxed)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    Ok(Answer {
        status: head.status.as_u16(),
        headers: head
            .headers
            .iter()
            .chain(&trailers)
            .map(|(name, value)| (name.to_string(), text(value)))
            .collect(),
        body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        certificate: None,
    })
}

pub(crate) async fn connect(source: Ipv4Addr, target: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    Ok(socket.connect(target).await?)
}

/// Says a line, ends the sending side and reads until the end; who has nothing to say waits for the other's first line
/// before.
async fn talk(mut connection: TcpStream, text: &str) -> anyhow::Result<Answer> {
    let mut said = Vec::new();
    if text.is_empty() {
        while !said.ends_with(b"\n") && connection.read_buf(&mut said).await? > 0 {}
    } else {
        connection.write_all(format!("{text}\n").as_bytes()).await?;
        // Envoy drops a connection that ends before its listener filters have looked at it.
        let first = connection.read_buf(&mut said);
        if let Ok(read) = timeout(BEFORE_THE_END, first).await {
            read?;
        }
    }
    connection.shutdown().await?;
    (&mut connection)
        .take(MAX_BODY_BYTES as u64)
        .read_to_end(&mut said)
        .await?;
    anyhow::ensure!(!said.is_empty(), "the connection was closed without an answer");
    Ok(Answer {
        status: 0,
        headers: Vec::new(),
        body: String::from_utf8_lossy(&said).trim_end().to_owned(),
        certificate: None,
    })
}

/// Sends bytes, and reads until the other side ends the connection. HTTP/1 takes a client that ends its side for one that
/// has gone.
async fn hear_out(mut connection: TcpStream, bytes: &str) -> anyhow::Result<Answer> {
    connection.write_all(bytes.as_bytes()).await?;
    let mut said = Vec::new();
    let mut reader = (&mut connection).take(MAX_BODY_BYTES as u64);
    reader.read_to_end(&mut said).await?;
    anyhow::ensure!(!said.is_empty(), "the connection was closed without an answer");
    Ok(Answer {
        status: 0,
        headers: Vec::new(),
        body: String::from_utf8_lossy(&said).trim_end().to_owned(),
        certificate: None,
    })
}

/// Says a line and reads one. TLS has no half-closed streams that every peer understands.
async fn say<IO: AsyncRead + AsyncWrite + Unpin>(mut connection: IO, text: &str) -> anyhow::Result<Answer> {
    connection.write_all(format!("{text}\n").as_bytes()).await?;
    connection.flush().await?;
    let mut said = String::new();
    let mut reader = BufReader::new(connection).take(MAX_BODY_BYTES as u64);
    reader.read_line(&mut said).await?;
    anyhow::ensure!(!said.is_empty(), "the connection was closed without an answer");
    Ok(Answer {
        status: 0,
        headers: Vec::new(),
        body: said.trim_end().to_owned(),
        certificate: None,
    })
}
