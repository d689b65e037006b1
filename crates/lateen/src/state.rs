//! What is kept on disk about the running mesh: one folder, readable files.
//!
//! | file | content |
//! |---|---|
//! | `mesh.json` | the running mesh: its processes, ports and kubeconfig ([`MeshRecord`]) |
//! | `mesh.lock`, `detach.lock` | held by who runs the mesh, and by who waits until it runs in the background |
//! | `control-plane/` | the control plane's store and kubeconfig; survives restarts |
//! | `run/NAME.NAMESPACE/` | a workload's bootstrap, sockets and `workload.json` ([`WorkloadRecord`]) |
//! | `workload-api.sock` | where workloads get their identities for themselves (SPIFFE's Workload API) |
//! | `logs/` | what the control plane, the supervisor, applications and sidecars had to say |
//!
//! A process is named by its number and start time, so that a number used again is never taken for the same process.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::process::{Pid, Signal};
use serde::{Deserialize, Serialize};

use crate::certificate::CertificateRecord;
use crate::reservation::Reservation;

/// The socket for agents of this host, in the control plane's folder.
pub(crate) const AGENT_SOCKET: &str = "agents.sock";

/// The file with the mesh's roots, beside it.
pub(crate) const ROOTS_FILE: &str = "root-cert.pem";
/// The file with the revocation lists of the mesh's authority, beside it.
pub(crate) const REVOCATIONS_FILE: &str = "ca-crl.pem";

/// The folder of this user's mesh.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    folder: PathBuf,
}

impl Home {
    /// `$LATEEN_HOME`, else `$XDG_STATE_HOME/lateen`, else `~/.local/state/lateen`.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let variable = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let folder = variable("LATEEN_HOME")
            .or_else(|| variable("XDG_STATE_HOME").map(|state| state.join("lateen")))
            .or_else(|| variable("HOME").map(|home| home.join(".local/state/lateen")))
            .context("no place to keep state: set LATEEN_HOME, XDG_STATE_HOME or HOME")?;
        Ok(Self {
            folder: std::path::absolute(folder)?,
        })
    }

    /// Makes the folder, for this user only.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        for folder in [self.run(), self.logs()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&folder)
                .with_context(|| format!("make the folder {}", folder.display()))?;
        }
        Ok(())
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn mesh_file(&self) -> PathBuf {
        self.folder.join("mesh.json")
    }

    /// Makes this process the only one that runs a mesh in this folder, for as long as the answer lives.
    pub(crate) fn reserve(&self) -> anyhow::Result<Reservation> {
        self.reserve_by("mesh.lock")
    }

    /// Makes this process the only one that waits for a mesh in the background, whose log there is once.
    pub(crate) fn reserve_background(&self) -> anyhow::Result<Reservation> {
        self.reserve_by("detach.lock")
    }

    fn reserve_by(&self, name: &str) -> anyhow::Result<Reservation> {
        let path = self.folder.join(name);
        let taken = Reservation::take(&path).with_context(|| format!("lock {}", path.display()))?;
        taken.with_context(|| {
            format!(
                "another process is starting a mesh in {}: use that one, or choose another folder with LATEEN_HOME",
                self.folder.display()
            )
        })
    }

    pub(crate) fn control_plane(&self) -> PathBuf {
        self.folder.join("control-plane")
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.control_plane().join("kubeconfig")
    }

    /// Where agents of this host reach the control plane.
    pub(crate) fn agent_socket(&self) -> PathBuf {
        self.control_plane().join(AGENT_SOCKET)
    }

    /// The file with the mesh's roots.
    pub(crate) fn roots(&self) -> PathBuf {
        self.control_plane().join(ROOTS_FILE)
    }

    /// The file with the revocation lists of the mesh's authority.
    pub(crate) fn revocations(&self) -> PathBuf {
        self.control_plane().join(REVOCATIONS_FILE)
    }

    /// Where the node agent of the running mesh serves.
    pub(crate) fn workload_api(&self) -> PathBuf {
        self.folder.join("workload-api.sock")
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.folder.join("run")
    }

    pub(crate) fn logs(&self) -> PathBuf {
        self.folder.join("logs")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// Refuses to start a mesh while one runs.
    pub(crate) fn require_none(&self) -> anyhow::Result<()> {
        match self.mesh() {
            None => Ok(()),
            Some(mesh) => anyhow::bail!(
                "a mesh is running already ({}, process {}): use it, or end it with `lateen down`",
                mesh.kind,
                mesh.supervisor.pid
            ),
        }
    }

    /// The running mesh, if there is one. The record of one that was killed does not count.
    pub(crate) fn mesh(&self) -> Option<MeshRecord> {
        self.recorded_mesh().filter(|mesh| mesh.supervisor.is_alive())
    }

    /// The running mesh, or an error that says how to start one.
    pub(crate) fn require_mesh(&self) -> anyhow::Result<MeshRecord> {
        self.mesh().filter(|mesh| mesh.ready).with_context(|| {
            format!(
                "no mesh is running (looked in {}): start one with `lateen demo` or `lateen up`",
                self.folder.display()
            )
        })
    }

    fn recorded_mesh(&self) -> Option<MeshRecord> {
        serde_json::from_slice(&fs::read(self.mesh_file()).ok()?).ok()
    }

    /// The workloads whose owner is alive, in order of name.
    pub(crate) fn workloads(&self) -> Vec<WorkloadRecord> {
        let mut records = self.recorded_workloads();
        records.retain(|(_, record)| record.owner.is_alive());
        let mut records: Vec<_> = records.into_iter().map(|(_, record)| record).collect();
        records.sort_by(|left, right| (&left.namespace, &left.name).cmp(&(&right.namespace, &right.name)));
        records
    }

    fn recorded_workloads(&self) -> Vec<(PathBuf, WorkloadRecord)> {
        let folders = fs::read_dir(self.run()).into_iter().flatten().flatten();
        folders
            .filter_map(|entry| {
                let text = fs::read(entry.path().join(WORKLOAD_FILE)).ok()?;
                Some((entry.path(), serde_json::from_slice(&text).ok()?))
            })
            .collect()
    }

    /// Removes what killed processes left: processes that outlived their owner, and their files. Returns how many
    /// processes were ended.
    pub(crate) fn clear_remains(&self) -> usize {
        let mut ended = 0;
        if let Some(mesh) = self.recorded_mesh().filter(|mesh| !mesh.supervisor.is_alive()) {
            ended += mesh.control_plane.iter().filter(|process| process.kill()).count();
            let _ = fs::remove_file(self.mesh_file());
        }
        for (folder, record) in self.recorded_workloads() {
            if !record.owner.is_alive() {
                ended += record.processes().filter(|process| process.kill()).count();
                let _ = fs::remove_dir_all(folder);
            }
        }
        ended
    }
}

