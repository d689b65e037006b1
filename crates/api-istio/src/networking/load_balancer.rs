//! Load balancing: `LoadBalancerSettings` and the locality settings of `networking/v1alpha3/destination_rule.proto`.

use std::collections::BTreeMap;

use crate::proto::{Duration, message, proto_enum};

message! {
    /// How endpoints are chosen.
    pub struct LoadBalancerSettings [OneOf(&["simple", "consistentHash", "backendUtilization"])] {
        /// An algorithm without settings.
        pub simple: Option<SimpleLb>,
        /// Requests with the same key go to the same endpoint, as long as endpoints stay.
        pub consistent_hash: Option<ConsistentHashLb>,
        /// Weighs endpoints by the load that they report.
        pub backend_utilization: Option<BackendUtilization>,
        /// Preference among localities; replaces that of the mesh.
        pub locality_lb_setting: Option<LocalityLoadBalancerSetting>,
        /// Preference for the client's own zone, by the capacity of each.
        pub zone_aware_lb_setting: Option<ZoneAwareLoadBalancerSetting>,
        /// Deprecated: use warmup.
        pub warmup_duration_secs: Option<Duration>,
        /// New endpoints get their full share only after a while.
        pub warmup: Option<WarmupConfiguration>,
    }
}

proto_enum! {
    /// An algorithm without settings.
    pub enum SimpleLb {
        /// The default: least request.
        Unspecified = "UNSPECIFIED" = 0,
        /// Deprecated: use LEAST_REQUEST.
        LeastConn = "LEAST_CONN" = 1,
        /// Any healthy endpoint.
        Random = "RANDOM" = 2,
        /// The address that the client called, without balancing.
        Passthrough = "PASSTHROUGH" = 3,
        /// One after the other.
        RoundRobin = "ROUND_ROBIN" = 4,
        /// The one with fewer requests in progress out of two picked at random.
        LeastRequest = "LEAST_REQUEST" = 5,
    }
}

message! {
    /// Where the key of a request is taken from, and how keys are spread.
    pub struct ConsistentHashLb [
        OneOf(&["httpHeaderName", "httpCookie", "useSourceIp", "httpQueryParameterName"]),
        OneOf(&["ringHash", "maglev"]),
    ] {
        /// The value of this header.
        pub http_header_name: Option<String>,
        /// The value of this cookie.
        pub http_cookie: Option<HttpCookie>,
        /// The client's address.
        pub use_source_ip: Option<bool>,
        /// The value of this query parameter.
        pub http_query_parameter_name: Option<String>,
        /// Spreads keys over a ring.
        pub ring_hash: Option<RingHash>,
        /// Spreads keys over a table.
        pub maglev: Option<MagLev>,
        /// Deprecated: use ringHash.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// Spreads keys over a ring, in the manner of Ketama.
    pub struct RingHash {
        /// Fewest points on the ring; 1024 by default.
        pub minimum_ring_size: u64,
    }
}

message! {
    /// Spreads keys over a table, in the manner of Maglev.
    pub struct MagLev {
        /// Entries of the table, a prime number; 65537 by default.
        pub table_size: u64,
    }
}

message! {
    /// A cookie that carries the key.
    pub struct HttpCookie {
        /// Its name.
        pub name: String [Required],
        /// Path that it is set for.
        pub path: String,
        /// Its life; when given, a cookie is made for clients that have none, and `0s` lasts for the session.
        pub ttl: Option<Duration> [NoCel],
        /// Further attributes of the cookie that is made.
        pub attributes: Vec<CookieAttribute>,
    }
}

message! {
    /// An attribute of a cookie, such as SameSite.
    pub struct CookieAttribute {
        /// Its name.
        pub name: String [Required],
        /// Its value.
        pub value: String,
    }
}

message! {
    /// Weighs endpoints by the load that they report (ORCA).
    pub struct BackendUtilization {
        /// How strongly errors count as load, in percent.
        pub error_utilization_penalty_percent: u32,
        /// Reported metrics that are read as utilization, in order of preference.
        pub metric_names_for_computing_utilization: Vec<String>,
        /// Age at which a weight is no longer used.
        pub weight_expiration_period: Option<Duration> [NoCel],
        /// How long an endpoint must report before its weight is used.
        pub weight_stabilization_period: Option<Duration> [NoCel],
        /// Time between computations of the weights.
        pub weight_update_period: Option<Duration> [NoCel],
    }
}

message! {
    /// How new endpoints grow to their full share.
    pub struct WarmupConfiguration {
        /// How long it takes.
        pub duration: Duration [Required],
        /// Share at the start, in percent; 10 by default.
        pub minimum_percent: Option<f64> [Nullable, Minimum(0), Maximum(100)],
        /// Shape of the growth: 1, the default, is a straight line, more is slower at first.
        pub aggression: Option<f64> [Nullable, Minimum(0)],
    }
}

message! {
    /// Preference among localities, which are written `region/zone/subzone`.
    pub struct LocalityLoadBalancerSetting {
        /// Fixed shares by the client's locality; not together with failover or failoverPriority.
        pub distribute: Vec<LocalityDistribute>,
        /// Where traffic goes when a region has no healthy endpoint.
        pub failover: Vec<LocalityFailover>,
        /// Labels in the order in which equality with the client's counts.
        pub failover_priority: Vec<String>,
        /// Turns locality balancing on or off; as the mesh says by default.
        pub enabled: Option<bool> [Nullable],
    }
}

message! {
    /// Shares of traffic from one locality.
    pub struct LocalityDistribute {
        /// The client's locality, `*` allowed at the end.
        pub from: String,
        /// Shares by locality, in percent; the sum is 100.
        pub to: BTreeMap<String, u32>,
    }
}

message! {
    /// Where traffic goes when a region fails.
    pub struct LocalityFailover {
        /// The region that has no healthy endpoint.
        pub from: String,
        /// The region that takes over.
        pub to: String,
    }
}

message! {
    /// Preference for the client's own zone.
    pub struct ZoneAwareLoadBalancerSetting {
        /// Turns it on or off.
        pub enabled: Option<bool> [Nullable],
        /// Where traffic goes when a region has no healthy endpoint.
        pub failover: Vec<LocalityFailover>,
        /// Labels in the order in which equality with the client's counts.
        pub failover_priority: Vec<String>,
        /// Fewest endpoints of a service for which zones are looked at; 6 by default.
        pub min_cluster_size: Option<u64> [Nullable, Minimum(1), Maximum(4294967295)],
    }
}
