//! A discovery service that is reached by gRPC (`envoy.config.core.v3.ApiConfigSource`), for secrets or for everything.

use std::sync::Arc;

use api_envoy::envoy::config::core::v3::{
    ApiConfigSource, ApiVersion, GrpcService, api_config_source::ApiType, grpc_service::TargetSpecifier,
};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

/// How a discovery service is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrpcSource {
    /// Delta, or state of the world.
    pub delta: bool,
    /// The static cluster that it is reached through.
    pub cluster: Arc<str>,
}

impl GrpcSource {
    /// Reads the source of one type of resource.
    ///
    /// # Errors
    /// Another protocol than gRPC, another version than 3, no service or several, or what is not sent here.
    pub fn compile(proto: &ApiConfigSource) -> ConfigResult<Self> {
        let delta = match ApiType::try_from(proto.api_type) {
            Ok(ApiType::Grpc) => false,
            Ok(ApiType::DeltaGrpc) => true,
            _ => return Err(wrong_type()),
        };
        Self::of_variant(proto, delta)
    }

    /// Reads the source of all types, which may also be named so.
    ///
    /// # Errors
    /// As [`compile`](Self::compile).
    pub fn compile_aggregated(proto: &ApiConfigSource) -> ConfigResult<Self> {
        let delta = match ApiType::try_from(proto.api_type) {
            Ok(ApiType::Grpc | ApiType::AggregatedGrpc) => false,
            Ok(ApiType::DeltaGrpc | ApiType::AggregatedDeltaGrpc) => true,
            _ => return Err(wrong_type()),
        };
        Self::of_variant(proto, delta)
    }

    fn of_variant(proto: &ApiConfigSource, delta: bool) -> ConfigResult<Self> {
        if proto.transport_api_version != i32::from(ApiVersion::V3) {
            return Err(ConfigError::at("transport_api_version", "only V3 is supported"));
        }
        refuse_unsupported(&[("config_validators", !proto.config_validators.is_empty())])?;
        let [grpc] = proto.grpc_services.as_slice() else {
            return Err(ConfigError::at("grpc_services", "exactly one is needed"));
        };
        let cluster = cluster(grpc).within_index("grpc_services", 0)?;
        Ok(Self { delta, cluster })
    }
}

fn wrong_type() -> ConfigError {
    ConfigError::at("api_type", "only GRPC and DELTA_GRPC are supported")
}

fn cluster(grpc: &GrpcService) -> ConfigResult<Arc<str>> {
    refuse_unsupported(&[("initial_metadata", !grpc.initial_metadata.is_empty())])?;
    match &grpc.target_specifier {
        Some(TargetSpecifier::EnvoyGrpc(grpc)) => {
            refuse_unsupported(&[("authority", !grpc.authority.is_empty())]).within("envoy_grpc")?;
            Ok(grpc.cluster_name.as_str().into())
        }
        Some(TargetSpecifier::GoogleGrpc(_)) => Err(ConfigError::unsupported("google_grpc")),
        None => Err(ConfigError::new("needs a target")),
    }
}
