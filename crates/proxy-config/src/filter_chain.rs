//! Which filter chain takes a connection (`envoy.config.listener.v3.FilterChainMatch`).
//!
//! Envoy looks at one criterion after the other: destination port, destination address, server name, transport
//! protocol, application protocols, direct source address, source type, source address, source port. At each step
//! the most specific value that matches decides, and chains that do not name that value are out: there is no way
//! back to a less specific value when a later step finds nothing. What is then left of the listener is its default
//! filter chain.

use std::collections::HashMap;
use std::net::IpAddr;

use api_envoy::envoy::config::listener::v3::{FilterChainMatch, filter_chain_match::ConnectionSourceType};
use ipnet::IpNet;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult, ConnectionInfo};

use crate::address::cidr_range;

/// The criteria of one filter chain. An empty list matches everything, less specifically than any value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainMatch {
    destination_port: Option<u16>,
    destination: Vec<IpNet>,
    /// Exact names, or suffixes that begin with a dot. Lower case.
    server_names: Vec<String>,
    transport_protocol: String,
    application_protocols: Vec<String>,
    direct_source: Vec<IpNet>,
    source_type: SourceType,
    source: Vec<IpNet>,
    source_ports: Vec<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum SourceType {
    #[default]
    Any,
    SameIpOrLoopback,
    External,
}

impl ChainMatch {
    /// Reads the criteria of a chain.
    ///
    /// # Errors
    /// A malformed value, or a criterion that Envoy does not implement either.
    pub fn compile(proto: Option<&FilterChainMatch>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Ok(Self::default());
        };
        if !proto.address_suffix.is_empty() {
            return Err(ConfigError::unsupported("address_suffix"));
        }
        if proto.suffix_len.is_some() {
            return Err(ConfigError::unsupported("suffix_len"));
        }
        let names = proto.server_names.iter().enumerate();
        Ok(Self {
            destination_port: proto
                .destination_port
                .map(port)
                .transpose()
                .within("destination_port")?,
            destination: ranges("prefix_ranges", &proto.prefix_ranges)?,
            server_names: names
                .map(|(i, name)| server_name(name).within_index("server_names", i))
                .collect::<ConfigResult<_>>()?,
            transport_protocol: proto.transport_protocol.clone(),
            application_protocols: proto.application_protocols.clone(),
            direct_source: ranges("direct_source_prefix_ranges", &proto.direct_source_prefix_ranges)?,
            source_type: match ConnectionSourceType::try_from(proto.source_type) {
                Ok(ConnectionSourceType::Any) => SourceType::Any,
                Ok(ConnectionSourceType::SameIpOrLoopback) => SourceType::SameIpOrLoopback,
                Ok(ConnectionSourceType::External) => SourceType::External,
                Err(_) => return Err(ConfigError::at("source_type", "unknown value")),
            },
            source: ranges("source_prefix_ranges", &proto.source_prefix_ranges)?,
            source_ports: (proto.source_ports.iter().enumerate())
                .map(|(i, p)| port(*p).within_index("source_ports", i))
                .collect::<ConfigResult<_>>()?,
        })
    }

    /// Whether some connection would match both without either being more specific.
    fn overlaps(&self, other: &Self) -> bool {
        self.destination_port == other.destination_port
            && self.transport_protocol == other.transport_protocol
            && self.source_type == other.source_type
            && share(&self.destination, &other.destination)
            && share(&self.server_names, &other.server_names)
            && share(&self.application_protocols, &other.application_protocols)
            && share(&self.direct_source, &other.direct_source)
            && share(&self.source, &other.source)
            && share(&self.source_ports, &other.source_ports)
    }
}

fn share<T: PartialEq>(a: &[T], b: &[T]) -> bool {
    (a.is_empty() && b.is_empty()) || a.iter().any(|x| b.contains(x))
}

fn port(value: u32) -> ConfigResult<u16> {
    match u16::try_from(value) {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(ConfigError::new(format!("{value} is not a port"))),
    }
}

fn ranges(field: &str, protos: &[api_envoy::envoy::config::core::v3::CidrRange]) -> ConfigResult<Vec<IpNet>> {
    protos
        .iter()
        .enumerate()
        .map(|(i, range)| cidr_range(range).within_index(field, i))
        .collect()
}

fn server_name(name: &str) -> ConfigResult<String> {
    let rest = name
        .strip_prefix('*')
        .filter(|rest| rest.starts_with('.'))
        .unwrap_or(name);
    if rest.contains('*') {
        return Err(ConfigError::new(format!(
            "{name}: partial wildcards are not supported"
        )));
    }
    Ok(rest.to_ascii_lowercase())
}

