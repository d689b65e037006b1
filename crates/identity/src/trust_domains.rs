//! The trust domains of a mesh: its own, and Istio's aliases of it.

use crate::trust_domain::TrustDomain;

/// The trust domain of a mesh, and the names it had before or shares with others (`trustDomainAliases`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustDomains {
    own: TrustDomain,
    aliases: Vec<TrustDomain>,
}

impl TrustDomains {
    /// `own` is what identities are issued in; `aliases` are accepted as well. Repetitions are dropped.
    pub fn new(own: TrustDomain, aliases: impl IntoIterator<Item = TrustDomain>) -> Self {
        let mut kept: Vec<TrustDomain> = Vec::new();
        for alias in aliases {
            if alias != own && !kept.contains(&alias) {
                kept.push(alias);
            }
        }
        Self { own, aliases: kept }
    }

    /// What identities are issued in.
    pub fn own(&self) -> &TrustDomain {
        &self.own
    }

    /// What is accepted as well.
    pub fn aliases(&self) -> &[TrustDomain] {
        &self.aliases
    }

    /// Whether `domain` is the own one or an alias.
    pub fn contains(&self, domain: &TrustDomain) -> bool {
        *domain == self.own || self.aliases.contains(domain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(name: &str) -> TrustDomain {
        TrustDomain::new(name).expect("a trust domain")
    }

    #[test]
    fn aliases_are_accepted_beside_the_own_domain_and_listed_once() {
        let all = TrustDomains::new(domain("new"), [domain("old"), domain("new"), domain("old")]);
        assert_eq!(all.aliases(), [domain("old")]);
        assert!(all.contains(&domain("new")) && all.contains(&domain("old")));
        assert!(!all.contains(&domain("other")));
    }
}
