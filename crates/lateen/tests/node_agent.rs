//! SPIFFE's Workload API as programs of this host see it, with a client of another make: the package `spiffe` of PyPI.
//!
//! Its own harness, because the cases share a demo and run in order. Run it with
//! `cargo test --package lateen --test node_agent`; `LATEEN_KUBECTL` names the kubectl, and `LATEEN_PYTHON` a Python
//! that has the package (`cargo xtask tools` makes one).

#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a test program prints its verdicts"
)]

mod mesh;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use mesh::cases::{self, Case};
use mesh::{Mesh, within};
use serde_json::Value;

/// Every case in order.
const CASES: &[Case] = &[
    (
        "a program in its namespace gets its identity, its roots and a token",
        a_program_gets_its_identity,
    ),
    ("openssl verifies what it got", openssl_verifies),
    (
        "a program that is captured by ports gets its identity too",
        a_program_on_the_host_gets_its_identity,
    ),
    (
        "two programs at once get each their own",
        two_programs_get_each_their_own,
    ),
    (
        "a process that is no workload gets nothing",
        a_stranger_gets_nothing,
    ),
    (
        "a node agent serves a user who was registered, and no other",
        a_registered_user_gets_an_identity,
    ),
];

fn main() -> ExitCode {
    let started = || {
        ensure!(
            python().is_file(),
            "LATEEN_PYTHON names no Python with the package spiffe"
        );
        Mesh::start(&["--load", "0"])
    };
    cases::run(started, CASES)
}

/// How long a client may take, Python's start included.
const PATIENCE: Duration = Duration::from_secs(60);

fn python() -> PathBuf {
    std::env::var_os("LATEEN_PYTHON").unwrap_or_default().into()
}

/// The client's command line; what it gets goes into `folder`.
fn client(folder: &Path) -> Vec<String> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/spiffe_client.py");
    [
        python().display().to_string(),
        script.to_owned(),
        folder.display().to_string(),
    ]
    .into()
}

/// Runs the client as the application of a service, under its own service account.
fn joined(mesh: &Mesh, service: &str, flags: &[&str], folder: &Path) -> Result<Value> {
    let mut all = vec!["--service", service, "--service-account", service];
    all.extend(flags);
    let command = client(folder);
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut program = mesh.run(&all, &command)?;
    let line = program.line(PATIENCE)?;
    program.ended(PATIENCE)?;
    serde_json::from_str(&line).with_context(|| format!("the client printed {line}"))
}

/// Runs the client on the host, at a socket, as this user or another.
fn on_host(socket: &Path, folder: &Path, user: Option<u32>) -> Result<Value> {
    let mut command = client(folder);
    command.extend(user.map(|user| user.to_string()));
    let output = Command::new(&command[0])
        .args(&command[1..])
        .env("SPIFFE_ENDPOINT_SOCKET", format!("unix://{}", socket.display()))
        .stdin(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("the client printed {text:?} and {errors}")
    })
}

fn expect_identity(told: &Value, account: &str) -> Result<()> {
    let id = format!("spiffe://cluster.local/ns/default/sa/{account}");
    ensure!(
        told["x509"] == id.as_str() && told["key"] == true,
        "the certificate: {told}"
    );
    ensure!(
        told["jwt"] == serde_json::json!([id, id]) && told["audience"] == serde_json::json!(["shop"]),
        "the token: {told}"
    );
    ensure!(
        told["refused"]
            .as_array()
            .is_some_and(|refused| refused.len() == 1),
        "a token for another audience was believed: {told}"
    );
    Ok(())
}

fn a_program_gets_its_identity(mesh: &mut Mesh) -> Result<()> {
    let folder = results(mesh)?;
    expect_identity(&joined(mesh, "reports", &[], &folder)?, "reports")
}

