//! The socket on which an agent gives its workload's proxy what is the workload's.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use agent::metrics::Metrics;
use agent::secrets::{self, Secrets};
use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api_envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use api_envoy::type_url;
use hyper_util::rt::TokioIo;
use identity::Svid;
use tokio::net::UnixStream;
use tonic::transport::Endpoint;

use crate::log::Log;
use crate::mesh::{Mesh, node, within};
use crate::own_certificate;

/// What the socket answers to the first request for these names.
async fn ask(socket: std::path::PathBuf, names: &[&str]) -> DeltaDiscoveryResponse {
    let connector = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://sds");
    let channel = within(endpoint.connect_with_connector(connector))
        .await
        .expect("a connection");
    let request = DeltaDiscoveryRequest {
        node: Some(node("sidecar", "shop", "other")),
        type_url: type_url::SECRET.to_owned(),
        resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    let (requests, queue) = tokio::sync::mpsc::channel(1);
    requests.send(request).await.expect("sent");
    let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
    let mut client = SecretDiscoveryServiceClient::new(channel);
    let mut answers = within(client.delta_secrets(queue))
        .await
        .expect("a stream")
        .into_inner();
    within(answers.message())
        .await
        .expect("an answer")
        .expect("an answer")
}

#[tokio::test]
async fn the_socket_of_an_agent_has_nothing_of_others() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    let svid = Svid::from_pem(own.chain.as_bytes(), own.key.as_bytes()).expect("an SVID");
    let secrets = Secrets::new(Arc::new(Metrics::default()));
    secrets.set_certificate(&svid).expect("served");
    let socket = directory.path().join("sds.sock");
    let listener = secrets::bind(&socket).expect("a socket");
    tokio::spawn(secrets::serve(listener, secrets));

    // The kernel lets nobody connect but the agent's own user.
    let mode = std::fs::metadata(&socket).expect("a socket").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let theirs = [
        "kubernetes://theirs",
        "spiffe://cluster.local/ns/shop/sa/other",
        "../other/default",
    ];
    let answer = ask(socket.clone(), &theirs).await;
    let mut removed = answer.removed_resources;
    removed.sort();
    let mut expected = theirs.map(str::to_owned);
    expected.sort();
    assert_eq!((answer.resources.len(), &removed[..]), (0, &expected[..]));
    for name in theirs {
        log.must_say(&["the proxy asks for a secret that does not exist", name])
            .await;
    }
    // A file that is no certificate is not shown, whatever else it is; the answer is for what is there.
    let names = ["default", "file-root:/proc/self/environ"];
    let answer = ask(socket, &names).await;
    assert_eq!(answer.resources.len(), 1);
    assert_eq!(answer.resources[0].name, "default");
    log.must_say(&["a secret from files is refused", "/proc/self/environ"])
        .await;
    mesh.stop().0.shutdown().await;
}
