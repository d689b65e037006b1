//! The SDS server, asked as Envoy asks it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::{self, State, revocations, roots};
use agent::limits::{MAX_FILE_SECRETS, ROOTS_POLL_INTERVAL};
use agent::metrics::Metrics;
use agent::secrets::{self, CERTIFICATE, ROOTS, Secrets};
use api_envoy::any::unpack;
use api_envoy::envoy::config::core::v3::data_source::Specifier;
use api_envoy::envoy::config::core::v3::{DataSource, Node};
use api_envoy::envoy::extensions::transport_sockets::tls::v3::{Secret, secret::Type};
use api_envoy::envoy::service::discovery::v3 as ads;
use api_envoy::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use api_envoy::google::rpc::Status;
use api_envoy::{Any, type_url};
use control_ca::Authority;
use hyper_util::rt::TokioIo;
use identity::{CertificateRequest, KeyKind, PrivateKey, SubjectName, Svid, request_certificate};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::support::{REVIEWS, signer, within, write_pair};

/// A server in a folder of its own.
struct Server {
    folder: tempfile::TempDir,
    secrets: Secrets,
    metrics: Arc<Metrics>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let metrics = Arc::<Metrics>::default();
        let secrets = Secrets::new(Arc::clone(&metrics));
        let listener = secrets::bind(&folder.path().join("sds.sock")).expect("a socket");
        let serving = secrets::serve(listener, secrets.clone());
        let task = tokio::spawn(async move { serving.await.expect("a server") });
        Self {
            folder,
            secrets,
            metrics,
            task,
        }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    async fn channel(&self) -> Channel {
        let socket = self.path().join("sds.sock");
        let connector = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://sds");
        within(endpoint.connect_with_connector(connector))
            .await
            .expect("a connection")
    }

    async fn delta(&self) -> Delta {
        let (requests, queue) = mpsc::channel(8);
        let mut client = SecretDiscoveryServiceClient::new(self.channel().await);
        let answers = within(client.delta_secrets(ReceiverStream::new(queue)))
            .await
            .expect("a stream");
        Delta {
            requests,
            answers: answers.into_inner(),
        }
    }
}

/// A delta stream.
struct Delta {
    requests: mpsc::Sender<ads::DeltaDiscoveryRequest>,
    answers: tonic::Streaming<ads::DeltaDiscoveryResponse>,
}

fn node() -> Option<Node> {
    Some(Node {
        id: "sidecar~127.66.0.9~reviews.default~default.svc.cluster.local".to_owned(),
        ..Node::default()
    })
}

impl Delta {
    async fn ask(&self, names: &[&str]) {
        let request = ads::DeltaDiscoveryRequest {
            node: node(),
            type_url: type_url::SECRET.to_owned(),
            resource_names_subscribe: names.iter().map(|name| (*name).to_owned()).collect(),
            ..ads::DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.expect("sent");
    }

    async fn answer(&self, nonce: &str, error: Option<&str>) {
        let request = ads::DeltaDiscoveryRequest {
            type_url: type_url::SECRET.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail: error.map(|message| Status {
                message: message.to_owned(),
                ..Status::default()
            }),
            ..ads::DeltaDiscoveryRequest::default()
        };
        self.requests.send(request).await.expect("sent");
    }

    /// The next response, which is accepted.
    async fn next(&mut self) -> ads::DeltaDiscoveryResponse {
        let response = within(self.answers.message())
            .await
            .expect("a stream")
            .expect("a response");
        self.answer(&response.nonce, None).await;
        response
    }

    async fn is_silent(&mut self) -> bool {
        let next = self.answers.message();
        tokio::time::timeout(Duration::from_millis(200), next)
            .await
            .is_err()
    }
}

/// The secrets of a delta response.
fn secrets_of(response: &ads::DeltaDiscoveryResponse) -> Vec<Secret> {
    let bodies = response
        .resources
        .iter()
        .filter_map(|resource| resource.resource.as_ref());
    bodies.map(secret).collect()
}

fn secret(body: &Any) -> Secret {
    unpack(body).expect("a Secret")
}

fn text(source: Option<&DataSource>) -> String {
    match source.and_then(|source| source.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).expect("PEM"),
        other => panic!("{other:?} is not inline"),
    }
}

