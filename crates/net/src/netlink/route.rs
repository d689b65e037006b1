//! rtnetlink (rtnetlink(7)): the loopback interface of a network namespace, its addresses and its default route.

use std::io;
use std::net::Ipv4Addr;

use super::{Message, NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, transact};

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const AF_INET: u8 = 2;
const IFF_UP: u32 = 1;
const RT_TABLE_MAIN: u8 = 254;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;
const RTN_UNICAST: u8 = 1;

/// The loopback interface is the first one of every network namespace.
const LOOPBACK_INDEX: u32 = 1;

/// Brings the loopback interface up; the kernel then adds 127.0.0.0/8 and ::1 itself.
///
/// # Errors
/// `PermissionDenied` without `CAP_NET_ADMIN` in the namespace.
pub fn set_loopback_up() -> io::Result<()> {
    let message = Message::new(RTM_NEWLINK, NLM_F_ACK)
        .fixed(&[0; 4])
        .fixed(&LOOPBACK_INDEX.to_ne_bytes())
        .fixed(&IFF_UP.to_ne_bytes())
        .fixed(&IFF_UP.to_ne_bytes());
    transact(None, vec![message])
}

/// Adds `address/32` to the loopback interface.
///
/// # Errors
/// `AlreadyExists` when it is there, `PermissionDenied` without `CAP_NET_ADMIN`.
pub fn add_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    let message = Message::new(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        .fixed(&[AF_INET, 32, 0, RT_SCOPE_UNIVERSE])
        .fixed(&LOOPBACK_INDEX.to_ne_bytes())
        .attribute(IFA_LOCAL, &address.octets())
        .attribute(IFA_ADDRESS, &address.octets());
    transact(None, vec![message])
}

/// Routes everything to the loopback interface, with `source` as the source address.
///
/// Without a source the kernel would pick 0.0.0.0 for connections to the outside, and their answers would be lost.
///
/// # Errors
/// `AlreadyExists` when there is a default route, `PermissionDenied` without `CAP_NET_ADMIN`.
pub fn add_default_route(source: Ipv4Addr) -> io::Result<()> {
    let message = Message::new(RTM_NEWROUTE, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)
        .fixed(&[
            AF_INET,
            0,
            0,
            0,
            RT_TABLE_MAIN,
            RTPROT_BOOT,
            RT_SCOPE_LINK,
            RTN_UNICAST,
        ])
        .fixed(&0_u32.to_ne_bytes())
        .attribute(RTA_OIF, &LOOPBACK_INDEX.to_ne_bytes())
        .attribute(RTA_PREFSRC, &source.octets());
    transact(None, vec![message])
}
