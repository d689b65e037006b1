//! productpage: the web page, its JSON twin, and signing in.

mod page;
mod session;

use hyper::header::{HeaderName, HeaderValue, LOCATION, REFERER, SET_COOKIE};
use hyper::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::client::Client;
use crate::forward::forwarded;
use crate::grpc::{self, BookDetails, GetDetailsRequest};
use crate::limits::{PRODUCTPAGE_TIMEOUT, REVIEWS_TRIES};
use crate::reply::{Handler, Reply, Request, error, json, not_found, product_id, respond};
use crate::settings::Settings;

const END_USER: HeaderName = HeaderName::from_static("end-user");

/// The one product of the shop.
pub(crate) const TITLE: &str = "The Comedy of Errors";
pub(crate) const DESCRIPTION_HTML: &str = "<a href=\"https://en.wikipedia.org/wiki/The_Comedy_of_Errors\">Summary</a>: \
     one of <b>William Shakespeare's</b> first plays, and his shortest: twins who were parted at sea meet in a town \
     where everybody takes one for the other.";

/// The service.
#[derive(Debug)]
pub(crate) struct Productpage {
    settings: Settings,
    client: Client,
}

/// An answer of another service: its status, and what it said or the apology for it.
type Part = (StatusCode, Value);

impl Productpage {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            client: Client::new(),
        }
    }

    async fn page(&self, headers: &HeaderMap) -> Reply {
        let user = session::user(headers);
        let headers = outgoing(headers, user.as_deref());
        self.flood(&headers);
        let (details, reviews) = tokio::join!(self.details("0", &headers), self.reviews("0", &headers));
        let html = page::render(user.as_deref(), &self.settings.instance, &details.1, &reviews.1);
        respond(StatusCode::OK, "text/html; charset=utf-8", html)
    }

    /// `FLOOD_FACTOR`: that many more requests to reviews, whose answers nobody waits for.
    fn flood(&self, headers: &HeaderMap) {
        for _ in 0..self.settings.flood_factor {
            let (client, headers) = (self.client.clone(), headers.clone());
            let url = format!("{}/reviews/0", self.settings.reviews_url);
            tokio::spawn(async move { client.get(&url, &headers, PRODUCTPAGE_TIMEOUT).await });
        }
    }

    async fn details(&self, id: &str, headers: &HeaderMap) -> Part {
        let method = (&*self.settings.details_url, grpc::GET_DETAILS);
        let request = GetDetailsRequest {
            id: id.parse().unwrap_or_default(),
        };
        let answer = self.client.call(method, headers, &request, PRODUCTPAGE_TIMEOUT);
        match answer.await {
            Some(details) => (StatusCode::OK, BookDetails::to_json(&details)),
            None => (
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({ "error": "Sorry, product details are currently unavailable for this book." }),
            ),
        }
    }

    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Part {
        let url = format!("{}/reviews/{id}", self.settings.reviews_url);
        let apology = "Sorry, product reviews are currently unavailable for this book.";
        self.ask(&url, headers, REVIEWS_TRIES, apology).await
    }

    async fn ratings(&self, id: &str, headers: &HeaderMap) -> Part {
        let url = format!("{}/ratings/{id}", self.settings.ratings_url);
        self.ask(
            &url,
            headers,
            1,
            "Sorry, product ratings are currently unavailable for this book.",
        )
        .await
    }

    async fn ask(&self, url: &str, headers: &HeaderMap, tries: usize, apology: &str) -> Part {
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        for _ in 0..tries {
            match self.client.get(url, headers, PRODUCTPAGE_TIMEOUT).await {
                Some((StatusCode::OK, answer)) => return (StatusCode::OK, answer),
                Some((other, _)) => status = other,
                None => status = StatusCode::INTERNAL_SERVER_ERROR,
            }
        }
        (status, json!({ "error": apology }))
    }

    async fn api(&self, path: &[&str], headers: &HeaderMap) -> Reply {
        let (id, rest) = match *path {
            [] => {
                return json(
                    StatusCode::OK,
                    &json!([{ "id": 0, "title": TITLE, "descriptionHtml": DESCRIPTION_HTML }]),
                );
            }
            [id, ref rest @ ..] => (id, rest),
        };
        if let Err(refusal) = product_id(id) {
            return *refusal;
        }
        let headers = outgoing(headers, session::user(headers).as_deref());
        let (status, value) = match *rest {
            [] => self.details(id, &headers).await,
            ["reviews"] => self.reviews(id, &headers).await,
            ["ratings"] => self.ratings(id, &headers).await,
            _ => return not_found(),
        };
        json(status, &value)
    }
}

impl Handler for Productpage {
    async fn handle(&self, request: Request) -> Reply {
        match (&request.method, &*request.path()) {
            (&Method::GET, []) => respond(StatusCode::OK, "text/html; charset=utf-8", page::index()),
            (&Method::GET, ["health"]) => respond(StatusCode::OK, "text/plain", "Product page is healthy"),
            (&Method::GET, ["productpage"]) => self.page(&request.headers).await,
            (&Method::GET, ["static", "style.css"]) => respond(StatusCode::OK, "text/css", page::STYLE),
            (&Method::POST, ["login"]) => login(&request),
            (&Method::GET | &Method::POST, ["logout"]) => back(&request, &session::clear()),
            (&Method::GET, ["api", "v1", "products", path @ ..]) => self.api(path, &request.headers).await,
            (_, ["login" | "productpage"]) => error(StatusCode::METHOD_NOT_ALLOWED, "method not allowed"),
            _ => not_found(),
        }
    }
}

/// The headers for the services behind: what came in, and who is signed in.
fn outgoing(incoming: &HeaderMap, user: Option<&str>) -> HeaderMap {
    let mut headers = forwarded(incoming);
    if let Some(value) = user.and_then(|user| HeaderValue::from_str(user).ok()) {
        headers.insert(END_USER, value);
    }
    headers
}

/// Any name signs in, as in the sample: there is nothing to protect.
fn login(request: &Request) -> Reply {
    match session::username(&request.body) {
        Some(user) => back(request, &session::cookie(&user)),
        None => error(StatusCode::BAD_REQUEST, "the form needs a field \"username\""),
    }
}

/// Sends the browser back to where it came from, with a new cookie.
fn back(request: &Request, cookie: &str) -> Reply {
    let mut reply = respond(StatusCode::FOUND, "text/plain", "");
    let referer = request.headers.get(REFERER).cloned();
    let location = referer.unwrap_or_else(|| HeaderValue::from_static("/productpage"));
    reply.headers_mut().insert(LOCATION, location);
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        reply.headers_mut().insert(SET_COOKIE, cookie);
    }
    reply
}