fn pair(secret: &Secret) -> (String, String) {
    let Some(Type::TlsCertificate(certificate)) = &secret.r#type else {
        panic!("{} is no certificate", secret.name)
    };
    (
        text(certificate.certificate_chain.as_ref()),
        text(certificate.private_key.as_ref()),
    )
}

fn roots(secret: &Secret) -> String {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("{} is no validation context", secret.name)
    };
    text(context.trusted_ca.as_ref())
}

pub(crate) fn svid(signer: &Authority, identity: &str) -> Svid {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let csr = request_certificate(&key, &[]).expect("a request");
    let csr = CertificateRequest::from_pem(csr.as_bytes()).expect("our request");
    let names = [SubjectName::Uri(identity.to_owned())];
    let hour = Duration::from_secs(3600);
    let issued = signer.sign(&csr, &names, hour, SystemTime::now());
    let leaf = issued.expect("a certificate").leaf().expect("a leaf");
    Svid::new(vec![leaf], key).expect("an SVID")
}

#[tokio::test]
async fn the_socket_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start();
    let socket = std::fs::metadata(server.path().join("sds.sock")).expect("a socket");
    assert_eq!(socket.permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn secrets_are_sent_when_they_are_there_and_when_they_change() {
    let server = Server::start();
    let mut stream = server.delta().await;
    stream.ask(&[CERTIFICATE]).await;
    assert!(stream.is_silent().await, "there is nothing to send yet");
    let signer = signer(SystemTime::now());
    let first = svid(&signer, REVIEWS);
    server.secrets.set_certificate(&first).expect("a key");
    let sent = secrets_of(&stream.next().await);
    assert_eq!(sent.len(), 1);
    let key = first.key().to_pem().expect("PEM");
    assert_eq!(pair(&sent[0]), (first.chain_pem(), key.to_string()));
    server.secrets.set_roots(signer.roots(), "");
    assert!(stream.is_silent().await, "nobody has asked for the roots");
    stream.ask(&[ROOTS]).await;
    let sent = secrets_of(&stream.next().await);
    assert_eq!((sent.len(), sent[0].name.as_str()), (1, ROOTS));
    assert_eq!(roots(&sent[0]), signer.roots_pem());
    server.secrets.set_certificate(&first).expect("a key");
    assert!(stream.is_silent().await, "the same again is no news");
    let second = svid(&signer, REVIEWS);
    server.secrets.set_certificate(&second).expect("a key");
    let sent = secrets_of(&stream.next().await);
    assert_eq!((sent.len(), pair(&sent[0]).0), (1, second.chain_pem()));
}

#[tokio::test]
async fn state_of_the_world_is_spoken_as_well() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    server.secrets.set_roots(signer.roots(), "");
    let (requests, queue) = mpsc::channel(8);
    let mut client = SecretDiscoveryServiceClient::new(server.channel().await);
    let request = |nonce: &str, version: &str| ads::DiscoveryRequest {
        node: node(),
        type_url: type_url::SECRET.to_owned(),
        resource_names: vec![ROOTS.to_owned()],
        response_nonce: nonce.to_owned(),
        version_info: version.to_owned(),
        ..ads::DiscoveryRequest::default()
    };
    requests.send(request("", "")).await.expect("sent");
    let answers = within(client.stream_secrets(ReceiverStream::new(queue))).await;
    let mut answers = answers.expect("a stream").into_inner();
    let first = within(answers.message())
        .await
        .expect("a stream")
        .expect("a response");
    assert_eq!(roots(&secret(&first.resources[0])), signer.roots_pem());
    let accepted = request(&first.nonce, &first.version_info);
    requests.send(accepted).await.expect("sent");
    let other = crate::support::signer(SystemTime::now());
    server.secrets.set_roots(other.roots(), "");
    let second = within(answers.message())
        .await
        .expect("a stream")
        .expect("a response");
    assert_eq!(roots(&secret(&second.resources[0])), other.roots_pem());
    assert_ne!(first.nonce, second.nonce);
}

