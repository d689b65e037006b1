//! The filters of a connection manager in order, ending in the router.

use std::collections::BTreeMap;

use api_envoy::any;
use api_envoy::envoy::config::route::v3 as route;
use api_envoy::envoy::extensions::filters::http::{cors, fault, grpc_stats, router};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter as Proto;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use api_envoy::type_url::message_name;
use prost_types::Any;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

use crate::router::RouterConfig;

/// One filter before the router.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    /// `envoy.filters.http.cors`
    Cors(crate::cors::CorsConfig),
    /// `envoy.filters.http.fault`
    Fault(crate::fault::FaultConfig),
    /// `envoy.filters.http.grpc_stats`
    GrpcStats(crate::grpc_stats::GrpcStatsConfig),
}

/// A compiled filter chain.
#[derive(Clone, Debug)]
pub struct FilterChain {
    /// The filters before the router, in order.
    pub filters: Vec<HttpFilter>,
    /// The router, which ends the chain.
    pub router: RouterConfig,
}

impl FilterChain {
    /// Compiles `http_filters`. A filter that is `disabled` is left out: nothing here can enable it per route yet,
    /// see [`check_route_overrides`].
    ///
    /// # Errors
    /// A filter is unknown or malformed, or the last one is not the router.
    pub fn compile(filters: &[Proto]) -> ConfigResult<Self> {
        let (last, before) = filters
            .split_last()
            .ok_or_else(|| ConfigError::new("the last filter must be the router"))?;
        let mut compiled = Vec::with_capacity(before.len());
        for (index, filter) in before.iter().enumerate() {
            if let Some(filter) = compile_filter(filter).map_err(|e| e.index(index))? {
                compiled.push(filter);
            }
        }
        let router = compile_router(last).map_err(|e| e.index(before.len()))?;
        Ok(FilterChain {
            filters: compiled,
            router,
        })
    }
}

fn compile_router(filter: &Proto) -> ConfigResult<RouterConfig> {
    let typed = typed_config(filter)?;
    if !any::is::<router::v3::Router>(typed) {
        return Err(ConfigError::at(
            "typed_config",
            "the last filter must be the router",
        ));
    }
    RouterConfig::compile(&unpack(typed)?).within("typed_config")
}

fn compile_filter(filter: &Proto) -> ConfigResult<Option<HttpFilter>> {
    let typed = typed_config(filter)?;
    let compiled = if any::is::<cors::v3::Cors>(typed) {
        HttpFilter::Cors(crate::cors::CorsConfig::compile(&unpack(typed)?))
    } else if any::is::<fault::v3::HttpFault>(typed) {
        HttpFilter::Fault(crate::fault::FaultConfig::compile(&unpack(typed)?).within("typed_config")?)
    } else if any::is::<grpc_stats::v3::FilterConfig>(typed) {
        HttpFilter::GrpcStats(crate::grpc_stats::GrpcStatsConfig::compile(&unpack(typed)?))
    } else if filter.is_optional {
        return Ok(None);
    } else {
        let reason = format!(
            "no HTTP filter for {} ({})",
            filter.name,
            message_name(&typed.type_url)
        );
        return Err(ConfigError::at("typed_config", reason));
    };
    Ok((!filter.disabled).then_some(compiled))
}

fn typed_config(filter: &Proto) -> ConfigResult<&Any> {
    match &filter.config_type {
        Some(ConfigType::TypedConfig(typed)) => Ok(typed),
        Some(ConfigType::ConfigDiscovery(_)) => Err(ConfigError::unsupported("config_discovery")),
        None => Err(ConfigError::at("typed_config", "must be set")),
    }
}

fn unpack<M: prost::Message + prost::Name + Default>(typed: &Any) -> ConfigResult<M> {
    any::unpack(typed).map_err(|error| ConfigError::at("typed_config", error.to_string()))
}

/// Refuses route-level filter configuration (`typed_per_filter_config`) that would change traffic. None of the
/// filters acts yet, so every override but a disabling one would.
///
/// # Errors
/// A route configures a filter.
pub fn check_route_overrides(routes: &route::RouteConfiguration) -> ConfigResult<()> {
    check_overrides(&routes.typed_per_filter_config)?;
    for (index, host) in routes.virtual_hosts.iter().enumerate() {
        check_virtual_host(host).within_index("virtual_hosts", index)?;
    }
    Ok(())
}

