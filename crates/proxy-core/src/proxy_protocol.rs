//! The header of the PROXY protocol, versions 1 and 2 ("The PROXY protocol", HAProxy's specification): read from clients
//! by `envoy.filters.listener.proxy_protocol`, written to hosts by `envoy.transport_sockets.upstream_proxy_protocol`.
//!
//! What the specification leaves open is decided as in Envoy: the addresses must be unicast, `UNKNOWN` and `LOCAL`
//! change nothing, datagrams are read like streams, other address families than IP are refused.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::PROXY_PROTOCOL_V1_MAX_BYTES;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length.
const FIXED_V2_BYTES: usize = 16;
/// Type and length of a TLV.
const TLV_HEADER_BYTES: usize = 3;

const VERSION_2: u8 = 2;
const COMMAND_LOCAL: u8 = 0;
const COMMAND_PROXY: u8 = 1;
const FAMILY_IPV4: u8 = 1;
const FAMILY_IPV6: u8 = 2;
const TRANSPORT_STREAM: u8 = 1;
const TRANSPORT_DATAGRAM: u8 = 2;

/// The two versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// A line of text.
    V1,
    /// Binary, with TLVs.
    V2,
}

/// Where a connection came from, and where it was going.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoints {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

impl Endpoints {
    /// Both of one family: IPv4 where both can be written so, IPv6 else.
    fn of_one_family(self) -> Self {
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        let (source, destination) = (canonical(self.source), canonical(self.destination));
        if source.is_ipv4() == destination.is_ipv4() {
            return Self { source, destination };
        }
        let mapped = |a: SocketAddr| match a.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), a.port()),
            IpAddr::V6(_) => a,
        };
        Self {
            source: mapped(source),
            destination: mapped(destination),
        }
    }

    fn are_unicast(&self) -> bool {
        let unicast = |ip: IpAddr| {
            let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
            !ip.is_unspecified() && !ip.is_multicast() && !broadcast
        };
        unicast(self.source.ip()) && unicast(self.destination.ip())
    }
}

/// One of the extensions that version 2 carries: type, length, value.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tlv {
    /// The type.
    pub kind: u8,
    /// The value; at most 65535 bytes are possible.
    pub value: Box<[u8]>,
}

/// A header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which version it was written in.
    pub version: Version,
    /// How many bytes it has.
    pub length: usize,
    /// The addresses; none when the sender speaks for itself (`UNKNOWN`, `LOCAL`).
    pub endpoints: Option<Endpoints>,
    /// The extensions in their order; those of a `LOCAL` header are not read.
    pub tlvs: Vec<Tlv>,
}

/// What the first bytes of a connection say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Not decided: wait for more.
    NeedMore,
    /// There is no header.
    Absent,
    /// It begins like a header of that version, and is none.
    Malformed(Version),
    /// A header.
    Header(Header),
}

/// What a header told of a connection; kept with the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Extensions that may be passed on to hosts.
    pub tlvs: Vec<Tlv>,
    /// Dynamic metadata made of extensions: namespace, key, value.
    pub metadata: Vec<(Box<str>, Box<str>, Box<str>)>,
    /// Fields of the filter state `envoy.network.proxy_protocol.tlv` made of extensions.
    pub filter_state: Vec<(Box<str>, Box<str>)>,
}

impl Received {
    /// A value of the dynamic metadata.
    #[must_use]
    pub fn metadata(&self, namespace: &str, key: &str) -> Option<&str> {
        let mut metadata = self.metadata.iter();
        let found = metadata.find(|(n, k, _)| (&**n, &**k) == (namespace, key));
        found.map(|(_, _, value)| &**value)
    }

    /// A field of the filter state.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&str> {
        let found = self.filter_state.iter().find(|(k, _)| **k == *key);
        found.map(|(_, value)| &**value)
    }
}

/// Whether the bytes, as far as they go, are those of a header of that version.
#[must_use]
pub fn may_begin(bytes: &[u8], version: Version) -> bool {
    let signature = match version {
        Version::V1 => SIGNATURE_V1,
        Version::V2 => SIGNATURE_V2,
    };
    let common = bytes.len().min(signature.len());
    bytes[..common] == signature[..common]
}

