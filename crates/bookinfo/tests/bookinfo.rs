//! The services together over real connections, without a mesh.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bookinfo::{ServiceName, Settings};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

/// How long anything here may take before its test fails; a real answer takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, within bounds.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

/// Starts a service on a free port of loopback; it ends with the runtime of its test.
async fn start(service: ServiceName, version: &str, environment: &[(&str, String)]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let variable = |name: &str| {
        environment
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.clone())
    };
    let settings = Settings::new(service, version, &variable);
    tokio::spawn(bookinfo::serve(listener, settings, std::future::pending()));
    address
}

/// The environment that finds `service` at `address`.
fn at(service: &str, address: SocketAddr) -> [(&'static str, String); 2] {
    let (host, port) = match service {
        "details" => ("DETAILS_HOSTNAME", "DETAILS_SERVICE_PORT"),
        "reviews" => ("REVIEWS_HOSTNAME", "REVIEWS_SERVICE_PORT"),
        _ => ("RATINGS_HOSTNAME", "RATINGS_SERVICE_PORT"),
    };
    [
        (host, address.ip().to_string()),
        (port, address.port().to_string()),
    ]
}

/// Starts all four, with this version of reviews; the answer is the address of productpage.
async fn start_shop(reviews_version: &str, ratings_version: &str) -> SocketAddr {
    let details = start(ServiceName::Details, "v1", &[]).await;
    let ratings = start(ServiceName::Ratings, ratings_version, &[]).await;
    let reviews = start(ServiceName::Reviews, reviews_version, &at("ratings", ratings)).await;
    let environment: Vec<_> = [
        at("details", details),
        at("reviews", reviews),
        at("ratings", ratings),
    ]
    .into_iter()
    .flatten()
    .collect();
    start(ServiceName::Productpage, "v1", &environment).await
}

async fn send(
    method: &str,
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> (StatusCode, HeaderMap, String) {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let mut request = Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::from(body.to_owned())).unwrap();
    let response = soon(client.request(request)).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap().to_bytes();
    (
        parts.status,
        parts.headers,
        String::from_utf8(body.to_vec()).unwrap(),
    )
}

async fn get(address: SocketAddr, path: &str) -> (StatusCode, String) {
    let (status, _, body) = send("GET", address, path, &[], "").await;
    (status, body)
}

#[tokio::test]
async fn the_page_shows_stars_in_the_color_of_the_version_of_reviews() {
    for (version, stars) in [
        ("v1", None),
        ("v2", Some("<font color=\"black\">")),
        ("v3", Some("<font color=\"red\">")),
    ] {
        let shop = start_shop(version, "v1").await;
        let (status, page) = get(shop, "/productpage").await;
        assert_eq!(status, StatusCode::OK);
        assert!(page.contains("paperback"), "details are on the page");
        match stars {
            Some(stars) => assert!(page.contains(stars), "{version}: {page}"),
            None => assert!(!page.contains("<font"), "{version}: {page}"),
        }
    }
}

#[tokio::test]
async fn the_api_mirrors_the_services() {
    let shop = start_shop("v3", "v1").await;
    let (_, products) = get(shop, "/api/v1/products").await;
    assert!(products.contains("The Comedy of Errors"));
    assert!(
        get(shop, "/api/v1/products/0")
            .await
            .1
            .contains("\"ISBN-10\":\"1234567890\"")
    );
    assert!(
        get(shop, "/api/v1/products/0/reviews")
            .await
            .1
            .contains("\"color\":\"red\"")
    );
    let (status, ratings) = get(shop, "/api/v1/products/0/ratings").await;
    assert_eq!(
        (status, ratings.as_str()),
        (
            StatusCode::OK,
            "{\"id\":0,\"ratings\":{\"Reviewer1\":5,\"Reviewer2\":4}}"
        )
    );
    assert_eq!(
        get(shop, "/api/v1/products/x/ratings").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(get(shop, "/nothing/here").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn the_page_apologises_when_reviews_are_gone() {
    let details = start(ServiceName::Details, "v1", &[]).await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let environment: Vec<_> = [at("details", details), at("reviews", nobody)]
        .into_iter()
        .flatten()
        .collect();
    let shop = start(ServiceName::Productpage, "v1", &environment).await;
    let (status, page) = get(shop, "/productpage").await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("Sorry, product reviews are currently unavailable for this book."));
    assert_eq!(
        get(shop, "/api/v1/products/0/reviews").await.0,
        StatusCode::INTERNAL_SERVER_ERROR
    );
}

#[tokio::test]
async fn reviews_say_when_ratings_are_gone() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let reviews = start(ServiceName::Reviews, "v2", &at("ratings", nobody)).await;
    let (status, body) = get(reviews, "/reviews/0").await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.contains("Ratings service is currently unavailable"));
}

#[tokio::test]
async fn signing_in_sends_the_end_user_header_to_every_service() {
    let (seen, mut headers) = tokio::sync::mpsc::channel(8);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let recorder = listener.local_addr().unwrap();
    tokio::spawn(record_heads(listener, seen));
    let environment: Vec<_> = [at("details", recorder), at("reviews", recorder)]
        .into_iter()
        .flatten()
        .collect();
    let shop = start(ServiceName::Productpage, "v1", &environment).await;

    let (status, answer, _) = send(
        "POST",
        shop,
        "/login",
        &[("referer", "/productpage")],
        "username=jason&passwd=x",
    )
    .await;
    assert_eq!(status, StatusCode::FOUND);
    assert_eq!(answer["location"], "/productpage");
    let cookie = answer["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();

    let traced = [
        ("cookie", cookie.as_str()),
        ("x-request-id", "r1"),
        ("traceparent", "t1"),
        ("x-other", "no"),
    ];
    let (_, _, page) = send("GET", shop, "/productpage", &traced, "").await;
    assert!(page.contains("jason"));
    for _ in 0..2 {
        let head = soon(headers.recv()).await.unwrap();
        assert!(head.contains("end-user: jason\r\n"), "{head}");
        assert!(
            head.contains("x-request-id: r1\r\n") && head.contains("traceparent: t1\r\n"),
            "{head}"
        );
        assert!(!head.contains("x-other"), "{head}");
    }
    let (_, answer, _) = send("GET", shop, "/logout", &[], "").await;
    assert!(answer["set-cookie"].to_str().unwrap().contains("Max-Age=0"));
}

/// A scripted upstream for HTTP/1 and HTTP/2: sends the fields of each request to the test and answers `{}`.
async fn record_heads(listener: TcpListener, seen: tokio::sync::mpsc::Sender<String>) {
    loop {
        let (connection, _) = listener.accept().await.unwrap();
        let seen = seen.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                let seen = seen.clone();
                async move {
                    let fields = request.headers().iter();
                    let head: String = fields
                        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
                        .collect();
                    seen.send(head).await.unwrap();
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Full::<Bytes>::from("{}")))
                }
            });
            // The client's end of the connection is no failure.
            let _ = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new())
                .serve_connection(hyper_util::rt::TokioIo::new(connection), service)
                .await;
        });
    }
}

