//! The certificate service over gRPC, as an agent sees it.

mod common;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::istio::v1::auth::istio_certificate_service_client::IstioCertificateServiceClient;
use api_envoy::istio::v1::auth::{IstioCertificateRequest, IstioCertificateResponse};
use common::{DAY, HOUR, REVIEWS, cacerts, now, request, self_signed, trust_domain};
use control_ca::{
    Authenticator, Authority, Caller, CertificateService, Credentials, Inventory, Lifetimes, Metrics,
    NotAuthenticated, PeerCertificates, PeerCredentials, PeerIdentity, Pod, ReviewedToken, Rules, Settings,
    UnixPeer, bearer_token,
};
use futures::future::BoxFuture;
use identity::{Certificate, ServiceAccount, SpiffeId, Svid, TrustDomains, path_to_root};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Status};

/// Knows the tokens `<namespace>:<name>`, as an API server would after looking at a signature.
struct Tokens;

impl Authenticator for Tokens {
    fn name(&self) -> &'static str {
        "token review"
    }

    fn authenticate<'c>(
        &'c self,
        credentials: Credentials<'c>,
    ) -> BoxFuture<'c, Result<Option<Caller>, NotAuthenticated>> {
        Box::pin(async move {
            let Some(token) = bearer_token(credentials.metadata) else {
                return Ok(None);
            };
            if token == "forged" {
                return Err(NotAuthenticated(
                    "the API server does not know the token".to_owned(),
                ));
            }
            let mut reviewed = ReviewedToken {
                username: format!("system:serviceaccount:{token}"),
                groups: vec!["system:serviceaccounts".to_owned()],
                ..ReviewedToken::default()
            };
            for (key, value) in [("pod-name", "ztunnel-1"), ("pod-uid", "1")] {
                let key = format!("authentication.kubernetes.io/{key}");
                reviewed.extra.insert(key, vec![value.to_owned()]);
            }
            reviewed.caller().map(Some)
        })
    }
}

/// One node: ztunnel and reviews are on it.
struct Node;

impl Inventory for Node {
    fn pod(&self, _: &str, name: &str) -> Option<Pod> {
        (name == "ztunnel-1").then(|| Pod {
            uid: "1".to_owned(),
            service_account: "ztunnel".to_owned(),
            node: "node-1".to_owned(),
        })
    }

    fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool {
        node == "node-1" && account.name == "reviews"
    }

    fn registered(&self, uid: u32) -> Vec<SpiffeId> {
        let id = (uid == 1001).then(|| REVIEWS.parse().expect("an id"));
        id.into_iter().collect()
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        BTreeSet::new()
    }
}

/// What the transport would have put into the extensions.
type Transport = Arc<dyn Fn(&mut Request<()>) + Send + Sync>;

