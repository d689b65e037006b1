//! Capture by ports: what an application on the host's own network is told, since nothing is redirected there.
//!
//! It listens on a free port ([`AppPort`]), and finds each service behind a listener of its sidecar, by environment
//! variables as Kubernetes and Docker give them ([`variables`]). A variable cannot change while a program runs, so it
//! learns of the services that exist when it starts.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use api_envoy::istio::networking::nds::v1::NameTable;
use api_envoy::istio::networking::nds::v1::name_table::NameInfo;

use crate::address::preferred;
use crate::hosts::KUBERNETES;
use crate::limits::{MAX_APP_PORT_TRIES, MAX_TOLD_SERVICES};

/// Below what Linux gives to outgoing connections (`ip_local_port_range`), so that a free port stays free.
const FIRST_PORT: u16 = 20_000;

/// How many ports there are to choose from.
const PORT_COUNT: u16 = 10_000;

/// Where ports are claimed: an address that is no workload's, see [`crate::address`].
const CLAIM_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 66, 0, 0);

/// A port that an application listens on in place of one of its service's.
///
/// As with addresses the claim is a UDP socket, so that no two agents give the same port to two applications that have
/// not started yet.
#[derive(Debug)]
pub struct AppPort {
    /// The port that the mesh knows.
    pub service_port: u16,
    /// The port that the application listens on.
    pub port: u16,
    _claim: UdpSocket,
}

impl AppPort {
    /// Claims a port. The same workload gets the same port again when it is free.
    ///
    /// # Errors
    /// `AddrInUse` when every port that was tried is taken.
    pub fn claim(namespace: &str, name: &str, service_port: u16) -> io::Result<Self> {
        let start = preferred((namespace, name, service_port)) % PORT_COUNT;
        for step in 0..MAX_APP_PORT_TRIES {
            let port = FIRST_PORT + (start + step) % PORT_COUNT;
            let Ok(claim) = UdpSocket::bind((CLAIM_ADDRESS, port)) else {
                continue;
            };
            // The application may listen on any address, so the port must be free on all of them.
            if net::socket::is_free(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port)) {
                return Ok(Self {
                    service_port,
                    port,
                    _claim: claim,
                });
            }
        }
        let why = format!("{MAX_APP_PORT_TRIES} ports from {FIRST_PORT} on are taken");
        Err(io::Error::new(io::ErrorKind::AddrInUse, why))
    }

    /// Where the sidecar and the agent reach the application.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.port)
    }
}

/// `PORT` for the first port, and `PORT_9080` for each: what an application listens on, by service port.
#[must_use]
pub fn listening(ports: impl IntoIterator<Item = (u16, u16)>) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    for (service_port, port) in ports {
        if variables.is_empty() {
            variables.push(("PORT".to_owned(), port.to_string()));
        }
        variables.push((format!("PORT_{service_port}"), port.to_string()));
    }
    variables
}

/// Where the services of the name table are, for an application in `namespace`.
///
/// `listeners` are the sidecar's, by the address and port that stand for the service in the mesh. A service of the own
/// namespace has its short name, others are `NAME_NAMESPACE`, and hosts outside of Kubernetes have their whole name:
/// `RATINGS_SERVICE_HOST`, `API_EXAMPLE_COM_SERVICE_HOST`. For each there are
///
/// | variable | value |
/// |---|---|
/// | `RATINGS_SERVICE_HOST`, `RATINGS_HOSTNAME` | the address of the listener (Kubernetes' and bookinfo's word) |
/// | `RATINGS_SERVICE_PORT`, `RATINGS_PORT` | the listener of the lowest port: its number, and `tcp://ADDRESS:PORT` |
/// | `RATINGS_PORT_9080_TCP`, and `_ADDR`, `_PORT`, `_PROTO` of it | the listener of each port, as Docker's links told it |
#[must_use]
pub fn variables(
    table: &NameTable,
    listeners: &BTreeMap<SocketAddr, SocketAddr>,
    namespace: &str,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let is_own = |info: &NameInfo| info.registry == KUBERNETES && info.namespace == namespace;
    let (own, others): (Vec<_>, Vec<_>) = table.table.iter().partition(|(_, info)| is_own(info));
    let services = own.into_iter().chain(others);
    let mut told = 0;
    for (host, info) in services.filter(|(host, _)| !host.contains('*')) {
        let ports = ports_of(info, listeners);
        let name = variable_name(host, info, namespace);
        // Of two services with one name the own namespace's was first.
        if ports.is_empty() || variables.contains_key(&format!("{name}_SERVICE_HOST")) {
            continue;
        }
        if told == MAX_TOLD_SERVICES {
            tracing::warn!(
                limit = MAX_TOLD_SERVICES,
                "the application is not told of more services"
            );
            break;
        }
        told += 1;
        variables.extend(variables_of(&name, &ports));
    }
    variables
}

/// The listeners of a service by port, those of its first address that has any.
fn ports_of(info: &NameInfo, listeners: &BTreeMap<SocketAddr, SocketAddr>) -> Vec<(u16, SocketAddr)> {
    let addresses = info.ips.iter().filter_map(|ip| ip.parse().ok());
    let mut found = addresses.map(|ip: IpAddr| {
        let all = listeners.range(SocketAddr::new(ip, 0)..=SocketAddr::new(ip, u16::MAX));
        all.map(|(asked, local)| (asked.port(), *local))
            .collect::<Vec<_>>()
    });
    found.find(|ports| !ports.is_empty()).unwrap_or_default()
}