fn check_virtual_host(host: &route::VirtualHost) -> ConfigResult<()> {
    check_overrides(&host.typed_per_filter_config)?;
    for (index, entry) in host.routes.iter().enumerate() {
        check_overrides(&entry.typed_per_filter_config).within_index("routes", index)?;
        let Some(route::route::Action::Route(action)) = &entry.action else {
            continue;
        };
        let Some(route::route_action::ClusterSpecifier::WeightedClusters(weighted)) =
            &action.cluster_specifier
        else {
            continue;
        };
        for (cluster_index, cluster) in weighted.clusters.iter().enumerate() {
            check_overrides(&cluster.typed_per_filter_config)
                .within_index("clusters", cluster_index)
                .within("weighted_clusters")
                .within("route")
                .within_index("routes", index)?;
        }
    }
    Ok(())
}

fn check_overrides(overrides: &BTreeMap<String, Any>) -> ConfigResult<()> {
    // The first by name, so that the refusal is the same each time.
    let first = overrides
        .iter()
        .filter(|(_, typed)| changes_traffic(typed))
        .map(|(name, _)| name)
        .min();
    match first {
        None => Ok(()),
        Some(name) => Err(ConfigError::new("not supported by this proxy on routes")
            .key(name)
            .within("typed_per_filter_config")),
    }
}

fn changes_traffic(typed: &Any) -> bool {
    if let Ok(config) = any::unpack::<route::FilterConfig>(typed) {
        return !config.disabled && config.config.as_ref().is_some_and(changes_traffic);
    }
    if let Ok(config) = any::unpack::<fault::v3::HttpFault>(typed) {
        return crate::fault::FaultConfig::compile(&config).is_err();
    }
    if let Ok(policy) = any::unpack::<cors::v3::CorsPolicy>(typed) {
        return !crate::cors::is_empty(&policy);
    }
    true
}

#[cfg(test)]
mod tests {
    use api_envoy::envoy::extensions::filters::http::router::v3::Router;

    use super::*;

    fn filter<M: prost::Message + prost::Name>(message: &M) -> Proto {
        let typed = ConfigType::TypedConfig(any::pack(message));
        Proto {
            name: "x".to_owned(),
            config_type: Some(typed),
            ..Proto::default()
        }
    }

    #[test]
    fn what_istio_sends_by_default_is_accepted() {
        let chain = FilterChain::compile(&[
            filter(&grpc_stats::v3::FilterConfig {
                emit_filter_state: true,
                ..Default::default()
            }),
            filter(&fault::v3::HttpFault::default()),
            filter(&cors::v3::Cors::default()),
            filter(&Router::default()),
        ])
        .expect("accepted");
        assert_eq!(chain.filters.len(), 3);
    }

    #[test]
    fn a_chain_must_end_in_the_router() {
        for filters in [vec![], vec![filter(&cors::v3::Cors::default())]] {
            let error = FilterChain::compile(&filters).expect_err("refused").to_string();
            assert!(error.contains("the last filter must be the router"), "{error}");
        }
    }

    #[test]
    fn an_unknown_filter_is_refused_by_index_unless_it_is_optional() {
        let mut unknown = filter(&route::FilterConfig::default());
        let error =
            FilterChain::compile(&[unknown.clone(), filter(&Router::default())]).expect_err("refused");
        assert_eq!(error.path(), "[0].typed_config");
        unknown.is_optional = true;
        assert!(FilterChain::compile(&[unknown, filter(&Router::default())]).is_ok());
    }

    #[test]
    fn a_fault_on_a_route_is_refused_by_its_path() {
        let fault = fault::v3::HttpFault {
            abort: Some(fault::v3::FaultAbort::default()),
            ..fault::v3::HttpFault::default()
        };
        let faulty = route::Route {
            typed_per_filter_config: BTreeMap::from([("fault".to_owned(), any::pack(&fault))]),
            ..route::Route::default()
        };
        let host = route::VirtualHost {
            routes: vec![route::Route::default(), faulty],
            ..Default::default()
        };
        let routes = route::RouteConfiguration {
            virtual_hosts: vec![host],
            ..Default::default()
        };
        let error = check_route_overrides(&routes).expect_err("refused");
        assert_eq!(
            error.path(),
            "virtual_hosts[0].routes[1].typed_per_filter_config[\"fault\"]"
        );
    }
}
