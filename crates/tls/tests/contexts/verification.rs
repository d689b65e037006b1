//! Each check of a peer's certificate, failed and passed.

use std::time::Duration;

use base64::Engine as _;
use rcgen::ExtendedKeyUsagePurpose;
use tls::settings::{
    CertificateValidationContext, SanType, SpiffeValidator, StringMatcher, StringPattern,
    SubjectAltNameMatcher, TrustChainVerification,
};
use tls::{ConnectOptions, ContextError, PeerValidation, ServerContext, VerificationFailure};

use crate::support::{
    Authority, DAY, Leaf, Says, client, client_context, expecting, failed_check, judged, meet, mutual_server,
    now, server_context, trusting,
};

const WORKLOAD: &[&str] = &["spiffe://cluster.local/ns/a/sa/b"];

/// A root, a server of it, and what becomes of clients that it judges.
struct Court {
    root: Authority,
    server: Leaf,
}

impl Court {
    fn new() -> Self {
        let root = Authority::root("root");
        let server = root.leaf(&Says::default());
        Self { root, server }
    }

    async fn check(&self, validation: &CertificateValidationContext, leaf: &Leaf) -> &'static str {
        failed_check(judged(validation.clone(), &self.server, leaf).await)
    }
}

/// The same certificate with another signature.
fn forged(mut leaf: Leaf) -> Leaf {
    let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.chain.as_bytes()).unwrap();
    let mut der = pem.contents;
    *der.last_mut().unwrap() ^= 1;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    leaf.chain = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
    leaf
}

#[tokio::test]
async fn a_certificate_that_is_wrong_in_one_thing_is_refused_for_that() {
    let court = Court::new();
    let stranger = Authority::root("root");
    let good = Says::uri(WORKLOAD);
    let (past, future) = (now() - 9 * DAY, now() + 9 * DAY);
    let expired = Says {
        from: past - 3 * DAY,
        to: past,
        ..good.clone()
    };
    let coming = Says {
        from: future,
        to: future + 3 * DAY,
        ..good.clone()
    };
    let purpose = Says {
        purposes: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..good.clone()
    };
    let any_purpose = Says {
        purposes: Vec::new(),
        ..good.clone()
    };
    let authority = Says {
        authority: true,
        ..good.clone()
    };
    for (leaf, check) in [
        (court.root.leaf(&good), "none"),
        (court.root.leaf(&any_purpose), "none"),
        (court.root.intermediate("between").leaf(&good), "none"),
        (stranger.leaf(&good), "issuer"),
        (stranger.intermediate("between").leaf(&good), "issuer"),
        (Authority::root("stranger").leaf(&good), "issuer"),
        (forged(court.root.leaf(&good)), "signature"),
        (court.root.leaf(&expired), "expired"),
        (court.root.leaf(&coming), "not-yet-valid"),
        (court.root.leaf(&purpose), "purpose"),
        (court.root.leaf(&authority), "authority-as-peer"),
    ] {
        assert_eq!(court.check(&trusting(&[&court.root]), &leaf).await, check);
    }
}

#[tokio::test]
async fn during_a_rotation_of_roots_both_are_trusted() {
    let (old, new) = (Court::new(), Authority::root("new"));
    let both = trusting(&[&old.root, &new]);
    for authority in [&old.root, &new] {
        let leaf = authority.leaf(&Says::uri(WORKLOAD));
        assert_eq!(old.check(&both, &leaf).await, "none");
    }
}

#[tokio::test]
async fn an_expired_root_vouches_for_nobody() {
    let court = Court::new();
    let root = Authority::root_valid("expired", now() - 30 * DAY, now() - 20 * DAY);
    let leaf = root.leaf(&Says::uri(WORKLOAD));
    let both = trusting(&[&court.root, &root]);
    assert_eq!(court.check(&both, &leaf).await, "expired");
    let lenient = CertificateValidationContext {
        allow_expired_certificate: true,
        ..both
    };
    assert_eq!(court.check(&lenient, &leaf).await, "none");
}

#[tokio::test]
async fn an_intermediate_authority_may_be_trusted_alone() {
    let court = Court::new();
    let between = court.root.intermediate("between");
    let trusted = trusting(&[&between]);
    assert_eq!(
        court.check(&trusted, &between.leaf(&Says::uri(WORKLOAD))).await,
        "none"
    );
    assert_eq!(
        court
            .check(&trusted, &court.root.leaf(&Says::uri(WORKLOAD)))
            .await,
        "issuer"
    );
}

