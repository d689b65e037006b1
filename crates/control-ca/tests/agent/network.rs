//! Certificates from Istio's certificate service, over TLS and over a Unix socket, and who does not get any.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::authority::{CertificateAuthority, Proof, TlsAuthority};
use agent::certificates::roots::Roots;
use agent::certificates::{Held, Keeper, Settings, State};
use tokio::sync::watch;

use crate::authority::{NAME, Service, TOKEN};
use crate::support::{REVIEWS, reviews, signer, within, write_pair};

/// The first thing that comes of asking: a certificate, or the reason why there is none.
async fn ask(authority: CertificateAuthority, settings: Settings) -> Result<Arc<Held>, String> {
    let (keeper, mut state): (_, watch::Receiver<State>) = Keeper::new(
        authority,
        settings,
        Arc::new(SystemTime::now),
        Box::new(|| 0.5),
        Arc::default(),
        Roots::none(),
    );
    let keeping = tokio::spawn(keeper.run());
    let first = within(state.wait_for(|state| state.held.is_some() || state.failure.is_some()));
    let state = first.await.expect("the keeper runs").clone();
    keeping.abort();
    state
        .held
        .ok_or_else(|| state.failure.expect("a reason").to_string())
}

fn settings() -> Settings {
    Settings::new(reviews())
}

fn over_tls(address: &str, roots: &Path, proof: Proof) -> TlsAuthority {
    TlsAuthority {
        address: address.to_owned(),
        server_name: NAME.to_owned(),
        roots: roots.to_owned(),
        proof,
    }
}

#[tokio::test]
async fn a_token_is_worth_a_certificate_over_tls() {
    let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
    let (roots, token) = service.write(folder.path(), TOKEN);
    let authority = over_tls(&service.address, &roots, Proof::Token(token));
    let held = ask(CertificateAuthority::Tls(authority), settings())
        .await
        .expect("one");
    assert_eq!(held.svid.id().to_string(), REVIEWS);
    let life = held
        .svid
        .expires()
        .duration_since(held.obtained)
        .expect("in the future");
    let day = Duration::from_secs(24 * 3600);
    assert!(day - life < Duration::from_secs(5), "{life:?}");
    assert_eq!(held.roots, service.signer.load().roots());
}

