//! Fields of the connection manager that Envoy defines, this proxy does not enforce, and that would change traffic
//! or what is recorded of it: they are refused by name instead of being ignored.

use api_envoy::envoy::config::core::v3 as core;
use api_envoy::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager as Proto;
use proxy_core::ConfigResult;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};

/// Refuses what is not enforced. HTTP/3 options are taken as they are, as that codec cannot be chosen.
///
/// # Errors
/// The first such field that is set.
#[allow(deprecated)]
pub(super) fn check(proto: &Proto) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("add_user_agent", proto.add_user_agent == Some(true)),
        (
            "scheme_header_transformation",
            proto.scheme_header_transformation.is_some(),
        ),
        ("stream_flush_timeout", proto.stream_flush_timeout.is_some()),
        (
            "access_log_flush_interval",
            is_set(proto.access_log_flush_interval.as_ref()),
        ),
        (
            "flush_access_log_on_new_request",
            proto.flush_access_log_on_new_request,
        ),
        ("access_log_options", proto.access_log_options.is_some()),
        (
            "original_ip_detection_extensions",
            !proto.original_ip_detection_extensions.is_empty(),
        ),
        (
            "early_header_mutation_extensions",
            !proto.early_header_mutation_extensions.is_empty(),
        ),
        (
            "forward_client_cert_matcher",
            proto.forward_client_cert_matcher.is_some(),
        ),
        (
            "represent_ipv4_remote_address_as_ipv4_mapped_ipv6",
            proto.represent_ipv4_remote_address_as_ipv4_mapped_ipv6,
        ),
        ("local_reply_config", proto.local_reply_config.is_some()),
        (
            "stream_error_on_invalid_http_message",
            proto.stream_error_on_invalid_http_message == Some(true),
        ),
        (
            "path_normalization_options",
            proto.path_normalization_options.is_some(),
        ),
        ("proxy_status_config", proto.proxy_status_config.is_some()),
        (
            "typed_header_validation_config",
            proto.typed_header_validation_config.is_some(),
        ),
        ("append_local_overload", proto.append_local_overload),
        ("forward_proto_config", proto.forward_proto_config.is_some()),
    ])?;
    if let Some(common) = &proto.common_http_protocol_options {
        check_common(common).within("common_http_protocol_options")?;
    }
    if let Some(http1) = &proto.http_protocol_options {
        check_http1(http1).within("http_protocol_options")?;
    }
    Ok(())
}

fn check_common(common: &core::HttpProtocolOptions) -> ConfigResult<()> {
    refuse_unsupported(&[
        (
            "max_connection_duration_jitter",
            common.max_connection_duration_jitter.is_some(),
        ),
        // It is for clusters; here Envoy ignores it, which we do not.
        (
            "max_response_headers_kb",
            common.max_response_headers_kb.is_some(),
        ),
    ])
}

fn check_http1(http1: &core::Http1ProtocolOptions) -> ConfigResult<()> {
    refuse_unsupported(&[
        ("allow_absolute_url", http1.allow_absolute_url == Some(false)),
        ("header_key_format", http1.header_key_format.is_some()),
        ("allow_chunked_length", http1.allow_chunked_length),
        (
            "override_stream_error_on_invalid_http_message",
            http1.override_stream_error_on_invalid_http_message == Some(true),
        ),
        ("send_fully_qualified_url", http1.send_fully_qualified_url),
        ("allow_custom_methods", http1.allow_custom_methods),
        ("ignore_http_11_upgrade", !http1.ignore_http_11_upgrade.is_empty()),
    ])
}

fn is_set(duration: Option<&prost_types::Duration>) -> bool {
    duration.is_some_and(|duration| duration.seconds != 0 || duration.nanos != 0)
}