#[tokio::test]
async fn the_time_of_a_chain_may_be_overlooked_and_nothing_else() {
    let court = Court::new();
    let lenient = CertificateValidationContext {
        allow_expired_certificate: true,
        ..trusting(&[&court.root])
    };
    let (past, future) = (now() - 9 * DAY, now() + 9 * DAY);
    let expired = Says {
        from: past - 3 * DAY,
        to: past,
        ..Says::uri(WORKLOAD)
    };
    let coming = Says {
        from: future,
        to: future + 3 * DAY,
        ..Says::uri(WORKLOAD)
    };
    for says in [&expired, &coming] {
        assert_eq!(court.check(&lenient, &court.root.leaf(says)).await, "none");
        assert_eq!(
            court.check(&lenient, &Authority::root("root").leaf(says)).await,
            "issuer"
        );
    }
    let revoked = court.root.leaf(&expired);
    let list = court.root.revocation_list(&[&revoked], now() + DAY);
    let lenient = CertificateValidationContext {
        crl: Some(list.into_bytes()),
        ..lenient
    };
    assert_eq!(court.check(&lenient, &revoked).await, "revoked");
}

#[tokio::test]
async fn one_name_of_any_kind_must_be_expected() {
    let court = Court::new();
    let leaf = court.root.leaf(&Says {
        dns: &["*.example.com"],
        emails: &["a@example.com"],
        addresses: &["127.0.0.1", "::1"],
        ..Says::uri(WORKLOAD)
    });
    let nobody = court.root.leaf(&Says::default());
    use StringPattern::{Contains, Exact, Prefix, Regex, Suffix};
    for (kind, pattern, check) in [
        (SanType::Uri, Exact(WORKLOAD[0].to_owned()), "none"),
        (SanType::Uri, Prefix("spiffe://cluster.local/".to_owned()), "none"),
        (
            SanType::Uri,
            Prefix("spiffe://other/".to_owned()),
            "subject-alt-names",
        ),
        (SanType::Uri, Suffix("/sa/b".to_owned()), "none"),
        (SanType::Uri, Contains("/ns/a/".to_owned()), "none"),
        (
            SanType::Uri,
            Regex("spiffe://[^/]+/ns/a/sa/.+".to_owned()),
            "none",
        ),
        (
            SanType::Uri,
            Regex("spiffe://[^/]+".to_owned()),
            "subject-alt-names",
        ),
        (SanType::Dns, Exact(WORKLOAD[0].to_owned()), "subject-alt-names"),
        (SanType::Dns, Exact("B.example.com".to_owned()), "none"),
        (SanType::Dns, Exact("example.com".to_owned()), "subject-alt-names"),
        (SanType::Email, Exact("a@example.com".to_owned()), "none"),
        (SanType::IpAddress, Exact("::1".to_owned()), "none"),
        (SanType::IpAddress, Prefix("127.".to_owned()), "none"),
        (
            SanType::IpAddress,
            Exact("127.0.0.2".to_owned()),
            "subject-alt-names",
        ),
    ] {
        let mut validation = trusting(&[&court.root]);
        validation.match_typed_subject_alt_names = vec![
            expecting(SanType::Uri, Exact("spiffe://nobody/".to_owned())),
            expecting(kind, pattern.clone()),
        ];
        assert_eq!(
            court.check(&validation, &leaf).await,
            check,
            "{kind:?} {pattern:?}"
        );
        assert_eq!(court.check(&validation, &nobody).await, "subject-alt-names");
    }
}

#[tokio::test]
async fn a_matcher_without_a_kind_looks_at_every_kind() {
    let court = Court::new();
    let leaf = court.root.leaf(&Says::uri(WORKLOAD));
    for (prefix, check) in [
        ("SPIFFE://cluster.local/", "none"),
        ("spiffe://other/", "subject-alt-names"),
    ] {
        let mut validation = trusting(&[&court.root]);
        validation.match_typed_subject_alt_names = SubjectAltNameMatcher::of_every_type(&StringMatcher {
            pattern: StringPattern::Prefix(prefix.to_owned()),
            ignore_case: true,
        });
        assert_eq!(court.check(&validation, &leaf).await, check);
    }
}

