//! A file has one subject: beyond this length it surely has two.

use anyhow::Result;

use crate::find::collect;
use crate::process::root;

/// Most lines of a Rust file, its tests included.
const MAX_LINES: usize = 1000;

/// Files that are too long.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut files = Vec::new();
    collect(&root().join("crates"), &mut files)?;
    collect(&root().join("xtask"), &mut files)?;
    let mut findings = Vec::new();
    for file in files.iter().filter(|f| f.extension().is_some_and(|e| e == "rs")) {
        let lines = std::fs::read_to_string(file)?.lines().count();
        if lines > MAX_LINES {
            let shown = file.strip_prefix(root()).unwrap_or(file).display();
            findings.push(format!(
                "{shown} has {lines} lines, {MAX_LINES} at most: split it by subject"
            ));
        }
    }
    Ok(findings)
}
