//! Secrets of other namespaces: refused unless their namespace grants them (`gateway.networking.k8s.io/ReferenceGrant`).

use crate::credential_name::CredentialName;
use crate::objects::Objects;
use crate::protocol::Protocol;
use crate::server_tls::ServerTls;

/// The API groups in which there is a kind Gateway: Kubernetes' and Istio's.
const GATEWAY_GROUPS: [&str; 2] = ["gateway.networking.k8s.io", "networking.istio.io"];

/// Whether Gateways of the namespace `borrower` may use the Secret of this name: its namespace says so.
pub(crate) fn grants(objects: &Objects, borrower: &str, name: &CredentialName<'_>) -> bool {
    let there = |key: &&(String, String)| key.0 == name.namespace;
    let mut of_lender = objects.reference_grants.iter().filter(|(key, _)| there(key));
    name.grantable
        && of_lender.any(|(_, grant)| {
            let from = grant.spec.from.iter().any(|from| {
                from.kind == "Gateway"
                    && GATEWAY_GROUPS.contains(&from.group.as_str())
                    && from.namespace == borrower
            });
            let to = grant.spec.to.iter().any(|to| {
                let any = to.name.is_empty();
                to.kind == "Secret" && to.group.is_empty() && (any || to.name == name.name)
            });
            from && to
        })
}

/// Whether a Gateway of this namespace refers to this SDS resource. A grant is for Gateways, not for whoever asks.
pub(crate) fn refers(objects: &Objects, namespace: &str, resource: &str) -> bool {
    let own = objects.gateways.iter().filter(|((of, _), _)| of == namespace);
    own.flat_map(|(_, gateway)| &gateway.spec.servers).any(|server| {
        let protocol = server.port.as_ref().map_or("", |p| p.protocol.as_str());
        let (tls, _) = ServerTls::read(server, Protocol::parse(protocol));
        tls.is_some_and(|tls| tls.secrets().any(|name| name == resource))
    })
}
