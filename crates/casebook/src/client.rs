//! The application's side: sends requests from a pod's address and notes what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::limits::{MAX_BODY_BYTES, REQUEST_TIME};
use crate::page::traffic::Request;
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
}

/// Sends one request from `source` to `target`; `mark` goes into [`EXCHANGE_HEADER`].
pub async fn send(source: Ipv4Addr, target: SocketAddr, request: &Request, mark: &str) -> Outcome {
    let start = Instant::now();
    let answer = match timeout(REQUEST_TIME, exchange(source, target, request, mark)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(format!("{error:#}")),
        Err(_) => Err(format!("no answer within {REQUEST_TIME:?}")),
    };
    Outcome {
        answer,
        elapsed: start.elapsed(),
    }
}

async fn exchange(
    source: Ipv4Addr,
    target: SocketAddr,
    request: &Request,
    mark: &str,
) -> anyhow::Result<Answer> {
    let connection = connect(source, target).await?;
    match request {
        Request::Tcp { text, .. } => talk(connection, text).await,
        Request::Http { http2: true, .. } => {
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(connection)).await?;
            let driver = tokio::spawn(driver);
            let answer = read(sender.send_request(http_request(request, mark)?).await?).await;
            driver.abort();
            answer
        }
        Request::Http { .. } => {
            let (mut sender, driver) =
                hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
            let driver = tokio::spawn(driver);
            let answer = read(sender.send_request(http_request(request, mark)?).await?).await;
            driver.abort();
            answer
        }
    }
}

/// The request to send; in HTTP/2 its target says the host too.
fn http_request(request: &Request, mark: &str) -> anyhow::Result<hyper::Request<Empty<Bytes>>> {
    let Request::Http {
        method,
        authority,
        path,
        headers,
        http2,
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
    for (name, value) in headers.iter().filter(|(name, _)| name != "host") {
        builder = builder.header(name, value);
    }
    Ok(builder
        .header(EXCHANGE_HEADER.to_ascii_lowercase(), mark)
        .body(Empty::new())?)
}

/// Reads an answer to its end; trailers count as headers.
async fn read(response: hyper::Response<Incoming>) -> anyhow::Result<Answer> {
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
    })
}

async fn connect(source: Ipv4Addr, target: SocketAddr) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    Ok(socket.connect(target).await?)
}

/// Says a line, ends the sending side and reads until the end.
async fn talk(mut connection: TcpStream, text: &str) -> anyhow::Result<Answer> {
    connection.write_all(format!("{text}\n").as_bytes()).await?;
    connection.shutdown().await?;
    let mut said = Vec::new();
    (&mut connection)
        .take(MAX_BODY_BYTES as u64)
        .read_to_end(&mut said)
        .await?;
    anyhow::ensure!(!said.is_empty(), "the connection was closed without an answer");
    Ok(Answer {
        status: 0,
        headers: Vec::new(),
        body: String::from_utf8_lossy(&said).trim_end().to_owned(),
    })
}
