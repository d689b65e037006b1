//! Secrets for gateways.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use api_envoy::any::unpack;
use api_envoy::envoy::config::core::v3::data_source::Specifier;
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as tls;
use api_envoy::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use api_envoy::type_url;
use axum::body::Body;
use axum::http::{Request, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_apiserver::{ApiService, Body as ApiBody};
use control_snapshot::{Holder, Kind, Objects};
use control_sources::write::{self, ObjectRef};
use control_sources::{apply, client};
use identity::SubjectName;
use serde_json::json;

use crate::mesh::{AdsStream, Mesh, STABLE, Shown, api_server, eventually, foreign_authority, node, secret};

/// A certificate for a host of the outside world.
fn host() -> Shown {
    Shown::signed(
        &foreign_authority(),
        &[SubjectName::Dns("shop.example".to_owned())],
        SystemTime::now(),
    )
}

async fn gateway(mesh: &Mesh) -> AdsStream {
    let token = mesh.token("istio-system", "gateway", "istio-ca").await;
    mesh.stream(None, Some(&token)).await.expect("a connection")
}

/// Stores a Secret, and waits until the world has it.
async fn store(mesh: &Mesh, name: &str, entries: &[(&str, &str)]) {
    let object = secret("istio-system", name, "Opaque", entries);
    apply(&mesh.client, &[object]).await.expect("stored");
}

async fn known(mesh: &Mesh, namespace: &str, name: &str) {
    eventually("the Secret in the world", || async {
        let publication = mesh.discovery.world().current()?;
        publication
            .snapshot
            .credential(Holder::Secret, namespace, name)
            .map(drop)
    })
    .await;
}

/// The key in the first resource of an answer.
fn key_of(answer: &DeltaDiscoveryResponse) -> String {
    let resource = answer
        .resources
        .first()
        .and_then(|r| r.resource.as_ref())
        .expect("a resource");
    let secret = unpack::<tls::Secret>(resource).expect("a Secret");
    let Some(tls::secret::Type::TlsCertificate(certificate)) = secret.r#type else {
        panic!("{} is no certificate", secret.name)
    };
    match certificate.private_key.and_then(|key| key.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).expect("PEM"),
        _ => panic!("no key"),
    }
}

