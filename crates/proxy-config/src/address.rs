//! Addresses and CIDR ranges of configuration (`envoy.config.core.v3.Address`, `CidrRange`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use api_envoy::envoy::config::core::v3::{self as core, address::Address as Kind, socket_address};
use ipnet::IpNet;
use proxy_core::{ConfigError, ConfigResult};

/// An address to bind or to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BindAddress {
    /// An IP address and port; port 0 asks for any free one.
    Ip(SocketAddr),
    /// A Unix domain socket. Abstract names begin with `@`.
    Pipe {
        /// The path.
        path: String,
        /// The mode of the socket file; 0 leaves it to the umask.
        mode: u32,
    },
}

impl BindAddress {
    /// The IP address and port, if it has them.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe { .. } => None,
        }
    }

    /// The address as statistics name it: `0.0.0.0_80`, `[__1]_80`; the caller replaces what Envoy replaces.
    #[must_use]
    pub fn stat_name(&self) -> String {
        self.to_string().replace(':', "_")
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Pipe { path, .. } => f.write_str(path),
        }
    }
}

/// Reads an address that a socket can be bound to.
///
/// # Errors
/// A kind of address that cannot be bound: host names, UDP, named ports, internal listeners.
pub fn bind_address(address: Option<&core::Address>) -> ConfigResult<BindAddress> {
    let kind = address
        .and_then(|a| a.address.as_ref())
        .ok_or_else(|| ConfigError::new("an address is needed"))?;
    match kind {
        Kind::SocketAddress(socket) => socket_address(socket).map_err(|e| e.within("socket_address")),
        Kind::Pipe(pipe) if pipe.path.is_empty() => Err(ConfigError::at("pipe.path", "must not be empty")),
        Kind::Pipe(pipe) => Ok(BindAddress::Pipe {
            path: pipe.path.clone(),
            mode: pipe.mode,
        }),
        Kind::EnvoyInternalAddress(_) => Err(ConfigError::unsupported("envoy_internal_address")),
    }
}

fn socket_address(socket: &core::SocketAddress) -> ConfigResult<BindAddress> {
    if socket.protocol != socket_address::Protocol::Tcp as i32 {
        return Err(ConfigError::at("protocol", "only TCP is supported"));
    }
    if !socket.resolver_name.is_empty() {
        return Err(ConfigError::unsupported("resolver_name"));
    }
    if !socket.network_namespace_filepath.is_empty() {
        return Err(ConfigError::unsupported("network_namespace_filepath"));
    }
    let ip: IpAddr = (socket.address.parse())
        .map_err(|_| ConfigError::at("address", format!("malformed IP address: {}", socket.address)))?;
    let port = match &socket.port_specifier {
        Some(socket_address::PortSpecifier::PortValue(port)) => u16::try_from(*port)
            .map_err(|_| ConfigError::at("port_value", format!("{port} is not a port")))?,
        Some(socket_address::PortSpecifier::NamedPort(_)) => {
            return Err(ConfigError::unsupported("named_port"));
        }
        None => return Err(ConfigError::at("port_value", "a port is needed")),
    };
    Ok(BindAddress::Ip(SocketAddr::new(ip, port)))
}

/// Reads a CIDR range; host bits are dropped, as Envoy does.
///
/// # Errors
/// No IP address, or a prefix longer than it.
pub fn cidr_range(range: &core::CidrRange) -> ConfigResult<IpNet> {
    let ip: IpAddr = (range.address_prefix.parse()).map_err(|_| {
        ConfigError::at(
            "address_prefix",
            format!("malformed IP address: {}", range.address_prefix),
        )
    })?;
    let length = range.prefix_len.unwrap_or(0);
    u8::try_from(length)
        .ok()
        .and_then(|length| IpNet::new(ip, length).ok())
        .map(|net| net.trunc())
        .ok_or_else(|| ConfigError::at("prefix_len", format!("{length} is too long for {ip}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(prefix: &str, length: u32) -> core::CidrRange {
        core::CidrRange {
            address_prefix: prefix.to_owned(),
            prefix_len: Some(length),
        }
    }

    #[test]
    fn a_cidr_range_drops_its_host_bits() {
        assert_eq!(
            cidr_range(&range("10.1.2.3", 16)).unwrap().to_string(),
            "10.1.0.0/16"
        );
    }

    #[test]
    fn a_prefix_longer_than_the_address_is_refused_by_name() {
        assert_eq!(
            cidr_range(&range("10.1.2.3", 33)).unwrap_err().path(),
            "prefix_len"
        );
        assert_eq!(cidr_range(&range("ten", 8)).unwrap_err().path(), "address_prefix");
    }

    #[test]
    fn a_host_name_cannot_be_bound() {
        let socket = core::SocketAddress {
            address: "example.com".to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(80)),
            ..Default::default()
        };
        let address = core::Address {
            address: Some(Kind::SocketAddress(socket)),
        };
        assert_eq!(
            bind_address(Some(&address)).unwrap_err().path(),
            "socket_address.address"
        );
    }
}
