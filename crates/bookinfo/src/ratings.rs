//! ratings: stars per reviewer, kept in memory or in a database, and the versions that misbehave on purpose.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hyper::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::database::{Database, Unavailable};
use crate::limits::{
    DELAYED_RATINGS_DELAY, MAX_RATED_PRODUCTS, UNAVAILABLE_RATINGS_PERIOD, UNHEALTHY_RATINGS_PERIOD,
};
use crate::reply::{Handler, Reply, Request, error, json, not_found, product_id};
use crate::settings::Settings;

/// How a version misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// `v-faulty`: half of the answers are errors.
    Faulty,
    /// `v-delayed`: half of the answers are late.
    Delayed,
    /// `v-unavailable`: up for a while, then down for as long, and so on.
    Unavailable,
    /// `v-unhealthy`: the same, slower, and the health check tells.
    Unhealthy,
}

/// The service.
#[derive(Debug)]
pub(crate) struct Ratings {
    fault: Fault,
    started: Instant,
    posted: Posted,
}

/// Ratings that were posted, by product.
#[derive(Debug)]
enum Posted {
    Here(Mutex<BTreeMap<u64, Value>>),
    Elsewhere(Database),
}

/// The answer when the database is not there; Istio's sample says the same.
fn no_database() -> Reply {
    error(
        StatusCode::INTERNAL_SERVER_ERROR,
        "could not connect to ratings database",
    )
}

impl Ratings {
    pub(crate) fn new(settings: &Settings) -> Self {
        let fault = match &*settings.version {
            "v-faulty" => Fault::Faulty,
            "v-delayed" => Fault::Delayed,
            "v-unavailable" => Fault::Unavailable,
            "v-unhealthy" => Fault::Unhealthy,
            _ => Fault::None,
        };
        Self {
            fault,
            started: Instant::now(),
            posted: match &settings.ratings_database {
                None => Posted::Here(Mutex::default()),
                Some(address) => Posted::Elsewhere(Database::new(address.clone())),
            },
        }
    }

    /// Whether the current period of this length is one of the bad ones: the second, the fourth, ...
    fn in_bad_period(&self, period: Duration) -> bool {
        (self.started.elapsed().as_secs() / period.as_secs()) % 2 == 1
    }

    fn is_healthy(&self) -> bool {
        self.fault != Fault::Unhealthy || !self.in_bad_period(UNHEALTHY_RATINGS_PERIOD)
    }

    fn health(&self) -> Reply {
        if self.is_healthy() {
            json(StatusCode::OK, &json!({ "status": "Ratings is healthy" }))
        } else {
            json(
                StatusCode::INTERNAL_SERVER_ERROR,
                &json!({ "status": "Ratings is not healthy" }),
            )
        }
    }

