//! Making authorities, keeping them in Secrets, and plugging them in.

mod common;

use std::time::Duration;

use common::{DAY, HOUR, cacerts, now, params, root, self_signed, sign, trust_domain};
use control_ca::{Authority, AuthorityError, Origin, SecretData, SelfSigned};
use identity::{Certificate, ChainError, KeyError, KeyKind, KeyType, path_to_root};
use rcgen::{CertificateRevocationListParams, IsCa, Issuer, KeyIdMethod, RevokedCertParams, SerialNumber};

#[test]
fn a_self_signed_root_is_named_after_the_trust_domain_and_lives_ten_years() {
    let now = now();
    let authority = self_signed(now);
    let root = authority.certificate();
    assert_eq!(root.subject(), "O=cluster.local");
    assert_eq!(root.issuer(), root.subject());
    assert!(root.is_authority() && root.may_sign_certificates());
    assert_eq!(*root.public_key().kind(), KeyType::EcdsaP256);
    assert_eq!(root.not_after(), now + DAY * 3650);
    assert_eq!(root.not_before(), now - Duration::from_secs(120));
    assert_eq!(root.serial().len(), 32);
    assert_eq!(authority.roots(), std::slice::from_ref(root));
    assert!(authority.intermediates().is_empty());
    assert_eq!(authority.origin(), Origin::SelfSigned);
    assert_eq!(authority.expires(), root.not_after());
    assert_eq!(root.check_issued_by(root), Ok(()));
}

#[test]
fn a_self_signed_root_has_the_key_that_was_asked_for() {
    for (key, expected) in [
        (KeyKind::EcdsaP384, KeyType::EcdsaP384),
        (KeyKind::Rsa2048, KeyType::Rsa { bits: 2048 }),
    ] {
        let settings = SelfSigned {
            key,
            ..SelfSigned::for_trust_domain(&trust_domain())
        };
        let authority = Authority::self_signed(&settings, now()).expect("an authority");
        assert_eq!(*authority.certificate().public_key().kind(), expected);
        let root = authority.certificate();
        assert_eq!(root.check_issued_by(root), Ok(()));
        let leaf = sign(&authority, HOUR, now()).leaf().expect("a leaf");
        assert_eq!(leaf.check_issued_by(root), Ok(()));
    }
}

#[test]
fn roots_without_a_name_or_with_an_impossible_lifetime_are_not_made() {
    let made = |change: fn(&mut SelfSigned)| {
        let mut settings = SelfSigned::for_trust_domain(&trust_domain());
        change(&mut settings);
        Authority::self_signed(&settings, now()).expect_err("refused")
    };
    assert_eq!(made(|s| s.organization.clear()), AuthorityError::Organization);
    assert_eq!(
        made(|s| s.organization = "x".repeat(65)),
        AuthorityError::Organization
    );
    for lifetime in [Duration::ZERO, Duration::MAX] {
        let mut settings = SelfSigned::for_trust_domain(&trust_domain());
        settings.lifetime = lifetime;
        let error = Authority::self_signed(&settings, now()).expect_err("refused");
        assert_eq!(error, AuthorityError::Lifetime(lifetime));
    }
}

#[test]
fn a_self_signed_authority_comes_back_from_its_secret() {
    let authority = self_signed(now());
    let data = authority.to_self_signed_secret().expect("a Secret");
    let keys: Vec<&str> = data.keys().map(String::as_str).collect();
    assert_eq!(
        keys,
        [
            "ca-cert.pem",
            "ca-key.pem",
            "cert-chain.pem",
            "key.pem",
            "root-cert.pem"
        ]
    );
    assert!(
        data["cert-chain.pem"].is_empty() && data["key.pem"].is_empty() && data["root-cert.pem"].is_empty()
    );
    let back = Authority::from_self_signed_secret(&data, now()).expect("the same authority");
    assert_eq!(back.certificate(), authority.certificate());
    assert_eq!(back.roots(), authority.roots());
    let leaf = sign(&back, HOUR, now()).leaf().expect("a leaf");
    assert_eq!(leaf.check_issued_by(authority.certificate()), Ok(()));
}