#[tokio::test]
async fn a_gateway_follows_its_secrets_and_no_page_shows_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let (first, second) = (host(), host());
    store(
        &mesh,
        "shop-cert",
        &[("tls.crt", &first.chain), ("tls.key", &first.key)],
    )
    .await;
    known(&mesh, "istio-system", "shop-cert").await;
    let mut stream = gateway(&mesh).await;
    let me = node("router", "istio-system", "gateway");
    let wanted = ["kubernetes://shop-cert", "kubernetes://late"];
    stream.ask(me, type_url::SECRET, &wanted).await;
    let answer = stream.next().await.expect("secrets");
    assert_eq!(key_of(&answer), first.key);
    assert_eq!(answer.removed_resources, ["kubernetes://late"]);

    for path in [
        "/debug/adsz",
        "/debug/syncz",
        "/debug/configz",
        "/debug/registryz",
        "/debug/push_status",
        "/debug/mesh",
        "/debug/diagnostics",
        "/debug/endpointz",
        "/debug/config_dump?proxyID=pod-1.istio-system",
        "/debug/edsz?proxyID=pod-1.istio-system",
        "/debug/ndsz?proxyID=pod-1.istio-system",
        "/metrics",
    ] {
        let page = mesh.page(path).await;
        let line = first.key.lines().nth(1).expect("a line of the key");
        assert!(!page.contains(line), "{path} shows a key");
        assert!(
            !page.contains(&STANDARD.encode(&first.key)[..64]),
            "{path} shows a key in base64"
        );
        assert!(!page.contains("PRIVATE KEY"), "{path} shows a key");
    }

    store(
        &mesh,
        "shop-cert",
        &[("tls.crt", &second.chain), ("tls.key", &second.key)],
    )
    .await;
    let answer = stream.next().await.expect("the new key");
    assert_eq!(key_of(&answer), second.key);
    assert_eq!(answer.resources.len(), 1);
    // A key of another certificate is refused, and the one that works stays, for this proxy and for others.
    store(
        &mesh,
        "shop-cert",
        &[("tls.crt", &second.chain), ("tls.key", &first.key)],
    )
    .await;
    eventually("the refusal", || async {
        let publication = mesh.discovery.world().current()?;
        publication
            .snapshot
            .refused_credential(Holder::Secret, "istio-system", "shop-cert")
            .map(drop)
    })
    .await;
    let mut other = gateway(&mesh).await;
    let me = node("router", "istio-system", "gateway");
    other.ask(me, type_url::SECRET, &["kubernetes://shop-cert"]).await;
    assert_eq!(
        key_of(&other.next().await.expect("what it held before")),
        second.key
    );
    store(&mesh, "late", &[("cert", &first.chain), ("key", &first.key)]).await;
    assert_eq!(key_of(&stream.next().await.expect("the late one")), first.key);
    write::delete(
        &mesh.client,
        &ObjectRef::new(Kind::Secret, "istio-system", "late"),
    )
    .await
    .expect("deleted");
    let answer = stream.next().await.expect("a removal");
    assert_eq!(answer.removed_resources, ["kubernetes://late"]);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn who_becomes_a_gateway_later_gets_its_secrets_then_and_who_is_none_any_more_loses_them() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let (first, second) = (host(), host());
    let entries = |host: &Shown| [("cert", host.chain.clone()), ("key", host.key.clone())];
    let stored = async |host: &Shown| {
        let entries = entries(host);
        let entries: Vec<(&str, &str)> = entries
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        store(&mesh, "shop-cert", &entries).await;
    };
    stored(&first).await;
    known(&mesh, "istio-system", "shop-cert").await;
    let door = ObjectRef::new(Kind::Gateway, "shop", "door");
    let mut object = write::get(&mesh.client, &door).await.expect("the Gateway");
    object["metadata"] = json!({"name": "door", "namespace": "shop"});
    write::delete(&mesh.client, &door).await.expect("deleted");
    let is_gateway = || async {
        let known = |objects: &Objects| objects.is_gateway_account("istio-system", "gateway");
        Some(mesh.discovery.world().read(known))
    };
    eventually("no gateway", || async { is_gateway().await.filter(|is| !is) }).await;
    let mut stream = gateway(&mesh).await;
    let me = node("router", "istio-system", "gateway");
    stream
        .ask(me, type_url::SECRET, &["kubernetes://shop-cert"])
        .await;
    let answer = stream.next().await.expect("an answer");
    assert_eq!(answer.removed_resources, ["kubernetes://shop-cert"]);
    stream.acknowledge(&answer).await;

    apply(&mesh.client, &[object]).await.expect("stored");
    let answer = stream.next().await.expect("the key, though nobody asks again");
    assert_eq!(key_of(&answer), first.key);
    stream.acknowledge(&answer).await;

    write::delete(&mesh.client, &door).await.expect("deleted");
    let answer = stream.next().await.expect("a removal");
    assert_eq!(answer.removed_resources, ["kubernetes://shop-cert"]);
    stream.acknowledge(&answer).await;
    stored(&second).await;
    assert!(stream.is_silent().await, "a later Secret is not for it");
    mesh.stop().0.shutdown().await;
}

/// An API server whose rules let everybody list Secrets, when it answers, and that counts how often it is asked.
#[derive(Clone)]
struct WithRules {
    server: ApiService,
    asked: Arc<AtomicU32>,
    fails: Arc<AtomicBool>,
}

impl<B> tower::Service<Request<B>> for WithRules
where
    ApiService: tower::Service<Request<B>, Response = Response<ApiBody>, Error = Infallible>,
    <ApiService as tower::Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        if !request.uri().path().ends_with("/subjectaccessreviews") {
            let answer = self.server.call(request);
            return Box::pin(async move { Ok(answer.await?.map(Body::new)) });
        }
        self.asked.fetch_add(1, Ordering::Relaxed);
        let answer = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
            "spec": {}, "status": {"allowed": true},
        });
        let status = if self.fails.load(Ordering::Relaxed) {
            500
        } else {
            201
        };
        let answer = Response::builder()
            .status(status)
            .header("content-type", "application/json")
            .body(Body::from(answer.to_string()));
        Box::pin(std::future::ready(Ok(answer.expect("an answer"))))
    }
}

