//! Every field is taken, or refused where it stands.

use api_envoy::json::Schema;
use serde_json::{Value, json};
use tls::settings::{SanType, StringPattern, SubjectAltNameMatcher};

use super::*;
use crate::secrets::SecretSource;

fn served(fields: &Value) -> ConfigResult<Translated<DownstreamTlsContext>> {
    downstream(&Schema::get().parse(fields).unwrap())
}

fn asked(fields: &Value) -> ConfigResult<Translated<UpstreamTlsContext>> {
    upstream(&Schema::get().parse(fields).unwrap())
}

/// Refused with this path, both downstream and upstream.
fn check_common_refused(common: Value, path: &str) {
    let fields = json!({ "common_tls_context": common });
    let path = format!("common_tls_context.{path}");
    assert_eq!(served(&fields).unwrap_err().path(), path);
    assert_eq!(asked(&fields).unwrap_err().path(), path);
}

#[test]
fn every_field_that_is_enforced_reaches_the_settings() {
    let fields = json!({
        "common_tls_context": {
            "tls_params": {
                "tls_minimum_protocol_version": "TLSv1_2",
                "tls_maximum_protocol_version": "TLSv1_3",
                "cipher_suites": ["ECDHE-ECDSA-AES128-GCM-SHA256"],
                "ecdh_curves": ["P-256"],
                "signature_algorithms": ["ecdsa_secp256r1_sha256"],
            },
            "tls_certificates": [{
                "certificate_chain": { "inline_string": "chain" },
                "private_key": { "inline_bytes": "a2V5" },
            }],
            "alpn_protocols": ["h2", "http/1.1"],
            "validation_context": {
                "trusted_ca": { "inline_string": "roots" },
                "crl": { "inline_string": "list" },
                "only_verify_leaf_cert_crl": true,
                "verify_certificate_spki": ["s"],
                "verify_certificate_hash": ["h"],
                "match_typed_subject_alt_names": [{ "san_type": "URI", "matcher": { "prefix": "spiffe://" } }],
                "allow_expired_certificate": true,
                "trust_chain_verification": "ACCEPT_UNTRUSTED",
                "max_verify_depth": 2,
            },
        },
        "require_client_certificate": true,
        "require_sni": true,
        "full_scan_certs_on_sni_mismatch": true,
        "prefer_client_ciphers": true,
        "disable_stateless_session_resumption": true,
    });
    let Translated {
        settings,
        secrets,
        origins,
    } = served(&fields).unwrap();
    assert!(secrets.is_empty());
    assert_eq!(
        (&*origins.certificates, &*origins.trusted_ca),
        (&["<inline>".to_owned()][..], "<inline>")
    );
    assert!(settings.require_client_certificate && settings.require_sni && settings.prefer_client_ciphers);
    assert!(settings.full_scan_certs_on_sni_mismatch && !settings.session_tickets);
    let common = settings.common;
    assert_eq!(common.tls_params.minimum_version, Some(TlsVersion::V1_2));
    let params = |version: &str| json!({ "tls_params": { "tls_minimum_protocol_version": version } });
    for older in ["TLSv1_0", "TLSv1_1"] {
        let settings = served(&json!({ "common_tls_context": params(older) }))
            .unwrap()
            .settings;
        assert_eq!(settings.common.tls_params.minimum_version, Some(TlsVersion::V1_2));
    }
    assert_eq!(common.tls_params.maximum_version, Some(TlsVersion::V1_3));
    assert_eq!(common.tls_params.cipher_suites, ["ECDHE-ECDSA-AES128-GCM-SHA256"]);
    assert_eq!(common.tls_params.ecdh_curves, ["P-256"]);
    assert_eq!(common.tls_params.signature_algorithms, ["ecdsa_secp256r1_sha256"]);
    assert_eq!(common.tls_certificates[0].certificate_chain, b"chain");
    assert_eq!(common.tls_certificates[0].private_key, Secret::new("key"));
    assert_eq!(common.alpn_protocols, ["h2", "http/1.1"]);
    let validation = common.validation_context.unwrap();
    assert_eq!(validation.trusted_ca.as_deref(), Some(&b"roots"[..]));
    assert_eq!(validation.crl.as_deref(), Some(&b"list"[..]));
    assert_eq!(validation.match_typed_subject_alt_names[0].san_type, SanType::Uri);
    assert!(validation.only_verify_leaf_cert_crl && validation.allow_expired_certificate);
    assert_eq!(validation.max_verify_depth, Some(2));
}

