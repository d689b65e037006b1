//! Endpoint sets (`envoy.config.endpoint.v3.ClusterLoadAssignment`) compiled for the workers: immutable, shared.
//!
//! Compiling against the previous set keeps what did not change: a worker recognises an unchanged priority by its
//! pointer and does nothing for it.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::address::Address as AddressKind;
use api_envoy::envoy::config::core::v3::socket_address::PortSpecifier;
use api_envoy::envoy::config::endpoint::v3 as pb;
use api_envoy::envoy::config::endpoint::v3::lb_endpoint::HostIdentifier;
use foldhash::{HashSet, HashSetExt as _};
use prost_types::value::Kind;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::limits;
use crate::transport::{Transport, TransportSelection};

/// Where a host listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostAddress {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix domain socket.
    Pipe(Arc<Path>),
    /// A name that is not resolved yet; such a host is never handed to a worker.
    Name(Arc<str>, u16),
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Pipe(path) => write!(f, "{}", path.display()),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
        }
    }
}

/// A host's health, as load balancing sees it (`LbEndpoint.health_status`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// `UNKNOWN` or `HEALTHY`.
    #[default]
    Healthy,
    /// `DEGRADED`: used when the healthy hosts do not suffice.
    Degraded,
    /// `UNHEALTHY`, `DRAINING` or `TIMEOUT`: used only in panic.
    Unhealthy,
}

/// One host, as configured.
#[derive(Clone, Debug, PartialEq)]
pub struct HostSpec {
    /// What identifies the host across updates: its address, or for a logical DNS host its name.
    pub key: Box<str>,
    /// Where it listens.
    pub address: HostAddress,
    /// `Endpoint.hostname`, or the DNS name that it was resolved from; may be empty.
    pub hostname: Box<str>,
    /// `LbEndpoint.load_balancing_weight`, at least 1.
    pub weight: u32,
    /// What load balancing sees.
    pub health: Health,
    /// `LbEndpoint.health_status` as it came.
    pub health_status: core::HealthStatus,
    /// What consistent hashing hashes instead of name or address: `hash_key` of the metadata `envoy.lb`. Nothing else of
    /// `LbEndpoint.metadata` is kept; [`HostSpec::transport`] was chosen by it.
    pub hash_key: Option<Box<str>>,
    /// The locality.
    pub locality: Arc<core::Locality>,
    /// The priority, 0 is first.
    pub priority: u32,
    /// Its transport socket.
    pub transport: Transport,
}

/// The hosts of one locality within one priority.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalitySpec {
    /// The locality.
    pub locality: Arc<core::Locality>,
    /// `LocalityLbEndpoints.load_balancing_weight`; 0 when absent.
    pub weight: u32,
    /// Its hosts.
    pub hosts: Vec<Arc<HostSpec>>,
}

/// The hosts of one priority.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrioritySpec {
    /// Grouped by locality, in the order of the configuration.
    pub localities: Vec<LocalitySpec>,
}

/// The endpoints of one cluster.
#[derive(Clone, Debug)]
pub struct Assignment {
    /// By priority.
    pub priorities: Vec<Arc<PrioritySpec>>,
    /// How much more a priority is trusted to take than its share of healthy hosts, in percent.
    pub overprovisioning_percent: u32,
    /// Whether a priority's health counts weights instead of hosts.
    pub weighted_priority_health: bool,
}

impl Default for Assignment {
    fn default() -> Self {
        Self {
            priorities: Vec::new(),
            overprovisioning_percent: limits::DEFAULT_OVERPROVISIONING_PERCENT,
            weighted_priority_health: false,
        }
    }
}

impl Assignment {
    /// Compiles a load assignment; priorities that equal those of `previous` are shared with it.
    ///
    /// # Errors
    /// A field that is malformed, or that would change traffic and is not enforced here.
    pub fn compile(
        proto: &pb::ClusterLoadAssignment,
        transport: &TransportSelection,
        previous: Option<&Self>,
    ) -> ConfigResult<Self> {
        let mut this = Self::compile_names(proto, transport)?;
        let mut by_name = this
            .hosts()
            .filter(|h| matches!(h.address, HostAddress::Name(..)));
        if let Some(host) = by_name.next() {
            let reason = format!(
                "{} is not an IP address, and names are only resolved by DNS clusters",
                host.address
            );
            return Err(ConfigError::at("endpoints", reason));
        }
        drop(by_name);
        if let Some(previous) = previous {
            this.share_with(previous);
        }
        Ok(this)
    }

