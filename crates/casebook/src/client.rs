//! The application's side: sends requests from a pod's address and notes what comes back.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::rt::TokioIo;
use tls::{ClientContext, ConnectOptions};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::limits::{MAX_BODY_BYTES, REQUEST_TIME};
use crate::page::traffic::Request;
use crate::world::EXCHANGE_HEADER;

/// A connection, encrypted or not.
trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

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

/// Where a connection goes.
#[derive(Clone, Debug)]
pub struct Way {
    /// The address it starts from.
    pub source: Ipv4Addr,
    /// The address it goes to.
    pub target: SocketAddr,
    /// How it is encrypted, if it is.
    pub encryption: Option<Arc<ClientContext>>,
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
    let connection = connect(way).await?;
    match request {
        Request::Tcp { text, .. } => talk(connection, text).await,
        Request::Http {
            method,
            authority,
            path,
            headers,
        } => {
            let mut builder = hyper::Request::builder().method(method.as_str()).uri(path);
            if !headers.iter().any(|(name, _)| name == "host") {
                builder = builder.header("host", authority);
            }
            for (name, value) in headers {
                builder = builder.header(name, value);
            }
            let request = builder
                .header(EXCHANGE_HEADER, mark)
                .body(Empty::<Bytes>::new())?;
            let (mut sender, driver) =
                hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
            let driver = tokio::spawn(driver);
            let (head, body) = sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES)
                .collect()
                .await
                .map_err(anyhow::Error::from_boxed)?;
            driver.abort();
            let text =
                |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            Ok(Answer {
                status: head.status.as_u16(),
                headers: head
                    .headers
                    .iter()
                    .map(|(name, value)| (name.to_string(), text(value)))
                    .collect(),
                body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
            })
        }
    }
}

async fn connect(way: &Way) -> anyhow::Result<Box<dyn Connection>> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((way.source, 0)))?;
    let connection = socket.connect(way.target).await?;
    match &way.encryption {
        None => Ok(Box::new(connection)),
        Some(context) => {
            let (connection, _) = context.connect(connection, ConnectOptions::default()).await?;
            Ok(Box::new(connection))
        }
    }
}

/// Says a line, ends the sending side and reads until the end.
async fn talk(mut connection: Box<dyn Connection>, text: &str) -> anyhow::Result<Answer> {
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
