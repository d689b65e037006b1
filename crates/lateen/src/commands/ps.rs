//! `lateen ps`: what runs.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::on_this_thread;
use crate::cli::{OutputFormat, PsArgs};
use crate::state::{Home, MeshRecord, Process, WorkloadRecord};
use crate::{http, memory, output};

pub(crate) fn run(arguments: &PsArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    let mesh = home.require_mesh()?;
    let rows = on_this_thread(with_readiness(home.workloads()))?;
    if arguments.output == OutputFormat::Json {
        output::line(&format!("{:#}", in_json(&mesh, &rows)));
        return Ok(ExitCode::SUCCESS);
    }
    let header = [
        "NAME",
        "NAMESPACE",
        "SERVICE",
        "VERSION",
        "ADDRESS",
        "CAPTURE",
        "PID",
        "SIDECAR",
        "READY",
        "RESTARTS",
        "MEMORY",
    ];
    let mut table = vec![control_plane_row(&mesh)];
    table.extend(rows.iter().map(|(workload, ready)| row(workload, *ready)));
    output::table(&header, &table);
    Ok(ExitCode::SUCCESS)
}

/// One row per process, so that a script finds any of them by name and role.
fn in_json(mesh: &MeshRecord, rows: &[(WorkloadRecord, bool)]) -> Value {
    let process = |name: &str, role: &str, process: Option<Process>| {
        let process = process.filter(|process| process.is_alive())?;
        let memory = memory::proportional_set_size([process.pid]);
        Some(json!({ "name": name, "role": role, "pid": process.pid, "memory_bytes": memory }))
    };
    let mut processes = vec![
        process("lateen", "supervisor", Some(mesh.supervisor)),
        process("control-plane", "control-plane", mesh.control_plane),
    ];
    for (workload, _) in rows {
        processes.push(process(&workload.name, "app", workload.application));
        processes.push(process(&workload.name, "sidecar", workload.sidecar));
        processes.push(process(&workload.name, "parent", workload.parent));
        if workload.owner != mesh.supervisor {
            processes.push(process(&workload.name, "agent", Some(workload.owner)));
        }
    }
    let processes: Vec<Value> = processes.into_iter().flatten().collect();
    let workloads: Vec<Value> = rows
        .iter()
        .map(|(workload, ready)| {
            json!({
                "name": workload.name,
                "namespace": workload.namespace,
                "service": workload.service,
                "version": workload.version,
                "address": workload.address,
                "admin": format!("http://{}", workload.admin),
                "capture": workload.capture,
                "namespace_refused": workload.namespace_refused,
                "application_ports": workload.application_ports,
                "ready": ready,
                "restarts": workload.restarts,
            })
        })
        .collect();
    json!({ "kind": mesh.kind, "processes": processes, "workloads": workloads })
}

/// Asks all at the same time, so that one that does not answer delays the list only once.
async fn with_readiness(workloads: Vec<WorkloadRecord>) -> anyhow::Result<Vec<(WorkloadRecord, bool)>> {
    let asked: Vec<_> = workloads
        .into_iter()
        .map(|workload| {
            tokio::task::spawn_local(async move {
                let ready = is_ready(&workload).await;
                (workload, ready)
            })
        })
        .collect();
    let mut rows = Vec::new();
    for answer in asked {
        rows.push(answer.await?);
    }
    Ok(rows)
}

/// Ready means that both can do their work: the application runs and the sidecar is configured.
async fn is_ready(workload: &WorkloadRecord) -> bool {
    let application =
        workload.capture.is_none() || workload.application.is_some_and(|process| process.is_alive());
    application && matches!(http::get(workload.admin, "/ready").await, Ok((200, _)))
}

fn memory_of(workload: &WorkloadRecord) -> u64 {
    memory::proportional_set_size(workload.processes().map(|process| process.pid))
}

fn control_plane_row(mesh: &MeshRecord) -> Vec<String> {
    let alive = mesh.control_plane.filter(|process| process.is_alive());
    let pid = alive.map_or_else(dash, |process| process.pid.to_string());
    let memory = memory::proportional_set_size(alive.map(|process| process.pid));
    let row = [
        "control-plane",
        "istio-system",
        "-",
        "-",
        "127.0.0.1",
        "-",
        &pid,
        "-",
        yes_no(alive.is_some()),
    ];
    let mut row: Vec<String> = row.map(str::to_owned).to_vec();
    row.extend([mesh.control_plane_restarts.to_string(), memory::megabytes(memory)]);
    row
}

fn row(workload: &WorkloadRecord, ready: bool) -> Vec<String> {
    let pid = |process: Option<Process>| process.map_or_else(dash, |process| process.pid.to_string());
    let or_dash = |text: &str| if text.is_empty() { dash() } else { text.to_owned() };
    vec![
        workload.name.clone(),
        workload.namespace.clone(),
        or_dash(&workload.service),
        or_dash(&workload.version),
        workload.address.to_string(),
        workload.capture.clone().unwrap_or_else(dash),
        pid(workload.application),
        pid(workload.sidecar),
        yes_no(ready).to_owned(),
        workload.restarts.to_string(),
        memory::megabytes(memory_of(workload)),
    ]
}

fn dash() -> String {
    "-".to_owned()
}

fn yes_no(ready: bool) -> &'static str {
    if ready { "yes" } else { "no" }
}
