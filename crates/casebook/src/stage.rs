//! The network that a page plays in: one namespace, with the addresses of the world on its loopback interface.
//!
//! Connections from the application's address are captured on their way out and go to the sidecar's port 15001;
//! connections of other pods, and of the sidecar itself, to the application go to port 15006. The proxies' own connections start from other
//! addresses and are left alone.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use net::namespace;
use net::netlink::nftables::{Destinations, Redirect, Target, install_redirects};
use net::netlink::route;

use tokio::sync::watch;

use crate::certificates::Files;
use crate::identities::Issuer;
use crate::world::{STRANGER, World};

/// Istio's port for captured outbound connections.
const OUTBOUND_PORT: u16 = 15001;

/// Istio's port for captured inbound connections.
const INBOUND_PORT: u16 = 15006;

/// What is at hand on the stage.
#[derive(Debug)]
pub struct Stage {
    /// A folder that is removed afterwards. The proxy under test starts in it, beside the page's certificates.
    pub scratch: PathBuf,
    /// Where the issuer of the mesh's identities is put, for the sidecars of the world's pods.
    pub mesh: watch::Sender<Option<Arc<Issuer>>>,
}

/// Sets the stage and acts on it: moves this process, which must have one thread, into a namespace of its own, starts
/// the world's upstreams and its name server, and runs `act`.
///
/// # Errors
/// The stage cannot be set up, or `act` fails.
pub fn on<T>(world: &World, files: &Files, act: impl AsyncFnOnce(&Stage) -> Result<T>) -> Result<T> {
    let scratch = tempfile::tempdir()?;
    enter(world, scratch.path())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        files.write_to(scratch.path())?;
        let (mesh, issuer) = watch::channel(None);
        crate::upstream::start(world, files, &issuer).await?;
        crate::dns::start(world.dns.clone()).await?;
        let stage = Stage {
            scratch: scratch.path().to_owned(),
            mesh,
        };
        act(&stage).await
    })
}

/// Moves this process onto the stage. `scratch` takes a resolver configuration.
fn enter(world: &World, scratch: &Path) -> Result<()> {
    namespace::unshare()?;
    route::set_loopback_up().context("bring the loopback interface up")?;
    for address in world.addresses() {
        route::add_loopback_address(address).with_context(|| format!("add {address} to loopback"))?;
    }
    let application = world.proxy_pod().address;
    route::add_default_route(application).context("add a default route over loopback")?;
    if !world.is_gateway() {
        install_redirects(&redirects(application)).context("install the redirect rules (nf_tables)")?;
    }
    // An ordinary user may then listen on port 53 in here. Where sysctls are read-only the name server says so.
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    let resolver = scratch.join("resolv.conf");
    std::fs::write(&resolver, format!("nameserver {}\n", crate::dns::ADDRESS.ip()))?;
    namespace::replace_files(&[(resolver, "/etc/resolv.conf".into())])?;
    Ok(())
}

fn redirects(application: Ipv4Addr) -> [Redirect; 3] {
    let outside = Destinations {
        network: Ipv4Addr::new(127, 0, 0, 0),
        prefix_bits: 8,
        inverted: true,
    };
    let own = Destinations {
        network: application,
        prefix_bits: 32,
        inverted: false,
    };
    [
        // The sidecar calls its own pod: as in Istio's rules that is a call like any other's.
        Redirect {
            destinations: own,
            source: Some(application),
            target: Target::Port(INBOUND_PORT),
        },
        Redirect {
            destinations: outside,
            source: Some(application),
            target: Target::Port(OUTBOUND_PORT),
        },
        Redirect {
            destinations: own,
            source: Some(STRANGER),
            target: Target::Port(INBOUND_PORT),
        },
    ]
}
