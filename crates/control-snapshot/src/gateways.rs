//! Gateways of one proxy: servers of all Gateway objects that select it, merged by port.

use std::collections::BTreeMap;
use std::sync::Arc;

use api_istio::networking::{Gateway, Server, ServerTlsMode};
use diagnostics::{Code, Diagnostic};

use crate::config::Config;
use crate::inbound::InboundPort;
use crate::kubernetes::selects;
use crate::objects::Objects;
use crate::protocol::Protocol;
use crate::proxy::Proxy;

/// One server of a Gateway.
#[derive(Clone, Debug)]
pub struct GatewayServer {
    /// `namespace/name` of the Gateway.
    pub gateway: Arc<str>,
    /// The server; its hosts have the namespace `.` replaced by the Gateway's.
    pub server: Server,
    /// What its port says it speaks.
    pub protocol: Protocol,
    /// The route configuration for HTTP servers that get one, else empty.
    pub route_name: Arc<str>,
    canonical: Arc<str>,
}

impl PartialEq for GatewayServer {
    fn eq(&self, other: &Self) -> bool {
        self.canonical == other.canonical
            && self.gateway == other.gateway
            && self.route_name == other.route_name
    }
}

impl Eq for GatewayServer {}

impl std::hash::Hash for GatewayServer {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.gateway.hash(state);
        self.canonical.hash(state);
        self.route_name.hash(state);
    }
}

/// What a gateway proxy listens on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct GatewayPort {
    /// The address to bind, `0.0.0.0` unless the servers say otherwise.
    pub bind: Arc<str>,
    /// The port to bind.
    pub port: u32,
    /// The servers on it, in the order of their Gateways' age.
    pub servers: Vec<GatewayServer>,
}

impl GatewayServer {
    /// Whether the proxy ends TLS here.
    #[must_use]
    pub fn terminates_tls(&self) -> bool {
        self.server.tls.as_ref().is_some_and(|tls| {
            !self.protocol.is_http()
                && !matches!(
                    tls.mode,
                    ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
                )
        })
    }

    /// The server's hosts that objects of `namespace` may serve, without the namespace part.
    pub fn hosts_for<'a>(&'a self, namespace: &'a str) -> impl Iterator<Item = &'a str> {
        self.server
            .hosts
            .iter()
            .filter_map(move |host| match host.split_once('/') {
                None => Some(host.as_str()),
                Some((ns, host)) => (ns == "*" || ns == namespace).then_some(host),
            })
    }

    /// The server's hosts without their namespace parts.
    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.server
            .hosts
            .iter()
            .map(|host| host.split_once('/').map_or(host.as_str(), |(_, host)| host))
    }
}

/// Merges the servers of all Gateways that select this proxy.
///
/// `inbound` are the ports of the services in front of the proxy: a server's port is a service's port, and the proxy
/// binds the port behind it.
pub(crate) fn merge(
    objects: &Objects,
    proxy: &Proxy,
    inbound: &[InboundPort],
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<GatewayPort> {
    let mut selected: Vec<_> = objects
        .gateways
        .values()
        .filter(|g| selects(&g.spec.selector, &proxy.profile.labels))
        .collect();
    selected.sort_by(|a, b| a.meta.cmp(&b.meta));
    let mut merged: BTreeMap<(u32, Arc<str>), GatewayPort> = BTreeMap::new();
    for gateway in selected {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            let bound = bound_ports(proxy, inbound, port.number);
            if bound.is_empty() {
                let message = format!("this proxy may not bind port {}", port.number);
                diagnostics.push(
                    Diagnostic::new(Code::GatewayPortNotDefinedOnService, gateway.resource(), message)
                        .at(format!("spec.servers[{index}].port.number"))
                        .hint("give its Service this port with a targetPort of 1024 or more"),
                );
            }
            for number in bound {
                add_server(&mut merged, gateway, index, number, diagnostics);
            }
        }
    }
    merged.into_values().collect()
}

/// The first port an unprivileged process may bind.
const FIRST_UNPRIVILEGED_PORT: u32 = 1024;

