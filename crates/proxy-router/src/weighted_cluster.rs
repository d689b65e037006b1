//! Traffic split over clusters by weight (`envoy.config.route.v3.WeightedCluster`).

use api_envoy::envoy::config::route::v3 as pb;
use api_envoy::envoy::config::route::v3::weighted_cluster::RandomValueSpecifier;
use api_envoy::envoy::config::route::v3::weighted_cluster::cluster_weight::HostRewriteSpecifier;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::{HeaderName, RequestHead};

use crate::cluster_ref::{ClusterRef, ClusterSource, NamedCluster};
use crate::filter_config::RouteContext;
use crate::level::Level;

/// Clusters and their weights.
#[derive(Clone, Debug)]
pub(crate) struct WeightedClusters {
    clusters: Vec<WeightedCluster>,
    total: u64,
    random_header: Option<HeaderName>,
}

/// One of the clusters, with what holds for requests to it alone.
#[derive(Clone, Debug)]
pub struct WeightedCluster {
    source: ClusterSource,
    weight: u32,
    pub(crate) level: Level,
    pub(crate) host_rewrite: Option<Box<[u8]>>,
}

impl WeightedClusters {
    #[allow(deprecated)]
    pub(crate) fn compile(proto: &pb::WeightedCluster, context: &mut dyn RouteContext) -> ConfigResult<Self> {
        let random_header = match &proto.random_value_specifier {
            None | Some(RandomValueSpecifier::UseHashPolicy(false)) => None,
            Some(RandomValueSpecifier::HeaderName(name)) => Some(HeaderName::new(name)),
            Some(RandomValueSpecifier::UseHashPolicy(true)) => {
                return Err(ConfigError::unsupported("use_hash_policy"));
            }
        };
        let mut clusters = Vec::with_capacity(proto.clusters.len());
        for (index, cluster) in proto.clusters.iter().enumerate() {
            clusters.push(WeightedCluster::compile(cluster, context).within_index("clusters", index)?);
        }
        let total: u64 = clusters.iter().map(|c| u64::from(c.weight)).sum();
        if total == 0 {
            return Err(ConfigError::at("clusters", "the sum of weights must be positive"));
        }
        if total > u64::from(u32::MAX) {
            return Err(ConfigError::at("clusters", "the sum of weights exceeds 2^32-1"));
        }
        if proto.total_weight.is_some_and(|given| u64::from(given) != total) {
            return Err(ConfigError::at(
                "total_weight",
                format!("the weights sum up to {total}"),
            ));
        }
        Ok(Self {
            clusters,
            total,
            random_header,
        })
    }

    /// The cluster for a request with this random number.
    pub(crate) fn choose(&self, request: &RequestHead, random: u64) -> Option<&WeightedCluster> {
        let given = self
            .random_header
            .as_ref()
            .and_then(|name| request.headers.get(name));
        let given = given
            .and_then(|value| std::str::from_utf8(value).ok())
            .and_then(|text| text.parse().ok());
        let mut point = given.unwrap_or(random) % self.total;
        self.clusters.iter().find(|cluster| {
            let weight = u64::from(cluster.weight);
            let here = point < weight;
            point = point.saturating_sub(weight);
            here
        })
    }
}

impl WeightedCluster {
    fn compile(
        proto: &pb::weighted_cluster::ClusterWeight,
        context: &mut dyn RouteContext,
    ) -> ConfigResult<Self> {
        let source = match (proto.name.as_str(), proto.cluster_header.as_str()) {
            ("", "") => {
                return Err(ConfigError::at(
                    "name",
                    "either name or cluster_header must be given",
                ));
            }
            (name, "") => ClusterSource::Named(NamedCluster::new(name, context)),
            ("", header) => ClusterSource::Header(HeaderName::new(header)),
            _ => return Err(ConfigError::at("cluster_header", "goes not together with name")),
        };
        let HostRewriteSpecifier::HostRewriteLiteral(host) = proto
            .host_rewrite_specifier
            .clone()
            .unwrap_or(HostRewriteSpecifier::HostRewriteLiteral(String::new()));
        Ok(Self {
            source,
            weight: proto.weight.unwrap_or(0),
            level: Level::compile(proto, context)?,
            host_rewrite: (!host.is_empty()).then(|| host.into_bytes().into()),
        })
    }

    pub(crate) fn cluster<'r>(&'r self, request: &'r RequestHead) -> ClusterRef<'r> {
        self.source.cluster(request)
    }
}
