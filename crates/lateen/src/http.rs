//! One GET, for the first page, the load generator and readiness questions.

use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::header::{HOST, USER_AGENT};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::limits::{MAX_BODY_BYTES, REQUEST_TIMEOUT};

/// Gets `http://address/path` over a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> anyhow::Result<(u16, Bytes)> {
    let asked = async {
        let connection = TcpStream::connect(address).await?;
        connection.set_nodelay(true)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await?;
        let connection = tokio::spawn(connection);
        let request = Request::get(path)
            .header(HOST, address.to_string())
            .header(USER_AGENT, concat!("lateen/", env!("CARGO_PKG_VERSION")))
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| anyhow::anyhow!(error))?.to_bytes();
        Ok((status, body))
    };
    tokio::time::timeout(REQUEST_TIMEOUT, asked)
        .await
        .context("no answer in time")?
}
