//! Listeners (`envoy.config.listener.v3.Listener`).

use std::hash::{DefaultHasher, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use api_envoy::envoy::config::core::v3::TcpKeepalive;
use api_envoy::envoy::config::listener::v3::{
    self as v3, filter::ConfigType, listener::connection_balance_config::BalanceType,
};
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as HttpProto;
use api_envoy::envoy::extensions::filters::network::sni_cluster::v3::SniCluster;
use api_envoy::envoy::extensions::filters::network::tcp_proxy::v3::TcpProxy as TcpProto;
use api_envoy::wkt::std_duration;
use api_envoy::{Message, any};
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult, TrafficDirection};
use proxy_upstream::metadata_exchange::MetadataExchange;
use proxy_upstream::secrets::SecretKey;
use telemetry::stats::Scope;

use crate::access_log::AccessLogConfig;
use crate::address::{BindAddress, bind_address};
use crate::context::{AwaitedRoute, CompileContext};
use crate::downstream_tls::{self, DownstreamTls};
use crate::filter_chain::{ChainMatch, FilterChainMatcher};
use crate::filters::{self, Category};
use crate::limits;
use crate::listener_filter::{ListenerFilter, ListenerFilterKind};
use crate::listener_stats::ListenerStats;
use crate::tcp_proxy::TcpProxy;

/// Compiles an HTTP connection manager into `H`. The connection manager lives in a crate above this one.
pub type HttpCompiler<'a, H> = &'a mut dyn FnMut(&HttpProto, &mut CompileContext<'_>) -> ConfigResult<H>;

/// A listener, ready to run; `H` is a compiled HTTP connection manager.
#[derive(Debug)]
pub struct ListenerConfig<H> {
    /// Its name; an update is a listener of the same name.
    pub name: Arc<str>,
    /// The address, and `additional_addresses` after it.
    pub addresses: Vec<BindAddress>,
    /// Whether it has sockets; without them it takes connections only from another listener's `use_original_dst`.
    pub bind_to_port: bool,
    /// How its sockets are made.
    pub socket: SocketSettings,
    /// Whether connections go to the listener of their original destination, if there is one.
    pub use_original_dst: bool,
    /// Inbound or outbound.
    pub direction: TrafficDirection,
    /// Whether it drains only because it is changed or removed, or an operator says so, and not because the proxy was told
    /// to fail health checks (`drain_type: MODIFY_ONLY`).
    pub is_modify_only: bool,
    /// What looks at a connection before a chain is chosen.
    pub listener_filters: Vec<ListenerFilter>,
    /// How long listener filters may wait for bytes; none is for ever.
    pub listener_filters_timeout: Option<Duration>,
    /// Whether a connection goes on when that time is over.
    pub continue_on_listener_filters_timeout: bool,
    /// Which chain takes a connection.
    pub matcher: FilterChainMatcher,
    /// The chains, in the order of the matcher.
    pub chains: Vec<FilterChain<H>>,
    /// The chain for what no other takes.
    pub default_chain: Option<FilterChain<H>>,
    /// Most bytes that are held for a connection and direction.
    pub buffer_limit_bytes: usize,
    /// Whether each accepted connection goes to the worker with fewest, at the price of a lock-free comparison.
    pub exact_balance: bool,
    /// Who records connections that no filter chain took.
    pub access_logs: Vec<AccessLogConfig>,
    /// Route configurations that must be there before the listener serves.
    pub awaited_routes: Vec<AwaitedRoute>,
    /// Secrets that must be there before the listener serves.
    pub secrets: Vec<SecretKey>,
    /// Counters.
    pub stats: ListenerStats,
    /// A hash of everything but the filter chains: when it stays, chains that stay keep their connections.
    own_fingerprint: u64,
}

/// How listening sockets are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketSettings {
    /// One socket per worker with `SO_REUSEPORT`, or one that all workers share.
    pub reuse_port: bool,
    /// Length of the accept queue.
    pub backlog: u32,
    /// Keepalive probes on accepted connections.
    pub keepalive: Option<Keepalive>,
}

