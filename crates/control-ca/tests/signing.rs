//! What a signed certificate says, whatever its request wished for.

mod common;

use std::time::Duration;

use common::{DAY, HOUR, REVIEWS, cacerts, now, request, self_signed, sign, uri};
use control_ca::{Authority, Decision, Lifetimes, RootRotation, SelfSigned, SignError, Why};
use identity::{CertificateRequest, KeyKind, PrivateKey, SubjectName, request_certificate};

fn read(text: &str) -> CertificateRequest {
    CertificateRequest::from_pem(text.as_bytes()).expect("a request")
}

#[test]
fn a_leaf_has_the_names_that_the_authority_decides_and_none_that_the_request_wishes_for() {
    let now = now();
    let authority = self_signed(now);
    let (key, text) = request(&[
        uri("spiffe://cluster.local/ns/kube-system/sa/admin"),
        SubjectName::Dns("istiod.istio-system.svc".to_owned()),
    ]);
    let issued = authority
        .sign(&read(&text), &[uri(REVIEWS)], HOUR, now)
        .expect("a certificate");
    let leaf = issued.leaf().expect("a leaf");
    assert_eq!(leaf.names(), [uri(REVIEWS)]);
    assert_eq!(leaf.spiffe_id().map(|id| id.to_string()), Ok(REVIEWS.to_owned()));
    assert_eq!(leaf.subject(), "");
    assert_eq!(leaf.issuer(), "O=cluster.local");
    assert!(!leaf.is_authority() && !leaf.may_sign_certificates());
    assert_eq!(leaf.public_key(), key.public_key());
    assert_eq!(leaf.not_before(), now - Duration::from_secs(120));
    assert_eq!(leaf.not_after(), now + HOUR);
    assert_eq!(issued.not_after(), leaf.not_after());
    assert_eq!(leaf.check_issued_by(authority.certificate()), Ok(()));
    assert_eq!(
        issued.into_pem_chain(),
        Ok(vec![leaf.pem(), authority.certificate().pem()])
    );
}

#[test]
fn every_kind_of_name_is_written_as_it_is_read() {
    let names = [
        uri(REVIEWS),
        SubjectName::Dns("istiod.istio-system.svc".to_owned()),
        SubjectName::Ip([127, 0, 0, 1].into()),
        SubjectName::Ip("::1".parse().expect("an address")),
        SubjectName::Email("a@b".to_owned()),
    ];
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let issued = self_signed(now()).certify(key.public_key(), &names, HOUR, now());
    assert_eq!(
        issued.expect("a certificate").leaf().expect("a leaf").names(),
        names
    );
}

#[test]
fn every_kind_of_key_is_certified() {
    let authority = self_signed(now());
    for kind in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Rsa2048,
        KeyKind::Rsa3072,
    ] {
        let key = PrivateKey::generate(kind).expect("a key");
        let request = read(&request_certificate(&key, &[]).expect("a request"));
        let issued = authority
            .sign(&request, &[uri(REVIEWS)], HOUR, now())
            .expect("a certificate");
        assert_eq!(issued.leaf().expect("a leaf").public_key(), key.public_key());
    }
}

#[test]
fn serial_numbers_are_positive_random_and_sixteen_bytes_long() {
    let authority = self_signed(now());
    let serials: std::collections::BTreeSet<String> = (0..20)
        .map(|_| {
            sign(&authority, HOUR, now())
                .leaf()
                .expect("a leaf")
                .serial()
                .to_owned()
        })
        .collect();
    assert_eq!(serials.len(), 20);
    assert!(serials.iter().all(|serial| serial.len() == 32));
}

#[test]
fn a_leaf_ends_no_later_than_any_certificate_above_it() {
    let now = now();
    let (.., data) = cacerts(now);
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(authority.expires(), now + DAY * 30);
    assert_eq!(sign(&authority, DAY * 90, now).not_after(), now + DAY * 30);
    assert_eq!(sign(&authority, DAY, now).not_after(), now + DAY);
    assert_eq!(sign(&authority, Duration::MAX, now).not_after(), now + DAY * 30);
}

#[test]
fn an_authority_that_has_expired_signs_nothing() {
    let now = now();
    let authority = self_signed(now);
    let request = read(&request(&[]).1);
    let sign = |at| {
        authority
            .sign(&request, &[uri(REVIEWS)], HOUR, at)
            .map(|i| i.not_after())
    };
    let end = authority.expires();
    assert_eq!(sign(end - Duration::from_secs(1)), Ok(end));
    assert_eq!(sign(end), Err(SignError::Expired));
    assert_eq!(SignError::Expired.label(), "CA_NOT_READY");
}

