//! The command line: Envoy's flags under Envoy's names, and one of our own, `--socket-broker`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use proxy_config::bootstrap::NodeOverrides;

/// The data plane of Lateen: an HTTP and TCP proxy that is configured as Envoy is.
#[derive(Clone, Debug, Parser)]
#[command(name = "lateen-proxy", version, disable_help_subcommand = true)]
pub struct Args {
    /// Bootstrap file: .yaml, .json or .pb
    #[arg(short = 'c', long, value_name = "FILE")]
    pub config_path: Option<PathBuf>,
    /// Bootstrap as text, merged over the file
    #[arg(long, value_name = "YAML")]
    pub config_yaml: Option<String>,
    /// Serve traffic, or check the configuration and exit
    #[arg(long, value_enum, default_value_t = Mode::Serve)]
    pub mode: Mode,
    /// Worker threads; 0 is one, absent is one per processor that this process may use
    #[arg(long, value_name = "N")]
    pub concurrency: Option<usize>,
    /// Log level: trace, debug, info, warn, error, critical or off
    #[arg(short = 'l', long, default_value = "info", value_name = "LEVEL")]
    pub log_level: String,
    /// Log levels per component: upstream:debug,config:trace
    #[arg(long, value_name = "LIST")]
    pub component_log_level: Option<String>,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub log_path: Option<PathBuf>,
    /// Node id, over the bootstrap's
    #[arg(long, value_name = "ID")]
    pub service_node: Option<String>,
    /// Cluster that the node belongs to, over the bootstrap's
    #[arg(long, value_name = "NAME")]
    pub service_cluster: Option<String>,
    /// Zone of the node, over the bootstrap's
    #[arg(long, value_name = "ZONE")]
    pub service_zone: Option<String>,
    /// How long connections of replaced or removed listeners may go on, seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub drain_time_s: u64,
    /// Close drained connections gradually, or at the first occasion
    #[arg(long, value_enum, default_value_t = DrainStrategy::Gradual)]
    pub drain_strategy: DrainStrategy,
    /// Hot restart is not supported; accepted for compatibility
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    pub parent_shutdown_time_s: u64,
    /// Hot restart is not supported; accepted for compatibility
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub base_id: u32,
    /// Hot restart is not supported; accepted for compatibility
    #[arg(long)]
    pub use_dynamic_base_id: bool,
    /// Hot restart is never done; accepted for compatibility
    #[arg(long)]
    pub disable_hot_restart: bool,
    /// Hot restart is not supported: only epoch 0 is accepted
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub restart_epoch: u32,
    /// Write the address of the admin interface to this file
    #[arg(long, value_name = "FILE")]
    pub admin_address_path: Option<PathBuf>,
    /// How often access logs are written to their files, milliseconds
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    pub file_flush_interval_msec: u64,
    /// Accepted for compatibility: an access log is written when 64 KiB of it have come, or the interval is over
    #[arg(long, default_value_t = 64, value_name = "KIB")]
    pub file_flush_min_size_kb: u64,
    /// Accept unknown fields in the bootstrap
    #[arg(long, alias = "allow-unknown-fields")]
    pub allow_unknown_static_fields: bool,
    /// Refuse discovered resources with unknown fields (not supported: they are ignored, as by default)
    #[arg(long)]
    pub reject_unknown_dynamic_fields: bool,
    /// Do not warn of unknown fields in discovered resources
    #[arg(long)]
    pub ignore_unknown_dynamic_fields: bool,
    /// IP version of the local address
    #[arg(long, value_enum, default_value_t = IpVersion::V4)]
    pub local_address_ip_version: IpVersion,
    /// Take the number of workers from the processors this process may use (always done)
    #[arg(long)]
    pub cpuset_threads: bool,
    /// Take listening sockets, and sockets to the application, from the agent behind this Unix socket
    #[arg(long, value_name = "SOCKET")]
    pub socket_broker: Option<PathBuf>,
}

/// `--mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Serve traffic.
    Serve,
    /// Check the configuration and exit.
    Validate,
}

/// `--drain-strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DrainStrategy {
    /// With a probability that grows over the drain time.
    Gradual,
    /// At the first occasion.
    Immediate,
}