    /// Compiles a load assignment whose addresses may be names to resolve.
    pub(crate) fn compile_names(
        proto: &pb::ClusterLoadAssignment,
        transport: &TransportSelection,
    ) -> ConfigResult<Self> {
        refuse_unsupported(&[("named_endpoints", !proto.named_endpoints.is_empty())])?;
        let mut this = Self::default();
        this.read_policy(proto.policy.as_ref()).within("policy")?;
        let mut priorities: Vec<PrioritySpec> = Vec::new();
        let mut seen = HashSet::new();
        for (index, group) in proto.endpoints.iter().enumerate() {
            let locality = compile_locality(group, transport, &mut seen).within_index("endpoints", index)?;
            let priority = group.priority as usize;
            if priorities.len() <= priority {
                priorities.resize_with(priority + 1, PrioritySpec::default);
            }
            merge(&mut priorities[priority], locality);
        }
        this.priorities = priorities.into_iter().map(Arc::new).collect();
        Ok(this)
    }

    fn read_policy(&mut self, policy: Option<&pb::cluster_load_assignment::Policy>) -> ConfigResult<()> {
        let Some(policy) = policy else { return Ok(()) };
        refuse_unsupported(&[
            ("drop_overloads", !policy.drop_overloads.is_empty()),
            ("endpoint_stale_after", policy.endpoint_stale_after.is_some()),
        ])?;
        if let Some(percent) = policy.overprovisioning_factor {
            if percent == 0 {
                return Err(ConfigError::at("overprovisioning_factor", "must be positive"));
            }
            self.overprovisioning_percent = percent;
        }
        self.weighted_priority_health = policy.weighted_priority_health;
        Ok(())
    }

    /// Every host, in the order of priorities and localities.
    pub fn hosts(&self) -> impl Iterator<Item = &Arc<HostSpec>> {
        self.priorities
            .iter()
            .flat_map(|p| &p.localities)
            .flat_map(|l| &l.hosts)
    }

    /// Takes over each priority of `previous` that is equal, so that workers see that nothing changed there.
    pub(crate) fn share_with(&mut self, previous: &Self) {
        for (now, before) in self.priorities.iter_mut().zip(&previous.priorities) {
            if now == before {
                *now = Arc::clone(before);
            }
        }
    }
}

/// Groups of the same locality and priority are one group.
fn merge(priority: &mut PrioritySpec, locality: LocalitySpec) {
    match priority
        .localities
        .iter_mut()
        .find(|l| l.locality == locality.locality)
    {
        Some(same) => {
            same.hosts.extend(locality.hosts);
            same.weight = locality.weight;
        }
        None => priority.localities.push(locality),
    }
}

fn compile_locality(
    group: &pb::LocalityLbEndpoints,
    transport: &TransportSelection,
    seen: &mut HashSet<Box<str>>,
) -> ConfigResult<LocalitySpec> {
    refuse_unsupported(&[("lb_config", group.lb_config.is_some())])?;
    if group.priority > limits::MAX_PRIORITY {
        return Err(ConfigError::at(
            "priority",
            format!("must not be above {}", limits::MAX_PRIORITY),
        ));
    }
    let locality = Arc::new(group.locality.clone().unwrap_or_default());
    let mut hosts = Vec::with_capacity(group.lb_endpoints.len());
    let mut total_weight: u32 = 0;
    for (index, endpoint) in group.lb_endpoints.iter().enumerate() {
        let host = compile_host(endpoint, group, &locality, transport).within_index("lb_endpoints", index)?;
        total_weight = total_weight
            .checked_add(host.weight)
            .ok_or_else(|| ConfigError::at("lb_endpoints", "the sum of weights exceeds 2^32-1"))?;
        // Of hosts with the same address the first counts.
        if seen.insert(host.key.clone()) {
            hosts.push(Arc::new(host));
        }
    }
    Ok(LocalitySpec {
        locality,
        weight: group.load_balancing_weight.unwrap_or(0),
        hosts,
    })
}

