//! SPIFFE ids (SPIFFE-ID, section 2) and the form that Istio gives them.

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_SPIFFE_ID_BYTES;
use crate::trust_domain::{TrustDomain, TrustDomainError};

/// `spiffe://<trust domain>/<path>`: who somebody is.
///
/// Ids are compared byte by byte, as the rules leave no two spellings of one id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpiffeId {
    trust_domain: TrustDomain,
    /// Empty, or with a leading slash.
    path: String,
}

/// A Kubernetes service account: what an Istio identity stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Why a text is not a SPIFFE id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpiffeIdError {
    /// It does not begin with `spiffe://`.
    #[error("the id does not begin with spiffe://")]
    Scheme,
    /// It is longer than [`MAX_SPIFFE_ID_BYTES`].
    #[error("the id has {0} bytes, more than {MAX_SPIFFE_ID_BYTES}")]
    TooLong(usize),
    /// It has a query or a fragment.
    #[error("the id contains {0:?}: it may have neither a query nor a fragment")]
    QueryOrFragment(char),
    /// It has user information or a port.
    #[error("the id contains {0:?} before its path: it may have neither user information nor a port")]
    UserOrPort(char),
    /// It is percent-encoded.
    #[error("the id contains '%': nothing in it may be percent-encoded")]
    PercentEncoded,
    /// Its trust domain breaks a rule.
    #[error(transparent)]
    TrustDomain(#[from] TrustDomainError),
    /// Its path ends in a slash.
    #[error("the path ends in '/'")]
    TrailingSlash,
    /// Its path has an empty segment.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// Its path has a relative segment.
    #[error("the path has a segment {0:?}")]
    RelativeSegment(String),
    /// Paths consist of letters, digits, dots, dashes and underscores.
    #[error("the path contains {0:?}; letters, digits, '.', '-' and '_' are allowed")]
    Character(char),
}

const PREFIX: &str = "spiffe://";

