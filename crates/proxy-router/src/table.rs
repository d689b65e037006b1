//! Route tables (`envoy.config.route.v3.RouteConfiguration`): from a request to what is done with it.

use std::sync::Arc;

use api_envoy::envoy::config::route::v3 as pb;
use proxy_core::ConfigResult;
use proxy_core::StreamInfo;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::substitution::ProcessInfo;
use proxy_http::{RequestHead, ResponseHead};

use crate::cluster_ref::ClusterRef;
use crate::domains::Domains;
use crate::filter_config::{FilterConfig, RouteContext};
use crate::forward::{Forward, Target};
use crate::header_mutation::Answer;
use crate::level::Level;
use crate::limits;
use crate::mirror::MirrorPolicy;
use crate::retry::{RetryPolicy, RetryState};
use crate::rewrite::{HostRewrite, set_host};
use crate::route::{Action, Route};
use crate::timeout::RequestTimeouts;
use crate::virtual_host::VirtualHost;
use crate::weighted_cluster::WeightedCluster;

/// A compiled route configuration: immutable, shared by all workers.
#[derive(Clone, Debug)]
pub struct RouteTable {
    /// The name of the route configuration.
    pub name: Arc<str>,
    virtual_hosts: Vec<VirtualHost>,
    domains: Domains,
    level: Level,
    mirrors: Vec<MirrorPolicy>,
    most_specific_mutations_win: bool,
    ignore_path_parameters: bool,
}

/// What a search for a route ends with.
#[derive(Clone, Copy, Debug)]
pub enum RouteResult<'t> {
    /// A route matches.
    Found(Match<'t>),
    /// The virtual host wants TLS: answer with [`Redirect::to_https`](crate::Redirect::to_https).
    HttpsRequired(&'t VirtualHost),
    /// No virtual host for the authority, or none of its routes matches: 404, flag NR, details `route_not_found`.
    NotFound,
}

/// A route that matched, with the cluster that was drawn when it splits traffic.
#[derive(Clone, Copy, Debug)]
pub struct Match<'t> {
    table: &'t RouteTable,
    virtual_host: &'t VirtualHost,
    route: &'t Route,
    weighted: Option<&'t WeightedCluster>,
}

impl RouteTable {
    /// Compiles a route configuration.
    ///
    /// # Errors
    /// A field that is malformed, or that would change traffic and is not enforced here.
    pub fn compile(proto: &pb::RouteConfiguration, context: &mut dyn RouteContext) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("vhds", proto.vhds.is_some()),
            ("internal_only_headers", !proto.internal_only_headers.is_empty()),
            (
                "cluster_specifier_plugins",
                !proto.cluster_specifier_plugins.is_empty(),
            ),
            ("vhost_header", !proto.vhost_header.is_empty()),
            ("route_specifiers", !proto.route_specifiers.is_empty()),
        ])?;
        let max_body_bytes = proto
            .max_direct_response_body_size_bytes
            .unwrap_or(limits::DEFAULT_DIRECT_RESPONSE_BODY_BYTES);
        let mut virtual_hosts = Vec::with_capacity(proto.virtual_hosts.len());
        for (index, host) in proto.virtual_hosts.iter().enumerate() {
            let compiled = VirtualHost::compile(host, max_body_bytes, context);
            virtual_hosts.push(compiled.within_index("virtual_hosts", index)?);
        }
        Ok(Self {
            name: proto.name.as_str().into(),
            virtual_hosts,
            domains: Domains::compile(proto)?,
            level: Level::compile(proto, context)?,
            mirrors: MirrorPolicy::compile_all(&proto.request_mirror_policies, context)?,
            most_specific_mutations_win: proto.most_specific_header_mutations_wins,
            ignore_path_parameters: proto.ignore_path_parameters_in_path_matching,
        })
    }

    /// The route of a request. One random number decides both about fractions and about weighted clusters, so that a
    /// retried search gives the same answer.
    #[must_use]
    pub fn find(&self, request: &RequestHead, random: u64) -> RouteResult<'_> {
        let Some(virtual_host) = self.domains.find(request.authority()) else {
            return RouteResult::NotFound;
        };
        let virtual_host = &self.virtual_hosts[virtual_host as usize];
        if virtual_host.demands_tls(request) {
            return RouteResult::HttpsRequired(virtual_host);
        }
        let Some(route) = virtual_host.find(request, self.ignore_path_parameters, random) else {
            return RouteResult::NotFound;
        };
        let weighted = match &route.action {
            Action::Forward(forward) => match &forward.target {
                Target::Weighted(clusters) => clusters.choose(request, random),
                Target::One(_) => None,
            },
            Action::Redirect(_) | Action::DirectResponse(_) => None,
        };
        RouteResult::Found(Match {
            table: self,
            virtual_host,
            route,
            weighted,
        })
    }

    /// The virtual hosts, in order.
    #[must_use]
    pub fn virtual_hosts(&self) -> &[VirtualHost] {
        &self.virtual_hosts
    }
}

