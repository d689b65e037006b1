//! The state that every request works on.

use arc_swap::ArcSwap;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::catalog::Catalog;
use crate::clock::Clock;
use crate::status::Status;
use crate::store::{Store, StoreError};

/// Everything behind the service.
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) catalog: ArcSwap<Catalog>,
    pub(crate) authenticator: Authenticator,
    pub(crate) clock: Clock,
    /// Held by writes of kinds that allocate from a shared range.
    pub(crate) exclusive: tokio::sync::Mutex<()>,
    /// Ends watches and background tasks.
    pub(crate) stopping: CancellationToken,
}

impl Api {
    pub(crate) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from((self.clock)())
    }

    /// Reads the CRDs again; called after each change of one, before it is acknowledged.
    pub(crate) fn refresh_catalog(&self) {
        self.catalog.rcu(|catalog| catalog.refreshed(&self.store));
    }
}

/// What a failed write is answered with; conflicts are the callers' own matter.
pub(crate) fn write_failure(error: &StoreError) -> Status {
    match error {
        StoreError::Full(why) => Status::disk_full(why),
        other => Status::internal(other),
    }
}
