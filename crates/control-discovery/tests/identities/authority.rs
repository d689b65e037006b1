//! The authority in its Secrets.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_ca::{Authority, Origin, RootRotation};
use control_snapshot::Kind;
use control_sources::write::{self, ObjectRef};
use control_sources::{apply, client};
use identity::Certificate;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod,
    KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use serde_json::json;

use crate::mesh::{Mesh, STABLE, api_server, eventually, foreign_authority, secret};

const ROOT: &str = "istio-system";

/// An authority by another hand: its root, and what it plugs in.
struct Corporate {
    root: String,
    entries: Vec<(&'static str, String)>,
    /// What signs for the mesh.
    issuer: Issuer<'static, KeyPair>,
}

fn params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (SystemTime::now() - Duration::from_secs(3600)).into();
    params.not_after = (SystemTime::now() + Duration::from_secs(30 * 24 * 3600)).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

impl Corporate {
    /// `beside` are further roots that workloads are to trust.
    fn new(beside: &str) -> Self {
        let (root, root_key) = (params("root"), KeyPair::generate().expect("a key"));
        let root_pem = root.self_signed(&root_key).expect("a root").pem();
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&root, &root_key);
        let mesh = params("mesh");
        let signing = mesh.signed_by(&key, &issuer).expect("a certificate").pem();
        Self {
            entries: vec![
                ("ca-cert.pem", signing.clone()),
                ("ca-key.pem", key.serialize_pem()),
                ("cert-chain.pem", signing),
                ("root-cert.pem", format!("{root_pem}{beside}")),
            ],
            root: root_pem,
            issuer: Issuer::new(mesh, key),
        }
    }

    /// Takes back the certificate with this serial number, which it has signed for the mesh.
    fn revoke(&mut self, serial: u64) -> String {
        let now = SystemTime::now();
        let revoked = RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now.into(),
            next_update: (now + Duration::from_secs(24 * 3600)).into(),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![revoked],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer).expect("a list").pem().expect("PEM");
        self.entries.push(("ca-crl.pem", list.clone()));
        list
    }

    fn secret(&self) -> serde_json::Value {
        let entries: Vec<_> = self
            .entries
            .iter()
            .map(|(name, text)| (*name, text.as_str()))
            .collect();
        secret(ROOT, "cacerts", "Opaque", &entries)
    }
}

fn signer(authority: &Arc<Authority>) -> Vec<u8> {
    authority.certificate().der().to_vec()
}

async fn root_certificate(mesh: &Mesh, namespace: &str, expected: &str) -> bool {
    let map = mesh.get(Kind::ConfigMap, namespace, "istio-ca-root-cert").await;
    map.is_some_and(|map| {
        map["data"]["root-cert.pem"] == expected && map["metadata"]["labels"]["istio.io/config"] == "true"
    })
}

/// What is wrong with a Secret, as the debug page has it.
async fn complaint(mesh: &Mesh, name: &str) -> Option<String> {
    let found = mesh.discovery.diagnostics();
    let about = found
        .iter()
        .find(|d| d.resource.kind == "Secret" && d.resource.name == name);
    about.map(ToString::to_string)
}

