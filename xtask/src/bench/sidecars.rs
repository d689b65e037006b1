//! `cargo xtask bench client-sidecar` and `bench server-sidecar`: HTTP/1.1 with mutual TLS on one side, beside Envoy.
//!
//! The other end of the TLS connection is a proxy of ours, one for both contenders: what is counted is the contender.

use std::path::Path;

use anyhow::Result;

use super::contest::Contest;
use super::load;
use super::proxies::{self, Proxy};
use super::{Plan, certificates, configuration, limits};

/// Clients' connections.
const CONNECTIONS: u32 = 32;
/// Bytes of an answer.
const ANSWER_BYTES: usize = 1024;

/// Plaintext in, mutual TLS with the protocols of Istio's sidecars out.
pub(super) fn client(plan: &Plan, dir: &Path) -> Result<bool> {
    let certificates = certificates::make(dir)?;
    let answer = configuration::http(&configuration::answer(&"x".repeat(ANSWER_BYTES)));
    let tls = configuration::mutual_tls_server(&certificates);
    let port = proxies::free_port()?;
    let listener = configuration::listener(port, &answer, Some(&tls));
    // Nothing is sent to it.
    let bootstrap = configuration::bootstrap(&listener, &configuration::upstream(port));
    let peer = Proxy::lateen(dir, "server-peer", port, &bootstrap)?;
    let _running = peer.start()?;
    load::wait_for(port, super::START)?;
    let mut cluster = configuration::upstream(port);
    cluster["transport_socket"] = configuration::mutual_tls_client(&certificates);
    let contenders = proxies::both(dir, "client-sidecar", |port| {
        let filter = configuration::http(&configuration::to_upstream());
        Ok(configuration::bootstrap(
            &configuration::listener(port, &filter, None),
            &cluster,
        ))
    })?;
    compare(
        "Client sidecar: HTTP/1.1 plaintext in, mutual TLS out",
        "client-sidecar",
        contenders,
        plan,
        dir,
    )
}

/// Mutual TLS in, the peer's identity in `x-forwarded-client-cert`, plaintext out. Istio's inbound listener has no RBAC
/// filter unless an AuthorizationPolicy applies, and our proxy has none yet.
pub(super) fn server(plan: &Plan, dir: &Path) -> Result<bool> {
    let certificates = certificates::make(dir)?;
    let upstream = proxies::upstream(dir)?;
    let tls = configuration::mutual_tls_server(&certificates);
    let cluster = configuration::upstream(upstream.port);
    let mut contenders = proxies::both(dir, "server-sidecar", |port| {
        let mut filter = configuration::http(&configuration::to_upstream());
        let manager = &mut filter["typed_config"];
        manager["forward_client_cert_details"] = "APPEND_FORWARD".into();
        manager["set_current_client_cert_details"] =
            serde_json::json!({ "subject": true, "dns": true, "uri": true });
        Ok(configuration::bootstrap(
            &configuration::listener(port, &filter, Some(&tls)),
            &cluster,
        ))
    })?;
    for contender in &mut contenders {
        let mut cluster = configuration::upstream(contender.port);
        cluster["transport_socket"] = configuration::mutual_tls_client(&certificates);
        let port = proxies::free_port()?;
        let filter = configuration::http(&configuration::to_upstream());
        let bootstrap = configuration::bootstrap(&configuration::listener(port, &filter, None), &cluster);
        let name = if contender.name == "envoy" {
            "client-of-envoy"
        } else {
            "client-of-lateen"
        };
        contender.companion = Some(Box::new(Proxy::lateen(dir, name, port, &bootstrap)?));
    }
    compare(
        "Server sidecar: HTTP/1.1 mutual TLS in, plaintext out",
        "server-sidecar",
        contenders,
        plan,
        dir,
    )
}

fn compare(title: &str, file: &str, contenders: Vec<Proxy>, plan: &Plan, dir: &Path) -> Result<bool> {
    let connections = plan.connections.unwrap_or(CONNECTIONS);
    let title = format!("{title}; 1 KB answers, {connections} connections, one worker each");
    let contest = Contest {
        title: &title,
        file,
        contenders,
        load: &|port, seconds| load::wrk(port, connections, seconds),
    };
    contest.against_envoy(plan, dir, limits::SIDECAR_OF_ENVOY)
}
