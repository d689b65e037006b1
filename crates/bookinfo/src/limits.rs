//! The limits of the demo application, by name.

use std::time::Duration;

/// The most connections that one service serves at once; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 256;

/// The largest request body that is read, in bytes (a login form, a rating).
pub const MAX_REQUEST_BODY_BYTES: usize = 16 * 1024;

/// The largest answer of another service that is read, in bytes.
pub const MAX_RESPONSE_BODY_BYTES: usize = 256 * 1024;

/// How long productpage waits for details, reviews and ratings, each try. Bookinfo's contract.
pub const PRODUCTPAGE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often productpage asks reviews before it gives up. Bookinfo's contract, and the deliberate bug of the
/// fault-injection task: two tries of 3 s end before a ratings delay of 7 s does.
pub const REVIEWS_TRIES: usize = 2;

/// How long reviews with black stars wait for ratings. Bookinfo's contract.
pub const PATIENT_RATINGS_TIMEOUT: Duration = Duration::from_secs(10);

/// How long reviews with stars of another colour wait for ratings. Bookinfo's contract.
pub const RATINGS_TIMEOUT: Duration = Duration::from_millis(2500);

/// The delay of every second answer of ratings `v-delayed`. Bookinfo's contract.
pub const DELAYED_RATINGS_DELAY: Duration = Duration::from_secs(7);

/// How long ratings `v-unavailable` stays up, then down. Bookinfo's contract.
pub const UNAVAILABLE_RATINGS_PERIOD: Duration = Duration::from_secs(60);

/// How long ratings `v-unhealthy` stays up, then down. Bookinfo's contract.
pub const UNHEALTHY_RATINGS_PERIOD: Duration = Duration::from_secs(15 * 60);

/// The most products whose ratings are remembered.
pub const MAX_RATED_PRODUCTS: usize = 1024;

/// The most words of a command to the database.
pub const MAX_COMMAND_WORDS: usize = 8;

/// The longest word of a command to the database, in bytes.
pub const MAX_COMMAND_WORD_BYTES: usize = 16 * 1024;

/// How long ratings wait for their database.
pub const DATABASE_TIMEOUT: Duration = Duration::from_secs(2);

/// The most extra requests to reviews for one page (`FLOOD_FACTOR`).
pub const MAX_FLOOD_FACTOR: usize = 100;

/// How long an unused connection to another service is kept.
pub const IDLE_CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);

/// How long running requests may take after shutdown has begun.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
