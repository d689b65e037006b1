//! Who waits for a secret, and what becomes of one that comes.

use std::time::SystemTime;

use api_envoy::type_url;
use proxy_core::ConfigResult;
use proxy_upstream::config::Transport;
use proxy_upstream::secrets::{SecretKey, SecretKind, SecretSource, Sources};
use serde_json::{Value, json};
use tls::CertificateAuthority;

use super::tests::{Bench, any, endpoints, source};
use super::{Source, Waiting};

const SOCKET: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.";

fn socket(side: &str, common: Value) -> Value {
    json!({ "name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": format!("{SOCKET}{side}TlsContext"), "common_tls_context": common } })
}

fn named(name: &str) -> Value {
    json!({ "name": name, "sds_config": { "ads": {}, "initial_fetch_timeout": "3s" } })
}

/// A context whose certificate and authorities are secrets.
fn both() -> Value {
    json!({
        "tls_certificate_sds_secret_configs": [named("default")],
        "combined_validation_context": {
            "default_validation_context": {}, "validation_context_sds_secret_config": named("ROOTCA") },
    })
}

fn cluster(name: &str, common: Value) -> Source {
    let cluster = json!({ "name": name, "transport_socket": socket("Upstream", common) });
    source(any(type_url::CLUSTER, cluster))
}

fn listener(name: &str, port: u16, common: Value) -> Source {
    source(any(
        type_url::LISTENER,
        json!({
            "name": name,
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": port } },
            "filter_chains": [{ "transport_socket": socket("Downstream", common), "filters": [] }]
        }),
    ))
}

/// A secret `default` with a new certificate of `authority`.
fn certificate(authority: &CertificateAuthority) -> Source {
    let issued = authority.issue_server(&["a.test"], SystemTime::now()).unwrap();
    secret(json!({ "name": "default", "tls_certificate": {
        "certificate_chain": { "inline_string": issued.certificate_pem },
        "private_key": { "inline_string": issued.key_pem } } }))
}

fn roots(pem: &str) -> Source {
    secret(json!({ "name": "ROOTCA", "validation_context": { "trusted_ca": { "inline_string": pem } } }))
}

fn secret(fields: Value) -> Source {
    source(any(type_url::SECRET, fields))
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate("root", SystemTime::now()).unwrap()
}

fn key(kind: SecretKind, name: &str) -> SecretKey {
    SecretKey {
        kind,
        source: SecretSource::Ads,
        name: name.into(),
    }
}

/// Whether a cluster can do handshakes, and the serial number of its certificate.
fn serial(bench: &Bench, cluster: &str) -> Option<String> {
    let version = bench.state.clusters()[cluster].active.as_ref()?;
    let Transport::Tls(tls) = version.config.transport.default_transport() else {
        panic!("not TLS");
    };
    Some(tls.context()?.certificate()?.serial.clone())
}

#[test]
fn a_cluster_warms_until_all_its_secrets_come() {
    let (mut bench, authority) = (Bench::live(), authority());
    bench.state.update_cluster(cluster("a", both())).unwrap();
    assert_eq!(
        bench.actions(),
        [
            "subscribe default",
            "wait secret default 3s",
            "subscribe ROOTCA",
            "wait secret ROOTCA 3s"
        ]
    );
    bench.state.update_ads_secret(&certificate(&authority)).unwrap();
    assert!(bench.actions().is_empty());
    assert!(bench.state.clusters()["a"].active.is_none());
    bench
        .state
        .update_ads_secret(&roots(authority.certificate_pem()))
        .unwrap();
    assert_eq!(bench.actions(), ["cluster a with 0"]);
    assert!(serial(&bench, "a").is_some());
}

#[test]
fn a_cluster_that_waits_for_secrets_keeps_its_endpoints_when_the_time_for_them_is_over() {
    let (mut bench, authority) = (Bench::live(), authority());
    let eds = json!({ "name": "a", "type": "EDS", "transport_socket": socket("Upstream", both()),
        "eds_cluster_config": { "service_name": "a-eds", "eds_config": { "ads": {} } } });
    bench
        .state
        .update_cluster(source(any(type_url::CLUSTER, eds)))
        .unwrap();
    bench.state.update_endpoints(endpoints("a-eds")).unwrap();
    bench.actions();
    bench.state.timed_out(&Waiting::Endpoints("a-eds".into()));
    assert!(bench.actions().is_empty());
    bench.state.update_ads_secret(&certificate(&authority)).unwrap();
    bench
        .state
        .update_ads_secret(&roots(authority.certificate_pem()))
        .unwrap();
    assert_eq!(bench.actions(), ["cluster a with 1"]);
}

