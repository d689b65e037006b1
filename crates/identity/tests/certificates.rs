//! Reading certificates, chains, bundles and revocation lists.

mod common;

use std::time::Duration;

use common::{HOUR, Party, authority, leaf, now, self_signed};
use identity::{
    Certificate, CertificateError, ChainError, KeyType, PemError, RevocationError, RevocationList,
    SubjectName, path_to_root,
};
use rcgen::{BasicConstraints, CustomExtension, IsCa, KeyUsagePurpose, SanType};

const CORP_CA: &[u8] = include_bytes!("data/corp-ca.pem");
const CORP_LEAF: &[u8] = include_bytes!("data/corp-leaf.pem");
const CORP_CRL: &[u8] = include_bytes!("data/corp-crl.pem");

fn corp(text: &[u8]) -> Certificate {
    Certificate::from_pem(text).expect("a certificate by openssl")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn a_certificate_by_openssl_reads_as_openssl_prints_it() {
    let read = corp(CORP_LEAF);
    assert_eq!(read.subject(), "");
    assert_eq!(read.issuer(), "DC=com, DC=example, OU=one, OU=two + CN=Corp CA");
    assert_eq!(read.serial(), "ab01");
    assert_eq!(
        read.names(),
        [SubjectName::Uri("spiffe://td/ns/a/sa/b".to_owned())]
    );
    assert_eq!(
        hex(&read.sha256()),
        "3b87af8eac10e1dd18fad76caeb08c15288f5d6ab2bc82b029c754986a325170"
    );
    assert_eq!(
        hex(&read.public_key_sha256()),
        "0a0ed8f460d7c6e105675ee6e3dbf7f5bf414c323e77ab2536df6f9770e2fc10"
    );
    assert_eq!(*read.public_key().kind(), KeyType::EcdsaP384);
    assert!(!read.is_authority());
    assert_eq!(
        read.subject_key_id().map(hex).as_deref(),
        Some("174b3074b8e848118c312a708b919786defd5184")
    );
    let issuer = corp(CORP_CA);
    assert!(issuer.is_authority() && issuer.may_sign_certificates());
    assert_eq!(read.check_issued_by(&issuer), Ok(()));
}

#[test]
fn signatures_with_pss_are_believed_and_those_with_sha1_are_not() {
    let pss = corp(include_bytes!("data/pss-ca.pem"));
    assert_eq!(pss.check_issued_by(&pss), Ok(()));
    let sha1 = corp(include_bytes!("data/sha1-ca.pem"));
    assert!(matches!(
        sha1.check_issued_by(&sha1),
        Err(ChainError::NotIssuedBy {
            reason: "the signature does not verify",
            ..
        })
    ));
}

#[test]
fn a_certificate_prints_back_to_the_same_pem() {
    assert_eq!(corp(CORP_LEAF).pem().as_bytes(), CORP_LEAF);
}

#[test]
fn every_kind_of_subject_name_is_read() {
    let mut params = leaf(&["spiffe://td/a"]);
    params.subject_alt_names.extend([
        SanType::DnsName("a.example.com".try_into().expect("ASCII")),
        SanType::IpAddress([10, 0, 0, 1].into()),
        SanType::IpAddress("fd00::1".parse().expect("an address")),
        SanType::Rfc822Name("a@example.com".try_into().expect("ASCII")),
    ]);
    let printed: Vec<String> = self_signed(params)
        .certificate
        .names()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        printed,
        [
            "URI:spiffe://td/a",
            "DNS:a.example.com",
            "IP:10.0.0.1",
            "IP:fd00::1",
            "email:a@example.com"
        ]
    );
}

#[test]
fn validity_includes_both_its_ends_and_nothing_else() {
    let read = self_signed(leaf(&[])).certificate;
    assert_eq!(read.not_before(), now() - HOUR);
    assert_eq!(read.not_after(), now() + HOUR);
    for (moment, valid) in [
        (now() - HOUR - Duration::from_millis(1), false),
        (now() - HOUR, true),
        (now() + HOUR, true),
        (now() + HOUR + Duration::from_millis(999), true),
        (now() + HOUR + Duration::from_secs(1), false),
    ] {
        assert_eq!(read.is_valid_at(moment), valid, "{moment:?}");
    }
}

