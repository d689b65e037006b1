//! The extensions that this proxy has, in one list per place they are used in.
//!
//! A control plane learns them from `node.extensions`; the support table of the documentation is printed from here.
//! Envoy finds an extension by the type of its configuration, and by name only where there is no configuration.

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::type_url::message_name;

/// Where an extension is used, named as Envoy's `Extension.category`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// `envoy.filters.listener`.
    ListenerFilter,
    /// `envoy.filters.network`.
    NetworkFilter,
    /// `envoy.filters.http`.
    HttpFilter,
    /// `envoy.access_loggers`.
    AccessLogger,
    /// `envoy.transport_sockets.upstream` and `.downstream`.
    TransportSocket,
}

impl Category {
    /// Envoy's name of the category.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ListenerFilter => "envoy.filters.listener",
            Self::NetworkFilter => "envoy.filters.network",
            Self::HttpFilter => "envoy.filters.http",
            Self::AccessLogger => "envoy.access_loggers",
            Self::TransportSocket => "envoy.transport_sockets",
        }
    }
}

/// How much of an extension is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Maturity {
    /// Everything that Envoy documents, or a refusal of the field.
    Complete,
    /// Usable; the doc line says what is missing, and fields that are missing are refused.
    Partial,
    /// Accepted where it changes nothing.
    NoEffect,
}

/// One extension.
#[derive(Clone, Copy, Debug)]
pub struct Extension {
    /// Envoy's name.
    pub name: &'static str,
    /// The message of its configuration, without `type.googleapis.com/`.
    pub message: &'static str,
    /// How much of it is there.
    pub maturity: Maturity,
    /// One line for the support table.
    pub doc: &'static str,
}

const fn extension(
    name: &'static str,
    message: &'static str,
    maturity: Maturity,
    doc: &'static str,
) -> Extension {
    Extension {
        name,
        message,
        maturity,
        doc,
    }
}

/// Listener filters.
pub const LISTENER_FILTERS: &[Extension] = &[
    extension(
        "envoy.filters.listener.original_dst",
        "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
        Maturity::Complete,
        "Restores the destination before redirection (SO_ORIGINAL_DST, or the socket broker's word).",
    ),
    extension(
        "envoy.filters.listener.http_inspector",
        "envoy.extensions.filters.listener.http_inspector.v3.HttpInspector",
        Maturity::Complete,
        "Detects HTTP/1.0, HTTP/1.1 and cleartext HTTP/2.",
    ),
    extension(
        "envoy.filters.listener.tls_inspector",
        "envoy.extensions.filters.listener.tls_inspector.v3.TlsInspector",
        Maturity::Partial,
        "Detects TLS, reads SNI and ALPN. No JA3 or JA4 fingerprints.",
    ),
    extension(
        "envoy.filters.listener.proxy_protocol",
        "envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol",
        Maturity::Complete,
        "Reads the PROXY protocol's header, versions 1 and 2, and its TLVs.",
    ),
];

/// Network filters.
pub const NETWORK_FILTERS: &[Extension] = &[
    extension(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        Maturity::Partial,
        "HTTP/1.1 and HTTP/2; tracing comes later.",
    ),
    extension(
        "envoy.filters.network.tcp_proxy",
        "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        Maturity::Partial,
        "Clusters by weight, timeouts, retries with backoff, source hashing, access logs, half-close. No tunnelling.",
    ),
    extension(
        "envoy.filters.network.sni_cluster",
        "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
        Maturity::Complete,
        "The TCP proxy behind it goes to the cluster that is called as the server name says.",
    ),
    extension(
        "istio.metadata_exchange",
        proxy_upstream::metadata_exchange::MESSAGE,
        Maturity::Partial,
        "Tells the peer of this node where TLS agreed on it; what the peer tells is taken out of the stream, for nobody yet.",
    ),
    extension(
        "istio.stats",
        "stats.PluginConfig",
        Maturity::NoEffect,
        "Accepted; counts nothing yet.",
    ),
];