#[tokio::test]
async fn a_failure_over_names_lists_those_that_there_are() {
    let court = Court::new();
    let leaf = court.root.leaf(&Says {
        dns: &["x.example.com"],
        ..Says::uri(WORKLOAD)
    });
    let mut validation = trusting(&[&court.root]);
    validation.match_typed_subject_alt_names = vec![expecting(
        SanType::Uri,
        StringPattern::Exact("spiffe://a/b".to_owned()),
    )];
    let failure = judged(validation, &court.server, &leaf).await.unwrap_err();
    let listed =
        VerificationFailure::SubjectAltNames(vec![WORKLOAD[0].to_owned(), "x.example.com".to_owned()]);
    assert_eq!(failure.verification(), Some(&listed));
    assert!(
        failure
            .envoy_reason()
            .contains("SAN matcher, certificate SANs are [spiffe://cluster.local/ns/a/sa/b, x.example.com]")
    );
}

fn digests(leaf: &Leaf) -> (String, String) {
    let (_, pem) = x509_parser::pem::parse_x509_pem(leaf.chain.as_bytes()).unwrap();
    let certificate = pem.parse_x509().unwrap();
    let sha256 = |bytes: &[u8]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    let hash = sha256(&pem.contents)
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02X}"))
        .collect::<Vec<_>>();
    let key = sha256(certificate.public_key().raw);
    (
        hash.join(":"),
        base64::engine::general_purpose::STANDARD.encode(key.as_ref()),
    )
}

#[tokio::test]
async fn either_a_pinned_certificate_or_a_pinned_key_suffices() {
    let court = Court::new();
    let (leaf, other) = (
        court.root.leaf(&Says::uri(WORKLOAD)),
        court.root.leaf(&Says::uri(WORKLOAD)),
    );
    let (hash, key) = digests(&leaf);
    let (other_hash, other_key) = digests(&other);
    for (hash, key, check) in [
        (Some(&hash), None, "none"),
        (None, Some(&key), "none"),
        (Some(&other_hash), Some(&key), "none"),
        (Some(&hash), Some(&other_key), "none"),
        (Some(&other_hash), Some(&other_key), "pins"),
    ] {
        let pins = CertificateValidationContext {
            verify_certificate_hash: hash.into_iter().cloned().collect(),
            verify_certificate_spki: key.into_iter().cloned().collect(),
            ..trusting(&[&court.root])
        };
        assert_eq!(court.check(&pins, &leaf).await, check);
        let alone = CertificateValidationContext {
            trusted_ca: None,
            ..pins
        };
        assert_eq!(court.check(&alone, &leaf).await, check);
    }
}

#[tokio::test]
async fn a_revoked_certificate_is_refused_and_so_is_one_that_no_list_covers() {
    let court = Court::new();
    let between = court.root.intermediate("between");
    let says = Says::uri(WORKLOAD);
    let (good, bad, deep) = (
        court.root.leaf(&says),
        court.root.leaf(&says),
        between.leaf(&says),
    );
    let of_root = court.root.revocation_list(&[&bad], now() + DAY);
    let of_between = between.revocation_list(&[], now() + DAY);
    let outdated = court.root.revocation_list(&[], now() - Duration::from_secs(3600));
    let both = format!("{of_root}{of_between}");
    for (lists, leaf, leaf_only, check) in [
        (&of_root, &good, false, "none"),
        (&of_root, &bad, false, "revoked"),
        (&of_root, &deep, false, "revocation-unknown"),
        (&of_root, &deep, true, "revocation-unknown"),
        (&of_between, &deep, false, "revocation-unknown"),
        (&of_between, &deep, true, "none"),
        (&both, &deep, false, "none"),
        (&both, &bad, true, "revoked"),
        (&outdated, &good, false, "revocation-list"),
    ] {
        let validation = CertificateValidationContext {
            crl: Some(lists.clone().into_bytes()),
            only_verify_leaf_cert_crl: leaf_only,
            ..trusting(&[&court.root])
        };
        assert_eq!(
            court.check(&validation, leaf).await,
            check,
            "leaf only: {leaf_only}"
        );
    }
}

