//! nf_tables rules over netlink (`linux/netfilter/nf_tables.h`): which TCP connections of a namespace are redirected.
//!
//! Only what a sidecar needs: one table, one `nat` chain on `output`, and rules of the form "TCP to these addresses
//! goes to this local port". No `nft` or `iptables` binary is involved.

use std::io;
use std::net::Ipv4Addr;

use rustix::net::netlink::NETFILTER;

use super::{Attributes, Message, NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, transact};

const SUBSYSTEM: u16 = 10 << 8;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = SUBSYSTEM;
const NEW_CHAIN: u16 = SUBSYSTEM | 3;
const NEW_RULE: u16 = SUBSYSTEM | 6;
const FAMILY_UNSPEC: u8 = 0;
const FAMILY_IPV4: u8 = 2;

const TABLE_NAME: u16 = 1;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const HOOK_LOCAL_OUT: u32 = 3;
const PRIORITY_DNAT: i32 = -100;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_EXPRESSIONS: u16 = 4;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;

const META_REGISTER: u16 = 1;
const META_KEY: u16 = 2;
const META_L4PROTO: u32 = 16;
const CMP_REGISTER: u16 = 1;
const CMP_OPERATION: u16 = 2;
const CMP_DATA: u16 = 3;
const PAYLOAD_REGISTER: u16 = 1;
const PAYLOAD_BASE: u16 = 2;
const PAYLOAD_OFFSET: u16 = 3;
const PAYLOAD_LENGTH: u16 = 4;
const PAYLOAD_NETWORK_HEADER: u32 = 1;
const IPV4_SOURCE_OFFSET: u32 = 12;
const IPV4_DESTINATION_OFFSET: u32 = 16;
const BITWISE_SOURCE: u16 = 1;
const BITWISE_DESTINATION: u16 = 2;
const BITWISE_LENGTH: u16 = 3;
const BITWISE_MASK: u16 = 4;
const BITWISE_XOR: u16 = 5;
const IMMEDIATE_REGISTER: u16 = 1;
const IMMEDIATE_DATA: u16 = 2;
const REDIRECT_PORT_REGISTER: u16 = 1;
const REGISTER_1: u32 = 1;
const IPPROTO_TCP: u8 = 6;

const TABLE: &str = "lateen";
const CHAIN: &str = "output";

/// Which destinations a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destinations {
    /// The network's address.
    pub network: Ipv4Addr,
    /// The length of its prefix in bits, 0 to 32.
    pub prefix_bits: u8,
    /// `true` for the addresses outside of the network.
    pub inverted: bool,
}

/// Where a connection goes instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To 127.0.0.1, to the port that was dialled.
    SamePort,
    /// To 127.0.0.1, to this port.
    Port(u16),
}

/// A rule: TCP connections to `destinations` go to `target`. The first rule that matches decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// Which connections.
    pub destinations: Destinations,
    /// Only connections that start from this address; from anywhere when there is none.
    pub source: Option<Ipv4Addr>,
    /// Where they go.
    pub target: Target,
}

/// Installs the rules for connections that start in this network namespace, in one transaction.
///
/// # Errors
/// `PermissionDenied` without `CAP_NET_ADMIN`, `NotFound` or `Unsupported` when the kernel lacks nf_tables' `nat` or
/// `redir` modules.
pub fn install_redirects(redirects: &[Redirect]) -> io::Result<()> {
    let hook = Attributes::default()
        .number(HOOK_NUMBER, HOOK_LOCAL_OUT)
        .attribute(HOOK_PRIORITY, &PRIORITY_DNAT.to_be_bytes());
    let mut batch = vec![
        batch_edge(BATCH_BEGIN),
        message(NEW_TABLE, NLM_F_CREATE).text(TABLE_NAME, TABLE),
        message(NEW_CHAIN, NLM_F_CREATE)
            .text(CHAIN_TABLE, TABLE)
            .text(CHAIN_NAME, CHAIN)
            .nested(CHAIN_HOOK, &hook)
            .text(CHAIN_TYPE, "nat"),
    ];
    for redirect in redirects {
        batch.push(
            message(NEW_RULE, NLM_F_CREATE | NLM_F_APPEND)
                .text(RULE_TABLE, TABLE)
                .text(RULE_CHAIN, CHAIN)
                .nested(RULE_EXPRESSIONS, &expressions(*redirect)),
        );
    }
    batch.push(batch_edge(BATCH_END));
    transact(Some(NETFILTER), batch)
}

