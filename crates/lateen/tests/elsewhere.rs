//! A workload of another machine: it knows of the mesh what `istioctl x workload entry configure` would have written for
//! it, and nothing else. The other machine is another address of loopback, with a folder of its own.
//!
//! Its own harness, because the cases share a demo and run in order. Run it with
//! `cargo test --package lateen --test elsewhere`; `LATEEN_KUBECTL` names the kubectl.

#![allow(
    clippy::print_stdout,
    missing_docs,
    reason = "a test program prints its verdicts"
)]

mod mesh;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use mesh::cases::{self, Case};
use mesh::{Background, Mesh, within};

/// Every case in order. Later ones rely on what earlier ones applied.
const CASES: &[Case] = &[
    (
        "a workload of another machine joins with its token and serves over mutual TLS",
        it_joins,
    ),
    ("it leaves when its process ends", it_leaves),
    ("a token of another account gets no identity", anothers_token),
    (
        "a control plane that leads to other roots is not believed",
        other_roots,
    ),
    (
        "a certificate from files is shown, and the next one taken",
        certificates_in_files,
    ),
    ("what cannot be done is refused by name", refused_by_name),
];

fn main() -> ExitCode {
    cases::run(|| Mesh::start(&["--load", "0"]), CASES)
}

/// The other machine's address.
const ADDRESS: &str = "127.0.0.77";

/// The group that it joins: reviews v4, which no workload of the demo is.
const GROUP: &str = "
apiVersion: v1
kind: ServiceAccount
metadata: {name: elsewhere, namespace: default}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: reviews-elsewhere, namespace: default}
spec:
  metadata: {labels: {app: reviews, version: v4}}
  template: {serviceAccount: elsewhere}
";

const STRICT: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
";

