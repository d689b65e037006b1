//! What is known of a downstream connection once the listener filters have run.
//!
//! Envoy's `ConnectionInfoProvider` (source and destination, restored or direct, server name) and the detected
//! transport and application protocols that filter chain matching reads
//! (`envoy.config.listener.v3.FilterChainMatch`).

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::SystemTime;

use crate::proxy_protocol;

/// One end of a connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and port.
    Ip(SocketAddr),
    /// A Unix domain socket; empty when the peer is unnamed. Abstract names begin with `@`.
    Pipe(Rc<str>),
}

impl Address {
    /// The IP address, if it has one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address.ip()),
            Self::Pipe(_) => None,
        }
    }

    /// The port, if it has one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Ip(address) => Some(address.port()),
            Self::Pipe(_) => None,
        }
    }

    /// The IP address and port, if it has them.
    #[must_use]
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Pipe(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => write!(f, "{address}"),
            Self::Pipe(path) => f.write_str(path),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

/// `envoy.config.core.v3.TrafficDirection` of the listener that took the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDirection {
    /// Not said.
    #[default]
    Unspecified,
    /// From the mesh to the application.
    Inbound,
    /// From the application to the mesh.
    Outbound,
}

/// The transport that the first bytes announce (`FilterChainMatch.transport_protocol`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransportProtocol {
    /// `raw_buffer`: also when nobody looked.
    #[default]
    RawBuffer,
    /// `tls`: a ClientHello was seen.
    Tls,
}

impl TransportProtocol {
    /// The name that filter chains match on.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::RawBuffer => "raw_buffer",
            Self::Tls => "tls",
        }
    }
}

/// A downstream connection: addresses, detected protocols, and which listener and filter chain took it.
#[derive(Clone, Debug)]
pub struct ConnectionInfo {
    /// Unique in this process (`%CONNECTION_ID%`).
    pub id: u64,
    /// The peer, as the PROXY protocol restored it when there was one.
    pub remote_address: Address,
    /// The peer of the socket itself.
    pub direct_remote_address: Address,
    /// Where the connection was going: the original destination once it was restored, else the socket's local address.
    pub local_address: Address,
    /// The local address of the socket itself.
    pub direct_local_address: Address,
    /// The destination before redirection, when a listener filter or the socket broker found one that differs from
    /// the listener's own address (`ConnectionInfoProvider::localAddressRestored`). `ORIGINAL_DST` clusters need it.
    pub original_destination: Option<SocketAddr>,
    /// What the first bytes announced.
    pub transport_protocol: TransportProtocol,
    /// Application protocols in the order offered (ALPN), or as the HTTP inspector names them: `http/1.0`,
    /// `http/1.1`, `h2c`.
    pub application_protocols: Vec<Rc<str>>,
    /// The SNI, lower-cased.
    pub requested_server_name: Option<Rc<str>>,
    /// What a PROXY protocol header told besides the addresses; none where there was no header.
    pub proxy_protocol: Option<Rc<proxy_protocol::Received>>,
    /// The listener whose filter chain took the connection.
    pub listener_name: Rc<str>,
    /// That listener's direction.
    pub direction: TrafficDirection,
    /// The name of the matched filter chain, empty when it has none.
    pub filter_chain_name: Rc<str>,
    /// When it was accepted.
    pub accepted_at: SystemTime,
    /// What the TLS handshake told, where this proxy ends the connection's TLS.
    pub tls: Option<Rc<tls::ConnectionInfo>>,
    /// Why the TLS handshake failed (`%DOWNSTREAM_TRANSPORT_FAILURE_REASON%`); empty when it did not.
    pub transport_failure_reason: Cow<'static, str>,
}

impl ConnectionInfo {
    /// A connection between two addresses on which nothing was detected.
    #[must_use]
    pub fn new(id: u64, remote: Address, local: Address, accepted_at: SystemTime) -> Self {
        Self {
            id,
            direct_remote_address: remote.clone(),
            remote_address: remote,
            direct_local_address: local.clone(),
            local_address: local,
            original_destination: None,
            transport_protocol: TransportProtocol::RawBuffer,
            application_protocols: Vec::new(),
            requested_server_name: None,
            proxy_protocol: None,
            listener_name: Rc::from(""),
            direction: TrafficDirection::Unspecified,
            filter_chain_name: Rc::from(""),
            accepted_at,
            tls: None,
            transport_failure_reason: Cow::Borrowed(""),
        }
    }

    /// Where it comes from and where it goes, unless one of its ends is no IP address.
    #[must_use]
    pub fn endpoints(&self) -> Option<proxy_protocol::Endpoints> {
        Some(proxy_protocol::Endpoints {
            source: self.remote_address.socket_addr()?,
            destination: self.local_address.socket_addr()?,
        })
    }
}
