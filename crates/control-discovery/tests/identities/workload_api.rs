//! The node agent over this control plane: SPIFFE's Workload API, spoken by a client of the generated types.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::authority::CertificateAuthority;
use agent::workload_api::{self, Reach, Workloads};
use api_spiffe::workload::spiffe_workload_api_client::SpiffeWorkloadApiClient;
use api_spiffe::workload::{
    JwtBundlesRequest, JwtsvidRequest, ValidateJwtsvidRequest, X509BundlesRequest, X509svid, X509svidRequest,
};
use base64::Engine as _;
use control_ca::{JWT_KEYS_SECRET, SELF_SIGNED_SECRET};
use control_snapshot::Kind;
use control_sources::secrets;
use control_sources::write::{self, ObjectRef};
use hyper_util::rt::TokioIo;
use identity::{Certificate, KeyKind, PrivateKey, ServiceAccount, Svid};
use net::peer::Peer;
use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::host::register;
use crate::mesh::{Mesh, within};

/// The node agent's socket in its folder.
const SOCKET: &str = "workload-api.sock";

/// The file of what was revoked, in the same folder.
const REVOCATIONS: &str = "ca-crl.pem";

const REVIEWS: &str = "spiffe://cluster.local/ns/shop/sa/reviews";

/// What the processes of this host are. Every caller of these tests is this one process.
#[derive(Clone, Default)]
struct Registered(Arc<Mutex<Vec<ServiceAccount>>>);

impl Registered {
    fn as_accounts(accounts: &[&str]) -> Self {
        let registered = Self::default();
        registered.set(accounts);
        registered
    }

    fn set(&self, accounts: &[&str]) {
        let account = |name: &&str| ServiceAccount {
            namespace: "shop".to_owned(),
            name: (*name).to_owned(),
        };
        *self.0.lock() = accounts.iter().map(account).collect();
    }
}

impl Workloads for Registered {
    fn of(&self, peer: &Peer) -> Vec<ServiceAccount> {
        assert_eq!(peer.pid, std::process::id());
        self.0.lock().clone()
    }
}

/// A node agent, gone when dropped.
struct Node {
    folder: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Node {
    fn start(mesh: &Mesh, lifetime: Duration, registered: &Registered) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let listener = workload_api::bind(&folder.path().join(SOCKET), Reach::User).expect("a socket");
        let settings = workload_api::Settings {
            authority: CertificateAuthority::Unix(mesh.host_socket()),
            key: KeyKind::default(),
            lifetime,
            revocations: Some(folder.path().join(REVOCATIONS)),
            status: None,
            clock: Arc::new(SystemTime::now),
        };
        let serving = workload_api::serve(listener, settings, registered.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { serving.await.expect("served") });
        Self {
            folder,
            _tasks: tasks,
        }
    }

    async fn client(&self) -> SpiffeWorkloadApiClient<Channel> {
        SpiffeWorkloadApiClient::new(connect(&self.folder.path().join(SOCKET)).await)
    }
}

async fn connect(path: &Path) -> Channel {
    let path = path.to_owned();
    let connector = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://node");
    within(endpoint.connect_with_connector(connector))
        .await
        .expect("connected")
}

/// A call with the metadata that every call must have.
fn call<T>(message: T) -> Request<T> {
    let mut call = Request::new(message);
    call.metadata_mut()
        .insert("workload.spiffe.io", "true".parse().expect("a value"));
    call
}

/// What an X.509 SVID of an answer holds, checked: the key is the certificate's.
fn checked(svid: &X509svid) -> Svid {
    let leaf = Certificate::from_der(&svid.x509_svid).expect("one certificate");
    let key = PrivateKey::from_der(&svid.x509_svid_key).expect("a key");
    let read = Svid::new(vec![leaf], key).expect("an SVID");
    assert_eq!(read.id().to_string(), svid.spiffe_id);
    read
}