#[test]
fn a_cluster_has_its_names() {
    let fields = json!({ "sni": "a.test", "auto_host_sni": true, "auto_sni_san_validation": true });
    let settings = asked(&fields).unwrap().settings;
    assert_eq!(settings.sni, "a.test");
    assert!(settings.auto_host_sni && settings.auto_sni_san_validation);
}

#[test]
fn tickets_are_given_unless_they_are_switched_off() {
    assert!(served(&json!({})).unwrap().settings.session_tickets);
}

#[test]
fn a_name_without_a_kind_is_looked_for_among_all_kinds() {
    let validation = json!({ "match_subject_alt_names": [{ "exact": "a" }] });
    let fields = json!({ "common_tls_context": { "validation_context": validation } });
    let found = asked(&fields)
        .unwrap()
        .settings
        .common
        .validation_context
        .unwrap();
    let wanted = tls::settings::StringMatcher {
        pattern: StringPattern::Exact("a".into()),
        ignore_case: false,
    };
    assert_eq!(
        found.match_typed_subject_alt_names,
        SubjectAltNameMatcher::of_every_type(&wanted)
    );
    assert_eq!(found.match_typed_subject_alt_names.len(), 4);
}

#[test]
fn what_is_not_enforced_is_refused_where_it_stands() {
    for (field, value) in [
        ("tls_certificate_provider_instance", json!({})),
        ("custom_tls_certificate_selector", json!({ "name": "x" })),
        ("custom_handshaker", json!({ "name": "x" })),
        ("key_log", json!({ "path": "x" })),
    ] {
        check_common_refused(json!({ field: value }), field);
    }
    let params = |params: Value| json!({ "tls_params": params });
    let compliance = params(json!({ "compliance_policies": ["FIPS_202205"] }));
    check_common_refused(compliance, "tls_params.compliance_policies");
    // Who takes older ones too is served from 1.2 on; who takes nothing else cannot be.
    let old = params(json!({ "tls_maximum_protocol_version": "TLSv1_1" }));
    check_common_refused(old, "tls_params.tls_maximum_protocol_version");
    let certificate = json!({ "tls_certificates": [{ "pkcs12": { "inline_string": "x" } }] });
    check_common_refused(certificate, "tls_certificates[0].pkcs12");
    let validation = |fields: Value| json!({ "validation_context": fields });
    check_common_refused(
        validation(json!({ "system_root_certs": {} })),
        "validation_context.system_root_certs",
    );
    check_common_refused(
        validation(
            json!({ "match_typed_subject_alt_names": [{ "san_type": "OTHER_NAME", "matcher": { "exact": "a" } }] }),
        ),
        "validation_context.match_typed_subject_alt_names[0].san_type",
    );
    let custom = json!({ "custom_validator_config": { "name": "x", "typed_config": {
        "@type": "type.googleapis.com/envoy.config.core.v3.Node" } } });
    check_common_refused(
        validation(custom),
        "validation_context.custom_validator_config.typed_config",
    );
    let renegotiating = asked(&json!({ "allow_renegotiation": true }));
    assert_eq!(renegotiating.unwrap_err().path(), "allow_renegotiation");
    let stapling = served(&json!({ "ocsp_staple_policy": "MUST_STAPLE" }));
    assert_eq!(stapling.unwrap_err().path(), "ocsp_staple_policy");
    let keys = served(&json!({ "session_ticket_keys": {} }));
    assert_eq!(keys.unwrap_err().path(), "session_ticket_keys");
}

