//! A real Envoy with an agent's bootstrap: its configuration comes over mutual TLS, with the certificate that the agent
//! got and serves. `LATEEN_ENVOY` names its program; without it this does not run and says so, and fails in CI, where
//! nothing may be skipped in silence.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::SystemTime;

use agent::bootstrap::{ADMIN_PORT, Identity, bootstrap};
use agent::certificates::authority::CertificateAuthority;
use agent::certificates::{self, Keeper, Settings};
use agent::certificates::{revocations::Revocations, roots};
use agent::secrets::{self, Secrets};
use agent::{Spec, Xds};
use identity::ServiceAccount;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::host::register;
use crate::mesh::{Mesh, eventually};

/// An address of its own for Envoy's administration, whose port is fixed.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 66, 252, 9);

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
    log: PathBuf,
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Envoy {
    fn start(program: &Path, folder: &Path, bootstrap: &str) -> Self {
        let (file, log) = (folder.join("bootstrap.json"), folder.join("envoy.log"));
        std::fs::write(&file, bootstrap).expect("written");
        let output = std::fs::File::create(&log).expect("a log");
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(file)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .stdin(Stdio::null())
            .stdout(output.try_clone().expect("a log"))
            .stderr(output);
        net::process::die_with_parent(&mut command, rustix::process::Signal::KILL);
        Self {
            child: command.spawn().expect("Envoy starts"),
            log,
        }
    }

    async fn admin(path: &str) -> Option<String> {
        let mut stream = TcpStream::connect((ADDRESS, ADMIN_PORT)).await.ok()?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    }

    async fn is_ready() -> Option<()> {
        let answer = Self::admin("/ready").await?;
        answer.starts_with("HTTP/1.1 200").then_some(())
    }
}

/// The agent's part for one workload: its certificate from the host's socket, and its secrets.
fn agent(mesh: &Mesh, account: &str, socket: &Path) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let (roots, following) = roots::of_file(mesh.folder.path().join("root-cert.pem"));
    tasks.spawn(following);
    let settings = Settings::new(ServiceAccount {
        namespace: "shop".to_owned(),
        name: account.to_owned(),
    });
    let authority = CertificateAuthority::Unix(mesh.host_socket());
    let clock = Arc::new(SystemTime::now);
    let (keeper, state) = Keeper::new(
        authority,
        settings,
        clock,
        Box::new(|| 0.5),
        Arc::default(),
        roots.clone(),
    );
    let secrets = Secrets::new(Arc::default());
    let listener = secrets::bind(socket).expect("a socket");
    tasks.spawn(keeper.run());
    tasks.spawn(certificates::serve(
        state,
        roots,
        Revocations::none(),
        secrets.clone(),
    ));
    tasks.spawn(async move { secrets::serve(listener, secrets).await.expect("a server") });
    tasks
}

#[tokio::test]
async fn an_envoy_gets_its_configuration_over_mutual_tls() {
    let Some(program) = program("an_envoy_gets_its_configuration_over_mutual_tls") else {
        return;
    };
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let socket = directory.path().join("sds.sock");
    let _agent = agent(&mesh, "reviews", &socket);
    let mut spec = Spec::sidecar("shop", "reviews", "v1", vec![9080]);
    spec.service_account = "reviews".to_owned();
    let node = Identity::new(&spec, ADDRESS, None);
    let xds = Xds {
        address: mesh.secure,
        server_name: "istiod.istio-system.svc".to_owned(),
    };
    let json = bootstrap(&node, ADDRESS, &xds, &socket).to_string();
    assert!(!json.contains("PRIVATE"));
    let envoy = Envoy::start(&program, directory.path(), &json);
    eventually("Envoy's configuration", Envoy::is_ready).await;
    let connection = mesh.discovery.connections().find("reviews-v1.shop");
    let account = connection.and_then(|connection| connection.account.clone());
    assert_eq!(account.expect("a proven account").to_string(), "shop/reviews");
    let stats = Envoy::admin("/stats?filter=xds-grpc.ssl")
        .await
        .expect("statistics");
    assert!(stats.contains("cluster.xds-grpc.ssl.handshake: 1"), "{stats}");
    let log = std::fs::read_to_string(&envoy.log).expect("a log");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
    drop(envoy);
    // A control plane of another name is not believed.
    let other = Xds {
        address: mesh.secure,
        server_name: "istiod.elsewhere.svc".to_owned(),
    };
    let json = bootstrap(&node, ADDRESS, &other, &socket).to_string();
    let _envoy = Envoy::start(&program, directory.path(), &json);
    let refused = || async {
        let stats = Envoy::admin("/stats?filter=xds-grpc.ssl.fail_verify_san").await?;
        let count = stats
            .lines()
            .find_map(|line| line.strip_prefix("cluster.xds-grpc.ssl.fail_verify_san: "))?;
        (count != "0").then_some(())
    };
    eventually("the refusal", refused).await;
    assert_eq!(Envoy::is_ready().await, None);
    mesh.stop().0.shutdown().await;
}