#[test]
fn an_svid_has_exactly_one_uri_and_it_is_a_spiffe_id() {
    let id = |uris: &[&str]| self_signed(leaf(uris)).certificate.spiffe_id();
    assert_eq!(
        id(&["spiffe://td/ns/a/sa/b"]).map(|id| id.to_string()),
        Ok("spiffe://td/ns/a/sa/b".to_owned())
    );
    assert!(matches!(
        id(&[]),
        Err(CertificateError::NotOneUri { uris: 0, .. })
    ));
    assert!(matches!(
        id(&["spiffe://td/a", "spiffe://td/b"]),
        Err(CertificateError::NotOneUri { uris: 2, .. })
    ));
    assert!(matches!(
        id(&["https://td/a"]),
        Err(CertificateError::NotSpiffe { .. })
    ));
}

#[test]
fn chains_that_are_empty_truncated_mixed_or_too_long_are_refused() {
    let read = Certificate::chain_from_pem;
    assert_eq!(read(&[CORP_LEAF, CORP_CA].concat()).map(|c| c.len()), Ok(2));
    assert_eq!(read(b"").err(), Some(PemError::Empty("CERTIFICATE").into()));
    let cut = CORP_LEAF.len() - 30;
    assert!(matches!(
        read(&CORP_LEAF[..cut]),
        Err(CertificateError::Pem(PemError::Truncated { .. }))
    ));
    let mixed = [CORP_LEAF, include_bytes!("data/p384-pkcs8.pem")].concat();
    assert!(matches!(
        read(&mixed),
        Err(CertificateError::Pem(PemError::Unexpected { .. }))
    ));
    assert!(matches!(
        read(&CORP_LEAF.repeat(11)),
        Err(CertificateError::Pem(PemError::TooMany { maximum: 10 }))
    ));
}

#[test]
fn a_certificate_with_bytes_after_it_or_cut_short_is_refused() {
    let der = corp(CORP_LEAF).der().to_vec();
    let longer = [der.as_slice(), &[0]].concat();
    assert!(matches!(
        Certificate::from_der(&longer),
        Err(CertificateError::Damaged(_))
    ));
    for cut in 0..der.len() {
        assert!(Certificate::from_der(&der[..cut]).is_err(), "{cut}");
    }
    assert!(matches!(
        Certificate::from_der(&vec![0x30; (64 << 10) + 1]),
        Err(CertificateError::TooLarge(_))
    ));
}

#[test]
fn flipping_any_byte_never_panics_and_never_keeps_the_signature() {
    let issuer = corp(CORP_CA);
    let der = corp(CORP_LEAF).der().to_vec();
    for (at, bit) in (0..der.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
        let mut changed = der.clone();
        changed[at] ^= bit;
        if let Ok(read) = Certificate::from_der(&changed) {
            assert!(read.check_issued_by(&issuer).is_err(), "byte {at}");
        }
    }
}

/// A root, an authority below it, and a leaf below that.
fn three() -> (Party, Party, Party) {
    let root = self_signed(authority("root"));
    let middle = root.sign(authority("middle"));
    let leaf = middle.sign(leaf(&["spiffe://td/ns/a/sa/b"]));
    (root, middle, leaf)
}

fn path(leaf: &Party, intermediates: &[&Party], roots: &[&Party]) -> Result<usize, ChainError> {
    let certificates = |parties: &[&Party]| -> Vec<Certificate> {
        parties.iter().map(|party| party.certificate.clone()).collect()
    };
    path_to_root(
        &leaf.certificate,
        &certificates(intermediates),
        &certificates(roots),
        now(),
    )
    .map(|p| p.len())
}

#[test]
fn a_chain_leads_to_its_root_in_any_order_and_past_strangers() {
    let (root, middle, leaf) = three();
    let (other_root, other_middle, _) = three();
    assert_eq!(path(&leaf, &[&middle], &[&root]), Ok(3));
    assert_eq!(
        path(&leaf, &[&other_middle, &middle], &[&other_root, &root]),
        Ok(3)
    );
    assert_eq!(path(&root, &[], &[&root]), Ok(1));
    assert!(matches!(
        path(&leaf, &[], &[&root]),
        Err(ChainError::NoPath { .. })
    ));
    assert!(matches!(
        path(&leaf, &[&middle], &[]),
        Err(ChainError::NoPath { .. })
    ));
}

