//! `envoy.transport_sockets.upstream_proxy_protocol`
//! (`envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport`): a connection begins with
//! whose it is; then comes what the transport socket inside does ([`Announcing`](crate::transport::Announcing)).

use std::io;

use api_envoy::any;
use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::config::core::v3::proxy_protocol_config::Version as VersionProto;
use api_envoy::envoy::config::core::v3::proxy_protocol_pass_through_tl_vs::PassTlVsMatchType;
use api_envoy::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::proxy_protocol::{Endpoints, Tlv, Version, encode_v1, encode_v2};
use proxy_core::{ConfigError, ConfigResult};
use telemetry::stats::{Counter, Scope, Shard};
use tokio::io::AsyncWriteExt as _;

use crate::stream::Stream;

/// The metadata of a host that adds extensions.
const HOST_METADATA: &str = "envoy.transport_sockets.proxy_protocol";

/// Which extensions are passed on (`envoy.config.core.v3.ProxyProtocolPassThroughTLVs`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum PassThrough {
    /// None.
    #[default]
    Nothing,
    /// All.
    All,
    /// Those of these types.
    Only(Vec<u8>),
}

impl PassThrough {
    /// Reads which extensions are passed on.
    ///
    /// # Errors
    /// A malformed value.
    pub fn compile(proto: Option<&core::ProxyProtocolPassThroughTlVs>) -> ConfigResult<Self> {
        let Some(proto) = proto else {
            return Ok(Self::Nothing);
        };
        let kinds = proto.tlv_type.iter().enumerate();
        let kinds = kinds.map(|(i, kind)| kind_of(*kind).within_index("tlv_type", i));
        let kinds = kinds.collect::<ConfigResult<_>>()?;
        match PassTlVsMatchType::try_from(proto.match_type) {
            Ok(PassTlVsMatchType::IncludeAll) => Ok(Self::All),
            Ok(PassTlVsMatchType::Include) => Ok(Self::Only(kinds)),
            Err(_) => Err(ConfigError::at("match_type", "unknown value")),
        }
    }

    /// Whether extensions of that type are.
    #[must_use]
    pub fn passes(&self, kind: u8) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Only(kinds) => kinds.contains(&kind),
        }
    }
}

/// Whom a connection is for.
#[derive(Clone, Copy, Debug)]
pub struct Announcement<'a> {
    /// The addresses of the downstream connection.
    pub endpoints: Endpoints,
    /// Extensions that came with it, or that a filter adds.
    pub tlvs: &'a [Tlv],
}

/// Why a header could not be written.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The extensions do not fit.
    #[error("PROXY protocol TLVs do not fit into a header")]
    TlvsTooLong,
    /// The connection broke.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What tells hosts of clients.
#[derive(Clone, Debug)]
pub struct Announcer {
    version: Version,
    pass_through: PassThrough,
    added: Vec<Tlv>,
    /// Keeps the handle valid.
    scope: Scope,
    too_long: Counter,
}

impl PartialEq for Announcer {
    fn eq(&self, other: &Self) -> bool {
        (self.version, &self.pass_through, &self.added) == (other.version, &other.pass_through, &other.added)
    }
}

impl Eq for Announcer {}