struct Running {
    client: IstioCertificateServiceClient<Channel>,
    metrics: Arc<Metrics>,
    authority: Arc<arc_swap::ArcSwap<Authority>>,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Running {
    async fn start(authority: Authority, now: SystemTime, transport: Transport) -> Self {
        let metrics = Arc::new(Metrics::default());
        let authority = Arc::new(arc_swap::ArcSwap::from_pointee(authority));
        let rules = Rules {
            trust_domains: TrustDomains::new(trust_domain(), []),
            trusted_node_accounts: control_ca::parse_node_accounts("istio-system/ztunnel").expect("accounts"),
            oidc: None,
            host_users: BTreeSet::new(),
        };
        let service = CertificateService::server(Settings {
            authority: Arc::clone(&authority),
            rules: Arc::new(arc_swap::ArcSwap::from_pointee(rules)),
            inventory: Arc::new(Node),
            authenticators: vec![Arc::new(PeerCertificates), Arc::new(Tokens), Arc::new(UnixPeer)],
            lifetimes: Lifetimes::default(),
            metrics: Arc::clone(&metrics),
            clock: Arc::new(move || now),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let service =
            tonic::service::interceptor::InterceptedService::new(service, move |mut call: Request<()>| {
                transport(&mut call);
                Ok::<_, Status>(call)
            });
        let server = tokio::spawn(async move {
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await;
            assert!(served.is_ok(), "{served:?}");
        });
        let channel = Channel::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect()
            .await
            .expect("a connection");
        Self {
            client: IstioCertificateServiceClient::new(channel),
            metrics,
            authority,
            server,
        }
    }

    async fn plain(now: SystemTime) -> Self {
        Self::start(self_signed(now), now, Arc::new(|_| {})).await
    }

    async fn ask(
        &mut self,
        token: &str,
        message: IstioCertificateRequest,
    ) -> Result<IstioCertificateResponse, Status> {
        let mut call = Request::new(message);
        if !token.is_empty() {
            let value = format!("Bearer {token}").parse().expect("a header");
            call.metadata_mut().insert("authorization", value);
        }
        let answer = tokio::time::timeout(Duration::from_secs(10), self.client.create_certificate(call));
        Ok(answer.await.expect("an answer in time")?.into_inner())
    }

    fn count(&self, name: &str) -> String {
        let text = self.metrics.print(&self.authority.load(), now());
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("{name} ")));
        line.unwrap_or("absent").to_owned()
    }
}

fn message(csr: &str) -> IstioCertificateRequest {
    IstioCertificateRequest {
        csr: csr.to_owned(),
        validity_duration: 0,
        metadata: None,
    }
}

fn impersonate(csr: &str, identity: &str) -> IstioCertificateRequest {
    let value = prost_types::Value {
        kind: Some(prost_types::value::Kind::StringValue(identity.to_owned())),
    };
    IstioCertificateRequest {
        metadata: Some(prost_types::Struct {
            fields: [("ImpersonatedIdentity".to_owned(), value)].into(),
        }),
        ..message(csr)
    }
}

fn chain(answer: &IstioCertificateResponse) -> Vec<Certificate> {
    answer
        .cert_chain
        .iter()
        .map(|text| Certificate::from_pem(text.as_bytes()).expect("one certificate each"))
        .collect()
}

#[tokio::test]
async fn a_token_is_worth_a_certificate_for_its_service_account() {
    let now = now();
    let mut running = Running::plain(now).await;
    let (key, csr) = request(&[common::uri("spiffe://cluster.local/ns/kube-system/sa/admin")]);
    let answer = running
        .ask("default:reviews", message(&csr))
        .await
        .expect("a certificate");
    let [leaf, root] = chain(&answer).try_into().expect("a leaf and a root");
    assert!(answer.cert_chain.iter().all(|text| text.ends_with("-----\n")));
    assert_eq!(leaf.not_after(), now + DAY);
    assert_eq!(
        path_to_root(&leaf, &[], std::slice::from_ref(&root), now).map(|p| p.len()),
        Ok(2)
    );
    let svid = Svid::new(vec![leaf], key).expect("an SVID");
    assert_eq!(svid.id().to_string(), REVIEWS);
    assert_eq!(running.count("citadel_server_csr_count"), "1");
    assert_eq!(running.count("citadel_server_success_cert_issuance_count"), "1");
    assert_eq!(running.count("citadel_server_authentication_failure_count"), "0");
}

#[tokio::test]
async fn callers_without_a_good_proof_are_unauthenticated() {
    let mut running = Running::plain(now()).await;
    let (_, csr) = request(&[]);
    for token in ["", "forged", "nonsense"] {
        let status = running.ask(token, message(&csr)).await.expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated, "{token}");
        assert_eq!(status.message(), "request authenticate failure");
    }
    assert_eq!(running.count("citadel_server_authentication_failure_count"), "3");
    assert_eq!(running.count("citadel_server_csr_count"), "3");
}

#[tokio::test]
async fn refused_requests_say_what_is_wrong_and_are_counted_by_kind() {
    let mut running = Running::plain(now()).await;
    let (_, good) = request(&[]);
    let mut late = message(&good);
    late.validity_duration = -1;
    for (wrong, words) in [
        (message(""), "the PEM text is empty"),
        (message("-----BEGIN CERTIFICATE REQUEST-----\nAAAA"), "truncated"),
        (
            message(include_str!("data/p256-ca.csr")),
            "asks for an authority's certificate",
        ),
        (message(&" ".repeat(20 << 10)), "20480 bytes, more than"),
        (late, "-1 seconds"),
    ] {
        let status = running.ask("default:reviews", wrong).await.expect_err("refused");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains(words), "{status:?}");
    }
    assert_eq!(
        running.count("citadel_server_csr_sign_err_count{error=\"CSR_ERROR\"}"),
        "4"
    );
    assert_eq!(
        running.count("citadel_server_csr_sign_err_count{error=\"TTL_ERROR\"}"),
        "1"
    );
    assert_eq!(running.count("citadel_server_csr_parsing_err_count"), "3");
    let huge = running
        .ask("default:reviews", message(&" ".repeat(70 << 10)))
        .await;
    assert_eq!(huge.expect_err("refused").code(), Code::OutOfRange);
}

