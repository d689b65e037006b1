//! Crates depend downwards only, and the wings meet only in xDS bytes (docs/architecture.md, invariant 1).

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::process::{cargo, output};

/// Every crate, lowest first: a crate may depend on crates above it in this list only.
const ORDER: &[&str] = &[
    "diagnostics",
    "net",
    "re2",
    "telemetry",
    "api-envoy",
    "api-istio",
    "api-spiffe",
    "identity",
    "tls",
    "xds",
    "control-apiserver",
    "control-snapshot",
    "control-sources",
    "control-ca",
    "control-translate",
    "control-discovery",
    "proxy-http",
    "proxy-core",
    "proxy-router",
    "proxy-upstream",
    "proxy-filters",
    "proxy-observe",
    "proxy-config",
    "proxy-server",
    "agent",
    "bookinfo",
    "lateen-proxy",
    "lateen",
    "casebook",
    "xtask",
];

/// Crates that may see both wings: the binary assembles them, the case book compares them.
const BOTH_WINGS: &[&str] = &["lateen", "casebook"];

/// What breaks the rule.
pub(crate) fn check() -> Result<Vec<String>> {
    let text = output(&mut cargo([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]))?;
    let metadata: Value = serde_json::from_str(&text)?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().unwrap_or_default();
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let development = dependency["kind"].as_str() == Some("dev");
            findings.extend(refuse(name, target, development));
        }
        if rank(name).is_none() {
            findings.push(format!(
                "{name} has no place in the order of xtask/src/tidy/layers.rs"
            ));
        }
    }
    Ok(findings)
}

fn rank(name: &str) -> Option<usize> {
    ORDER.iter().position(|c| *c == name)
}

fn wing(name: &str) -> Option<&str> {
    ["control", "proxy"]
        .into_iter()
        .find(|w| name.strip_prefix(w).is_some_and(|rest| rest.starts_with('-')))
}

fn refuse(from: &str, to: &str, development: bool) -> Option<String> {
    let (from_rank, to_rank) = (rank(from)?, rank(to)?);
    if let (Some(a), Some(b)) = (wing(from), wing(to))
        && a != b
    {
        return Some(format!(
            "{from} depends on {to}: the wings meet only in xDS bytes"
        ));
    }
    if wing(to).is_some() && wing(from).is_none() && from_rank < rank("lateen-proxy")? {
        return Some(format!(
            "{from} depends on {to}: shared crates and the agent know neither wing"
        ));
    }
    if from == "lateen-proxy" && wing(to) == Some("control") {
        return Some(format!(
            "{from} depends on {to}: only {} see both wings",
            BOTH_WINGS.join(" and ")
        ));
    }
    (!development && to_rank >= from_rank).then(|| format!("{from} depends on {to}, which is not below it"))
}

#[cfg(test)]
mod tests {
    use super::refuse;

    #[test]
    fn the_wings_may_not_meet_not_even_in_tests() {
        assert!(refuse("control-translate", "proxy-http", true).is_some());
        assert!(refuse("proxy-server", "control-snapshot", false).is_some());
        assert!(refuse("agent", "proxy-server", false).is_some());
        assert!(refuse("lateen-proxy", "control-discovery", false).is_some());
    }

    #[test]
    fn dependencies_point_downwards() {
        assert!(refuse("proxy-http", "proxy-router", false).is_some());
        assert!(refuse("proxy-router", "proxy-http", false).is_none());
        assert!(refuse("lateen", "control-discovery", false).is_none());
    }
}
