//! Writes `crds/*.yaml` from the types; run it after changing one.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    std::fs::create_dir_all(&folder)?;
    for kind in api_istio::kinds::KINDS {
        let yaml = serde_saphyr::to_string(&api_istio::crd::crd(kind)).map_err(std::io::Error::other)?;
        let header =
            "# Generated from the types of api-istio by `cargo run -p api-istio --bin generate-crds`.\n";
        std::fs::write(
            folder.join(format!("{}.yaml", kind.crd_name())),
            format!("{header}{yaml}"),
        )?;
    }
    Ok(())
}