#[tokio::test]
async fn a_node_proxy_gets_the_identity_of_a_pod_on_its_node_and_no_other() {
    let mut running = Running::plain(now()).await;
    let (_, csr) = request(&[]);
    let answer = running
        .ask("istio-system:ztunnel", impersonate(&csr, REVIEWS))
        .await
        .expect("a certificate");
    let id = chain(&answer)
        .first()
        .expect("a leaf")
        .spiffe_id()
        .expect("an id");
    assert_eq!(id.to_string(), REVIEWS);
    for (token, identity) in [
        (
            "istio-system:ztunnel",
            "spiffe://cluster.local/ns/default/sa/ratings",
        ),
        ("istio-system:ztunnel", "nonsense"),
        ("default:ratings", REVIEWS),
    ] {
        let status = running
            .ask(token, impersonate(&csr, identity))
            .await
            .expect_err("refused");
        assert_eq!(status.code(), Code::Unauthenticated);
        // The reason is for the log, not for who tries.
        assert_eq!(status.message(), "request impersonation authentication failure");
    }
    assert_eq!(running.count("citadel_server_authentication_failure_count"), "3");
}

#[tokio::test]
async fn a_certificate_is_renewed_for_the_same_identity() {
    let now = now();
    let authority = self_signed(now);
    let old = common::sign(&authority, HOUR, now).leaf().expect("a leaf");
    let shown = old.clone();
    let transport: Transport = Arc::new(move |call| {
        call.extensions_mut().insert(PeerIdentity(shown.clone()));
    });
    let mut running = Running::start(authority, now, transport).await;
    let (_, csr) = request(&[]);
    let answer = running.ask("", message(&csr)).await.expect("a certificate");
    let new = chain(&answer).remove(0);
    assert_eq!(new.spiffe_id(), old.spiffe_id());
    assert_ne!(new.public_key(), old.public_key());
}

#[tokio::test]
async fn an_authoritys_own_certificate_renews_nothing() {
    let now = now();
    let authority = self_signed(now);
    let root = authority.certificate().clone();
    let transport: Transport = Arc::new(move |call| {
        call.extensions_mut().insert(PeerIdentity(root.clone()));
    });
    let mut running = Running::start(authority, now, transport).await;
    let status = running
        .ask("", message(&request(&[]).1))
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn users_of_this_host_get_what_is_registered_for_them() {
    let now = now();
    for (uid, expected) in [(1001, Ok(())), (0, Err(Code::PermissionDenied))] {
        let transport: Transport = Arc::new(move |call| {
            call.extensions_mut().insert(PeerCredentials { uid });
        });
        let mut running = Running::start(self_signed(now), now, transport).await;
        let answer = running.ask("", message(&request(&[]).1)).await;
        assert_eq!(answer.map(|_| ()).map_err(|status| status.code()), expected);
        let denied = if expected.is_ok() { "0" } else { "1" };
        assert_eq!(running.count("citadel_server_id_extraction_err_count"), denied);
    }
}

#[tokio::test]
async fn an_authority_that_is_replaced_signs_the_next_call() {
    let now = now();
    let mut running = Running::plain(now).await;
    let (root, middle, signing, data) = cacerts(now);
    let plugged_in = Authority::from_plugged_in(&data, now).expect("an authority");
    running.authority.store(Arc::new(plugged_in));
    let (_, csr) = request(&[]);
    let answer = running
        .ask("default:reviews", message(&csr))
        .await
        .expect("a certificate");
    assert_eq!(answer.cert_chain[1..], [signing.pem, middle.pem, root.pem]);
    let expiry = |name: &str| running.count(name).parse::<i64>().expect("a number");
    assert!((0..=30 * 24 * 3600).contains(&expiry("citadel_server_root_cert_expiry_seconds")));
    assert!((0..=30 * 24 * 3600).contains(&expiry("citadel_server_cert_chain_expiry_seconds")));
    assert!(expiry("citadel_server_root_cert_expiry_timestamp") > 1_700_000_000);
    assert!(expiry("citadel_server_cert_chain_expiry_timestamp") > 1_700_000_000);
}

#[tokio::test]
async fn an_authority_that_has_expired_is_an_internal_error() {
    let now = now();
    let authority = self_signed(now);
    let mut running = Running::start(authority, now + DAY * 3650, Arc::new(|_| {})).await;
    let status = running
        .ask("default:reviews", message(&request(&[]).1))
        .await
        .expect_err("refused");
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(
        running.count("citadel_server_csr_sign_err_count{error=\"CA_NOT_READY\"}"),
        "1"
    );
}
