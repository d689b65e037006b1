//! Every set, in one table.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Arguments, Case};

/// The scenarios that the foundation covers.
const FOUNDATION: &[&str] = &[
    "01-base",
    "02-header-subset",
    "03-weighted",
    "05-rewrite-redirect-direct",
    "15-gateway-http",
    "15b-gateway-http-no-routes",
    "19-service-entry",
    "29-workload-entry",
    "31-delegate",
];

/// Runs the set in a folder.
type Run = fn(&Arguments, &Path) -> Result<Vec<Case>>;

const SETS: &[(&str, Run)] = &[
    ("istiod-xds", istiod_xds),
    ("llhttp", llhttp),
    ("istio-crds", istio_crds),
    ("istio-crd-validation", istio_crd_validation),
];

/// Runs the set that the arguments name.
pub(crate) fn run(arguments: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    match SETS.iter().find(|(name, _)| *name == arguments.set) {
        Some((_, run)) => run(arguments, dir),
        None => {
            let names: Vec<&str> = SETS.iter().map(|(name, _)| *name).collect();
            bail!(
                "no set is called {}; there are {}",
                arguments.set,
                names.join(", ")
            )
        }
    }
}

fn istiod_xds(arguments: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    let foundation: Vec<String> = FOUNDATION.iter().map(|s| (*s).to_owned()).collect();
    let scenarios = if arguments.foundation {
        Some(foundation.as_slice())
    } else {
        None
    };
    let scenarios = if arguments.scenario.is_empty() {
        scenarios
    } else {
        Some(arguments.scenario.as_slice())
    };
    let without = arguments
        .without
        .iter()
        .map(|name| {
            control_translate::conformance::Without::parse(name)
                .with_context(|| format!("--without {name}: there are mtls and telemetry"))
        })
        .collect::<Result<Vec<_>>>()?;
    let translated = control_translate::conformance::run(dir, scenarios, &without)?;
    let mut cases: Vec<Case> = translated
        .into_iter()
        .map(|c| Case {
            name: format!("{}/{}/{}", c.scenario, c.proxy, c.type_),
            passed: c.passed,
            differences: c.differences,
        })
        .collect();
    if arguments.scenario.is_empty() {
        let replayed = control_discovery::conformance::run_scripts(dir)?;
        cases.extend(replayed.into_iter().map(|c| Case {
            name: c.name,
            passed: c.passed,
            differences: c.differences,
        }));
    }
    Ok(cases)
}

fn llhttp(_: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    let results = proxy_http::conformance::run_llhttp(dir)?;
    Ok(results
        .into_iter()
        .map(|c| Case {
            name: c.name,
            passed: c.passed,
            differences: vec![c.detail],
        })
        .collect())
}

fn istio_crds(_: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    Ok(admission(control_apiserver::conformance::run_crds(dir)))
}

fn istio_crd_validation(_: &Arguments, dir: &Path) -> Result<Vec<Case>> {
    Ok(admission(control_apiserver::conformance::run_crd_validation(dir)))
}

fn admission(results: Vec<control_apiserver::conformance::CaseResult>) -> Vec<Case> {
    results
        .into_iter()
        .map(|c| Case {
            name: c.name,
            passed: c.passed,
            differences: vec![c.detail],
        })
        .collect()
}
