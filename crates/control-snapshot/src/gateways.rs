//! Gateways of one proxy: servers of all Gateway objects that select it, merged by port.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api_istio::networking::{Gateway, Server};
use diagnostics::{Code, Diagnostic};

use crate::config::{Config, ConfigMeta};
use crate::inbound::InboundPort;
use crate::kubernetes::selects;
use crate::objects::Objects;
use crate::protocol::Protocol;
use crate::proxy::Proxy;
use crate::server_tls::ServerTls;

/// One server of a Gateway.
#[derive(Clone, Debug)]
pub struct GatewayServer {
    /// `namespace/name` of the Gateway.
    pub gateway: Arc<str>,
    /// The server; its hosts have the namespace `.` replaced by the Gateway's.
    pub server: Server,
    /// What its port says it speaks.
    pub protocol: Protocol,
    /// What it does about TLS.
    pub tls: ServerTls,
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
        matches!(self.tls, ServerTls::Terminated(_))
    }

    /// Whether requests are read: of plain HTTP, or of HTTPS that ends here.
    #[must_use]
    pub fn reads_http(&self) -> bool {
        self.protocol.is_http() || (self.protocol == Protocol::Https && self.terminates_tls())
    }

    /// The server names of TLS that are for this server, sorted; `*` is any.
    #[must_use]
    pub fn server_names(&self) -> BTreeSet<String> {
        self.hosts().map(str::to_ascii_lowercase).collect()
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
        .filter(|g| {
            !objects.settings.gateways_of_own_namespace || *g.meta.namespace == *proxy.profile.namespace
        })
        .collect();
    selected.sort_by(|a, b| a.meta.cmp(&b.meta));
    let mut merged: BTreeMap<(u32, Arc<str>), GatewayPort> = BTreeMap::new();
    for gateway in selected {
        for (index, server) in gateway.spec.servers.iter().enumerate() {
            let Some(port) = &server.port else { continue };
            // What is wrong with the settings is a finding about the Gateway, whoever it selects.
            let (Some(tls), _) = ServerTls::read(server, Protocol::parse(&port.protocol)) else {
                continue;
            };
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
                let origin = Origin { gateway, index };
                add_server(&mut merged, origin, tls.clone(), number, diagnostics);
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

/// Where a server is written.
#[derive(Clone, Copy)]
struct Origin<'a> {
    gateway: &'a Config<Gateway>,
    index: usize,
}

impl Origin<'_> {
    fn conflict(self, field: &str, message: String, hint: &str) -> Diagnostic {
        Diagnostic::new(Code::ConflictingGateways, self.gateway.resource(), message)
            .at(format!("spec.servers[{}]{field}", self.index))
            .hint(hint)
    }
}

fn add_server(
    merged: &mut BTreeMap<(u32, Arc<str>), GatewayPort>,
    origin: Origin<'_>,
    tls: ServerTls,
    number: u32,
    diagnostics: &mut Vec<Diagnostic>,
) {
    let meta = &origin.gateway.meta;
    let server = sanitize(&origin.gateway.spec.servers[origin.index], &meta.namespace);
    let bind: Arc<str> = if server.bind.is_empty() {
        "0.0.0.0".into()
    } else {
        server.bind.as_str().into()
    };
    let port = server.port.clone().unwrap_or_default();
    let mut new = GatewayServer {
        gateway: format!("{}/{}", meta.namespace, meta.name).into(),
        route_name: "".into(),
        canonical: serde_json::to_string(&server).unwrap_or_default().into(),
        protocol: Protocol::parse(&port.protocol),
        tls,
        server,
    };
    new.route_name = route_name(&new, number, meta).into();
    let entry = merged
        .entry((number, Arc::clone(&bind)))
        .or_insert_with(|| GatewayPort {
            bind,
            port: number,
            servers: Vec::new(),
        });
    match conflict(&entry.servers, &new, number, origin) {
        Some(conflict) => diagnostics.push(conflict),
        None => entry.servers.push(new),
    }
}

/// Why a server cannot stand beside those that are on the port already.
fn conflict(
    others: &[GatewayServer],
    new: &GatewayServer,
    number: u32,
    origin: Origin<'_>,
) -> Option<Diagnostic> {
    let first = others.first()?;
    if !compatible(first, new) {
        let protocol = first.server.port.as_ref().map_or("", |p| p.protocol.as_str());
        let message = format!(
            "port {number} is taken by {protocol} of Gateway {}",
            first.gateway
        );
        let hint = "servers on one port must all be plain HTTP or all be told apart by server name";
        return Some(origin.conflict("", message, hint));
    }
    if new.protocol.is_http() {
        return None;
    }
    let names = new.server_names();
    for other in others {
        let shared: Vec<String> = other.server_names().intersection(&names).cloned().collect();
        if !shared.is_empty() {
            let message = format!(
                "on port {number}, {} is served by Gateway {} already",
                shared.join(", "),
                other.gateway
            );
            let hint = "the whole server is left out; one host has one server on a port of TLS";
            return Some(origin.conflict(".hosts", message, hint));
        }
    }
    let unnamed = new.reads_http() && others.iter().any(|other| other.route_name == new.route_name);
    unnamed.then(|| {
        let name = new.server.port.as_ref().map_or("", |p| p.name.as_str());
        let message = format!("another server of port {number} has the port name {name}");
        let hint = "the server is left out; HTTPS servers of one port need different port names";
        origin.conflict(".port.name", message, hint)
    })
}

/// Plain HTTP servers share a port; so do servers that TLS server names tell apart; plain TCP shares with nobody.
fn compatible(first: &GatewayServer, new: &GatewayServer) -> bool {
    let by_name = |s: &GatewayServer| s.tls != ServerTls::None;
    (first.protocol.is_http() && new.protocol.is_http()) || (by_name(first) && by_name(new))
}

/// Hosts with the namespace `.` get the Gateway's own; those of every namespace are written without one.
fn sanitize(server: &Server, namespace: &str) -> Server {
    let mut server = server.clone();
    for host in &mut server.hosts {
        if let Some(rest) = host.strip_prefix("./") {
            *host = format!("{namespace}/{rest}");
        } else if let Some(rest) = host.strip_prefix("*/") {
            *host = rest.to_owned();
        }
    }
    server
}

/// `http.<bound port>[.bind]`, or `https.<server port>.<port name>.<gateway>.<namespace>[.bind]` where TLS ends here.
fn route_name(server: &GatewayServer, number: u32, gateway: &ConfigMeta) -> String {
    let bind = match server.server.bind.as_str() {
        "" => String::new(),
        bind => format!(".{bind}"),
    };
    if server.protocol.is_http() {
        return format!("http.{number}{bind}");
    }
    if !server.reads_http() {
        return String::new();
    }
    let port = server.server.port.as_ref();
    let (declared, name) = port.map_or((number, ""), |p| (p.number, p.name.as_str()));
    format!(
        "https.{declared}.{name}.{}.{}{bind}",
        gateway.name, gateway.namespace
    )
}