#[test]
fn a_renewed_root_and_the_old_one_are_both_trusted_and_both_verify_every_leaf() {
    let begin = now();
    let old = self_signed(begin);
    let before = sign(&old, DAY, begin).leaf().expect("a leaf");
    let later = begin + HOUR;
    let new = old.rotated(DAY * 3650, later).expect("a renewed authority");
    let after = sign(&new, DAY, later).leaf().expect("a leaf");
    assert_eq!(
        new.roots(),
        [new.certificate().clone(), old.certificate().clone()]
    );
    assert_eq!(new.certificate().subject(), "O=cluster.local");
    assert_ne!(new.certificate().serial(), old.certificate().serial());
    for leaf in [&before, &after] {
        for root in new.roots() {
            let path = path_to_root(leaf, &[], std::slice::from_ref(root), later).expect("a path");
            assert_eq!(path.len(), 2);
        }
    }
    let data = new.to_self_signed_secret().expect("a Secret");
    let back = Authority::from_self_signed_secret(&data, later).expect("the same authority");
    assert_eq!(back.roots(), new.roots());
}

#[test]
fn an_expired_old_root_is_dropped_at_the_next_renewal() {
    let begin = now();
    let mut settings = SelfSigned::for_trust_domain(&trust_domain());
    settings.lifetime = HOUR;
    let first = Authority::self_signed(&settings, begin).expect("an authority");
    let second = first
        .rotated(HOUR, begin + HOUR / 2)
        .expect("a renewed authority");
    assert_eq!(second.roots().len(), 2);
    let third = second
        .rotated(HOUR, begin + HOUR * 5 / 4)
        .expect("a renewed authority");
    assert_eq!(
        third.roots(),
        [third.certificate().clone(), second.certificate().clone()]
    );
}

#[test]
fn a_plugged_in_authority_signs_with_a_chain_to_its_root() {
    let now = now();
    let (root, middle, signing, data) = cacerts(now);
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(authority.origin(), Origin::PluggedIn);
    assert_eq!(
        authority.intermediates(),
        [signing.certificate(), middle.certificate()]
    );
    assert_eq!(authority.roots(), [root.certificate()]);
    let issued = sign(&authority, HOUR, now);
    let leaf = issued.leaf().expect("a leaf");
    let chain = issued.into_pem_chain().expect("a chain");
    assert_eq!(chain, [leaf.pem(), signing.pem, middle.pem, root.pem]);
    let path = path_to_root(&leaf, authority.intermediates(), authority.roots(), now).expect("a path");
    assert_eq!(path.len(), 4);
}

#[test]
fn a_chain_without_the_signing_certificate_or_without_any_works_as_well() {
    let now = now();
    let (_, middle, signing, mut data) = cacerts(now);
    data.insert("cert-chain.pem".to_owned(), middle.pem.clone().into_bytes());
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(
        authority.intermediates(),
        [signing.certificate(), middle.certificate()]
    );
    let direct = root(params("root", now));
    let data = SecretData::from([
        ("ca-cert.pem".to_owned(), direct.pem.clone().into_bytes()),
        ("ca-key.pem".to_owned(), direct.key.serialize_pem().into_bytes()),
        ("root-cert.pem".to_owned(), direct.pem.into_bytes()),
        ("cert-chain.pem".to_owned(), Vec::new()),
    ]);
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert!(authority.intermediates().is_empty());
}

#[test]
fn the_form_of_a_tls_secret_is_taken_too() {
    let now = now();
    let (root, middle, signing, _) = cacerts(now);
    let data = SecretData::from([
        (
            "tls.crt".to_owned(),
            format!("{}{}", signing.pem, middle.pem).into_bytes(),
        ),
        ("tls.key".to_owned(), signing.key.serialize_pem().into_bytes()),
        ("ca.crt".to_owned(), root.pem.clone().into_bytes()),
    ]);
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(*authority.certificate(), signing.certificate());
    assert_eq!(
        authority.intermediates(),
        [signing.certificate(), middle.certificate()]
    );
}