/// The criteria of all chains of a listener: looked up by destination port, destination address and server name, which
/// a listener may have thousands of, and compared one by one in what is then left.
#[derive(Clone, Debug, Default)]
pub struct FilterChainMatcher {
    chains: Vec<ChainMatch>,
    /// Chains without a port under none.
    ports: HashMap<Option<u16>, Destinations>,
}

/// Chains by destination address.
#[derive(Clone, Debug, Default)]
struct Destinations {
    /// A catch-all range and no range at all are the same key, none, as in Envoy's tries.
    by_range: HashMap<Option<IpNet>, ServerNames>,
    /// The lengths of the ranges, longest first.
    lengths: Vec<u8>,
}

/// Chains by server name.
#[derive(Clone, Debug, Default)]
struct ServerNames {
    by_name: HashMap<Box<str>, Vec<usize>>,
    unnamed: Vec<usize>,
}

impl Destinations {
    fn insert(&mut self, chain: &ChainMatch, index: usize) {
        let narrow = chain.destination.iter().filter(|range| range.prefix_len() > 0);
        let mut keys: Vec<_> = narrow.map(|range| Some(range.trunc())).collect();
        if keys.len() < chain.destination.len() || keys.is_empty() {
            keys.push(None);
        }
        for key in keys {
            self.by_range.entry(key).or_default().insert(chain, index);
            let length = key.map_or(0, |range| range.prefix_len());
            if let Err(at) = self.lengths.binary_search_by(|known| length.cmp(known)) {
                self.lengths.insert(at, length);
            }
        }
    }

    /// The chains of the longest range that the address is in.
    fn find(&self, address: Option<IpAddr>) -> Option<&ServerNames> {
        let address = address.map(|address| address.to_canonical());
        let range = |length: u8| match (length, address) {
            (0, _) => Some(None),
            (_, None) => None,
            (_, Some(address)) => IpNet::new(address, length).ok().map(|range| Some(range.trunc())),
        };
        let mut found = self
            .lengths
            .iter()
            .filter_map(|length| self.by_range.get(&range(*length)?));
        found.next()
    }
}

impl ServerNames {
    fn insert(&mut self, chain: &ChainMatch, index: usize) {
        if chain.server_names.is_empty() {
            self.unnamed.push(index);
        }
        for name in &chain.server_names {
            let chains = self.by_name.entry(name.as_str().into()).or_default();
            // One chain may say a name twice.
            if chains.last() != Some(&index) {
                chains.push(index);
            }
        }
    }

    /// The chains of exactly that name, else of its longest suffix, else those without names.
    fn find(&self, name: &str) -> &[usize] {
        if self.by_name.is_empty() || name.is_empty() {
            return &self.unnamed;
        }
        let dots = name.char_indices().skip(1).filter(|(_, c)| *c == '.');
        let suffixes = dots.map(|(at, _)| &name[at..]).filter(|suffix| suffix.len() > 1);
        let mut found = std::iter::once(name)
            .chain(suffixes)
            .filter_map(|key| self.by_name.get(key));
        found.next().unwrap_or(&self.unnamed)
    }

    /// Two chains that match the same connections equally well; they share a range and a name, or have none.
    fn overlap(&self, chains: &[ChainMatch]) -> Option<(usize, usize)> {
        let mut groups = self.by_name.values().chain([&self.unnamed]);
        groups.find_map(|group| {
            let pairs = group.iter().enumerate();
            let mut pairs =
                pairs.flat_map(|(at, later)| group[..at].iter().map(move |earlier| (*earlier, *later)));
            pairs.find(|(earlier, later)| chains[*earlier].overlaps(&chains[*later]))
        })
    }
}

impl FilterChainMatcher {
    /// Takes the chains in the order of the listener.
    ///
    /// # Errors
    /// Two chains that match the same connections equally well; the path says which is the second.
    pub fn new(chains: Vec<ChainMatch>) -> ConfigResult<Self> {
        let mut ports: HashMap<Option<u16>, Destinations> = HashMap::new();
        for (index, chain) in chains.iter().enumerate() {
            ports
                .entry(chain.destination_port)
                .or_default()
                .insert(chain, index);
        }
        let groups = ports
            .values()
            .flat_map(|destinations| destinations.by_range.values());
        let overlaps = groups.filter_map(|names| names.overlap(&chains));
        // Whichever comes first in the listener is told of, so that the same listener is always refused alike.
        if let Some((other, index)) = overlaps.min_by_key(|(other, index)| (*index, *other)) {
            let reason = format!("matches the same connections as filter_chains[{other}]");
            return Err(ConfigError::at("filter_chain_match", reason)
                .index(index)
                .within("filter_chains"));
        }
        Ok(Self { chains, ports })
    }

