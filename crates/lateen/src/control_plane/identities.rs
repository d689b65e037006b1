//! How the control plane of this process gives out identities.

use std::hash::{BuildHasher as _, Hasher as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context as _;
use control_ca::{Lifetimes, RootRotation, parse_node_accounts};
use control_discovery::identities::{Issuer, Settings};
use identity::SubjectName;

use crate::state::{REVOCATIONS_FILE, ROOTS_FILE};

/// The settings, from what the command line says. What workloads of this host verify each other by is written to
/// `files`, a folder.
pub(super) fn settings(
    root_namespace: &str,
    bind: IpAddr,
    trusted_node_accounts: &str,
    files: Option<PathBuf>,
    issuer: Option<Issuer>,
) -> anyhow::Result<Settings> {
    Ok(Settings {
        root_namespace: root_namespace.to_owned(),
        names: names(root_namespace, bind),
        trusted_node_accounts: parse_node_accounts(trusted_node_accounts)
            .context("--trusted-node-accounts")?,
        issuer,
        host_users: [0, rustix::process::geteuid().as_raw()].into(),
        roots_file: files.as_ref().map(|folder| folder.join(ROOTS_FILE)),
        revocations_file: files.map(|folder| folder.join(REVOCATIONS_FILE)),
        rotation: RootRotation::default(),
        jitter: random_part(),
        lifetimes: Lifetimes::default(),
        clock: Arc::new(SystemTime::now),
    })
}

/// What the control plane's own certificate says it is: istiod's names, so that an agent of either mesh takes it, and
/// the addresses of this host, where there is no cluster with names.
fn names(root_namespace: &str, bind: IpAddr) -> Vec<SubjectName> {
    let service = format!("istiod.{root_namespace}.svc");
    let hosts = [
        format!("{service}.cluster.local"),
        service,
        "localhost".to_owned(),
    ];
    let mut addresses = vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if !bind.is_unspecified() && !addresses.contains(&bind) {
        addresses.push(bind);
    }
    let hosts = hosts.into_iter().map(SubjectName::Dns);
    hosts.chain(addresses.into_iter().map(SubjectName::Ip)).collect()
}

/// A number from 0 to 1. It spreads replicas over time, and protects nothing.
fn random_part() -> f64 {
    let random = std::hash::RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_plane_is_called_as_istiod_and_by_its_addresses() {
        let shown = |bind: &str| -> Vec<String> {
            let names = names("istio-system", bind.parse().expect("an address"));
            names.iter().map(ToString::to_string).collect()
        };
        let usual = [
            "DNS:istiod.istio-system.svc.cluster.local",
            "DNS:istiod.istio-system.svc",
            "DNS:localhost",
            "IP:127.0.0.1",
            "IP:::1",
        ];
        assert_eq!(shown("127.0.0.1"), usual);
        assert_eq!(shown("0.0.0.0"), usual);
        assert_eq!(
            shown("192.0.2.7").last().map(String::as_str),
            Some("IP:192.0.2.7")
        );
    }

    #[test]
    fn jitter_is_a_part_of_the_interval() {
        assert!((0.0..=1.0).contains(&random_part()));
    }

    #[test]
    fn a_node_account_needs_a_namespace() {
        let bind = IpAddr::V4(Ipv4Addr::LOCALHOST);
        assert!(settings("istio-system", bind, "ztunnel", None, None).is_err());
        let settings =
            settings("istio-system", bind, "istio-system/ztunnel", None, None).expect("an account");
        assert_eq!(settings.trusted_node_accounts.len(), 1);
    }
}
