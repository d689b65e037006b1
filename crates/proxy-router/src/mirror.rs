//! Copies of requests sent to another cluster, whose answers nobody sees (`RouteAction.RequestMirrorPolicy`).

use api_envoy::envoy::config::route::v3::route_action as pb;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};
use proxy_http::RequestHead;

use crate::cluster_ref::NamedCluster;
use crate::domains::without_port;
use crate::filter_config::RouteContext;
use crate::route_match::Fraction;

/// A policy to mirror requests.
#[derive(Clone, Debug)]
pub struct MirrorPolicy {
    /// Where the copy goes.
    pub cluster: NamedCluster,
    fraction: Option<Fraction>,
    append_shadow: bool,
    host_rewrite: Option<Box<str>>,
}

impl MirrorPolicy {
    pub(crate) fn compile_all(
        protos: &[pb::RequestMirrorPolicy],
        context: &mut dyn RouteContext,
    ) -> ConfigResult<Vec<Self>> {
        let mut policies = Vec::with_capacity(protos.len());
        for (index, proto) in protos.iter().enumerate() {
            policies.push(Self::compile(proto, context).within_index("request_mirror_policies", index)?);
        }
        Ok(policies)
    }

    fn compile(proto: &pb::RequestMirrorPolicy, context: &mut dyn RouteContext) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("cluster_header", !proto.cluster_header.is_empty()),
            (
                "request_headers_mutations",
                !proto.request_headers_mutations.is_empty(),
            ),
        ])?;
        if proto.cluster.is_empty() {
            return Err(ConfigError::at("cluster", "must not be empty"));
        }
        // `trace_sampled` has nothing to act on: nobody makes spans.
        let fraction = proto
            .runtime_fraction
            .as_ref()
            .and_then(|f| f.default_value.as_ref());
        Ok(Self {
            cluster: NamedCluster::new(&proto.cluster, context),
            fraction: fraction
                .map(Fraction::compile)
                .transpose()
                .within("runtime_fraction")?,
            append_shadow: !proto.disable_shadow_host_suffix_append,
            host_rewrite: Some(&*proto.host_rewrite_literal)
                .filter(|h| !h.is_empty())
                .map(Into::into),
        })
    }

    /// Whether a request with this random number is mirrored.
    #[must_use]
    pub fn applies(&self, random: u64) -> bool {
        self.fraction.is_none_or(|fraction| fraction.contains(random))
    }

    /// Changes the head of the copy: its authority says that it is one (`host-shadow`), unless that is disabled.
    pub fn rewrite(&self, copy: &mut RequestHead) {
        if let Some(host) = &self.host_rewrite {
            copy.set_authority(host.as_bytes());
        } else if self.append_shadow {
            let authority = copy.authority();
            let host = without_port(authority);
            let shadowed = [host, b"-shadow", &authority[host.len()..]].concat();
            copy.set_authority(&shadowed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_s_host_gets_a_suffix_before_its_port() {
        let mut policy = MirrorPolicy {
            cluster: NamedCluster {
                name: "c".into(),
                slot: proxy_core::ClusterSlot(0),
            },
            fraction: None,
            append_shadow: true,
            host_rewrite: None,
        };
        let mut copy = RequestHead::with("GET", "http", "a.test:80", "/");
        policy.rewrite(&mut copy);
        assert_eq!(copy.authority(), b"a.test-shadow:80");
        let mut unmarked = RequestHead::with("GET", "http", "a.test:80", "/");
        policy.append_shadow = false;
        policy.rewrite(&mut unmarked);
        assert_eq!(unmarked.authority(), b"a.test:80");
    }
}
