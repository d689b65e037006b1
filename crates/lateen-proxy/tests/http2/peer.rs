//! An HTTP/2 client, an upstream that does what paths tell it, and proxies between them.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};

use crate::harness::{HTTP2, PATIENCE, Proxy, bootstrap, cluster_with, http_filters, listener};

/// Runs a test's client on this thread, and not for ever.
pub(crate) fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        tokio::time::timeout(PATIENCE, test)
            .await
            .expect("the test ends in time")
    })
}

/// Waits until something holds; the clients of this thread go on meanwhile.
pub(crate) async fn eventually_async(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

/// A connection to `address`.
pub(crate) async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::task::spawn_local(async move {
        // What ends it is seen by its streams.
        let _ = connection.await;
    });
    client.ready().await.unwrap()
}

/// A request of these fields.
pub(crate) fn request(method: &str, path: &str, fields: &[(&str, &str)]) -> Request<()> {
    let mut builder = Request::builder()
        .method(method)
        .uri(format!("http://app.test{path}"));
    for (name, value) in fields {
        builder = builder.header(*name, *value);
    }
    builder.body(()).unwrap()
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) fields: HeaderMap,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Sends a request and reads its answer.
pub(crate) async fn ask(client: &mut SendRequest<Bytes>, request: Request<()>) -> Result<Answer, h2::Error> {
    send(client, request, None, None).await
}

/// The same with a body and trailers.
pub(crate) async fn send(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let ends = body.is_none() && trailers.is_none();
    let mut ready = client.clone().ready().await?;
    let (response, mut stream) = ready.send_request(request, ends)?;
    if let Some(body) = body {
        stream.send_data(body, trailers.is_none())?;
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers)?;
    }
    receive(response).await
}

/// Reads an answer to its end.
pub(crate) async fn receive(response: h2::client::ResponseFuture) -> Result<Answer, h2::Error> {
    let (head, body) = response.await?.into_parts();
    let (body, trailers) = read(body).await?;
    Ok(Answer {
        status: head.status.as_u16(),
        fields: head.headers,
        body,
        trailers,
    })
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, body.trailers().await?))
}

/// An HTTP/2 upstream.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

/// Starts one. `/echo` is answered with the request's fields as text, its body and its trailers; `/reset/7` resets the
/// stream, `/half` after half an answer; `/refuse/2` refuses the first two; `/hang` never answers; `/go` ends the
/// connection with the answer; `/early` says 103 first; `/empty` ends after a head that says so, `/lengths` has two; `/grpc/14` fails so, `/grpc/14/2` the first two times,
/// and says what `grpc-timeout` it was told.
pub(crate) fn upstream() -> Upstream {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (Arc::clone(&connections), Arc::clone(&requests));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                counters.0.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(serve(stream, Arc::clone(&counters.1)));
            }
        });
    });
    Upstream {
        address,
        connections,
        requests,
    }
}

