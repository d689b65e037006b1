//! The recorded CRDs and objects. Where the recordings are absent the tests say so and fail, unless
//! `LATEEN_ORACLE=absent` says that this is known.

use std::path::PathBuf;

use control_apiserver::conformance::{CaseResult, run_crd_validation, run_crds};

/// The folder of recordings, beside the checkout unless `LATEEN_ORACLE` names another.
fn oracle(set: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("LATEEN_ORACLE") {
        Some(place) if place == "absent" => return None,
        Some(place) => PathBuf::from(place),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
    };
    let folder = root.join(set);
    assert!(
        folder.is_dir(),
        "{} is missing; set LATEEN_ORACLE",
        folder.display()
    );
    Some(folder)
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
