//! The names under which requests may ask for a service.

use control_snapshot::{Resolution, Service};

/// Every name of a service for clients of a namespace: fully qualified with and without the final dot, the short
/// forms, those of ExternalName services that stand for it, and its addresses. The workloads of a headless service
/// have names below its own.
pub(super) fn of_service(service: &Service, namespace: &str, domain: &str) -> Vec<String> {
    let mut domains = Vec::new();
    add_host(&mut domains, &service.hostname, namespace, domain, "");
    for alias in &service.aliases {
        add_host(&mut domains, alias, namespace, domain, "");
    }
    if service.headless && service.resolution == Resolution::Passthrough {
        add_host(&mut domains, &service.hostname, namespace, domain, "*.");
    }
    domains.extend(service.addresses.iter().map(|a| a.to_string()));
    let mut seen = std::collections::BTreeSet::new();
    domains.retain(|d| seen.insert(d.clone()));
    domains
}

fn add_host(domains: &mut Vec<String>, host: &str, namespace: &str, domain: &str, prefix: &str) {
    domains.push(format!("{prefix}{host}"));
    domains.push(format!("{prefix}{host}."));
    // `name.namespace.svc.domain` is the only form that has short ones.
    let suffix = format!(".svc.{domain}");
    let Some((name, of)) = host.strip_suffix(&suffix).and_then(|h| h.rsplit_once('.')) else {
        return;
    };
    if of == namespace {
        domains.push(format!("{prefix}{name}"));
    }
    domains.push(format!("{prefix}{name}.{of}.svc"));
    domains.push(format!("{prefix}{name}.{of}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bare_name_is_for_clients_of_the_same_namespace_only() {
        let of = |namespace: &str| {
            let mut domains = Vec::new();
            add_host(
                &mut domains,
                "caller.other.svc.cluster.local",
                namespace,
                "cluster.local",
                "",
            );
            domains
        };
        assert!(of("other").contains(&"caller".to_owned()));
        assert_eq!(
            of("default"),
            [
                "caller.other.svc.cluster.local",
                "caller.other.svc.cluster.local.",
                "caller.other.svc",
                "caller.other"
            ]
        );
    }
}
