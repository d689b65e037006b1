//! How a certificate is kept, in paused time.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::Settings;
use agent::certificates::roots::{self, Roots};
use agent::limits::{CSR_RETRY_MAX, ROOTS_POLL_INTERVAL};
use identity::{KeyKind, PrivateKey, SubjectName};
use tokio::time::Instant;

use crate::support::{Ca, Kept, REVIEWS, reviews, sign, signer};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn settings() -> Settings {
    Settings::new(reviews())
}

#[tokio::test(start_paused = true)]
async fn a_workload_gets_a_certificate_for_its_account_and_the_key_that_it_wants() {
    for kind in [KeyKind::EcdsaP256, KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let mut kept = Kept::new(Settings {
            key: kind,
            ..settings()
        });
        let state = kept.until(|state| state.held.is_some()).await;
        let held = state.held.expect("a certificate");
        assert_eq!(held.svid.id().to_string(), REVIEWS);
        let wanted = PrivateKey::generate(kind).expect("a key");
        assert_eq!(held.svid.key().public_key().kind(), wanted.public_key().kind());
        assert_eq!(held.roots.len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_certificate_is_renewed_at_half_of_its_life_with_a_new_key() {
    let mut kept = Kept::new(settings());
    let first = kept.until(|state| state.held.is_some()).await.held.expect("one");
    let began = Instant::now();
    let next = kept.until(|state| state.held.as_ref().is_some_and(|held| !Arc::ptr_eq(held, &first)));
    next.await;
    let after = began.elapsed();
    assert!(
        (DAY / 2 - Duration::from_secs(60)..=DAY / 2 + Duration::from_secs(60)).contains(&after),
        "{after:?}"
    );
    assert_eq!((kept.ca.asked(), kept.ca.keys.lock().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn while_the_authority_is_away_the_certificate_stays_and_waits_grow_up_to_a_limit() {
    let mut kept = Kept::new(settings());
    let first = kept.until(|state| state.held.is_some()).await.held.expect("one");
    kept.ca.set_away(true);
    let failing = kept.until(|state| state.failures == 20).await;
    assert!(Arc::ptr_eq(&first, failing.held.as_ref().expect("the old one")));
    let reason = failing.failure.expect("a reason");
    assert!(reason.contains("ca is not reached: it is away"), "{reason}");
    let times = kept.ca.times.lock().clone();
    let waits: Vec<_> = times[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= CSR_RETRY_MAX), "{waits:?}");
    assert!(*waits.last().expect("a wait") > CSR_RETRY_MAX / 2, "{waits:?}");
    let long_after = first.svid.expires() + 2 * CSR_RETRY_MAX;
    let expired = kept.until(|state| state.failures > 1 && state.next.is_some_and(|next| next > long_after));
    assert!(Arc::ptr_eq(
        &first,
        expired.await.held.as_ref().expect("the old one")
    ));
    let printed = kept.printed();
    assert!(
        printed.contains("cert_expiry_seconds{resource_name=\"default\"} -"),
        "{printed}"
    );
    kept.ca.set_away(false);
    let mended = kept.until(|state| state.failures == 0).await;
    assert!(!Arc::ptr_eq(&first, mended.held.as_ref().expect("a new one")));
    assert!(mended.failure.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_counted_has_the_names_of_istios_agent() {
    let mut kept = Kept::new(settings());
    kept.ca.set_away(true);
    kept.until(|state| state.failures == 2).await;
    kept.ca.set_away(false);
    kept.until(|state| state.held.is_some()).await;
    let printed = kept.printed();
    for line in [
        "num_outgoing_requests{request_type=\"csr\"} 3",
        "num_failed_outgoing_requests{request_type=\"csr\"} 2",
        "num_file_secret_failures_total 0",
    ] {
        assert!(printed.contains(line), "{printed}");
    }
    let left = printed
        .lines()
        .find_map(|line| line.strip_prefix("cert_expiry_seconds{resource_name=\"default\"} "));
    let left: u64 = left.expect("a time").parse().expect("a number");
    assert!((86_300..=86_400).contains(&left), "{left}");
}

/// Makes an authority answer wrongly.
type Change = Box<dyn Fn(&Ca)>;

/// What an authority may send that is refused whole, and a word of the reason.
fn wrong_answers() -> Vec<(&'static str, Change)> {
    let answer = |ca: &Ca, change: fn(Vec<String>) -> Vec<String>| {
        ca.answer(move |signer, request| change(sign(signer, request, REVIEWS)));
    };
    vec![
        ("0 parts", Box::new(move |ca| answer(ca, |_| Vec::new()))),
        (
            "1 parts",
            Box::new(move |ca| answer(ca, |parts| parts[..1].to_vec())),
        ),
        (
            "the roots in the authority's answer",
            Box::new(move |ca| {
                answer(ca, |mut parts| {
                    let half = parts[1].len() / 2;
                    parts[1].truncate(half);
                    parts
                });
            }),
        ),
        (
            "the roots in the authority's answer",
            Box::new(move |ca| {
                answer(ca, |mut parts| {
                    parts[1].clear();
                    parts
                });
            }),
        ),
        (
            "is for spiffe://cluster.local/ns/default/sa/ratings",
            Box::new(|ca| {
                ca.answer(|signer, request| {
                    sign(signer, request, "spiffe://cluster.local/ns/default/sa/ratings")
                });
            }),
        ),
        (
            "not trusted",
            Box::new(|ca| {
                let other = signer(SystemTime::now());
                ca.answer(move |signer, request| {
                    let mut parts = sign(signer, request, REVIEWS);
                    parts[1] = other.roots_pem();
                    parts
                });
            }),
        ),
        (
            "does not belong to the certificate",
            Box::new(|ca| {
                ca.answer(|signer, request| {
                    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
                    let names = [SubjectName::Uri(REVIEWS.to_owned())];
                    let issued = signer.certify(key.public_key(), &names, HOUR, request.now);
                    issued.expect("a certificate").into_pem_chain().expect("PEM")
                });
            }),
        ),
        // One of the two clocks is wrong.
        (
            "not yet valid",
            Box::new(|ca| {
                ca.answer(|signer, request| {
                    let request = agent::certificates::SigningRequest {
                        csr: request.csr.clone(),
                        lifetime: HOUR,
                        now: request.now + HOUR,
                        account: request.account,
                        held: None,
                    };
                    sign(signer, &request, REVIEWS)
                });
            }),
        ),
        (
            "expired",
            Box::new(|ca| {
                ca.answer(|signer, request| {
                    let past = request.now - 2 * HOUR;
                    let request = agent::certificates::SigningRequest {
                        csr: request.csr.clone(),
                        lifetime: HOUR,
                        now: past,
                        account: request.account,
                        held: None,
                    };
                    sign(signer, &request, REVIEWS)
                });
            }),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_wrong_answer_is_refused_whole_and_the_old_certificate_stays() {
    for (word, change) in wrong_answers() {
        let ca = Ca::new(signer(SystemTime::now() - DAY));
        let mut kept = Kept::start(&ca, settings(), Roots::none());
        let first = kept.until(|state| state.held.is_some()).await.held.expect("one");
        change(&ca);
        let refused = kept.until(|state| state.failures > 0).await;
        let reason = refused.failure.expect("a reason");
        assert!(reason.contains(word), "{word}: {reason}");
        assert!(
            Arc::ptr_eq(&first, refused.held.as_ref().expect("the old one")),
            "{word}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn new_roots_in_the_file_bring_a_new_certificate_at_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("root-cert.pem");
    let ca = Ca::new(signer(SystemTime::now()));
    let old = ca.signer.lock().roots_pem();
    std::fs::write(&path, &old).expect("written");
    let (roots, following) = roots::of_file(path.clone());
    let following = tokio::spawn(following);
    let mut kept = Kept::start(&ca, settings(), roots);
    let first = kept.until(|state| state.held.is_some()).await.held.expect("one");
    tokio::time::sleep(ROOTS_POLL_INTERVAL * 3).await;
    assert_eq!(ca.asked(), 1, "the first roots are no change");
    let next = signer(SystemTime::now());
    std::fs::write(&path, format!("{old}{}", next.roots_pem())).expect("written");
    *ca.signer.lock() = next;
    let began = Instant::now();
    kept.until(|state| state.held.as_ref().is_some_and(|held| !Arc::ptr_eq(held, &first)))
        .await;
    assert!(
        began.elapsed() <= ROOTS_POLL_INTERVAL * 2,
        "{:?}",
        began.elapsed()
    );
    following.abort();
}
