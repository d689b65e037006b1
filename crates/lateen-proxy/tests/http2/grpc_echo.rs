//! A gRPC upstream that answers with the request's body, and says how it was asked. `/not/grpc` is answered with an
//! error page.

use std::net::{SocketAddr, TcpListener};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

/// Starts one.
pub(crate) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let Ok(mut connection) = h2::server::handshake(stream).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(async move {
                            // The proxy's reset is the proxy's business.
                            let _ = answer(request, respond).await;
                        });
                    }
                });
            }
        });
    });
    address
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Result<(), h2::Error> {
    let (head, mut body) = request.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    if head.uri.path() == "/not/grpc" {
        let response = Response::builder()
            .status(503)
            .header("content-type", "text/plain");
        let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
        return stream.send_data("100% sorry".into(), true);
    }
    let field = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or("-").to_owned()
    };
    let asked = ["content-type", "te", "grpc-accept-encoding"]
        .map(field)
        .join(" ");
    let response = Response::builder()
        .header("content-type", "application/grpc")
        .header("x-asked", asked);
    let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
    stream.send_data(bytes.into(), false)?;
    let mut trailers = HeaderMap::new();
    for (name, value) in [
        ("grpc-status", "0"),
        ("grpc-message", "well done"),
        ("x-more", "1"),
    ] {
        trailers.insert(name, value.parse().unwrap());
    }
    stream.send_trailers(trailers)
}