/// `envoy.config.core.v3.TcpKeepalive`; none leaves the kernel's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keepalive {
    /// Unanswered probes until the connection is dead.
    pub probes: Option<u32>,
    /// Idle time before the first probe, seconds.
    pub time_seconds: Option<u32>,
    /// Time between probes, seconds.
    pub interval_seconds: Option<u32>,
}

/// A filter chain.
#[derive(Debug)]
pub struct FilterChain<H> {
    /// Its name; may be empty.
    pub name: Arc<str>,
    /// What lies between the socket and the filters.
    pub transport: Transport,
    /// The filter that ends the chain.
    pub filter: NetworkFilter<H>,
    /// A hash of the chain as it came.
    pub fingerprint: u64,
}

/// A downstream transport socket.
#[derive(Clone, Debug)]
pub enum Transport {
    /// Plain bytes.
    RawBuffer,
    /// TLS.
    Tls(Arc<DownstreamTls>),
}

/// The filter that ends a chain.
#[derive(Debug)]
pub enum NetworkFilter<H> {
    /// `envoy.filters.network.http_connection_manager`.
    Http(H),
    /// `envoy.filters.network.tcp_proxy`.
    Tcp(Box<TcpProxy>),
    /// A chain without filters closes its connections.
    Close,
}

impl<H> ListenerConfig<H> {
    /// Reads a listener.
    ///
    /// # Errors
    /// A malformed field, or one that is not enforced and would change traffic.
    pub fn compile(
        proto: &v3::Listener,
        context: &mut CompileContext<'_>,
        http: HttpCompiler<'_, H>,
    ) -> ConfigResult<Self> {
        refuse_unsupported(proto)?;
        context.set_direction(match proto.traffic_direction {
            1 => TrafficDirection::Inbound,
            2 => TrafficDirection::Outbound,
            _ => TrafficDirection::Unspecified,
        });
        let addresses = addresses(proto)?;
        let stat_name = if proto.stat_prefix.is_empty() {
            addresses[0].stat_name()
        } else {
            proto.stat_prefix.clone()
        };
        let scope = context.stats().listener_scope(&stat_name);
        let mut compiler = ChainCompiler {
            context,
            http,
            scope: &scope,
            secrets: Vec::new(),
        };
        let (matcher, chains) = chains(proto, &mut compiler)?;
        let default_chain = proto.default_filter_chain.as_ref();
        let default_chain = default_chain.map(|chain| compiler.filter_chain(chain));
        let default_chain = default_chain.transpose().within("default_filter_chain")?;
        let secrets = compiler.secrets;
        let use_original_dst = proto.use_original_dst.unwrap_or(false);
        Ok(Self {
            name: listener_name(proto, &addresses).into(),
            bind_to_port: bind_to_port(proto),
            socket: socket_settings(proto),
            use_original_dst,
            direction: context.direction(),
            is_modify_only: proto.drain_type == v3::listener::DrainType::ModifyOnly as i32,
            listener_filters: listener_filters(proto, use_original_dst, context)?,
            listener_filters_timeout: listener_filters_timeout(proto),
            continue_on_listener_filters_timeout: proto.continue_on_listener_filters_timeout,
            matcher,
            chains,
            default_chain,
            buffer_limit_bytes: proto
                .per_connection_buffer_limit_bytes
                .unwrap_or(limits::DEFAULT_CONNECTION_BUFFER_LIMIT_BYTES)
                as usize,
            exact_balance: exact_balance(proto)?,
            access_logs: context.access_logs("access_log", &proto.access_log)?,
            awaited_routes: context.take_awaited(),
            secrets,
            stats: ListenerStats::new(scope),
            own_fingerprint: own_fingerprint(proto),
            addresses,
        })
    }
}

impl<H> ListenerConfig<H> {
    /// Whether `other` differs in its filter chains at most.
    #[must_use]
    pub fn is_same_but_for_chains(&self, other: &Self) -> bool {
        self.own_fingerprint == other.own_fingerprint
    }

    /// How many filter chains `after` does not have.
    #[must_use]
    pub fn chains_missing_from(&self, after: &Self) -> usize {
        let stays = |chain: &FilterChain<H>| after.all_chains().any(|c| c.fingerprint == chain.fingerprint);
        self.all_chains().filter(|chain| !stays(chain)).count()
    }