impl<'t> Match<'t> {
    /// The route.
    #[must_use]
    pub fn route(&self) -> &'t Route {
        self.route
    }

    /// The virtual host.
    #[must_use]
    pub fn virtual_host(&self) -> &'t VirtualHost {
        self.virtual_host
    }

    /// What is done with the request.
    #[must_use]
    pub fn action(&self) -> &'t Action {
        &self.route.action
    }

    /// The action, when it is to forward.
    #[must_use]
    pub fn forward(&self) -> Option<&'t Forward> {
        match &self.route.action {
            Action::Forward(forward) => Some(forward),
            Action::Redirect(_) | Action::DirectResponse(_) => None,
        }
    }

    /// The cluster, when the action is to forward.
    #[must_use]
    pub fn cluster<'r>(&self, request: &'r RequestHead) -> Option<ClusterRef<'r>>
    where
        't: 'r,
    {
        if let Some(weighted) = self.weighted {
            return Some(weighted.cluster(request));
        }
        match &self.forward()?.target {
            Target::One(source) => Some(source.cluster(request)),
            Target::Weighted(_) => None,
        }
    }

    /// A filter's configuration: the most specific of weighted cluster, route, virtual host and route configuration.
    #[must_use]
    pub fn filter_config(&self, filter: &str) -> Option<&'t FilterConfig> {
        let mut levels = self.levels().into_iter().flatten();
        levels.find_map(|level| level.filter_configs.get(filter))
    }

    /// The retry policy: the route's, else the virtual host's.
    #[must_use]
    pub fn retry_policy(&self) -> Option<&'t RetryPolicy> {
        self.forward()
            .and_then(|forward| forward.retry.as_ref())
            .or(self.virtual_host.retry.as_ref())
    }

    /// The mirror policies: the route's, else the virtual host's, else the route configuration's.
    #[must_use]
    pub fn mirrors(&self) -> &'t [MirrorPolicy] {
        let route = self.forward().map_or(&[][..], |forward| &forward.mirrors);
        [route, &self.virtual_host.mirrors]
            .into_iter()
            .find(|m| !m.is_empty())
            .unwrap_or(&self.table.mirrors)
    }

    /// How many bytes of the request's body may be buffered; `None` leaves it to the connection manager.
    #[must_use]
    pub fn buffer_limit_bytes(&self) -> Option<u64> {
        self.route
            .buffer_limit_bytes
            .or(self.virtual_host.buffer_limit_bytes)
    }

    /// First of the steps before a request goes upstream: its timeouts. See [`RouteTimeouts::apply`].
    ///
    /// [`RouteTimeouts::apply`]: crate::timeout::RouteTimeouts::apply
    pub fn timeouts(&self, request: &mut RequestHead, suppress_envoy_headers: bool) -> RequestTimeouts {
        let Some(forward) = self.forward() else {
            return RequestTimeouts::default();
        };
        let (per_try, per_try_idle) = self
            .retry_policy()
            .map(|p| (p.per_try_timeout, p.per_try_idle_timeout))
            .unwrap_or_default();
        forward
            .timeouts
            .apply(request, per_try, per_try_idle, suppress_envoy_headers)
    }

    /// Second: changes headers, host and path of the request (Envoy, `finalizeRequestHeaders`).
    pub fn rewrite_request(
        &self,
        request: &mut RequestHead,
        info: &StreamInfo<'_>,
        process: &ProcessInfo,
        suppress_envoy_headers: bool,
    ) {
        for level in self.levels_in_order() {
            level.request_headers.apply(request, info, process);
        }
        let Some(forward) = self.forward() else { return };
        let literal = self
            .weighted
            .and_then(|weighted| weighted.host_rewrite.as_deref().map(<[u8]>::to_vec));
        if let Some(host) = literal.or_else(|| forward.host_rewrite.host(request)) {
            set_host(
                request,
                &host,
                forward.append_forwarded_host,
                suppress_envoy_headers,
            );
        }
        forward
            .path_rewrite
            .apply(request, &self.route.route_match, suppress_envoy_headers);
    }

    /// Third: the retries that policy and request headers allow. Their headers are removed.
    pub fn begin_retries(&self, request: &mut RequestHead) -> Option<RetryState> {
        RetryState::begin(self.retry_policy(), request)
    }

    /// Once a host is chosen: its name becomes the authority when the route wants that (`auto_host_rewrite`).
    pub fn rewrite_host(&self, request: &mut RequestHead, hostname: &str, suppress_envoy_headers: bool) {
        let Some(forward) = self.forward() else { return };
        let literal = self
            .weighted
            .is_some_and(|weighted| weighted.host_rewrite.is_some());
        if matches!(forward.host_rewrite, HostRewrite::Auto) && !hostname.is_empty() && !literal {
            set_host(
                request,
                hostname.as_bytes(),
                forward.append_forwarded_host,
                suppress_envoy_headers,
            );
        }
    }

    /// Changes the headers of an answer, also of one made here (Envoy, `finalizeResponseHeaders`).
    pub fn finalize_response(
        &self,
        response: &mut ResponseHead,
        request: &RequestHead,
        info: &StreamInfo<'_>,
        process: &ProcessInfo,
    ) {
        let mut answer = Answer { response, request };
        for level in self.levels_in_order() {
            level.response_headers.apply(&mut answer, info, process);
        }
    }

    /// The `location` of a redirect.
    #[must_use]
    pub fn redirect_location(&self, request: &RequestHead) -> Option<Vec<u8>> {
        match &self.route.action {
            Action::Redirect(redirect) => Some(redirect.location(request, Some(&self.route.route_match))),
            Action::Forward(_) | Action::DirectResponse(_) => None,
        }
    }

    /// From the most specific level to the most general.
    fn levels(&self) -> [Option<&'t Level>; 4] {
        [
            self.weighted.map(|weighted| &weighted.level),
            Some(&self.route.level),
            Some(&self.virtual_host.level),
            Some(&self.table.level),
        ]
    }

    /// The levels in the order in which their headers are changed: the last wins.
    fn levels_in_order(&self) -> impl Iterator<Item = &'t Level> {
        let mut levels = self.levels();
        if self.table.most_specific_mutations_win {
            levels.reverse();
        }
        levels.into_iter().flatten()
    }
}