#[tokio::test]
async fn ratings_remember_in_a_database_where_they_have_one() {
    let database = start(ServiceName::RatingsDb, "v1", &[]).await;
    let environment = [
        ("RATINGS_DATABASE", "ratingsdb".to_owned()),
        ("RATINGSDB_HOSTNAME", database.ip().to_string()),
        ("RATINGSDB_SERVICE_PORT", database.port().to_string()),
    ];
    let one = start(ServiceName::Ratings, "v1", &environment).await;
    let another = start(ServiceName::Ratings, "v1", &environment).await;
    assert!(get(one, "/ratings/0").await.1.contains("\"Reviewer1\":5"));
    let stars = "{\"Reviewer1\":1,\"Reviewer2\":2}";
    let (status, _, _) = send("POST", one, "/ratings/7", &[], stars).await;
    assert_eq!(status, StatusCode::OK);
    assert!(get(another, "/ratings/7").await.1.contains("\"Reviewer1\":1"));
}

#[tokio::test]
async fn ratings_without_their_database_say_so() {
    let environment = [
        ("RATINGS_DATABASE", "127.0.0.1".to_owned()),
        ("127.0.0.1_SERVICE_PORT", "1".to_owned()),
    ];
    let ratings = start(ServiceName::Ratings, "v1", &environment).await;
    let (status, answer) = get(ratings, "/ratings/0").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer.contains("could not connect to ratings database"));
}

#[tokio::test]
async fn posted_ratings_are_remembered() {
    let ratings = start(ServiceName::Ratings, "v1", &[]).await;
    let (status, _, _) = send(
        "POST",
        ratings,
        "/ratings/7",
        &[],
        "{\"Reviewer1\":1,\"Reviewer2\":2}",
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert!(get(ratings, "/ratings/7").await.1.contains("\"Reviewer1\":1"));
    assert_eq!(
        send("POST", ratings, "/ratings/7", &[], "five").await.0,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn a_service_finishes_running_requests_before_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let settings = Settings::new(ServiceName::Details, "v1", &|_| None);
    let server = tokio::spawn(bookinfo::serve(listener, settings, async { drop(stopped.await) }));
    assert_eq!(get(address, "/health").await.0, StatusCode::OK);
    stop.send(()).unwrap();
    soon(server).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
