//! The names under which requests may ask for a service.

use control_snapshot::{Resolution, Service};

/// Every name of a service: fully qualified with and without the final dot, the short forms, those of ExternalName
/// services that stand for it, and its addresses. The workloads of a headless service have names below its own. In the
/// namespace `near` its services have the shortest form, too.
pub(super) fn of_service(service: &Service, near: Option<&str>, domain: &str) -> Vec<String> {
    let mut domains = Vec::new();
    for host in hosts(service) {
        add_host(&mut domains, host, near, domain, "");
    }
    if service.headless && service.resolution == Resolution::Passthrough {
        add_host(&mut domains, &service.hostname, near, domain, "*.");
    }
    domains.extend(service.addresses.iter().map(|a| a.to_string()));
    let mut seen = std::collections::BTreeSet::new();
    domains.retain(|d| seen.insert(d.clone()));
    domains
}

/// Whether a service has names that are shorter for clients of a namespace than for others.
pub(super) fn shorter_in(service: &Service, namespace: &str, domain: &str) -> bool {
    hosts(service).any(|host| name_and_namespace(host, domain).is_some_and(|(_, of)| of == namespace))
}

fn hosts(service: &Service) -> impl Iterator<Item = &str> {
    std::iter::once(&service.hostname)
        .chain(&service.aliases)
        .map(|host| &**host)
}

/// The parts of `name.namespace.svc.domain`, the only form that has short ones.
fn name_and_namespace<'a>(host: &'a str, domain: &str) -> Option<(&'a str, &'a str)> {
    let host = host.strip_suffix(domain)?.strip_suffix(".svc.")?;
    host.rsplit_once('.')
}

fn add_host(domains: &mut Vec<String>, host: &str, near: Option<&str>, domain: &str, prefix: &str) {
    domains.push(format!("{prefix}{host}"));
    domains.push(format!("{prefix}{host}."));
    let Some((name, of)) = name_and_namespace(host, domain) else {
        return;
    };
    if near == Some(of) {
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
                Some(namespace),
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