    /// The chains, the default one last.
    pub fn all_chains(&self) -> impl Iterator<Item = &FilterChain<H>> {
        self.chains.iter().chain(&self.default_chain)
    }
}

fn fingerprint(proto: &impl Message) -> u64 {
    // Equal messages encode to equal bytes, and only this process compares the hashes.
    let mut hasher = DefaultHasher::new();
    hasher.write(&proto.encode_to_vec());
    hasher.finish()
}

fn own_fingerprint(proto: &v3::Listener) -> u64 {
    let mut own = proto.clone();
    own.filter_chains.clear();
    own.default_filter_chain = None;
    fingerprint(&own)
}

fn listener_name(proto: &v3::Listener, addresses: &[BindAddress]) -> String {
    // Envoy invents a UUID for a listener without a name; the address is as unique and can be found again.
    if proto.name.is_empty() {
        addresses[0].to_string()
    } else {
        proto.name.clone()
    }
}

#[allow(deprecated, reason = "old configuration still says it this way")]
fn bind_to_port(proto: &v3::Listener) -> bool {
    let old = proto.deprecated_v1.as_ref().and_then(|old| old.bind_to_port);
    proto.bind_to_port.or(old).unwrap_or(true)
}

fn socket_settings(proto: &v3::Listener) -> SocketSettings {
    SocketSettings {
        reuse_port: proto.enable_reuse_port.unwrap_or(true),
        backlog: proto.tcp_backlog_size.unwrap_or(limits::DEFAULT_BACKLOG),
        keepalive: proto.tcp_keepalive.as_ref().map(keepalive),
    }
}

fn keepalive(proto: &TcpKeepalive) -> Keepalive {
    Keepalive {
        probes: proto.keepalive_probes,
        time_seconds: proto.keepalive_time,
        interval_seconds: proto.keepalive_interval,
    }
}

fn listener_filters_timeout(proto: &v3::Listener) -> Option<Duration> {
    let default = Duration::from_secs(limits::DEFAULT_LISTENER_FILTERS_TIMEOUT_SECONDS);
    let timeout = proto
        .listener_filters_timeout
        .as_ref()
        .map_or(default, std_duration);
    (!timeout.is_zero()).then_some(timeout)
}

fn refuse_unsupported(proto: &v3::Listener) -> ConfigResult<()> {
    let used = [
        ("fcds_config", proto.fcds_config.is_some()),
        ("filter_chain_matcher", proto.filter_chain_matcher.is_some()),
        ("udp_listener_config", proto.udp_listener_config.is_some()),
        ("api_listener", proto.api_listener.is_some()),
        ("internal_listener", proto.listener_specifier.is_some()),
        ("socket_options", !proto.socket_options.is_empty()),
        (
            "tcp_fast_open_queue_length",
            proto.tcp_fast_open_queue_length.is_some(),
        ),
        ("enable_mptcp", proto.enable_mptcp),
        ("stats_matcher", proto.stats_matcher.is_some()),
        ("transparent", proto.transparent == Some(true)),
        ("freebind", proto.freebind == Some(true)),
        (
            "per_connection_buffer_high_watermark_timeout",
            proto
                .per_connection_buffer_high_watermark_timeout
                .as_ref()
                .is_some_and(|d| !std_duration(d).is_zero()),
        ),
    ];
    match used.iter().find(|(_, used)| *used) {
        Some((field, _)) => Err(ConfigError::unsupported(field)),
        None => Ok(()),
    }
}

fn addresses(proto: &v3::Listener) -> ConfigResult<Vec<BindAddress>> {
    let mut addresses = vec![bind_address(proto.address.as_ref()).within("address")?];
    for (i, additional) in proto.additional_addresses.iter().enumerate() {
        let field = "additional_addresses";
        if additional.socket_options.is_some() {
            return Err(ConfigError::unsupported("socket_options")).within_index(field, i);
        }
        if additional.tcp_keepalive.is_some() {
            return Err(ConfigError::unsupported("tcp_keepalive")).within_index(field, i);
        }
        addresses.push(
            bind_address(additional.address.as_ref())
                .within("address")
                .within_index(field, i)?,
        );
    }
    Ok(addresses)
}

