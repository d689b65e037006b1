//! Where a page plays: services with their pods, further upstreams, DNS, MeshConfig and the proxy under test.
//!
//! ```yaml
//! services:                       # default: reviews v1 v2 v3 and ratings v1
//!   reviews:
//!     namespace: default          # default
//!     versions: [v1, v2, v3]      # a pod and an upstream `reviews-v1`... each; default [v1], may be empty
//!     ports: {http: 9080}         # default; a name that begins with tcp, or ends so, gives a TCP upstream
//!     headless: true              # default false
//!     sidecar: false              # whether its pods have sidecars; default true, where there are identities
//!     certificate: reviews        # its upstreams speak TLS and show this certificate; default: they do not
//! upstreams:                      # listeners outside of Kubernetes
//!   203.0.113.10:80: api          # address: name; a name `tcp:api` speaks TCP; `tls:api` shows the certificate `api`, and
//!                                 # `mtls:api` asks for one that ca.crt has signed, too
//! identities: true                # whether workloads have identities of the mesh; default false
//! dns: {api.example.com: [203.0.113.10]}
//! mesh: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}
//! proxy: sidecar                  # default: of the pod client; `gateway`; or `reviews-v1`, the sidecar of that pod
//! client: {namespace: default, labels: {}}
//! certificates:                   # made for the page; the proxy then proves who it is, and may have Secrets
//!   shop: {names: [shop.test]}    # shop.crt and shop.key, signed by ca.crt; `authority: x` for x.crt, `rsa: true`
//! ```
//!
//! Unless an address is given it is handed out in order: services from 10.96.0.10, pods from 10.244.0.10.

mod objects;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::certificates::Wanted;

/// The pod whose sidecar is under test, unless the world says otherwise.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);

/// The gateway's pod.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 2);

/// Where requests come from that are inbound, or that arrive at a gateway.
pub const STRANGER: Ipv4Addr = Ipv4Addr::new(10, 244, 3, 1);

/// Marks each request, so that its line in the access log is found; the world's access log begins with it.
pub const EXCHANGE_HEADER: &str = "X-CASEBOOK-EXCHANGE";

/// Ports of the gateway's service, and those that its pod listens to.
pub const GATEWAY_PORTS: [(&str, u16, u16); 5] = [
    ("http2", 80, 8080),
    ("https", 443, 8443),
    ("tcp", 31400, 31400),
    ("http-alt", 8000, 8000),
    ("tls", 15443, 15443),
];

/// What may stand before the name of an upstream; nothing is HTTP.
const UPSTREAM_KINDS: [&str; 3] = ["tcp", "tls", "mtls"];

/// Where a page plays.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct World {
    /// Services by name.
    pub services: BTreeMap<String, Service>,
    /// Listeners outside of Kubernetes: address and name.
    pub upstreams: BTreeMap<SocketAddr, String>,
    /// Names that DNS knows.
    pub dns: BTreeMap<String, Vec<Ipv4Addr>>,
    /// MeshConfig, laid over what the runner needs.
    pub mesh: Map<String, Value>,
    /// The proxy under test: `sidecar`, `gateway` or the name of a pod.
    pub proxy: String,
    /// The pod `client`.
    pub client: Client,
    /// Whether workloads have identities: pods run as the service account of their service's name, with sidecars.
    pub identities: bool,
    /// Metadata of the proxy's node beside the usual.
    pub metadata: Map<String, Value>,
    /// Certificates by name.
    pub certificates: BTreeMap<String, Wanted>,
}

/// A Kubernetes service and its pods.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Versions; each is a pod.
    pub versions: Vec<String>,
    /// Ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Whether it has no virtual address.
    pub headless: bool,
    /// Whether its pods have sidecars, where workloads have identities.
    pub sidecar: bool,
    /// Annotations, such as `networking.istio.io/exportTo`.
    pub annotations: BTreeMap<String, String>,
    /// The certificate that its upstreams show; they speak plain text without.
    pub certificate: Option<String>,
}

/// The pod whose sidecar is under test.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Its labels; `app: client` unless they say otherwise.
    pub labels: BTreeMap<String, String>,
}

/// A pod with its address.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name, which is also its upstream's.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its service.
    pub service: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
    /// Its service account.
    pub account: String,
    /// Whether it has a sidecar with an identity.
    pub sidecar: bool,
}

/// What encrypts the connections to an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing.
    None,
    /// TLS with this certificate of the page.
    Server(String),
    /// The same, for callers that show one of the page's authority `ca`.
    Mutual(String),
    /// The mesh's mutual TLS, for callers that want it.
    Sidecar {
        /// The pod's namespace.
        namespace: String,
        /// Its service account.
        account: String,
    },
}

/// A scripted upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamAt {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its name.
    pub name: String,
    /// Whether it speaks TCP instead of HTTP.
    pub tcp: bool,
    /// What encrypts it.
    pub encryption: Encryption,
}

