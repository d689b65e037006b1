//! Private keys, signing requests and SVIDs.

mod common;

use base64::Engine as _;
use common::{HOUR, authority, leaf, now, self_signed};
use identity::{
    CertificateRequest, KeyError, KeyKind, KeyType, PemError, PrivateKey, PublicKey, RequestError,
    SubjectName, Svid, SvidError, request_certificate,
};

macro_rules! data {
    ($name:literal) => {
        include_bytes!(concat!("data/", $name))
    };
}

#[test]
fn every_kind_of_key_is_made_written_and_read_back() {
    for (kind, expected) in [
        (KeyKind::EcdsaP256, KeyType::EcdsaP256),
        (KeyKind::EcdsaP384, KeyType::EcdsaP384),
        (KeyKind::Rsa2048, KeyType::Rsa { bits: 2048 }),
        (KeyKind::Rsa3072, KeyType::Rsa { bits: 3072 }),
        (KeyKind::Rsa4096, KeyType::Rsa { bits: 4096 }),
    ] {
        let key = PrivateKey::generate(kind).expect("a key");
        assert_eq!(*key.public_key().kind(), expected);
        let read = PrivateKey::from_pem(key.to_pem().expect("PEM").as_bytes()).expect("the same key");
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(read.algorithm(), key.algorithm());
    }
    assert_eq!(KeyKind::default(), KeyKind::EcdsaP256);
}

#[test]
fn a_public_key_is_read_back_from_its_der_and_tells_its_point() {
    for (kind, field_bytes) in [
        (KeyKind::EcdsaP256, Some(32)),
        (KeyKind::EcdsaP384, Some(48)),
        (KeyKind::Rsa2048, None),
    ] {
        let key = PrivateKey::generate(kind).expect("a key");
        let public = key.public_key();
        assert_eq!(PublicKey::from_der(public.der()).as_ref(), Some(public));
        let lengths = public.coordinates().map(|(x, y)| (x.len(), y.len()));
        assert_eq!(lengths, field_bytes.map(|bytes| (bytes, bytes)));
        let mut longer = public.der().to_vec();
        longer.push(0);
        assert_eq!(PublicKey::from_der(&longer), None);
        assert_eq!(PublicKey::from_der(&longer[..40]), None);
    }
}