fn token_for(audience: &[&str], spiffe_id: &str) -> Request<JwtsvidRequest> {
    call(JwtsvidRequest {
        audience: audience.iter().map(|name| (*name).to_owned()).collect(),
        spiffe_id: spiffe_id.to_owned(),
    })
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn a_workload_gets_its_certificate_and_the_roots() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let node = Node::start(&mesh, DAY, &Registered::as_accounts(&["reviews"]));
    let mut client = node.client().await;
    let mut stream = within(client.fetch_x509svid(call(X509svidRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let answer = within(stream.message()).await.expect("an answer").expect("one");
    let [svid] = answer.svids.as_slice() else {
        panic!("one SVID")
    };
    let svid = (checked(svid), svid.bundle.clone());
    assert_eq!(svid.0.id().to_string(), REVIEWS);
    let roots = mesh.authority().await.roots().to_vec();
    identity::path_to_root(svid.0.leaf(), &[], &roots, SystemTime::now()).expect("trusted");
    assert_eq!(&*svid.1, roots[0].der());
    let mut stream = within(client.fetch_x509_bundles(call(X509BundlesRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let answer = within(stream.message()).await.expect("an answer").expect("one");
    assert_eq!(&*answer.bundles["spiffe://cluster.local"], roots[0].der());
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn new_keys_of_tokens_are_pushed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let node = Node::start(&mesh, DAY, &Registered::as_accounts(&["reviews"]));
    let mut client = node.client().await;
    let mut stream = within(client.fetch_jwt_bundles(call(JwtBundlesRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let mut known = Vec::new();
    // The first answer may come before there are keys. Then there are some, and after the Secret is gone others.
    for round in 0..2 {
        let others = within(async {
            loop {
                let answer = stream.message().await.expect("an answer").expect("one");
                let set = &answer.bundles["spiffe://cluster.local"];
                let set: serde_json::Value = serde_json::from_slice(set).expect("JSON");
                let keys = set["keys"].as_array().expect("keys").clone();
                if !keys.is_empty() && keys != known {
                    return keys;
                }
            }
        })
        .await;
        assert_eq!(others.len(), 1, "round {round}");
        known = others;
        let keys = ObjectRef::new(Kind::Secret, "istio-system", JWT_KEYS_SECRET);
        write::delete(&mesh.client, &keys).await.expect("deleted");
    }
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn what_is_revoked_is_told_when_it_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let node = Node::start(&mesh, DAY, &Registered::as_accounts(&["reviews"]));
    let mut client = node.client().await;
    let mut bundles = within(client.fetch_x509_bundles(call(X509BundlesRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let first = within(bundles.message()).await.expect("an answer").expect("one");
    assert!(first.crl.is_empty());
    let list = include_str!("../../../control-ca/tests/data/corp-crl.pem");
    std::fs::write(node.folder.path().join(REVOCATIONS), list).expect("written");
    let second = within(bundles.message()).await.expect("an answer").expect("one");
    let [der] = second.crl.as_slice() else {
        panic!("one list")
    };
    let pem: String = list.lines().filter(|line| !line.starts_with("-----")).collect();
    assert_eq!(base64::engine::general_purpose::STANDARD.encode(der), pem);
    let mut svids = within(client.fetch_x509svid(call(X509svidRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let answer = within(svids.message()).await.expect("an answer").expect("one");
    assert_eq!(answer.crl, second.crl);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_call_without_the_metadata_or_by_no_workload_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let registered = Registered::as_accounts(&["reviews"]);
    let node = Node::start(&mesh, DAY, &registered);
    let mut client = node.client().await;
    let bare = client
        .fetch_x509svid(X509svidRequest {})
        .await
        .expect_err("refused");
    assert_eq!(bare.code(), Code::InvalidArgument);
    let mut other = Request::new(JwtBundlesRequest {});
    other
        .metadata_mut()
        .insert("workload.spiffe.io", "yes".parse().expect("a value"));
    let other = client.fetch_jwt_bundles(other).await.expect_err("refused");
    assert_eq!(other.code(), Code::InvalidArgument);
    registered.set(&[]);
    let codes = [
        client
            .fetch_x509svid(call(X509svidRequest {}))
            .await
            .expect_err("refused")
            .code(),
        client
            .fetch_x509_bundles(call(X509BundlesRequest {}))
            .await
            .expect_err("refused")
            .code(),
        client
            .fetch_jwtsvid(token_for(&["a"], ""))
            .await
            .expect_err("refused")
            .code(),
        client
            .fetch_jwt_bundles(call(JwtBundlesRequest {}))
            .await
            .expect_err("refused")
            .code(),
        client
            .validate_jwtsvid(call(ValidateJwtsvidRequest::default()))
            .await
            .expect_err("refused")
            .code(),
    ];
    assert_eq!(codes, [Code::PermissionDenied; 5]);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_workload_gets_tokens_of_its_own_identity_only_and_may_have_them_validated() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let node = Node::start(&mesh, DAY, &Registered::as_accounts(&["reviews"]));
    let mut client = node.client().await;
    let answer = within(client.fetch_jwtsvid(token_for(&["shop", "reports"], "")))
        .await
        .expect("a token")
        .into_inner();
    let [token] = answer.svids.as_slice() else {
        panic!("one token")
    };
    assert_eq!(token.spiffe_id, REVIEWS);
    let validate = |audience: &str, svid: &str| {
        let (audience, svid) = (audience.to_owned(), svid.to_owned());
        let mut client = client.clone();
        async move { within(client.validate_jwtsvid(call(ValidateJwtsvidRequest { audience, svid }))).await }
    };
    let valid = validate("reports", &token.svid)
        .await
        .expect("valid")
        .into_inner();
    assert_eq!(valid.spiffe_id, REVIEWS);
    let claims = api_envoy::wkt::json_struct(&valid.claims.expect("claims"));
    assert_eq!(claims["aud"], serde_json::json!(["shop", "reports"]));
    for (audience, svid) in [
        ("else", token.svid.as_str()),
        ("shop", "a.b.c"),
        ("", &token.svid),
    ] {
        let refused = validate(audience, svid).await.expect_err("refused");
        assert_eq!(refused.code(), Code::InvalidArgument, "{audience}");
    }
    let again = within(client.fetch_jwtsvid(token_for(&["shop", "reports"], REVIEWS)))
        .await
        .expect("a token");
    assert_eq!(
        again.into_inner().svids,
        answer.svids,
        "a fresh token is handed out again"
    );
    let other = "spiffe://cluster.local/ns/shop/sa/ratings";
    let refused = client
        .fetch_jwtsvid(token_for(&["shop"], other))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let refused = client
        .fetch_jwtsvid(token_for(&[], ""))
        .await
        .expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut stream = within(client.fetch_jwt_bundles(call(JwtBundlesRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let bundles = within(stream.message())
        .await
        .expect("an answer")
        .expect("one")
        .bundles;
    let set: serde_json::Value = serde_json::from_slice(&bundles["spiffe://cluster.local"]).expect("JSON");
    let header = jsonwebtoken::decode_header(&token.svid).expect("a header");
    assert_eq!(set["keys"][0]["kid"].as_str(), header.kid.as_deref());
    assert_eq!(set["keys"][0]["use"], "jwt-svid");
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn renewed_certificates_and_new_roots_are_pushed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let registered = Registered::as_accounts(&["reviews"]);
    let node = Node::start(&mesh, Duration::from_secs(6), &registered);
    let mut client = node.client().await;
    let mut stream = within(client.fetch_x509svid(call(X509svidRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let first = within(stream.message()).await.expect("an answer").expect("one");
    let second = within(stream.message()).await.expect("an answer").expect("one");
    let [old, new] = [&first, &second].map(|answer| checked(&answer.svids[0]));
    assert_ne!(old.leaf().serial(), new.leaf().serial());
    assert_ne!(
        old.key().public_key(),
        new.key().public_key(),
        "each certificate has a new key"
    );

    // A new root of the authority, as it is kept in its Secret.
    let renewed = mesh
        .authority()
        .await
        .rotated(DAY, SystemTime::now())
        .expect("a root");
    let data = renewed.to_self_signed_secret().expect("a Secret");
    let secret = secrets::read(&mesh.client, "istio-system", SELF_SIGNED_SECRET)
        .await
        .expect("read")
        .expect("there");
    secrets::replace(
        &mesh.client,
        "istio-system",
        SELF_SIGNED_SECRET,
        &data,
        &secret.version,
    )
    .await
    .expect("written");
    let both: usize = renewed.roots().iter().map(|root| root.der().len()).sum();
    within(async {
        loop {
            let answer = stream.message().await.expect("an answer").expect("one");
            if answer.svids[0].bundle.len() == both {
                return;
            }
        }
    })
    .await;

    registered.set(&[]);
    let ended = within(async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                ended => return ended,
            }
        }
    })
    .await;
    assert_eq!(
        ended.expect_err("the registration is gone").code(),
        Code::Unavailable
    );
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_certificate_stays_while_the_control_plane_is_away() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    register(&mesh).await;
    let node = Node::start(&mesh, DAY, &Registered::as_accounts(&["reviews"]));
    let mut client = node.client().await;
    let mut stream = within(client.fetch_x509svid(call(X509svidRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let first = within(stream.message()).await.expect("an answer").expect("one");
    let socket = mesh.host_socket();
    let (api, _client) = mesh.stop();
    assert!(!socket.exists(), "the control plane's socket is gone");
    let mut again = node.client().await;
    let mut stream = within(again.fetch_x509svid(call(X509svidRequest {})))
        .await
        .expect("a stream")
        .into_inner();
    let second = within(stream.message()).await.expect("an answer").expect("one");
    assert_eq!(first, second);
    api.shutdown().await;
}
