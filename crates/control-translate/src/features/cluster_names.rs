//! Names of clusters in statistics (`MeshConfig.outboundClusterStatName`, `inboundClusterStatName`).

use control_snapshot::{InboundPort, Mesh, Service, ServicePort};

/// The statistics name of an outbound cluster; its own name where the mesh has no pattern.
pub(crate) fn outbound(
    mesh: &Mesh,
    service: &Service,
    port: &ServicePort,
    subset: &str,
    name: &str,
) -> String {
    expand(&mesh.outbound_cluster_stat_name, service, port, subset, name)
}

/// The statistics name of an inbound cluster.
pub(crate) fn inbound(mesh: &Mesh, port: &InboundPort, name: &str) -> String {
    expand(
        &mesh.inbound_cluster_stat_name,
        &port.service,
        &port.port,
        "",
        name,
    )
}

fn expand(pattern: &str, service: &Service, port: &ServicePort, subset: &str, name: &str) -> String {
    if pattern.is_empty() {
        return name.to_owned();
    }
    let short = format!("{}.{}", service.name, service.namespace);
    pattern
        .replace(
            "%SERVICE%",
            if service.is_kubernetes() {
                &short
            } else {
                &service.hostname
            },
        )
        .replace("%SERVICE_NAME%", &service.name)
        .replace("%SERVICE_FQDN%", &service.hostname)
        .replace("%SERVICE_PORT%", &port.port.to_string())
        .replace(
            "%TARGET_PORT%",
            &port.target_port.unwrap_or(port.port).to_string(),
        )
        .replace("%SERVICE_PORT_NAME%", &port.name)
        .replace("%SUBSET_NAME%", subset)
}