#[tokio::test]
async fn a_secret_that_does_not_exist_is_removed_and_another_type_is_refused() {
    let server = Server::start();
    let mut stream = server.delta().await;
    stream.ask(&["kubernetes://other", "file-cert:/half"]).await;
    let response = stream.next().await;
    assert_eq!(
        response.removed_resources,
        ["file-cert:/half", "kubernetes://other"]
    );
    assert!(response.resources.is_empty());
    let request = ads::DeltaDiscoveryRequest {
        node: node(),
        type_url: type_url::CLUSTER.to_owned(),
        ..ads::DeltaDiscoveryRequest::default()
    };
    stream.requests.send(request).await.expect("sent");
    let refused = within(stream.answers.message()).await.expect_err("a refusal");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn what_a_proxy_has_refused_is_not_sent_again_and_the_next_is() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    let mut stream = server.delta().await;
    stream.ask(&[ROOTS]).await;
    server.secrets.set_roots(signer.roots(), "");
    let response = within(stream.answers.message())
        .await
        .expect("a stream")
        .expect("a response");
    stream.answer(&response.nonce, Some("I do not like it")).await;
    assert!(stream.is_silent().await);
    let other = crate::support::signer(SystemTime::now());
    server.secrets.set_roots(other.roots(), "");
    assert_eq!(roots(&secrets_of(&stream.next().await)[0]), other.roots_pem());
}

#[tokio::test]
async fn certificates_and_roots_from_files_are_watched_and_what_is_broken_is_not_taken() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    let (chain, key) = write_pair(server.path(), "client", &signer, REVIEWS);
    let root = server.path().join("root.pem");
    std::fs::write(&root, signer.roots_pem()).expect("written");
    let (certificate, authorities) = (
        format!("file-cert:{chain}~{key}"),
        format!("file-root:{}", root.display()),
    );
    let mut stream = server.delta().await;
    stream.ask(&[&certificate, &authorities]).await;
    let sent = secrets_of(&stream.next().await);
    let read = |path: &str| std::fs::read_to_string(path).expect("readable");
    assert_eq!(pair(&sent[0]), (read(&chain), read(&key)));
    assert_eq!(roots(&sent[1]), signer.roots_pem());
    // A key that is not the certificate's: half of a renewal, or a mistake.
    let good_key = read(&key);
    let (_, other_key) = write_pair(server.path(), "other", &signer, REVIEWS);
    std::fs::write(&key, read(&other_key)).expect("written");
    let broken = tokio::time::timeout(Duration::from_millis(2500), stream.answers.message()).await;
    assert!(broken.is_err(), "a broken pair is not sent: {broken:?}");
    let printed = server.metrics.print(&[], SystemTime::now());
    assert!(printed.contains("num_file_secret_failures_total 1"), "{printed}");
    std::fs::write(&key, good_key).expect("written");
    let (new_chain, new_key) = write_pair(server.path(), "client", &signer, REVIEWS);
    let sent = secrets_of(&stream.next().await);
    assert_eq!(pair(&sent[0]), (read(&new_chain), read(&new_key)));
}

