//! `lateen proxy-status`: what each proxy was sent and has accepted, and how long its certificate holds
//! (`istioctl proxy-status`).

use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::on_this_thread;
use crate::cli::{OutputFormat, ProxyStatusArgs};
use crate::state::{Home, WorkloadRecord};
use crate::{http, output};

/// The types that are shown: Istio's short name, and the control plane's word for it.
const TYPES: [(&str, &str); 5] = [
    ("CDS", "cluster"),
    ("LDS", "listener"),
    ("EDS", "endpoint"),
    ("RDS", "route"),
    ("ECDS", "extensionconfig"),
];

/// What the control plane is called among the mesh's workloads.
const CONTROL_PLANE: &str = "control-plane";

pub(crate) fn run(arguments: &ProxyStatusArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    let mesh = home.require_mesh()?;
    let (status, page) = on_this_thread(http::get(mesh.debug, "/debug/syncz"))?;
    anyhow::ensure!(
        status == 200,
        "the control plane answers {status}; see `lateen logs control-plane`"
    );
    let proxies: Vec<Value> = serde_json::from_slice(&page).context("read what the control plane says")?;
    let (workloads, now) = (home.workloads(), OffsetDateTime::now_utc());
    if arguments.output == OutputFormat::Json {
        let all: Vec<Value> = proxies
            .iter()
            .map(|proxy| in_json(proxy, &workloads, now))
            .collect();
        output::line(&format!("{:#}", Value::from(all)));
        return Ok(ExitCode::SUCCESS);
    }
    let mut header = vec!["NAME", "CLUSTER", "ISTIOD", "VERSION"];
    match arguments.verbose {
        true => header.extend(TYPES.map(|(short, _)| short)),
        false => header.push("SUBSCRIBED TYPES"),
    }
    header.push("CERTIFICATE");
    let row = |proxy: &Value| row(proxy, record(proxy, &workloads), arguments.verbose, now);
    output::table(&header, &proxies.iter().map(row).collect::<Vec<_>>());
    Ok(ExitCode::SUCCESS)
}

/// The workload of a proxy, which is called `name.namespace`.
fn record<'w>(proxy: &Value, workloads: &'w [WorkloadRecord]) -> Option<&'w WorkloadRecord> {
    let name = proxy["proxy"].as_str()?;
    workloads
        .iter()
        .find(|workload| name == format!("{}.{}", workload.name, workload.namespace))
}

fn row(proxy: &Value, workload: Option<&WorkloadRecord>, verbose: bool, now: OffsetDateTime) -> Vec<String> {
    let text = |field: &str| proxy[field].as_str().unwrap_or("-").to_owned();
    let mut row = vec![
        text("proxy"),
        text("cluster_id"),
        CONTROL_PLANE.to_owned(),
        text("proxy_version"),
    ];
    match verbose {
        true => row.extend(TYPES.map(|(_, field)| state(proxy, field).to_owned())),
        false => row.push(subscribed(proxy)),
    }
    let certificate = workload.map(|workload| &workload.certificate);
    row.push(certificate.map_or_else(|| "-".to_owned(), |record| record.in_words(now)));
    row
}

/// Istio's words for how it stands with one type.
fn state(proxy: &Value, field: &str) -> &'static str {
    let text = |what: &str| proxy[format!("{field}_{what}")].as_str().unwrap_or_default();
    match (text("sent"), text("acked"), text("error")) {
        ("", ..) => "NOT SENT",
        (sent, acked, _) if sent == acked => "SYNCED",
        (_, _, "") => "STALE",
        _ => "ERROR",
    }
}

/// `4 (CDS,LDS,EDS,RDS)`.
fn subscribed(proxy: &Value) -> String {
    let sent = TYPES
        .iter()
        .filter(|(_, field)| state(proxy, field) != "NOT SENT");
    let names: Vec<&str> = sent.map(|(short, _)| *short).collect();
    format!("{} ({})", names.len(), names.join(","))
}

/// What the control plane says, and the certificate.
fn in_json(proxy: &Value, workloads: &[WorkloadRecord], now: OffsetDateTime) -> Value {
    let mut all = proxy.clone();
    let certificate = record(proxy, workloads).map(|workload| &workload.certificate);
    all["certificate"] = json!(certificate);
    if let Some(certificate) = certificate {
        all["certificate"]["expires_soon"] = certificate.expires_soon(now).into();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_synced_stale_refused_or_was_not_sent() {
        let proxy = json!({
            "proxy": "reviews-v1.default", "cluster_id": "Kubernetes", "proxy_version": "1.31.0",
            "cluster_sent": "3", "cluster_acked": "3",
            "listener_sent": "4", "listener_acked": "2",
            "route_sent": "5", "route_acked": "1", "route_error": "no",
        });
        let now = OffsetDateTime::UNIX_EPOCH;
        let shown = row(&proxy, None, true, now);
        let own = ["reviews-v1.default", "Kubernetes", "control-plane", "1.31.0"];
        assert_eq!(shown[..4], own);
        assert_eq!(
            shown[4..],
            ["SYNCED", "STALE", "NOT SENT", "ERROR", "NOT SENT", "-"]
        );
        assert_eq!(row(&proxy, None, false, now)[4], "3 (CDS,LDS,RDS)");
    }
}