fn exact_balance(proto: &v3::Listener) -> ConfigResult<bool> {
    let balance = proto
        .connection_balance_config
        .as_ref()
        .and_then(|c| c.balance_type.as_ref());
    match balance {
        None => Ok(false),
        Some(BalanceType::ExactBalance(_)) => Ok(true),
        Some(BalanceType::ExtendBalance(_)) => {
            Err(ConfigError::unsupported("extend_balance").within("connection_balance_config"))
        }
        Some(BalanceType::CpuLocalityBalance(_)) => {
            Err(ConfigError::unsupported("cpu_locality_balance").within("connection_balance_config"))
        }
    }
}

fn listener_filters(
    proto: &v3::Listener,
    use_original_dst: bool,
    context: &CompileContext<'_>,
) -> ConfigResult<Vec<ListenerFilter>> {
    let filters = proto.listener_filters.iter().enumerate();
    let mut filters: Vec<_> = filters
        .map(|(i, filter)| {
            ListenerFilter::compile(filter, context.stats()).within_index("listener_filters", i)
        })
        .collect::<ConfigResult<_>>()?;
    // `use_original_dst` brings the filter along.
    let restores = |f: &ListenerFilter| matches!(f.kind, ListenerFilterKind::OriginalDst);
    if use_original_dst && !filters.iter().any(restores) {
        filters.push(ListenerFilter::everywhere(ListenerFilterKind::OriginalDst));
    }
    Ok(filters)
}

/// What filter chains are compiled with.
struct ChainCompiler<'a, 'c, H> {
    context: &'a mut CompileContext<'c>,
    http: HttpCompiler<'a, H>,
    /// The listener's statistics.
    scope: &'a Scope,
    /// The secrets of the chains so far.
    secrets: Vec<SecretKey>,
}

fn chains<H>(
    proto: &v3::Listener,
    compiler: &mut ChainCompiler<'_, '_, H>,
) -> ConfigResult<(FilterChainMatcher, Vec<FilterChain<H>>)> {
    let count = proto.filter_chains.len();
    if count > limits::MAX_FILTER_CHAINS {
        let reason = format!(
            "{count} filter chains, at most {} are possible",
            limits::MAX_FILTER_CHAINS
        );
        return Err(ConfigError::at("filter_chains", reason));
    }
    if count == 0 && proto.default_filter_chain.is_none() {
        return Err(ConfigError::at(
            "filter_chains",
            "no filter chain and no default filter chain",
        ));
    }
    let mut matches = Vec::with_capacity(count);
    let mut chains = Vec::with_capacity(count);
    for (i, chain) in proto.filter_chains.iter().enumerate() {
        let matched = ChainMatch::compile(chain.filter_chain_match.as_ref());
        matches.push(
            matched
                .within("filter_chain_match")
                .within_index("filter_chains", i)?,
        );
        chains.push(compiler.filter_chain(chain).within_index("filter_chains", i)?);
    }
    Ok((FilterChainMatcher::new(matches)?, chains))
}

impl<H> ChainCompiler<'_, '_, H> {
    #[allow(deprecated, reason = "the deprecated field is refused")]
    fn filter_chain(&mut self, proto: &v3::FilterChain) -> ConfigResult<FilterChain<H>> {
        if proto.use_proxy_proto == Some(true) {
            return Err(ConfigError::unsupported("use_proxy_proto"));
        }
        let filter = network_filters(&proto.filters, self.context, self.http)?;
        Ok(FilterChain {
            name: proto.name.as_str().into(),
            transport: self.transport(proto).within("transport_socket")?,
            filter,
            fingerprint: fingerprint(proto),
        })
    }

