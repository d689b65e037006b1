//! `lateen proxy-config`: what a proxy is configured with, as its admin interface tells it.

mod secret;

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::Value;

use super::on_this_thread;
use crate::cli::{OutputFormat, ProxyConfigOf, SecretArgs};
use crate::state::Home;
use crate::{http, output};

pub(crate) fn run(what: ProxyConfigOf) -> anyhow::Result<ExitCode> {
    match what {
        ProxyConfigOf::Secret(arguments) => secrets(&arguments),
    }
}

fn secrets(arguments: &SecretArgs) -> anyhow::Result<ExitCode> {
    let found = match &arguments.file {
        Some(path) => {
            let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            let dump: Value = serde_json::from_slice(&text)
                .with_context(|| format!("{} is no configuration dump", path.display()))?;
            secret::in_dump(&dump)
        }
        None => on_this_thread(asked(admin_address(arguments)?))?,
    };
    if arguments.output == OutputFormat::Json {
        output::line(&format!("{:#}", secret::in_json(&found)));
        return Ok(ExitCode::SUCCESS);
    }
    let now = std::time::SystemTime::now();
    let rows: Vec<_> = found.iter().flat_map(|entry| secret::rows(entry, now)).collect();
    output::table(secret::HEADER, &rows);
    for refusal in found.iter().filter_map(secret::refusal) {
        output::line(&refusal);
    }
    Ok(ExitCode::SUCCESS)
}

fn admin_address(arguments: &SecretArgs) -> anyhow::Result<SocketAddr> {
    if let Some(address) = arguments.admin {
        return Ok(address);
    }
    let home = Home::find()?;
    home.require_mesh()?;
    let name = arguments.workload.as_deref().unwrap_or_default();
    let namespace = arguments.namespace.as_deref();
    let mut workloads = home.workloads();
    workloads.retain(|w| w.name == name && namespace.is_none_or(|namespace| w.namespace == namespace));
    match workloads.as_slice() {
        [one] => Ok(one.admin),
        [] => anyhow::bail!("no workload is called \"{name}\"; `lateen ps` lists them"),
        _ => anyhow::bail!("\"{name}\" is in several namespaces; say which with --namespace"),
    }
}

/// Asks part by part: the whole dump of a proxy in a large mesh is long.
async fn asked(admin: SocketAddr) -> anyhow::Result<Vec<secret::Entry>> {
    let mut found = Vec::new();
    for part in secret::PARTS {
        let (status, body) = http::get(admin, &format!("/config_dump?resource={part}"))
            .await
            .with_context(|| format!("the proxy's admin interface at {admin} does not answer"))?;
        match status {
            // A part without entries is not there.
            404 => {}
            200 => {
                let answer: Value = serde_json::from_slice(&body).context("it answers no JSON")?;
                found.extend(secret::in_part(part, &answer["configs"]));
            }
            other => anyhow::bail!("the proxy's admin interface at {admin} answers {other}"),
        }
    }
    Ok(found)
}