/// The variable that tells where a service of the own namespace is.
#[must_use]
pub(crate) fn host_variable(service: &str) -> String {
    format!("{}_SERVICE_HOST", upper_case(service))
}

fn variables_of(name: &str, ports: &[(u16, SocketAddr)]) -> Vec<(String, String)> {
    let mut variables = Vec::new();
    let mut set = |suffix: &str, value: String| variables.push((format!("{name}_{suffix}"), value));
    if let Some((_, first)) = ports.first() {
        set("SERVICE_HOST", first.ip().to_string());
        set("HOSTNAME", first.ip().to_string());
        set("SERVICE_PORT", first.port().to_string());
        set("PORT", format!("tcp://{first}"));
    }
    for (port, local) in ports {
        set(&format!("PORT_{port}_TCP"), format!("tcp://{local}"));
        set(&format!("PORT_{port}_TCP_ADDR"), local.ip().to_string());
        set(&format!("PORT_{port}_TCP_PORT"), local.port().to_string());
        set(&format!("PORT_{port}_TCP_PROTO"), "tcp".to_owned());
    }
    variables
}

/// The name of a service as the beginning of a variable's name.
fn variable_name(host: &str, info: &NameInfo, namespace: &str) -> String {
    let name = if info.registry != KUBERNETES || info.shortname.is_empty() {
        host.to_owned()
    } else if info.namespace == namespace {
        info.shortname.clone()
    } else {
        format!("{}.{}", info.shortname, info.namespace)
    };
    upper_case(&name)
}

fn upper_case(name: &str) -> String {
    let character = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    name.chars().map(character).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(ip: &str, name: &str, namespace: &str) -> NameInfo {
        NameInfo {
            ips: vec![ip.to_owned()],
            registry: KUBERNETES.to_owned(),
            shortname: name.to_owned(),
            namespace: namespace.to_owned(),
            ..NameInfo::default()
        }
    }

    fn check_variables(
        services: &[(&str, NameInfo)],
        listeners: &[(&str, &str)],
    ) -> BTreeMap<String, String> {
        let mut table = NameTable::default();
        let services = services.iter().cloned();
        table
            .table
            .extend(services.map(|(host, info)| (host.to_owned(), info)));
        let parsed = listeners
            .iter()
            .map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap()));
        variables(&table, &parsed.collect(), "default")
    }

    #[test]
    fn a_service_is_told_as_kubernetes_docker_and_bookinfo_tell_it() {
        let told = check_variables(
            &[(
                "ratings.default.svc.cluster.local",
                info("10.96.0.7", "ratings", "default"),
            )],
            &[
                ("10.96.0.7:9080", "127.66.1.2:41000"),
                ("10.96.0.7:9443", "127.66.1.2:41001"),
            ],
        );
        assert_eq!(told["RATINGS_SERVICE_HOST"], "127.66.1.2");
        assert_eq!(told["RATINGS_HOSTNAME"], "127.66.1.2");
        assert_eq!(told["RATINGS_SERVICE_PORT"], "41000");
        assert_eq!(told["RATINGS_PORT"], "tcp://127.66.1.2:41000");
        assert_eq!(told["RATINGS_PORT_9443_TCP_PORT"], "41001");
        assert_eq!(told["RATINGS_PORT_9443_TCP"], "tcp://127.66.1.2:41001");
    }

    #[test]
    fn services_of_other_namespaces_and_hosts_outside_have_longer_names() {
        let external = NameInfo {
            ips: vec!["240.240.0.1".to_owned()],
            ..NameInfo::default()
        };
        let told = check_variables(
            &[
                (
                    "my-db.books.svc.cluster.local",
                    info("10.96.0.8", "my-db", "books"),
                ),
                ("api.example.com", external),
            ],
            &[
                ("10.96.0.8:3306", "127.66.1.2:41002"),
                ("240.240.0.1:443", "127.66.1.2:41003"),
            ],
        );
        assert_eq!(told["MY_DB_BOOKS_SERVICE_PORT"], "41002");
        assert_eq!(told["API_EXAMPLE_COM_SERVICE_PORT"], "41003");
    }

    #[test]
    fn a_service_without_a_listener_is_not_told() {
        let headless = (
            "db.default.svc.cluster.local",
            info("10.244.0.7", "db", "default"),
        );
        assert!(check_variables(&[headless], &[("10.96.0.7:9080", "127.66.1.2:41000")]).is_empty());
    }

    #[test]
    fn two_applications_never_share_a_port_and_a_dropped_one_comes_back() {
        let first = AppPort::claim("tests", "port-claims", 9080).unwrap();
        let second = AppPort::claim("tests", "port-claims", 9080).unwrap();
        assert_ne!(first.port, second.port);
        assert!((FIRST_PORT..FIRST_PORT + PORT_COUNT).contains(&first.port));
        let port = first.port;
        drop(first);
        assert_eq!(AppPort::claim("tests", "port-claims", 9080).unwrap().port, port);
    }

    #[test]
    fn the_first_port_is_the_one_without_a_number() {
        let told = listening([(9080, 20_007), (9090, 20_008)]);
        let told: BTreeMap<String, String> = told.into_iter().collect();
        assert_eq!(told["PORT"], "20007");
        assert_eq!(told["PORT_9080"], "20007");
        assert_eq!(told["PORT_9090"], "20008");
    }
}
