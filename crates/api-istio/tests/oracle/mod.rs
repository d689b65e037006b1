//! Where recorded test data of other projects is: `LATEEN_ORACLE`, or `../shared/oracle` beside the checkout.

use std::path::{Path, PathBuf};

/// One folder of it. Where there is none, the caller's test does not run and says so; in CI, or when `LATEEN_ORACLE`
/// names a place without it, that is a failure.
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("LATEEN_ORACLE").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let folder = given.clone().unwrap_or_else(beside).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let message = format!("NOT RUN {test}: {} is absent", folder.display());
    assert!(given.is_none() && std::env::var_os("CI").is_none(), "{message}");
    // Not by a macro: what those print is shown of failed tests only.
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{message}");
    None
}
