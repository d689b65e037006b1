//! Listener filters: what is found out of a connection before a filter chain is chosen.

pub mod http_inspector;
mod proxy_protocol;

use std::io;
use std::rc::Rc;

use bytes::BytesMut;
use net::broker::ListenerKind;
use proxy_config::inspector::{HttpInspectorStats, TlsInspector};
use proxy_config::listener_filter::ListenerFilterKind;
use proxy_core::{Address, ConnectionInfo, TransportProtocol};
use proxy_upstream::Stream;
use tls::{Inspected, Inspector};

use crate::command::Listener;
use crate::limits;
use crate::local::Local;

/// A connection before its filter chain.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) stream: Stream,
    /// What inspectors have read; the filter chain gets it.
    pub(crate) read: BytesMut,
    pub(crate) info: ConnectionInfo,
    pub(crate) kind: ListenerKind,
}

/// Runs the filters of a listener in their order; whether the connection goes on.
pub(crate) async fn run(worker: &Local, config: &Listener, pending: &mut Pending) -> bool {
    if config.listener_filters.is_empty() {
        return true;
    }
    let filters = run_all(worker, config, pending);
    let Some(timeout) = config.listener_filters_timeout else {
        return filters.await.is_ok();
    };
    match tokio::time::timeout(timeout, filters).await {
        Ok(result) => result.is_ok(),
        Err(_) => {
            worker.shard().inc(config.stats.downstream_pre_cx_timeout);
            config.continue_on_listener_filters_timeout
        }
    }
}

/// # Errors
/// The connection ended, or must.
async fn run_all(worker: &Local, config: &Listener, pending: &mut Pending) -> io::Result<()> {
    for filter in &config.listener_filters {
        if filter.is_disabled(pending.info.local_address.port()) {
            continue;
        }
        match &filter.kind {
            ListenerFilterKind::OriginalDst => original_dst(pending),
            ListenerFilterKind::TlsInspector(filter) => inspect_tls(worker, filter, pending).await?,
            ListenerFilterKind::HttpInspector(stats) => inspect_http(worker, stats, pending).await?,
            ListenerFilterKind::ProxyProtocol(filter) => proxy_protocol::run(worker, filter, pending).await?,
        }
    }
    Ok(())
}

/// `envoy.filters.listener.original_dst`.
fn original_dst(pending: &mut Pending) {
    let Stream::Tcp(stream) = &pending.stream else {
        return;
    };
    let direct = pending.info.direct_local_address.socket_addr();
    let found = match pending.kind {
        ListenerKind::Direct => direct,
        ListenerKind::Plain | ListenerKind::Redirected => net::socket::original_destination(stream).ok(),
    };
    // A connection that nobody redirected is its own destination; it is not restored.
    let redirected = |address: &_| pending.kind == ListenerKind::Direct || Some(*address) != direct;
    if let Some(address) = found.filter(redirected) {
        pending.info.local_address = Address::Ip(address);
        pending.info.original_destination = Some(address);
    }
}

/// `envoy.filters.listener.tls_inspector`.
///
/// # Errors
/// The connection ended, or its ClientHello is too long, for which Envoy closes it too.
async fn inspect_tls(worker: &Local, filter: &TlsInspector, pending: &mut Pending) -> io::Result<()> {
    let (shard, stats) = (worker.shard(), &filter.stats);
    let mut inspector = Inspector::up_to(filter.max_client_hello_bytes);
    let mut seen = 0;
    let decision = loop {
        let decision = inspector.push(&pending.read[seen..]);
        seen = pending.read.len();
        if decision != Inspected::NeedMore {
            break decision;
        }
        read_more(pending).await?;
    };
    let found = |found: bool, yes, no| shard.inc(if found { yes } else { no });
    match decision {
        Inspected::Tls(hello) => {
            shard.inc(stats.tls_found);
            found(hello.server_name.is_some(), stats.sni_found, stats.sni_not_found);
            found(!hello.alpn.is_empty(), stats.alpn_found, stats.alpn_not_found);
            pending.info.transport_protocol = TransportProtocol::Tls;
            pending.info.requested_server_name = hello.server_name.map(|name| name.as_str().into());
            pending.info.application_protocols = hello.alpn.iter().map(|p| p.as_str().into()).collect();
        }
        Inspected::TooLong => {
            shard.inc(stats.client_hello_too_large);
            return Err(io::ErrorKind::InvalidData.into());
        }
        Inspected::NotTls | Inspected::NeedMore => shard.inc(stats.tls_not_found),
    }
    shard.record(stats.bytes_processed, inspector.looked_at() as u64);
    Ok(())
}

/// `envoy.filters.listener.http_inspector`.
///
/// # Errors
/// The connection ended.
async fn inspect_http(worker: &Local, stats: &HttpInspectorStats, pending: &mut Pending) -> io::Result<()> {
    if pending.info.transport_protocol == TransportProtocol::Tls {
        return Ok(());
    }
    let protocol = loop {
        match http_inspector::inspect(&pending.read) {
            http_inspector::Inspected::NeedMore => read_more(pending).await?,
            http_inspector::Inspected::Other => {
                worker.shard().inc(stats.http_not_found);
                return Ok(());
            }
            http_inspector::Inspected::Http(protocol) => break protocol,
        }
    };
    worker.shard().inc(match protocol {
        "http/1.0" => stats.http10_found,
        "http/1.1" => stats.http11_found,
        _ => stats.http2_found,
    });
    pending.info.application_protocols = vec![Rc::from(protocol)];
    Ok(())
}

/// # Errors
/// The connection ended, or broke.
async fn read_more(pending: &mut Pending) -> io::Result<()> {
    use tokio::io::AsyncReadExt as _;
    // Nothing is reserved for a connection on which nothing comes.
    std::future::poll_fn(|context| pending.stream.poll_readable(context)).await?;
    pending.read.reserve(limits::INSPECTOR_READ_BYTES);
    let read = pending.stream.read_buf(&mut pending.read).await?;
    if read == 0 {
        Err(io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}
