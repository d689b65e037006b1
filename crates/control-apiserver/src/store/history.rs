//! The recent past, per resource: what watches are served from.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Expired, Object, ResourcePrefix};
use crate::limits;

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One change.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    /// State after the change; for a deletion the last state, with the deletion's revision.
    pub(crate) object: Arc<Object>,
    /// State before the change.
    pub(crate) previous: Option<Arc<Object>>,
}

/// A bounded ring of events.
struct Ring {
    events: VecDeque<Event>,
    bytes: usize,
    /// Everything after this revision is in the ring.
    complete_after: u64,
}

/// The rings of all resources.
pub(super) struct History {
    rings: HashMap<ResourcePrefix, Ring>,
    /// The revision at which the server started; nothing before it is known.
    floor: u64,
}

impl History {
    pub(super) fn new(floor: u64) -> Self {
        Self {
            rings: HashMap::new(),
            floor,
        }
    }

    /// Appends an event; the oldest ones leave when a limit is reached.
    pub(super) fn push(&mut self, event: Event) {
        let floor = self.floor;
        let ring = self
            .rings
            .entry(event.object.key().resource())
            .or_insert_with(|| Ring {
                events: VecDeque::new(),
                bytes: 0,
                complete_after: floor,
            });
        ring.bytes += event.object.body().len();
        ring.events.push_back(event);
        while ring.events.len() > limits::HISTORY_EVENTS_PER_RESOURCE
            || (ring.bytes > limits::HISTORY_BYTES_PER_RESOURCE && ring.events.len() > 1)
        {
            if let Some(oldest) = ring.events.pop_front() {
                ring.bytes -= oldest.object.body().len();
                ring.complete_after = oldest.object.revision();
            }
        }
    }

    /// Events after `revision`, oldest first.
    pub(super) fn since(&self, resource: &ResourcePrefix, revision: u64) -> Result<Vec<Event>, Expired> {
        let Some(ring) = self.rings.get(resource) else {
            return if revision < self.floor {
                Err(Expired { oldest: self.floor })
            } else {
                Ok(Vec::new())
            };
        };
        if revision < ring.complete_after {
            return Err(Expired {
                oldest: ring.complete_after,
            });
        }
        let first = ring
            .events
            .partition_point(|event| event.object.revision() <= revision);
        Ok(ring.events.range(first..).cloned().collect())
    }
}