#[tokio::test]
async fn a_self_signed_authority_outlives_the_process_in_its_secret() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let first = mesh.authority().await;
    let stored = mesh
        .get(Kind::Secret, ROOT, "istio-ca-secret")
        .await
        .expect("the Secret");
    assert_eq!(stored["type"], "istio.io/ca-root");
    let pem = STANDARD
        .decode(stored["data"]["ca-cert.pem"].as_str().expect("text"))
        .expect("base64");
    assert_eq!(
        Certificate::from_pem(&pem).expect("a certificate").der(),
        signer(&first)
    );
    let (api, _) = mesh.stop();
    let over_https = client::from_kubeconfig(api.kubeconfig_path())
        .await
        .expect("a client");
    let mesh = Mesh::start(api, over_https, STABLE).await;
    assert_eq!(signer(&mesh.authority().await), signer(&first));
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn every_namespace_has_the_roots_and_gets_them_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let roots = mesh.authority().await.roots_pem();
    let there = |namespace: &'static str| {
        let (mesh, roots) = (&mesh, roots.as_str());
        move || async move { root_certificate(mesh, namespace, roots).await.then_some(()) }
    };
    eventually("the roots in shop", there("shop")).await;
    let late = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "late"}});
    apply(&mesh.client, &[late]).await.expect("stored");
    eventually("the roots in a new namespace", there("late")).await;
    let map = ObjectRef::new(Kind::ConfigMap, "late", "istio-ca-root-cert");
    write::patch(&mesh.client, &map, &json!({"data": {"root-cert.pem": "mine"}}))
        .await
        .expect("changed");
    eventually("the roots instead of others", there("late")).await;
    write::delete(&mesh.client, &map).await.expect("deleted");
    eventually("the roots again", there("late")).await;
    assert!(
        mesh.get(Kind::ConfigMap, "kube-system", "istio-ca-root-cert")
            .await
            .is_none()
    );
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn an_old_root_is_renewed_and_stays_trusted_beside_the_new_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    let mesh = Mesh::start(api, client, STABLE).await;
    let old = mesh.authority().await;
    let (api, client) = mesh.stop();
    // Every look finds the root too old; the second one is an hour later.
    let eager = RootRotation {
        grace_percent: 100,
        ..STABLE
    };
    let mesh = Mesh::start(api, client, eager).await;
    let renewed = eventually("a new root", || async {
        mesh.identities
            .authority()
            .filter(|now| signer(now) != signer(&old))
    })
    .await;
    assert_eq!(renewed.roots().len(), 2);
    assert_eq!(renewed.certificate().public_key(), old.certificate().public_key());
    let both = renewed.roots_pem();
    eventually("both roots in shop", || async {
        root_certificate(&mesh, "shop", &both).await.then_some(())
    })
    .await;
    let (api, client) = mesh.stop();
    let mesh = Mesh::start(api, client, STABLE).await;
    assert_eq!(mesh.authority().await.roots_pem(), both, "the Secret keeps both");
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_refused_authority_in_the_secret_is_not_written_over() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    // Every look, each second, finds the root too old.
    let eager = RootRotation {
        check_interval: Duration::from_secs(1),
        grace_percent: 100,
        ..STABLE
    };
    let mesh = Mesh::start(api, client, eager).await;
    let first = mesh.authority().await;
    eventually("a new root", || async {
        let now = mesh.identities.authority()?;
        (signer(&now) != signer(&first)).then_some(())
    })
    .await;
    let stranger = foreign_authority();
    let data = stranger.to_self_signed_secret().expect("a Secret");
    let entries: Vec<(&str, &str)> = data
        .iter()
        .map(|(name, text)| (name.as_str(), std::str::from_utf8(text).expect("PEM")))
        .collect();
    let object = secret(ROOT, "istio-ca-secret", "istio.io/ca-root", &entries);
    apply(&mesh.client, &[object]).await.expect("stored");
    // The next root cannot be written, and what is there is none of the mesh's: neither hides the other.
    for problem in ["no root of it", "cannot be written"] {
        let said = async || {
            let found = mesh.discovery.diagnostics();
            let about = |d: &&diagnostics::Diagnostic| {
                d.resource.name == "istio-ca-secret" && d.message.contains(problem)
            };
            found.iter().find(about).map(drop)
        };
        eventually(problem, said).await;
    }
    let stored = mesh
        .get(Kind::Secret, ROOT, "istio-ca-secret")
        .await
        .expect("the Secret");
    let kept = STANDARD.encode(stranger.certificate().pem());
    assert_eq!(stored["data"]["ca-cert.pem"], kept, "it is the operator's");
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_plugged_in_authority_comes_first_and_a_broken_one_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    let corporate = Corporate::new("");
    apply(&client, &[corporate.secret()]).await.expect("stored");
    let mesh = Mesh::start(api, client, STABLE).await;
    let authority = mesh.authority().await;
    assert_eq!(
        (authority.origin(), authority.roots_pem()),
        (Origin::PluggedIn, corporate.root.clone())
    );
    assert!(mesh.get(Kind::Secret, ROOT, "istio-ca-secret").await.is_none());

    let other_key = KeyPair::generate().expect("a key").serialize_pem();
    let mut broken = corporate.secret();
    broken["data"]["ca-key.pem"] = STANDARD.encode(&other_key).into();
    apply(&mesh.client, &[broken]).await.expect("stored");
    let said = eventually("a diagnostic", || complaint(&mesh, "cacerts")).await;
    assert!(said.contains("ca-key.pem"), "{said}");
    assert!(!said.contains(&other_key[40..80]));
    assert_eq!(signer(&mesh.authority().await), signer(&authority));

    apply(&mesh.client, &[Corporate::new("").secret()])
        .await
        .expect("stored");
    let said = eventually("another diagnostic", || async {
        complaint(&mesh, "cacerts")
            .await
            .filter(|said| said.contains("no root"))
    })
    .await;
    assert!(said.contains("workloads trust"), "{said}");
    assert_eq!(signer(&mesh.authority().await), signer(&authority));

    let next = Corporate::new(&corporate.root);
    apply(&mesh.client, &[next.secret()]).await.expect("stored");
    let taken = eventually("the next authority", || async {
        mesh.identities
            .authority()
            .filter(|now| signer(now) != signer(&authority))
    })
    .await;
    assert_eq!(taken.roots().len(), 2);
    assert_eq!(complaint(&mesh, "cacerts").await, None);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn a_broken_authority_at_the_start_is_waited_for_and_no_other_is_made() {
    let directory = tempfile::tempdir().expect("a directory");
    let (api, client) = api_server(directory.path()).await;
    let broken = secret(ROOT, "cacerts", "Opaque", &[("ca-cert.pem", "nonsense")]);
    apply(&client, &[broken]).await.expect("stored");
    let mesh = Mesh::start(api, client, STABLE).await;
    let said = eventually("a diagnostic", || complaint(&mesh, "cacerts")).await;
    assert!(said.contains("ca-cert.pem"), "{said}");
    assert!(mesh.identities.authority().is_none());
    assert!(mesh.get(Kind::Secret, ROOT, "istio-ca-secret").await.is_none());
    apply(&mesh.client, &[Corporate::new("").secret()])
        .await
        .expect("stored");
    assert_eq!(mesh.authority().await.origin(), Origin::PluggedIn);
    mesh.stop().0.shutdown().await;
}