const WORKLOAD_FILE: &str = "workload.json";

/// What `/proc/PID/stat` says from the third field on.
fn stat(pid: u32) -> Option<String> {
    let mut stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field, the program's name, may hold spaces and parentheses; the third follows the last one.
    Some(stat.split_off(stat.rfind(')')? + 1))
}

/// The number of a process's parent; `None` for the first of all, and for one that is not there.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    let parent: u32 = stat(pid)?.split_ascii_whitespace().nth(1)?.parse().ok()?;
    (parent != 0).then_some(parent)
}

/// A process, by number and start time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    /// In clock ticks since the machine started (`/proc/PID/stat`, field 22).
    start: u64,
}

impl Process {
    /// A running process; `None` when there is none of this number.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = stat(pid)?;
        let fields: Vec<&str> = stat.split_ascii_whitespace().collect();
        if matches!(*fields.first()?, "Z" | "X") {
            return None;
        }
        Some(Self {
            pid,
            start: fields.get(19)?.parse().ok()?,
        })
    }

    /// This process.
    pub(crate) fn current() -> Self {
        let pid = std::process::id();
        Self::of(pid).unwrap_or(Self { pid, start: 0 })
    }

    pub(crate) fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Sends a signal; `false` when the process is gone.
    pub(crate) fn signal(self, signal: Signal) -> bool {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        self.is_alive() && pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
    }

    /// Ends it at once; `false` when it was gone already.
    fn kill(self) -> bool {
        self.signal(Signal::KILL)
    }
}

/// The running mesh.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct MeshRecord {
    /// `demo` or `up`.
    pub(crate) kind: String,
    /// Whether everything is started.
    pub(crate) ready: bool,
    pub(crate) supervisor: Process,
    pub(crate) control_plane: Option<Process>,
    pub(crate) control_plane_restarts: u32,
    /// ADS and certificates over TLS.
    pub(crate) secure: SocketAddr,
    pub(crate) debug: SocketAddr,
    pub(crate) kubeconfig: PathBuf,
    /// The ingress gateway's URL, without a path.
    pub(crate) gateway: Option<String>,
    /// What was printed when it was ready, for `--detach`.
    pub(crate) summary: serde_json::Value,
}

