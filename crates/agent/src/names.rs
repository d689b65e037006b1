//! The names that Kubernetes accepts (RFC 1123). The files and sockets of a workload are named after it, so that no other
//! name may come as far as that.

use crate::limits::{MAX_DNS_LABEL_BYTES, MAX_DNS_SUBDOMAIN_BYTES};

/// A name without dots, as of namespaces and services.
#[must_use]
pub fn is_dns_label(name: &str) -> bool {
    let bytes = name.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=MAX_DNS_LABEL_BYTES).contains(&bytes.len())
        && bytes.iter().all(inner)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// One label, or several with dots between, as of pods and service accounts.
#[must_use]
pub fn is_dns_subdomain(name: &str) -> bool {
    name.len() <= MAX_DNS_SUBDOMAIN_BYTES && name.split('.').all(is_dns_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_is_a_label() {
        for good in ["reviews", "v4", "a-b-3"] {
            assert!(is_dns_label(good), "{good}");
        }
        for bad in ["", "Reviews", "a_b", "-a", "a-", "a.b", "..", "/../.."] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }

    #[test]
    fn a_pod_may_have_dots_in_its_name_but_no_empty_parts() {
        for good in ["reviews", "reviews.v1", "a-b.3"] {
            assert!(is_dns_subdomain(good), "{good}");
        }
        for bad in ["", ".", "..", "a..b", ".a", "a.", "a/b", "../a"] {
            assert!(!is_dns_subdomain(bad), "{bad}");
        }
        assert!(!is_dns_subdomain(&["a"; 128].join(".")));
    }
}