    fn transport(&mut self, proto: &v3::FilterChain) -> ConfigResult<Transport> {
        let timeout = proto.transport_socket_connect_timeout.as_ref().map(std_duration);
        let Some(socket) = &proto.transport_socket else {
            return Ok(Transport::RawBuffer);
        };
        let scope = self.scope;
        let compile = |store: &mut _| downstream_tls::compile(socket, timeout, scope, store);
        match self.context.with_secrets(compile)? {
            downstream_tls::Compiled::RawBuffer => Ok(Transport::RawBuffer),
            downstream_tls::Compiled::Tls(tls, secrets) => {
                self.secrets.extend(secrets);
                Ok(Transport::Tls(tls))
            }
        }
    }
}

fn network_filters<H>(
    protos: &[v3::Filter],
    context: &mut CompileContext<'_>,
    http: HttpCompiler<'_, H>,
) -> ConfigResult<NetworkFilter<H>> {
    let Some((last, before)) = protos.split_last() else {
        return Ok(NetworkFilter::Close);
    };
    let mut filter = network_filter(last, context, http).within_index("filters", before.len())?;
    for (index, proto) in before.iter().enumerate() {
        precede(&mut filter, proto).within_index("filters", index)?;
    }
    Ok(filter)
}

/// Puts a filter before the one that ends the chain.
fn precede<H>(last: &mut NetworkFilter<H>, proto: &v3::Filter) -> ConfigResult<()> {
    let (name, typed) = known_filter(proto)?;
    match (name, last) {
        ("envoy.filters.network.sni_cluster", NetworkFilter::Tcp(tcp)) => {
            let unpacked: Option<Result<SniCluster, _>> = typed.map(any::unpack);
            unpacked
                .transpose()
                .map_err(|e| ConfigError::at("typed_config", e.to_string()))?;
            tcp.by_server_name = true;
            Ok(())
        }
        // It only counts.
        ("istio.stats", _) => Ok(()),
        ("istio.metadata_exchange", last) => {
            let needed = || ConfigError::at("typed_config", "a configuration is needed");
            let exchange = MetadataExchange::compile(typed.ok_or_else(needed)?).within("typed_config")?;
            // Requests tell of the peer in their headers.
            if let NetworkFilter::Tcp(tcp) = last {
                tcp.metadata_exchange = Some(exchange);
            }
            Ok(())
        }
        ("envoy.filters.network.sni_cluster", _) => {
            let reason = "envoy.filters.network.sni_cluster is for a TCP proxy behind it";
            Err(ConfigError::new(reason))
        }
        _ => Err(ConfigError::new(format!(
            "{name} must be the last filter of its chain"
        ))),
    }
}

fn known_filter(proto: &v3::Filter) -> ConfigResult<(&'static str, Option<&api_envoy::Any>)> {
    let typed = match &proto.config_type {
        Some(ConfigType::TypedConfig(typed)) => Some(typed),
        Some(ConfigType::ConfigDiscovery(_)) => return Err(ConfigError::unsupported("config_discovery")),
        None => None,
    };
    let type_url = typed.map(any::message_of).unwrap_or_default();
    let found = filters::find(Category::NetworkFilter, &proto.name, &type_url).ok_or_else(|| {
        ConfigError::at(
            "typed_config",
            format!("no network filter {} ({type_url})", proto.name),
        )
    })?;
    Ok((found.name, typed))
}

fn network_filter<H>(
    proto: &v3::Filter,
    context: &mut CompileContext<'_>,
    http: HttpCompiler<'_, H>,
) -> ConfigResult<NetworkFilter<H>> {
    let (name, typed) = known_filter(proto)?;
    let typed = typed.ok_or_else(|| ConfigError::at("typed_config", "a configuration is needed"))?;
    let malformed = |e: any::UnpackError| ConfigError::at("typed_config", e.to_string());
    if name == "envoy.filters.network.tcp_proxy" {
        let tcp: TcpProto = any::unpack(typed).map_err(malformed)?;
        return TcpProxy::compile(&tcp, context)
            .map(|tcp| NetworkFilter::Tcp(Box::new(tcp)))
            .within("typed_config");
    }
    if name != "envoy.filters.network.http_connection_manager" {
        return Err(ConfigError::new(format!(
            "{name} cannot be the last filter of its chain"
        )));
    }
    let manager: HttpProto = any::unpack(typed).map_err(malformed)?;
    http(&manager, context)
        .map(NetworkFilter::Http)
        .within("typed_config")
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;