#[test]
fn a_namesake_without_the_key_is_no_issuer() {
    let (root, middle, leaf) = three();
    let (impostor, ..) = three();
    assert!(matches!(
        path(&leaf, &[&middle], &[&impostor]),
        Err(ChainError::NotIssuedBy {
            reason: "the signature does not verify",
            ..
        })
    ));
    assert_eq!(path(&leaf, &[&middle], &[&impostor, &root]), Ok(3));
}

#[test]
fn an_expired_or_future_certificate_anywhere_breaks_the_chain() {
    let root = self_signed(authority("root"));
    let mut params = authority("middle");
    params.not_after = (now() - Duration::from_secs(1)).into();
    let middle = root.sign(params);
    let below = middle.sign(leaf(&[]));
    let wrong = |what| ChainError::NotValidNow {
        subject: "CN=middle".to_owned(),
        what,
    };
    assert_eq!(path(&below, &[&middle], &[&root]), Err(wrong("expired")));
    let mut params = authority("middle");
    params.not_before = (now() + Duration::from_secs(1)).into();
    let middle = root.sign(params);
    assert_eq!(path(&middle, &[], &[&root]), Err(wrong("not yet valid")));
}

#[test]
fn a_leaf_signs_nobody() {
    let root = self_signed(authority("root"));
    for spoil in [
        |params: &mut rcgen::CertificateParams| params.is_ca = IsCa::ExplicitNoCa,
        |params: &mut rcgen::CertificateParams| params.is_ca = IsCa::NoCa,
        |params: &mut rcgen::CertificateParams| params.key_usages = vec![KeyUsagePurpose::DigitalSignature],
    ] {
        let mut params = authority("middle");
        spoil(&mut params);
        let middle = root.sign(params);
        let below = middle.sign(leaf(&[]));
        assert!(matches!(
            path(&below, &[&middle], &[&root]),
            Err(ChainError::NotIssuedBy {
                reason: "the issuer is no authority",
                ..
            })
        ));
    }
}

#[test]
fn a_path_length_is_kept() {
    let root = self_signed(authority("root"));
    let mut params = authority("first");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let first = root.sign(params);
    let second = first.sign(authority("second"));
    assert_eq!(path(&first.sign(leaf(&[])), &[&first], &[&root]), Ok(3));
    assert!(path(&second.sign(leaf(&[])), &[&second, &first], &[&root]).is_err());
    assert_eq!(path(&first, &[], &[&root]), Ok(2), "it signs leaves");
    assert!(
        path(&second, &[&first], &[&root]).is_err(),
        "nothing that it signs would be valid"
    );
}

#[test]
fn an_unknown_critical_extension_is_not_trusted() {
    let root = self_signed(authority("root"));
    let mut params = leaf(&[]);
    let mut extension = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    extension.set_criticality(true);
    params.custom_extensions = vec![extension];
    assert!(matches!(
        path(&root.sign(params), &[], &[&root]),
        Err(ChainError::UnknownCritical { extension, .. }) if extension == "1.2.3.4"
    ));
}

#[test]
fn a_thicket_of_namesakes_does_not_take_forever() {
    let root = self_signed(authority("root"));
    let thicket: Vec<Party> = (0..20).map(|_| self_signed(authority("same"))).collect();
    let lost = thicket[0].sign(authority("same")).sign(leaf(&[]));
    let all: Vec<&Party> = thicket.iter().collect();
    assert!(path(&lost, &all, &[&root]).is_err());
}

#[test]
fn a_revocation_list_of_a_known_authority_says_who_is_revoked() {
    let authority = corp(CORP_CA);
    let lists = RevocationList::from_pem(CORP_CRL, std::slice::from_ref(&authority)).expect("a list");
    let [list] = lists.as_slice() else {
        panic!("one list, not {}", lists.len())
    };
    assert!(list.revokes(&corp(CORP_LEAF)) && !list.revokes(&authority));
    assert_eq!(list.pem().as_bytes(), CORP_CRL);
}

#[test]
fn a_revocation_list_of_a_stranger_or_a_damaged_one_is_refused() {
    let stranger = self_signed(common::authority("stranger")).certificate;
    assert!(matches!(
        RevocationList::from_pem(CORP_CRL, &[stranger]),
        Err(RevocationError::UnknownIssuer { .. })
    ));
    let authority = corp(CORP_CA);
    for wrong in [&b""[..], CORP_LEAF, &CORP_CRL[..200]] {
        assert!(RevocationList::from_pem(wrong, std::slice::from_ref(&authority)).is_err());
    }
}