#[test]
fn several_roots_are_handed_out_and_one_of_them_is_enough() {
    let now = now();
    let (first, _, _, mut data) = cacerts(now);
    let second = root(params("second root", now));
    data.insert(
        "root-cert.pem".to_owned(),
        format!("{}{}{}", second.pem, first.pem, first.pem).into_bytes(),
    );
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(authority.roots(), [second.certificate(), first.certificate()]);
    assert_eq!(authority.roots_pem(), format!("{}{}", second.pem, first.pem));
}

#[test]
fn an_authority_with_a_corporate_name_signs_leaves_that_find_it() {
    let read = |text: &[u8]| text.to_vec();
    let ca = include_bytes!("data/corp-ca.pem");
    let data = SecretData::from([
        ("ca-cert.pem".to_owned(), read(ca)),
        (
            "ca-key.pem".to_owned(),
            read(include_bytes!("data/corp-ca-key.pem")),
        ),
        ("root-cert.pem".to_owned(), read(ca)),
        ("ca-crl.pem".to_owned(), read(include_bytes!("data/corp-crl.pem"))),
    ]);
    // The files are from a day in November 2026, and valid for a hundred years.
    let now = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = Authority::from_plugged_in(&data, now).expect("an authority");
    assert_eq!(authority.revocations().len(), 1);
    let leaf = sign(&authority, HOUR, now).leaf().expect("a leaf");
    assert_eq!(leaf.issuer(), "DC=com, DC=example, OU=one, OU=two + CN=Corp CA");
    assert_eq!(leaf.check_issued_by(authority.certificate()), Ok(()));
}

/// Plugs in `cacerts` with one entry replaced, or taken away.
fn spoiled(entry: &str, content: Option<Vec<u8>>) -> AuthorityError {
    let (.., mut data) = cacerts(now());
    match content {
        Some(content) => data.insert(entry.to_owned(), content),
        None => data.remove(entry),
    };
    Authority::from_plugged_in(&data, now()).expect_err(entry)
}

#[test]
fn what_is_missing_or_damaged_is_named() {
    for entry in ["ca-cert.pem", "ca-key.pem", "root-cert.pem"] {
        for content in [None, Some(Vec::new()), Some(b" \n".to_vec())] {
            let error = spoiled(entry, content);
            assert!(
                matches!(error, AuthorityError::Missing(name) if name == entry),
                "{error:?}"
            );
        }
        let error = spoiled(entry, Some(b"-----BEGIN CERTIFICATE-----\nAAAA\n".to_vec()));
        assert!(
            matches!(error, AuthorityError::Certificate { entry: name, .. } | AuthorityError::Key { entry: name, .. } if name == entry),
            "{error:?}"
        );
    }
    let error = spoiled("cert-chain.pem", Some(b"-----BEGIN".to_vec()));
    assert!(matches!(
        error,
        AuthorityError::Certificate {
            entry: "cert-chain.pem",
            ..
        }
    ));
    let error = spoiled("ca-crl.pem", Some(include_bytes!("data/corp-crl.pem").to_vec()));
    assert!(matches!(
        error,
        AuthorityError::Revocation {
            entry: "ca-crl.pem",
            ..
        }
    ));
}

#[test]
fn a_key_of_another_authority_is_refused() {
    let other = root(params("other", now()));
    let error = spoiled("ca-key.pem", Some(other.key.serialize_pem().into_bytes()));
    assert!(matches!(
        error,
        AuthorityError::Key {
            entry: "ca-key.pem",
            source: KeyError::Mismatch { .. }
        }
    ));
}

#[test]
fn a_chain_that_leads_elsewhere_or_nowhere_is_refused() {
    let other = root(params("corporate root", now()));
    let error = spoiled("root-cert.pem", Some(other.pem.into_bytes()));
    assert!(
        matches!(error, AuthorityError::Chain(ChainError::NotIssuedBy { .. })),
        "{error:?}"
    );
    let error = spoiled("cert-chain.pem", None);
    assert!(
        matches!(error, AuthorityError::Chain(ChainError::NoPath { .. })),
        "{error:?}"
    );
}