impl MeshRecord {
    pub(crate) fn write(&self, home: &Home) -> io::Result<()> {
        write_atomically(&home.mesh_file(), self)
    }
}

/// A running workload.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct WorkloadRecord {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) service: String,
    pub(crate) version: String,
    /// The service account that it runs as.
    #[serde(default)]
    pub(crate) service_account: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) admin: SocketAddr,
    /// The process that supervises it.
    pub(crate) owner: Process,
    pub(crate) application: Option<Process>,
    pub(crate) sidecar: Option<Process>,
    /// The application's parent, which holds its namespace if it has one.
    pub(crate) parent: Option<Process>,
    /// How the application is captured, `namespace` or `ports`; nothing for a gateway.
    pub(crate) capture: Option<String>,
    /// Why it has no namespace, when one was refused.
    pub(crate) namespace_refused: Option<String>,
    /// Where the application listens, by port of the service; the same address for all of the workload in a namespace.
    pub(crate) application_ports: BTreeMap<u16, SocketAddr>,
    pub(crate) restarts: u32,
    /// The workload's certificate.
    pub(crate) certificate: CertificateRecord,
}

impl WorkloadRecord {
    /// Describes a workload as it is now.
    pub(crate) fn of(workload: &agent::Workload, application_restarts: u32) -> Self {
        let spec = workload.spec();
        let label = |name: &str| spec.labels.get(name).cloned().unwrap_or_default();
        Self {
            name: spec.name.clone(),
            namespace: spec.namespace.clone(),
            service: label("app"),
            version: label("version"),
            service_account: spec.service_account.clone(),
            address: workload.address(),
            admin: workload.admin(),
            owner: Process::current(),
            application: workload.application_pid().and_then(Process::of),
            sidecar: workload.sidecar_pid().and_then(Process::of),
            parent: workload.capture_pid().and_then(Process::of),
            capture: workload.capture_mode().map(|mode| mode.as_str().to_owned()),
            namespace_refused: workload.namespace_refused().map(str::to_owned),
            application_ports: workload.application_ports(),
            restarts: application_restarts + workload.sidecar_restarts(),
            certificate: CertificateRecord::of(&workload.certificate()),
        }
    }

    pub(crate) fn write(&self, folder: &Path) -> io::Result<()> {
        write_atomically(&folder.join(WORKLOAD_FILE), self)
    }

    pub(crate) fn processes(&self) -> impl Iterator<Item = Process> {
        [self.application, self.sidecar, self.parent]
            .into_iter()
            .flatten()
    }
}

/// A reader sees the old or the new file, never half of one.
fn write_atomically(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let next = path.with_extension("json.next");
    fs::write(&next, serde_json::to_vec_pretty(value)?)?;
    fs::rename(next, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh(supervisor: Process) -> MeshRecord {
        MeshRecord {
            kind: "demo".to_owned(),
            ready: true,
            supervisor,
            control_plane: None,
            control_plane_restarts: 0,
            secure: "127.0.0.1:15012".parse().unwrap(),
            debug: "127.0.0.1:15014".parse().unwrap(),
            kubeconfig: PathBuf::from("/k"),
            gateway: None,
            summary: serde_json::Value::Null,
        }
    }

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home {
            folder: folder.path().to_owned(),
        };
        home.create().unwrap();
        (folder, home)
    }

    #[test]
    fn a_killed_mesh_is_not_running_and_its_orphans_are_ended() {
        let (_folder, home) = home();
        let mut orphan = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let dead = Process {
            pid: std::process::id(),
            start: 1,
        };
        let mut record = mesh(dead);
        record.control_plane = Process::of(orphan.id());
        record.write(&home).unwrap();
        assert!(
            home.mesh().is_none(),
            "the same number with another start time is another process"
        );
        assert_eq!(home.clear_remains(), 1);
        assert!(!orphan.wait().unwrap().success());
        assert!(!home.mesh_file().exists());
        assert_eq!(home.clear_remains(), 0);
    }

    #[test]
    fn a_running_mesh_is_found_and_left_alone() {
        let (_folder, home) = home();
        assert!(home.require_mesh().is_err());
        mesh(Process::current()).write(&home).unwrap();
        assert_eq!(home.clear_remains(), 0);
        assert_eq!(home.require_mesh().unwrap().kind, "demo");
    }
}
