//! `envoy.filters.listener.proxy_protocol`: takes a client's addresses from the header that another proxy put before
//! the connection's bytes.

use std::io;
use std::rc::Rc;

use bytes::Buf as _;
use proxy_config::proxy_protocol::ProxyProtocol;
use proxy_core::proxy_protocol::{Header, Parsed, parse};
use proxy_core::{Address, ConnectionInfo};

use super::{Pending, read_more};
use crate::local::Local;

/// # Errors
/// The connection ended, or its header is none that is accepted.
pub(super) async fn run(worker: &Local, filter: &ProxyProtocol, pending: &mut Pending) -> io::Result<()> {
    let (shard, stats) = (worker.shard(), &filter.stats);
    let refused = loop {
        if !pending.read.is_empty() && filter.goes_without(&pending.read) {
            shard.inc(stats.not_found_allowed);
            return Ok(());
        }
        match parse(&pending.read) {
            Parsed::NeedMore => read_more(pending).await?,
            Parsed::Absent => break stats.not_found_disallowed,
            Parsed::Header(Header { version, .. }) | Parsed::Malformed(version)
                if !filter.allows(version) =>
            {
                shard.inc(stats.of(version).found);
                shard.inc(stats.of(version).disallowed);
                return Err(io::ErrorKind::InvalidData.into());
            }
            Parsed::Malformed(version) => break stats.of(version).error,
            Parsed::Header(header) => {
                shard.inc(stats.of(header.version).found);
                pending.read.advance(header.length);
                believe(&mut pending.info, header, filter);
                return Ok(());
            }
        }
    };
    shard.inc(refused);
    shard.inc(stats.downstream_cx_proxy_proto_error);
    Err(io::ErrorKind::InvalidData.into())
}

fn believe(info: &mut ConnectionInfo, header: Header, filter: &ProxyProtocol) {
    if let Some(endpoints) = header.endpoints {
        info.remote_address = Address::Ip(endpoints.source);
        let destination = Address::Ip(endpoints.destination);
        // As with a redirected connection: what is its own destination already is not restored.
        if info.local_address != destination {
            info.local_address = destination;
            info.original_destination = Some(endpoints.destination);
        }
    }
    info.proxy_protocol = Some(Rc::new(filter.keep(header.tlvs)));
}
