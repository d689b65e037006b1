//! Another's identity, from the certificate authority.

use api_envoy::istio::v1::auth::IstioCertificateRequest;
use identity::{KeyKind, PrivateKey, SubjectName, request_certificate};
use tonic::Code;

use crate::log::Log;
use crate::mesh::{Mesh, Proofs, api_server, workload};
use crate::{OWN, leaf, own_certificate};

const VICTIM: &str = "spiffe://cluster.local/ns/shop/sa/other";

#[tokio::test]
async fn a_certificate_is_worth_no_identity_of_somebody_else() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    let proofs = Proofs {
        certificate: Some(&own),
        ..Proofs::default()
    };
    let refused = mesh
        .certificate_for(VICTIM, &proofs)
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    log.must_say(&[
        "a caller may not have this identity",
        "shop",
        "reviews",
        "a client certificate cannot ask on behalf of others",
    ])
    .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_token_is_worth_no_identity_of_somebody_else() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let token = mesh.token("shop", "reviews", "istio-ca").await;
    let proofs = Proofs {
        token: Some(&token),
        ..Proofs::default()
    };
    let refused = mesh
        .certificate_for(VICTIM, &proofs)
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    log.must_say(&[
        "a caller may not have this identity",
        "reviews",
        "nobody may ask on behalf of others",
    ])
    .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_changed_token_is_worth_nothing() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = mesh.token("shop", "reviews", "istio-ca").await;
    let other = mesh.token("shop", "other", "istio-ca").await;
    // The victim's claims with a signature that is good for its own.
    let (claims, _) = other.rsplit_once('.').expect("a JWT");
    let (_, signature) = own.rsplit_once('.').expect("a JWT");
    let forged = format!("{claims}.{signature}");
    let refused = mesh
        .certificate(None, Some(&forged))
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    log.must_say(&["a caller is not authenticated", "token review"])
        .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_signing_request_that_names_somebody_else_gets_the_callers_own_identity() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let own = own_certificate(&mesh).await;
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let names = [
        workload("shop", "other"),
        SubjectName::Dns("istiod.istio-system.svc".to_owned()),
    ];
    let request = IstioCertificateRequest {
        csr: request_certificate(&key, &names).expect("a request"),
        ..IstioCertificateRequest::default()
    };
    let proofs = Proofs {
        certificate: Some(&own),
        ..Proofs::default()
    };
    let issued = mesh.ask_for_certificate(request, &key, &proofs).await;
    let issued = leaf(&issued.expect("its own identity, as from istiod"));
    assert_eq!(issued.spiffe_id().expect("an id").to_string(), OWN);
    let names: Vec<String> = issued.names().iter().map(ToString::to_string).collect();
    assert_eq!(names, [format!("URI:{OWN}")]);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn another_user_of_this_host_gets_no_identity() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    // The kernel says who this process is, and the control plane trusts somebody else.
    let mesh = Mesh::start_for_users(api, client, [u32::MAX - 1].into()).await;
    mesh.authority().await;
    let refused = mesh
        .certificate_from_host("shop/reviews")
        .await
        .err()
        .expect("refused");
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    log.must_say(&[
        "a caller may not have this identity",
        "UnixPeer",
        "sa/reviews is not registered for the user",
    ])
    .await;
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_user_of_this_host_gets_no_identity_that_no_workload_has() {
    let (log, _listening) = Log::listen();
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    for asked in ["shop/other", "spiffe://elsewhere/ns/shop/sa/reviews"] {
        let refused = mesh.certificate_from_host(asked).await.err().expect("refused");
        assert_eq!(refused.code(), Code::PermissionDenied, "{asked}");
    }
    let reason = "no WorkloadGroup or WorkloadEntry names the service account of";
    for asked in [
        "spiffe://cluster.local/ns/shop/sa/other",
        "spiffe://elsewhere/ns/shop/sa/reviews",
    ] {
        log.must_say(&["a caller may not have this identity", reason, asked])
            .await;
    }
    mesh.stop().0.shutdown().await;
}
