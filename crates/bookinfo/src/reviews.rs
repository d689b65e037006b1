//! reviews: two reviews of each book; from version 2 on with stars, which come from ratings.

use hyper::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::client::Client;
use crate::forward::forwarded;
use crate::limits::{PATIENT_RATINGS_TIMEOUT, RATINGS_TIMEOUT};
use crate::reply::{Handler, Reply, Request, json, not_found};
use crate::settings::Settings;

/// Who writes, and what.
const REVIEWS: [(&str, &str); 2] = [
    (
        "Reviewer1",
        "Two pairs of twins, one day in Ephesus, and not a single dull page. Wonderful!",
    ),
    (
        "Reviewer2",
        "Great fun from start to end, though it does not reach the depth of the later plays.",
    ),
];

/// The service.
#[derive(Debug)]
pub(crate) struct Reviews {
    settings: Settings,
    client: Client,
}

impl Reviews {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            client: Client::new(),
        }
    }

    async fn reviews(&self, id: &str, headers: &HeaderMap) -> Reply {
        let ratings = match &self.settings.star_color {
            Some(color) => Some(self.ratings(id, color, headers).await),
            None => None,
        };
        let reviews: Vec<Value> = REVIEWS
            .iter()
            .map(|(reviewer, text)| match &ratings {
                Some(ratings) => {
                    json!({ "reviewer": reviewer, "text": text, "rating": ratings.of(reviewer) })
                }
                None => json!({ "reviewer": reviewer, "text": text }),
            })
            .collect();
        let Settings {
            instance, cluster, ..
        } = &self.settings;
        json(
            StatusCode::OK,
            &json!({ "id": id, "podname": instance, "clustername": cluster, "reviews": reviews }),
        )
    }

    /// Black stars are patient and others are not: the difference that the fault-injection task is about.
    async fn ratings<'a>(&self, id: &str, color: &'a str, headers: &HeaderMap) -> Ratings<'a> {
        let limit = if color == "black" {
            PATIENT_RATINGS_TIMEOUT
        } else {
            RATINGS_TIMEOUT
        };
        let url = format!("{}/ratings/{id}", self.settings.ratings_url);
        match self.client.get(&url, &forwarded(headers), limit).await {
            Some((StatusCode::OK, mut answer)) => Ratings {
                color,
                stars: Some(answer["ratings"].take()),
            },
            _ => Ratings { color, stars: None },
        }
    }
}

/// What ratings answered, if it did.
struct Ratings<'a> {
    color: &'a str,
    stars: Option<Value>,
}

impl Ratings<'_> {
    fn of(&self, reviewer: &str) -> Value {
        match &self.stars {
            Some(stars) => json!({ "stars": stars[reviewer], "color": self.color }),
            None => json!({ "error": "Ratings service is currently unavailable" }),
        }
    }
}

impl Handler for Reviews {
    async fn handle(&self, request: Request) -> Reply {
        match *request.path() {
            ["health"] => json(StatusCode::OK, &json!({ "status": "Reviews is healthy" })),
            ["reviews", id] => self.reviews(id, &request.headers).await,
            _ => not_found(),
        }
    }
}
