//! Addresses for workloads on one machine: 127.66.N.M.
//!
//! All of 127.0.0.0/8 can be bound on Linux, so each workload can have an address, and its sidecar the service's real
//! port on it, without any interface being configured. A claim is a UDP socket bound to the address: the kernel keeps
//! two agents, of whatever user, from holding the same one, and takes it back however the agent ends.

use std::hash::{BuildHasher, Hash};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};

use crate::limits::MAX_ADDRESS_TRIES;

/// The network of all workloads, and the length of its prefix in bits.
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(127, 66, 0, 0), 16);

/// The port that claims are made on; the number is Istio's for the sidecar's administration, which is TCP.
const CLAIM_PORT: u16 = 15000;

/// An address that belongs to this process as long as this value lives.
#[derive(Debug)]
pub struct Claim {
    address: Ipv4Addr,
    _socket: UdpSocket,
}

impl Claim {
    /// Claims an address. The same workload gets the same address again when it is free.
    ///
    /// # Errors
    /// `AddrInUse` when every address that was tried is taken.
    pub fn new(namespace: &str, name: &str) -> io::Result<Self> {
        let start = preferred((namespace, name));
        for number in (0..MAX_ADDRESS_TRIES).map(|step| start.wrapping_add(step)) {
            let [high, low] = number.to_be_bytes();
            // .0 and .255 look like a network and a broadcast address to people.
            if low == 0 || low == 255 {
                continue;
            }
            let address = Ipv4Addr::new(127, 66, high, low);
            if let Ok(socket) = UdpSocket::bind(SocketAddrV4::new(address, CLAIM_PORT)) {
                return Ok(Self {
                    address,
                    _socket: socket,
                });
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "no address in 127.66.0.0/16 is free",
        ))
    }

    /// Takes the address of a machine in a network, for the one workload that is to have it.
    ///
    /// # Errors
    /// `AddrInUse` when a workload has it, `AddrNotAvailable` when this machine does not.
    pub fn of(address: Ipv4Addr) -> io::Result<Self> {
        Ok(Self {
            address,
            _socket: UdpSocket::bind(SocketAddrV4::new(address, CLAIM_PORT))?,
        })
    }

    /// Where the sidecar's administration and the agent's page are: on an address that only this machine reaches.
    #[must_use]
    pub fn admin(&self) -> Ipv4Addr {
        match self.address.is_loopback() {
            true => self.address,
            false => Ipv4Addr::LOCALHOST,
        }
    }

    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The address that the application's own connections come from, inside its namespace.
    #[must_use]
    pub fn source(&self) -> Ipv4Addr {
        let [_, _, high, low] = self.address.octets();
        Ipv4Addr::new(10, 66, high, low)
    }
}

/// A stable number from a workload's name.
pub(crate) fn preferred(name: impl Hash) -> u16 {
    let hash = foldhash::fast::FixedState::with_seed(66).hash_one(name);
    let [.., high, low] = hash.to_be_bytes();
    u16::from_be_bytes([high, low])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_a_network_is_claimed_once_and_administered_from_loopback_only() {
        let address = Ipv4Addr::new(127, 67, 0, 9);
        let claim = Claim::of(address).unwrap();
        assert_eq!(claim.admin(), address);
        assert_eq!(Claim::of(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let elsewhere = Claim {
            address: Ipv4Addr::new(192, 0, 2, 7),
            _socket: UdpSocket::bind("127.0.0.1:0").unwrap(),
        };
        assert_eq!(elsewhere.admin(), Ipv4Addr::LOCALHOST);
        assert!(
            Claim::of(Ipv4Addr::new(192, 0, 2, 7)).is_err(),
            "it is not this machine's"
        );
    }

    #[test]
    fn two_claims_never_share_an_address_and_a_dropped_one_comes_back() {
        let first = Claim::new("tests", "address-claims").unwrap();
        let second = Claim::new("tests", "address-claims").unwrap();
        assert_ne!(first.address(), second.address());
        let address = first.address();
        assert_eq!(address.octets()[..2], [127, 66]);
        drop(first);
        assert_eq!(Claim::new("tests", "address-claims").unwrap().address(), address);
    }
}
