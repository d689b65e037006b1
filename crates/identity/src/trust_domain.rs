//! Trust domains: the authority part of a SPIFFE id (SPIFFE-ID, section 2.1).

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_TRUST_DOMAIN_BYTES;

/// The name of a trust domain, as `cluster.local`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

/// Why a text is not the name of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TrustDomainError {
    /// There is no name.
    #[error("the trust domain is empty")]
    Empty,
    /// The name is longer than [`MAX_TRUST_DOMAIN_BYTES`].
    #[error("the trust domain has {0} bytes, more than {MAX_TRUST_DOMAIN_BYTES}")]
    TooLong(usize),
    /// Names consist of lowercase letters, digits, dots, dashes and underscores.
    #[error("the trust domain contains {0:?}; lowercase letters, digits, '.', '-' and '_' are allowed")]
    Character(char),
}

impl TrustDomain {
    /// Checks the name against the SPIFFE rules.
    ///
    /// # Errors
    /// When it breaks one.
    pub fn new(name: &str) -> Result<Self, TrustDomainError> {
        if name.is_empty() {
            return Err(TrustDomainError::Empty);
        }
        if name.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(TrustDomainError::TooLong(name.len()));
        }
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        match name.chars().find(|c| !allowed(*c)) {
            Some(wrong) => Err(TrustDomainError::Character(wrong)),
            None => Ok(Self(name.to_owned())),
        }
    }

    /// Reads the mesh's setting, in which Istio takes `@` for a dot (`user@project` was a Google account once).
    ///
    /// # Errors
    /// When the result breaks a SPIFFE rule.
    pub fn from_mesh_setting(value: &str) -> Result<Self, TrustDomainError> {
        Self::new(&value.replace('@', "."))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = TrustDomainError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::new(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::new(name).expect("a trust domain")
    }

    #[test]
    fn a_trust_domain_has_lowercase_letters_digits_dots_dashes_and_underscores() {
        for name in ["cluster.local", "a", "0", "td_1-x.example.com", "10.0.0.1"] {
            assert_eq!(domain(name).to_string(), name);
        }
        for (name, wrong) in [
            ("Cluster.local", 'C'),
            ("td:80", ':'),
            ("user@td", '@'),
            ("a%2e", '%'),
            ("tä", 'ä'),
            ("a b", ' '),
            ("[::1]", '['),
        ] {
            assert_eq!(TrustDomain::new(name), Err(TrustDomainError::Character(wrong)));
        }
    }

    #[test]
    fn a_trust_domain_is_neither_empty_nor_longer_than_255_bytes() {
        assert_eq!(TrustDomain::new(""), Err(TrustDomainError::Empty));
        assert!(TrustDomain::new(&"a".repeat(255)).is_ok());
        assert_eq!(
            TrustDomain::new(&"a".repeat(256)),
            Err(TrustDomainError::TooLong(256))
        );
    }

    #[test]
    fn the_mesh_setting_may_be_written_as_an_account() {
        let read = TrustDomain::from_mesh_setting("someone@project.example.com");
        assert_eq!(read, Ok(domain("someone.project.example.com")));
    }
}
