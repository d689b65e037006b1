//! What surrounds an application: its folder, its namespace or its ports, its names, and its socket broker.

use std::io;
use std::path::Path;
use std::rc::Rc;

use tokio::task::JoinHandle;

use crate::AgentError;
use crate::address::Claim;
use crate::capture::{self, Capture, Output};
use crate::discovery::Names;
use crate::dns::{self, Resolver};
use crate::explicit_ports::{self, AppPort};
use crate::hosts::HostsFile;
use crate::policy::{self, WorkloadPolicy};
use crate::spec::{CaptureMode, Mesh, Role, Spec};
use crate::workload_api;

/// Where the host says how names are resolved.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What a user can do where capture by namespace is refused.
pub const NAMESPACE_ADVICE: &str = "For capture by namespace let sysctl user.max_user_namespaces and user.max_net_namespaces be above 0 and, on Ubuntu, \
     kernel.apparmor_restrict_unprivileged_userns be 0; in a container allow unshare(2).";

/// How the application is captured.
#[derive(Debug)]
pub(crate) enum Captured {
    /// A gateway has no application.
    Nothing,
    InNamespace,
    ByPorts {
        ports: Vec<AppPort>,
        /// Why it has no namespace, unless that was asked for.
        refused: Option<String>,
    },
}

impl Captured {
    pub(crate) fn mode(&self) -> Option<CaptureMode> {
        match self {
            Self::Nothing => None,
            Self::InNamespace => Some(CaptureMode::Namespace),
            Self::ByPorts { .. } => Some(CaptureMode::Ports),
        }
    }
}

