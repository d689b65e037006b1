//! `lateen down`: ends the running mesh and what joined it.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::cli::DownArgs;
use crate::limits::{CONTROL_PLANE_POLL, DOWN_TIMEOUT};
use crate::output;
use crate::state::{Home, Process};

pub(crate) fn run(arguments: &DownArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    let mesh = home.mesh();
    let mut processes: Vec<Process> = home
        .workloads()
        .into_iter()
        .map(|workload| workload.owner)
        .collect();
    processes.extend(mesh.iter().map(|mesh| mesh.supervisor));
    processes.sort_by_key(|process| process.pid);
    processes.dedup();
    let running = processes
        .iter()
        .filter(|process| process.signal(Signal::TERM))
        .count();
    if !all_end_within(&processes, DOWN_TIMEOUT) {
        for process in &processes {
            process.signal(Signal::KILL);
        }
        anyhow::ensure!(
            all_end_within(&processes, DOWN_TIMEOUT),
            "some of the processes {:?} do not end, even killed",
            processes.iter().map(|process| process.pid).collect::<Vec<_>>()
        );
    }
    let remains = home.clear_remains();
    if arguments.purge && home.folder().exists() {
        std::fs::remove_dir_all(home.folder())?;
    }
    match (running, remains) {
        (0, 0) => output::hint("no mesh was running"),
        (0, remains) => output::hint(&format!("ended {remains} processes that a killed mesh had left")),
        _ => output::hint("the mesh is down"),
    }
    Ok(ExitCode::SUCCESS)
}

/// Waits until no process runs any more; `false` when that takes too long.
fn all_end_within(processes: &[Process], limit: Duration) -> bool {
    let started = Instant::now();
    while processes.iter().any(|process| process.is_alive()) {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(CONTROL_PLANE_POLL);
    }
    true
}