const TO_V4: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: reviews-elsewhere, namespace: default}
spec:
  host: reviews
  subsets: [{name: v4, labels: {version: v4}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: default}
spec:
  hosts: [reviews]
  http: [{route: [{destination: {host: reviews, subset: v4}}]}]
";

/// A review service that asks ratings of the mesh by name.
const APP: &str = r#"
import http.server, json, urllib.request
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        stars = urllib.request.urlopen("http://ratings:9080/ratings/0", timeout=5).read().decode()
        body = json.dumps({"id": "0", "podname": "v4", "reviews": [{"reviewer": "four", "text": stars}]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("0.0.0.0", 9080), H).serve_forever()
"#;

/// The other machine: what was written for it, and its own state.
struct Machine {
    folder: tempfile::TempDir,
}

impl Machine {
    /// Writes the files as istioctl does, with a token of `account`.
    fn new(mesh: &Mesh, account: &str) -> Result<Self> {
        let machine = Self {
            folder: tempfile::tempdir()?,
        };
        let path = ["-o", "jsonpath={.data.root-cert\\.pem}"];
        let map = ["get", "configmap", "istio-ca-root-cert", "-n", "default"];
        let roots = mesh.kubectl(&[&map[..], &path[..]].concat())?;
        let token = mesh.kubectl(&[
            "create",
            "token",
            account,
            "-n",
            "default",
            "--audience",
            "istio-ca",
        ])?;
        machine.write("root-cert.pem", &roots)?;
        machine.write("istio-token", token.trim())?;
        machine.write("hosts", "127.0.0.1 istiod.istio-system.svc\n")?;
        machine.write("cluster.env", ENVIRONMENT)?;
        let port = secure_port(mesh)?;
        machine.write(
            "mesh.yaml",
            &format!(
                "defaultConfig:\n  discoveryAddress: istiod.istio-system.svc:{port}\n  proxyMetadata:\n    \
                 ISTIO_META_AUTO_REGISTER_GROUP: reviews-elsewhere\n"
            ),
        )?;
        Ok(machine)
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join(name), text)?)
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// Runs the application there.
    fn run(&self, mesh: &Mesh) -> Result<Background> {
        self.run_with(mesh, &[])
    }

    /// The same with more flags.
    fn run_with(&self, mesh: &Mesh, more: &[&str]) -> Result<Background> {
        let files = self.folder.path().display().to_string();
        let flags = [
            "run",
            "--workload-files",
            &files,
            "--address",
            ADDRESS,
            "--port",
            "9080",
        ];
        let words = [&flags[..], more, &["--", "python3", "-c", APP]].concat();
        mesh.background_in(&self.home(), &words)
    }

    /// What its sidecar has to say.
    fn log(&self) -> String {
        let path = self.home().join("logs/reviews-elsewhere.default.sidecar.log");
        std::fs::read_to_string(path).unwrap_or_default()
    }
}

const ENVIRONMENT: &str = r#"CANONICAL_REVISION=v4
CANONICAL_SERVICE=reviews
ISTIO_INBOUND_PORTS='*'
ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'
ISTIO_METAJSON_LABELS='{"app":"reviews","version":"v4","service.istio.io/canonical-name":"reviews"}'
ISTIO_META_CLUSTER_ID=Kubernetes
ISTIO_META_DNS_CAPTURE=true
ISTIO_META_MESH_ID=''
ISTIO_META_NETWORK=''
ISTIO_META_WORKLOAD_NAME=reviews-elsewhere
ISTIO_NAMESPACE=default
ISTIO_SERVICE=reviews-elsewhere.default
ISTIO_SERVICE_CIDR='*'
POD_NAMESPACE=default
SERVICE_ACCOUNT=elsewhere
TRUST_DOMAIN=cluster.local
"#;

/// Where the control plane gives certificates and configuration over TLS.
fn secure_port(mesh: &Mesh) -> Result<u16> {
    let record = std::fs::read(mesh.home().join("mesh.json"))?;
    let record: serde_json::Value = serde_json::from_slice(&record)?;
    let address = record["secure"].as_str().context("no secure port")?;
    let address: std::net::SocketAddr = address.parse()?;
    Ok(address.port())
}

fn joined(mesh: &Mesh) -> Result<bool> {
    let entries = mesh.kubectl(&["get", "workloadentries", "-n", "default", "-o", "yaml"])?;
    Ok(entries.contains(ADDRESS))
}

/// Whether the reviews of a page come from the other machine.
fn from_elsewhere(page: &str) -> bool {
    page.contains("four")
}

/// Runs until it serves, and until its end.
fn it_joins(mesh: &mut Mesh) -> Result<()> {
    mesh.apply(GROUP)?;
    mesh.apply(STRICT)?;
    let machine = Machine::new(mesh, "elsewhere")?;
    let mut program = machine.run(mesh)?;
    let outcome = serves(mesh, &machine);
    program.terminate()?;
    outcome
}

fn serves(mesh: &Mesh, machine: &Machine) -> Result<()> {
    within(Duration::from_secs(30), || joined(mesh)).with_context(|| machine.log())?;
    mesh.apply(TO_V4)?;
    within(Duration::from_secs(20), || Ok(from_elsewhere(&mesh.shop(None)?)))
        .with_context(|| format!("{}\n{}", mesh.shop(None).unwrap_or_default(), machine.log()))?;
    let page = mesh.shop(None)?;
    ensure!(
        page.contains("Reviewer1"),
        "it has not asked ratings of the mesh: {page}"
    );
    // Its certificate is its own account's.
    let folder = machine.home().join("run/reviews-elsewhere.default");
    let record = std::fs::read_to_string(folder.join("workload.json"))?;
    let id = "spiffe://cluster.local/ns/default/sa/elsewhere";
    ensure!(record.contains(id), "{record}");
    no_key_on_disk(machine.folder.path())
}

/// Keys are in memory only.
fn no_key_on_disk(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            no_key_on_disk(&entry.path())?;
        } else if entry.file_type()?.is_file() {
            let bytes = std::fs::read(entry.path())?;
            let found = String::from_utf8_lossy(&bytes).contains("PRIVATE KEY");
            ensure!(!found, "{} holds a key", entry.path().display());
        }
    }
    Ok(())
}

fn it_leaves(mesh: &mut Mesh) -> Result<()> {
    mesh.kubectl(&["delete", "virtualservice", "reviews", "-n", "default"])?;
    within(Duration::from_secs(30), || Ok(!joined(mesh)?))?;
    within(Duration::from_secs(10), || Ok(!from_elsewhere(&mesh.shop(None)?)))
}

