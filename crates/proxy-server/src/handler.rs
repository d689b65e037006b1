//! What accepting and serving connections needs of a worker (Envoy's `ConnectionHandler`).

use std::rc::Rc;

use crate::balancer::Balancer;
use crate::listeners::Listeners;
use crate::local::Local;

/// A worker as those see it that take its connections. Cheap to clone within its thread, and not `Send`.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionHandler {
    /// What connections may touch.
    pub(crate) local: Local,
    /// Where connections arrive, or are handed to.
    pub(crate) listeners: Rc<Listeners>,
    /// The other workers.
    pub(crate) balancer: Rc<Balancer>,
}
