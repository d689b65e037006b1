//! A real Envoy with the agent's secrets. `LATEEN_ENVOY` names its program; without it this does not run and says so,
//! and fails in CI, where nothing may be skipped in silence.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::bootstrap::secret;
use agent::secrets::{self, CERTIFICATE, ROOTS, Secrets};
use control_ca::Authority;
use identity::Svid;
use serde_json::{Value, json};
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, Secret, TlsCertificate, UpstreamTlsContext,
};
use tls::{ClientContext, ClientStream, ConnectOptions};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::sds::svid;
use crate::support::{PATIENCE, REVIEWS, signer, within};

const RATINGS: &str = "spiffe://cluster.local/ns/default/sa/ratings";

#[allow(clippy::print_stderr, reason = "what did not run must be seen")]
fn program(test: &str) -> Option<PathBuf> {
    let path = std::env::var_os("LATEEN_ENVOY").map(PathBuf::from);
    let path = path.filter(|path| path.is_file());
    if path.is_none() {
        let message = format!("NOT RUN {test}: LATEEN_ENVOY names no program");
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
    }
    path
}

/// A running Envoy, killed when dropped.
struct Envoy {
    child: Child,
    folder: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn start(program: &Path, folder: &Path, api_type: &str) -> Self {
        let bootstrap = folder.join("bootstrap.json");
        std::fs::write(&bootstrap, self::bootstrap(folder, api_type).to_string()).expect("written");
        let log = std::fs::File::create(folder.join("envoy.log")).expect("a log");
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(bootstrap)
            .arg("--admin-address-path")
            .arg(folder.join("admin"))
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "info",
            ])
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log);
        net::process::die_with_parent(&mut command, rustix::process::Signal::KILL);
        Self {
            child: command.spawn().expect("Envoy starts"),
            folder: folder.to_owned(),
        }
    }

    /// Asks its administration; `None` while it does not answer.
    async fn admin(&self, path: &str) -> Option<String> {
        let address = std::fs::read_to_string(self.folder.join("admin")).ok()?;
        let mut stream = TcpStream::connect(address.trim()).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.ok()?;
        Some(answer)
    }

    /// The address of its listener, once it listens: when its secrets have come.
    async fn listener(&self) -> Option<String> {
        let answer = self.admin("/listeners").await?;
        let line = answer.lines().find_map(|line| line.strip_prefix("web::"));
        line.map(str::to_owned)
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default()
    }
}

/// One listener with mutual TLS, which answers 200 itself.
fn bootstrap(folder: &Path, api_type: &str) -> Value {
    let asked = |name: &str| {
        let mut secret = secret(name);
        secret["sds_config"]["api_config_source"]["api_type"] = api_type.into();
        secret
    };
    let any_port = json!({"socket_address": {"address": "127.0.0.1", "port_value": 0}});
    let route = json!({"match": {"prefix": "/"}, "direct_response": {"status": 200}});
    let http = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
        }],
    });
    let tls = json!({
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        "require_client_certificate": true,
        "common_tls_context": {
            "tls_certificate_sds_secret_configs": [asked(CERTIFICATE)],
            "validation_context_sds_secret_config": asked(ROOTS),
        },
    });
    json!({
        "node": {"id": "sidecar~127.66.0.9~reviews.default~default.svc.cluster.local", "cluster": "reviews.default"},
        "admin": {"address": any_port},
        "static_resources": {
            "clusters": [{
                "name": "sds-grpc", "type": "STATIC", "connect_timeout": "1s",
                "load_assignment": {"cluster_name": "sds-grpc", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": {"pipe": {"path": folder.join("sds.sock")}}}},
                ]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http2_protocol_options": {}},
                }},
            }],
            "listeners": [{
                "name": "web", "address": any_port,
                "filter_chains": [{
                    "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": http}],
                    "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                }],
            }],
        },
    })
}

type Connection = ClientStream<TcpStream>;

