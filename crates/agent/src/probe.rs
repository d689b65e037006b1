//! Whether an application accepts connections: what decides about its first health report.

use std::net::SocketAddr;
use std::rc::Rc;

use net::broker::Sockets;
use net::socket::Family;
use tokio::net::TcpSocket;

use crate::discovery::{Discovery, Health};
use crate::limits::{PROBE_FAST_PERIOD, PROBE_INTERVAL, PROBE_SLOW_INTERVAL};

/// Whom to ask: where the application listens, and the sockets of its namespace if it has one.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) workload: String,
    pub(crate) addresses: Vec<SocketAddr>,
    pub(crate) sockets: Option<Sockets>,
}

/// Reports the workload healthy once all its ports accept connections.
pub(crate) async fn report_when_healthy(target: Target, discovery: Rc<Discovery>) {
    let started = tokio::time::Instant::now();
    let mut told = false;
    for address in &target.addresses {
        while !accepts(target.sockets.as_ref(), *address).await {
            let fast = started.elapsed() < PROBE_FAST_PERIOD;
            if !fast && !told {
                told = true;
                tracing::warn!(
                    workload = target.workload, %address,
                    "the application does not listen there yet ($PORT names the port), so it gets no traffic"
                );
            }
            tokio::time::sleep(if fast { PROBE_INTERVAL } else { PROBE_SLOW_INTERVAL }).await;
        }
    }
    discovery.report(Health::Healthy).await;
}

async fn accepts(sockets: Option<&Sockets>, address: SocketAddr) -> bool {
    let socket = match sockets {
        Some(sockets) => sockets
            .socket(Family::of(address))
            .map(|socket| TcpSocket::from_std_stream(socket.into())),
        None => TcpSocket::new_v4(),
    };
    let Ok(socket) = socket else { return false };
    tokio::time::timeout(PROBE_SLOW_INTERVAL, socket.connect(address))
        .await
        .is_ok_and(|connected| connected.is_ok())
}
