//! `lateen node-agent`: SPIFFE's Workload API for the programs of this host.

use std::process::ExitCode;

use agent::certificates::authority::CertificateAuthority;
use agent::workload_api::{self, Reach, Settings};
use anyhow::Context as _;

use super::{Stop, on_this_thread};
use crate::cli::NodeAgentArgs;
use crate::node_agent::{HostWorkloads, settings};
use crate::output;
use crate::state::{Home, REVOCATIONS_FILE};

pub(crate) fn run(arguments: NodeAgentArgs) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    on_this_thread(serve(arguments))
}

async fn serve(arguments: NodeAgentArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let home = Home::find()?;
    let socket = std::path::absolute(&arguments.socket)?;
    let listener = workload_api::bind(&socket, Reach::Host)
        .with_context(|| format!("listen on {}", socket.display()))?;
    let agents = arguments.agent_socket.unwrap_or_else(|| home.agent_socket());
    // The control plane writes it beside its socket.
    let revocations = agents.with_file_name(REVOCATIONS_FILE);
    let workloads = HostWorkloads {
        home,
        registered: arguments.workload,
    };
    output::hint(&format!(
        "lateen: {}={} gives the workloads of this host their identities",
        workload_api::SOCKET_VARIABLE,
        workload_api::socket_address(&socket)
    ));
    let settings = Settings {
        status: arguments.metrics,
        ..settings(CertificateAuthority::Unix(agents), Some(revocations))
    };
    let serving = workload_api::serve(listener, settings, workloads);
    tokio::select! {
        served = serving => served.context("serve the Workload API")?,
        _ = stop.wait() => {}
    }
    let _ = std::fs::remove_file(socket);
    Ok(ExitCode::SUCCESS)
}