    /// The index of the chain that takes the connection, or nothing when only the default chain is left.
    #[must_use]
    pub fn find(&self, connection: &ConnectionInfo) -> Option<usize> {
        let destinations = self.of_port(connection.local_address.port())?;
        let names = destinations.find(connection.local_address.ip())?;
        let name = connection.requested_server_name.as_deref().unwrap_or("");
        let mut left = names.find(name).to_vec();
        self.keep_transport(&mut left, connection.transport_protocol.name());
        self.keep_application(&mut left, connection);
        self.keep_prefix(&mut left, connection.direct_remote_address.ip(), |c| {
            &c.direct_source
        });
        self.keep_source_type(&mut left, connection);
        self.keep_prefix(&mut left, connection.remote_address.ip(), |c| &c.source);
        self.keep_source_port(&mut left, connection.remote_address.port());
        left.first().copied()
    }

    fn of_port(&self, port: Option<u16>) -> Option<&Destinations> {
        let named = port.and_then(|port| self.ports.get(&Some(port)));
        named.or_else(|| self.ports.get(&None))
    }

    fn keep_prefix(
        &self,
        left: &mut Vec<usize>,
        address: Option<IpAddr>,
        of: impl Fn(&ChainMatch) -> &Vec<IpNet>,
    ) {
        let address = address.map(|a| a.to_canonical());
        let length = |chain: &ChainMatch| {
            let ranges = of(chain);
            let matching = ranges
                .iter()
                .filter(|r| r.prefix_len() == 0 || address.is_some_and(|a| r.contains(&a)));
            let best = matching.map(|r| r.prefix_len()).max();
            if ranges.is_empty() { Some(0) } else { best }
        };
        let best = left.iter().filter_map(|i| length(&self.chains[*i])).max();
        // Two ranges of one length that both contain the address are the same range.
        left.retain(|i| {
            best.is_some_and(|best| {
                let ranges = of(&self.chains[*i]);
                (best == 0 && ranges.is_empty())
                    || ranges.iter().any(|r| {
                        r.prefix_len() == best && (best == 0 || address.is_some_and(|a| r.contains(&a)))
                    })
            })
        });
    }

    fn keep_transport(&self, left: &mut Vec<usize>, detected: &str) {
        let exact = left
            .iter()
            .any(|i| self.chains[*i].transport_protocol == detected);
        let key = if exact { detected } else { "" };
        left.retain(|i| self.chains[*i].transport_protocol == key);
    }

    fn keep_application(&self, left: &mut Vec<usize>, connection: &ConnectionInfo) {
        let offered = connection.application_protocols.iter().map(|p| &**p);
        let key = offered.into_iter().find(|offered| {
            left.iter()
                .any(|i| self.chains[*i].application_protocols.iter().any(|p| p == offered))
        });
        left.retain(|i| {
            let protocols = &self.chains[*i].application_protocols;
            key.map_or(protocols.is_empty(), |key| protocols.iter().any(|p| p == key))
        });
    }

    fn keep_source_type(&self, left: &mut Vec<usize>, connection: &ConnectionInfo) {
        let has = |left: &[usize], wanted| left.iter().any(|i| self.chains[*i].source_type == wanted);
        let specific = if is_local(connection) {
            SourceType::SameIpOrLoopback
        } else {
            SourceType::External
        };
        let key = if has(left, specific) {
            specific
        } else {
            SourceType::Any
        };
        left.retain(|i| self.chains[*i].source_type == key);
    }

    fn keep_source_port(&self, left: &mut Vec<usize>, port: Option<u16>) {
        let exact =
            port.is_some_and(|port| left.iter().any(|i| self.chains[*i].source_ports.contains(&port)));
        left.retain(|i| {
            let ports = &self.chains[*i].source_ports;
            if exact {
                port.is_some_and(|port| ports.contains(&port))
            } else {
                ports.is_empty()
            }
        });
    }
}

/// Whether the peer is this host: a Unix domain socket, a loopback address, or the address it talks to.
fn is_local(connection: &ConnectionInfo) -> bool {
    match (connection.remote_address.ip(), connection.local_address.ip()) {
        (Some(remote), local) => remote.to_canonical().is_loopback() || Some(remote) == local,
        (None, _) => true,
    }
}

#[cfg(test)]
#[path = "filter_chain_tests.rs"]
mod tests;
