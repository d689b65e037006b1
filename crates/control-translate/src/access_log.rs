//! Access logs of MeshConfig (`accessLogFile`, `accessLogFormat`, `accessLogEncoding`).

use api_envoy::any;
use api_envoy::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter::FilterSpecifier,
};
use api_envoy::envoy::config::core::v3::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, data_source, substitution_format_string::Format,
};
use api_envoy::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use api_envoy::wkt;
use api_istio::mesh::AccessLogEncoding;
use control_snapshot::Mesh;

/// Istio's line (`pilot/pkg/model/telemetry_logging.go`).
const TEXT_FORMAT: &str = concat!(
    "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% ",
    "%RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% ",
    "\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% ",
    "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" ",
    "\"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% ",
    "%UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% ",
    "%REQUESTED_SERVER_NAME% %ROUTE_NAME%\n",
);

/// The same facts as JSON.
const JSON_FORMAT: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    (
        "connection_termination_details",
        "%CONNECTION_TERMINATION_DETAILS%",
    ),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    (
        "upstream_transport_failure_reason",
        "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    ),
];

/// The access log of connections and requests; none when MeshConfig names no file.
pub(crate) fn of_traffic(mesh: &Mesh) -> Vec<AccessLog> {
    file(mesh, None).into_iter().collect()
}

/// The access log of a listener: connections that no filter chain took.
pub(crate) fn of_listener(mesh: &Mesh) -> Vec<AccessLog> {
    if mesh.disable_envoy_listener_log {
        return Vec::new();
    }
    let no_route = ResponseFlagFilter {
        flags: vec!["NR".to_owned()],
    };
    let filter = AccessLogFilter {
        filter_specifier: Some(FilterSpecifier::ResponseFlagFilter(no_route)),
    };
    file(mesh, Some(filter)).into_iter().collect()
}

fn file(mesh: &Mesh, filter: Option<AccessLogFilter>) -> Option<AccessLog> {
    if mesh.access_log_file.is_empty() {
        return None;
    }
    let config = FileAccessLog {
        path: mesh.access_log_file.clone(),
        access_log_format: Some(AccessLogFormat::LogFormat(format(mesh))),
    };
    Some(AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        filter,
        config_type: Some(access_log::ConfigType::TypedConfig(any::pack(&config))),
    })
}

fn format(mesh: &Mesh) -> SubstitutionFormatString {
    let custom = mesh.access_log_format.as_str();
    let format = match mesh.access_log_encoding {
        AccessLogEncoding::Text => {
            let line = if custom.is_empty() {
                TEXT_FORMAT.to_owned()
            } else {
                with_newline(custom)
            };
            Format::TextFormatSource(DataSource {
                specifier: Some(data_source::Specifier::InlineString(line)),
                ..DataSource::default()
            })
        }
        AccessLogEncoding::Json => Format::JsonFormat(wkt::structure(&json_format(custom))),
    };
    let json = matches!(format, Format::JsonFormat(_));
    SubstitutionFormatString {
        format: Some(format),
        json_format_options: json.then(JsonFormatOptions::default),
        ..SubstitutionFormatString::default()
    }
}

fn with_newline(format: &str) -> String {
    if format.ends_with('\n') {
        format.to_owned()
    } else {
        format!("{format}\n")
    }
}

/// The user's JSON, or Istio's when there is none or it does not parse.
fn json_format(custom: &str) -> serde_json::Value {
    let own = serde_json::from_str(custom)
        .ok()
        .filter(serde_json::Value::is_object);
    own.unwrap_or_else(|| {
        JSON_FORMAT
            .iter()
            .map(|(k, v)| ((*k).to_owned(), serde_json::Value::from(*v)))
            .collect()
    })
}