/// Reads the header at the beginning of `bytes`, which are all that have come so far.
#[must_use]
pub fn parse(bytes: &[u8]) -> Parsed {
    if bytes.len() >= FIXED_V2_BYTES {
        if bytes.starts_with(SIGNATURE_V2) {
            return parse_v2(bytes).unwrap_or(Parsed::Malformed(Version::V2));
        }
        if !bytes.starts_with(SIGNATURE_V1) {
            return Parsed::Absent;
        }
    } else if bytes.starts_with(b"\r\n") {
        // The signature of version 2 begins with the end of a line.
        return Parsed::NeedMore;
    }
    let most = bytes.len().min(PROXY_PROTOCOL_V1_MAX_BYTES);
    match bytes[..most].windows(2).position(|pair| pair == b"\r\n") {
        Some(end) => parse_v1(&bytes[..end], end + 2),
        // A line that does not end is counted by Envoy as none.
        None if bytes.len() > PROXY_PROTOCOL_V1_MAX_BYTES => Parsed::Absent,
        None => Parsed::NeedMore,
    }
}

/// `PROXY TCP4 192.0.2.1 192.0.2.2 4321 80`; `length` is that of the line with its end.
fn parse_v1(line: &[u8], length: usize) -> Parsed {
    let endpoints = match std::str::from_utf8(line).ok().and_then(endpoints_v1) {
        Some(Ok(endpoints)) if endpoints.are_unicast() => Some(endpoints),
        Some(Err(Unknown)) => None,
        _ => return Parsed::Malformed(Version::V1),
    };
    Parsed::Header(Header {
        version: Version::V1,
        length,
        endpoints,
        tlvs: Vec::new(),
    })
}

/// The line says `UNKNOWN`.
struct Unknown;

fn endpoints_v1(line: &str) -> Option<Result<Endpoints, Unknown>> {
    let words: Vec<&str> = line.trim_end().split(' ').collect();
    let endpoints = |parse: fn(&str) -> Option<IpAddr>| {
        let [_, _, source, destination, source_port, destination_port] = words[..] else {
            return None;
        };
        Some(Ok(Endpoints {
            source: SocketAddr::new(parse(source)?, port(source_port)?),
            destination: SocketAddr::new(parse(destination)?, port(destination_port)?),
        }))
    };
    match words[..] {
        ["PROXY", "UNKNOWN", ..] => Some(Err(Unknown)),
        ["PROXY", "TCP4", ..] => endpoints(|text| text.parse::<Ipv4Addr>().ok().map(IpAddr::V4)),
        ["PROXY", "TCP6", ..] => endpoints(|text| text.parse::<Ipv6Addr>().ok().map(IpAddr::V6)),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    // Rust's own parser would take a sign.
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
}

/// Nothing comes out when the header is malformed. `bytes` holds the fixed part at least.
fn parse_v2(bytes: &[u8]) -> Option<Parsed> {
    let [version_and_command, family_and_transport] = [bytes[12], bytes[13]];
    let rest_bytes = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let length = FIXED_V2_BYTES + rest_bytes;
    if version_and_command >> 4 != VERSION_2 {
        return None;
    }
    let addresses_bytes = match version_and_command & 0xf {
        COMMAND_LOCAL => 0,
        COMMAND_PROXY => match (family_and_transport >> 4, family_and_transport & 0xf) {
            (FAMILY_IPV4, TRANSPORT_STREAM | TRANSPORT_DATAGRAM) => 12,
            (FAMILY_IPV6, TRANSPORT_STREAM | TRANSPORT_DATAGRAM) => 36,
            _ => return None,
        },
        _ => return None,
    };
    if rest_bytes < addresses_bytes {
        return None;
    }
    let Some(rest) = bytes.get(FIXED_V2_BYTES..length) else {
        return Some(Parsed::NeedMore);
    };
    let (addresses, extensions) = rest.split_at(addresses_bytes);
    let endpoints = endpoints_v2(addresses);
    if endpoints.is_some_and(|endpoints| !endpoints.are_unicast()) {
        return None;
    }
    Some(Parsed::Header(Header {
        version: Version::V2,
        length,
        endpoints,
        // The specification gives a LOCAL header's extensions no meaning.
        tlvs: if addresses_bytes == 0 {
            Vec::new()
        } else {
            tlvs(extensions)?
        },
    }))
}

fn endpoints_v2(bytes: &[u8]) -> Option<Endpoints> {
    let (ips, ports) = bytes.split_at_checked(bytes.len().checked_sub(4)?)?;
    let (source, destination) = ips.split_at(ips.len() / 2);
    let address = |ip: &[u8], port: &[u8]| {
        let ip = match <[u8; 4]>::try_from(ip) {
            Ok(v4) => IpAddr::from(v4),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        };
        Some(SocketAddr::new(ip, u16::from_be_bytes([port[0], port[1]])))
    };
    Some(Endpoints {
        source: address(source, &ports[..2])?,
        destination: address(destination, &ports[2..])?,
    })
}

/// Nothing comes out when an extension is cut off.
fn tlvs(mut bytes: &[u8]) -> Option<Vec<Tlv>> {
    let mut tlvs = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(TLV_HEADER_BYTES)?;
        let length = usize::from(u16::from_be_bytes([header[1], header[2]]));
        let (value, rest) = rest.split_at_checked(length)?;
        tlvs.push(Tlv {
            kind: header[0],
            value: value.into(),
        });
        bytes = rest;
    }
    Some(tlvs)
}

