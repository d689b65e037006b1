//! EnvoyFilter: `networking/v1alpha3/envoy_filter.proto`.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::LabelSelector;
use super::service_entry::PORT;
use crate::proto::{message, proto_enum};
use crate::selector::PolicyTargetReference;

message! {
    /// Changes the generated Envoy configuration itself; an escape hatch, without promises of stability.
    pub struct EnvoyFilter [
        Cel("(has(self.workloadSelector) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or workloadSelector can be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub workload_selector: Option<LabelSelector>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Changes, made in this order.
        pub config_patches: Vec<EnvoyConfigObjectPatch>,
        /// Order among EnvoyFilters: lower first, 0 by default; then the older first.
        pub priority: i32,
    }
}

message! {
    /// One change.
    pub struct EnvoyConfigObjectPatch {
        /// What kind of object is changed.
        pub apply_to: ApplyTo,
        /// Which objects of that kind.
        pub r#match: Option<EnvoyConfigObjectMatch>,
        /// What is done.
        pub patch: Option<Patch>,
    }
}

proto_enum! {
    /// What kind of object is changed.
    pub enum ApplyTo {
        /// Not said: an error.
        Invalid = "INVALID" = 0,
        /// A listener.
        Listener = "LISTENER" = 1,
        /// A filter chain of a listener.
        FilterChain = "FILTER_CHAIN" = 2,
        /// A network filter of a filter chain.
        NetworkFilter = "NETWORK_FILTER" = 3,
        /// An HTTP filter of a connection manager.
        HttpFilter = "HTTP_FILTER" = 4,
        /// A route configuration.
        RouteConfiguration = "ROUTE_CONFIGURATION" = 5,
        /// A virtual host of a route configuration.
        VirtualHost = "VIRTUAL_HOST" = 6,
        /// A route of a virtual host.
        HttpRoute = "HTTP_ROUTE" = 7,
        /// A cluster.
        Cluster = "CLUSTER" = 8,
        /// An extension that is delivered on its own.
        ExtensionConfig = "EXTENSION_CONFIG" = 9,
        /// The bootstrap.
        Bootstrap = "BOOTSTRAP" = 10,
        /// A listener filter.
        ListenerFilter = "LISTENER_FILTER" = 11,
    }
}

message! {
    /// Which objects are changed.
    pub struct EnvoyConfigObjectMatch [
        OneOf(&["listener", "routeConfiguration", "cluster", "waypoint"]),
        Cel("has(self.context) ? ((self.context == \"WAYPOINT\") ? has(self.waypoint) : !has(self.waypoint)) : !has(self.waypoint)",
            "only support waypointMatch when context is WAYPOINT"),
    ] {
        /// Role of the proxy.
        pub context: PatchContext,
        /// Properties of the proxy.
        pub proxy: Option<ProxyMatch>,
        /// A listener and what is inside it.
        pub listener: Option<ListenerMatch>,
        /// A route configuration and what is inside it.
        pub route_configuration: Option<RouteConfigurationMatch>,
        /// A cluster.
        pub cluster: Option<ClusterMatch>,
        /// An object of a waypoint.
        pub waypoint: Option<WaypointMatch>,
    }
}

proto_enum! {
    /// Role of the proxy.
    pub enum PatchContext {
        /// Sidecar or gateway.
        Any = "ANY" = 0,
        /// Sidecar, traffic to the workload.
        SidecarInbound = "SIDECAR_INBOUND" = 1,
        /// Sidecar, traffic of the workload.
        SidecarOutbound = "SIDECAR_OUTBOUND" = 2,
        /// Gateway.
        Gateway = "GATEWAY" = 3,
        /// Waypoint.
        Waypoint = "WAYPOINT" = 4,
    }
}

message! {
    /// Properties of a proxy.
    pub struct ProxyMatch {
        /// Regular expression on its Istio version.
        pub proxy_version: String,
        /// Values of its node metadata.
        pub metadata: BTreeMap<String, String>,
    }
}

message! {
    /// Chooses clusters; what is empty matches all.
    pub struct ClusterMatch {
        /// Port of the service.
        pub port_number: u32,
        /// Full name of the service.
        pub service: String,
        /// Subset of the service.
        pub subset: String,
        /// Name of the cluster.
        pub name: String,
    }
}

message! {
    /// Chooses route configurations; what is empty matches all.
    pub struct RouteConfigurationMatch {
        /// Port of the service or gateway.
        pub port_number: u32,
        /// Name of the gateway's port.
        pub port_name: String,
        /// Gateway, as `namespace/name`.
        pub gateway: String,
        /// A virtual host and what is inside it.
        pub vhost: Option<VirtualHostMatch>,
        /// Name of the route configuration.
        pub name: String,
    }
}

message! {
    /// Chooses virtual hosts.
    pub struct VirtualHostMatch {
        /// Name of the virtual host, as `host:port`.
        pub name: String,
        /// One of its domains.
        pub domain_name: String,
        /// A route of the virtual host.
        pub route: Option<RouteMatch>,
    }
}

message! {
    /// Chooses routes.
    pub struct RouteMatch {
        /// Name of the route.
        pub name: String,
        /// What the route does.
        pub action: RouteMatchAction,
    }
}

proto_enum! {
    /// What a route does.
    pub enum RouteMatchAction {
        /// Anything.
        Any = "ANY" = 0,
        /// It forwards.
        Route = "ROUTE" = 1,
        /// It redirects.
        Redirect = "REDIRECT" = 2,
        /// It answers by itself.
        DirectResponse = "DIRECT_RESPONSE" = 3,
    }
}

message! {
    /// Chooses listeners; what is empty matches all.
    pub struct ListenerMatch {
        /// Port of the listener.
        pub port_number: u32,
        /// Name of the port; not used.
        pub port_name: String,
        /// A filter chain and what is inside it.
        pub filter_chain: Option<FilterChainMatch>,
        /// A listener filter by name.
        pub listener_filter: String,
        /// Name of the listener.
        pub name: String,
    }
}

message! {
    /// Chooses filter chains.
    pub struct FilterChainMatch {
        /// Name of the filter chain.
        pub name: String,
        /// Server name that the chain matches.
        pub sni: String,
        /// Transport protocol that the chain matches, such as tls.
        pub transport_protocol: String,
        /// Application protocols that the chain matches, separated by commas.
        pub application_protocols: String,
        /// A network filter of the chain.
        pub filter: Option<FilterMatch>,
        /// Destination port that the chain matches.
        pub destination_port: u32,
        /// Name of the chain's transport socket.
        pub transport_socket: String,
    }
}

message! {
    /// Chooses a network filter.
    pub struct FilterMatch {
        /// Its name.
        pub name: String,
        /// A filter inside it.
        pub sub_filter: Option<SubFilterMatch>,
    }
}

message! {
    /// Chooses an HTTP filter inside a connection manager.
    pub struct SubFilterMatch {
        /// Its name.
        pub name: String,
    }
}

message! {
    /// Chooses an object of a waypoint.
    pub struct WaypointMatch {
        /// Port of the service.
        pub port_number: u32 [PORT],
        /// A route.
        pub route: Option<WaypointRouteMatch>,
        /// A filter.
        pub filter: Option<FilterMatch>,
    }
}

message! {
    /// Chooses routes of a waypoint.
    pub struct WaypointRouteMatch {
        /// Name of the route.
        pub name: String,
    }
}

message! {
    /// What is done to an object.
    pub struct Patch {
        /// The operation.
        pub operation: PatchOperation,
        /// The object, or the part of it to merge, in the JSON form of Envoy's protobuf.
        pub value: Map<String, Value>,
        /// Where a filter that is added goes, by what it is for.
        pub filter_class: FilterClass,
    }
}

proto_enum! {
    /// An operation on an object.
    pub enum PatchOperation {
        /// Not said: an error.
        Invalid = "INVALID" = 0,
        /// Merges the value into the object.
        Merge = "MERGE" = 1,
        /// Adds the value at the end.
        Add = "ADD" = 2,
        /// Removes the object.
        Remove = "REMOVE" = 3,
        /// Adds the value before the object.
        InsertBefore = "INSERT_BEFORE" = 4,
        /// Adds the value after the object.
        InsertAfter = "INSERT_AFTER" = 5,
        /// Adds the value at the beginning.
        InsertFirst = "INSERT_FIRST" = 6,
        /// Replaces the object.
        Replace = "REPLACE" = 7,
        /// Merges, with lists replaced instead of appended to.
        MergeAndReplaceList = "MERGE_AND_REPLACE_LIST" = 8,
    }
}

proto_enum! {
    /// Where a filter goes that is added to a sidecar or gateway.
    pub enum FilterClass {
        /// As the operation says.
        Unspecified = "UNSPECIFIED" = 0,
        /// After authentication.
        Authn = "AUTHN" = 1,
        /// After authorization.
        Authz = "AUTHZ" = 2,
        /// Before statistics.
        Stats = "STATS" = 3,
    }
}
