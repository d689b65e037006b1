//! What spans of a connection manager say about the proxy. Without a provider nothing is sent; sampling decisions and
//! tags are there for when one is configured.

use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::Tracing;
use api_envoy::envoy::r#type::metadata::v3::{
    MetadataKey, MetadataKind, metadata_key::PathSegment, metadata_key::path_segment::Segment, metadata_kind,
};
use api_envoy::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use api_envoy::envoy::r#type::v3::Percent;
use control_snapshot::{Profile, ProxyView, canonical_name, canonical_revision};

/// Percent of requests sampled where nothing says otherwise (istiod's `PILOT_TRACE_SAMPLING`).
const DEFAULT_SAMPLING_PERCENT: f64 = 1.0;

/// Dry-run results of authorization: metadata key and tag.
const DRY_RUN_TAGS: [(&str, &str); 4] = [
    (
        "istio_dry_run_allow_shadow_effective_policy_id",
        "istio.authorization.dry_run.allow_policy.name",
    ),
    (
        "istio_dry_run_allow_shadow_engine_result",
        "istio.authorization.dry_run.allow_policy.result",
    ),
    (
        "istio_dry_run_deny_shadow_effective_policy_id",
        "istio.authorization.dry_run.deny_policy.name",
    ),
    (
        "istio_dry_run_deny_shadow_engine_result",
        "istio.authorization.dry_run.deny_policy.result",
    ),
];

/// The tracing block of a connection manager; none when the mesh has tracing off.
pub(crate) fn of(view: &ProxyView) -> Option<Tracing> {
    view.mesh.enable_tracing.then(|| Tracing {
        client_sampling: Some(Percent { value: 100.0 }),
        random_sampling: Some(Percent {
            value: sampling(&view.profile),
        }),
        overall_sampling: Some(Percent { value: 100.0 }),
        custom_tags: custom_tags(&view.profile),
        ..Tracing::default()
    })
}

/// The percentage that the proxy's own configuration asks for.
fn sampling(profile: &Profile) -> f64 {
    let config: Option<serde_json::Value> = serde_json::from_str(&profile.proxy_config).ok();
    let own = config
        .as_ref()
        .and_then(|c| c.pointer("/tracing/sampling"))
        .and_then(serde_json::Value::as_f64);
    own.unwrap_or(DEFAULT_SAMPLING_PERCENT)
}

fn custom_tags(profile: &Profile) -> Vec<CustomTag> {
    let literal = |tag: &str, value: &str| CustomTag {
        tag: tag.to_owned(),
        r#type: Some(custom_tag::Type::Literal(custom_tag::Literal {
            value: value.to_owned(),
        })),
    };
    let mut tags: Vec<_> = DRY_RUN_TAGS.iter().map(|(key, tag)| dry_run(key, tag)).collect();
    let labels = &profile.labels;
    tags.push(literal("istio.canonical_revision", canonical_revision(labels)));
    tags.push(literal(
        "istio.canonical_service",
        canonical_name(labels, "unknown"),
    ));
    if !profile.cluster.is_empty() {
        tags.push(literal("istio.cluster_id", &profile.cluster));
    }
    if !profile.mesh.is_empty() {
        tags.push(literal("istio.mesh_id", &profile.mesh));
    }
    tags.push(literal("istio.namespace", &profile.namespace));
    tags
}

fn dry_run(key: &str, tag: &str) -> CustomTag {
    let segment = PathSegment {
        segment: Some(Segment::Key(key.to_owned())),
    };
    CustomTag {
        tag: tag.to_owned(),
        r#type: Some(custom_tag::Type::Metadata(custom_tag::Metadata {
            kind: Some(MetadataKind {
                kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})),
            }),
            metadata_key: Some(MetadataKey {
                key: "envoy.filters.http.rbac".to_owned(),
                path: vec![segment],
            }),
            default_value: String::new(),
        })),
    }
}
