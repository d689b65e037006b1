//! Who the client is: `x-forwarded-for`, `x-forwarded-proto`, `x-envoy-external-address` and `x-envoy-internal`
//! (Envoy: "HTTP header manipulation", `use_remote_address`).

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr};

use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Proto;
use ipnet::IpNet;
use proxy_core::{Address, ConfigError, ConfigResult, ConnectionInfo};
use proxy_http::{HeaderId, RequestHead};

/// Length of the longest IP address in text, an IPv6 address that ends in an IPv4 one.
const MOST_ADDRESS_BYTES: usize = 45;

/// The fields of the configuration that decide whom to believe.
#[derive(Clone, Debug)]
pub(crate) struct ForwardedOptions {
    pub(crate) use_remote_address: bool,
    trusted_hops: u32,
    skip_xff_append: bool,
    append_port: bool,
    internal_networks: Vec<IpNet>,
    internal_unix_sockets: bool,
}

/// What was found out about a client.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The address for logs and `%DOWNSTREAM_REMOTE_ADDRESS%`.
    pub(crate) address: Address,
    /// The request came from outside the mesh and this is its first proxy.
    pub(crate) is_edge: bool,
    /// The request came from an internal address.
    pub(crate) is_internal: bool,
}

impl ForwardedOptions {
    pub(crate) fn compile(proto: &Proto) -> ConfigResult<Self> {
        let internal = proto.internal_address_config.clone().unwrap_or_default();
        let mut networks = Vec::with_capacity(internal.cidr_ranges.len());
        for (index, range) in internal.cidr_ranges.iter().enumerate() {
            let bits = range.prefix_len.unwrap_or(0);
            let network = range
                .address_prefix
                .parse()
                .ok()
                .and_then(|address: IpAddr| IpNet::new(address, u8::try_from(bits).ok()?).ok());
            networks.push(network.ok_or_else(|| {
                ConfigError::new("not a network")
                    .index(index)
                    .within("cidr_ranges")
                    .within("internal_address_config")
            })?);
        }
        Ok(ForwardedOptions {
            use_remote_address: proto.use_remote_address.unwrap_or(false),
            trusted_hops: proto.xff_num_trusted_hops,
            skip_xff_append: proto.skip_xff_append,
            append_port: proto.append_x_forwarded_port,
            internal_networks: networks,
            internal_unix_sockets: internal.unix_sockets,
        })
    }

    /// Finds out who the client is, and writes the forwarding fields. `own_address` stands in for a loopback peer.
    pub(crate) fn apply(
        &self,
        head: &mut RequestHead,
        connection: &ConnectionInfo,
        own_address: Option<IpAddr>,
    ) -> Client {
        join_forwarded_for(head);
        let (address, is_single) = if self.use_remote_address {
            self.use_peer_address(head, connection, own_address)
        } else {
            self.use_forwarded_address(head)
        };
        let is_internal = is_single && address.as_ref().is_some_and(|address| self.is_internal(address));
        let client = Client {
            is_edge: self.use_remote_address && !is_internal,
            is_internal,
            address: address.unwrap_or_else(|| connection.remote_address.clone()),
        };
        if client.is_edge
            && let Some(ip) = client.address.ip()
        {
            with_text(ip, |text| {
                head.headers.set(&HeaderId::XEnvoyExternalAddress, text);
            });
        }
        client
    }