#[tokio::test]
async fn what_a_plugged_in_authority_has_revoked_is_in_every_namespace() {
    let directory = tempfile::tempdir().expect("a directory");
    let mesh = Mesh::new(directory.path()).await;
    let lists = || async {
        let map = mesh.get(Kind::ConfigMap, "shop", "istio-ca-crl").await?;
        Some(map["data"]["ca-crl.pem"].as_str()?.to_owned())
    };
    let file = || std::fs::read_to_string(mesh.folder.path().join("ca-crl.pem")).unwrap_or_default();
    assert_eq!(eventually("nothing is revoked", lists).await, "");
    let own = mesh.authority().await.roots_pem();
    let mut corporate = Corporate::new(&own);
    let list = corporate.revoke(42);
    apply(&mesh.client, &[corporate.secret()]).await.expect("stored");
    let is = |wanted: String| {
        let lists = &lists;
        move || {
            let wanted = wanted.clone();
            async move { lists().await.filter(|found| *found == wanted) }
        }
    };
    eventually("the list in every namespace", is(list.clone())).await;
    assert_eq!(file(), list, "and in the file for this host");
    corporate.entries.pop();
    let without = json!({"data": {"ca-crl.pem": null}});
    write::patch(
        &mesh.client,
        &ObjectRef::new(Kind::Secret, ROOT, "cacerts"),
        &without,
    )
    .await
    .expect("changed");
    eventually("no list any more", is(String::new())).await;
    assert_eq!(file(), "");
    mesh.stop().0.shutdown().await;
}
