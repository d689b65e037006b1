//! Which chains get TLS, and with which protocols.

use std::time::SystemTime;

use api_envoy::json::Schema;
use proxy_upstream::secrets::Sources;
use serde_json::{Value, json};
use telemetry::stats::Registry;
use tls::CertificateAuthority;

use super::*;

/// A context with a certificate of its own.
fn context(alpn: &[&str]) -> Value {
    let authority = CertificateAuthority::generate("test", SystemTime::now()).unwrap();
    let issued = authority.issue_server(&["a.test"], SystemTime::now()).unwrap();
    json!({ "common_tls_context": {
        "alpn_protocols": alpn,
        "tls_certificates": [{
            "certificate_chain": { "inline_string": issued.certificate_pem },
            "private_key": { "inline_string": issued.key_pem },
        }],
    } })
}

fn compiled(mut context: Value) -> ConfigResult<Compiled> {
    context["@type"] =
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext".into();
    let socket = json!({ "name": "envoy.transport_sockets.tls", "typed_config": context });
    let socket = Schema::get().parse(&socket).unwrap();
    let registry = Registry::new();
    let mut store = SecretStore::new(&registry, Sources::default());
    let scope = registry.listener_scope("l");
    compile(&socket, None, &scope, &mut store)
}

#[test]
fn a_chain_with_a_certificate_is_served_within_the_default_time() {
    let Ok(Compiled::Tls(tls, secrets)) = compiled(context(&["http/1.1"])) else {
        panic!("it is not TLS");
    };
    assert_eq!(tls.timeout, DEFAULT_TRANSPORT_SOCKET_CONNECT_TIMEOUT);
    assert!(secrets.is_empty());
    let context = tls.current.get().unwrap();
    assert_eq!(context.certificates().next().unwrap().dns_names, ["a.test"]);
}

#[test]
fn a_context_that_makes_no_server_is_refused() {
    let error = compiled(json!({})).err().unwrap();
    assert_eq!(error.path(), "typed_config");
    assert!(error.reason().contains("tls_certificates"), "{error}");
    let mut context = context(&[]);
    context["require_client_certificate"] = true.into();
    let error = compiled(context).err().unwrap();
    assert!(error.reason().contains("require_client_certificate"), "{error}");
}

#[test]
fn a_key_is_not_in_any_refusal() {
    let mut context = context(&[]);
    let certificate = &mut context["common_tls_context"]["tls_certificates"][0];
    certificate["private_key"]["inline_string"] = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n".into();
    let error = compiled(context).err().unwrap().to_string();
    assert!(error.contains("private_key"), "{error}");
    assert!(!error.contains("c2VjcmV0"), "{error}");
}

#[test]
fn a_secret_that_nobody_can_fetch_is_refused() {
    let secret = json!({ "name": "default", "sds_config": { "ads": {} } });
    let context = json!({ "common_tls_context": { "tls_certificate_sds_secret_configs": [secret] } });
    let error = compiled(context).err().unwrap();
    assert_eq!(error.path(), "typed_config");
    assert!(error.reason().contains("default"), "{error}");
}
