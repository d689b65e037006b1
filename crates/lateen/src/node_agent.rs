//! Which workload a process of this host is part of, for the node agent.
//!
//! A workload that was started here is known by its processes: by their network namespace, which is the workload's own,
//! or by their descent from the process that was started as the application's parent. Others are registered by selectors
//! in SPIRE's words, `unix:uid:1000` for instance.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use agent::CaptureMode;
use agent::certificates::authority::CertificateAuthority;
use agent::workload_api::{Settings, Workloads};
use identity::{KeyKind, ServiceAccount};
use net::peer::Peer;

use crate::limits::MAX_PROCESS_DEPTH;
use crate::state::{Home, Process, WorkloadRecord, parent_of};

/// How a node agent gets identities: from this authority, with Istio's defaults; and the file with what was revoked.
pub(crate) fn settings(authority: CertificateAuthority, revocations: Option<PathBuf>) -> Settings {
    Settings {
        authority,
        key: KeyKind::default(),
        lifetime: agent::limits::CERTIFICATE_LIFETIME,
        revocations,
        status: None,
        clock: Arc::new(SystemTime::now),
    }
}

/// What a process must be to be a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Its user (`unix:uid:N`).
    User(u32),
    /// Its group (`unix:gid:N`).
    Group(u32),
}

impl Selector {
    fn matches(self, peer: &Peer) -> bool {
        match self {
            Self::User(uid) => peer.uid == uid,
            Self::Group(gid) => peer.gid == gid,
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is no number"));
        if let Some(uid) = text.strip_prefix("unix:uid:") {
            return Ok(Self::User(number(uid)?));
        }
        match text.strip_prefix("unix:gid:") {
            Some(gid) => Ok(Self::Group(number(gid)?)),
            None => Err(format!("{text:?} is no selector: unix:uid:N and unix:gid:N are")),
        }
    }
}

/// A service account, and what a process must be to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registration {
    account: ServiceAccount,
    /// All of them.
    selectors: Vec<Selector>,
}

/// `NAMESPACE/ACCOUNT=SELECTOR,…`.
impl FromStr for Registration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = || "a workload is NAMESPACE/ACCOUNT=SELECTOR,...".to_owned();
        let (account, selectors) = text.split_once('=').ok_or_else(form)?;
        let (namespace, name) = account.split_once('/').ok_or_else(form)?;
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(form());
        }
        Ok(Self {
            account: ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
            selectors: selectors.split(',').map(str::parse).collect::<Result<_, _>>()?,
        })
    }
}

/// The workloads of this user's mesh, and those that were registered.
#[derive(Debug)]
pub(crate) struct HostWorkloads {
    pub(crate) home: Home,
    pub(crate) registered: Vec<Registration>,
}

impl Workloads for HostWorkloads {
    fn of(&self, peer: &Peer) -> Vec<ServiceAccount> {
        let started = self.home.workloads();
        let started = started.iter().filter(|record| is_part_of(peer.pid, record));
        let started = started.map(|record| ServiceAccount {
            namespace: record.namespace.clone(),
            name: record.service_account.clone(),
        });
        let registered = self.registered.iter().filter(|registration| {
            registration
                .selectors
                .iter()
                .all(|selector| selector.matches(peer))
        });
        let registered = registered.map(|registration| registration.account.clone());
        let mut accounts = Vec::new();
        for account in started.chain(registered) {
            if !accounts.contains(&account) {
                accounts.push(account);
            }
        }
        accounts
    }
}

/// Whether a process is one of a workload's application.
fn is_part_of(pid: u32, record: &WorkloadRecord) -> bool {
    let Some(parent) = record.parent.filter(|parent| parent.is_alive()) else {
        return false;
    };
    let in_namespace = record.capture.as_deref() == Some(CaptureMode::Namespace.as_str());
    in_namespace && shares_own_network(pid, parent) || descends_from(pid, parent)
}

/// Whether both are in one network namespace that is not this process's.
fn shares_own_network(pid: u32, parent: Process) -> bool {
    let of = |pid: u32| {
        let namespace = std::fs::metadata(format!("/proc/{pid}/ns/net")).ok()?;
        Some((namespace.dev(), namespace.ino()))
    };
    let (theirs, parents, ours) = (of(pid), of(parent.pid), of(std::process::id()));
    theirs.is_some() && theirs == parents && ours.is_some() && theirs != ours
}

/// Whether one process was started by the other, or by a process that was, and so on. One whose parent has ended does
/// not.
fn descends_from(pid: u32, ancestor: Process) -> bool {
    let mut above = std::iter::successors(Some(pid), |pid| parent_of(*pid)).take(MAX_PROCESS_DEPTH);
    above.any(|pid| pid == ancestor.pid) && ancestor.is_alive()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn registrations_are_read_in_spires_words() {
        let read: Registration = "default/reports=unix:uid:1000,unix:gid:7".parse().unwrap();
        assert_eq!(read.account.to_string(), "default/reports");
        assert_eq!(read.selectors, [Selector::User(1000), Selector::Group(7)]);
        for bad in [
            "default/reports",
            "reports=unix:uid:1",
            "/a=unix:uid:1",
            "a/b/c=unix:uid:1",
            "a/b=",
            "a/b=unix:uid:me",
            "a/b=docker:label:x",
        ] {
            assert!(bad.parse::<Registration>().is_err(), "{bad}");
        }
    }

    #[test]
    fn descent_is_by_living_processes() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        let parent = Process::of(child.id()).unwrap();
        assert!(descends_from(grandchild, parent));
        assert!(descends_from(grandchild, Process::current()));
        assert!(!descends_from(std::process::id(), parent));
        assert!(
            !shares_own_network(grandchild, parent),
            "it is this process's own"
        );
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!descends_from(grandchild, parent));
        Process::of(grandchild)
            .unwrap()
            .signal(rustix::process::Signal::KILL);
    }
}
