//! A network namespace for one application, without root: user, network and mount namespaces, loopback, redirect
//! rules, and private `/etc/hosts` and `/etc/resolv.conf` (namespaces(7), user_namespaces(7)).
//!
//! Must be called from a process with a single thread, which the kernel demands for `CLONE_NEWUSER`. That process keeps
//! all capabilities in the new namespaces until it executes a program; what it then executes is an ordinary user again,
//! with the ordinary user id.
#![allow(unsafe_code, reason = "unshare(2) can change what other threads see")]

use std::fmt;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use rustix::thread::UnshareFlags;

use crate::netlink::nftables::{Destinations, Redirect, Target, install_redirects};
use crate::netlink::route;

/// What the namespace looks like from inside.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The source address of the application's connections; any address that nobody needs to reach from inside.
    pub source: Ipv4Addr,
    /// The workload's own address in the mesh. Connections to it reach the application, also when that listens on
    /// 127.0.0.1 only.
    pub workload: Ipv4Addr,
    /// The network of all workloads' addresses, with its prefix length; it lies in 127.0.0.0/8, which is otherwise not
    /// captured.
    pub workload_network: (Ipv4Addr, u8),
    /// Where captured connections go: the sidecar's outbound port.
    pub outbound_port: u16,
    /// Files that replace others: the replacement, and the path where the application sees it.
    pub files: Vec<(PathBuf, PathBuf)>,
}

/// A step that the kernel refused.
#[derive(Debug)]
pub struct NamespaceError {
    /// What was tried, in words that a user can look up.
    pub step: String,
    /// The kernel's answer.
    pub source: io::Error,
}

impl fmt::Display for NamespaceError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.step, self.source)
    }
}

impl std::error::Error for NamespaceError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

fn step<T>(name: &str, outcome: Result<T, impl Into<io::Error>>) -> Result<T, NamespaceError> {
    outcome.map_err(|source| NamespaceError {
        step: name.to_owned(),
        source: source.into(),
    })
}

/// Moves this process into new namespaces and sets them up. After an error the process may be half-way inside and is
/// best ended.
///
/// # Errors
/// The step that was refused, for instance `unshare(CLONE_NEWUSER)` where user namespaces are switched off.
pub fn enter(settings: &Settings) -> Result<(), NamespaceError> {
    unshare()?;
    step("bring the loopback interface up", route::set_loopback_up())?;
    step(
        "add the source address to loopback",
        route::add_loopback_address(settings.source),
    )?;
    step(
        "add a default route over loopback",
        route::add_default_route(settings.source),
    )?;
    step(
        "install the redirect rules (nf_tables)",
        install_redirects(&redirects(settings)),
    )?;
    // An ordinary user may then listen on port 80 in here. Where sysctls are read-only the application just cannot.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    replace_files(&settings.files)
}

/// Moves this process into new, empty namespaces: network, mounts, and users unless it is root. Root needs no user
/// namespace; everybody else gets one in which only the own user id exists. The process must have one thread.
///
/// # Errors
/// The step that was refused.
pub fn unshare() -> Result<(), NamespaceError> {
    let user = rustix::process::geteuid();
    let group = rustix::process::getegid();
    let network_and_mounts = UnshareFlags::NEWNET | UnshareFlags::NEWNS;
    // SAFETY: the flags do not unshare the descriptor table, so no other owner of a descriptor is affected.
    if user.is_root() && unsafe { rustix::thread::unshare_unsafe(network_and_mounts) }.is_ok() {
        return Ok(());
    }
    // SAFETY: as above.
    let unshared = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWUSER | network_and_mounts) };
    step("unshare(CLONE_NEWUSER|CLONE_NEWNET|CLONE_NEWNS)", unshared)?;
    // The kernel accepts a group map from an unprivileged process only when setgroups(2) is given up first.
    step(
        "write /proc/self/setgroups",
        std::fs::write("/proc/self/setgroups", "deny"),
    )?;
    let (user, group) = (user.as_raw(), group.as_raw());
    step(
        "write /proc/self/uid_map",
        std::fs::write("/proc/self/uid_map", format!("{user} {user} 1")),
    )?;
    step(
        "write /proc/self/gid_map",
        std::fs::write("/proc/self/gid_map", format!("{group} {group} 1")),
    )
}

/// What is captured: everything outside of loopback, and the other workloads' addresses.
fn redirects(settings: &Settings) -> [Redirect; 3] {
    let (network, prefix_bits) = settings.workload_network;
    let own = Destinations {
        network: settings.workload,
        prefix_bits: 32,
        inverted: false,
    };
    let workloads = Destinations {
        network,
        prefix_bits,
        inverted: false,
    };
    let outside = Destinations {
        network: Ipv4Addr::new(127, 0, 0, 0),
        prefix_bits: 8,
        inverted: true,
    };
    let outbound = Target::Port(settings.outbound_port);
    [
        Redirect {
            destinations: own,
            source: None,
            target: Target::SamePort,
        },
        Redirect {
            destinations: workloads,
            source: None,
            target: outbound,
        },
        Redirect {
            destinations: outside,
            source: None,
            target: outbound,
        },
    ]
}

/// Shows files in the place of others, in this mount namespace only: the replacement, and the path where it is seen.
///
/// # Errors
/// The step that was refused.
pub fn replace_files(files: &[(PathBuf, PathBuf)]) -> Result<(), NamespaceError> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    step("make the mounts private", mount_change("/", private))?;
    for (replacement, path) in files {
        if !Path::new(path).exists() {
            continue;
        }
        let what = format!("mount a private {}", path.display());
        step(&what, mount_bind(replacement.as_path(), path.as_path()))?;
    }
    Ok(())
}
