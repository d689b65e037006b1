//! `cargo xtask bench handshakes`: full mutual TLS handshakes per CPU-second, beside Envoy.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::contest::Contest;
use super::figure::{Figure, verdict};
use super::load::Load;
use super::report::ratio;
use super::{Plan, certificates, configuration, limits, programs, proxies};
use crate::process::output;

/// TLS 1.3, P-256 on both sides, X25519, no session resumed; the proxy answers one request on each connection by itself.
pub(super) fn run(plan: &Plan, dir: &Path) -> Result<bool> {
    let certificates = certificates::make(dir)?;
    let clients = programs::example("tls", "clients", plan.build)?;
    let tls = configuration::mutual_tls_server(&certificates);
    let contenders = proxies::both(dir, "handshakes", |port| {
        let filter = configuration::http(&configuration::answer("ok"));
        let listener = configuration::listener(port, &filter, Some(&tls));
        // Nothing is sent to it.
        Ok(configuration::bootstrap(
            &listener,
            &configuration::upstream(port),
        ))
    })?;
    let contest = Contest {
        title: "Full mutual TLS handshakes, TLS 1.3, P-256, with one answer of our own each; one worker each",
        file: "handshakes",
        contenders,
        load: &|port, seconds| {
            let mut command = Command::new(&clients);
            command
                .arg("handshakes")
                .arg(port.to_string())
                .arg(&certificates)
                .arg(seconds.to_string());
            let made = output(&mut command)?;
            Ok(Load::counted(
                made.trim()
                    .parse()
                    .with_context(|| format!("clients printed {made}"))?,
            ))
        },
    };
    let samples = contest.run(plan, dir)?;
    let times = 1.0 / ratio(&samples, "lateen", "envoy");
    Ok(verdict(&[Figure::at_least(
        "handshakes per CPU-second of Envoy's",
        times,
        limits::HANDSHAKES_OF_ENVOY,
    )]))
}