#[tokio::test]
async fn files_that_no_stream_wants_any_more_take_no_place() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    let root = server.path().join("root.pem");
    std::fs::write(&root, signer.roots_pem()).expect("written");
    let wanted = format!("file-root:{}", root.display());
    let others: Vec<String> = (0..MAX_FILE_SECRETS)
        .map(|number| format!("file-root:/nowhere/{number}"))
        .collect();
    let others: Vec<&str> = others.iter().map(String::as_str).collect();
    let mut stream = server.delta().await;
    stream.ask(&others).await;
    stream.ask(&[&wanted]).await;
    let removed = stream.next().await.removed_resources;
    assert_eq!(removed, std::slice::from_ref(&wanted), "too many");
    let request = ads::DeltaDiscoveryRequest {
        type_url: type_url::SECRET.to_owned(),
        resource_names_unsubscribe: vec![others[0].to_owned(), wanted.clone()],
        ..ads::DeltaDiscoveryRequest::default()
    };
    stream.requests.send(request).await.expect("sent");
    stream.ask(&[&wanted]).await;
    assert_eq!(roots(&secrets_of(&stream.next().await)[0]), signer.roots_pem());
    // A stream that ends wants nothing any more.
    drop(stream);
    let all_again = async {
        loop {
            let mut stream = server.delta().await;
            stream.ask(&others[1..]).await;
            stream.ask(&[others[0]]).await;
            if stream.is_silent().await {
                return;
            }
        }
    };
    within(all_again).await;
}

/// By openssl, of the authority that the tests plug in.
const REVOCATIONS: &str = include_str!("../data/corp-crl.pem");

#[tokio::test]
async fn what_is_revoked_comes_from_a_file_with_the_roots_and_what_is_cut_is_not_taken() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    let (roots_file, lists_file) = (
        server.path().join("root-cert.pem"),
        server.path().join("ca-crl.pem"),
    );
    std::fs::write(&roots_file, signer.roots_pem()).expect("written");
    let (trusted, following_roots) = roots::of_file(roots_file);
    let (revoked, following_lists) = revocations::of_file(lists_file.clone());
    let (_keeper, state) = watch::channel(State::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(following_roots);
    tasks.spawn(following_lists);
    tasks.spawn(certificates::serve(
        state,
        trusted,
        revoked,
        server.secrets.clone(),
    ));
    let mut stream = server.delta().await;
    stream.ask(&[ROOTS]).await;
    let sent = stream.next().await;
    assert_eq!(lists(&secrets_of(&sent)[0]), None, "there is no file");
    std::fs::write(&lists_file, REVOCATIONS).expect("written");
    let sent = stream.next().await;
    assert_eq!(lists(&secrets_of(&sent)[0]).as_deref(), Some(REVOCATIONS));
    std::fs::write(&lists_file, &REVOCATIONS[..REVOCATIONS.len() / 2]).expect("written");
    tokio::time::sleep(ROOTS_POLL_INTERVAL * 2).await;
    assert!(stream.is_silent().await, "half a list is not taken");
    std::fs::write(&lists_file, "").expect("written");
    let sent = stream.next().await;
    assert_eq!(lists(&secrets_of(&sent)[0]), None, "nothing is revoked any more");
}

#[tokio::test]
async fn as_long_as_it_is_not_known_what_is_revoked_nobody_is_trusted() {
    let server = Server::start();
    let signer = signer(SystemTime::now());
    let lists_file = server.path().join("ca-crl.pem");
    std::fs::write(&lists_file, &REVOCATIONS[..REVOCATIONS.len() / 2]).expect("written");
    let (revoked, following) = revocations::of_file(lists_file.clone());
    let (sender, trusted) = watch::channel(None);
    let (_keeper, state) = watch::channel(State::default());
    let mut tasks = JoinSet::new();
    tasks.spawn(following);
    let trusted = roots::Roots::of(trusted);
    tasks.spawn(certificates::serve(
        state,
        trusted,
        revoked,
        server.secrets.clone(),
    ));
    sender.send_replace(Some(signer.roots().to_vec()));
    let mut stream = server.delta().await;
    stream.ask(&[ROOTS]).await;
    assert!(stream.is_silent().await, "half a list is not no list");
    std::fs::write(&lists_file, REVOCATIONS).expect("written");
    let sent = stream.next().await;
    assert_eq!(lists(&secrets_of(&sent)[0]).as_deref(), Some(REVOCATIONS));
}

/// The revocation lists of a secret.
fn lists(secret: &Secret) -> Option<String> {
    let Some(Type::ValidationContext(context)) = &secret.r#type else {
        panic!("{} is no validation context", secret.name)
    };
    context.crl.as_ref().map(|lists| text(Some(lists)))
}
