//! Host names as Istio reads them: short names, wildcards, and which of two wildcards is the more specific.

use std::cmp::Ordering;
use std::sync::Arc;

/// The fully qualified form of a host that an object in `namespace` names.
///
/// A name without a dot is a Service of that namespace; everything else (a name with dots, a wildcard, an address) is
/// taken as written.
pub fn resolve(host: &str, namespace: &str, domain: &str) -> Arc<str> {
    if host.is_empty() || host.contains('.') || host.contains('*') || host.contains(':') {
        Arc::from(host)
    } else {
        Arc::from(format!("{host}.{namespace}.svc.{domain}"))
    }
}

/// Whether a host begins with a wildcard.
#[must_use]
pub fn is_wildcard(host: &str) -> bool {
    host.starts_with('*')
}

/// Whether two hosts can name the same thing: equal, or one is a wildcard that covers the other.
#[must_use]
pub fn matches(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(a), None) => b.ends_with(a),
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// Whether `inner` is `outer`, or one of the names that the wildcard `outer` covers.
#[must_use]
pub fn is_subset(inner: &str, outer: &str) -> bool {
    match (inner.strip_prefix('*'), outer.strip_prefix('*')) {
        (Some(inner), Some(outer)) => inner.ends_with(outer),
        (Some(_), None) => false,
        (None, Some(outer)) => inner.ends_with(outer),
        (None, None) => inner == outer,
    }
}

/// Orders hosts from the most specific to the least: exact names before wildcards, longer before shorter, then by name.
#[must_use]
pub fn by_specificity(a: &str, b: &str) -> Ordering {
    is_wildcard(a)
        .cmp(&is_wildcard(b))
        .then_with(|| b.len().cmp(&a.len()))
        .then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_belong_to_the_namespace_that_names_them() {
        assert_eq!(
            &*resolve("reviews", "shop", "cluster.local"),
            "reviews.shop.svc.cluster.local"
        );
        assert_eq!(
            &*resolve("reviews.other", "shop", "cluster.local"),
            "reviews.other"
        );
        assert_eq!(&*resolve("*", "shop", "cluster.local"), "*");
    }

    #[test]
    fn wildcards_match_suffixes() {
        assert!(matches("*.example.test", "shop.example.test"));
        assert!(matches("*", "anything"));
        assert!(matches("*.example.test", "*.shop.example.test"));
        assert!(!matches("*.example.test", "example.test"));
        assert!(is_subset("*.shop.example.test", "*.example.test"));
        assert!(!is_subset("*.example.test", "*.shop.example.test"));
    }

    #[test]
    fn the_most_specific_host_comes_first() {
        let mut hosts = vec!["*", "*.a.test", "b.a.test", "*.b.a.test"];
        hosts.sort_by(|a, b| by_specificity(a, b));
        assert_eq!(hosts, ["b.a.test", "*.b.a.test", "*.a.test", "*"]);
    }
}