#[tokio::test]
async fn the_api_server_is_asked_once_whether_a_proxy_may_have_secrets() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, _) = api_server(directory.path()).await;
    let asked = Arc::new(AtomicU32::new(0));
    let client = client::in_process(WithRules {
        server: api.service(),
        asked: Arc::clone(&asked),
        fails: Arc::default(),
    });
    let mesh = Mesh::start(api, client, STABLE).await;
    let host = host();
    let entries = [("cert", host.chain.as_str()), ("key", host.key.as_str())];
    for name in ["one", "two"] {
        store(&mesh, name, &entries).await;
        known(&mesh, "istio-system", name).await;
    }
    let mut stream = gateway(&mesh).await;
    for name in ["kubernetes://one", "kubernetes://two", "kubernetes://none"] {
        let me = node("router", "istio-system", "gateway");
        stream.ask(me, type_url::SECRET, &[name]).await;
        let answer = stream.next().await.expect("an answer");
        assert_eq!(
            answer.resources.len() + answer.removed_resources.len(),
            1,
            "{name}"
        );
        stream.acknowledge(&answer).await;
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    // The answer is for one stream: the next one is asked for again.
    let mut stream = gateway(&mesh).await;
    let me = node("router", "istio-system", "gateway");
    stream.ask(me, type_url::SECRET, &["kubernetes://one"]).await;
    assert_eq!(key_of(&stream.next().await.expect("the key")), host.key);
    assert_eq!(asked.load(Ordering::Relaxed), 2);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_gateway_that_nobody_could_judge_gets_its_secrets_once_somebody_can() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, _) = api_server(directory.path()).await;
    let fails = Arc::new(AtomicBool::new(true));
    let client = client::in_process(WithRules {
        server: api.service(),
        asked: Arc::default(),
        fails: Arc::clone(&fails),
    });
    let mesh = Mesh::start(api, client, STABLE).await;
    let host = host();
    let entries = [("cert", host.chain.as_str()), ("key", host.key.as_str())];
    store(&mesh, "one", &entries).await;
    known(&mesh, "istio-system", "one").await;
    let mut stream = gateway(&mesh).await;
    let me = node("router", "istio-system", "gateway");
    stream.ask(me, type_url::SECRET, &["kubernetes://one"]).await;
    let answer = stream.next().await.expect("an answer");
    assert_eq!(answer.removed_resources, ["kubernetes://one"]);
    stream.acknowledge(&answer).await;
    fails.store(false, Ordering::Relaxed);
    assert_eq!(key_of(&stream.next().await.expect("the key")), host.key);
    mesh.stop().0.shutdown().await;
}

/// The authorities in the first resource of an answer.
fn authorities_of(answer: &DeltaDiscoveryResponse) -> String {
    let resource = answer
        .resources
        .first()
        .and_then(|r| r.resource.as_ref())
        .expect("a resource");
    let secret = unpack::<tls::Secret>(resource).expect("a Secret");
    let Some(tls::secret::Type::ValidationContext(context)) = secret.r#type else {
        panic!("{} is no validation context", secret.name)
    };
    match context.trusted_ca.and_then(|roots| roots.specifier) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).expect("PEM"),
        _ => panic!("no authorities"),
    }
}