/// `--local-address-ip-version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub enum IpVersion {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Args {
    /// What the command line says of the node.
    #[must_use]
    pub fn node(&self) -> NodeOverrides {
        NodeOverrides {
            id: self.service_node.clone(),
            cluster: self.service_cluster.clone(),
            zone: self.service_zone.clone(),
        }
    }

    /// The number of workers: one per processor that this process may use, unless said otherwise.
    #[must_use]
    pub fn workers(&self) -> usize {
        let available = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        self.concurrency
            .unwrap_or_else(available)
            .clamp(1, proxy_config::limits::MAX_WORKERS)
    }

    /// Flags that mean something this proxy does not do.
    ///
    /// # Errors
    /// The flag and why.
    pub fn check(&self) -> Result<(), String> {
        if self.restart_epoch != 0 {
            return Err("--restart-epoch: hot restart is not supported, only epoch 0 is".to_owned());
        }
        if self.reject_unknown_dynamic_fields {
            return Err("--reject-unknown-dynamic-fields is not supported".to_owned());
        }
        self.log_filter().map(|_| ())
    }

    /// The log levels as a directive list of `tracing`.
    ///
    /// # Errors
    /// An unknown level, or a component that is no identifier.
    pub fn log_filter(&self) -> Result<String, String> {
        log_filter(&self.log_level, self.component_log_level.as_deref().unwrap_or(""))
    }
}

/// Envoy's component names and the crates and modules that do that work here.
pub const LOG_COMPONENTS: &[(&str, &[&str])] = &[
    ("admin", &["proxy_server::admin"]),
    ("config", &["proxy_config", "xds"]),
    (
        "conn_handler",
        &["proxy_server::connection", "proxy_server::acceptor"],
    ),
    ("connection", &["proxy_server::connection"]),
    (
        "filter",
        &["proxy_server::tcp_proxy", "proxy_server::listener_filters"],
    ),
    ("grpc", &["xds"]),
    ("http", &["proxy_server::http", "proxy_http"]),
    ("main", &["proxy_server"]),
    ("pool", &["proxy_upstream::pool"]),
    ("router", &["proxy_router", "proxy_server::http"]),
    ("upstream", &["proxy_upstream"]),
];

/// A `tracing` directive list for a level and `component:level` pairs in Envoy's words.
///
/// # Errors
/// An unknown level, or a component that is no identifier.
pub fn log_filter(level: &str, components: &str) -> Result<String, String> {
    let mut directives = vec![known_level(level)?.to_owned()];
    for pair in components.split(',').filter(|pair| !pair.is_empty()) {
        let (component, level) = pair
            .split_once(':')
            .ok_or_else(|| format!("log level {pair:?}: write it as component:level"))?;
        let level = known_level(level)?;
        let known = LOG_COMPONENTS.iter().find(|(name, _)| *name == component);
        let targets = known.map_or(&[][..], |(_, targets)| targets);
        // Envoy has components that this proxy has not; naming one is no mistake.
        directives.extend(targets.iter().map(|target| format!("{target}={level}")));
    }
    Ok(directives.join(","))
}

fn known_level(level: &str) -> Result<&'static str, String> {
    tracing_level(level).ok_or_else(|| {
        format!("log level {level:?}: one of trace, debug, info, warning, error, critical, off")
    })
}

/// The name of a level for `tracing`, from Envoy's name.
pub(crate) fn tracing_level(level: &str) -> Option<&'static str> {
    Some(match level {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn envoys_usual_command_line_parses() {
        let args = Args::try_parse_from([
            "lateen-proxy",
            "-c",
            "boot.yaml",
            "--drain-time-s",
            "45",
            "--drain-strategy",
            "immediate",
            "--local-address-ip-version",
            "v4",
            "--file-flush-interval-msec",
            "1000",
            "--disable-hot-restart",
            "--allow-unknown-static-fields",
            "-l",
            "warning",
            "--component-log-level",
            "misc:error,upstream:debug",
            "--concurrency",
            "2",
        ])
        .unwrap();
        assert_eq!(args.workers(), 2);
        assert_eq!(args.drain_strategy, DrainStrategy::Immediate);
        assert_eq!(args.log_filter().unwrap(), "warn,proxy_upstream=debug");
    }

    #[test]
    fn an_unknown_log_level_is_refused() {
        let args = Args::try_parse_from(["p", "-l", "loud"]).unwrap();
        assert!(args.check().unwrap_err().contains("loud"));
    }
}
