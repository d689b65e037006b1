//! The name table (NDS): what the agent's DNS proxy answers (`istio.networking.nds.v1.NameTable`).

use api_envoy::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
use control_snapshot::{Origin, ProxyKind, ProxyView, ServiceView};

/// Every host with addresses that a sidecar's application may look up. Gateways resolve nothing for others.
pub(crate) fn build(view: &ProxyView) -> NameTable {
    if view.profile.kind == ProxyKind::Gateway {
        return NameTable::default();
    }
    let entry = |service: &ServiceView| Some((service.service.hostname.to_string(), info(service)?));
    NameTable {
        table: view.services.iter().filter_map(|s| entry(s)).collect(),
    }
}

fn info(view: &ServiceView) -> Option<NameInfo> {
    let service = &view.service;
    let own = service.addresses.iter().filter(|a| !a.contains('/'));
    let ips: Vec<String> = own
        .chain(&view.workload_addresses)
        .map(|a| a.to_string())
        .collect();
    if ips.is_empty() {
        return None;
    }
    Some(match service.origin {
        Origin::Kubernetes => NameInfo {
            ips,
            registry: "Kubernetes".to_owned(),
            shortname: service.name.to_string(),
            namespace: service.namespace.to_string(),
            ..NameInfo::default()
        },
        Origin::ServiceEntry(_) => NameInfo {
            ips,
            registry: "External".to_owned(),
            ..NameInfo::default()
        },
    })
}
