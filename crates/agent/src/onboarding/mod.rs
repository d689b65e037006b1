//! A machine outside of Kubernetes joins a mesh whose control plane is elsewhere: what `istioctl x workload entry
//! configure` writes for it, as Istio's agent on virtual machines takes it.
//!
//! | file | what it says |
//! |---|---|
//! | `cluster.env` | the agent's environment: service account, ports, labels, how certificates are got |
//! | `mesh.yaml` | `defaultConfig` of MeshConfig: where the control plane is, and more of the environment |
//! | `root-cert.pem` | what the control plane is verified against |
//! | `istio-token` | the service account's token; looked at for each certificate, and needed for the first |
//! | `ca-crl.pem` | what the authorities have revoked; istioctl writes none |
//! | `hosts` | where the control plane's name leads to |
//!
//! What would change security or traffic and cannot be done here is refused by name; what else has no effect is listed.

mod variables;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use identity::{TrustDomain, TrustDomainError};
use serde_json::{Map, Value};

use crate::certificates::authority::{CertificateAuthority, Proof, TlsAuthority};
use crate::certificates::mounted::MountedFiles;
use crate::limits::{MAX_ONBOARDING_FILE_BYTES, RESOLVE_TIMEOUT};
use crate::names::{is_dns_label, is_dns_subdomain};
use crate::small_file;
use crate::spec::{CertificateSource, MeshIdentity, Spec, Xds};
use variables::Variables;

const ROOTS: &str = "root-cert.pem";
/// What was revoked; istioctl writes none.
const REVOCATIONS: &str = "ca-crl.pem";
const TOKEN: &str = "istio-token";
/// Where istiod is called by when nothing says it.
const CONTROL_PLANE: &str = "istiod.istio-system.svc";
const SECURE_PORT: u16 = 15012;

