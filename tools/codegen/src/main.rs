//! Generates `crates/api-envoy/src/gen` and `crates/api-envoy/descriptors.bin.gz`, and `crates/api-spiffe/src/gen`.
//!
//! Envoy's message definitions come from the descriptor set that the `envoy-types` package ships (Envoy's API,
//! Apache-2.0); Istio's few own wire messages from `proto/` and SPIFFE's from `spiffe/`, beside this file. Of Envoy's,
//! only the import closure of [`ROOTS`] is kept. Maps become `BTreeMap` and bytes `Bytes`, so that the same message always encodes to the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

/// Files, or directories ending in `/`, whose import closure is generated.
const ROOTS: &[&str] = include!("roots.in");

fn main() -> Result<()> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let out = here.join("../../crates/api-envoy");
    let envoy = envoy_descriptors(&here)?;
    let kept = closure(envoy)?;
    let istio = istio_descriptors(&here, &kept)?;
    let mut all = kept;
    all.extend(istio);
    eprintln!("{} files kept", all.len());
    generate(&all, &out.join("src/gen"))?;
    write_descriptors(all, &out.join("descriptors.bin.gz"))?;
    generate(&spiffe_descriptors(&here)?, &here.join("../../crates/api-spiffe/src/gen"))
}

/// SPIFFE's Workload API and what is spoken here of SPIRE's.
fn spiffe_descriptors(here: &Path) -> Result<Vec<FileDescriptorProto>> {
    let files = [
        "workload.proto",
        "spire/api/types/types.proto",
        "spire/api/server/svid.proto",
        "spire/api/server/bundle.proto",
    ];
    let set = protox::compile(files, [here.join("spiffe")])?;
    let files = set.file.into_iter();
    files.map(|file| Ok(FileDescriptorProto::decode(file.encode_to_vec().as_slice())?)).collect()
}

fn envoy_descriptors(here: &Path) -> Result<FileDescriptorSet> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--manifest-path"])
        .arg(here.join("Cargo.toml"))
        .output()?;
    let text = String::from_utf8(metadata.stdout)?;
    let at = text.find("/envoy-types-").context("cargo metadata does not list envoy-types")?;
    let start = text[..at].rfind('"').context("manifest path")? + 1;
    let end = at + 1 + text[at + 1..].find('/').context("package directory")?;
    let dir = PathBuf::from(&text[start..end]);
    let bytes = std::fs::read(dir.join("src/generated/types.bin")).with_context(|| dir.display().to_string())?;
    Ok(FileDescriptorSet::decode(bytes.as_slice())?)
}

fn closure(set: FileDescriptorSet) -> Result<Vec<FileDescriptorProto>> {
    let by_name: BTreeMap<String, FileDescriptorProto> =
        set.file.iter().map(|f| (f.name().to_owned(), f.clone())).collect();
    let mut wanted: Vec<String> = Vec::new();
    for root in ROOTS {
        let before = wanted.len();
        wanted.extend(by_name.keys().filter(|n| *n == root || (root.ends_with('/') && n.starts_with(root))).cloned());
        anyhow::ensure!(wanted.len() > before, "no file in the descriptor set matches {root}");
    }
    let mut keep = BTreeSet::new();
    while let Some(name) = wanted.pop() {
        if keep.insert(name.clone()) {
            let file = by_name.get(&name).with_context(|| format!("{name} is imported but absent"))?;
            wanted.extend(file.dependency.iter().cloned());
        }
    }
    // The set's own order is topological; keep it.
    Ok(set.file.into_iter().filter(|f| keep.contains(f.name())).collect())
}

fn istio_descriptors(here: &Path, envoy: &[FileDescriptorProto]) -> Result<Vec<FileDescriptorProto>> {
    let dir = here.join("proto");
    let mut files: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(&dir)? {
        files.push(entry?.file_name().to_string_lossy().into_owned());
    }
    files.sort();
    let set = protox::compile(&files, [&dir])?;
    let known: BTreeSet<&str> = envoy.iter().map(|f| f.name()).collect();
    let mut out = Vec::new();
    for file in set.file {
        // Re-encode: protox may build against another minor version of prost-types.
        let file = FileDescriptorProto::decode(file.encode_to_vec().as_slice())?;
        if !known.contains(file.name()) {
            out.push(file);
        }
    }
    Ok(out)
}

fn generate(files: &[FileDescriptorProto], dir: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(dir);
    std::fs::create_dir_all(dir)?;
    let mut config = prost_build::Config::new();
    config
        .enable_type_names()
        .btree_map(["."])
        .bytes(["."])
        .include_file("mod.rs")
        .disable_comments(["."])
        .out_dir(dir);
    tonic_prost_build::configure()
        .build_transport(false)
        .out_dir(dir)
        .compile_fds_with_config(FileDescriptorSet { file: files.to_vec() }, config)?;
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if std::fs::metadata(&path)?.len() == 0 {
            std::fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn write_descriptors(mut files: Vec<FileDescriptorProto>, path: &Path) -> Result<()> {
    for file in &mut files {
        file.source_code_info = None;
    }
    let raw = FileDescriptorSet { file: files }.encode_to_vec();
    let mut gz = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::best());
    gz.write_all(&raw)?;
    std::fs::write(path, gz.finish()?)?;
    Ok(())
}
