//! `lateen run`: joins a process to the running mesh.

use std::process::ExitCode;

use agent::names::is_dns_label;
use agent::{Mesh, Spec, Workload, WorkloadEvent};
use anyhow::Context as _;
use control_sources::write::{self, ObjectRef, WriteError};
use rustix::process::Signal;
use serde_json::Value;

use tokio::task::JoinSet;

use super::{Stop, capture_by_ports, elsewhere, on_this_thread};
use crate::cli::RunArgs;
use crate::objects;
use crate::output;
use crate::reservation::Reservation;
use crate::state::{Home, MeshRecord, WorkloadRecord};
use crate::supervisor::joined;

pub(crate) fn run(arguments: RunArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    let mesh = match arguments.workload_files {
        None => Some(home.require_mesh()?),
        Some(_) => None,
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "warn".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    on_this_thread(join(home, mesh, arguments))
}

/// What is to be run, and in which mesh.
pub(super) struct Joining {
    pub(super) spec: Spec,
    pub(super) mesh: Mesh,
    /// The hold on the workload's name.
    pub(super) reservation: Reservation,
    /// What goes on beside it, until it has ended.
    pub(super) beside: JoinSet<()>,
}

/// A workload of this user's mesh.
async fn here(home: &Home, mesh: &MeshRecord, arguments: &RunArgs) -> anyhow::Result<Joining> {
    let (spec, reservation) = spec(home, arguments)?;
    let client = control_sources::client::from_kubeconfig(&mesh.kubeconfig).await?;
    register(&client, arguments, &spec).await?;
    Ok(Joining {
        spec,
        reservation,
        mesh: joined(home, mesh)?,
        beside: JoinSet::new(),
    })
}

async fn join(home: Home, mesh: Option<MeshRecord>, arguments: RunArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    home.clear_remains();
    let Joining {
        spec,
        mesh: agent,
        reservation: _reservation,
        beside: _beside,
    } = match &mesh {
        Some(mesh) => here(&home, mesh, &arguments).await?,
        None => elsewhere::prepare(&home, &arguments).await?,
    };
    let folder = home.run().join(format!("{}.{}", spec.name, spec.namespace));
    let workload = tokio::select! {
        started = Workload::start(&agent, spec) => match started {
            Ok(workload) => workload,
            Err(error) => {
                let _ = std::fs::remove_dir_all(folder);
                let code = error.exit_code;
                output::error(&error.into());
                return Ok(ExitCode::from(code));
            }
        },
        signal = stop.wait() => return Ok(ExitCode::from(128 + u8::try_from(signal.as_raw()).unwrap_or_default())),
    };
    let record = WorkloadRecord::of(&workload, 0);
    record.write(workload.folder())?;
    if let Some(why) = &record.namespace_refused {
        output::hint(&format!("lateen: {}", capture_by_ports(why)));
    }
    output::hint(&format!(
        "lateen: {} joined {} as {} (sidecar ready, admin http://{})",
        record.name, record.namespace, record.address, record.admin
    ));
    if record.capture.as_deref() == Some(agent::CaptureMode::Ports.as_str()) {
        for (port, real) in &record.application_ports {
            output::hint(&format!(
                "lateen: what listens on {real} ($PORT_{port}) serves port {port}; services are in \
                 $NAME_SERVICE_HOST and $NAME_SERVICE_PORT"
            ));
        }
    }
    let exit = supervise(workload, &mut stop, &arguments).await;
    let _ = std::fs::remove_dir_all(folder);
    exit
}

/// Waits for the end of the process, or for a signal that is passed on to it.
async fn supervise(mut workload: Workload, stop: &mut Stop, arguments: &RunArgs) -> anyhow::Result<ExitCode> {
    let signal = loop {
        tokio::select! {
            signal = stop.wait() => break signal,
            event = workload.event() => match event? {
                WorkloadEvent::ApplicationEnded(exit) => {
                    workload.stop(Signal::TERM, arguments.drain).await;
                    return Ok(ExitCode::from(exit.code()));
                }
                WorkloadEvent::SidecarRestarted | WorkloadEvent::IdentityChanged => {
                    let _ = WorkloadRecord::of(&workload, 0).write(workload.folder());
                }
            }
        }
    };
    // A second signal does not wait for requests under way.
    let stopping = workload.stop(signal, arguments.drain);
    let exit = tokio::select! {
        exit = stopping => exit,
        _ = stop.wait() => None,
    };
    Ok(ExitCode::from(exit.map_or(128 + 9, agent::capture::Exit::code)))
}

/// The workload's spec, and the hold on its name. A second instance of the same version gets a number.
fn spec(home: &Home, arguments: &RunArgs) -> anyhow::Result<(Spec, Reservation)> {
    let RunArgs {
        service,
        version,
        namespace,
        ..
    } = arguments;
    for (what, name) in [
        ("service", service),
        ("version", version),
        ("namespace", namespace),
    ] {
        anyhow::ensure!(
            is_dns_label(name),
            "{what} \"{name}\" is not a name that Kubernetes accepts: at most 63 of a-z, 0-9 and -, with a letter or \
             digit at both ends"
        );
    }
    let mut spec = Spec::sidecar(namespace, service, version, arguments.port.clone());
    let reservation = reserve(home, &mut spec)?;
    spec.service_account.clone_from(&arguments.service_account);
    spec.labels.extend(arguments.label.iter().cloned());
    spec.command.clone_from(&arguments.command);
    spec.inherit_output = true;
    spec.capture = arguments.capture.mode();
    Ok((spec, reservation))
}

/// Takes the first of the names that the workload may have, and puts it into the spec.
pub(super) fn reserve(home: &Home, spec: &mut Spec) -> anyhow::Result<Reservation> {
    let taken: Vec<String> = home
        .workloads()
        .into_iter()
        .map(|workload| workload.name)
        .collect();
    let first = spec.name.clone();
    let numbered = (2..).map(|number| format!("{first}-{number}"));
    let mut names = std::iter::once(first.clone()).chain(numbered);
    loop {
        spec.name = names.next().context("there is always another number")?;
        if taken.contains(&spec.name) {
            continue;
        }
        let path = home.run().join(format!("{}.{}.lock", spec.name, spec.namespace));
        let reserved = Reservation::take(&path).with_context(|| format!("reserve {}", path.display()))?;
        if let Some(reservation) = reserved {
            return Ok(reservation);
        }
    }
}

/// Makes what the workload joins: its namespace, group and, unless there is one, its service.
async fn register(client: &control_sources::Client, arguments: &RunArgs, spec: &Spec) -> anyhow::Result<()> {
    let namespace = serde_json::json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": spec.namespace },
    });
    ensure(client, &namespace).await?;
    if !arguments.port.is_empty() {
        ensure(
            client,
            &objects::service(&spec.namespace, &arguments.service, &arguments.port),
        )
        .await?;
    }
    let group = objects::workload_group(spec);
    control_sources::apply(client, &[group])
        .await
        .context("make the workload's group")?;
    Ok(())
}

/// Creates an object unless it exists; what exists is the user's and stays as it is.
async fn ensure(client: &control_sources::Client, object: &Value) -> anyhow::Result<()> {
    match write::get(client, &ObjectRef::of(object)?).await {
        Ok(_) => Ok(()),
        Err(WriteError::NotFound(_)) => {
            write::create(client, object).await?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
