//! Objects on their way in: what takes long to read of them is read before anybody waits for the store.

use serde_json::Value;

use crate::credentials::{Checked, Credential};
use crate::kind::Kind;

/// A new or changed object. Signatures and keys of credentials are checked already.
#[derive(Debug)]
pub struct Incoming {
    /// Its kind.
    pub(crate) kind: Kind,
    /// The complete JSON, metadata included.
    pub(crate) object: Value,
    /// What it holds for proxies; an error names the entry that is not base64.
    pub(crate) credential: Result<Option<Checked>, String>,
}

impl Incoming {
    /// Reads what takes long.
    #[must_use]
    pub fn read(kind: Kind, object: Value) -> Self {
        let credential = match kind {
            Kind::Secret => Credential::read(&object),
            Kind::ConfigMap => Ok(Credential::read_authorities(&object)),
            _ => Ok(None),
        };
        Self {
            kind,
            object,
            credential: credential.map(|found| found.map(Credential::checked)),
        }
    }
}