/// The ports to bind for a server port: those behind the service port of that number, else the number itself.
fn bound_ports(proxy: &Proxy, inbound: &[InboundPort], number: u32) -> Vec<u32> {
    let mut ports: Vec<u32> = inbound
        .iter()
        .filter(|i| i.port.port == number)
        .map(|i| i.target_port)
        .collect();
    if ports.is_empty() {
        ports.push(number);
    }
    ports.sort_unstable();
    ports.dedup();
    ports.retain(|p| !proxy.profile.unprivileged || *p >= FIRST_UNPRIVILEGED_PORT);
    ports
}

fn add_server(
    merged: &mut BTreeMap<(u32, Arc<str>), GatewayPort>,
    gateway: &Config<Gateway>,
    index: usize,
    number: u32,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let server = sanitize(&gateway.spec.servers[index], &gateway.meta.namespace);
    let bind: Arc<str> = if server.bind.is_empty() {
        "0.0.0.0".into()
    } else {
        server.bind.as_str().into()
    };
    let port = server.port.clone().unwrap_or_default();
    let protocol = Protocol::parse(&port.protocol);
    let new = GatewayServer {
        gateway: format!("{}/{}", gateway.meta.namespace, gateway.meta.name).into(),
        route_name: route_name(&server, protocol, number, gateway).into(),
        canonical: serde_json::to_string(&server).unwrap_or_default().into(),
        protocol,
        server,
    };
    let entry = merged
        .entry((number, Arc::clone(&bind)))
        .or_insert_with(|| GatewayPort {
            bind,
            port: number,
            servers: Vec::new(),
        });
    if let Some(first) = entry.servers.first()
        && !compatible(first, &new)
    {
        let message = format!(
            "port {} is taken by {} of Gateway {}",
            number,
            port_protocol(first),
            first.gateway
        );
        diagnostics.push(
            Diagnostic::new(Code::ConflictingGateways, gateway.resource(), message)
                .at(format!("spec.servers[{index}]"))
                .hint("servers on one port must all be plain HTTP or all be told apart by server name"),
        );
        return;
    }
    entry.servers.push(new);
}

fn port_protocol(server: &GatewayServer) -> &str {
    server.server.port.as_ref().map_or("", |p| p.protocol.as_str())
}

/// Plain HTTP servers share a port; so do servers that TLS server names tell apart; plain TCP shares with nobody.
fn compatible(first: &GatewayServer, new: &GatewayServer) -> bool {
    let by_name = |s: &GatewayServer| s.protocol.is_tls() || s.server.tls.is_some() && !s.protocol.is_http();
    (first.protocol.is_http() && new.protocol.is_http()) || (by_name(first) && by_name(new))
}

/// Hosts with the namespace `.` get the Gateway's own.
fn sanitize(server: &Server, namespace: &str) -> Server {
    let mut server = server.clone();
    for host in &mut server.hosts {
        if let Some(rest) = host.strip_prefix("./") {
            *host = format!("{namespace}/{rest}");
        }
    }
    server
}

/// `http.<bound port>[.bind]`, or `https.<server port>.<port name>.<gateway>.<namespace>[.bind]` where TLS ends here.
fn route_name(server: &Server, protocol: Protocol, number: u32, gateway: &Config<Gateway>) -> String {
    let bind = if server.bind.is_empty() {
        String::new()
    } else {
        format!(".{}", server.bind)
    };
    if protocol.is_http() {
        return format!("http.{number}{bind}");
    }
    let passthrough = server.tls.as_ref().is_none_or(|tls| {
        matches!(
            tls.mode,
            ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough
        )
    });
    if protocol == Protocol::Https && !passthrough {
        let (declared, name) = server
            .port
            .as_ref()
            .map_or((number, ""), |p| (p.number, p.name.as_str()));
        let meta = &gateway.meta;
        return format!("https.{declared}.{name}.{}.{}{bind}", meta.name, meta.namespace);
    }
    String::new()
}
