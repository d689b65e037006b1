//! The socket of SPIFFE's Workload API, which all workloads of a host share: each gets its own identity there, and who
//! calls is what the kernel says.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::authority::CertificateAuthority;
use agent::workload_api::{self, Reach, Settings, Workloads};
use api_spiffe::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use api_spiffe::workload::{JwtsvidRequest, X509svidRequest};
use control_sources::apply;
use hyper_util::rt::TokioIo;
use identity::{KeyKind, ServiceAccount};
use net::peer::Peer;
use serde_json::json;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::OWN;
use crate::log::Log;
use crate::mesh::{Mesh, eventually, within};

/// This process, and no other, is of these accounts.
struct ThisProcess(Vec<ServiceAccount>);

impl Workloads for ThisProcess {
    fn of(&self, peer: &Peer) -> Vec<ServiceAccount> {
        match peer.pid == std::process::id() {
            true => self.0.clone(),
            false => Vec::new(),
        }
    }
}

/// Two workloads that this host may have, of which the caller is one.
async fn register(mesh: &Mesh) {
    let group = |account: &str| {
        json!({
            "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
            "metadata": {"name": account, "namespace": "shop"},
            "spec": {"template": {"serviceAccount": account}},
        })
    };
    let groups = [group("reviews"), group("other")];
    apply(&mesh.client, &groups).await.expect("stored");
    eventually("the groups in the world", || async {
        let known = |objects: &control_snapshot::Objects| objects.workload_accounts().count();
        (mesh.discovery.world().read(known) >= 3).then_some(())
    })
    .await;
}

async fn client(mesh: &Mesh, folder: &Path, accounts: &[&str]) -> SpiffeWorkloadApiClient<Channel> {
    let socket = folder.join("node.sock");
    let listener = workload_api::bind(&socket, Reach::User).expect("a socket");
    let settings = Settings {
        authority: CertificateAuthority::Unix(mesh.host_socket()),
        key: KeyKind::default(),
        lifetime: Duration::from_secs(3600),
        clock: Arc::new(SystemTime::now),
    };
    let account = |name: &&str| ServiceAccount {
        namespace: "shop".to_owned(),
        name: (*name).to_owned(),
    };
    let workloads = ThisProcess(accounts.iter().map(account).collect());
    tokio::spawn(workload_api::serve(listener, settings, workloads));
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://node");
    let channel = within(endpoint.connect_with_connector(connector)).await;
    SpiffeWorkloadApiClient::new(channel.expect("a connection"))
}

fn call<T>(message: T) -> Request<T> {
    let mut call = Request::new(message);
    call.metadata_mut()
        .insert("workload.spiffe.io", "true".parse().expect("a value"));
    call
}

#[tokio::test]
async fn the_node_socket_gives_a_workload_its_own_identity_and_no_token_of_another() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let mut client = client(&mesh, directory.path(), &["reviews"]).await;
    let stream = within(client.fetch_x509svid(call(X509svidRequest {}))).await;
    let answer = within(stream.expect("a stream").get_mut().message()).await;
    let svids = answer.expect("an answer").expect("one").svids;
    let ids: Vec<&str> = svids.iter().map(|svid| svid.spiffe_id.as_str()).collect();
    assert_eq!(ids, [OWN]);
    // The host may have the other's identity, but not for this process.
    let victim = "spiffe://cluster.local/ns/shop/sa/other";
    let asked = JwtsvidRequest {
        audience: vec!["shop".to_owned()],
        spiffe_id: victim.to_owned(),
    };
    let refused = within(client.fetch_jwtsvid(call(asked)))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    log.must_say(&["a workload asks for a token of another", victim])
        .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn the_node_socket_gives_nothing_to_a_process_that_is_no_workload() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let mut client = client(&mesh, directory.path(), &[]).await;
    let refused = within(client.fetch_x509svid(call(X509svidRequest {}))).await;
    assert_eq!(refused.expect_err("refused").code(), Code::PermissionDenied);
    let process = format!("pid={}", std::process::id());
    log.must_say(&["a process that is no workload asks for an identity", &process])
        .await;
    mesh.stop().0.shutdown().await;
}
