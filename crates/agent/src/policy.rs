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

/// Where listeners are that are not where the configuration asks for them: those of a gateway, and those of services for
/// an application on the host. By the address that the configuration asks for; shared with whoever reports them.
pub type Moved = Rc<RefCell<BTreeMap<SocketAddr, SocketAddr>>>;

/// Where the application of a workload is.
#[derive(Debug)]
pub enum Application {
    /// There is none: a gateway.
    None,
    /// In a namespace.
    InNamespace(Rc<Capture>),
    /// On the host, with these ports: the service's, and where the application listens instead.
    OnHost(Vec<(u16, SocketAddr)>),
}

/// The policy for one workload.
#[derive(Debug)]
pub struct WorkloadPolicy {
    /// The workload's address on the host.
    pub address: Ipv4Addr,
    /// The ports that the workload serves.
    pub ports: Vec<u16>,
    /// Where its application is.
    pub application: Application,
    /// Where its listeners are; filled in here.
    pub moved: Moved,
}

impl Policy for WorkloadPolicy {
    fn listen(&mut self, address: SocketAddr) -> io::Result<Vec<BrokeredListener>> {
        let one = |listener| vec![listener];
        if !address.ip().is_unspecified() {
            let for_service =
                matches!(self.application, Application::OnHost(_)) && !address.ip().is_loopback();
            return if for_service {
                self.listen_for_service(address).map(one)
            } else {
                self.listen_on_loopback(address).map(one)
            };
        }
        match (address.port(), &self.application) {
            (OUTBOUND_PORT, Application::InNamespace(capture)) => {
                let local_addr = SocketAddr::new(loopback_of(address), OUTBOUND_PORT);
                let fd = capture.listen(local_addr)?;
                Ok(one(BrokeredListener {
                    fd,
                    kind: ListenerKind::Redirected,
                    local_addr,
                }))
            }
            (INBOUND_PORT, Application::InNamespace(_) | Application::OnHost(_)) => {
                self.ports.iter().map(|port| self.listen_direct(*port)).collect()
            }
            (OUTBOUND_PORT | INBOUND_PORT, _) => {
                let address = SocketAddr::new(self.address.into(), address.port());
                self.listen_on_loopback(address).map(one)
            }
            _ => self.listen_for_gateway(address).map(one),
        }
    }

    fn namespace_channel(&mut self) -> io::Result<Option<OwnedFd>> {
        match &self.application {
            Application::InNamespace(capture) => capture.namespace_channel().map(Some),
            Application::None | Application::OnHost(_) => Ok(None),
        }
    }

    fn moved(&self) -> Vec<(SocketAddr, SocketAddr)> {
        let Application::OnHost(ports) = &self.application else {
            return Vec::new();
        };
        let own = |port: u16| SocketAddr::new(self.address.into(), port);
        ports.iter().map(|(port, real)| (own(*port), *real)).collect()
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

    /// A gateway's port on loopback; a taken one is moved.
    fn listen_for_gateway(&self, asked: SocketAddr) -> io::Result<BrokeredListener> {
        self.listen_moved(asked, || free_address(loopback_of(asked), asked.port()))
    }

    /// The listener of a service for the application on the host: any port of the workload's own address.
    fn listen_for_service(&self, asked: SocketAddr) -> io::Result<BrokeredListener> {
        self.listen_moved(asked, || Ok(SocketAddr::new(self.address.into(), 0)))
    }

    /// A listener that stays where it was first, for the next worker and the next start of the sidecar.
    fn listen_moved(
        &self,
        asked: SocketAddr,
        choose: impl FnOnce() -> io::Result<SocketAddr>,
    ) -> io::Result<BrokeredListener> {
        let known = self.moved.borrow().get(&asked).copied();
        let chosen = known.map_or_else(choose, Ok)?;
        let fd = socket::listen(chosen, PortSharing::Shared)?;
        let local_addr = socket::local_address(&fd)?;
        self.moved.borrow_mut().insert(asked, local_addr);
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
            application: Application::None,
            moved: Moved::default(),
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
        assert_eq!(policy.moved.borrow()[&wildcard], first[0].local_addr);
        let second = policy.listen(wildcard).unwrap();
        assert_eq!(
            second[0].local_addr, first[0].local_addr,
            "the next worker shares the port"
        );
    }

    #[test]
    fn an_application_on_the_host_gets_a_listener_per_service_that_stays() {
        let real = "127.0.0.1:20001".parse().unwrap();
        let mut policy = WorkloadPolicy {
            ports: vec![9080],
            application: Application::OnHost(vec![(9080, real)]),
            ..gateway()
        };
        let asked = "10.96.0.7:9080".parse().unwrap();
        let first = policy.listen(asked).unwrap().remove(0);
        assert_eq!(first.local_addr.ip(), IpAddr::V4(policy.address));
        assert_eq!(first.kind, ListenerKind::Plain);
        let address = first.local_addr;
        drop(first);
        assert_eq!(
            policy.listen(asked).unwrap()[0].local_addr,
            address,
            "also after a restart"
        );
        let inbound = policy.listen("0.0.0.0:15006".parse().unwrap()).unwrap();
        assert_eq!(inbound[0].local_addr.to_string(), "127.66.250.1:9080");
        assert_eq!(policy.moved(), [(inbound[0].local_addr, real)]);
    }

    #[test]
    fn nothing_listens_beyond_loopback() {
        let error = gateway().listen("192.0.2.1:80".parse().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        let wildcard = gateway().listen("0.0.0.0:34567".parse().unwrap()).unwrap();
        assert!(wildcard[0].local_addr.ip().is_loopback());
    }
}