impl Default for World {
    fn default() -> Self {
        let service = |versions: &[&str]| Service {
            versions: versions.iter().map(ToString::to_string).collect(),
            ..Service::default()
        };
        Self {
            services: BTreeMap::from([
                ("ratings".to_owned(), service(&["v1"])),
                ("reviews".to_owned(), service(&["v1", "v2", "v3"])),
            ]),
            upstreams: BTreeMap::new(),
            dns: BTreeMap::new(),
            mesh: Map::new(),
            proxy: "sidecar".into(),
            client: Client::default(),
            identities: false,
            metadata: Map::new(),
            certificates: BTreeMap::new(),
        }
    }
}

impl Default for Service {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            versions: vec!["v1".into()],
            ports: BTreeMap::from([("http".to_owned(), 9080)]),
            headless: false,
            sidecar: true,
            annotations: BTreeMap::new(),
            certificate: None,
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        Self {
            namespace: "default".into(),
            labels: BTreeMap::new(),
        }
    }
}

impl World {
    /// Parses a world block.
    ///
    /// # Errors
    /// An unknown field, or a proxy that is no pod.
    pub fn parse(text: &str) -> Result<Self> {
        let world: Self = serde_saphyr::from_str(text)?;
        let unknown = world.upstreams.values().find(|name| {
            let kind = name.split_once(':').map(|(kind, _)| kind);
            kind.is_some_and(|kind| !UPSTREAM_KINDS.contains(&kind))
        });
        if let Some(name) = unknown {
            bail!("upstreams: {name}: the kinds are {}", UPSTREAM_KINDS.join(", "));
        }
        if !world.is_gateway() && world.proxy != "sidecar" && world.pod(&world.proxy).is_none() {
            bail!(
                "proxy: {} is neither `sidecar`, `gateway` nor a pod of this world",
                world.proxy
            );
        }
        Ok(world)
    }

    /// Whether the proxy has an identity that it proves to the control plane, as one with an agent does.
    pub fn has_identity(&self) -> bool {
        self.identities || !self.certificates.is_empty()
    }

    /// The identity of the workload of the proxy under test.
    pub fn identity(&self) -> String {
        let pod = self.proxy_pod();
        format!("spiffe://cluster.local/ns/{}/sa/{}", pod.namespace, pod.account)
    }

    /// Whether the proxy under test is a gateway.
    pub fn is_gateway(&self) -> bool {
        self.proxy == "gateway"
    }

    /// All pods of services, with their addresses.
    pub fn pods(&self) -> Vec<Pod> {
        let mut pods = Vec::new();
        for (service, spec) in &self.services {
            for version in &spec.versions {
                let index = u8::try_from(pods.len()).unwrap_or(u8::MAX - 10);
                pods.push(Pod {
                    name: format!("{service}-{version}"),
                    namespace: spec.namespace.clone(),
                    service: service.clone(),
                    labels: BTreeMap::from([
                        ("app".to_owned(), service.clone()),
                        ("version".to_owned(), version.clone()),
                    ]),
                    address: Ipv4Addr::new(10, 244, 0, 10 + index),
                    ports: spec.ports.clone(),
                    account: self.account(service),
                    sidecar: self.identities && spec.sidecar,
                });
            }
        }
        pods
    }

    /// The service account of what has this name.
    fn account(&self, name: &str) -> String {
        let own = if self.identities { name } else { "default" };
        own.to_owned()
    }

    fn pod(&self, name: &str) -> Option<Pod> {
        self.pods().into_iter().find(|pod| pod.name == name)
    }

    /// The pod of the proxy under test.
    pub fn proxy_pod(&self) -> Pod {
        let pod = |name: &str, namespace: &str, labels, address| Pod {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service: String::new(),
            labels,
            address,
            ports: BTreeMap::new(),
            account: self.account(name),
            sidecar: self.identities,
        };
        match self.proxy.as_str() {
            "gateway" => {
                let label = |value: &str| ("istio".to_owned(), value.to_owned());
                let labels = BTreeMap::from([label("ingressgateway")]);
                pod("istio-ingressgateway", "istio-system", labels, GATEWAY)
            }
            name => self.pod(name).unwrap_or_else(|| {
                let mut labels = self.client.labels.clone();
                labels
                    .entry("app".to_owned())
                    .or_insert_with(|| "client".to_owned());
                pod("client", &self.client.namespace, labels, CLIENT)
            }),
        }
    }

    /// The virtual address of a service; none when it is headless.
    pub fn virtual_address(&self, service: &str) -> Option<Ipv4Addr> {
        let index = self.services.keys().position(|name| name == service)?;
        let address = Ipv4Addr::new(10, 96, 0, 10 + u8::try_from(index).ok()?);
        (!self.services[service].headless).then_some(address)
    }