pub(crate) fn make_folder(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    // The remains of a workload of the same name that was killed.
    if folder.exists() {
        std::fs::remove_dir_all(folder)?;
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

/// Puts the application into a namespace or, where that is refused or not wanted, prepares its ports.
pub(crate) async fn capture_application(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    folder: &Path,
) -> Result<(Captured, Option<Rc<Capture>>, Names), AgentError> {
    if spec.role == Role::Gateway {
        return Ok((Captured::Nothing, None, Names::Unwanted));
    }
    // The listeners of an application on the host are for it alone, and on the workload's own address.
    let on_host = claim.address().is_loopback();
    if spec.capture == Some(CaptureMode::Ports) && !on_host {
        return Err(AgentError::new(
            format!("capture the traffic of {}", spec.name),
            format!(
                "{} is an address of a network, on which others could use its ports",
                claim.address()
            ),
        ));
    }
    let refused = if spec.capture == Some(CaptureMode::Ports) {
        None
    } else {
        let (settings, hosts) = namespace_settings(mesh, spec, claim, folder)?;
        match start_inside(settings, spec).await {
            Ok(capture) => {
                return Ok((Captured::InNamespace, Some(Rc::new(capture)), Names::Hosts(hosts)));
            }
            // A slow machine has refused nothing.
            Err(error) if spec.capture == Some(CaptureMode::Namespace) || is_timeout(&error) || !on_host => {
                return Err(error.mend(NAMESPACE_ADVICE));
            }
            Err(error) => Some(error.why.to_string()),
        }
    };
    let claimed = spec
        .ports
        .iter()
        .map(|port| AppPort::claim(&spec.namespace, &spec.name, *port));
    let ports = claimed
        .collect::<io::Result<_>>()
        .map_err(|error| AgentError::new(format!("port of {}", spec.name), error))?;
    Ok((Captured::ByPorts { ports, refused }, None, Names::Kept))
}

fn is_timeout(error: &AgentError) -> bool {
    let error = error.why.downcast_ref::<io::Error>();
    error.is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// Where the sidecar finds the application.
pub(crate) fn location(captured: &Captured, capture: Option<&Rc<Capture>>) -> policy::Application {
    match (captured, capture) {
        (Captured::ByPorts { ports, .. }, _) => {
            let ports = ports.iter().map(|port| (port.service_port, port.address()));
            policy::Application::OnHost(ports.collect())
        }
        (_, Some(capture)) => policy::Application::InNamespace(Rc::clone(capture)),
        (_, None) => policy::Application::None,
    }
}

/// The settings for an application in a namespace, with the hosts file that it will see.
fn namespace_settings(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    folder: &Path,
) -> Result<(capture::Settings, HostsFile), AgentError> {
    let path = folder.join("hosts");
    let hosts = HostsFile::create(&path, &spec.namespace)
        .map_err(|error| AgentError::new(format!("hosts file of {}", spec.name), error))?;
    let resolver = folder.join("resolv.conf");
    std::fs::write(&resolver, Resolver::of_host(RESOLV_CONF.as_ref()).text)
        .map_err(|error| AgentError::new(format!("resolver file of {}", spec.name), error))?;
    let ports = explicit_ports::listening(spec.ports.iter().map(|port| (*port, *port)));
    let namespace = capture::Namespace {
        source: claim.source(),
        workload: claim.address(),
        hosts: path,
        resolver,
    };
    let settings = capture::Settings {
        namespace: Some(namespace),
        ..settings(mesh, spec, claim, ports)?
    };
    Ok((settings, hosts))
}

/// The settings for an application on the host, which is told these variables beside those that every one has.
pub(crate) fn settings(
    mesh: &Mesh,
    spec: &Spec,
    claim: &Claim,
    mut environment: Vec<(String, String)>,
) -> Result<capture::Settings, AgentError> {
    let output = if spec.inherit_output {
        Output::Inherited
    } else {
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(mesh.log(spec, ""));
        Output::File(log.map_err(|error| AgentError::new(format!("log of {}", spec.name), error))?)
    };
    environment.extend([
        ("POD_NAME".to_owned(), spec.name.clone()),
        ("POD_NAMESPACE".to_owned(), spec.namespace.clone()),
        ("INSTANCE_IP".to_owned(), claim.address().to_string()),
        ("SERVICE_ACCOUNT".to_owned(), spec.service_account.clone()),
    ]);
    if let Some(socket) = &mesh.workload_api {
        let address = workload_api::socket_address(socket);
        environment.push((workload_api::SOCKET_VARIABLE.to_owned(), address));
    }
    environment.extend(spec.environment.iter().cloned());
    Ok(capture::Settings {
        program: mesh.programs.inside.clone(),
        namespace: None,
        command: spec.command.clone(),
        environment,
        output,
    })
}

/// Starts the process inside and waits until it answers.
pub(crate) async fn start_inside(settings: capture::Settings, spec: &Spec) -> Result<Capture, AgentError> {
    let failed = |error: io::Error| AgentError::new(format!("capture the traffic of {}", spec.name), error);
    let capture = Capture::start(settings).map_err(failed)?;
    capture.entered().await.map_err(failed)?;
    Ok(capture)
}

/// Starts the forwarder for names from outside the mesh. Without one the application still has the mesh's names.
pub(crate) fn forward_dns(capture: &Capture, name: &str) -> JoinHandle<()> {
    let inside = capture
        .datagram(dns::ADDRESS)
        .and_then(|fd| tokio::net::UdpSocket::from_std(fd.into()));
    let nameservers = Resolver::of_host(RESOLV_CONF.as_ref()).nameservers;
    let name = name.to_owned();
    tokio::task::spawn_local(async move {
        let ended = match inside {
            Ok(inside) => dns::serve(inside, nameservers).await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::warn!(workload = name, %error, "names from outside the mesh do not resolve");
        }
    })
}

pub(crate) fn serve_broker(path: &Path, policy: WorkloadPolicy) -> io::Result<JoinHandle<()>> {
    let server = net::broker::Server::bind(path)?;
    Ok(tokio::task::spawn_local(async move {
        if let Err(error) = server.serve(policy).await {
            tracing::error!(%error, "the socket broker ended");
        }
    }))
}
