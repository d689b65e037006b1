//! `lateen run --workload-files`: joins a process to a mesh whose control plane is on another machine.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use agent::onboarding::{Onboarding, own_address};
use agent::workload_api::{self, Reach, Settings, Workloads};
use agent::{CertificateSource, Control, Mesh, Xds};
use anyhow::Context as _;
use identity::ServiceAccount;
use net::peer::Peer;
use tokio::task::JoinSet;

use super::run::{Joining, reserve};
use crate::cli::RunArgs;
use crate::node_agent::{HostWorkloads, settings};
use crate::output;
use crate::state::Home;
use crate::supervisor::programs;

/// Reads what is known of the workload, and starts the node agent that is its own: it proves itself by what this
/// workload alone has.
pub(super) async fn prepare(home: &Home, arguments: &RunArgs) -> anyhow::Result<Joining> {
    let folder = arguments
        .workload_files
        .as_deref()
        .context("there are no files")?;
    home.create()?;
    let files = Onboarding::read(folder).context("read what is known of this workload")?;
    if !files.without_effect().is_empty() {
        let names = files.without_effect().join(", ");
        output::hint(&format!("lateen: without effect here: {names}"));
    }
    let mut spec = files.spec(arguments.port.clone(), arguments.command.clone())?;
    if spec.ports.is_empty() {
        output::hint("lateen: nothing reaches the process; --port names what it listens on");
    }
    spec.inherit_output = true;
    spec.capture = arguments.capture.mode();
    let xds = files.xds().await?;
    spec.address = Some(match arguments.address.or(spec.address) {
        Some(address) => address,
        None => reached_from(&xds)?,
    });
    let identity = files.identity(arguments.certificates.as_deref()).await?;
    let reservation = reserve(home, &mut spec)?;
    let mut beside = JoinSet::new();
    let workload_api = match &identity.source {
        // Tokens and other certificates are an authority's to give.
        CertificateSource::Files(_) => None,
        CertificateSource::Authority(authority) => {
            let path = home.run().join(format!("{}.{}.sock", spec.name, spec.namespace));
            let listener = workload_api::bind(&path, Reach::User)
                .with_context(|| format!("listen on {}", path.display()))?;
            let settings = Settings {
                key: identity.key,
                lifetime: identity.lifetime,
                ..settings(authority.clone(), identity.revocations.clone())
            };
            let own = OwnWorkload {
                account: ServiceAccount {
                    namespace: spec.namespace.clone(),
                    name: spec.service_account.clone(),
                },
                host: HostWorkloads {
                    home: home.clone(),
                    registered: Vec::new(),
                },
            };
            let bound = Bound(path.clone());
            beside.spawn(async move {
                let _bound = bound;
                if let Err(error) = workload_api::serve(listener, settings, own).await {
                    tracing::error!(%error, "the process gets no identity of its own");
                }
            });
            Some(path)
        }
    };
    Ok(Joining {
        spec,
        reservation,
        beside,
        mesh: Mesh {
            xds,
            control: Control::AsProxy,
            identity,
            workload_api,
            folder: home.run(),
            logs: home.logs(),
            programs: programs()?,
        },
    })
}

fn reached_from(xds: &Xds) -> anyhow::Result<Ipv4Addr> {
    let remote = xds.address;
    own_address(remote).with_context(|| format!("find this machine's address towards {remote}"))
}

/// A socket's path, which goes with this value.
struct Bound(PathBuf);

impl Drop for Bound {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// The one workload of an agent that can prove to be no other.
struct OwnWorkload {
    account: ServiceAccount,
    host: HostWorkloads,
}

impl Workloads for OwnWorkload {
    fn of(&self, peer: &Peer) -> Vec<ServiceAccount> {
        let mut accounts = self.host.of(peer);
        accounts.retain(|account| *account == self.account);
        accounts
    }
}
