//! `envoy.config.core.v3.Http2ProtocolOptions`, for both sides of the proxy. Defaults are Envoy's.
//!
//! Not every field means a thing here. `stream_error_on_invalid_http_messaging`: a malformed message ends its stream
//! and never the connection. `max_outbound_frames`, `max_outbound_control_frames`: what waits to be sent is limited in
//! bytes, and where a peer does not read, nothing more is read from it; so their floods stall and are not counted.

use std::time::Duration;

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::wkt;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::limits;

/// Settings of HTTP/2 connections.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2Options {
    /// Bytes of the table that the peer may compress its heads with.
    pub hpack_table_bytes: u32,
    /// Streams that the peer may have open at a time; upstream, the most that we open on one connection.
    pub max_concurrent_streams: u32,
    /// Bytes that may be on their way to us on one stream.
    pub stream_window_bytes: u32,
    /// Bytes that may be on their way to us on the connection.
    pub connection_window_bytes: u32,
    /// Frames in a row without payload that a peer may send.
    pub max_empty_frames: u32,
    /// `PRIORITY` frames that a peer may send for each stream.
    pub max_priority_frames: u32,
    /// `WINDOW_UPDATE` frames that a peer may send for each `DATA` frame.
    pub max_window_update_frames: u32,
    /// Streams that a client may reset at once, and each second from then on.
    pub stream_reset_burst: u64,
    /// See [`stream_reset_burst`](Self::stream_reset_burst).
    pub stream_reset_rate: u64,
    /// Pings that find out whether the peer is there.
    pub keepalive: Option<Http2Keepalive>,
    /// Clients are told that streams may carry other protocols (RFC 8441).
    pub allow_connect: bool,
}

/// `envoy.config.core.v3.KeepaliveSettings`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Http2Keepalive {
    /// Time between pings; `None` sends none.
    pub interval: Option<Duration>,
    /// A new stream on a connection that nothing came on for so long goes with a ping; `None` never.
    pub idle_interval: Option<Duration>,
    /// A random part of the interval, in percent, that is added to it.
    pub jitter_percent: f64,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for Http2Options {
    fn default() -> Self {
        Self {
            hpack_table_bytes: limits::DEFAULT_HPACK_TABLE_BYTES,
            max_concurrent_streams: limits::DEFAULT_MAX_CONCURRENT_STREAMS,
            stream_window_bytes: limits::DEFAULT_STREAM_WINDOW_BYTES,
            connection_window_bytes: limits::DEFAULT_CONNECTION_WINDOW_BYTES,
            max_empty_frames: limits::DEFAULT_MAX_EMPTY_FRAMES,
            max_priority_frames: limits::DEFAULT_MAX_PRIORITY_FRAMES,
            max_window_update_frames: limits::DEFAULT_MAX_WINDOW_UPDATE_FRAMES,
            stream_reset_burst: limits::DEFAULT_STREAM_RESET_BURST,
            stream_reset_rate: limits::DEFAULT_STREAM_RESET_RATE,
            keepalive: None,
            allow_connect: false,
        }
    }
}

