//! Every set, in one table.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::{Arguments, Case, istio_config};

/// Runs the set in a folder.
type Run = fn(&Arguments, &Path) -> Result<Vec<Case>>;

const SETS: &[(&str, Run)] = &[
    ("istiod-xds", istiod_xds),
    ("llhttp", llhttp),
    ("istio-crds", istio_crds),
    ("istio-crd-validation", istio_crd_validation),
    ("istio-config", istio_config::run),
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
    let scenarios = Some(arguments.scenario.as_slice()).filter(|names| !names.is_empty());
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
