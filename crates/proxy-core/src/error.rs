//! Refused configuration: which field, and why.
//!
//! The proxy accepts a resource whole or refuses it naming the field. The refusal travels back to the control plane
//! as the `error_detail` of a NACK (xDS transport protocol, "ACK/NACK and resource type instance version"), or is
//! printed when a bootstrap file is validated.

use std::fmt;

/// The result of compiling a piece of configuration.
pub type ConfigResult<T> = Result<T, ConfigError>;

/// A configuration that was refused.
///
/// Built inside out: the innermost compiler names the reason, each caller prefixes the segment it knows.
///
/// ```
/// use proxy_core::ConfigError;
/// let error = ConfigError::new("must be positive").within("timeout").within("route").index(3).within("routes");
/// assert_eq!(error.to_string(), "routes[3].route.timeout: must be positive");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    path: String,
    reason: String,
}

impl ConfigError {
    /// A refusal for `reason`, with an empty path.
    #[must_use]
    pub fn new(reason: impl Into<String>) -> Self {
        Self {
            path: String::new(),
            reason: reason.into(),
        }
    }

    /// A refusal of the field called `field`.
    #[must_use]
    pub fn at(field: &str, reason: impl Into<String>) -> Self {
        Self::new(reason).within(field)
    }

    /// A refusal of a field that Envoy defines and this proxy does not enforce.
    #[must_use]
    pub fn unsupported(field: &str) -> Self {
        Self::at(field, "not supported by this proxy")
    }

    /// Prefixes the path with a field name.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        self.path = match self.path.as_bytes().first() {
            None => field.to_owned(),
            Some(b'[') => format!("{field}{}", self.path),
            Some(_) => format!("{field}.{}", self.path),
        };
        self
    }

    /// Prefixes the path with an index into a repeated field; follow it with [`within`](Self::within) for its name.
    #[must_use]
    pub fn index(self, index: usize) -> Self {
        self.segment(&format!("[{index}]"))
    }

    /// Prefixes the path with a key of a map field; follow it with [`within`](Self::within) for its name.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        self.segment(&format!("[\"{key}\"]"))
    }

    fn segment(mut self, bracketed: &str) -> Self {
        let dot = if self.path.is_empty() || self.path.starts_with('[') {
            ""
        } else {
            "."
        };
        self.path = format!("{bracketed}{dot}{}", self.path);
        self
    }

    /// The path of the refused field: names separated by dots, indexes and keys in brackets. May be empty.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Why the field was refused.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// Refuses the first field of `fields` that is set. For fields that Envoy defines and this proxy does not enforce:
/// each pair is the field's name and whether it is set.
///
/// # Errors
/// [`ConfigError::unsupported`] for the first field that is set.
pub fn refuse_unsupported(fields: &[(&str, bool)]) -> ConfigResult<()> {
    match fields.iter().find(|(_, set)| *set) {
        Some((field, _)) => Err(ConfigError::unsupported(field)),
        None => Ok(()),
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            f.write_str(&self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Prefixes path segments to the error of a result.
pub trait ConfigContext<T> {
    /// Prefixes a field name; see [`ConfigError::within`].
    ///
    /// # Errors
    /// The same error with a longer path.
    fn within(self, field: &str) -> ConfigResult<T>;
    /// Prefixes the field name of a repeated field and the index in it.
    ///
    /// # Errors
    /// The same error with a longer path.
    fn within_index(self, field: &str, index: usize) -> ConfigResult<T>;
}

impl<T> ConfigContext<T> for ConfigResult<T> {
    fn within(self, field: &str) -> ConfigResult<T> {
        self.map_err(|e| e.within(field))
    }

    fn within_index(self, field: &str, index: usize) -> ConfigResult<T> {
        self.map_err(|e| e.index(index).within(field))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_reads_from_the_outside_in() {
        let error = ConfigError::unsupported("tls")
            .within("match")
            .index(2)
            .within("filter_chains");
        assert_eq!(error.path(), "filter_chains[2].match.tls");
        assert_eq!(
            ConfigError::new("empty").index(0).index(1).within("a").path(),
            "a[1][0]"
        );
        assert_eq!(
            ConfigError::new("bad")
                .key("envoy.filters.http.cors")
                .within("map")
                .path(),
            { "map[\"envoy.filters.http.cors\"]" }
        );
    }

    #[test]
    fn an_error_without_a_path_is_its_reason() {
        assert_eq!(
            ConfigError::new("no listener address").to_string(),
            "no listener address"
        );
    }
}
