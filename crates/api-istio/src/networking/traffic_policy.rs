//! Traffic policies of a DestinationRule: `TrafficPolicy` and below in `networking/v1alpha3/destination_rule.proto`.

use super::{LoadBalancerSettings, PortNumber};
use crate::proto::{Duration, message, proto_enum};

message! {
    /// How clients connect to a service.
    pub struct TrafficPolicy {
        /// How endpoints are chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits and timers of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When failing endpoints are left out.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
        /// Policies of single ports, which replace those above whole.
        pub port_level_settings: Vec<PortTrafficPolicy> [MaxItems(4096)],
        /// Carries connections inside a tunnel through the service.
        pub tunnel: Option<TunnelSettings>,
        /// Announces the client's address with the PROXY protocol.
        pub proxy_protocol: Option<ProxyProtocol>,
        /// Limits retries to a share of active requests.
        pub retry_budget: Option<RetryBudget>,
    }
}

message! {
    /// The policy of one port.
    pub struct PortTrafficPolicy {
        /// The port.
        pub port: Option<PortNumber>,
        /// How endpoints are chosen.
        pub load_balancer: Option<LoadBalancerSettings>,
        /// Limits and timers of connections.
        pub connection_pool: Option<ConnectionPoolSettings>,
        /// When failing endpoints are left out.
        pub outlier_detection: Option<OutlierDetection>,
        /// TLS towards the service.
        pub tls: Option<ClientTlsSettings>,
    }
}

message! {
    /// A tunnel for TCP and TLS connections.
    pub struct TunnelSettings {
        /// CONNECT, which is the default, or POST.
        pub protocol: String,
        /// Host that the tunnel leads to.
        pub target_host: String [Required],
        /// Port that the tunnel leads to.
        pub target_port: u32 [Required],
    }
}

message! {
    /// The PROXY protocol towards the service.
    pub struct ProxyProtocol {
        /// Its version.
        pub version: ProxyProtocolVersion,
    }
}

proto_enum! {
    /// Version of the PROXY protocol.
    pub enum ProxyProtocolVersion {
        /// Text.
        V1 = "V1" = 0,
        /// Binary.
        V2 = "V2" = 1,
    }
}

message! {
    /// A limit on concurrent retries.
    pub struct RetryBudget {
        /// Retries as a percentage of active and pending requests; 20 by default.
        pub percent: Option<f64> [Nullable, Minimum(0), Maximum(100)],
        /// Retries that are always allowed at the same time; 3 by default.
        pub min_retry_concurrency: u32,
        /// Requests that have begun within this time count, instead of those in flight.
        pub budget_interval: Option<Duration> [NoCel],
    }
}

message! {
    /// Limits and timers of the connections to a service.
    pub struct ConnectionPoolSettings {
        /// For TCP, and for the connections beneath HTTP.
        pub tcp: Option<TcpSettings>,
        /// For HTTP/1.1, HTTP/2 and gRPC.
        pub http: Option<HttpSettings>,
    }
}

message! {
    /// Limits and timers of TCP connections.
    pub struct TcpSettings {
        /// Connections to the service at most; 2^32-1 by default.
        pub max_connections: i32,
        /// Longest time for opening a connection; 10 s by default.
        pub connect_timeout: Option<Duration>,
        /// Keep-alive probes of the kernel.
        pub tcp_keepalive: Option<TcpKeepalive>,
        /// Longest life of a connection; no limit by default.
        pub max_connection_duration: Option<Duration>,
        /// Longest silence on a TCP connection; 1 h by default, `0s` turns it off.
        pub idle_timeout: Option<Duration> [NoCel],
    }
}

message! {
    /// Keep-alive probes; what is not set is the system's.
    pub struct TcpKeepalive {
        /// Unanswered probes that end a connection.
        pub probes: u32,
        /// Silence before the first probe.
        pub time: Option<Duration>,
        /// Time between probes.
        pub interval: Option<Duration>,
    }
}

