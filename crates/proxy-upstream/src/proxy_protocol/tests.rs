//! What hosts are told, byte for byte.

use api_envoy::json::Schema;
use proxy_core::proxy_protocol::{Parsed, parse};
use serde_json::{Value, json};
use telemetry::stats::Registry;
use tokio::io::AsyncReadExt as _;

use super::*;

fn compile(config: Value) -> ConfigResult<(Announcer, Registry)> {
    let registry = Registry::new();
    let scope = registry.cluster_scope("app");
    let proto: ProxyProtocolUpstreamTransport = Schema::get().parse(&json!({ "config": config })).unwrap();
    Announcer::compile(&proto, &scope).map(|transport| (transport, registry))
}

fn tlv(kind: u8, value: &[u8]) -> Tlv {
    Tlv {
        kind,
        value: value.into(),
    }
}

fn client() -> Endpoints {
    Endpoints {
        source: "192.0.2.1:4000".parse().unwrap(),
        destination: "192.0.2.2:80".parse().unwrap(),
    }
}

/// What the host receives of a connection that is for `client` with these extensions.
async fn announced(transport: &Announcer, registry: &Registry, tlvs: &[Tlv]) -> Result<Vec<u8>, String> {
    let (ours, mut theirs) = tokio::net::UnixStream::pair().unwrap();
    let announcement = Announcement {
        endpoints: client(),
        tlvs,
    };
    let (shard, counter) = (registry.shard(), transport.scope.counter("sent"));
    let mut stream = Stream::Unix(ours);
    transport
        .announce(&mut stream, Some(announcement), (&shard, counter))
        .await
        .map_err(|error| error.to_string())?;
    drop(stream);
    let mut received = Vec::new();
    theirs.read_to_end(&mut received).await.unwrap();
    Ok(received)
}

#[tokio::test]
async fn version_1_tells_the_addresses_in_a_line() {
    let (transport, registry) = compile(json!({ "version": "V1", "pass_through_tlvs": {} })).unwrap();
    let received = announced(&transport, &registry, &[tlv(1, b"lost")])
        .await
        .unwrap();
    assert_eq!(received, b"PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n");
}

#[tokio::test]
async fn extensions_of_the_settings_replace_those_that_are_passed_on() {
    let (transport, registry) = compile(json!({ "version": "V2",
        "pass_through_tlvs": { "match_type": "INCLUDE", "tlv_type": [1, 2] },
        "added_tlvs": [{ "type": 2, "value": "bWluZQ==" }] }))
    .unwrap();
    let came = [tlv(1, b"passed"), tlv(2, b"replaced"), tlv(3, b"not wanted")];
    let received = announced(&transport, &registry, &came).await.unwrap();
    let Parsed::Header(header) = parse(&received) else {
        panic!("{received:?}")
    };
    assert_eq!(header.endpoints, Some(client()));
    assert_eq!(header.tlvs, [tlv(2, b"mine"), tlv(1, b"passed")]);
}

#[tokio::test]
async fn extensions_that_do_not_fit_fail_the_connection() {
    let (transport, registry) = compile(json!({ "version": "V2", "pass_through_tlvs": {} })).unwrap();
    let error = announced(&transport, &registry, &[tlv(1, &[0; 65_535])])
        .await
        .unwrap_err();
    assert_eq!(error, "PROXY protocol TLVs do not fit into a header");
    let name = "cluster.app.upstream.proxyprotocol.v2_tlvs_exceed_max_length";
    let counted = registry
        .snapshot()
        .into_iter()
        .find(|stat| stat.name == name)
        .unwrap();
    assert!(matches!(counted.value, telemetry::stats::Value::Counter(1)));
}

#[test]
fn a_hosts_own_extensions_come_first() {
    let (transport, _) = compile(json!({ "version": "V2", "added_tlvs": [
        { "type": 1, "value": "YQ==" }, { "type": 2, "value": "Yg==" }, { "type": 1, "value": "Yw==" }
    ] }))
    .unwrap();
    assert_eq!(transport.added, [tlv(1, b"a"), tlv(2, b"b"), tlv(1, b"c")]);
    let host = core::PerHostConfig {
        added_tlvs: vec![core::TlvEntry {
            r#type: 2,
            value: b"host".to_vec().into(),
            format_string: None,
        }],
    };
    let mut metadata = core::Metadata::default();
    assert!(transport.for_host(&metadata).is_none());
    let typed = (HOST_METADATA.to_owned(), any::pack(&host));
    metadata.typed_filter_metadata.extend([typed]);
    let own = transport.for_host(&metadata).unwrap();
    assert_eq!(own.added, [tlv(2, b"host"), tlv(1, b"a"), tlv(1, b"c")]);
    assert!(own != transport);
}

#[test]
fn what_is_not_enforced_is_refused_by_name() {
    let path = |config: Value| compile(config).unwrap_err().path().to_owned();
    let format = json!({ "added_tlvs": [{ "type": 1, "format_string": { "text_format_source": { "inline_string": "x" } } }] });
    assert_eq!(path(format), "config.added_tlvs[0].format_string");
    assert_eq!(
        path(json!({ "added_tlvs": [{ "type": 256, "value": "" }] })),
        "config.added_tlvs[0].type"
    );
}
