//! Which ports the mesh's own servers use: Istio's, or the next free ones.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;

use crate::limits::MAX_PORT_TRIES;

/// The ports of the control plane, on loopback.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ports {
    /// ADS and certificates over TLS; 15012 in Istio.
    pub(crate) secure: u16,
    /// Debug and metrics; 15014 in Istio.
    pub(crate) debug: u16,
    /// The Kubernetes API.
    pub(crate) api: u16,
}

/// A port that was wanted, and the one that is used instead because it was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) wanted: u16,
    pub(crate) used: u16,
}

impl Ports {
    /// Picks free ports, and tells which were moved.
    pub(crate) fn pick() -> anyhow::Result<(Self, Vec<Moved>)> {
        let mut moved = Vec::new();
        let mut pick = |wanted| {
            let used = free(wanted)?;
            if used != wanted {
                moved.push(Moved { wanted, used });
            }
            anyhow::Ok(used)
        };
        let ports = Self {
            secure: pick(15012)?,
            debug: pick(15014)?,
            api: pick(16443)?,
        };
        Ok((ports, moved))
    }
}

/// A port of loopback, with its address.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port)
}

/// The first free port at `wanted` or, by steps of ten so that two neighbours never meet, after it.
fn free(wanted: u16) -> anyhow::Result<u16> {
    let mut candidates = (0..MAX_PORT_TRIES).filter_map(|step| wanted.checked_add(step.checked_mul(10)?));
    candidates
        .find(|port| net::socket::is_free(loopback(*port)))
        .with_context(|| format!("port {wanted} and {MAX_PORT_TRIES} others after it are all taken"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_moved() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let used = free(port).unwrap();
        assert_ne!(used, port);
        assert_eq!(used % 10, port % 10);
    }
}
