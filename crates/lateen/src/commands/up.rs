//! `lateen up`: a mesh without applications, for `lateen run` to join.

use std::process::ExitCode;

use serde_json::json;

use super::mesh::RunningMesh;
use super::{Stop, detach, log_to, on_this_thread};
use crate::cli::{OutputFormat, UpArgs};
use crate::output::{self, Steps};
use crate::state::Home;
use crate::{memory, objects};

pub(crate) fn run(arguments: UpArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    if arguments.detach {
        return detach::run(&home, "up", arguments.output);
    }
    on_this_thread(up(home, arguments))
}

async fn up(home: Home, arguments: UpArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let mut steps = Steps::new(arguments.output == OutputFormat::Json);
    home.create()?;
    log_to(&home.log("supervisor"))?;
    steps.plain(&format!(
        "lateen {} up   state: {}",
        env!("CARGO_PKG_VERSION"),
        home.folder().display()
    ));
    steps.plain("");
    let mesh = RunningMesh::start(home, "up", false, &mut steps).await?;
    let outcome = tokio::select! {
        opened = open(&mesh, &mut steps, &arguments) => opened,
        _ = stop.wait() => Ok(()),
    };
    if outcome.is_ok() {
        stop.wait().await;
    }
    mesh.stop().await;
    steps.plain("  everything is stopped; the configuration is kept");
    outcome.map(|()| ExitCode::SUCCESS)
}

async fn open(mesh: &RunningMesh, steps: &mut Steps, arguments: &UpArgs) -> anyhow::Result<()> {
    if !arguments.no_gateway {
        mesh.apply(&objects::gateway(&RunningMesh::gateway_spec()))
            .await?;
        mesh.start_gateway().await?;
        steps.done(
            "ingress gateway",
            "listens when a Gateway object selects istio: ingressgateway",
        );
    }
    let pids = mesh.pids();
    let summary = {
        let record = mesh.record.borrow();
        json!({
            "pid": std::process::id(),
            "kubeconfig": record.kubeconfig,
            "xds": record.secure.to_string(),
            "debug": format!("http://{}", record.debug),
            "memory_bytes": memory::proportional_set_size(pids.iter().copied()),
            "processes": pids.len(),
            "pids": mesh.pids_by_name(),
        })
    };
    mesh.ready(None, summary.clone())?;
    if arguments.output == OutputFormat::Json {
        output::line(&format!("{summary:#}"));
    } else {
        print_summary(steps, &summary);
    }
    Ok(())
}

/// The lines below the steps.
fn print_summary(steps: &Steps, summary: &serde_json::Value) {
    let kubeconfig = summary["kubeconfig"].as_str().unwrap_or_default();
    let memory = memory::megabytes(summary["memory_bytes"].as_u64().unwrap_or_default());
    for line in [
        String::new(),
        format!("  kubectl    export KUBECONFIG={kubeconfig}"),
        format!("  memory     {memory} in {} processes", summary["processes"]),
        String::new(),
        "  Next       lateen run --service hello --port 8000 -- python3 -m http.server 8000".to_owned(),
        "             lateen ps · lateen logs -f · lateen down".to_owned(),
    ] {
        steps.plain(&line);
    }
}