#[tokio::test]
async fn authorities_in_a_config_map_are_for_every_proven_proxy_and_are_followed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let roots = || {
        let authority = foreign_authority();
        authority
            .roots()
            .iter()
            .map(identity::Certificate::pem)
            .collect::<String>()
    };
    let (first, second) = (roots(), roots());
    let store = async |text: &str| {
        let meta = json!({"name": "partners", "namespace": "istio-system"});
        let data = json!({"ca.crt": text, "tls.key": "of nobody's business"});
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data});
        apply(&mesh.client, &[object]).await.expect("stored");
    };
    store(&first).await;
    eventually("the ConfigMap in the world", || async {
        let publication = mesh.discovery.world().current()?;
        let known = publication
            .snapshot
            .credential(Holder::ConfigMap, "istio-system", "partners");
        known.map(drop)
    })
    .await;
    // A sidecar of another namespace, as it asks for a DestinationRule's and for a Gateway's.
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let mut stream = mesh.stream(None, Some(&token)).await.expect("a connection");
    for resource in [
        "configmap://istio-system/partners-cacert",
        "configmap://istio-system/partners",
    ] {
        let me = node("sidecar", "shop", "reviews");
        stream.ask(me, type_url::SECRET, &[resource]).await;
        let answer = stream.next().await.expect("the roots");
        assert_eq!(authorities_of(&answer), first, "{resource}");
        stream.acknowledge(&answer).await;
    }
    store("damaged").await;
    store(&second).await;
    let answer = stream.next().await.expect("the new roots, and no damage");
    assert_eq!(authorities_of(&answer), second);
    stream.acknowledge(&answer).await;
    let map = ObjectRef::new(Kind::ConfigMap, "istio-system", "partners");
    write::delete(&mesh.client, &map).await.expect("deleted");
    let answer = stream.next().await.expect("a removal");
    assert_eq!(answer.removed_resources.len(), 2);

    let mut stream = mesh.plaintext_stream().await;
    let me = node("sidecar", "shop", "reviews");
    stream
        .ask(me, type_url::SECRET, &["configmap://istio-system/partners"])
        .await;
    assert!(stream.is_silent().await, "who has proven nothing gets nothing");
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn nobody_gets_secrets_of_others() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let host = host();
    let entries = [("cert", host.chain.as_str()), ("key", host.key.as_str())];
    let objects = ["istio-system", "shop"].map(|namespace| secret(namespace, "theirs", "Opaque", &entries));
    apply(&mesh.client, &objects).await.expect("stored");
    known(&mesh, "istio-system", "theirs").await;
    known(&mesh, "shop", "theirs").await;

    // The mesh's own authority, another namespace's, and what is no Secret at all.
    let mut stream = gateway(&mesh).await;
    let names = [
        "file:/etc/passwd",
        "kubernetes://cacerts",
        "kubernetes://istio-ca-secret",
        "kubernetes://istio-system/theirs/x",
        "kubernetes://shop/theirs",
    ];
    stream
        .ask(
            node("router", "istio-system", "gateway"),
            type_url::SECRET,
            &names,
        )
        .await;
    let answer = stream.next().await.expect("an answer");
    let mut removed = answer.removed_resources;
    removed.sort();
    assert_eq!(
        (answer.resources.len(), removed.as_slice()),
        (0, &names.map(str::to_owned)[..])
    );

    // A sidecar, with a good proof.
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let mut stream = mesh.stream(None, Some(&token)).await.expect("a connection");
    stream
        .ask(
            node("sidecar", "shop", "reviews"),
            type_url::SECRET,
            &["kubernetes://theirs"],
        )
        .await;
    let answer = stream.next().await.expect("an answer");
    assert_eq!((answer.resources.len(), answer.removed_resources.len()), (0, 1));

    // A sidecar that says it is a gateway, with a good proof of who it is.
    let mut stream = mesh.stream(None, Some(&token)).await.expect("a connection");
    stream
        .ask(
            node("router", "shop", "reviews"),
            type_url::SECRET,
            &["kubernetes://theirs"],
        )
        .await;
    let answer = stream.next().await.expect("an answer");
    assert_eq!((answer.resources.len(), answer.removed_resources.len()), (0, 1));

    // A gateway that has proven nothing.
    let mut stream = mesh.plaintext_stream().await;
    stream
        .ask(
            node("router", "istio-system", "gateway"),
            type_url::SECRET,
            &["kubernetes://theirs"],
        )
        .await;
    assert!(stream.is_silent().await);
    mesh.stop().0.shutdown().await;
}
