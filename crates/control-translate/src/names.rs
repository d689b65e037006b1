//! The names Istio gives to clusters, and the fixed ones (`pilot/pkg/networking/util`).

/// Traffic that goes nowhere.
pub const BLACK_HOLE_CLUSTER: &str = "BlackHoleCluster";
/// Traffic to the address the application dialled.
pub const PASSTHROUGH_CLUSTER: &str = "PassthroughCluster";
/// Traffic to the application on a port no service leads to.
pub const INBOUND_PASSTHROUGH_CLUSTER: &str = "InboundPassthroughCluster";
/// Traffic to the host a request names, by DNS.
pub const DYNAMIC_DNS_CLUSTER: &str = "AllowAnyDynamicDNSCluster";
/// The catch-all virtual host where unknown hosts pass.
pub const ALLOW_ANY: &str = "allow_any";
/// The catch-all virtual host where unknown hosts are refused.
pub const BLOCK_ALL: &str = "block_all";
/// The catch-all virtual host where unknown hosts are resolved by DNS.
pub const ALLOW_ANY_DYNAMIC_DNS: &str = "allow_any_dynamic_dns";
/// The listener that captured outbound traffic arrives at.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// The listener that captured inbound traffic arrives at.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";
/// The wildcard address of IPv4.
pub const WILDCARD: &str = "0.0.0.0";
/// Loopback.
pub const LOCALHOST: &str = "127.0.0.1";
/// Where the proxy's connections to its application come from, so that they are not captured again.
pub const INBOUND_SOURCE: &str = "127.0.0.6";

/// `outbound|80|v1|reviews.default.svc.cluster.local`.
#[must_use]
pub fn outbound(port: u32, subset: &str, host: &str) -> String {
    format!("outbound|{port}|{subset}|{host}")
}

/// `inbound|9080||`.
#[must_use]
pub fn inbound(port: u32) -> String {
    format!("inbound|{port}||")
}

/// The server name clients of the mesh send for a cluster: `outbound_.80_.v1_.reviews.default.svc.cluster.local`.
#[must_use]
pub fn server_name(port: u32, subset: &str, host: &str) -> String {
    format!("outbound_.{port}_.{subset}_.{host}")
}

/// The statistics name of a cluster or connection manager: Istio closes it with a semicolon, so that tags can be cut.
#[must_use]
pub fn stat(name: &str) -> String {
    format!("{name};")
}

/// Port, subset and host out of an outbound cluster's name.
#[must_use]
pub fn parts(cluster: &str) -> Option<(u32, &str, &str)> {
    let mut parts = cluster.strip_prefix("outbound|")?.splitn(3, '|');
    Some((parts.next()?.parse().ok()?, parts.next()?, parts.next()?))
}