#[tokio::test]
async fn an_authority_that_is_not_verified_gets_no_token() {
    let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
    let (roots, token) = service.write(folder.path(), TOKEN);
    let right = over_tls(&service.address, &roots, Proof::Token(token));
    let other_name = TlsAuthority {
        server_name: "istiod.elsewhere.svc".to_owned(),
        ..right.clone()
    };
    let foreign = folder.path().join("foreign.pem");
    std::fs::write(&foreign, signer(SystemTime::now()).roots_pem()).expect("written");
    let other_roots = TlsAuthority {
        roots: foreign,
        ..right.clone()
    };
    let no_roots = TlsAuthority {
        roots: PathBuf::from("/nonexistent/root-cert.pem"),
        ..right
    };
    for (authority, word) in [
        (other_name, "is not reached"),
        (other_roots, "is not reached"),
        (no_roots, "/nonexistent/root-cert.pem"),
    ] {
        let reason = ask(CertificateAuthority::Tls(authority), settings())
            .await
            .expect_err("a reason");
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn a_bad_proof_is_refused_by_the_authority() {
    let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
    let (roots, token) = service.write(folder.path(), "forged");
    let forged = over_tls(&service.address, &roots, Proof::Token(token));
    let reason = ask(CertificateAuthority::Tls(forged), settings())
        .await
        .expect_err("a reason");
    assert!(reason.contains("request authenticate failure"), "{reason}");
    let missing = Proof::Token(folder.path().join("no-token"));
    let missing = over_tls(&service.address, &roots, missing);
    let reason = ask(CertificateAuthority::Tls(missing), settings())
        .await
        .expect_err("a reason");
    assert!(reason.contains("no-token"), "{reason}");
}

/// A JWT that says that it ended in 1970, signed by nobody.
const EXPIRED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJleHAiOjF9.AAAA";

#[tokio::test]
async fn a_certificate_proves_its_renewal_when_the_token_is_over_or_gone() {
    for over in [Some(EXPIRED), None] {
        let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
        let (roots, token) = service.write(folder.path(), TOKEN);
        let authority = over_tls(&service.address, &roots, Proof::Token(token.clone()));
        let settings = Settings {
            lifetime: Duration::from_secs(6),
            ..settings()
        };
        let (keeper, mut state): (_, watch::Receiver<State>) = Keeper::new(
            CertificateAuthority::Tls(authority),
            settings,
            Arc::new(SystemTime::now),
            Box::new(|| 0.5),
            Arc::default(),
            Roots::none(),
        );
        let keeping = tokio::spawn(keeper.run());
        let first = within(state.wait_for(|state| state.held.is_some())).await;
        let first = first.expect("the keeper runs").held.clone().expect("one");
        match over {
            Some(text) => std::fs::write(&token, text).expect("written"),
            None => std::fs::remove_file(&token).expect("removed"),
        }
        let next = within(state.wait_for(|state| {
            state.failure.is_some() || state.held.as_ref().is_some_and(|held| !Arc::ptr_eq(held, &first))
        }));
        let next = next.await.expect("the keeper runs").clone();
        assert_eq!(next.failure, None);
        assert_eq!(next.held.expect("another").svid.id().to_string(), REVIEWS);
        keeping.abort();
    }
}

#[tokio::test]
async fn an_expired_token_is_shown_where_there_is_nothing_else() {
    let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
    let (roots, token) = service.write(folder.path(), EXPIRED);
    let authority = over_tls(&service.address, &roots, Proof::Token(token));
    let reason = ask(CertificateAuthority::Tls(authority), settings())
        .await
        .expect_err("a reason");
    assert!(reason.contains("request authenticate failure"), "{reason}");
}

#[tokio::test]
async fn a_certificate_that_was_given_is_worth_the_first_one() {
    let (service, folder) = (Service::tls().await, tempfile::tempdir().expect("a folder"));
    let (roots, _) = service.write(folder.path(), TOKEN);
    let given = |signer: &control_ca::Authority, name: &str| {
        let (chain, key) = write_pair(folder.path(), name, signer, REVIEWS);
        Proof::Certificate {
            chain: chain.into(),
            key: key.into(),
        }
    };
    let proof = given(&service.signer.load(), "given");
    let authority = over_tls(&service.address, &roots, proof);
    let held = ask(CertificateAuthority::Tls(authority), settings())
        .await
        .expect("one");
    assert_eq!(held.svid.id().to_string(), REVIEWS);
    let foreign = given(&signer(SystemTime::now()), "foreign");
    let authority = over_tls(&service.address, &roots, foreign);
    let reason = ask(CertificateAuthority::Tls(authority), settings())
        .await
        .expect_err("a reason");
    assert!(!reason.is_empty());
}

#[tokio::test]
async fn on_one_host_the_socket_proves_who_asks() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("known.sock");
    let _service = Service::unix(&path, true);
    let held = ask(CertificateAuthority::Unix(path.clone()), settings())
        .await
        .expect("one");
    assert_eq!(held.svid.id().to_string(), REVIEWS);
    let mut other = settings();
    other.account.name = "ratings".to_owned();
    let reason = ask(CertificateAuthority::Unix(path), other)
        .await
        .expect_err("a reason");
    assert!(reason.contains("may not have this identity"), "{reason}");
    let path = folder.path().join("unknown.sock");
    let _service = Service::unix(&path, false);
    let reason = ask(CertificateAuthority::Unix(path), settings())
        .await
        .expect_err("a reason");
    assert!(reason.contains("may not have this identity"), "{reason}");
}
