//! gRPC's standard interoperability cases, with PyPI `grpcio` at both ends and two sidecars with mutual TLS between: ours,
//! a real Envoy's, and one of each. `LATEEN_PYTHON` names a Python that has `grpcio` and `protobuf` (`cargo xtask
//! tools` installs them), `LATEEN_ENVOY` Envoy's program; what is not there does not run and says so, and fails in CI.

#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "each test file uses its part")]
mod certificates;
#[path = "../harness/mod.rs"]
mod harness;

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use certificates::{Authority, downstream, upstream};
use harness::program::{Program, envoy};
use harness::{Proxy, cluster, eventually, http_filters, listener, socket};

/// The cases of the client, in its order.
const CASES: [&str; 14] = [
    "empty_unary",
    "large_unary",
    "client_streaming",
    "server_streaming",
    "ping_pong",
    "empty_stream",
    "timeout_on_sleeping_server",
    "status_code_and_message",
    "special_status_message",
    "custom_metadata",
    "unimplemented_method",
    "unimplemented_service",
    "cancel_after_begin",
    "cancel_after_first_response",
];

/// Calls of these cases that reach the server and come to an end: two each of `status_code_and_message` and
/// `custom_metadata`. Whether those that are given up do is a question of time.
const FINISHED_CALLS: u64 = 13;

const HTTP2: &str = "typed_extension_protocol_options: { envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \
                     \"@type\": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                     explicit_http_config: { http2_protocol_options: {} } } }";

const STATS: &str = "{ name: stats, typed_config: { \"@type\": \
                     type.googleapis.com/envoy.extensions.filters.http.grpc_stats.v3.FilterConfig, \
                     emit_filter_state: true, stats_for_all_methods: false } }, ";

/// A Python with gRPC for the test of that name.
#[allow(clippy::print_stderr, reason = "what did not run must be seen")]
fn python(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("LATEEN_PYTHON").map(PathBuf::from);
    if let Some(path) = path.filter(|path| path.is_file()) {
        return Some(path);
    }
    let message = format!("NOT RUN {test}: LATEEN_PYTHON names no program");
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("{message}");
    None
}

/// The server of the cases; it is killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(python: &Path) -> Self {
        let mut child = script(python, "server.py")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = String::new();
        let output = child.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut port).unwrap();
        let port: u16 = port.trim().parse().expect("the server tells its port");
        Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn script(python: &Path, name: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/grpc_interop")
        .join(name);
    let mut command = Command::new(python);
    command.arg(path).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn filters() -> String {
    http_filters("app").replacen("http_filters: [", &format!("http_filters: [{STATS}"), 1)
}

/// A cluster that is spoken to in HTTP/2, with more fields.
fn http2_cluster(address: SocketAddr, more: &str) -> String {
    let plain = cluster("app", address);
    let fields = plain.strip_suffix('}').unwrap();
    format!("{fields}, {HTTP2} {more} }}")
}

/// Two sidecars before a server; the first is where the client's application calls.
fn sidecars(
    root: &Authority,
    (client, server): (&Program, &Program),
    application: SocketAddr,
) -> (Proxy, Proxy) {
    let identity = root.leaf("server", &["spiffe://td/server"]);
    let common = format!(
        "{}, {}, alpn_protocols: [h2]",
        identity.certificates(),
        root.validation("")
    );
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        filters()
    );
    let address = socket("127.0.0.1:0".parse().unwrap());
    let inbound = format!("{{ name: web, address: {address}, filter_chains: [{{ {chain} }}] }}");
    let inbound = server.start(inbound, http2_cluster(application, ""));
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let names =
        ", match_typed_subject_alt_names: [{ san_type: URI, matcher: { exact: \"spiffe://td/server\" } }]";
    let common = format!(
        "{}, {}, alpn_protocols: [h2]",
        identity.certificates(),
        root.validation(names)
    );
    let transport = format!(", {}", upstream(&common, ", sni: server.test"));
    let outbound = client.start(
        listener("plain", &filters()),
        http2_cluster(inbound.listener("web"), &transport),
    );
    (outbound, inbound)
}

/// All cases through two sidecars.
fn check(python: &Path, programs: (&Program, &Program)) {
    let server = Server::start(python);
    let root = Authority::new();
    let (outbound, inbound) = sidecars(&root, programs, server.address);
    let output = script(python, "client.py")
        .arg(outbound.listener("plain").to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let expected: Vec<String> = CASES.iter().map(|case| format!("ok {case}")).collect();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        expected,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for proxy in [&outbound, &inbound] {
        eventually("the calls are counted", || {
            (proxy.stat("cluster.app.grpc.total") >= FINISHED_CALLS).then_some(())
        });
        assert!(proxy.stat("cluster.app.grpc.request_message_count") >= FINISHED_CALLS);
        assert_eq!(
            proxy.stat("cluster.app.grpc.2"),
            3,
            "UNKNOWN is what three calls asked for"
        );
        assert_eq!(
            proxy.stat("cluster.app.grpc.12"),
            2,
            "two were for what there is not"
        );
    }
    assert_eq!(
        outbound.stat("cluster.app.ssl.handshake"),
        1,
        "one connection carries them"
    );
}

#[test]
fn the_cases_pass_through_two_sidecars_of_ours() {
    if let Some(python) = python("the_cases_pass_through_two_sidecars_of_ours") {
        check(&python, (&Program::Lateen, &Program::Lateen));
    }
}

#[test]
fn the_cases_pass_through_two_envoys() {
    let test = "the_cases_pass_through_two_envoys";
    if let (Some(python), Some(envoy)) = (python(test), envoy(test)) {
        check(&python, (&envoy, &envoy));
    }
}

#[test]
fn the_cases_pass_through_ours_and_an_envoy_in_either_order() {
    let test = "the_cases_pass_through_ours_and_an_envoy_in_either_order";
    if let (Some(python), Some(envoy)) = (python(test), envoy(test)) {
        check(&python, (&Program::Lateen, &envoy));
        check(&python, (&envoy, &Program::Lateen));
    }
}