#[test]
fn a_listener_warms_until_its_secrets_come_and_goes_on_without_when_they_do_not() {
    let (mut bench, authority) = (Bench::live(), authority());
    let certificates = json!({ "tls_certificate_sds_secret_configs": [named("default")] });
    bench
        .put_listener(listener("l", 1, certificates.clone()))
        .unwrap();
    assert_eq!(bench.actions(), ["subscribe default", "wait secret default 3s"]);
    let key = key(SecretKind::Certificate, "default");
    bench.state.timed_out(&Waiting::Secret(key));
    assert_eq!(bench.actions(), ["listener l"]);
    bench.state.update_ads_secret(&certificate(&authority)).unwrap();
    assert!(bench.actions().is_empty(), "the listener in force gets it");
    bench.put_listener(listener("m", 2, certificates)).unwrap();
    assert_eq!(bench.actions(), ["listener m"], "what has come is shared");
}

#[test]
fn a_new_version_reaches_everybody_and_a_bad_one_nobody() {
    let (mut bench, authority) = (Bench::live(), authority());
    let first = certificate(&authority);
    for name in ["a", "b"] {
        bench.state.update_cluster(cluster(name, both())).unwrap();
    }
    bench.state.update_ads_secret(&first).unwrap();
    bench
        .state
        .update_ads_secret(&roots(authority.certificate_pem()))
        .unwrap();
    let before = serial(&bench, "a");
    assert!(before.is_some() && before == serial(&bench, "b"));

    let other = authority_key_of_another();
    let mut mixed =
        json!({ "name": "default", "tls_certificate": { "private_key": { "inline_string": other } } });
    let issued = authority.issue_server(&["a.test"], SystemTime::now()).unwrap();
    mixed["tls_certificate"]["certificate_chain"] = json!({ "inline_string": issued.certificate_pem });
    let empty = json!({ "name": "ROOTCA", "validation_context": {} });
    let half = &authority.certificate_pem()[..100];
    for (bad, words) in [
        (secret(mixed), "private_key does not belong"),
        (secret(empty), "trusted_ca is empty"),
        (roots(half), "trusted_ca is not whole PEM"),
        (
            secret(
                json!({ "name": "default", "session_ticket_keys": { "keys": [{ "inline_string": "x" }] } }),
            ),
            "session_ticket_keys: not supported",
        ),
        (
            secret(json!({ "name": "default", "validation_context": {} })),
            "is a validation_context",
        ),
    ] {
        let error = bench.state.update_ads_secret(&bad).unwrap_err().to_string();
        assert!(error.contains(words), "{error} / {words}");
        assert!(!error.contains("BEGIN"), "{error}");
        assert_eq!(serial(&bench, "a"), before);
    }
    let entry = &bench.state.secrets()[&key(SecretKind::Certificate, "default")];
    assert!(entry.refused.is_some() && entry.source.is_some());

    bench.state.update_ads_secret(&certificate(&authority)).unwrap();
    let after = serial(&bench, "a");
    assert!(after != before && after == serial(&bench, "b"));
    let entry = &bench.state.secrets()[&key(SecretKind::Certificate, "default")];
    assert!(entry.refused.is_none());
}

fn authority_key_of_another() -> String {
    authority()
        .issue_server(&["b.test"], SystemTime::now())
        .unwrap()
        .key_pem
}

#[test]
fn a_secret_is_let_go_of_with_the_last_who_uses_it() {
    let mut bench = Bench::live();
    let certificates = json!({ "tls_certificate_sds_secret_configs": [named("default")] });
    for name in ["a", "b"] {
        bench
            .state
            .update_cluster(cluster(name, certificates.clone()))
            .unwrap();
    }
    bench.actions();
    bench.state.remove_cluster("a");
    bench.state.collect_secrets();
    assert_eq!(bench.actions(), ["remove cluster a"]);
    bench.state.remove_cluster("b");
    bench.state.collect_secrets();
    assert_eq!(bench.actions(), ["remove cluster b", "unsubscribe default"]);
    assert!(bench.state.secrets().is_empty());
}

fn refused(common: Value) -> String {
    let mut bench = Bench::live();
    let result: ConfigResult<()> = bench.state.update_cluster(cluster("a", common));
    result.unwrap_err().to_string()
}

