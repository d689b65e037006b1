//! What to run: the mesh that a workload joins, and the workload itself.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use identity::{KeyKind, TrustDomain};
use serde_json::{Map, Value};
use xds::grpc::client::Target;

use crate::certificates::authority::CertificateAuthority;
use crate::certificates::mounted::MountedFiles;

/// What all workloads of this process share.
#[derive(Debug, Clone)]
pub struct Mesh {
    /// How sidecars reach the control plane.
    pub xds: Xds,
    /// How the agent itself reaches it.
    pub control: Control,
    /// How workloads get their certificates.
    pub identity: MeshIdentity,
    /// Where the node agent serves SPIFFE's Workload API, which applications are told of; without it they are not.
    pub workload_api: Option<PathBuf>,
    /// The folder for sockets and bootstrap files; each workload makes its own inside.
    pub folder: PathBuf,
    /// The folder for logs: `NAME.NAMESPACE.log` of the application and `NAME.NAMESPACE.sidecar.log`.
    pub logs: PathBuf,
    /// How to start our own programs.
    pub programs: Programs,
}

impl Mesh {
    /// The log of a workload's application, or with a suffix of what belongs to it.
    #[must_use]
    pub fn log(&self, spec: &Spec, suffix: &str) -> PathBuf {
        self.logs
            .join(format!("{}.{}{suffix}.log", spec.name, spec.namespace))
    }
}

/// How a proxy reaches the control plane: over mutual TLS, where the workload's certificate says who asks, and
/// [`crate::secrets::ROOTS`] who answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Xds {
    /// Where.
    pub address: SocketAddr,
    /// The DNS name that the control plane's certificate must have, and that is sent as SNI.
    pub server_name: String,
}

/// How an agent reaches the control plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Control {
    /// Without a proof of its own: on a socket of this machine, where the kernel says who asks.
    Open(Target),
    /// As the proxy does.
    AsProxy,
}

/// Where certificates come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateSource {
    /// An authority signs them.
    Authority(CertificateAuthority),
    /// Somebody else keeps them in files (`FILE_MOUNTED_CERTS`).
    Files(MountedFiles),
}

/// How workloads get their certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshIdentity {
    /// From whom.
    pub source: CertificateSource,
    /// A file with the mesh's roots, trusted beside those that come with a certificate.
    pub roots: Option<PathBuf>,
    /// A file with the revocation lists of the mesh's authorities, in PEM; there need not be one.
    pub revocations: Option<PathBuf>,
    /// The trust domain, for authorities that want to read it in requests (`TRUST_DOMAIN`).
    pub trust_domain: Option<TrustDomain>,
    /// The kind of the workloads' keys.
    pub key: KeyKind,
    /// How long certificates are asked to be valid.
    pub lifetime: Duration,
}

/// The command lines of the processes that the agent starts, without the arguments that it adds.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The proxy; it understands Envoy's flags and `--socket-broker`.
    pub proxy: Vec<OsString>,
    /// The program whose `main` is [`crate::capture::inside::main`].
    pub inside: Vec<OsString>,
}

/// Which kind of proxy a workload has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Beside an application.
    Sidecar,
    /// At the edge, without an application.
    Gateway,
}

/// How an application's connections come to its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureMode {
    /// The application has a network namespace of its own, in which its connections are redirected.
    Namespace,
    /// The application shares the host's network: it is told a port to listen on, and one for each service.
    Ports,
}

impl CaptureMode {
    /// The word that users know it by.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "namespace",
            Self::Ports => "ports",
        }
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Which kind of proxy.
    pub role: Role,
    /// The namespace of the mesh.
    pub namespace: String,
    /// The workload's name, `reviews-v2`.
    pub name: String,
    /// Its address in the mesh, where it is one of a network; otherwise it gets one of this machine.
    pub address: Option<Ipv4Addr>,
    /// What its node says beyond what every one does.
    pub metadata: Map<String, Value>,
    /// The WorkloadGroup that it joins; empty when it has a WorkloadEntry that somebody wrote.
    pub group: String,
    /// The service account that it runs as.
    pub service_account: String,
    /// Its labels; services and subsets select them.
    pub labels: BTreeMap<String, String>,
    /// The ports that the application serves.
    pub ports: Vec<u16>,
    /// How the application is captured; `None` for by namespace, and by ports where that is refused.
    pub capture: Option<CaptureMode>,
    /// Services, by short name, that the application cannot do without. Captured by ports it can be told of services
    /// only when it starts, so its start waits for them, for a bounded time.
    pub calls: Vec<String>,
    /// The application; empty for a gateway.
    pub command: Vec<OsString>,
    /// The application's environment, beyond this process's own.
    pub environment: Vec<(String, String)>,
    /// Whether the application keeps this process's terminal; otherwise its output goes to its log.
    pub inherit_output: bool,
}

impl Spec {
    /// An application that serves `service` in a version, with the labels that bookinfo uses.
    #[must_use]
    pub fn sidecar(namespace: &str, service: &str, version: &str, ports: Vec<u16>) -> Self {
        let name = format!("{service}-{version}");
        let labels = BTreeMap::from([
            ("app".to_owned(), service.to_owned()),
            ("version".to_owned(), version.to_owned()),
        ]);
        Self {
            role: Role::Sidecar,
            namespace: namespace.to_owned(),
            group: name.clone(),
            name,
            address: None,
            metadata: Map::new(),
            service_account: "default".to_owned(),
            labels,
            ports,
            capture: None,
            calls: Vec::new(),
            command: Vec::new(),
            environment: Vec::new(),
            inherit_output: false,
        }
    }

    /// A gateway with these labels, which Gateway objects select.
    #[must_use]
    pub fn gateway(namespace: &str, name: &str, labels: BTreeMap<String, String>) -> Self {
        let base = Self::sidecar(namespace, name, "latest", Vec::new());
        let service_account = format!("{name}-service-account");
        Self {
            role: Role::Gateway,
            name: name.to_owned(),
            group: name.to_owned(),
            labels,
            service_account,
            ..base
        }
    }
}