#[tokio::test]
async fn of_two_revocation_lists_of_one_authority_the_newer_counts_wherever_it_stands() {
    let court = Court::new();
    let leaf = court.root.leaf(&Says::uri(WORKLOAD));
    let list = |made, revoked: &[&Leaf], end| court.root.revocation_list_of(made, revoked, end);
    let tomorrow = now() + DAY;
    let outdated = now() - Duration::from_secs(3600);
    let clean = |made| list(made, &[], tomorrow);
    let revoking = |made| list(made, &[&leaf], tomorrow);
    let (older, newer) = (now() - 2 * DAY, now() - DAY);
    for (one, other, check) in [
        (clean(older), revoking(newer), "revoked"),
        (revoking(older), clean(newer), "none"),
        (list(older, &[], outdated), revoking(newer), "revoked"),
    ] {
        for lists in [format!("{one}{other}"), format!("{other}{one}")] {
            let validation = CertificateValidationContext {
                crl: Some(lists.into_bytes()),
                ..trusting(&[&court.root])
            };
            assert_eq!(court.check(&validation, &leaf).await, check);
        }
    }
}

#[tokio::test]
async fn the_lists_of_two_keys_of_one_name_are_told_apart_by_the_chain() {
    let court = Court::new();
    let says = Says::uri(WORKLOAD);
    let (old, new) = (Authority::root("renewed"), Authority::root("renewed"));
    let (good, bad) = (old.leaf(&says), new.leaf(&says));
    let of_old = old.revocation_list_of(now() - 2 * DAY, &[], now() + DAY);
    let of_new = new.revocation_list_of(now() - DAY, &[&bad], now() + DAY);
    for lists in [format!("{of_old}{of_new}"), format!("{of_new}{of_old}")] {
        let validation = CertificateValidationContext {
            crl: Some(lists.into_bytes()),
            ..trusting(&[&old, &new])
        };
        assert_eq!(court.check(&validation, &good).await, "none");
        assert_eq!(court.check(&validation, &bad).await, "revoked");
    }
}

#[tokio::test]
async fn a_chain_is_no_longer_than_allowed() {
    let court = Court::new();
    let direct = court.root.leaf(&Says::uri(WORKLOAD));
    let deep = court.root.intermediate("between").leaf(&Says::uri(WORKLOAD));
    for (max_verify_depth, leaf, check) in [
        (Some(1), &direct, "none"),
        (Some(1), &deep, "issuer"),
        (Some(2), &deep, "none"),
        (Some(0), &direct, "issuer"),
    ] {
        let validation = CertificateValidationContext {
            max_verify_depth,
            ..trusting(&[&court.root])
        };
        assert_eq!(
            court.check(&validation, leaf).await,
            check,
            "{max_verify_depth:?}"
        );
    }
}

#[tokio::test]
async fn an_untrusted_peer_is_served_where_that_is_configured_and_marked() {
    let court = Court::new();
    let stranger = Authority::root("root").leaf(&Says::uri(WORKLOAD));
    let validation = CertificateValidationContext {
        trust_chain_verification: TrustChainVerification::AcceptUntrusted,
        ..trusting(&[&court.root])
    };
    let info = judged(validation.clone(), &court.server, &stranger)
        .await
        .unwrap();
    assert_eq!(
        info.validation,
        PeerValidation::Failed(VerificationFailure::UntrustedIssuer)
    );
    assert_eq!(info.peer_identity(), None);
    assert_eq!(info.peer.unwrap().leaf().uris, WORKLOAD);
    let member = court.root.leaf(&Says::uri(WORKLOAD));
    let info = judged(validation, &court.server, &member).await.unwrap();
    assert_eq!(info.peer_identity(), Some(WORKLOAD[0]));
}