#[test]
fn a_request_to_become_an_authority_is_refused() {
    let authority = self_signed(now());
    for text in [
        &include_str!("data/p256-ca.csr"),
        &include_str!("data/p256-certsign.csr"),
    ] {
        let error = authority
            .sign(&read(text), &[uri(REVIEWS)], HOUR, now())
            .expect_err("refused");
        assert_eq!(error, SignError::WantsAuthority);
        assert_eq!(error.label(), "CSR_ERROR");
    }
}

#[test]
fn a_certificate_for_nobody_or_for_nothing_or_without_end_is_refused() {
    let authority = self_signed(now());
    let request = read(&request(&[]).1);
    let sign = |names: &[SubjectName], lifetime| {
        authority
            .sign(&request, names, lifetime, now())
            .expect_err("refused")
    };
    assert_eq!(sign(&[], HOUR), SignError::Names(0));
    assert_eq!(sign(&vec![uri(REVIEWS); 33], HOUR), SignError::Names(33));
    assert_eq!(sign(&[uri(REVIEWS)], Duration::ZERO), SignError::Lifetime(0));
    for wrong in ["", "a b", "ä", "a\0b"] {
        let name = SubjectName::Dns(wrong.to_owned());
        assert_eq!(sign(std::slice::from_ref(&name), HOUR), SignError::Name(name));
    }
}

#[test]
fn lifetimes_are_the_default_for_nothing_and_at_most_the_maximum() {
    let lifetimes = Lifetimes::default();
    assert_eq!(lifetimes.grant(0), Ok(DAY));
    assert_eq!(lifetimes.grant(30), Ok(Duration::from_secs(30)));
    assert_eq!(lifetimes.grant(i64::MAX), Ok(DAY * 90));
    for seconds in [-1, i64::MIN] {
        assert_eq!(lifetimes.grant(seconds), Err(SignError::Lifetime(seconds)));
    }
    assert_eq!(SignError::Lifetime(-1).label(), "TTL_ERROR");
}

#[test]
fn a_root_is_renewed_when_its_grace_period_begins_and_not_before() {
    let begin = now();
    let settings = SelfSigned {
        lifetime: HOUR * 100 - Duration::from_secs(120),
        ..SelfSigned::for_trust_domain(&common::trust_domain())
    };
    let authority = Authority::self_signed(&settings, begin).expect("an authority");
    let root = authority.certificate();
    let rotation = RootRotation::default();
    let end = root.not_after();
    let decide = |left: Duration| rotation.decide(end - left, root);
    assert_eq!(decide(HOUR * 90), Decision::Keep { check_in: HOUR });
    // The interval is cut so that the beginning of the grace period is not missed.
    assert_eq!(
        decide(HOUR * 20 + HOUR / 2),
        Decision::Keep { check_in: HOUR / 2 }
    );
    let second = Duration::from_secs(1);
    assert_eq!(decide(HOUR * 20 + second), Decision::Keep { check_in: second });
    for left in [HOUR * 20, HOUR, Duration::ZERO] {
        assert_eq!(decide(left), Decision::Rotate(Why::Grace { left }));
    }
    assert_eq!(
        rotation.decide(end + second, root),
        Decision::Rotate(Why::Expired)
    );
}

#[test]
fn grace_percentages_beyond_their_range_are_harmless() {
    let begin = now();
    let authority = self_signed(begin);
    let decide = |grace_percent| {
        RootRotation {
            grace_percent,
            ..RootRotation::default()
        }
        .decide(begin, authority.certificate())
    };
    assert_eq!(decide(0), Decision::Keep { check_in: HOUR });
    for percent in [100, u32::MAX] {
        assert!(
            matches!(decide(percent), Decision::Rotate(Why::Grace { .. })),
            "{percent}"
        );
    }
}

#[test]
fn the_first_look_at_a_root_is_jittered() {
    let rotation = RootRotation::default();
    assert_eq!(rotation.first_check(None), HOUR);
    assert_eq!(rotation.first_check(Some(0.0)), Duration::ZERO);
    assert_eq!(rotation.first_check(Some(0.25)), HOUR / 4);
    assert_eq!(rotation.first_check(Some(7.0)), HOUR);
}
