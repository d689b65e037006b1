//! Resources as they are sent.

use std::sync::Arc;

use api_envoy::any::{pack, unpack};
use api_envoy::{Any, Message, Name};

/// A resource ready to be sent. Proxies that get the same one share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Packed {
    /// The name that subscriptions use.
    pub name: Arc<str>,
    /// The resource.
    pub body: Arc<Any>,
}

impl Packed {
    pub(crate) fn new<M: Message + Name>(name: &str, message: &M) -> Self {
        Self {
            name: name.into(),
            body: Arc::new(pack(message)),
        }
    }

    /// The message that it was made of.
    pub(crate) fn message<M: Message + Name + Default>(&self) -> M {
        unpack(&self.body).expect("it holds what was packed, whole or part by part")
    }
}