#[test]
fn secrets_are_named_with_their_sources_beside_the_defaults() {
    let service = json!({ "name": "ROOTCA", "sds_config": { "resource_api_version": "V3", "initial_fetch_timeout": "0s",
        "api_config_source": { "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": "sds-grpc" } }] } } });
    let ads = json!({ "name": "default", "sds_config": { "ads": {} } });
    let path = tempfile::NamedTempFile::new().unwrap();
    let file = json!({ "name": "rsa", "sds_config": { "path_config_source": { "path": path.path() } } });
    let combined = json!({
        "tls_certificate_sds_secret_configs": [ads, file],
        "combined_validation_context": {
            "default_validation_context": {
                "match_typed_subject_alt_names": [{ "san_type": "DNS", "matcher": { "suffix": "x" } }] },
            "validation_context_sds_secret_config": service } });
    let found = asked(&json!({ "common_tls_context": combined })).unwrap();
    let [first, second] = &*found.secrets.certificates else {
        panic!("{:?}", found.secrets)
    };
    assert_eq!((&*first.name, &first.source), ("default", &SecretSource::Ads));
    assert_eq!(first.initial_fetch_timeout, std::time::Duration::from_secs(15));
    assert!(matches!(&second.source, SecretSource::File { path: found, .. } if **found == *path.path()));
    let roots = found.secrets.validation.unwrap();
    assert!(
        matches!(&roots.source, SecretSource::Service { cluster, delta: false } if &**cluster == "sds-grpc")
    );
    assert!(roots.initial_fetch_timeout.is_zero());
    let defaults = found.settings.common.validation_context.unwrap();
    assert_eq!(defaults.match_typed_subject_alt_names.len(), 1);
}

#[test]
fn a_reference_that_leads_nowhere_is_refused_where_it_stands() {
    let certificates = |fields: Value| json!({ "tls_certificate_sds_secret_configs": [fields] });
    let at = |path: &str| format!("tls_certificate_sds_secret_configs[0].{path}");
    check_common_refused(certificates(json!({})), &at("name"));
    let source = |source: Value| certificates(json!({ "name": "a", "sds_config": source }));
    check_common_refused(source(json!({})), &at("sds_config"));
    check_common_refused(source(json!({ "self": {} })), &at("sds_config.self"));
    check_common_refused(
        source(json!({ "path_config_source": { "path": "/nowhere/a.yaml" } })),
        &at("sds_config.path_config_source.path"),
    );
    let service = |fields: Value| source(json!({ "api_config_source": fields }));
    check_common_refused(
        service(json!({ "api_type": "REST", "transport_api_version": "V3" })),
        &at("sds_config.api_config_source.api_type"),
    );
    check_common_refused(
        service(json!({ "api_type": "GRPC", "transport_api_version": "V3" })),
        &at("sds_config.api_config_source.grpc_services"),
    );
    check_common_refused(
        json!({ "tls_certificate_sds_secret_configs": [{ "name": "a" }], "tls_certificates": [{
            "certificate_chain": { "inline_string": "c" }, "private_key": { "inline_string": "k" } }] }),
        "tls_certificate_sds_secret_configs",
    );
}

#[test]
fn a_file_is_read_and_one_that_is_not_there_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("roots.pem");
    std::fs::write(&path, "roots").unwrap();
    let context = |path: &std::path::Path| json!({ "common_tls_context": { "validation_context": { "trusted_ca": { "filename": path } } } });
    let found = asked(&context(&path)).unwrap().settings.common.validation_context;
    assert_eq!(found.unwrap().trusted_ca.as_deref(), Some(&b"roots"[..]));
    let missing = asked(&context(&directory.path().join("none.pem"))).unwrap_err();
    assert_eq!(
        missing.path(),
        "common_tls_context.validation_context.trusted_ca.filename"
    );
    assert!(missing.reason().contains("none.pem"), "{missing}");
}
