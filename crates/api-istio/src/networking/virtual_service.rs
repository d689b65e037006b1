//! VirtualService: `networking/v1alpha3/virtual_service.proto`, the kind itself, its TCP and TLS routes and matchers.

use std::collections::BTreeMap;

use super::HttpRoute;
use crate::proto::message;

message! {
    /// Says how requests to a host are routed.
    pub struct VirtualService {
        /// Hosts that the routes are for: a DNS name, a name with a wildcard as its first label, an address, or a short
        /// name that is completed with the namespace of this object.
        pub hosts: Vec<String>,
        /// Gateways that use these routes, as `namespace/name`; `mesh` means the sidecars, and is meant when the list is
        /// empty.
        pub gateways: Vec<String>,
        /// Routes for HTTP, HTTP/2, gRPC and terminated HTTPS; the first that matches is taken.
        pub http: Vec<HttpRoute>,
        /// Routes for TLS that is passed through, chosen by server name; the first that matches is taken.
        pub tls: Vec<TlsRoute>,
        /// Routes for all other TCP; the first that matches is taken.
        pub tcp: Vec<TcpRoute>,
        /// Namespaces that see this object: `.` for its own, `*` for all, which is also the default.
        pub export_to: Vec<String>,
    }
}

message! {
    /// A service, or a subset of it, that traffic can be sent to.
    pub struct Destination {
        /// Name of the service in the registry; a short name is completed with the namespace of the rule, not of the client.
        pub host: String [Required],
        /// Subset of the service, as named by its DestinationRule.
        pub subset: String,
        /// Port of the service; may be left out when it has only one.
        pub port: Option<PortNumber>,
    }
}

message! {
    /// Chooses a port of a service.
    pub struct PortNumber {
        /// The port.
        pub number: u32,
    }
}

message! {
    /// Where TLS connections go that are passed through unopened.
    pub struct TlsRoute {
        /// Conditions, any of which is enough; within one, all must hold.
        pub r#match: Vec<TlsMatchAttributes> [Required],
        /// Destinations with their shares.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// Where TCP connections go.
    pub struct TcpRoute {
        /// Conditions, any of which is enough; none means every connection.
        pub r#match: Vec<L4MatchAttributes>,
        /// Destinations with their shares.
        pub route: Vec<RouteDestination>,
    }
}

message! {
    /// A destination of TCP or TLS connections and its share.
    pub struct RouteDestination {
        /// Where connections go.
        pub destination: Destination [Required],
        /// Share relative to the sum of all weights; a single destination needs none.
        pub weight: i32,
    }
}

message! {
    /// Conditions on a TCP connection.
    pub struct L4MatchAttributes {
        /// Ranges of the original destination address, with or without prefix length.
        pub destination_subnets: Vec<String>,
        /// Port of the service or gateway.
        pub port: u32,
        /// Range of the client's address; not enforced by Istio.
        pub source_subnet: String,
        /// Labels that the client workload must have.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways that the condition is for, in place of the list at the top.
        pub gateways: Vec<String>,
        /// Namespace that the client workload must be in.
        pub source_namespace: String,
    }
}

message! {
    /// Conditions on a TLS connection.
    pub struct TlsMatchAttributes {
        /// Server names, with a wildcard allowed as the first label; each must belong to a host of the VirtualService.
        pub sni_hosts: Vec<String> [Required],
        /// Ranges of the original destination address, with or without prefix length.
        pub destination_subnets: Vec<String>,
        /// Port of the service or gateway.
        pub port: u32,
        /// Labels that the client workload must have.
        pub source_labels: BTreeMap<String, String>,
        /// Gateways that the condition is for, in place of the list at the top.
        pub gateways: Vec<String>,
        /// Namespace that the client workload must be in.
        pub source_namespace: String,
    }
}

message! {
    /// Compares a text: exactly, by its beginning, or with a regular expression; case counts.
    pub struct StringMatch [OneOf(&["exact", "prefix", "regex"])] {
        /// The text is this.
        pub exact: Option<String>,
        /// The text begins with this.
        pub prefix: Option<String>,
        /// The whole text matches this RE2 expression.
        pub regex: Option<String>,
    }
}

/// What a [`StringMatch`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringMatchKind<'a> {
    /// The text is this.
    Exact(&'a str),
    /// The text begins with this.
    Prefix(&'a str),
    /// The whole text matches this RE2 expression.
    Regex(&'a str),
    /// Nothing was asked: for a header, that it is present.
    Present,
}

impl StringMatch {
    /// The one condition that is set; exact before prefix before regex if an object slipped past validation with several.
    pub fn kind(&self) -> StringMatchKind<'_> {
        match (&self.exact, &self.prefix, &self.regex) {
            (Some(exact), ..) => StringMatchKind::Exact(exact),
            (_, Some(prefix), _) => StringMatchKind::Prefix(prefix),
            (.., Some(regex)) => StringMatchKind::Regex(regex),
            (None, None, None) => StringMatchKind::Present,
        }
    }
}