/// Why the files are not taken. Nothing of a token is in it.
#[derive(Debug, thiserror::Error)]
pub enum OnboardingError {
    /// A file cannot be read.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Read(PathBuf, io::Error),
    /// It holds something else.
    #[error("{file}: {why}")]
    Content {
        /// Which file.
        file: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A setting cannot be followed here.
    #[error("{name}={value:?}: {why}")]
    Unsupported {
        /// The variable, or the field of `mesh.yaml`.
        name: String,
        /// Its value.
        value: String,
        /// Why not.
        why: &'static str,
    },
    /// The trust domain is none.
    #[error("TRUST_DOMAIN")]
    TrustDomain(#[from] TrustDomainError),
    /// The control plane's name leads nowhere.
    #[error("{0} has no IPv4 address: {1}")]
    Unresolved(String, String),
}

/// What the files say.
#[derive(Debug)]
pub struct Onboarding {
    folder: PathBuf,
    variables: Variables,
    hosts: BTreeMap<String, IpAddr>,
    /// `host:port` of the control plane.
    discovery: String,
    without_effect: Vec<String>,
}

impl Onboarding {
    /// Reads the files of a folder. `hosts` may be absent.
    ///
    /// # Errors
    /// When one is absent or damaged, or asks for what cannot be done.
    pub fn read(folder: &Path) -> Result<Self, OnboardingError> {
        let text = |name: &str| {
            let path = folder.join(name);
            let bytes = small_file::read(&path, MAX_ONBOARDING_FILE_BYTES);
            bytes
                .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
                .map_err(|error| OnboardingError::Read(path, error))
        };
        let mesh = mesh(&text("mesh.yaml")?)?;
        let mut variables = Variables::of_mesh(&mesh)?;
        variables.add_environment(&text("cluster.env")?)?;
        variables.check()?;
        let hosts = match text("hosts") {
            Ok(text) => hosts(&text)?,
            Err(OnboardingError::Read(_, error)) if error.kind() == io::ErrorKind::NotFound => {
                BTreeMap::new()
            }
            Err(error) => return Err(error),
        };
        let discovery = match mesh["discoveryAddress"].as_str() {
            Some(address) if !address.is_empty() => address.to_owned(),
            _ => format!("{CONTROL_PLANE}:{SECURE_PORT}"),
        };
        let mut without_effect = variables.without_effect();
        let ignored = mesh.iter().map(|(name, _)| name);
        let ignored =
            ignored.filter(|name| !["discoveryAddress", "proxyMetadata", "meshId"].contains(&name.as_str()));
        without_effect.extend(ignored.map(|name| format!("mesh.yaml: defaultConfig.{name}")));
        Ok(Self {
            folder: folder.to_owned(),
            variables,
            hosts,
            discovery,
            without_effect,
        })
    }

    /// The settings that have no effect here, by name.
    #[must_use]
    pub fn without_effect(&self) -> &[String] {
        &self.without_effect
    }

    /// The workload: `command` behind a sidecar, which serves `ports` or else those that the files name.
    ///
    /// # Errors
    /// When a variable cannot be read.
    pub fn spec(&self, ports: Vec<u16>, command: Vec<OsString>) -> Result<Spec, OnboardingError> {
        let variables = &self.variables;
        let namespace = variables
            .get("POD_NAMESPACE")
            .or(variables.get("ISTIO_NAMESPACE"));
        let group = variables
            .get("ISTIO_META_AUTO_REGISTER_GROUP")
            .unwrap_or_default();
        let workload = variables.get("ISTIO_META_WORKLOAD_NAME").unwrap_or(group);
        let mut metadata = variables.metadata()?;
        let labels = match metadata.remove("LABELS") {
            Some(Value::Object(labels)) => labels,
            None => Map::new(),
            Some(_) => return Err(variables::unreadable("ISTIO_METAJSON_LABELS", "it is no object")),
        };
        let labels = labels.into_iter().map(|(name, value)| match value {
            Value::String(value) => Ok((name, value)),
            _ => Err(variables::unreadable(
                "ISTIO_METAJSON_LABELS",
                "a label is no text",
            )),
        });
        // These have places of their own in the node.
        for name in ["AUTO_REGISTER_GROUP", "WORKLOAD_NAME"] {
            metadata.remove(name);
        }
        let ports = match ports.is_empty() {
            true => variables.ports()?,
            false => ports,
        };
        let name = variables.get("POD_NAME").unwrap_or(workload);
        let account = variables.get("SERVICE_ACCOUNT").unwrap_or("default");
        let namespace = namespace.unwrap_or("default");
        check_name("POD_NAMESPACE", namespace, is_dns_label(namespace))?;
        check_name(
            "POD_NAME or ISTIO_META_WORKLOAD_NAME",
            name,
            is_dns_subdomain(name),
        )?;
        check_name("SERVICE_ACCOUNT", account, is_dns_subdomain(account))?;
        for (variable, name) in [
            ("ISTIO_META_WORKLOAD_NAME", workload),
            ("ISTIO_META_AUTO_REGISTER_GROUP", group),
        ] {
            check_name(variable, name, name.is_empty() || is_dns_subdomain(name))?;
        }
        let base = Spec::sidecar(namespace, workload, "latest", ports);
        Ok(Spec {
            name: name.to_owned(),
            group: group.to_owned(),
            service_account: account.to_owned(),
            labels: labels.collect::<Result<_, _>>()?,
            address: variables.address()?,
            metadata,
            command,
            ..base
        })
    }

    /// Where certificates come from: from files in `certificates`, or in Istio's folder where `FILE_MOUNTED_CERTS` asks
    /// for that, or from the authority (`CA_ADDR`, or else the control plane).
    ///
    /// # Errors
    /// When a variable cannot be read, or the authority's name leads nowhere.
    pub async fn identity(&self, certificates: Option<&Path>) -> Result<MeshIdentity, OnboardingError> {
        let variables = &self.variables;
        let mounted = variables
            .is_true("FILE_MOUNTED_CERTS")
            .then(|| Path::new(MountedFiles::FOLDER));
        let roots = variables
            .get("CA_ROOT_CA")
            .map_or(self.folder.join(ROOTS), PathBuf::from);
        let (source, roots) = match certificates.or(mounted) {
            Some(folder) => (CertificateSource::Files(MountedFiles::of_folder(folder)), None),
            None => {
                let address = variables.get("CA_ADDR").unwrap_or(&self.discovery);
                let authority = TlsAuthority {
                    address: self.resolve(address).await?.to_string(),
                    server_name: self.server_name(address),
                    roots: roots.clone(),
                    proof: self.proof(),
                };
                (
                    CertificateSource::Authority(CertificateAuthority::Tls(authority)),
                    Some(roots),
                )
            }
        };
        let trust_domain = variables.get("TRUST_DOMAIN").map(TrustDomain::from_mesh_setting);
        Ok(MeshIdentity {
            source,
            roots,
            revocations: Some(self.folder.join(REVOCATIONS)),
            trust_domain: trust_domain.transpose()?,
            key: variables.key()?,
            lifetime: variables.lifetime()?,
        })
    }

    fn proof(&self) -> Proof {
        match self.variables.get("PROV_CERT") {
            Some(folder) => {
                let MountedFiles { chain, key, .. } = MountedFiles::of_folder(Path::new(folder));
                Proof::Certificate { chain, key }
            }
            None => Proof::Token(self.folder.join(TOKEN)),
        }
    }

    /// How the proxy reaches the control plane. Its name is resolved once.
    ///
    /// # Errors
    /// When its name leads nowhere.
    pub async fn xds(&self) -> Result<Xds, OnboardingError> {
        Ok(Xds {
            address: self.resolve(&self.discovery).await?,
            server_name: self.server_name(&self.discovery),
        })
    }

    /// The name that the certificate of whoever is at `host:port` must have.
    fn server_name(&self, address: &str) -> String {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let by_address = host.parse::<IpAddr>().is_ok();
        let name = self.variables.get("ISTIOD_SAN");
        name.unwrap_or(if by_address { CONTROL_PLANE } else { host })
            .to_owned()
    }

    async fn resolve(&self, address: &str) -> Result<SocketAddr, OnboardingError> {
        let unresolved = |why: &str| OnboardingError::Unresolved(address.to_owned(), why.to_owned());
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let port = match port {
            "" => SECURE_PORT,
            port => port.parse().map_err(|_| unresolved("its port is no number"))?,
        };
        if let Some(known) = self.hosts.get(host) {
            return Ok(SocketAddr::new(*known, port));
        }
        let looking = tokio::net::lookup_host((host, port));
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, looking).await;
        let mut found = found
            .map_err(|_| unresolved("nobody has answered"))?
            .map_err(|error| unresolved(&error.to_string()))?;
        found
            .find(SocketAddr::is_ipv4)
            .ok_or_else(|| unresolved("it has others"))
    }
}

/// The address of this machine from which `remote` is reached: what others in the network know it by.
///
/// # Errors
/// When there is no way there.
pub fn own_address(remote: SocketAddr) -> io::Result<Ipv4Addr> {
    // Nothing is sent; the kernel only chooses.
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(remote)?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(io::Error::from(io::ErrorKind::AddrNotAvailable)),
    }
}

