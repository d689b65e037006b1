//! `cargo xtask bench http2` and `bench grpc`: HTTP/2 by prior knowledge on both sides, beside Envoy.

use std::path::Path;

use anyhow::Result;
use serde_json::Value;

use super::contest::Contest;
use super::load::{self, Http2Load};
use super::proxies::{self, Upstream};
use super::{Plan, configuration, limits};

/// Clients' connections.
const CONNECTIONS: u32 = 8;
/// Streams on each at the same time.
const STREAMS: u32 = 16;
/// A gRPC message of three bytes, not compressed.
const MESSAGE: &[u8] = b"\0\0\0\0\x03abc";

/// Requests with answers of 1 KB.
pub(super) fn http2(plan: &Plan, dir: &Path) -> Result<bool> {
    let upstream = proxies::http2_upstream(dir)?;
    let load = Http2Load {
        connections: plan.connections.unwrap_or(CONNECTIONS),
        streams: STREAMS,
        path: "/bench",
        body: None,
        headers: &[],
    };
    compare(
        "HTTP/2 plaintext, 1 KB answers",
        "http2",
        &[],
        &upstream,
        &load,
        plan,
        dir,
    )
}

/// Unary calls whose answers have 1 KB, counted by the filter that Istio's sidecars have.
pub(super) fn grpc(plan: &Plan, dir: &Path) -> Result<bool> {
    let upstream = proxies::http2_upstream(dir)?;
    let body = dir.join("message.bin");
    std::fs::write(&body, MESSAGE)?;
    let load = Http2Load {
        connections: plan.connections.unwrap_or(CONNECTIONS),
        streams: STREAMS,
        path: "/answer.grpc",
        body: Some(&body),
        headers: &["content-type: application/grpc", "te: trailers"],
    };
    load::ends_with_grpc_status(upstream.port, &load)?;
    compare(
        "gRPC plaintext, unary, 1 KB answers, grpc_stats",
        "grpc",
        &[configuration::grpc_stats()],
        &upstream,
        &load,
        plan,
        dir,
    )
}

fn compare(
    title: &str,
    file: &str,
    filters: &[Value],
    upstream: &Upstream,
    load: &Http2Load<'_>,
    plan: &Plan,
    dir: &Path,
) -> Result<bool> {
    let cluster = configuration::upstream_by_http2(upstream.port);
    let contenders = proxies::both(dir, file, |port| {
        let filter = configuration::http_with(filters, &configuration::to_upstream());
        Ok(configuration::bootstrap(
            &configuration::listener(port, &filter, None),
            &cluster,
        ))
    })?;
    let log = dir.join("h2load.log");
    let title = format!(
        "{title}, {} connections of {STREAMS} streams, one worker each",
        load.connections
    );
    let contest = Contest {
        title: &title,
        file,
        contenders,
        load: &|port, seconds| load::h2load(port, load, seconds, &log),
    };
    contest.against_envoy(plan, dir, limits::HTTP2_OF_ENVOY)
}