/// Writes a header of version 1; `UNKNOWN` without addresses.
#[must_use]
pub fn encode_v1(endpoints: Option<Endpoints>) -> Vec<u8> {
    let Some(Endpoints { source, destination }) = endpoints.map(Endpoints::of_one_family) else {
        return b"PROXY UNKNOWN\r\n".to_vec();
    };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let (ips, ports) = (
        (source.ip(), destination.ip()),
        (source.port(), destination.port()),
    );
    format!("PROXY {family} {} {} {} {}\r\n", ips.0, ips.1, ports.0, ports.1).into_bytes()
}

/// The extensions of a header do not fit into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

/// Writes a header of version 2; without addresses it is `LOCAL`, and has no extensions.
///
/// # Errors
/// The extensions are longer than a header may be.
pub fn encode_v2<'t>(
    endpoints: Option<Endpoints>,
    tlvs: impl Iterator<Item = &'t Tlv>,
) -> Result<Vec<u8>, TooLong> {
    let mut out = SIGNATURE_V2.to_vec();
    let Some(Endpoints { source, destination }) = endpoints.map(Endpoints::of_one_family) else {
        out.extend([VERSION_2 << 4 | COMMAND_LOCAL, 0, 0, 0]);
        return Ok(out);
    };
    let family = if source.is_ipv4() {
        FAMILY_IPV4
    } else {
        FAMILY_IPV6
    };
    out.extend([
        VERSION_2 << 4 | COMMAND_PROXY,
        family << 4 | TRANSPORT_STREAM,
        0,
        0,
    ]);
    for address in [source, destination] {
        match address.ip() {
            IpAddr::V4(ip) => out.extend(ip.octets()),
            IpAddr::V6(ip) => out.extend(ip.octets()),
        }
    }
    out.extend(source.port().to_be_bytes());
    out.extend(destination.port().to_be_bytes());
    for tlv in tlvs {
        let length = u16::try_from(tlv.value.len()).map_err(|_| TooLong)?;
        out.push(tlv.kind);
        out.extend(length.to_be_bytes());
        out.extend(&tlv.value);
    }
    let rest = u16::try_from(out.len() - FIXED_V2_BYTES).map_err(|_| TooLong)?;
    out[FIXED_V2_BYTES - 2..FIXED_V2_BYTES].copy_from_slice(&rest.to_be_bytes());
    Ok(out)
}

#[cfg(test)]
mod tests;
