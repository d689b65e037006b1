//! The trust domains of a mesh: its own, and Istio's aliases of it.

use crate::spiffe::SpiffeId;
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

    /// The same path in the id's own trust domain and in every one of these, without repetitions, the id first:
    /// who a peer may claim to be when `id` is expected of it.
    pub fn expand(&self, id: &SpiffeId) -> Vec<SpiffeId> {
        let mut all = vec![id.clone()];
        for domain in std::iter::once(&self.own).chain(&self.aliases) {
            let same = id.in_domain(domain.clone());
            if !all.contains(&same) {
                all.push(same);
            }
        }
        all
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

    #[test]
    fn an_identity_is_expanded_to_every_trust_domain_once() {
        let all = TrustDomains::new(domain("new"), [domain("old")]);
        let expand = |id: &str| -> Vec<String> {
            let id: SpiffeId = id.parse().expect("an id");
            all.expand(&id).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            expand("spiffe://old/ns/a/sa/b"),
            ["spiffe://old/ns/a/sa/b", "spiffe://new/ns/a/sa/b"]
        );
        assert_eq!(
            expand("spiffe://third/ns/a/sa/b"),
            [
                "spiffe://third/ns/a/sa/b",
                "spiffe://new/ns/a/sa/b",
                "spiffe://old/ns/a/sa/b"
            ]
        );
    }
}
