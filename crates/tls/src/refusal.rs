//! Why material or settings are refused, in words that name what is wrong and never hold a key.

use std::time::SystemTime;

/// Why a TLS context cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ContextError {
    /// Text that should hold certificates or lists is cut off or damaged.
    #[error("{what} is not whole PEM: {reason}")]
    Pem {
        /// The field.
        what: &'static str,
        /// What the reader stumbled over.
        reason: &'static str,
    },
    /// Nothing is in it.
    #[error("{what} is empty")]
    Empty {
        /// The field.
        what: &'static str,
    },
    /// More is in it than its limit.
    #[error("{what} has more than {limit} entries")]
    TooMany {
        /// The field.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A certificate or list cannot be read.
    #[error("{what}, number {number}: {reason}")]
    Unreadable {
        /// The field.
        what: &'static str,
        /// Which one in it, from one.
        number: usize,
        /// Why.
        reason: String,
    },
    /// The certificate, or every certificate of a bundle, is past its validity.
    #[error("{what} expired {}", since(*.not_after))]
    Expired {
        /// The field.
        what: &'static str,
        /// When it ended.
        not_after: SystemTime,
    },
    /// The certificate, or every certificate of a bundle, is not valid yet; one of the clocks is wrong.
    #[error("{what} is not valid before {}", since(*.not_before))]
    NotYetValid {
        /// The field.
        what: &'static str,
        /// When it begins.
        not_before: SystemTime,
    },
    /// There is no key, or none that can be read. What was found is not repeated.
    #[error("private_key is no readable private key")]
    Key,
    /// The key is of another certificate.
    #[error("private_key does not belong to the first certificate of certificate_chain")]
    KeyMismatch,
    /// A name in a list of names is not known, or nothing is left of the list.
    #[error("{what}: \"{name}\" is not supported; there are {supported}")]
    Unsupported {
        /// The field.
        what: &'static str,
        /// The name.
        name: String,
        /// What there is.
        supported: String,
    },
    /// A value is not what the field takes.
    #[error("{what}: {reason}")]
    Invalid {
        /// The field.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl ContextError {
    pub(crate) fn invalid(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Invalid {
            what,
            reason: reason.into(),
        }
    }
}

/// RFC 3339, without a fraction.
fn since(moment: SystemTime) -> String {
    let moment = time::OffsetDateTime::from(moment);
    moment
        .format(&time::format_description::well_known::Rfc3339)
        .unwrap_or_else(|_| "at an unprintable time".to_owned())
}
