//! How many connections the secure port has, and from where. Whoever can reach the port can open connections; in their
//! handshakes, and without a certificate of the mesh, they are few from one address, so that a few addresses keep nobody
//! else out.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::limits::{MAX_HANDSHAKES_OF_ADDRESS, MAX_SECURE_CONNECTIONS, MAX_UNPROVEN_CONNECTIONS_OF_ADDRESS};

/// Bits of an IPv6 address that one host may choose by itself.
const HOST_BITS: u32 = 64;

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Full {
    /// There are too many altogether.
    #[error("there are {MAX_SECURE_CONNECTIONS} connections already")]
    Port,
    /// There are too many from its address whose handshakes are under way.
    #[error("there are {MAX_HANDSHAKES_OF_ADDRESS} handshakes with this address already")]
    Handshakes,
    /// There are too many from its address that have shown no certificate.
    #[error(
        "there are {MAX_UNPROVEN_CONNECTIONS_OF_ADDRESS} connections without a certificate from this address already"
    )]
    Unproven,
}

/// All places. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    of_addresses: HashMap<IpAddr, OfAddress>,
}

/// The connections of one address, those aside that have shown a certificate.
#[derive(Debug, Default)]
struct OfAddress {
    handshakes: usize,
    unproven: usize,
}

/// As what a connection counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Handshake,
    Unproven,
    Proven,
}

/// One connection's place, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
    standing: Standing,
}

impl Places {
    /// A place for a connection whose handshake begins.
    pub(super) fn take(&self, address: IpAddr) -> Result<Place, Full> {
        let address = network(address);
        let mut taken = self.0.lock();
        if taken.all >= MAX_SECURE_CONNECTIONS {
            return Err(Full::Port);
        }
        let of_address = taken.of_addresses.entry(address).or_default();
        if of_address.handshakes >= MAX_HANDSHAKES_OF_ADDRESS {
            return Err(Full::Handshakes);
        }
        of_address.handshakes += 1;
        taken.all += 1;
        Ok(Place {
            places: self.clone(),
            address,
            standing: Standing::Handshake,
        })
    }
}

impl Place {
    /// The handshake is over, and the other side has shown a good certificate or none.
    pub(super) fn settle(&mut self, proven: bool) -> Result<(), Full> {
        let mut taken = self.places.0.lock();
        if !proven {
            let of_address = taken.of_addresses.entry(self.address).or_default();
            if of_address.unproven >= MAX_UNPROVEN_CONNECTIONS_OF_ADDRESS {
                return Err(Full::Unproven);
            }
            of_address.unproven += 1;
        }
        taken.give_back(self.address, self.standing);
        self.standing = match proven {
            true => Standing::Proven,
            false => Standing::Unproven,
        };
        Ok(())
    }
}

impl Taken {
    fn give_back(&mut self, address: IpAddr, standing: Standing) {
        let Some(of_address) = self.of_addresses.get_mut(&address) else {
            return;
        };
        match standing {
            Standing::Handshake => of_address.handshakes -= 1,
            Standing::Unproven => of_address.unproven -= 1,
            Standing::Proven => {}
        }
        if of_address.handshakes + of_address.unproven == 0 {
            self.of_addresses.remove(&address);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.0.lock();
        taken.give_back(self.address, self.standing);
        taken.all -= 1;
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = address.to_bits() >> HOST_BITS << HOST_BITS;
            Ipv6Addr::from_bits(network).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    fn handshakes(places: &Places, address: IpAddr, count: usize) -> Vec<Place> {
        (0..count)
            .map(|_| places.take(address).expect("a place"))
            .collect()
    }

    #[test]
    fn one_address_takes_no_place_from_others_and_gets_its_own_back() {
        let places = Places::default();
        let mut taken = handshakes(&places, address(1), MAX_HANDSHAKES_OF_ADDRESS);
        assert_eq!(places.take(address(1)).err(), Some(Full::Handshakes));
        assert!(places.take(address(2)).is_ok());
        taken.pop();
        assert!(places.take(address(1)).is_ok());
        drop(taken);
        let counts = places.0.lock();
        assert_eq!((counts.all, counts.of_addresses.len()), (0, 0));
    }

    #[test]
    fn without_a_certificate_there_are_few_of_one_address_and_with_one_many() {
        let places = Places::default();
        let settled = |proven| {
            let mut place = places.take(address(1)).expect("a place");
            place.settle(proven).map(|()| place)
        };
        let unproven: Vec<_> = (0..MAX_UNPROVEN_CONNECTIONS_OF_ADDRESS)
            .map(|_| settled(false).expect("a place"))
            .collect();
        assert_eq!(settled(false).err(), Some(Full::Unproven));
        let proven: Vec<_> = (0..2 * MAX_HANDSHAKES_OF_ADDRESS)
            .map(|_| settled(true).expect("a place"))
            .collect();
        assert_eq!(places.0.lock().all, unproven.len() + proven.len());
        drop((unproven, proven));
        let counts = places.0.lock();
        assert_eq!((counts.all, counts.of_addresses.len()), (0, 0));
    }

    #[test]
    fn the_port_has_an_end() {
        let places = Places::default();
        let addresses = MAX_SECURE_CONNECTIONS / MAX_HANDSHAKES_OF_ADDRESS;
        let taken: Vec<Place> = (0..addresses as u32)
            .flat_map(|number| handshakes(&places, address(number), MAX_HANDSHAKES_OF_ADDRESS))
            .collect();
        assert_eq!(taken.len(), MAX_SECURE_CONNECTIONS);
        assert_eq!(places.take(address(u32::MAX >> 8)).err(), Some(Full::Port));
    }

    #[test]
    fn the_addresses_of_one_host_are_one() {
        let same = |one: &str, other: &str| network(one.parse().unwrap()) == network(other.parse().unwrap());
        assert!(same("2001:db8::1", "2001:db8::ffff:2"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
        assert!(!same("192.0.2.1", "192.0.2.2"));
    }
}
