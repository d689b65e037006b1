//! Documents that must exist, and say what they must.

use anyhow::Result;

use crate::process::root;

/// Files of the project's front hall.
const REQUIRED: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "clippy.toml",
    "rustfmt.toml",
    "deny.toml",
    "docs/architecture.md",
    "docs/glossary.md",
    "docs/differences.md",
    "docs/limits.md",
    "docs/performance.md",
];

/// What is missing.
pub(crate) fn check() -> Result<Vec<String>> {
    let mut findings = Vec::new();
    for name in REQUIRED {
        if !root().join(name).is_file() {
            findings.push(format!("{name} is missing"));
        }
    }
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap_or_default();
    for command in ["cargo run --release -- demo", "cargo xtask test"] {
        if !readme.contains(command) {
            findings.push(format!("README.md does not show `{command}`"));
        }
    }
    for entry in std::fs::read_dir(root().join("features"))? {
        let folder = entry?.path();
        if folder.is_dir() && !folder.join("README.md").is_file() {
            findings.push(format!("{} has no README.md", folder.display()));
        }
    }
    Ok(findings)
}