#[test]
fn a_workloads_certificate_cannot_be_plugged_in() {
    let now = now();
    let (_, middle, _, mut data) = cacerts(now);
    let mut leaf = params("leaf", now);
    leaf.is_ca = IsCa::NoCa;
    let leaf = middle.sign(leaf);
    data.insert("ca-cert.pem".to_owned(), leaf.pem.into_bytes());
    data.insert("ca-key.pem".to_owned(), leaf.key.serialize_pem().into_bytes());
    let error = Authority::from_plugged_in(&data, now).expect_err("refused");
    assert!(
        matches!(error, AuthorityError::NotAnAuthority { .. }),
        "{error:?}"
    );
}

#[test]
fn an_authority_that_has_expired_or_will_begin_later_is_refused() {
    let now = now();
    let (.., data) = cacerts(now);
    for (moment, word) in [(now + DAY * 31, "expired"), (now - DAY * 2, "not yet valid")] {
        let error = Authority::from_plugged_in(&data, moment).expect_err("refused");
        assert!(
            matches!(&error, AuthorityError::Chain(ChainError::NotValidNow { what, .. }) if *what == word),
            "{error:?}"
        );
    }
    let data = self_signed(now).to_self_signed_secret().expect("a Secret");
    assert!(Authority::from_self_signed_secret(&data, now + DAY * 3651).is_err());
}

#[test]
fn an_authority_that_its_own_list_revokes_is_refused() {
    let now = now();
    let (_, middle, signing, mut data) = cacerts(now);
    let serial: Vec<u8> = (0..signing.certificate().serial().len())
        .step_by(2)
        .filter_map(|at| u8::from_str_radix(&signing.certificate().serial()[at..at + 2], 16).ok())
        .collect();
    let list = CertificateRevocationListParams {
        this_update: now.into(),
        next_update: (now + DAY).into(),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: vec![RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: now.into(),
            reason_code: None,
            invalidity_date: None,
        }],
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let issuer = Issuer::from_params(&middle.params, &middle.key);
    let text = list.signed_by(&issuer).expect("a list").pem().expect("PEM");
    data.insert("ca-crl.pem".to_owned(), text.into_bytes());
    let error = Authority::from_plugged_in(&data, now).expect_err("refused");
    assert!(matches!(error, AuthorityError::Revoked { .. }), "{error:?}");
}

#[test]
fn no_output_of_an_authority_shows_its_key() {
    let authority = self_signed(now());
    let data = authority.to_self_signed_secret().expect("a Secret");
    let key = String::from_utf8(data["ca-key.pem"].clone()).expect("text");
    let secret = key.lines().nth(1).expect("a line of base64");
    let other = self_signed(now());
    let mut mixed = data.clone();
    mixed.insert("ca-cert.pem".to_owned(), other.certificate().pem().into_bytes());
    let mismatch = Authority::from_self_signed_secret(&mixed, now()).expect_err("refused");
    let issued = sign(&authority, HOUR, now());
    let mut damaged = data.clone();
    damaged.insert("ca-key.pem".to_owned(), key.as_bytes()[..100].to_vec());
    let damaged = Authority::from_self_signed_secret(&damaged, now()).expect_err("refused");
    for output in [
        format!("{authority:?} {authority:#?}"),
        format!("{mismatch} {mismatch:?}"),
        format!("{damaged} {damaged:?}"),
        format!("{issued:?}"),
        authority.roots_pem(),
    ] {
        assert!(!output.contains(secret), "{output}");
    }
    let certificates = Certificate::chain_from_pem(authority.roots_pem().as_bytes()).expect("roots");
    assert_eq!(certificates.len(), 1);
}

#[test]
fn roots_that_are_trusted_together_come_last_in_one_text() {
    let now = now();
    let old = self_signed(now - DAY);
    let authority = old.rotated(DAY * 100, now).expect("a new root");
    let chain = sign(&authority, HOUR, now).into_pem_chain().expect("a chain");
    let [_, roots] = chain.as_slice() else {
        panic!("{} parts", chain.len())
    };
    assert_eq!(*roots, authority.roots_pem());
    let read = identity::Certificate::bundle_from_pem(roots.as_bytes()).expect("roots");
    assert_eq!(read, authority.roots());
    assert_eq!(read.len(), 2);
}