impl SpiffeId {
    /// An id from its parts; `path` is empty or begins with a slash.
    ///
    /// # Errors
    /// When the path breaks a rule, or the whole is too long.
    pub fn new(trust_domain: TrustDomain, path: &str) -> Result<Self, SpiffeIdError> {
        check_path(path)?;
        let length = PREFIX.len() + trust_domain.as_str().len() + path.len();
        if length > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong(length));
        }
        Ok(Self {
            trust_domain,
            path: path.to_owned(),
        })
    }

    /// Istio's `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.
    ///
    /// # Errors
    /// When a part is empty or has a character that no SPIFFE path may have.
    pub fn workload(trust_domain: TrustDomain, account: &ServiceAccount) -> Result<Self, SpiffeIdError> {
        let ServiceAccount { namespace, name } = account;
        if let Some(slash) = [namespace, name]
            .iter()
            .find_map(|p| p.chars().find(|c| *c == '/'))
        {
            return Err(SpiffeIdError::Character(slash));
        }
        if name.is_empty() {
            return Err(SpiffeIdError::EmptySegment);
        }
        Self::new(trust_domain, &format!("/ns/{namespace}/sa/{name}"))
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The path: empty, or with a leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The service account, when the id has Istio's form.
    pub fn service_account(&self) -> Option<ServiceAccount> {
        let mut segments = self.path.strip_prefix("/ns/")?.split('/');
        let (namespace, sa, name) = (segments.next()?, segments.next()?, segments.next()?);
        (sa == "sa" && segments.next().is_none()).then(|| ServiceAccount {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

fn check_path(path: &str) -> Result<(), SpiffeIdError> {
    let Some(segments) = path.strip_prefix('/') else {
        return match path.chars().next() {
            None => Ok(()),
            Some(first) => Err(SpiffeIdError::Character(first)),
        };
    };
    if segments.is_empty() || segments.ends_with('/') {
        return Err(SpiffeIdError::TrailingSlash);
    }
    for segment in segments.split('/') {
        match segment {
            "" => return Err(SpiffeIdError::EmptySegment),
            "." | ".." => return Err(SpiffeIdError::RelativeSegment(segment.to_owned())),
            _ => {}
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        match segment.chars().find(|c| !allowed(*c)) {
            Some('%') => return Err(SpiffeIdError::PercentEncoded),
            Some(wrong) => return Err(SpiffeIdError::Character(wrong)),
            None => {}
        }
    }
    Ok(())
}

impl FromStr for SpiffeId {
    type Err = SpiffeIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() > MAX_SPIFFE_ID_BYTES {
            return Err(SpiffeIdError::TooLong(text.len()));
        }
        let rest = text.strip_prefix(PREFIX).ok_or(SpiffeIdError::Scheme)?;
        if let Some(mark) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(SpiffeIdError::QueryOrFragment(mark));
        }
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        match authority.chars().find(|c| matches!(c, '@' | ':' | '%')) {
            Some('%') => return Err(SpiffeIdError::PercentEncoded),
            Some(mark) => return Err(SpiffeIdError::UserOrPort(mark)),
            None => {}
        }
        Self::new(TrustDomain::new(authority)?, path)
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}{}", self.trust_domain, self.path)
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn refused(text: &str) -> SpiffeIdError {
        text.parse::<SpiffeId>().expect_err(text)
    }

    #[test]
    fn ids_print_as_they_were_read() {
        for text in [
            "spiffe://cluster.local/ns/default/sa/bookinfo-reviews",
            "spiffe://example.com",
            "spiffe://example.com/9eebccd2-12bf-40a6-b262-65fe0487d453",
            "spiffe://td/Path/With.Dots/And_Underscores/...",
        ] {
            assert_eq!(
                text.parse::<SpiffeId>().map(|id| id.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn the_scheme_must_be_spiffe() {
        for text in [
            "",
            "https://td/a",
            "SPIFFE://td/a",
            "spiffe:/td/a",
            "td/a",
            " spiffe://td/a",
        ] {
            assert_eq!(refused(text), SpiffeIdError::Scheme);
        }
    }

    #[test]
    fn the_trust_domain_must_be_there_and_well_formed() {
        assert_eq!(refused("spiffe://"), TrustDomainError::Empty.into());
        assert_eq!(refused("spiffe:///path"), TrustDomainError::Empty.into());
        assert_eq!(
            refused("spiffe://TD/path"),
            TrustDomainError::Character('T').into()
        );
    }

    #[test]
    fn user_information_and_ports_are_refused() {
        assert_eq!(refused("spiffe://me@td/a"), SpiffeIdError::UserOrPort('@'));
        assert_eq!(refused("spiffe://td:443/a"), SpiffeIdError::UserOrPort(':'));
        assert_eq!(refused("spiffe://td:/a"), SpiffeIdError::UserOrPort(':'));
    }

    #[test]
    fn queries_and_fragments_are_refused() {
        assert_eq!(refused("spiffe://td/a?b"), SpiffeIdError::QueryOrFragment('?'));
        assert_eq!(refused("spiffe://td/a#b"), SpiffeIdError::QueryOrFragment('#'));
        assert_eq!(refused("spiffe://td?"), SpiffeIdError::QueryOrFragment('?'));
    }

    #[test]
    fn percent_encoding_is_refused_everywhere() {
        assert_eq!(refused("spiffe://td/%61"), SpiffeIdError::PercentEncoded);
        assert_eq!(refused("spiffe://t%64/a"), SpiffeIdError::PercentEncoded);
    }

    #[test]
    fn paths_have_no_empty_or_relative_segments_and_no_trailing_slash() {
        assert_eq!(refused("spiffe://td/"), SpiffeIdError::TrailingSlash);
        assert_eq!(refused("spiffe://td/a/"), SpiffeIdError::TrailingSlash);
        assert_eq!(refused("spiffe://td//a"), SpiffeIdError::EmptySegment);
        assert_eq!(refused("spiffe://td/a//b"), SpiffeIdError::EmptySegment);
        for segment in [".", ".."] {
            let wrong = SpiffeIdError::RelativeSegment(segment.to_owned());
            assert_eq!(refused(&format!("spiffe://td/a/{segment}")), wrong);
            assert_eq!(refused(&format!("spiffe://td/{segment}/a")), wrong);
        }
    }

    #[test]
    fn paths_have_letters_digits_dots_dashes_and_underscores_only() {
        for wrong in ['~', '*', ' ', 'é', ':', '@', '\0', '\\', '+'] {
            assert_eq!(
                refused(&format!("spiffe://td/a{wrong}")),
                SpiffeIdError::Character(wrong)
            );
        }
    }

    #[test]
    fn an_id_has_at_most_2048_bytes() {
        let longest = format!("spiffe://td/{}", "a".repeat(2048 - 12));
        assert!(longest.parse::<SpiffeId>().is_ok());
        assert_eq!(refused(&format!("{longest}a")), SpiffeIdError::TooLong(2049));
    }

    #[test]
    fn a_service_account_becomes_an_id_and_back() {
        let account = ServiceAccount {
            namespace: "default".to_owned(),
            name: "reviews".to_owned(),
        };
        let domain = TrustDomain::new("cluster.local").expect("a trust domain");
        let id = SpiffeId::workload(domain, &account).expect("an id");
        assert_eq!(id.to_string(), "spiffe://cluster.local/ns/default/sa/reviews");
        assert_eq!(id.service_account(), Some(account));
    }

    #[test]
    fn a_service_account_cannot_break_out_of_its_segment() {
        for (namespace, name) in [
            ("a/sa/b", "c"),
            ("a", "b/c"),
            ("", "b"),
            ("a", ""),
            ("..", "b"),
            ("a", "b?c"),
        ] {
            let account = ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            let domain = TrustDomain::new("td").expect("a trust domain");
            assert!(SpiffeId::workload(domain, &account).is_err(), "{account}");
        }
    }

    #[test]
    fn other_paths_are_no_service_accounts() {
        for text in [
            "spiffe://td",
            "spiffe://td/ns/a",
            "spiffe://td/ns/a/sa",
            "spiffe://td/ns/a/sb/c",
            "spiffe://td/ns/a/sa/c/d",
            "spiffe://td/x/ns/a/sa/c",
        ] {
            assert_eq!(text.parse::<SpiffeId>().expect(text).service_account(), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_prints_back(text in "spiffe://[a-z.:@%A]{0,6}[/a-z.%?#~]{0,12}") {
            if let Ok(id) = text.parse::<SpiffeId>() {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