#[test]
fn keys_by_openssl_are_read_in_all_three_forms() {
    for (text, expected) in [
        (&data!("p256-sec1.pem")[..], KeyType::EcdsaP256),
        (data!("p384-pkcs8.pem"), KeyType::EcdsaP384),
        (data!("rsa2048-pkcs1.pem"), KeyType::Rsa { bits: 2048 }),
    ] {
        let key = PrivateKey::from_pem(text).expect("a key by openssl");
        assert_eq!(*key.public_key().kind(), expected);
    }
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason() {
    let refused = |text: &[u8]| PrivateKey::from_pem(text).expect_err("refused");
    assert_eq!(refused(data!("rsa1024.pem")), KeyError::Unreadable);
    assert_eq!(refused(data!("ed25519.pem")), KeyError::Unreadable);
    assert_eq!(refused(data!("p521.pem")), KeyError::Unreadable);
    assert_eq!(refused(data!("p256-encrypted.pem")), KeyError::Encrypted);
    assert!(matches!(
        refused(data!("rsa-encrypted-traditional.pem")),
        KeyError::Pem(PemError::Headers { .. })
    ));
    assert_eq!(refused(b""), PemError::Empty("private key").into());
    assert_eq!(refused(&data!("p384-pkcs8.pem").repeat(2)), KeyError::Several(2));
    assert!(matches!(
        refused(data!("corp-ca.pem")),
        KeyError::Pem(PemError::Unexpected { .. })
    ));
    let text = data!("p384-pkcs8.pem");
    assert!(matches!(
        refused(&text[..text.len() / 2]),
        KeyError::Pem(PemError::Truncated { .. })
    ));
}

#[test]
fn a_key_of_another_certificate_is_refused_by_name() {
    let (one, two) = (self_signed(authority("one")), self_signed(authority("two")));
    assert_eq!(one.private_key().check_belongs_to(&one.certificate), Ok(()));
    let error = one
        .private_key()
        .check_belongs_to(&two.certificate)
        .expect_err("refused");
    assert_eq!(
        error.to_string(),
        "the private key (ECDSA P-256) does not belong to the certificate of \"CN=two\" (ECDSA P-256)"
            .replace('"', "")
    );
}

/// Every spelling in which a key's bytes could slip into a text.
fn spellings(key: &PrivateKey) -> Vec<String> {
    let der = key.to_pkcs8_der().expect("DER");
    let pem = key.to_pem().expect("PEM");
    // The secret number of a P-256 key in PKCS #8, as openssl asn1parse shows.
    let secret = &der[36..68];
    let decimal: Vec<String> = secret[..8].iter().map(ToString::to_string).collect();
    let hex: String = secret.iter().map(|b| format!("{b:02x}")).collect();
    vec![
        pem.lines().nth(1).expect("a line of base64").to_owned(),
        base64::engine::general_purpose::STANDARD.encode(secret),
        hex.to_uppercase(),
        hex,
        decimal.join(", "),
        decimal.join(","),
    ]
}

#[test]
fn no_output_shows_a_private_key() {
    let root = self_signed(authority("root"));
    let party = root.sign(leaf(&["spiffe://td/ns/a/sa/b"]));
    let key = party.private_key();
    let secrets = spellings(&key);
    let pem = key.to_pem().expect("PEM");
    let mismatch = key.check_belongs_to(&root.certificate).expect_err("refused");
    let damaged = pem.replacen('M', "*", 3);
    let svid = Svid::new(vec![party.certificate.clone()], party.private_key()).expect("an SVID");
    let wrong_svid = Svid::from_pem(root.certificate.pem().as_bytes(), pem.as_bytes()).expect_err("refused");
    let outputs = [
        format!("{key:?} {key:#?}"),
        format!("{svid:?} {svid:#?}"),
        format!("{mismatch} {mismatch:?}"),
        format!("{wrong_svid} {wrong_svid:?}"),
        format!(
            "{:?}",
            PrivateKey::from_pem(damaged.as_bytes()).expect_err("refused")
        ),
        format!(
            "{:?}",
            PrivateKey::from_pem(&pem.as_bytes()[..150]).expect_err("refused")
        ),
        format!(
            "{:?}",
            PrivateKey::from_pem(pem.repeat(2).as_bytes()).expect_err("refused")
        ),
        request_certificate(&key, &[]).expect("a request"),
        party.certificate.pem(),
    ];
    assert_eq!(format!("{key:?}"), "PrivateKey(ECDSA P-256)");
    for output in &outputs {
        for secret in &secrets {
            assert!(!output.contains(secret.as_str()), "{secret} in {output}");
        }
    }
    // The search finds what it looks for.
    assert!(pem.contains(&secrets[0]));
}

#[test]
fn a_request_of_every_kind_of_key_is_read_back() {
    let names = [
        SubjectName::Uri("spiffe://td/ns/a/sa/b".to_owned()),
        SubjectName::Dns("b.a.svc".to_owned()),
        SubjectName::Ip([127, 0, 0, 1].into()),
        SubjectName::Email("b@a".to_owned()),
    ];
    for kind in [
        KeyKind::EcdsaP256,
        KeyKind::EcdsaP384,
        KeyKind::Rsa2048,
        KeyKind::Rsa4096,
    ] {
        let key = PrivateKey::generate(kind).expect("a key");
        let text = request_certificate(&key, &names).expect("a request");
        let read = CertificateRequest::from_pem(text.as_bytes()).expect("our own request");
        assert_eq!(read.public_key(), key.public_key());
        assert_eq!(read.names(), names);
        assert_eq!(read.subject(), "");
        assert!(!read.wants_authority());
    }
}

#[test]
fn requests_by_openssl_are_read() {
    let read = |text: &[u8]| CertificateRequest::from_pem(text).expect("a request by openssl");
    let full = read(data!("p256.csr"));
    let key = PrivateKey::from_pem(data!("p256-sec1.pem")).expect("its key");
    assert_eq!(full.public_key(), key.public_key());
    assert_eq!(full.subject(), "O=somebody");
    let printed: Vec<String> = full.names().iter().map(ToString::to_string).collect();
    assert_eq!(
        printed,
        [
            "URI:spiffe://td/ns/a/sa/b",
            "DNS:example.com",
            "IP:10.0.0.1",
            "IP:::1",
            "email:me@example.com"
        ]
    );
    assert_eq!(read(data!("p256-newhdr.csr")).public_key(), key.public_key());
    assert_eq!(
        *read(data!("p384-sha256.csr")).public_key().kind(),
        KeyType::EcdsaP384
    );
    assert_eq!(
        *read(data!("rsa2048.csr")).public_key().kind(),
        KeyType::Rsa { bits: 2048 }
    );
    assert!(read(data!("p256-ca.csr")).wants_authority());
    assert!(read(data!("p256-certsign.csr")).wants_authority());
}

#[test]
fn requests_with_weak_keys_or_weak_signatures_are_refused() {
    let refused = |text: &[u8]| CertificateRequest::from_pem(text).expect_err("refused");
    assert!(matches!(refused(data!("rsa1024.csr")), RequestError::Weak(w) if w.contains("1024")));
    assert!(matches!(refused(data!("ed25519.csr")), RequestError::Weak(w) if w.contains("not supported")));
    assert!(matches!(refused(data!("p521.csr")), RequestError::Weak(w) if w.contains("not supported")));
    assert_eq!(refused(data!("rsa2048-sha1.csr")), RequestError::Signature);
}

#[test]
fn a_request_that_was_changed_anywhere_is_refused() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let names = [SubjectName::Uri("spiffe://td/ns/a/sa/b".to_owned())];
    let text = request_certificate(&key, &names).expect("a request");
    let base64: String = text.lines().filter(|l| !l.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(base64)
        .expect("base64");
    assert!(CertificateRequest::from_der(&der).is_ok());
    for (at, bit) in (0..der.len()).flat_map(|at| (0..8).map(move |bit| (at, 1 << bit))) {
        let mut changed = der.clone();
        changed[at] ^= bit;
        assert!(CertificateRequest::from_der(&changed).is_err(), "byte {at}");
    }
    let longer = [der.as_slice(), &[0]].concat();
    assert!(matches!(
        CertificateRequest::from_der(&longer),
        Err(RequestError::Damaged(_))
    ));
}

#[test]
fn requests_that_are_empty_oversized_several_or_something_else_are_refused() {
    let refused = |text: &[u8]| CertificateRequest::from_pem(text).expect_err("refused");
    assert_eq!(refused(b""), PemError::Empty("CERTIFICATE REQUEST").into());
    assert!(matches!(
        refused(&[b' '; (16 << 10) + 1]),
        RequestError::Pem(PemError::TooLarge { .. })
    ));
    assert_eq!(refused(&data!("p256.csr").repeat(2)), RequestError::Several(2));
    assert!(matches!(
        refused(data!("corp-ca.pem")),
        RequestError::Pem(PemError::Unexpected { .. })
    ));
    assert!(matches!(
        CertificateRequest::from_der(&[0x30; (16 << 10) + 1]),
        Err(RequestError::Pem(PemError::TooLarge { .. }))
    ));
}

#[test]
fn a_name_that_is_not_ascii_cannot_be_asked_for() {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let name = SubjectName::Dns("ü".to_owned());
    assert_eq!(
        request_certificate(&key, std::slice::from_ref(&name)),
        Err(RequestError::Name(name))
    );
}

#[test]
fn a_chain_and_its_key_are_an_svid() {
    let root = self_signed(authority("root"));
    let middle = root.sign(authority("middle"));
    let party = middle.sign(leaf(&["spiffe://td/ns/a/sa/b"]));
    let chain = party.certificate.pem() + &middle.certificate.pem();
    let svid = Svid::from_pem(chain.as_bytes(), party.key.serialize_pem().as_bytes()).expect("an SVID");
    assert_eq!(svid.id().to_string(), "spiffe://td/ns/a/sa/b");
    assert_eq!(svid.chain_pem(), chain);
    assert_eq!(svid.key().public_key(), svid.leaf().public_key());
    assert_eq!(svid.expires(), now() + HOUR);
}

#[test]
fn what_is_no_svid_is_refused() {
    let root = self_signed(authority("root"));
    let other = self_signed(authority("other"));
    let party = root.sign(leaf(&["spiffe://td/ns/a/sa/b"]));
    let refused = |chain: Vec<&common::Party>, key: &common::Party| {
        let chain = chain.iter().map(|party| party.certificate.clone()).collect();
        Svid::new(chain, key.private_key()).expect_err("refused")
    };
    assert_eq!(refused(vec![], &party), SvidError::Empty);
    assert!(matches!(
        refused(vec![&party], &root),
        SvidError::Key(KeyError::Mismatch { .. })
    ));
    assert!(matches!(
        refused(vec![&party, &other], &party),
        SvidError::Chain(_)
    ));
    let mut signer = authority("signer");
    signer.subject_alt_names = leaf(&["spiffe://td/ns/a/sa/b"]).subject_alt_names;
    let signer = root.sign(signer);
    assert!(matches!(refused(vec![&signer], &signer), SvidError::Authority(_)));
    let domain = root.sign(leaf(&["spiffe://td"]));
    assert!(matches!(refused(vec![&domain], &domain), SvidError::NoPath(_)));
    let nobody = root.sign(leaf(&[]));
    assert!(matches!(
        refused(vec![&nobody], &nobody),
        SvidError::Certificate(_)
    ));
}
