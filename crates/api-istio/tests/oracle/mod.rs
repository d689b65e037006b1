//! Where recorded test data of other projects is: `LATEEN_ORACLE`, or `../shared/oracle` beside the checkout.

use std::path::{Path, PathBuf};

/// One folder of it. Where there is none, the caller's test does not run and says so; with `LATEEN_ORACLE` set, a
/// missing folder is a failure.
#[allow(clippy::print_stderr)]
pub(crate) fn folder(name: &str) -> Option<PathBuf> {
    let given = std::env::var_os("LATEEN_ORACLE").map(PathBuf::from);
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle");
    let folder = given.clone().unwrap_or_else(beside).join(name);
    if folder.is_dir() {
        return Some(folder);
    }
    assert!(given.is_none(), "LATEEN_ORACLE has no {name}");
    eprintln!(
        "NOT RUN: {} needs {}",
        std::thread::current().name().unwrap_or("test"),
        folder.display()
    );
    None
}