/// An nfnetlink message: family, version 0, resource 0.
fn message(kind: u16, flags: u16) -> Message {
    Message::new(kind, flags | NLM_F_ACK).fixed(&[FAMILY_IPV4, 0, 0, 0])
}

/// The begin or end of a transaction; its resource id names the subsystem, in network byte order.
fn batch_edge(kind: u16) -> Message {
    let [high, low] = (SUBSYSTEM >> 8).to_be_bytes();
    Message::new(kind, 0).fixed(&[FAMILY_UNSPEC, 0, high, low])
}

/// `meta l4proto tcp [ip saddr == source] ip daddr & mask == network redirect to :port`.
fn expressions(redirect: Redirect) -> Attributes {
    let Redirect {
        destinations,
        source,
        target,
    } = redirect;
    let mask = u32::MAX
        .checked_shl(32 - u32::from(destinations.prefix_bits))
        .unwrap_or(0);
    let network = u32::from(destinations.network) & mask;
    let list = Attributes::default();
    let list = push(
        list,
        "meta",
        &Attributes::default()
            .number(META_REGISTER, REGISTER_1)
            .number(META_KEY, META_L4PROTO),
    );
    let list = push(list, "cmp", &compare(false, &[IPPROTO_TCP]));
    let list = match source {
        None => list,
        Some(source) => {
            let list = push(list, "payload", &address_at(IPV4_SOURCE_OFFSET));
            push(list, "cmp", &compare(false, &source.octets()))
        }
    };
    let list = push(list, "payload", &address_at(IPV4_DESTINATION_OFFSET));
    let masked = Attributes::default()
        .number(BITWISE_SOURCE, REGISTER_1)
        .number(BITWISE_DESTINATION, REGISTER_1)
        .number(BITWISE_LENGTH, 4)
        .nested(BITWISE_MASK, &value(&mask.to_be_bytes()))
        .nested(BITWISE_XOR, &value(&[0; 4]));
    let list = push(list, "bitwise", &masked);
    let list = push(
        list,
        "cmp",
        &compare(destinations.inverted, &network.to_be_bytes()),
    );
    match target {
        Target::SamePort => push(list, "redir", &Attributes::default()),
        Target::Port(port) => {
            let immediate = Attributes::default()
                .number(IMMEDIATE_REGISTER, REGISTER_1)
                .nested(IMMEDIATE_DATA, &value(&port.to_be_bytes()));
            let list = push(list, "immediate", &immediate);
            push(
                list,
                "redir",
                &Attributes::default().number(REDIRECT_PORT_REGISTER, REGISTER_1),
            )
        }
    }
}

/// Loads the address at this offset of the network header.
fn address_at(offset: u32) -> Attributes {
    Attributes::default()
        .number(PAYLOAD_REGISTER, REGISTER_1)
        .number(PAYLOAD_BASE, PAYLOAD_NETWORK_HEADER)
        .number(PAYLOAD_OFFSET, offset)
        .number(PAYLOAD_LENGTH, 4)
}

fn compare(not_equal: bool, bytes: &[u8]) -> Attributes {
    Attributes::default()
        .number(CMP_REGISTER, REGISTER_1)
        .number(CMP_OPERATION, u32::from(not_equal))
        .nested(CMP_DATA, &value(bytes))
}

fn value(bytes: &[u8]) -> Attributes {
    Attributes::default().attribute(DATA_VALUE, bytes)
}

fn push(list: Attributes, name: &str, data: &Attributes) -> Attributes {
    let expression = Attributes::default()
        .text(EXPRESSION_NAME, name)
        .nested(EXPRESSION_DATA, data);
    list.nested(LIST_ELEMENT, &expression)
}