message! {
    /// Limits and timers of HTTP.
    pub struct HttpSettings {
        /// Requests that wait for a connection at most; 2^32-1 by default.
        pub http1_max_pending_requests: i32,
        /// Requests in progress at most, whatever the HTTP version; 2^32-1 by default.
        pub http2_max_requests: i32,
        /// Requests on one connection at most; 0 is no limit, 1 turns keep-alive off.
        pub max_requests_per_connection: i32,
        /// Retries in progress at most; 2^32-1 by default.
        pub max_retries: i32,
        /// Longest time without a request on a pooled connection; 1 h by default.
        pub idle_timeout: Option<Duration>,
        /// Whether HTTP/1.1 is carried as HTTP/2.
        pub h2_upgrade_policy: H2UpgradePolicy,
        /// Speaks to the service the HTTP version that the client spoke.
        pub use_client_protocol: bool,
        /// Requests at the same time on one HTTP/2 connection at most.
        pub max_concurrent_streams: i32,
        /// PING frames that keep HTTP/2 connections alive.
        pub http2_keep_alive: Option<ConnectionKeepalive>,
    }
}

proto_enum! {
    /// Whether HTTP/1.1 is carried as HTTP/2.
    pub enum H2UpgradePolicy {
        /// As the mesh configuration says.
        Default = "DEFAULT" = 0,
        /// No.
        DoNotUpgrade = "DO_NOT_UPGRADE" = 1,
        /// Yes; also for ports whose protocol is not declared.
        Upgrade = "UPGRADE" = 2,
    }
}

message! {
    /// PING frames that keep HTTP/2 connections alive.
    pub struct ConnectionKeepalive {
        /// Time between PINGs.
        pub interval: Option<Duration>,
        /// Longest time for the answer.
        pub timeout: Option<Duration>,
    }
}

message! {
    /// When failing endpoints are left out.
    pub struct OutlierDetection {
        /// Deprecated: use consecutive5xxErrors or consecutiveGatewayErrors.
        pub consecutive_errors: i32,
        /// Counts errors on the way to an endpoint apart from its error answers.
        pub split_external_local_origin_errors: bool,
        /// Errors on the way, in a row, that eject an endpoint; needs splitExternalLocalOriginErrors.
        pub consecutive_local_origin_failures: Option<u32> [Nullable],
        /// Answers 502, 503 or 504 in a row that eject an endpoint; 0 turns it off.
        pub consecutive_gateway_errors: Option<u32> [Nullable],
        /// Answers of 5xx in a row that eject an endpoint; 5 by default, 0 turns it off.
        pub consecutive_5xx_errors: Option<u32> [Nullable],
        /// Time between looks at the ejected endpoints; 10 s by default.
        pub interval: Option<Duration>,
        /// First ejection time, which grows with each ejection; 30 s by default.
        pub base_ejection_time: Option<Duration>,
        /// Largest share of endpoints that may be ejected, in percent; 10 by default.
        pub max_ejection_percent: i32,
        /// Share of healthy endpoints, in percent, below which all are used again; 0 by default.
        pub min_health_percent: i32,
        /// Status codes that count as errors, in place of 5xx.
        pub outlier_detection_http_error_codes: Vec<u32> [Each(&[Minimum(100), Maximum(599)])],
    }
}

message! {
    /// TLS towards a service.
    pub struct ClientTlsSettings {
        /// Whether and with which certificates TLS is spoken.
        pub mode: ClientTlsMode,
        /// File with the client's certificate; for MUTUAL.
        pub client_certificate: String,
        /// File with the client's private key; for MUTUAL.
        pub private_key: String,
        /// File with the authorities that sign the server; the system's by default.
        pub ca_certificates: String,
        /// Secret with certificate, key and authorities, in place of the files.
        pub credential_name: String,
        /// Names of which the server's certificate must carry one.
        pub subject_alt_names: Vec<String>,
        /// Server name to ask for; that of the request by default.
        pub sni: String,
        /// Does not verify the server's certificate.
        pub insecure_skip_verify: Option<bool> [Nullable],
        /// File with the certificates that were revoked.
        pub ca_crl: String,
    }
}

proto_enum! {
    /// Whether and with which certificates TLS is spoken.
    pub enum ClientTlsMode {
        /// Plain text.
        Disable = "DISABLE" = 0,
        /// The server shows a certificate.
        Simple = "SIMPLE" = 1,
        /// Both show certificates, which are given here.
        Mutual = "MUTUAL" = 2,
        /// Both show the certificates of the mesh.
        IstioMutual = "ISTIO_MUTUAL" = 3,
    }
}
