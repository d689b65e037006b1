//! What is spoken on a port, from its `appProtocol`, its name, or its declaration (Istio, "Protocol Selection").

/// The protocol of a port, with Istio's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Nothing was declared: the proxy looks at the first bytes.
    #[default]
    Unsupported,
    /// gRPC over HTTP/2.
    Grpc,
    /// gRPC for browsers.
    GrpcWeb,
    /// HTTP/1.1 (and whatever it is upgraded to).
    Http,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP inside TLS, opaque to the proxy unless it terminates it.
    Https,
    /// HBONE.
    Hbone,
    /// MongoDB.
    Mongo,
    /// MySQL.
    MySql,
    /// Redis.
    Redis,
    /// Any byte stream.
    Tcp,
    /// TLS, routed by server name.
    Tls,
    /// Not proxied.
    Udp,
}

impl Protocol {
    /// Reads a protocol as Gateways and ServiceEntries write it, in any case.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.to_ascii_lowercase().as_str() {
            "grpc" => Self::Grpc,
            "grpc-web" => Self::GrpcWeb,
            "http" | "http1" => Self::Http,
            "http2" | "h2c" => Self::Http2,
            "https" => Self::Https,
            "hbone" => Self::Hbone,
            "mongo" => Self::Mongo,
            "mysql" => Self::MySql,
            "redis" => Self::Redis,
            "tcp" => Self::Tcp,
            "tls" => Self::Tls,
            "udp" => Self::Udp,
            _ => Self::Unsupported,
        }
    }

    /// The protocol of a Kubernetes Service port: UDP, then `appProtocol`, then the name up to its first dash, then
    /// well-known ports that must not be sniffed because the server speaks first.
    #[must_use]
    pub fn of_service_port(transport: &str, port: u32, name: &str, app_protocol: Option<&str>) -> Self {
        if transport.eq_ignore_ascii_case("UDP") {
            return Self::Udp;
        }
        if let Some(declared) = app_protocol {
            match declared.to_ascii_lowercase().as_str() {
                "kubernetes.io/h2c" => return Self::Http2,
                "kubernetes.io/ws" => return Self::Http,
                "kubernetes.io/wss" => return Self::Https,
                _ => {}
            }
        }
        let name = app_protocol.unwrap_or(name);
        if name.len() >= "grpc-web".len() && name[.."grpc-web".len()].eq_ignore_ascii_case("grpc-web") {
            return Self::GrpcWeb;
        }
        let prefix = name.split('-').next().unwrap_or(name);
        match Self::parse(prefix) {
            Self::Unsupported if matches!(port, SMTP | DNS | MYSQL | MONGO) => Self::Tcp,
            protocol => protocol,
        }
    }

    /// Whether routes can look at requests: HTTP of any version without TLS.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether the upstream must be spoken to in HTTP/2.
    #[must_use]
    pub fn is_http2(self) -> bool {
        matches!(self, Self::Http2 | Self::Grpc | Self::GrpcWeb)
    }

    /// Whether requests are gRPC.
    #[must_use]
    pub fn is_grpc(self) -> bool {
        matches!(self, Self::Grpc | Self::GrpcWeb)
    }

    /// Whether this is TLS that the proxy can only route by server name.
    #[must_use]
    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Https)
    }

    /// Whether this is a byte stream to the proxy, TLS included.
    #[must_use]
    pub fn is_tcp(self) -> bool {
        matches!(
            self,
            Self::Tcp | Self::Https | Self::Tls | Self::Mongo | Self::Redis | Self::MySql
        )
    }

    /// Whether the first bytes decide.
    #[must_use]
    pub fn is_sniffed(self) -> bool {
        self == Self::Unsupported
    }
}

const SMTP: u32 = 25;
const DNS: u32 = 53;
const MYSQL: u32 = 3306;
const MONGO: u32 = 27017;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, app_protocol: Option<&str>) -> Protocol {
        Protocol::of_service_port("TCP", 8080, name, app_protocol)
    }

    #[test]
    fn the_port_name_up_to_its_dash_declares_the_protocol() {
        assert_eq!(of("http", None), Protocol::Http);
        assert_eq!(of("grpc-api", None), Protocol::Grpc);
        assert_eq!(of("grpc-web-five", None), Protocol::GrpcWeb);
        assert_eq!(of("tls-eight", None), Protocol::Tls);
        assert_eq!(of("data", None), Protocol::Unsupported);
        assert_eq!(of("status-port", None), Protocol::Unsupported);
    }

    #[test]
    fn app_protocol_wins_over_the_name() {
        assert_eq!(of("http", Some("kubernetes.io/h2c")), Protocol::Http2);
        assert_eq!(of("one", Some("kubernetes.io/ws")), Protocol::Http);
        assert_eq!(of("three", Some("kubernetes.io/wss")), Protocol::Https);
        assert_eq!(of("http", Some("tcp")), Protocol::Tcp);
    }

    #[test]
    fn ports_whose_server_speaks_first_are_not_sniffed() {
        assert_eq!(Protocol::of_service_port("TCP", 3306, "db", None), Protocol::Tcp);
        assert_eq!(Protocol::of_service_port("UDP", 53, "http", None), Protocol::Udp);
    }
}
