//! The generators of committed code.

use anyhow::Result;

use crate::process::{cargo, root, succeeds, target_dir};

/// Runs the generator of the Envoy types, then the one of the CRDs.
pub(crate) fn run(_: &[String]) -> Result<bool> {
    let manifest = root().join("tools/codegen/Cargo.toml");
    let mut envoy = cargo(["run", "--quiet", "--manifest-path"]);
    envoy
        .arg(manifest)
        .env("CARGO_TARGET_DIR", target_dir().join("codegen"));
    let mut crds = cargo([
        "run",
        "--quiet",
        "--package",
        "api-istio",
        "--bin",
        "generate-crds",
    ]);
    Ok(succeeds(&mut envoy)? && succeeds(&mut crds)?)
}