/// HTTP filters.
pub const HTTP_FILTERS: &[Extension] = &[
    extension(
        "envoy.filters.http.router",
        "envoy.extensions.filters.http.router.v3.Router",
        Maturity::Partial,
        "Routes, retries, timeouts, redirects, direct responses.",
    ),
    extension(
        "istio.metadata_exchange",
        "io.istio.http.peer_metadata.Config",
        Maturity::Partial,
        "Tells the peer of this node in headers; what the peer tells is taken out of them, for nobody yet.",
    ),
    extension(
        "istio.alpn",
        "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        Maturity::Complete,
        "Chooses the application protocols of the TLS handshake towards the host by the version of HTTP.",
    ),
    extension(
        "envoy.filters.http.fault",
        "envoy.extensions.filters.http.fault.v3.HTTPFault",
        Maturity::NoEffect,
        "Accepted without faults; a route that configures one is refused.",
    ),
    extension(
        "envoy.filters.http.cors",
        "envoy.extensions.filters.http.cors.v3.Cors",
        Maturity::NoEffect,
        "Accepted without policies; a route that configures one is refused.",
    ),
    extension(
        "envoy.filters.http.grpc_stats",
        "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
        Maturity::Partial,
        "Counts calls, their statuses and their messages, by cluster or method. No times.",
    ),
    extension(
        "envoy.filters.http.grpc_web",
        "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
        Maturity::Complete,
        "Translates calls of browsers to gRPC and back, binary and text.",
    ),
    extension(
        "istio.stats",
        "stats.PluginConfig",
        Maturity::NoEffect,
        "Accepted; counts nothing yet.",
    ),
];

/// Access loggers.
pub const ACCESS_LOGGERS: &[Extension] = &[
    extension(
        "envoy.access_loggers.file",
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        Maturity::Complete,
        "Text or JSON lines to a file.",
    ),
    extension(
        "envoy.access_loggers.stdout",
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
        Maturity::Complete,
        "Text or JSON lines to standard output.",
    ),
    extension(
        "envoy.access_loggers.stderr",
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog",
        Maturity::Complete,
        "Text or JSON lines to standard error.",
    ),
];

/// Transport sockets.
pub const TRANSPORT_SOCKETS: &[Extension] = &[
    extension(
        "envoy.transport_sockets.raw_buffer",
        "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        Maturity::Complete,
        "Plain bytes.",
    ),
    extension(
        "envoy.transport_sockets.tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        Maturity::Partial,
        "Certificates from files, inline and SDS; no OCSP.",
    ),
    extension(
        "envoy.transport_sockets.upstream_proxy_protocol",
        "envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport",
        Maturity::Partial,
        "Tells hosts of the client, versions 1 and 2, over plain bytes and TLS. TLVs have fixed values, no format strings.",
    ),
];

/// All tables, in the order of the support page.
pub const TABLES: &[(Category, &[Extension])] = &[
    (Category::ListenerFilter, LISTENER_FILTERS),
    (Category::NetworkFilter, NETWORK_FILTERS),
    (Category::HttpFilter, HTTP_FILTERS),
    (Category::AccessLogger, ACCESS_LOGGERS),
    (Category::TransportSocket, TRANSPORT_SOCKETS),
];

/// Finds an extension by the type of its configuration, or by name when it comes without one.
#[must_use]
pub fn find(category: Category, name: &str, type_url: &str) -> Option<&'static Extension> {
    let (_, table) = TABLES.iter().find(|(c, _)| *c == category)?;
    let message = message_name(type_url);
    table.iter().find(|e| {
        if message.is_empty() {
            e.name == name
        } else {
            e.message == message
        }
    })
}

/// What `node.extensions` announces: all that has an effect. A control plane must not count on the rest.
#[must_use]
pub fn node_extensions() -> Vec<core::Extension> {
    let announced = |category: Category, e: &Extension| core::Extension {
        name: e.name.to_owned(),
        category: category.name().to_owned(),
        type_urls: vec![e.message.to_owned()],
        ..Default::default()
    };
    TABLES
        .iter()
        .flat_map(|(category, table)| {
            let effective = table.iter().filter(|e| e.maturity != Maturity::NoEffect);
            effective.map(|e| announced(*category, e))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_configuration_message_exists() {
        let schema = api_envoy::json::Schema::get();
        for (_, table) in TABLES {
            for e in *table {
                // Istio sends these without the message, as a TypedStruct.
                let is_sent = e.name != "istio.metadata_exchange";
                assert!(!is_sent || schema.knows(e.message), "{}", e.message);
            }
        }
    }

    #[test]
    fn an_extension_is_found_by_type_even_under_another_name() {
        let url = "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy";
        let found = find(Category::NetworkFilter, "tcp", url).unwrap();
        assert_eq!(found.name, "envoy.filters.network.tcp_proxy");
        assert!(
            find(
                Category::NetworkFilter,
                "envoy.filters.network.tcp_proxy",
                "x/acme.Filter"
            )
            .is_none()
        );
    }
}