/// Connects with a certificate; the connection, and the serial number of the server's.
async fn connect(address: &str, own: &Svid, trusted: &Authority) -> Result<(Connection, String), String> {
    let key = own.key().to_pem().expect("PEM");
    let settings = UpstreamTlsContext {
        common: CommonTlsContext {
            tls_certificates: vec![TlsCertificate {
                certificate_chain: own.chain_pem().into_bytes(),
                private_key: Secret::new(key.as_bytes()),
            }],
            validation_context: Some(CertificateValidationContext {
                trusted_ca: Some(trusted.roots_pem().into_bytes()),
                ..CertificateValidationContext::default()
            }),
            ..CommonTlsContext::default()
        },
        ..UpstreamTlsContext::default()
    };
    let context = ClientContext::new(&settings, SystemTime::now()).expect("a context");
    let stream = TcpStream::connect(address)
        .await
        .map_err(|error| error.to_string())?;
    let connected = within(context.connect(stream, ConnectOptions::default())).await;
    let (stream, info) = connected.map_err(|error| error.to_string())?;
    let der = info.peer.as_ref().and_then(|peer| peer.chain().first());
    let leaf = identity::Certificate::from_der(der.expect("a certificate")).expect("a certificate");
    Ok((stream, leaf.serial().to_owned()))
}

async fn get(stream: &mut Connection) -> Result<String, String> {
    let request = b"GET / HTTP/1.1\r\nhost: web\r\n\r\n";
    let mut answer = vec![0; 4096];
    stream
        .write_all(request)
        .await
        .map_err(|error| error.to_string())?;
    let length = within(stream.read(&mut answer))
        .await
        .map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}

/// Asks again until `check` is content.
async fn eventually<T, F: Future<Output = Option<T>>>(
    envoy: &Envoy,
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            Instant::now() < deadline,
            "{what} did not happen:\n{}",
            envoy.log()
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The address once the listener shows this certificate.
async fn shows(envoy: &Envoy, address: &str, wanted: &Svid, own: &Svid, trusted: &Authority) -> Connection {
    eventually(envoy, "the new certificate", || async {
        let (stream, serial) = connect(address, own, trusted).await.ok()?;
        (serial == wanted.leaf().serial()).then_some(stream)
    })
    .await
}

async fn check_rotation(program: &Path, api_type: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let secrets = Secrets::new(Arc::default());
    let listener = secrets::bind(&folder.path().join("sds.sock")).expect("a socket");
    let serving = tokio::spawn(secrets::serve(listener, secrets.clone()));
    let envoy = Envoy::start(program, folder.path(), api_type);
    eventually(&envoy, "the administration", || envoy.admin("/listeners")).await;
    let ready = envoy.admin("/ready").await.expect("an answer");
    assert!(
        ready.starts_with("HTTP/1.1 503"),
        "nothing is served without secrets: {ready}"
    );
    let old = signer(SystemTime::now());
    let (client, first, second) = (svid(&old, RATINGS), svid(&old, REVIEWS), svid(&old, REVIEWS));
    secrets.set_roots(old.roots(), "");
    secrets.set_certificate(&first).expect("a key");
    let address = eventually(&envoy, "the listener", || envoy.listener()).await;
    let mut open = shows(&envoy, &address, &first, &client, &old).await;
    assert!(
        get(&mut open)
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 200")
    );
    secrets.set_certificate(&second).expect("a key");
    shows(&envoy, &address, &second, &client, &old).await;
    let still = get(&mut open).await.expect("open connections go on");
    assert!(still.starts_with("HTTP/1.1 200"), "{still}");
    // Another authority: its clients are served from now on, and those of the old one no longer.
    let new = signer(SystemTime::now());
    let (third, newcomer) = (svid(&new, REVIEWS), svid(&new, RATINGS));
    secrets.set_roots(new.roots(), "");
    secrets.set_certificate(&third).expect("a key");
    let mut open = shows(&envoy, &address, &third, &newcomer, &new).await;
    assert!(
        get(&mut open)
            .await
            .expect("an answer")
            .starts_with("HTTP/1.1 200")
    );
    let refused = eventually(&envoy, "the refusal of the old authority's client", || async {
        match connect(&address, &client, &new).await {
            Err(reason) => Some(reason),
            // In TLS 1.3 the refusal comes after the client's handshake.
            Ok((mut stream, _)) => get(&mut stream)
                .await
                .map_or_else(Some, |answer| answer.is_empty().then_some(answer)),
        }
    });
    refused.await;
    assert!(!envoy.log().contains("PRIVATE KEY"));
    serving.abort();
}

#[tokio::test]
async fn an_envoy_takes_our_secrets_and_every_rotation_of_them() {
    let Some(program) = program("an_envoy_takes_our_secrets_and_every_rotation_of_them") else {
        return;
    };
    for api_type in ["GRPC", "DELTA_GRPC"] {
        check_rotation(&program, api_type).await;
    }
}