/// `defaultConfig` of `mesh.yaml`.
fn mesh(text: &str) -> Result<Map<String, Value>, OnboardingError> {
    let wrong = |why: String| OnboardingError::Content {
        file: "mesh.yaml",
        why,
    };
    let mut all: Value = serde_saphyr::from_str(text).map_err(|error| wrong(error.to_string()))?;
    match all["defaultConfig"].take() {
        Value::Object(config) => Ok(config),
        Value::Null => Ok(Map::new()),
        _ => Err(wrong("defaultConfig is no map".to_owned())),
    }
}

/// The workload's files and sockets are named after these, and what is left of an earlier workload of the name is removed.
fn check_name(variable: &str, value: &str, good: bool) -> Result<(), OnboardingError> {
    match good {
        true => Ok(()),
        false => Err(OnboardingError::Unsupported {
            name: variable.to_owned(),
            value: value.to_owned(),
            why: "it is not a name that Kubernetes accepts: a-z, 0-9 and -, with a letter or digit at both ends",
        }),
    }
}

/// The names of a hosts file.
fn hosts(text: &str) -> Result<BTreeMap<String, IpAddr>, OnboardingError> {
    let mut hosts = BTreeMap::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_ascii_whitespace();
        let Some(address) = words.next() else { continue };
        let address: IpAddr = address.parse().map_err(|_| OnboardingError::Content {
            file: "hosts",
            why: format!("{address:?} is no address"),
        })?;
        hosts.extend(words.map(|name| (name.to_owned(), address)));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests;