#[tokio::test]
async fn each_trust_domain_is_vouched_for_by_its_own_authorities() {
    let court = Court::new();
    let other = Authority::root("other");
    let domains = [("cluster.local", &court.root), ("other.example", &other)];
    let spiffe = SpiffeValidator {
        trust_domains: domains
            .map(|(name, root)| (name.to_owned(), root.pem().into_bytes()))
            .into(),
    };
    let validation = CertificateValidationContext {
        spiffe: Some(spiffe),
        ..Default::default()
    };
    let theirs: &[&str] = &["spiffe://other.example/ns/a/sa/b"];
    for (authority, says, check) in [
        (&court.root, Says::uri(WORKLOAD), "none"),
        (&other, Says::uri(theirs), "none"),
        (&other, Says::uri(WORKLOAD), "issuer"),
        (&court.root, Says::uri(theirs), "issuer"),
        (
            &court.root,
            Says::uri(&["spiffe://third.example/a"]),
            "trust-bundle",
        ),
        (&court.root, Says::default(), "trust-bundle"),
        (
            &court.root,
            Says::uri(&["spiffe://cluster.local/a", "spiffe://other.example/a"]),
            "svid",
        ),
        (
            &court.root,
            Says {
                authority: true,
                ..Says::uri(WORKLOAD)
            },
            "svid",
        ),
    ] {
        assert_eq!(
            court.check(&validation, &authority.leaf(&says)).await,
            check,
            "{:?}",
            says.uris
        );
    }
    let expected = CertificateValidationContext {
        match_typed_subject_alt_names: vec![expecting(
            SanType::Uri,
            StringPattern::Prefix("spiffe://cluster.local/".to_owned()),
        )],
        ..validation
    };
    assert_eq!(
        court.check(&expected, &other.leaf(&Says::uri(theirs))).await,
        "subject-alt-names"
    );
}

#[tokio::test]
async fn a_client_checks_its_server_by_the_same_rules() {
    let court = Court::new();
    let mut settings = client(None);
    settings.common.validation_context = Some(trusting(&[&court.root]));
    let purpose = Says {
        purposes: vec![ExtendedKeyUsagePurpose::ClientAuth],
        ..Says::uri(WORKLOAD)
    };
    for (leaf, check) in [
        (court.root.leaf(&Says::uri(WORKLOAD)), "none"),
        (court.root.leaf(&purpose), "purpose"),
        (Authority::root("root").leaf(&Says::uri(WORKLOAD)), "issuer"),
    ] {
        let server = server_context(&crate::support::server(&[&leaf]));
        let (_, connected) = meet(&server, &client_context(&settings), ConnectOptions::default()).await;
        assert_eq!(failed_check(connected), check);
    }
}

#[test]
fn settings_that_verify_less_than_they_seem_to_are_refused() {
    let court = Court::new();
    let trusted = trusting(&[&court.root]);
    let list = Some(court.root.revocation_list(&[], now() + DAY).into_bytes());
    let names = vec![expecting(
        SanType::Uri,
        StringPattern::Exact("spiffe://a/b".to_owned()),
    )];
    let domains = |name: &str| SpiffeValidator {
        trust_domains: [(name.to_owned(), court.root.pem().into_bytes())].into(),
    };
    let nothing = CertificateValidationContext::default();
    for (validation, field) in [
        (
            CertificateValidationContext {
                match_typed_subject_alt_names: names,
                ..nothing.clone()
            },
            "match_typed",
        ),
        (
            CertificateValidationContext {
                crl: list.clone(),
                ..nothing.clone()
            },
            "crl",
        ),
        (
            CertificateValidationContext {
                crl: list,
                spiffe: Some(domains("a")),
                ..trusted.clone()
            },
            "crl",
        ),
        (
            CertificateValidationContext {
                max_verify_depth: Some(1),
                spiffe: Some(domains("a")),
                ..nothing.clone()
            },
            "max_verify_depth",
        ),
        (
            CertificateValidationContext {
                spiffe: Some(domains("")),
                ..nothing.clone()
            },
            "trust_domains",
        ),
        (
            CertificateValidationContext {
                spiffe: Some(SpiffeValidator::default()),
                ..nothing
            },
            "trust_domains",
        ),
        (
            CertificateValidationContext {
                crl: Some(b"-----BEGIN".to_vec()),
                ..trusted.clone()
            },
            "crl",
        ),
        (
            CertificateValidationContext {
                verify_certificate_hash: vec!["x".into()],
                ..trusted
            },
            "verify_cert",
        ),
    ] {
        let error = ServerContext::new(&mutual_server(&court.server, validation), now()).unwrap_err();
        assert!(error.to_string().starts_with(field), "{error}");
    }
}

#[test]
fn a_field_that_is_not_a_bundle_is_named() {
    let court = Court::new();
    let validation = CertificateValidationContext {
        trusted_ca: Some(Vec::new()),
        ..Default::default()
    };
    let error = ServerContext::new(&mutual_server(&court.server, validation), now()).unwrap_err();
    assert_eq!(error, ContextError::Empty { what: "trusted_ca" });
}
