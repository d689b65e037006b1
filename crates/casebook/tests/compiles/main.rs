//! Everything that is translated compiles: whatever users may write, no proxy refuses what comes of it.
//!
//! A resource that our proxy refuses stays as it was, for everybody whom it concerns, and so one object of one user
//! would stop the others' changes. What no proxy takes the control plane leaves out, with a diagnostic.

mod fields;
mod proxies;
mod sweep;
mod values;

use sweep::{Reached, reached};

/// Fields with a value that is admitted and that our proxy refuses, and with it the resource. None may come up that is
/// not listed, and what is mended is no longer listed.
const KNOWN: &[&str] = &[
    // Without a timeout Envoy refuses PINGs as well.
    "DestinationRule trafficPolicy.connectionPool.http.http2KeepAlive",
    // Files that are not there.
    "DestinationRule trafficPolicy.tls.caCrl",
    "Gateway servers[].tls.caCrl",
    // Server names that are no DNS names.
    "DestinationRule subsets[].name",
    "DestinationRule trafficPolicy.tls.sni",
    // What our TLS does not speak, and fingerprints that are none.
    "Gateway servers[].tls.ecdhCurves",
    "Gateway servers[].tls.maxProtocolVersion",
    "Gateway servers[].tls.verifyCertificate",
    // Addresses and ports that are none.
    "Gateway servers[].bind",
    "Gateway servers[].port.number",
    "ServiceEntry addresses[]",
    "ServiceEntry hosts[]",
    "ServiceEntry endpoints[].address",
    "WorkloadEntry address",
    // Operators that Envoy knows and our proxy does not, or in another form.
    "VirtualService http[].headers.",
    "VirtualService http[].route[].headers.",
];

fn check(kinds: &[&str], least: usize) {
    let report = sweep::run(kinds);
    let taken = report.taken;
    assert!(
        report.admitted >= least && taken.clusters > 10 && taken.listeners > 10 && taken.routes > 0,
        "{taken:?} of {} objects is nearly nothing",
        report.admitted
    );
    let never = reached(&report, Reached::Never);
    assert!(
        never.len() * 4 < report.fields.len() && !reached(&report, Reached::Translated).is_empty(),
        "no value of these fields is admitted: {never:?}"
    );
    let is_known = |field: &str| KNOWN.iter().any(|known| field.starts_with(known));
    let new: Vec<&String> = report
        .refused
        .iter()
        .filter(|(field, _)| !is_known(field))
        .map(|(_, what)| what)
        .collect();
    assert!(
        new.is_empty(),
        "{} fields are refused:\n{new:#?}; all: {:?}",
        new.len(),
        report.refused.keys()
    );
    let of_kinds = KNOWN
        .iter()
        .filter(|known| kinds.iter().any(|kind| known.starts_with(kind)));
    let mended: Vec<_> = of_kinds
        .filter(|known| !report.refused.keys().any(|field| field.starts_with(**known)))
        .collect();
    assert!(mended.is_empty(), "no longer refused: {mended:?}");
}

#[test]
fn destination_rules() {
    check(&["DestinationRule"], 100);
}

#[test]
fn virtual_services() {
    check(&["VirtualService"], 100);
}

#[test]
fn gateways() {
    check(&["Gateway"], 100);
}

#[test]
fn service_entries() {
    check(&["ServiceEntry", "WorkloadEntry"], 100);
}

#[test]
fn sidecars_and_peer_authentications() {
    check(&["Sidecar", "PeerAuthentication"], 100);
}
