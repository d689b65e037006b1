//! The filters of a connection manager in order, ending in the router.

use std::sync::Arc;

use api_envoy::any;
use api_envoy::envoy::config::route::v3 as route;
use api_envoy::envoy::extensions::filters::http::{cors, fault, grpc_stats, grpc_web, router};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter as Proto;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::http_filter::ConfigType;
use api_envoy::istio::envoy::config::filter::http::alpn::v2alpha1 as alpn;
use api_envoy::stats::PluginConfig;
use api_envoy::type_url::message_name;
use prost_types::Any;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

use crate::router::RouterConfig;

/// One filter before the router.
#[derive(Clone, Debug)]
pub enum HttpFilter {
    /// `istio.alpn`
    Alpn(crate::alpn::AlpnConfig),
    /// `envoy.filters.http.cors`
    Cors(crate::cors::CorsConfig),
    /// `envoy.filters.http.fault`
    Fault(crate::fault::FaultConfig),
    /// `envoy.filters.http.grpc_stats`
    GrpcStats(Arc<crate::grpc_stats::GrpcStatsConfig>),
    /// `envoy.filters.http.grpc_web`
    GrpcWeb,
    /// `istio.metadata_exchange`
    PeerMetadata(crate::peer_metadata::PeerMetadataConfig),
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
    /// see [`route_config`].
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

    /// Whether a filter looks at gRPC calls.
    #[must_use]
    pub fn looks_at_grpc(&self) -> bool {
        let mut filters = self.filters.iter();
        filters.any(|filter| matches!(filter, HttpFilter::GrpcStats(_) | HttpFilter::GrpcWeb))
    }

    /// What is done with the headers in which proxies tell of themselves.
    #[must_use]
    pub fn peer_metadata(&self) -> Option<crate::peer_metadata::PeerMetadataConfig> {
        self.filters.iter().find_map(|filter| match filter {
            HttpFilter::PeerMetadata(config) => Some(*config),
            _ => None,
        })
    }

    /// What the chain changes of the application protocols that hosts are offered.
    #[must_use]
    pub fn alpn(&self) -> Option<&crate::alpn::AlpnConfig> {
        self.filters.iter().rev().find_map(|filter| match filter {
            HttpFilter::Alpn(config) => Some(config),
            _ => None,
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
    let compiled = if any::is::<alpn::FilterConfig>(typed) {
        HttpFilter::Alpn(crate::alpn::AlpnConfig::compile(&unpack(typed)?).within("typed_config")?)
    } else if any::is::<cors::v3::Cors>(typed) {
        HttpFilter::Cors(crate::cors::CorsConfig::compile(&unpack(typed)?))
    } else if any::is::<fault::v3::HttpFault>(typed) {
        HttpFilter::Fault(crate::fault::FaultConfig::compile(&unpack(typed)?).within("typed_config")?)
    } else if any::is::<grpc_stats::v3::FilterConfig>(typed) {
        let config = crate::grpc_stats::GrpcStatsConfig::compile(&unpack(typed)?);
        HttpFilter::GrpcStats(Arc::new(config.within("typed_config")?))
    } else if any::is::<grpc_web::v3::GrpcWeb>(typed) {
        HttpFilter::GrpcWeb
    } else if any::is::<PluginConfig>(typed) {
        // `istio.stats` changes no traffic, and counts nothing here yet.
        return Ok(None);
    } else if any::message_of(typed) == crate::peer_metadata::MESSAGE {
        let config = crate::peer_metadata::PeerMetadataConfig::compile(typed);
        HttpFilter::PeerMetadata(config.within("typed_config")?)
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

/// Compiles what a route, virtual host or weighted cluster says for one filter (`typed_per_filter_config`). None of
/// the filters acts yet, so everything but what changes no traffic is refused.
///
/// # Errors
/// The configuration would change traffic.
pub fn route_config(typed: &Any) -> ConfigResult<Arc<dyn std::any::Any + Send + Sync>> {
    if changes_traffic(typed) {
        let reason = format!(
            "{} is not supported by this proxy on routes",
            message_name(&typed.type_url)
        );
        return Err(ConfigError::new(reason));
    }
    Ok(Arc::new(()))
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
    fn a_fault_on_a_route_is_refused_and_a_disabled_filter_is_not() {
        let fault = fault::v3::HttpFault {
            abort: Some(fault::v3::FaultAbort::default()),
            ..fault::v3::HttpFault::default()
        };
        assert!(route_config(&any::pack(&fault)).is_err());
        assert!(route_config(&any::pack(&fault::v3::HttpFault::default())).is_ok());
        let disabled = route::FilterConfig {
            disabled: true,
            ..Default::default()
        };
        assert!(route_config(&any::pack(&disabled)).is_ok());
    }
}
