//! Servers of mode AUTO_PASSTHROUGH: whoever speaks the mesh's mutual TLS names a cluster by its server name, and the
//! gateway passes the connection on to it (Istio's gateways between networks).
//!
//! Listeners have a chain for each such name, clusters an entry of that name whose connections are not wrapped again.

use std::collections::BTreeSet;

use control_snapshot::{
    GatewayServer, Protocol, ProxyView, ServerTls, ServicePort, ServiceView, Shared, host,
};

/// The services inside the mesh that the hosts of a server cover, with each of their ports.
pub(crate) fn services<'a>(
    view: &'a ProxyView,
    server: &GatewayServer,
) -> impl Iterator<Item = (&'a ServiceView, &'a ServicePort)> {
    covered(view, server.server_names()).flat_map(|one| {
        let ports = one.service.ports.iter();
        ports
            .filter(|port| port.protocol != Protocol::Udp)
            .map(move |port| (&**one, port))
    })
}

/// The services inside the mesh that the hosts of any such server of the proxy cover.
pub(crate) fn of_all_servers(view: &ProxyView) -> impl Iterator<Item = &Shared<ServiceView>> {
    let servers = view.gateways.iter().flat_map(|port| &port.servers);
    let hosts = servers
        .filter(|server| server.tls == ServerTls::AutoPassthrough)
        .flat_map(GatewayServer::server_names);
    covered(view, hosts.collect())
}

fn covered(view: &ProxyView, hosts: BTreeSet<String>) -> impl Iterator<Item = &Shared<ServiceView>> {
    view.services.iter().filter(move |one| {
        !one.service.external && hosts.iter().any(|h| host::is_subset(&one.service.hostname, h))
    })
}