    async fn get(&self, id: u64) -> Reply {
        let unavailable = match self.fault {
            Fault::None => false,
            Fault::Faulty => rand::random_bool(0.5),
            Fault::Delayed => {
                if rand::random_bool(0.5) {
                    tokio::time::sleep(DELAYED_RATINGS_DELAY).await;
                }
                false
            }
            Fault::Unavailable => self.in_bad_period(UNAVAILABLE_RATINGS_PERIOD),
            Fault::Unhealthy => self.in_bad_period(UNHEALTHY_RATINGS_PERIOD),
        };
        if unavailable {
            return error(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable");
        }
        let posted = match &self.posted {
            Posted::Here(posted) => {
                let posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
                posted.get(&id).cloned()
            }
            Posted::Elsewhere(database) => match database.get(id).await {
                Ok(posted) => posted,
                Err(Unavailable) => return no_database(),
            },
        };
        let ratings = posted.unwrap_or_else(|| json!({ "Reviewer1": 5, "Reviewer2": 4 }));
        json(StatusCode::OK, &json!({ "id": id, "ratings": ratings }))
    }

    async fn post(&self, id: u64, body: &[u8]) -> Reply {
        let Ok(ratings @ Value::Object(_)) = serde_json::from_slice::<Value>(body) else {
            return error(StatusCode::BAD_REQUEST, "please provide valid ratings JSON");
        };
        match &self.posted {
            Posted::Here(posted) => {
                let mut posted = posted.lock().unwrap_or_else(PoisonError::into_inner);
                if posted.len() >= MAX_RATED_PRODUCTS && !posted.contains_key(&id) {
                    return error(StatusCode::INSUFFICIENT_STORAGE, "no more products can be rated");
                }
                posted.insert(id, ratings.clone());
            }
            Posted::Elsewhere(database) => {
                if database.set(id, &ratings).await.is_err() {
                    return no_database();
                }
            }
        }
        json(StatusCode::OK, &json!({ "id": id, "ratings": ratings }))
    }
}

impl Handler for Ratings {
    async fn handle(&self, request: Request) -> Reply {
        match (&request.method, &*request.path()) {
            (_, ["health"]) => self.health(),
            (method, ["ratings", id]) => match product_id(id) {
                Ok(id) if *method == Method::POST => self.post(id, &request.body).await,
                Ok(id) => self.get(id).await,
                Err(refusal) => *refusal,
            },
            _ => not_found(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ServiceName;

    fn ratings(version: &str) -> Ratings {
        Ratings::new(&Settings::new(ServiceName::Ratings, version, &|_| None))
    }

    async fn check_status(ratings: &Ratings, path: &'static str) -> StatusCode {
        let request = Request {
            method: Method::GET,
            uri: path.parse().unwrap(),
            headers: hyper::HeaderMap::new(),
            body: bytes::Bytes::new(),
        };
        ratings.handle(request).await.status()
    }

    #[tokio::test(start_paused = true)]
    async fn v_unavailable_goes_down_after_its_period_and_comes_back() {
        let ratings = ratings("v-unavailable");
        assert_eq!(check_status(&ratings, "/ratings/0").await, StatusCode::OK);
        tokio::time::advance(UNAVAILABLE_RATINGS_PERIOD).await;
        assert_eq!(
            check_status(&ratings, "/ratings/0").await,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(check_status(&ratings, "/health").await, StatusCode::OK);
        tokio::time::advance(UNAVAILABLE_RATINGS_PERIOD).await;
        assert_eq!(check_status(&ratings, "/ratings/0").await, StatusCode::OK);
    }

    #[tokio::test(start_paused = true)]
    async fn v_unhealthy_says_so_in_its_health_check() {
        let ratings = ratings("v-unhealthy");
        assert_eq!(check_status(&ratings, "/health").await, StatusCode::OK);
        tokio::time::advance(UNHEALTHY_RATINGS_PERIOD).await;
        assert_eq!(
            check_status(&ratings, "/health").await,
            StatusCode::INTERNAL_SERVER_ERROR
        );
        assert_eq!(
            check_status(&ratings, "/ratings/0").await,
            StatusCode::SERVICE_UNAVAILABLE
        );
    }

    #[tokio::test(start_paused = true)]
    async fn v_faulty_fails_about_half_of_the_time() {
        let ratings = ratings("v-faulty");
        let mut failed = 0;
        for _ in 0..1000 {
            failed += u32::from(check_status(&ratings, "/ratings/0").await != StatusCode::OK);
        }
        assert!((400..600).contains(&failed), "{failed} of 1000 failed");
    }

    #[tokio::test(start_paused = true)]
    async fn v_delayed_is_late_about_half_of_the_time() {
        let ratings = ratings("v-delayed");
        let start = Instant::now();
        for _ in 0..100 {
            assert_eq!(check_status(&ratings, "/ratings/0").await, StatusCode::OK);
        }
        let late = start.elapsed().as_secs() / DELAYED_RATINGS_DELAY.as_secs();
        assert!((25..75).contains(&late), "{late} of 100 were late");
    }
}