#[test]
fn a_secret_that_can_come_from_nowhere_is_refused() {
    let service = |cluster: &str| {
        json!({ "tls_certificate_sds_secret_configs": [{ "name": "default", "sds_config": { "api_config_source": {
            "api_type": "GRPC", "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": { "cluster_name": cluster } }] } } }] })
    };
    assert!(refused(service("sds-grpc")).contains("no static cluster sds-grpc"));
    let fixed = json!({ "tls_certificate_sds_secret_configs": [{ "name": "default" }] });
    assert!(refused(fixed).contains("the bootstrap has no tls_certificate"));
    let mut bench = Bench::live();
    bench.state.set_secret_sources(Sources {
        ads: false,
        clusters: ["sds-grpc".into()].into(),
    });
    bench
        .state
        .update_cluster(cluster("a", service("sds-grpc")))
        .unwrap();
    assert_eq!(bench.actions(), ["fetch default", "wait secret default 15s"]);
    let error = bench.state.update_cluster(cluster("b", both())).unwrap_err();
    assert!(
        error.reason().contains("no aggregated discovery service"),
        "{error}"
    );
}

#[test]
fn a_secret_of_the_bootstrap_is_there_from_the_beginning() {
    let (mut bench, authority) = (Bench::new(), authority());
    bench.state.add_static_secret(certificate(&authority)).unwrap();
    assert!(bench.state.add_static_secret(certificate(&authority)).is_err());
    let fixed = json!({ "tls_certificate_sds_secret_configs": [{ "name": "default" }] });
    bench.state.add_static_cluster(cluster("a", fixed)).unwrap();
    assert!(serial(&bench, "a").is_some());
}

#[test]
fn files_of_a_secret_are_read_again_and_refused_when_they_are_bad() {
    let (mut bench, authority) = (Bench::live(), authority());
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let write = || {
        let issued = authority.issue_server(&["a.test"], SystemTime::now()).unwrap();
        std::fs::write(path("chain"), issued.certificate_pem).unwrap();
        std::fs::write(path("key"), issued.key_pem).unwrap();
    };
    write();
    let certificates = json!({ "tls_certificate_sds_secret_configs": [named("default")] });
    bench.state.update_cluster(cluster("a", certificates)).unwrap();
    let files = json!({ "name": "default", "tls_certificate": {
        "certificate_chain": { "filename": path("chain") }, "private_key": { "filename": path("key") } } });
    bench.state.update_ads_secret(&secret(files)).unwrap();
    let key = key(SecretKind::Certificate, "default");
    let before = serial(&bench, "a");
    assert_eq!(bench.state.secrets()[&key].files.files.len(), 2);
    assert!(!bench.state.reread_secret(&key).unwrap(), "nothing has changed");
    std::fs::write(path("key"), "half a key").unwrap();
    assert!(bench.state.reread_secret(&key).is_err());
    assert_eq!(serial(&bench, "a"), before);
    write();
    assert!(bench.state.reread_secret(&key).unwrap());
    assert_ne!(serial(&bench, "a"), before);
}

#[test]
fn a_cluster_in_force_gets_endpoints_while_its_next_version_waits_for_secrets() {
    let mut bench = Bench::live();
    let eds = |more: Value| {
        let mut cluster =
            json!({ "name": "a", "type": "EDS", "eds_cluster_config": { "eds_config": { "ads": {} } } });
        cluster
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        source(any(type_url::CLUSTER, cluster))
    };
    let endpoints = |hosts: &[&str]| {
        let host = |ip: &&str| json!({ "endpoint": { "address": { "socket_address": { "address": ip, "port_value": 1 } } } });
        let hosts: Vec<_> = hosts.iter().map(host).collect();
        source(any(
            type_url::ENDPOINT,
            json!({ "cluster_name": "a", "endpoints": [{ "lb_endpoints": hosts }] }),
        ))
    };
    bench.state.update_cluster(eds(json!({}))).unwrap();
    bench.state.update_endpoints(endpoints(&["10.0.0.1"])).unwrap();
    let certificates = json!({ "tls_certificate_sds_secret_configs": [named("default")] });
    let secured = json!({ "transport_socket": socket("Upstream", certificates) });
    bench.state.update_cluster(eds(secured)).unwrap();
    bench.actions();
    bench
        .state
        .update_endpoints(endpoints(&["10.0.0.1", "10.0.0.2"]))
        .unwrap();
    assert_eq!(bench.actions(), ["endpoints a: 2"]);
    bench.state.update_ads_secret(&certificate(&authority())).unwrap();
    assert_eq!(bench.actions(), ["cluster a with 2"]);
}

#[test]
fn a_time_of_zero_is_no_time_limit() {
    let mut bench = Bench::live();
    let secret = json!({ "name": "default", "sds_config": { "ads": {}, "initial_fetch_timeout": "0s" } });
    let certificates = json!({ "tls_certificate_sds_secret_configs": [secret] });
    bench.state.update_cluster(cluster("a", certificates)).unwrap();
    assert_eq!(bench.actions(), ["subscribe default"]);
}
