//! The recorded CRDs and objects. Where the recordings are absent the tests say by name that they did not run, and fail
//! in CI.

use std::path::PathBuf;

use control_apiserver::conformance::{CaseResult, run_crd_validation, run_crds};

/// A folder of the recordings, beside the checkout unless `LATEEN_ORACLE` names another place.
fn oracle(set: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let folder = std::env::var_os("LATEEN_ORACLE")
        .map_or_else(beside, PathBuf::from)
        .join(set);
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!("NOT RUN {set}: {} is absent", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{message}");
    // Not by a macro: what those print is shown of failed tests only.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{message}");
    None
}

fn check(results: &[CaseResult]) {
    assert!(results.len() > 10, "only {} cases ran", results.len());
    let failed: Vec<String> = results
        .iter()
        .filter(|case| !case.passed)
        .map(|case| format!("{}: {}", case.name, case.detail))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} differ:\n{}",
        failed.len(),
        results.len(),
        failed.join("\n")
    );
}

#[test]
fn recorded_objects_get_the_recorded_verdicts() {
    if let Some(folder) = oracle("istio-crd-validation") {
        check(&run_crd_validation(&folder));
    }
}

#[test]
fn our_crds_judge_as_the_recorded_ones() {
    if let Some(folder) = oracle("istio-crds") {
        check(&run_crds(&folder));
    }
}