impl Announcer {
    /// Reads the settings. The cluster's statistics are in `scope`.
    ///
    /// # Errors
    /// A malformed value, or a field that is not enforced.
    pub(crate) fn compile(proto: &ProxyProtocolUpstreamTransport, scope: &Scope) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("allow_unspecified_address", proto.allow_unspecified_address),
            ("tlv_as_pool_key", proto.tlv_as_pool_key),
        ])?;
        let config = proto.config.clone().unwrap_or_default();
        let version = match VersionProto::try_from(config.version) {
            Ok(VersionProto::V1) => Version::V1,
            Ok(VersionProto::V2) => Version::V2,
            Err(_) => return Err(ConfigError::at("version", "unknown value").within("config")),
        };
        let pass_through = PassThrough::compile(config.pass_through_tlvs.as_ref());
        Ok(Self {
            version,
            pass_through: pass_through.within("pass_through_tlvs").within("config")?,
            added: tlvs("added_tlvs", &config.added_tlvs).within("config")?,
            too_long: scope.counter("upstream.proxyprotocol.v2_tlvs_exceed_max_length"),
            scope: scope.clone(),
        })
    }

    /// The same for a host whose metadata adds extensions, which replace those of their types.
    pub(crate) fn for_host(&self, metadata: &core::Metadata) -> Option<Self> {
        let typed = metadata.typed_filter_metadata.get(HOST_METADATA)?;
        let config: ConfigResult<Vec<Tlv>> = any::unpack(typed)
            .map_err(|error| ConfigError::new(error.to_string()))
            .and_then(|host: core::PerHostConfig| tlvs("added_tlvs", &host.added_tlvs));
        let mut added = match config {
            Ok(added) => added,
            Err(error) => {
                // Envoy goes on with the cluster's own extensions too.
                tracing::warn!(%error, "the metadata {HOST_METADATA} of a host is not understood");
                return None;
            }
        };
        let own = added.len();
        let others = self.added.iter();
        let others = others.filter(|tlv| !added[..own].iter().any(|other| other.kind == tlv.kind));
        added.extend(others.cloned().collect::<Vec<_>>());
        let this = self.clone();
        Some(Self { added, ..this })
    }

    /// Writes the header at the beginning of a connection. Without an announcement the proxy speaks for itself.
    ///
    /// # Errors
    /// The connection broke, or the extensions do not fit.
    pub(crate) async fn announce(
        &self,
        stream: &mut Stream,
        announcement: Option<Announcement<'_>>,
        (shard, sent): (&Shard, Counter),
    ) -> Result<(), AnnounceError> {
        let endpoints = announcement.map(|a| a.endpoints);
        let header = match self.version {
            // Envoy tells of its own end of the connection then.
            Version::V1 => encode_v1(endpoints.or_else(|| own_endpoints(stream))),
            Version::V2 => {
                let passed = announcement.map_or(&[][..], |a| a.tlvs).iter();
                let passed = passed.filter(|tlv| {
                    self.pass_through.passes(tlv.kind)
                        && self.added.iter().all(|added| added.kind != tlv.kind)
                });
                match encode_v2(endpoints, self.added.iter().chain(passed)) {
                    Ok(header) => header,
                    Err(_) => {
                        shard.inc(self.too_long);
                        return Err(AnnounceError::TlvsTooLong);
                    }
                }
            }
        };
        stream.write_all(&header).await?;
        shard.add(sent, header.len() as u64);
        Ok(())
    }

    /// Where the statistics are.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }
}

fn own_endpoints(stream: &Stream) -> Option<Endpoints> {
    let Stream::Tcp(stream) = stream else { return None };
    let ends = || -> io::Result<_> { Ok((stream.local_addr()?, stream.peer_addr()?)) };
    let (source, destination) = ends().ok()?;
    Some(Endpoints { source, destination })
}

/// Reads extensions with fixed values; `field` is their name in the enclosing message.
///
/// # Errors
/// A malformed value, or a format string.
pub fn tlvs(field: &str, protos: &[core::TlvEntry]) -> ConfigResult<Vec<Tlv>> {
    let tlvs = protos.iter().enumerate();
    tlvs.map(|(index, proto)| tlv(proto).within_index(field, index))
        .collect()
}

fn tlv(proto: &core::TlvEntry) -> ConfigResult<Tlv> {
    refuse_unsupported(&[("format_string", proto.format_string.is_some())])?;
    if proto.value.len() > usize::from(u16::MAX) {
        return Err(ConfigError::at("value", "does not fit into a header"));
    }
    Ok(Tlv {
        kind: kind_of(proto.r#type).within("type")?,
        value: proto.value.to_vec().into(),
    })
}

fn kind_of(kind: u32) -> ConfigResult<u8> {
    u8::try_from(kind).map_err(|_| ConfigError::new("must be below 256"))
}

#[cfg(test)]
mod tests;
