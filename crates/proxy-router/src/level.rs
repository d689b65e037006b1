//! What may be configured at every level of a route configuration (weighted cluster, route, virtual host, the whole):
//! headers to change, and filters' own configuration.

use std::collections::BTreeMap;

use api_envoy::envoy::config::core::v3::HeaderValueOption;
use api_envoy::envoy::config::route::v3 as pb;
use proxy_core::ConfigResult;

use crate::filter_config::{FilterConfigs, RouteContext};
use crate::header_mutation::HeaderMutations;

/// What one level says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Level {
    pub(crate) request_headers: HeaderMutations,
    pub(crate) response_headers: HeaderMutations,
    pub(crate) filter_configs: FilterConfigs,
}

impl Level {
    pub(crate) fn compile(proto: &impl LevelProto, context: &mut dyn RouteContext) -> ConfigResult<Self> {
        let fields = proto.fields();
        let (add, remove) = fields.request_headers;
        let request_headers = HeaderMutations::compile("request_headers", add, remove)?;
        let (add, remove) = fields.response_headers;
        Ok(Self {
            request_headers,
            response_headers: HeaderMutations::compile("response_headers", add, remove)?,
            filter_configs: FilterConfigs::compile(fields.filter_configs, context)?,
        })
    }
}

/// The fields that the messages of all levels have under the same names.
pub(crate) struct Fields<'p> {
    /// To add, and to remove.
    request_headers: (&'p [HeaderValueOption], &'p [String]),
    response_headers: (&'p [HeaderValueOption], &'p [String]),
    filter_configs: &'p BTreeMap<String, api_envoy::Any>,
}

/// A message that configures a level.
pub(crate) trait LevelProto {
    fn fields(&self) -> Fields<'_>;
}

macro_rules! levels {
    ($($message:ty),*) => {
        $(impl LevelProto for $message {
            fn fields(&self) -> Fields<'_> {
                Fields {
                    request_headers: (&self.request_headers_to_add, &self.request_headers_to_remove),
                    response_headers: (&self.response_headers_to_add, &self.response_headers_to_remove),
                    filter_configs: &self.typed_per_filter_config,
                }
            }
        })*
    };
}

levels!(
    pb::weighted_cluster::ClusterWeight,
    pb::Route,
    pb::VirtualHost,
    pb::RouteConfiguration
);
