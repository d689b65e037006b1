//! What the socket broker grants a workload's proxy. The table is in [`net::broker`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;

use net::broker::{BrokeredListener, ListenerKind, Policy};
use net::socket::{self, PortSharing};

use crate::capture::{Capture, OUTBOUND_PORT};
use crate::limits::MAX_PORT_TRIES;

/// The sidecar's inbound port (Istio's).
const INBOUND_PORT: u16 = 15006;

/// Ports below need a privilege that a laptop's user does not have; they are moved up by [`PRIVILEGED_OFFSET`].
const FIRST_UNPRIVILEGED_PORT: u16 = 1024;
const PRIVILEGED_OFFSET: u16 = 8000;

/// Where listeners of a gateway are, by the port that the configuration asks for. Shared with whoever reports them.
pub type Ports = Rc<RefCell<BTreeMap<u16, SocketAddr>>>;

/// The policy for one workload.
#[derive(Debug)]
pub struct WorkloadPolicy {
    /// The workload's address on the host.
    pub address: Ipv4Addr,
    /// The ports that the workload serves.
    pub ports: Vec<u16>,
    /// The application's namespace, if it has one.
    pub capture: Option<Rc<Capture>>,
    /// Where gateway listeners are; filled in here.
    pub gateway_ports: Ports,
}

impl Policy for WorkloadPolicy {
    fn listen(&mut self, address: SocketAddr) -> io::Result<Vec<BrokeredListener>> {
        if !address.ip().is_unspecified() {
            return self.listen_on_loopback(address).map(|listener| vec![listener]);
        }
        match (address.port(), &self.capture) {
            (OUTBOUND_PORT, Some(capture)) => {
                let local_addr = SocketAddr::new(loopback_of(address), OUTBOUND_PORT);
                let fd = capture.listen(local_addr)?;
                Ok(vec![BrokeredListener {
                    fd,
                    kind: ListenerKind::Redirected,
                    local_addr,
                }])
            }
            (INBOUND_PORT, Some(_)) => self.ports.iter().map(|port| self.listen_direct(*port)).collect(),
            (OUTBOUND_PORT | INBOUND_PORT, None) => {
                let address = SocketAddr::new(self.address.into(), address.port());
                self.listen_on_loopback(address).map(|listener| vec![listener])
            }
            (port, _) => self
                .listen_for_gateway(loopback_of(address), port)
                .map(|listener| vec![listener]),
        }
    }

    fn namespace_channel(&mut self) -> io::Result<Option<OwnedFd>> {
        self.capture
            .as_ref()
            .map(|capture| capture.namespace_channel())
            .transpose()
    }
}

impl WorkloadPolicy {
    /// One of the workload's ports on its own address.
    fn listen_direct(&self, port: u16) -> io::Result<BrokeredListener> {
        let local_addr = SocketAddr::new(self.address.into(), port);
        let fd = socket::listen(local_addr, PortSharing::Shared)?;
        Ok(BrokeredListener {
            fd,
            kind: ListenerKind::Direct,
            local_addr,
        })
    }

    /// An address that the configuration names: as it is, as long as the machine's other interfaces stay out of it.
    fn listen_on_loopback(&self, address: SocketAddr) -> io::Result<BrokeredListener> {
        if !address.ip().is_loopback() {
            let why = format!(
                "{address} is not a loopback address; workloads of this machine listen on loopback only"
            );
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
        let fd = socket::listen(address, PortSharing::Shared)?;
        let local_addr = socket::local_address(&fd)?;
        Ok(BrokeredListener {
            fd,
            kind: ListenerKind::Plain,
            local_addr,
        })
    }

    /// A gateway's port on loopback; a taken one is moved, and stays where it is for the next worker.
    fn listen_for_gateway(&self, ip: IpAddr, port: u16) -> io::Result<BrokeredListener> {
        let known = self.gateway_ports.borrow().get(&port).copied();
        let local_addr = match known {
            Some(address) => address,
            None => free_address(ip, port)?,
        };
        let fd = socket::listen(local_addr, PortSharing::Shared)?;
        self.gateway_ports.borrow_mut().insert(port, local_addr);
        Ok(BrokeredListener {
            fd,
            kind: ListenerKind::Plain,
            local_addr,
        })
    }
}

/// The first free address at `port` or after it.
fn free_address(ip: IpAddr, port: u16) -> io::Result<SocketAddr> {
    let start = if port < FIRST_UNPRIVILEGED_PORT {
        port + PRIVILEGED_OFFSET
    } else {
        port
    };
    let mut ports = (0..MAX_PORT_TRIES).filter_map(|step| start.checked_add(step));
    let free = ports.find(|port| socket::is_free(SocketAddr::new(ip, *port)));
    free.map(|port| SocketAddr::new(ip, port)).ok_or_else(|| {
        let last = start.saturating_add(MAX_PORT_TRIES - 1);
        io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("ports {start} to {last} of {ip} are all taken"),
        )
    })
}

fn loopback_of(address: SocketAddr) -> IpAddr {
    if address.is_ipv4() {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    } else {
        IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway() -> WorkloadPolicy {
        WorkloadPolicy {
            address: Ipv4Addr::new(127, 66, 250, 1),
            ports: Vec::new(),
            capture: None,
            gateway_ports: Ports::default(),
        }
    }

    #[test]
    fn a_taken_gateway_port_is_moved_and_reported_and_then_stays() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut policy = gateway();
        let wildcard = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
        let first = policy.listen(wildcard).unwrap();
        assert_ne!(first[0].local_addr.port(), port);
        assert_eq!(first[0].kind, ListenerKind::Plain);
        assert_eq!(policy.gateway_ports.borrow()[&port], first[0].local_addr);
        let second = policy.listen(wildcard).unwrap();
        assert_eq!(
            second[0].local_addr, first[0].local_addr,
            "the next worker shares the port"
        );
    }

    #[test]
    fn nothing_listens_beyond_loopback() {
        let error = gateway().listen("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let wildcard = gateway().listen("0.0.0.0:34567".parse().unwrap()).unwrap();
        assert!(wildcard[0].local_addr.ip().is_loopback());
    }
}
