//! Which streams are logged (`envoy.config.accesslog.v3.AccessLogFilter`).

use api_envoy::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use api_envoy::envoy::config::accesslog::v3::comparison_filter::Op;
use api_envoy::envoy::config::accesslog::v3::{AccessLogFilter, ComparisonFilter};
use proxy_core::error::ConfigContext as _;
use proxy_core::response_flags::ResponseFlag;
use proxy_core::{ConfigError, ConfigResult, ResponseFlags, StreamInfo};

/// A compiled filter.
#[derive(Clone, Debug)]
pub enum Filter {
    /// `status_code_filter`.
    StatusCode(Comparison),
    /// `duration_filter`, milliseconds.
    Duration(Comparison),
    /// `not_health_check_filter`: everything passes. Envoy's health check filter marks what fails here, and this proxy,
    /// which refuses that filter, has no such requests.
    NotHealthCheck,
    /// `traceable_filter`.
    Traceable,
    /// `and_filter`.
    All(Vec<Filter>),
    /// `or_filter`.
    Any(Vec<Filter>),
    /// `response_flag_filter`; an empty set means any flag.
    ResponseFlags(ResponseFlags),
}

/// A comparison with a fixed number.
#[derive(Clone, Copy, Debug)]
pub struct Comparison {
    op: Op,
    value: u64,
}

impl Comparison {
    fn compile(proto: Option<&ComparisonFilter>) -> ConfigResult<Self> {
        let proto = proto.ok_or_else(|| ConfigError::new("a comparison is needed"))?;
        let op = Op::try_from(proto.op).map_err(|_| ConfigError::at("op", "unknown comparison"))?;
        let value = proto.value.as_ref().map_or(0, |v| u64::from(v.default_value));
        Ok(Self { op, value })
    }

    fn holds(self, value: u64) -> bool {
        match self.op {
            Op::Eq => value == self.value,
            Op::Ge => value >= self.value,
            Op::Le => value <= self.value,
            Op::Ne => value != self.value,
        }
    }
}

impl Filter {
    /// Compiles a filter.
    ///
    /// # Errors
    /// A kind of filter that this proxy does not have, or an unknown response flag.
    pub fn compile(proto: &AccessLogFilter) -> ConfigResult<Self> {
        let all = |filters: &[AccessLogFilter]| -> ConfigResult<Vec<Filter>> {
            filters
                .iter()
                .enumerate()
                .map(|(i, f)| Self::compile(f).within_index("filters", i))
                .collect()
        };
        let specifier = proto
            .filter_specifier
            .as_ref()
            .ok_or_else(|| ConfigError::new("a filter is needed"))?;
        match specifier {
            FilterSpecifier::StatusCodeFilter(f) => Comparison::compile(f.comparison.as_ref())
                .map(Self::StatusCode)
                .within("status_code_filter"),
            FilterSpecifier::DurationFilter(f) => Comparison::compile(f.comparison.as_ref())
                .map(Self::Duration)
                .within("duration_filter"),
            FilterSpecifier::NotHealthCheckFilter(_) => Ok(Self::NotHealthCheck),
            FilterSpecifier::TraceableFilter(_) => Ok(Self::Traceable),
            FilterSpecifier::AndFilter(f) => all(&f.filters).map(Self::All).within("and_filter"),
            FilterSpecifier::OrFilter(f) => all(&f.filters).map(Self::Any).within("or_filter"),
            FilterSpecifier::ResponseFlagFilter(f) => flags(&f.flags).within("response_flag_filter"),
            FilterSpecifier::RuntimeFilter(_) => Err(ConfigError::unsupported("runtime_filter")),
            FilterSpecifier::HeaderFilter(_) => Err(ConfigError::unsupported("header_filter")),
            FilterSpecifier::GrpcStatusFilter(_) => Err(ConfigError::unsupported("grpc_status_filter")),
            FilterSpecifier::ExtensionFilter(_) => Err(ConfigError::unsupported("extension_filter")),
            FilterSpecifier::MetadataFilter(_) => Err(ConfigError::unsupported("metadata_filter")),
            FilterSpecifier::LogTypeFilter(_) => Err(ConfigError::unsupported("log_type_filter")),
        }
    }

    /// Whether a stream is logged.
    #[must_use]
    pub fn admits(&self, info: &StreamInfo<'_>) -> bool {
        match self {
            Self::StatusCode(comparison) => comparison.holds(u64::from(info.response_code.unwrap_or(0))),
            Self::Duration(comparison) => {
                let elapsed = info.timing.end.unwrap_or_default().as_millis();
                comparison.holds(u64::try_from(elapsed).unwrap_or(u64::MAX))
            }
            Self::NotHealthCheck => true,
            Self::Traceable => info.is_traced,
            Self::All(filters) => filters.iter().all(|f| f.admits(info)),
            Self::Any(filters) => filters.iter().any(|f| f.admits(info)),
            Self::ResponseFlags(wanted) if wanted.is_empty() => !info.response_flags.is_empty(),
            Self::ResponseFlags(wanted) => wanted.iter().any(|flag| info.response_flags.contains(flag)),
        }
    }
}

fn flags(names: &[String]) -> ConfigResult<Filter> {
    let mut flags = ResponseFlags::NONE;
    for (index, name) in names.iter().enumerate() {
        let flag = ResponseFlag::ALL.iter().find(|f| f.short() == name);
        let flag = flag.ok_or_else(|| ConfigError::new(format!("no response flag is called {name}")));
        flags.set(*flag.within_index("flags", index)?);
    }
    Ok(Filter::ResponseFlags(flags))
}