fn compile_host(
    proto: &pb::LbEndpoint,
    group: &pb::LocalityLbEndpoints,
    locality: &Arc<core::Locality>,
    transport: &TransportSelection,
) -> ConfigResult<HostSpec> {
    let endpoint = match &proto.host_identifier {
        Some(HostIdentifier::Endpoint(endpoint)) => endpoint,
        Some(HostIdentifier::EndpointName(_)) => return Err(ConfigError::unsupported("endpoint_name")),
        None => return Err(ConfigError::at("endpoint", "missing")),
    };
    refuse_unsupported(&[("additional_addresses", !endpoint.additional_addresses.is_empty())])
        .within("endpoint")?;
    let address = compile_address(endpoint.address.as_ref())
        .within("address")
        .within("endpoint")?;
    let weight = proto.load_balancing_weight.unwrap_or(1);
    if weight == 0 {
        return Err(ConfigError::at("load_balancing_weight", "must be positive"));
    }
    let health_status = core::HealthStatus::try_from(proto.health_status)
        .map_err(|_| ConfigError::at("health_status", "not a health status"))?;
    let hostname = match &address {
        HostAddress::Name(name, _) if endpoint.hostname.is_empty() => (**name).into(),
        _ => endpoint.hostname.as_str().into(),
    };
    Ok(HostSpec {
        key: address.to_string().into(),
        address,
        hostname,
        weight,
        health: health(health_status),
        health_status,
        hash_key: proto.metadata.as_ref().and_then(hash_key),
        locality: Arc::clone(locality),
        priority: group.priority,
        transport: transport.of(proto.metadata.as_ref(), group.metadata.as_ref()),
    })
}

/// The metadata by which a host's hash key may be given.
const LB_METADATA: &str = "envoy.lb";

fn hash_key(metadata: &core::Metadata) -> Option<Box<str>> {
    let value = metadata
        .filter_metadata
        .get(LB_METADATA)?
        .fields
        .get("hash_key")?;
    match &value.kind {
        Some(Kind::StringValue(key)) if !key.is_empty() => Some(key.as_str().into()),
        _ => None,
    }
}

fn health(status: core::HealthStatus) -> Health {
    match status {
        core::HealthStatus::Unknown | core::HealthStatus::Healthy => Health::Healthy,
        core::HealthStatus::Degraded => Health::Degraded,
        core::HealthStatus::Unhealthy | core::HealthStatus::Draining | core::HealthStatus::Timeout => {
            Health::Unhealthy
        }
    }
}

fn compile_address(proto: Option<&core::Address>) -> ConfigResult<HostAddress> {
    match proto.and_then(|a| a.address.as_ref()) {
        None => Err(ConfigError::new("missing")),
        Some(AddressKind::Pipe(pipe)) => Ok(HostAddress::Pipe(Path::new(&pipe.path).into())),
        Some(AddressKind::EnvoyInternalAddress(_)) => Err(ConfigError::unsupported("envoy_internal_address")),
        Some(AddressKind::SocketAddress(socket)) => compile_socket_address(socket).within("socket_address"),
    }
}

fn compile_socket_address(socket: &core::SocketAddress) -> ConfigResult<HostAddress> {
    refuse_unsupported(&[
        (
            "protocol",
            socket.protocol != core::socket_address::Protocol::Tcp as i32,
        ),
        ("resolver_name", !socket.resolver_name.is_empty()),
        (
            "network_namespace_filepath",
            !socket.network_namespace_filepath.is_empty(),
        ),
    ])?;
    let port = port(socket)?;
    if socket.address.is_empty() {
        return Err(ConfigError::at("address", "must not be empty"));
    }
    Ok(match socket.address.parse() {
        Ok(ip) => HostAddress::Ip(SocketAddr::new(ip, port)),
        Err(_) => HostAddress::Name(socket.address.as_str().into(), port),
    })
}

pub(crate) fn port(socket: &core::SocketAddress) -> ConfigResult<u16> {
    match &socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => {
            u16::try_from(*port).map_err(|_| ConfigError::at("port_value", "not a port number"))
        }
        Some(PortSpecifier::NamedPort(_)) => Err(ConfigError::unsupported("named_port")),
        None => Ok(0),
    }
}