    /// Every scripted upstream.
    pub fn upstream_listeners(&self) -> Vec<UpstreamAt> {
        let mut all = Vec::new();
        for pod in self.pods() {
            for (port_name, port) in &pod.ports {
                let address = SocketAddr::new(IpAddr::V4(pod.address), *port);
                all.push(UpstreamAt {
                    address,
                    name: pod.name.clone(),
                    tcp: port_name.starts_with("tcp") || port_name.ends_with("-tcp"),
                    encryption: self.encryption(&pod),
                });
            }
        }
        all.extend(self.upstreams.iter().map(|(address, name)| {
            let (kind, name) = name.split_once(':').unwrap_or(("", name));
            UpstreamAt {
                address: *address,
                name: name.to_owned(),
                tcp: kind == "tcp",
                encryption: match kind {
                    "tls" => Encryption::Server(name.to_owned()),
                    "mtls" => Encryption::Mutual(name.to_owned()),
                    _ => Encryption::None,
                },
            }
        }));
        all
    }

    /// What stands before the upstreams of a pod.
    fn encryption(&self, pod: &Pod) -> Encryption {
        let service = self.services.get(&pod.service);
        match service.and_then(|service| service.certificate.clone()) {
            Some(certificate) => Encryption::Server(certificate),
            None if pod.sidecar => Encryption::Sidecar {
                namespace: pod.namespace.clone(),
                account: pod.account.clone(),
            },
            None => Encryption::None,
        }
    }

    /// Every address that must exist in the namespace.
    pub fn addresses(&self) -> Vec<Ipv4Addr> {
        let mut all = vec![CLIENT, GATEWAY, STRANGER];
        for upstream in self.upstream_listeners() {
            match upstream.address.ip() {
                IpAddr::V4(address) if !address.is_loopback() => all.push(address),
                _ => {}
            }
        }
        all.sort();
        all.dedup();
        all
    }

    /// Where an application of this world connects to for `host:port`.
    ///
    /// # Errors
    /// A host that nobody knows.
    pub fn resolve(&self, authority: &str, default_port: u16) -> Result<SocketAddr> {
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) => (
                host,
                port.parse().with_context(|| format!("{authority}: bad port"))?,
            ),
            None => (authority, default_port),
        };
        if self.is_gateway() {
            let target = GATEWAY_PORTS
                .iter()
                .find(|(_, service_port, _)| *service_port == port);
            let target = target.with_context(|| format!("the gateway's service has no port {port}"))?;
            return Ok(SocketAddr::from((GATEWAY, target.2)));
        }
        let address = host.parse().ok().or_else(|| self.dns.get(host)?.first().copied());
        let address = address.or_else(|| self.service_address(host));
        let address = address.with_context(|| format!("the world knows no host {host}; add it to `dns`"))?;
        Ok(SocketAddr::from((address, port)))
    }

    /// What Kubernetes' DNS says of `name`, `name.namespace`, `name.namespace.svc` and so on.
    fn service_address(&self, host: &str) -> Option<Ipv4Addr> {
        let mut labels = host.split('.');
        let name = labels.next()?;
        let service = self.services.get(name)?;
        let namespace = labels.next().unwrap_or(&self.client.namespace);
        let rest: Vec<&str> = labels.collect();
        if namespace != service.namespace
            || !["", "svc", "svc.cluster.local"].contains(&rest.join(".").as_str())
        {
            return None;
        }
        let first_pod = || {
            self.pods()
                .into_iter()
                .find(|pod| pod.service == name)
                .map(|pod| pod.address)
        };
        self.virtual_address(name).or_else(first_pod)
    }

    /// MeshConfig: what the runner needs, with the page's wishes laid over it.
    pub fn mesh_config(&self, access_log: &str) -> Value {
        let mut mesh = json!({
            "rootNamespace": "istio-system",
            "trustDomain": "cluster.local",
            "accessLogFile": access_log,
            "accessLogFormat": format!("%REQ({})% %RESPONSE_FLAGS%\n", EXCHANGE_HEADER),
            "enableAutoMtls": self.identities,
        });
        for (key, value) in &self.mesh {
            mesh[key] = value.clone();
        }
        mesh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_resolves_as_in_kubernetes() {
        let world = World::parse(
            "services: {a: {}, b: {namespace: other}, c: {headless: true}}\ndns: {x.test: [1.2.3.4]}",
        )
        .expect("world");
        let resolve = |authority: &str| {
            world
                .resolve(authority, 80)
                .map(|address| address.to_string())
                .ok()
        };
        assert_eq!(resolve("a:9080").as_deref(), Some("10.96.0.10:9080"));
        assert_eq!(
            resolve("a.default.svc.cluster.local").as_deref(),
            Some("10.96.0.10:80")
        );
        assert_eq!(resolve("b"), None);
        assert_eq!(resolve("b.other").as_deref(), Some("10.96.0.11:80"));
        assert_eq!(resolve("c").as_deref(), Some("10.244.0.12:80"));
        assert_eq!(resolve("x.test:8000").as_deref(), Some("1.2.3.4:8000"));
        assert_eq!(resolve("unknown"), None);
    }

    #[test]
    fn a_world_with_a_typing_error_is_refused() {
        for text in [
            "servces: {}",
            "proxy: nobody",
            "upstreams: {nowhere: x}",
            "upstreams: {1.2.3.4:5: udp:x}",
        ] {
            assert!(World::parse(text).is_err(), "{text}");
        }
    }
}
