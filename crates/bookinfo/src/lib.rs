//! The demo application: productpage, details, reviews v1 to v3, ratings, and what ratings remember.
//!
//! Four small HTTP services with the contract of Istio's bookinfo sample: the same paths, JSON, forwarded headers,
//! environment variables, time limits and deliberate faults, so that every task written for bookinfo works unchanged.
//! productpage asks details over gRPC, and ratings may keep what they know in a fifth service, which speaks the protocol of
//! Redis, so that a mesh around them carries all that it can. Each runs on one thread, in a few megabytes.

mod client;
mod database;
mod details;
mod forward;
mod grpc;
pub mod limits;
mod productpage;
mod ratings;
mod ratingsdb;
mod reply;
mod reviews;
mod server;
mod settings;

use std::future::Future;
use std::io;
use std::sync::Arc;

use tokio::net::TcpListener;

pub use settings::{ServiceName, Settings};

/// Serves one of the services until `shutdown` completes; then running requests are finished, for a bounded time.
///
/// # Errors
/// Only when the listener fails for good; a failing connection is closed and logged.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    match settings.service {
        ServiceName::Details => server::run(listener, Arc::new(details::Details), shutdown).await,
        ServiceName::Ratings => {
            let ratings = ratings::Ratings::new(&settings);
            server::run(listener, Arc::new(ratings), shutdown).await
        }
        ServiceName::RatingsDb => ratingsdb::run(listener, shutdown).await,
        ServiceName::Reviews => {
            server::run(listener, Arc::new(reviews::Reviews::new(settings)), shutdown).await
        }
        ServiceName::Productpage => {
            server::run(
                listener,
                Arc::new(productpage::Productpage::new(settings)),
                shutdown,
            )
            .await
        }
    }
}