async fn serve(stream: tokio::net::TcpStream, requests: Arc<AtomicUsize>) {
    let Ok(mut connection) = h2::server::Builder::new()
        .max_concurrent_streams(4)
        .handshake(stream)
        .await
    else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let number = requests.fetch_add(1, Ordering::SeqCst);
        if request.uri().path() == "/go" {
            connection.graceful_shutdown();
        }
        tokio::spawn(async move {
            // The proxy's reset is the proxy's business; what the client sees is what counts.
            let _ = answer(request, respond, number).await;
        });
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    number: usize,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let mut words = path.split('/').skip(1);
    let (word, argument) = (words.next().unwrap_or_default(), words.next());
    let argument: usize = argument.and_then(|text| text.parse().ok()).unwrap_or(0);
    let times: usize = words
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or(usize::MAX);
    match word {
        "reset" => {
            respond.send_reset(Reason::from(u32::try_from(argument).unwrap_or(0)));
            return Ok(());
        }
        "refuse" if number < argument => {
            respond.send_reset(Reason::REFUSED_STREAM);
            return Ok(());
        }
        "half" => {
            let mut stream = respond.send_response(Response::new(()), false)?;
            stream.send_data("half".into(), false)?;
            // Time for the half to go out before the reset.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
            return Ok(());
        }
        "hang" => {
            let _ = std::future::poll_fn(|context| respond.poll_reset(context)).await;
            return Ok(());
        }
        "grpc" => {
            let status = if number < times { argument } else { 0 };
            let response = Response::builder()
                .header("content-type", "application/grpc")
                .header("grpc-status", status.to_string());
            let response = match head.headers.get("grpc-timeout") {
                Some(told) => response.header("x-timeout", told),
                None => response,
            };
            respond.send_response(response.body(()).unwrap(), true)?;
            return Ok(());
        }
        "empty" => {
            let response = Response::builder().header("content-length", "0");
            let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
            // Not with the head.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stream.send_data(Bytes::new(), true)?;
            return Ok(());
        }
        "lengths" => {
            let response = Response::builder()
                .header("content-length", "5")
                .header("content-length", "05");
            let mut stream = respond.send_response(response.body(()).unwrap(), false)?;
            stream.send_data("hello".into(), true)?;
            return Ok(());
        }
        "early" => {
            let early = Response::builder().status(103).header("link", "</style>");
            respond.send_informational(early.body(()).unwrap())?;
        }
        _ => {}
    }
    let mut text = format!("{} {}\n", head.method, head.uri);
    for (name, value) in &head.headers {
        text.push_str(&format!(
            "{name}: {}\n",
            String::from_utf8_lossy(value.as_bytes())
        ));
    }
    text.push('\n');
    let (bytes, trailers) = read(body).await?;
    let mut stream = respond.send_response(Response::new(()), false)?;
    stream.send_data(text.into(), false)?;
    if !bytes.is_empty() {
        stream.send_data(bytes.into(), trailers.is_none())?;
    } else if trailers.is_none() {
        stream.send_data(Bytes::new(), true)?;
    }
    if let Some(trailers) = trailers {
        stream.send_trailers(trailers)?;
    }
    Ok(())
}

/// What a cluster for HTTP/1 with trailers says.
pub(crate) const HTTP1: &str = "explicit_http_config: { http_protocol_options: { enable_trailers: true } }";

/// A filter list whose route has these extra fields, and whose connection manager has those. It writes what was spoken
/// and what came of each request into `log`.
pub(crate) fn filters(route: &str, manager: &str) -> String {
    let log = ", access_log: [{ name: file, typed_config: { \"@type\": \
               type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: log, log_format: { \
               text_format_source: { inline_string: \"%PROTOCOL% %UPSTREAM_PROTOCOL% %RESPONSE_CODE% \
               %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %GRPC_STATUS%\\n\" } } } }]";
    http_filters("app")
        .replacen("cluster: app", &format!("cluster: app{route}"), 1)
        .replacen(
            "stat_prefix: http",
            &format!("stat_prefix: http{manager}{log}"),
            1,
        )
}

/// Starts a proxy with one worker, so that connections meet, and that drains at once.
pub(crate) fn start(listener: &str, cluster: &str) -> Proxy {
    let bootstrap = bootstrap(&[listener.to_owned()], &[cluster.to_owned()]);
    let flags = ["--concurrency", "1", "--drain-strategy", "immediate"];
    let proxy = Proxy::start(&bootstrap, &flags);
    proxy.wait_live();
    proxy
}

/// A proxy with a plain listener.
pub(crate) fn proxy(cluster: &str, route: &str, manager: &str) -> Proxy {
    start(&listener("web", &filters(route, manager)), cluster)
}

/// A proxy in front of an HTTP/2 upstream.
pub(crate) fn http2_proxy(route: &str, manager: &str) -> (Proxy, Upstream) {
    let upstream = upstream();
    let proxy = proxy(&cluster_with("app", upstream.address, HTTP2), route, manager);
    (proxy, upstream)
}

/// The lines of the access log, once there are so many.
pub(crate) fn lines(proxy: &Proxy, count: usize) -> Vec<String> {
    crate::harness::eventually("the lines are written", || {
        let text = std::fs::read_to_string(proxy.path("log")).ok()?;
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (lines.len() >= count).then_some(lines)
    })
}