impl Http2Options {
    /// Reads the settings.
    ///
    /// # Errors
    /// A value out of Envoy's range, or a field that is not enforced and would change traffic.
    pub fn compile(proto: &core::Http2ProtocolOptions) -> ConfigResult<Self> {
        refuse_unsupported(&[
            ("allow_metadata", proto.allow_metadata),
            (
                "custom_settings_parameters",
                !proto.custom_settings_parameters.is_empty(),
            ),
            (
                "enable_huffman_encoding",
                proto.enable_huffman_encoding == Some(false),
            ),
            (
                "max_header_field_size_kb",
                proto.max_header_field_size_kb.is_some(),
            ),
            ("disallow_obs_text", proto.disallow_obs_text == Some(true)),
        ])?;
        let default = Self::default();
        let window = |field, value: Option<u32>, default| {
            let allowed = limits::MIN_WINDOW_BYTES..=limits::MAX_WINDOW_BYTES;
            in_range(field, value, default, allowed)
        };
        let keepalive = proto.connection_keepalive.as_ref().map(Http2Keepalive::compile);
        Ok(Self {
            hpack_table_bytes: proto.hpack_table_size.unwrap_or(default.hpack_table_bytes),
            max_concurrent_streams: in_range(
                "max_concurrent_streams",
                proto.max_concurrent_streams,
                default.max_concurrent_streams,
                1..=limits::MAX_CONCURRENT_STREAMS,
            )?,
            stream_window_bytes: window(
                "initial_stream_window_size",
                proto.initial_stream_window_size,
                default.stream_window_bytes,
            )?,
            connection_window_bytes: window(
                "initial_connection_window_size",
                proto.initial_connection_window_size,
                default.connection_window_bytes,
            )?,
            max_empty_frames: proto
                .max_consecutive_inbound_frames_with_empty_payload
                .unwrap_or(default.max_empty_frames),
            max_priority_frames: proto
                .max_inbound_priority_frames_per_stream
                .unwrap_or(default.max_priority_frames),
            max_window_update_frames: in_range(
                "max_inbound_window_update_frames_per_data_frame_sent",
                proto.max_inbound_window_update_frames_per_data_frame_sent,
                default.max_window_update_frames,
                1..=u32::MAX,
            )?,
            stream_reset_burst: proto.stream_reset_burst.unwrap_or(default.stream_reset_burst),
            stream_reset_rate: proto.stream_reset_rate.unwrap_or(default.stream_reset_rate),
            keepalive: keepalive.transpose().within("connection_keepalive")?,
            allow_connect: proto.allow_connect,
        })
    }
}

impl Http2Keepalive {
    fn compile(proto: &core::KeepaliveSettings) -> ConfigResult<Self> {
        let timeout = proto.timeout.as_ref().map(wkt::std_duration);
        let interval = proto.interval.as_ref().map(wkt::std_duration);
        let long_enough = |d: &Duration| *d >= limits::MIN_KEEPALIVE;
        let idle_interval = proto.connection_idle_interval.as_ref().map(wkt::std_duration);
        for (field, time) in [
            ("interval", &interval),
            ("connection_idle_interval", &idle_interval),
        ] {
            if time.as_ref().is_some_and(|time| !long_enough(time)) {
                return Err(ConfigError::at(field, "must be at least 1 ms"));
            }
        }
        Ok(Self {
            interval,
            idle_interval,
            jitter_percent: proto
                .interval_jitter
                .as_ref()
                .map_or(limits::DEFAULT_KEEPALIVE_JITTER_PERCENT, |p| p.value),
            timeout: timeout
                .filter(long_enough)
                .ok_or_else(|| ConfigError::at("timeout", "must be at least 1 ms"))?,
        })
    }
}

fn in_range(
    field: &str,
    value: Option<u32>,
    default: u32,
    allowed: std::ops::RangeInclusive<u32>,
) -> ConfigResult<u32> {
    let value = value.unwrap_or(default);
    if allowed.contains(&value) {
        return Ok(value);
    }
    let reason = format!("must be between {} and {}", allowed.start(), allowed.end());
    Err(ConfigError::at(field, reason))
}

#[cfg(test)]
mod tests {
    use api_envoy::json::Schema;
    use serde_json::{Value, json};

    use super::*;

    fn compile(json: &Value) -> Result<Http2Options, String> {
        let proto = Schema::get().parse(json).unwrap();
        Http2Options::compile(&proto).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_absent_is_envoys_default_and_zero_is_not_absent() {
        let options = compile(&json!({})).unwrap();
        assert_eq!(options, Http2Options::default());
        assert_eq!(
            (
                options.max_concurrent_streams,
                options.stream_window_bytes,
                options.connection_window_bytes
            ),
            (1024, 16 << 20, 24 << 20)
        );
        let none = compile(&json!({ "max_inbound_priority_frames_per_stream": 0 })).unwrap();
        assert_eq!(none.max_priority_frames, 0);
    }

    #[test]
    fn what_is_out_of_range_or_not_enforced_is_refused_by_name() {
        for (json, field) in [
            (json!({ "max_concurrent_streams": 0 }), "max_concurrent_streams"),
            (
                json!({ "initial_stream_window_size": 65534 }),
                "initial_stream_window_size",
            ),
            (json!({ "allow_metadata": true }), "allow_metadata"),
            (
                json!({ "connection_keepalive": { "interval": "5s" } }),
                "connection_keepalive.timeout",
            ),
        ] {
            let error = compile(&json).unwrap_err();
            assert!(error.contains(field), "{error}");
        }
    }
}
