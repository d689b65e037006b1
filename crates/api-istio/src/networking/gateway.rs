//! Gateway: `networking/v1alpha3/gateway.proto`.

use std::collections::BTreeMap;

use crate::proto::{message, proto_enum};

message! {
    /// Opens ports of gateway proxies at the edge of the mesh.
    pub struct Gateway {
        /// What the proxies listen to.
        pub servers: Vec<Server>,
        /// Labels of the gateway workloads that this is for.
        pub selector: BTreeMap<String, String>,
    }
}

message! {
    /// One port, and the hosts that are served on it.
    pub struct Server {
        /// The port.
        pub port: Option<ServerPort> [Required],
        /// Address to listen on; all by default. A `unix://` path allows no port selection.
        pub bind: String,
        /// Hosts that are served, each `namespace/dnsName` or `dnsName`; a wildcard may be the first label, and the
        /// namespace limits which VirtualServices may use it.
        pub hosts: Vec<String> [Required],
        /// TLS on this port.
        pub tls: Option<ServerTlsSettings>,
        /// Reserved: not used by gateways.
        pub default_endpoint: String,
        /// Name of the server, unique in the gateway, for statistics.
        pub name: String,
    }
}

message! {
    /// A port of a gateway.
    pub struct ServerPort {
        /// Its number.
        pub number: u32 [Required],
        /// HTTP, HTTPS, HTTP2, GRPC, GRPC-WEB, TCP, TLS, MONGO, MYSQL or REDIS.
        pub protocol: String [Required],
        /// Its label.
        pub name: String [Required],
        /// Deprecated and not used.
        pub target_port: u32,
    }
}

message! {
    /// TLS on a port that accepts connections.
    pub struct ServerTlsSettings [
        Cel("(has(self.tlsCertificates) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
            "only one of credentialNames or tlsCertificates can be set"),
        Cel("(has(self.credentialName) ? 1 : 0) + (has(self.credentialNames) ? 1 : 0) <= 1",
            "only one of credentialName or credentialNames can be set"),
        Cel("(has(self.credentialNames) ? 1 : 0) + (has(self.tlsCertificates) ? 1 : 0) <= 1",
            "only one of credentialName or tlsCertificates can be set"),
    ] {
        /// Answers plain HTTP with a redirect to https.
        pub https_redirect: bool,
        /// What is done with TLS.
        pub mode: ServerTlsMode,
        /// File with the server's certificate; for SIMPLE and MUTUAL.
        pub server_certificate: String,
        /// File with the server's private key; for SIMPLE and MUTUAL.
        pub private_key: String,
        /// File with the authorities that sign clients; for MUTUAL and OPTIONAL_MUTUAL.
        pub ca_certificates: String,
        /// File with the certificates that were revoked.
        pub ca_crl: String,
        /// Secret with certificate, key and authorities, in place of the files.
        pub credential_name: String,
        /// Two secrets at most, for certificates of different key types.
        pub credential_names: Vec<String> [MinItems(1), MaxItems(2)],
        /// Secret or ConfigMap with the authorities that sign clients.
        pub ca_cert_credential_name: String,
        /// Two certificates at most, of different key types, from files.
        pub tls_certificates: Vec<TlsCertificate> [MinItems(1), MaxItems(2)],
        /// Names of which a client's certificate must carry one.
        pub subject_alt_names: Vec<String>,
        /// SHA-256 hashes, in base64, of public keys that clients may have.
        pub verify_certificate_spki: Vec<String>,
        /// SHA-256 hashes, in hex, of certificates that clients may have.
        pub verify_certificate_hash: Vec<String>,
        /// Lowest version of TLS; 1.2 by default.
        pub min_protocol_version: TlsProtocol,
        /// Highest version of TLS; 1.3 by default.
        pub max_protocol_version: TlsProtocol,
        /// Cipher suites of TLS 1.2 and below, by OpenSSL name.
        pub cipher_suites: Vec<String>,
        /// Curves for the key exchange.
        pub ecdh_curves: Vec<String>,
        /// Does not verify client certificates.
        pub insecure_skip_verify: Option<bool> [Nullable],
    }
}

message! {
    /// A certificate from files.
    pub struct TlsCertificate {
        /// File with the certificate.
        pub server_certificate: String,
        /// File with the private key.
        pub private_key: String,
        /// File with the authorities that sign clients.
        pub ca_certificates: String,
    }
}

proto_enum! {
    /// What is done with TLS on a port that accepts connections.
    pub enum ServerTlsMode {
        /// It is passed on unopened to the destination of a TLS route.
        Passthrough = "PASSTHROUGH" = 0,
        /// It ends here, with a certificate of the server.
        Simple = "SIMPLE" = 1,
        /// It ends here, and the client must show a certificate.
        Mutual = "MUTUAL" = 2,
        /// It is passed on unopened to the service that its server name encodes.
        AutoPassthrough = "AUTO_PASSTHROUGH" = 3,
        /// It ends here, with certificates of the mesh on both sides.
        IstioMutual = "ISTIO_MUTUAL" = 4,
        /// It ends here, and the client may show a certificate.
        OptionalMutual = "OPTIONAL_MUTUAL" = 5,
    }
}

proto_enum! {
    /// A version of TLS.
    pub enum TlsProtocol {
        /// As the mesh says.
        TlsAuto = "TLS_AUTO" = 0,
        /// 1.0.
        TlsV1_0 = "TLSV1_0" = 1,
        /// 1.1.
        TlsV1_1 = "TLSV1_1" = 2,
        /// 1.2.
        TlsV1_2 = "TLSV1_2" = 3,
        /// 1.3.
        TlsV1_3 = "TLSV1_3" = 4,
    }
}
