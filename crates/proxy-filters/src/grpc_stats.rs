//! `envoy.filters.http.grpc_stats`: counts gRPC calls and their messages on the cluster that they went to
//! (`envoy.extensions.filters.http.grpc_stats.v3.FilterConfig`).

use std::borrow::Cow;

use api_envoy::envoy::extensions::filters::http::grpc_stats::v3::FilterConfig;
use api_envoy::envoy::extensions::filters::http::grpc_stats::v3::filter_config::PerMethodStatSpecifier;
use proxy_core::ConfigResult;
use proxy_core::error::refuse_unsupported;

/// A gRPC statistics filter.
#[derive(Clone, Debug, Default)]
pub struct GrpcStatsConfig {
    /// Access logs are told how many messages went both ways (`envoy.filters.http.grpc_stats` in the filter state).
    pub emit_filter_state: bool,
    methods: Methods,
    replace_dots: bool,
}

/// Which methods have statistics of their own.
#[derive(Clone, Debug, Default)]
enum Methods {
    #[default]
    None,
    All,
    /// Services, and their methods.
    Listed(Vec<(String, Vec<String>)>),
}

impl GrpcStatsConfig {
    /// Reads the configuration.
    ///
    /// # Errors
    /// `enable_upstream_stats`, which this proxy does not have.
    pub fn compile(proto: &FilterConfig) -> ConfigResult<Self> {
        refuse_unsupported(&[("enable_upstream_stats", proto.enable_upstream_stats)])?;
        let methods = match &proto.per_method_stat_specifier {
            None | Some(PerMethodStatSpecifier::StatsForAllMethods(false)) => Methods::None,
            Some(PerMethodStatSpecifier::StatsForAllMethods(true)) => Methods::All,
            Some(PerMethodStatSpecifier::IndividualMethodStatsAllowlist(list)) => {
                let services = list.services.iter();
                Methods::Listed(
                    services
                        .map(|s| (s.name.clone(), s.method_names.clone()))
                        .collect(),
                )
            }
        };
        Ok(GrpcStatsConfig {
            emit_filter_state: proto.emit_filter_state,
            methods,
            replace_dots: proto.replace_dots_in_grpc_service_name,
        })
    }

    /// What the names of a call's statistics begin with, within those of its cluster. A path that names no method has
    /// none.
    #[must_use]
    pub fn scope(&self, path: &[u8]) -> Option<Cow<'static, str>> {
        let (service, method) = service_and_method(path)?;
        let is_listed = match &self.methods {
            Methods::None => false,
            Methods::All => true,
            Methods::Listed(services) => services
                .iter()
                .any(|(name, methods)| name == service && methods.iter().any(|m| m == method)),
        };
        Some(match (is_listed, self.replace_dots) {
            (false, _) => "grpc".into(),
            (true, false) => format!("grpc.{service}.{method}").into(),
            (true, true) => format!("grpc.{}.{method}", service.replace('.', "_")).into(),
        })
    }
}

/// The service and the method of a gRPC request's path, without its query.
#[must_use]
pub fn service_and_method(path: &[u8]) -> Option<(&str, &str)> {
    let path = std::str::from_utf8(path).ok()?.strip_prefix('/')?;
    let (service, method) = path.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some((service, method))
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::json::Schema;
    use serde_json::{Value, json};

    fn config(json: &Value) -> GrpcStatsConfig {
        GrpcStatsConfig::compile(&Schema::get().parse(json).unwrap()).unwrap()
    }

    #[test]
    fn only_methods_that_are_asked_for_have_statistics_of_their_own() {
        let path = b"/my.pkg.Svc/Do";
        let listed = json!({ "individual_method_stats_allowlist": { "services": [
            { "name": "my.pkg.Svc", "method_names": ["Do"] }] } });
        for (json, expected) in [
            (json!({}), "grpc"),
            (json!({ "stats_for_all_methods": false }), "grpc"),
            (json!({ "stats_for_all_methods": true }), "grpc.my.pkg.Svc.Do"),
            (listed.clone(), "grpc.my.pkg.Svc.Do"),
            (
                json!({ "stats_for_all_methods": true, "replace_dots_in_grpc_service_name": true }),
                "grpc.my_pkg_Svc.Do",
            ),
        ] {
            assert_eq!(config(&json).scope(path).unwrap(), expected);
        }
        assert_eq!(config(&listed).scope(b"/my.pkg.Svc/Other").unwrap(), "grpc");
    }

    #[test]
    fn a_path_that_names_no_method_is_not_counted() {
        for path in [&b"/nope"[..], b"/a/b/c", b"//b", b"/a/", b"a/b", b""] {
            assert_eq!(GrpcStatsConfig::default().scope(path), None);
        }
    }
}
