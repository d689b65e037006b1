//! Where discovery services are: the address behind a static cluster.

use api_envoy::any;
use api_envoy::envoy::config::cluster::v3::Cluster;
use api_envoy::envoy::config::core::v3::address::Address;
use api_envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use api_envoy::envoy::config::core::v3::{TransportSocket, transport_socket::ConfigType};
use api_envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use api_envoy::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::UpstreamTlsContext;
use proxy_core::{ConfigError, ConfigResult};

/// Where the discovery service listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdsTarget {
    /// Host and port.
    Tcp(String, u16),
    /// A Unix domain socket.
    Unix(String),
}

/// Where the service behind a static cluster listens. What secures the connection is the cluster's own affair.
pub(super) fn service(cluster: &Cluster) -> ConfigResult<AdsTarget> {
    let name = &cluster.name;
    if !cluster.transport_socket_matches.is_empty() {
        let reason =
            format!("cluster {name} chooses transport sockets by endpoint, and one is needed for all");
        return Err(ConfigError::new(reason));
    }
    if !cluster.transport_socket.as_ref().is_none_or(is_spoken) {
        let reason = format!("cluster {name} has a transport socket that is neither plaintext nor TLS");
        return Err(ConfigError::new(reason));
    }
    let endpoint = cluster
        .load_assignment
        .iter()
        .flat_map(|a| &a.endpoints)
        .flat_map(|l| &l.lb_endpoints)
        .next();
    let address = endpoint.and_then(|endpoint| match &endpoint.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint.address.as_ref()?.address.as_ref(),
        _ => None,
    });
    match address {
        Some(Address::Pipe(pipe)) => Ok(AdsTarget::Unix(pipe.path.clone())),
        Some(Address::SocketAddress(socket)) => match socket.port_specifier {
            Some(PortSpecifier::PortValue(port)) if u16::try_from(port).is_ok() => Ok(AdsTarget::Tcp(
                socket.address.clone(),
                u16::try_from(port).unwrap_or_default(),
            )),
            _ => Err(ConfigError::new(format!(
                "the endpoint of cluster {name} has no port"
            ))),
        },
        _ => Err(ConfigError::new(format!(
            "cluster {name} has no endpoint with an address"
        ))),
    }
}

/// Whether services are spoken to over such a transport socket: plaintext and TLS. Whatever else is to be around or
/// instead of TLS would be left out.
fn is_spoken(socket: &TransportSocket) -> bool {
    match &socket.config_type {
        Some(ConfigType::TypedConfig(typed)) => {
            any::is::<RawBuffer>(typed) || any::is::<UpstreamTlsContext>(typed)
        }
        // A transport socket by name alone is looked at, and refused where it is unknown, with the cluster.
        None => true,
    }
}