/// A folder for what clients get.
fn results(mesh: &Mesh) -> Result<PathBuf> {
    let folder = mesh.home().join("results");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn openssl_verifies(mesh: &mut Mesh) -> Result<()> {
    let folder = results(mesh)?;
    let openssl = |arguments: &[&str]| -> Result<String> {
        let output = Command::new("openssl")
            .current_dir(&folder)
            .args(arguments)
            .output()?;
        ensure!(
            output.status.success(),
            "openssl: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let chain = ["-CAfile", "roots.pem", "-untrusted", "chain.pem", "chain.pem"];
    for purpose in ["sslclient", "sslserver"] {
        let mut arguments = vec!["verify", "-x509_strict", "-purpose", purpose];
        arguments.extend(chain);
        openssl(&arguments)?;
    }
    let names = openssl(&["x509", "-in", "chain.pem", "-noout", "-ext", "subjectAltName"])?;
    ensure!(
        names.contains("URI:spiffe://cluster.local/ns/default/sa/reports"),
        "{names}"
    );
    Ok(())
}

fn a_program_on_the_host_gets_its_identity(mesh: &mut Mesh) -> Result<()> {
    let folder = results(mesh)?;
    let told = joined(mesh, "archive", &["--capture", "ports"], &folder)?;
    expect_identity(&told, "archive")
}

fn two_programs_get_each_their_own(mesh: &mut Mesh) -> Result<()> {
    let folder = results(mesh)?;
    let mesh = &*mesh;
    std::thread::scope(|scope| {
        let both = ["north", "south"].map(|service| {
            let folder = folder.join(service);
            scope.spawn(move || {
                std::fs::create_dir_all(&folder)?;
                expect_identity(&joined(mesh, service, &[], &folder)?, service)
            })
        });
        both.into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a client panicked")))
    })
}

fn a_stranger_gets_nothing(mesh: &mut Mesh) -> Result<()> {
    let folder = results(mesh)?;
    let told = on_host(&mesh.home().join("workload-api.sock"), &folder, None)?;
    let text = told["text"].as_str().unwrap_or_default();
    ensure!(told["error"].is_string() && told["x509"].is_null(), "{told}");
    ensure!(
        text.contains("no identity issued") || text.contains("PERMISSION_DENIED"),
        "{told}"
    );
    Ok(())
}

/// A user that every system has and nobody is.
const NOBODY: u32 = 65534;

fn a_registered_user_gets_an_identity(mesh: &mut Mesh) -> Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    use std::os::unix::fs::PermissionsExt as _;
    mesh.apply(
        "apiVersion: networking.istio.io/v1\nkind: WorkloadGroup\nmetadata: {name: nightly, namespace: default}\n\
         spec: {template: {serviceAccount: nightly}}\n",
    )?;
    // Only root can be somebody else; others register themselves.
    let own = std::fs::metadata(mesh.home())?.uid();
    let user = (own == 0).then_some(NOBODY);
    let place = tempfile::tempdir()?;
    // Every user may look here and write there.
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755))?;
    let folder = place.path().join("results");
    std::fs::create_dir(&folder)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777))?;
    let socket = place.path().join("node.sock");
    let registration = format!("default/nightly=unix:uid:{}", user.unwrap_or(own));
    let path = socket.display().to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let page = free.to_string();
    let flags = ["--socket", &path, "--workload", &registration, "--metrics", &page];
    let mut agent = mesh.background(&[&["node-agent"], &flags[..]].concat())?;
    within(Duration::from_secs(10), || Ok(socket.exists()))?;
    expect_identity(&on_host(&socket, &folder, user)?, "nightly")?;
    if user.is_some() {
        let refused = on_host(&socket, &folder, None)?;
        ensure!(
            refused["error"].is_string(),
            "root is not the registered user: {refused}"
        );
    }
    let metrics = Command::new("curl")
        .args(["-s", &format!("http://{page}/metrics")])
        .output()?;
    let metrics = String::from_utf8_lossy(&metrics.stdout).into_owned();
    ensure!(
        metrics.contains("cert_expiry_seconds{resource_name=\"default/nightly\"} 86"),
        "{metrics}"
    );
    agent.terminate()?;
    ensure!(!socket.exists(), "the socket stays behind");
    Ok(())
}