    /// The peer of the connection is the client, unless trusted proxies stand before us.
    fn use_peer_address(
        &self,
        head: &mut RequestHead,
        connection: &ConnectionInfo,
        own_address: Option<IpAddr>,
    ) -> (Option<Address>, bool) {
        let is_single = !head.headers.contains(&HeaderId::XForwardedFor);
        let forwarded = match self.trusted_hops {
            0 => None,
            hops => forwarded_address(head, hops as usize - 1).map(|(address, _)| address),
        };
        if !self.skip_xff_append
            && let Some(ip) = connection.remote_address.ip()
        {
            let ip = own_address.filter(|_| ip.is_loopback()).unwrap_or(ip);
            with_text(ip, |text| {
                head.headers.append_to_list(&HeaderId::XForwardedFor, b",", text);
            });
        }
        // What a client says about scheme and port is not believed, unless it is a trusted proxy.
        if self.trusted_hops == 0 || !head.headers.contains(&HeaderId::XForwardedProto) {
            head.headers
                .set(&HeaderId::XForwardedProto, connection_scheme(connection));
        }
        if self.append_port
            && let Some(port) = connection.local_address.port()
            && (self.trusted_hops == 0 || !head.headers.contains(&HeaderId::XForwardedPort))
        {
            head.headers.set(
                &HeaderId::XForwardedPort,
                itoa::Buffer::new().format(port).as_bytes(),
            );
        }
        (
            Some(forwarded.unwrap_or_else(|| connection.remote_address.clone())),
            is_single,
        )
    }

    /// The client is whom `x-forwarded-for` names.
    fn use_forwarded_address(&self, head: &RequestHead) -> (Option<Address>, bool) {
        match forwarded_address(head, self.trusted_hops as usize) {
            Some((address, is_single)) => (Some(address), is_single),
            None => (None, false),
        }
    }

    fn is_internal(&self, address: &Address) -> bool {
        match address {
            Address::Pipe(_) => self.internal_unix_sockets,
            Address::Ip(address) => self
                .internal_networks
                .iter()
                .any(|network| network.contains(&address.ip())),
        }
    }
}

/// Calls `using` with the text of an address, which is made without allocating: every request needs it.
fn with_text(ip: IpAddr, using: impl FnOnce(&[u8])) {
    let mut text = [0; MOST_ADDRESS_BYTES];
    let mut rest = &mut text[..];
    // The longest address fits, so writing cannot fail.
    let _ = write!(rest, "{ip}");
    let left = rest.len();
    using(&text[..MOST_ADDRESS_BYTES - left]);
}

/// Joins several `x-forwarded-for` into one, so that whoever reads one field reads the whole path.
fn join_forwarded_for(head: &mut RequestHead) {
    if head.headers.count(&HeaderId::XForwardedFor) > 1 {
        let all: Vec<&[u8]> = head.headers.get_all(&HeaderId::XForwardedFor).collect();
        let joined = all.join(&b","[..]);
        head.headers.set(&HeaderId::XForwardedFor, &joined);
    }
}

/// Sets `x-forwarded-proto` where it is missing, and `:scheme` from it.
pub(crate) fn set_scheme(head: &mut RequestHead, connection: &ConnectionInfo) {
    if !head.headers.contains(&HeaderId::XForwardedProto) {
        head.headers
            .set(&HeaderId::XForwardedProto, connection_scheme(connection));
    }
    let scheme: &[u8] = match head.headers.get(&HeaderId::XForwardedProto) {
        Some(value) if value.eq_ignore_ascii_case(b"https") => b"https",
        Some(value) if value.eq_ignore_ascii_case(b"http") => b"http",
        _ => connection_scheme(connection),
    };
    head.set_scheme(scheme);
}

fn connection_scheme(connection: &ConnectionInfo) -> &'static [u8] {
    match connection.tls {
        None => b"http",
        Some(_) => b"https",
    }
}

/// The address that stands `skip` places before the last one in `x-forwarded-for`, and whether it is the only one.
fn forwarded_address(head: &RequestHead, skip: usize) -> Option<(Address, bool)> {
    let value = std::str::from_utf8(head.headers.get_all(&HeaderId::XForwardedFor).last()?).ok()?;
    let text = value.rsplit(',').nth(skip)?.trim();
    let ip: IpAddr = text.parse().ok()?;
    Some((Address::Ip(SocketAddr::new(ip, 0)), !value.contains(',')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_fits_into_its_text() {
        for address in [
            "255.255.255.255",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            "::ffff:255.255.255.255",
            "::",
        ] {
            let mut seen = Vec::new();
            with_text(address.parse().expect("an address"), |text| {
                seen.extend_from_slice(text)
            });
            assert_eq!(seen, address.as_bytes());
        }
    }
}
