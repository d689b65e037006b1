//! Names from outside the mesh: a forwarder for the DNS queries of an application that has a network of its own.
//!
//! The names of the mesh are in the application's hosts file. Everything else it asks of 127.0.0.53:53 inside its
//! namespace; the agent passes the question to the host's name servers and the answer back (RFC 1035, UDP only; it
//! reads no more of a message than its header).

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::limits::{DNS_ANSWER_TIMEOUT, MAX_DNS_MESSAGE_BYTES, MAX_DNS_QUERIES, MAX_NAMESERVERS};

/// Where the forwarder listens inside the namespace.
pub const ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 53)), 53);

const HEADER_BYTES: usize = 12;
const QUERY_RESPONSE_BIT: u8 = 0x80;
const SERVER_FAILURE: u8 = 2;

/// The host's resolver configuration, and the application's version of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    /// The host's name servers, in order.
    pub nameservers: Vec<SocketAddr>,
    /// The text of the application's `/etc/resolv.conf`: the forwarder, and the host's search list and options.
    pub text: String,
}

impl Resolver {
    /// Reads `/etc/resolv.conf` (resolv.conf(5)). An unreadable one has no name servers.
    #[must_use]
    pub fn of_host(path: &Path) -> Self {
        Self::parse(&std::fs::read_to_string(path).unwrap_or_default())
    }

    fn parse(host: &str) -> Self {
        let mut nameservers = Vec::new();
        let mut text = format!("nameserver {}\n", ADDRESS.ip());
        for line in host.lines() {
            let mut words = line.split_ascii_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let ip = words.next().and_then(|ip| ip.parse().ok());
                    nameservers.extend(ip.map(|ip: IpAddr| SocketAddr::new(ip, 53)));
                }
                Some("search" | "domain" | "options") => {
                    text.push_str(line);
                    text.push('\n');
                }
                _ => {}
            }
        }
        nameservers.truncate(MAX_NAMESERVERS);
        Self { nameservers, text }
    }
}

/// Forwards queries until it is dropped. Must run in a `LocalSet`.
///
/// # Errors
/// Only when the socket inside fails for good.
pub async fn serve(inside: UdpSocket, nameservers: Vec<SocketAddr>) -> io::Result<()> {
    let (inside, nameservers) = (Rc::new(inside), Rc::new(nameservers));
    let slots = std::sync::Arc::new(Semaphore::new(MAX_DNS_QUERIES));
    let mut query = vec![0; MAX_DNS_MESSAGE_BYTES];
    loop {
        let (length, peer) = inside.recv_from(&mut query).await?;
        // A resolver that gets no answer asks again, so a query beyond the limit is best dropped.
        let Ok(slot) = std::sync::Arc::clone(&slots).try_acquire_owned() else {
            continue;
        };
        let (query, inside, nameservers) = (
            query[..length].to_vec(),
            Rc::clone(&inside),
            Rc::clone(&nameservers),
        );
        tokio::task::spawn_local(async move {
            let answer = match ask_any(&query, &nameservers).await {
                Some(answer) => Some(answer),
                None => failure(&query),
            };
            if let Some(answer) = answer {
                let _ = inside.send_to(&answer, peer).await;
            }
            drop(slot);
        });
    }
}

/// The first answer of the name servers, asked one after the other.
async fn ask_any(query: &[u8], nameservers: &[SocketAddr]) -> Option<Vec<u8>> {
    for nameserver in nameservers {
        match tokio::time::timeout(DNS_ANSWER_TIMEOUT, ask(query, *nameserver)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%nameserver, %error, "name server failed"),
            Err(_elapsed) => tracing::debug!(%nameserver, "name server does not answer"),
        }
    }
    None
}

async fn ask(query: &[u8], nameserver: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if nameserver.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(nameserver).await?;
    socket.send(query).await?;
    let mut answer = vec![0; MAX_DNS_MESSAGE_BYTES];
    loop {
        let length = socket.recv(&mut answer).await?;
        // An answer to another question is a mistake or an attack.
        if length >= HEADER_BYTES && answer[..2] == query[..2] {
            answer.truncate(length);
            return Ok(answer);
        }
    }
}

/// The answer SERVFAIL to a query; `None` for what is no query.
fn failure(query: &[u8]) -> Option<Vec<u8>> {
    if query.len() < HEADER_BYTES || query[2] & QUERY_RESPONSE_BIT != 0 {
        return None;
    }
    let mut answer = query.to_vec();
    answer[2] |= QUERY_RESPONSE_BIT;
    answer[3] = (answer[3] & 0xf0) | SERVER_FAILURE;
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const QUERY: [u8; 17] = [7, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];

    #[test]
    fn the_application_keeps_the_hosts_search_list() {
        let resolver = Resolver::parse(
            "# made by hand\nnameserver 192.0.2.1\nnameserver ::1\nsearch corp.example\noptions ndots:2\n",
        );
        assert_eq!(
            resolver.nameservers,
            ["192.0.2.1:53".parse().unwrap(), "[::1]:53".parse().unwrap()]
        );
        assert_eq!(
            resolver.text,
            "nameserver 127.0.0.53\nsearch corp.example\noptions ndots:2\n"
        );
    }

    /// Asks a forwarder that has these name servers.
    async fn check_answer(nameservers: Vec<SocketAddr>) -> Vec<u8> {
        let inside = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = inside.local_addr().unwrap();
        let mut answer = vec![0; 64];
        let asking = async {
            let application = UdpSocket::bind("127.0.0.1:0").await.unwrap();
            application.send_to(&QUERY, address).await.unwrap();
            application.recv(&mut answer).await.unwrap()
        };
        let local = tokio::task::LocalSet::new();
        let length = local.run_until(async {
            tokio::select! {
                ended = serve(inside, nameservers) => panic!("{ended:?}"),
                length = asking => length,
            }
        });
        let length = tokio::time::timeout(Duration::from_secs(20), length)
            .await
            .expect("an answer");
        answer.truncate(length);
        answer
    }

    #[tokio::test]
    async fn an_answer_comes_back_from_the_first_name_server_that_works() {
        let nameserver = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = nameserver.local_addr().unwrap();
        tokio::spawn(async move {
            let mut query = [0; 64];
            let (length, peer) = nameserver.recv_from(&mut query).await.unwrap();
            assert_eq!(query[..length], QUERY);
            nameserver.send_to(&[0; 20], peer).await.unwrap();
            nameserver
                .send_to(&[7, 9, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0, 42], peer)
                .await
                .unwrap();
        });
        let closed = std::net::UdpSocket::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let answer = check_answer(vec![closed, address]).await;
        assert_eq!(
            answer.last(),
            Some(&42),
            "the answer to another question is not passed on"
        );
    }

    #[tokio::test]
    async fn without_name_servers_the_answer_is_a_server_failure() {
        let answer = check_answer(Vec::new()).await;
        assert_eq!(answer[..2], QUERY[..2]);
        assert_eq!(answer[2] & QUERY_RESPONSE_BIT, QUERY_RESPONSE_BIT);
        assert_eq!(answer[3] & 0x0f, SERVER_FAILURE);
    }
}