/// Runs what is not to join, and returns what its sidecar logs or it prints.
fn does_not_join(mesh: &Mesh, machine: &Machine, reason: &str) -> Result<()> {
    let mut program = machine.run(mesh)?;
    let told = within(Duration::from_secs(20), || {
        let log = std::fs::read_to_string(machine.home().join("stderr"))?;
        Ok(log.contains(reason))
    });
    let outcome = told
        .with_context(|| format!("{reason:?} is not told"))
        .and_then(|()| {
            ensure!(!joined(mesh)?, "it has joined");
            Ok(())
        });
    program.terminate()?;
    outcome
}

fn anothers_token(mesh: &mut Mesh) -> Result<()> {
    let machine = Machine::new(mesh, "bookinfo-ratings")?;
    does_not_join(mesh, &machine, "not for the service account default/elsewhere")
}

fn other_roots(mesh: &mut Mesh) -> Result<()> {
    let machine = Machine::new(mesh, "elsewhere")?;
    machine.write("root-cert.pem", include_str!("data/certificate.pem"))?;
    does_not_join(mesh, &machine, "is not reached")
}

/// Signs a certificate of the account with the mesh's own key, as an operator's tools would; its serial number.
fn certify(mesh: &Mesh, folder: &Path) -> Result<String> {
    let entry = |name: &str| -> Result<Vec<u8>> {
        let path = format!("-o=jsonpath={{.data.{}}}", name.replace('.', "\\."));
        let text = mesh.kubectl(&["get", "secret", "istio-ca-secret", "-n", "istio-system", &path])?;
        Ok(base64::engine::general_purpose::STANDARD.decode(text.trim())?)
    };
    let openssl = |command: &str| -> Result<String> {
        let output = Command::new("openssl")
            .current_dir(folder)
            .args(command.split(' '))
            .output()?;
        ensure!(
            output.status.success(),
            "openssl {command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    std::fs::write(folder.join("root-cert.pem"), entry("ca-cert.pem")?)?;
    std::fs::write(folder.join("ca-key.pem"), entry("ca-key.pem")?)?;
    std::fs::write(
        folder.join("extensions"),
        "subjectAltName=critical,URI:spiffe://cluster.local/ns/default/sa/elsewhere\n\
         basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n\
         extendedKeyUsage=serverAuth,clientAuth\n",
    )?;
    openssl("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem")?;
    openssl("req -new -key key.pem -subj / -out request.pem")?;
    openssl(
        "x509 -req -in request.pem -CA root-cert.pem -CAkey ca-key.pem -days 1 -extfile extensions -out cert-chain.pem",
    )?;
    std::fs::remove_file(folder.join("ca-key.pem"))?;
    let serial = openssl("x509 -in cert-chain.pem -noout -serial")?;
    let serial = serial.trim().strip_prefix("serial=").context("a serial number")?;
    Ok(serial.trim_start_matches('0').to_lowercase())
}

fn certificates_in_files(mesh: &mut Mesh) -> Result<()> {
    let machine = Machine::new(mesh, "elsewhere")?;
    std::fs::remove_file(machine.folder.path().join("istio-token"))?;
    let folder = machine.folder.path().join("certs");
    std::fs::create_dir(&folder)?;
    let first = certify(mesh, &folder)?;
    let mut program = machine.run_with(mesh, &["--certificates", &folder.display().to_string()])?;
    let record = machine.home().join("run/reviews-elsewhere.default/workload.json");
    let shows = |serial: &str| {
        within(Duration::from_secs(20), || {
            let record: serde_json::Value = serde_json::from_slice(&std::fs::read(&record)?)?;
            let shown = record["certificate"]["serial"].as_str().unwrap_or_default();
            Ok(shown.trim_start_matches('0') == serial)
        })
    };
    let outcome = within(Duration::from_secs(30), || joined(mesh))
        .and_then(|()| shows(&first))
        .and_then(|()| shows(&certify(mesh, &folder)?))
        .with_context(|| machine.log());
    program.terminate()?;
    outcome
}

fn refused_by_name(mesh: &mut Mesh) -> Result<()> {
    let machine = Machine::new(mesh, "elsewhere")?;
    machine.write("cluster.env", &format!("{ENVIRONMENT}OUTPUT_CERTS=/etc/certs\n"))?;
    let mut program = machine.run(mesh)?;
    within(Duration::from_secs(10), || {
        let log = std::fs::read_to_string(machine.home().join("stderr"))?;
        Ok(log.contains("OUTPUT_CERTS"))
    })?;
    program.terminate()
}
