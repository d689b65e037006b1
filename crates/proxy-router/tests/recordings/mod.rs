//! What a real istiod sent, for the tests of every crate that has to accept it.

use std::io::Write as _;
use std::path::PathBuf;

/// The scenarios that this proxy serves today: a folder each, with a folder for each proxy of the mesh inside.
pub(crate) const SCENARIOS: &[&str] = &[
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

/// The folder of the recordings: in `LATEEN_ORACLE`, else beside the checkout. Where it is absent `test` does not run
/// and says so; in CI that fails.
pub(crate) fn folder(test: &str) -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let folder = std::env::var_os("LATEEN_ORACLE")
        .map_or_else(beside, PathBuf::from)
        .join("istiod-xds");
    if folder.is_dir() {
        return Some(folder);
    }
    let message = format!("NOT RUN {test}: {} is absent", folder.display());
    assert!(std::env::var_os("CI").is_none(), "{message}");
    // Not by eprintln!, which is hidden for a test that passes.
    let _ = writeln!(std::io::stderr(), "{message}");
    None
}
