//! One configured access log: `envoy.config.accesslog.v3.AccessLog` with a file or a standard stream behind it.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use api_envoy::Any;
use api_envoy::any::unpack;
use api_envoy::envoy::config::accesslog::v3::{AccessLog as AccessLogProto, access_log::ConfigType};
use api_envoy::envoy::extensions::access_loggers::file::v3::{
    FileAccessLog, file_access_log::AccessLogFormat,
};
use api_envoy::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use api_envoy::type_url::message_name;
use proxy_core::error::ConfigContext as _;
use proxy_core::stream_info::AccessLogger;
use proxy_core::substitution::{Context, ProcessInfo};
use proxy_core::{ConfigError, ConfigResult, StreamInfo};
use proxy_http::{Headers, RequestHead, ResponseHead};

use crate::file::{LogFile, LogFiles};
use crate::filter::Filter;
use crate::format::LineFormat;
use crate::limits::MAX_LINE_BYTES;

/// A compiled access log. Shared by all workers; each makes a logger of its own with [`AccessLog::logger`].
#[derive(Clone, Debug)]
pub struct AccessLog {
    filter: Option<Filter>,
    format: Arc<LineFormat>,
    path: String,
}

impl AccessLog {
    /// Compiles a configured access log.
    ///
    /// # Errors
    /// An unknown logger, filter or operator.
    pub fn compile(proto: &AccessLogProto) -> ConfigResult<Self> {
        let filter = proto
            .filter
            .as_ref()
            .map(Filter::compile)
            .transpose()
            .within("filter")?;
        let Some(ConfigType::TypedConfig(any)) = &proto.config_type else {
            return Err(ConfigError::at("typed_config", "a logger is needed"));
        };
        let (path, format) = destination(any).within("typed_config")?;
        Ok(Self {
            filter,
            format: Arc::new(format),
            path,
        })
    }

    /// The file it writes.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// A logger for the calling thread.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn logger(&self, files: &LogFiles, process: Rc<ProcessInfo>) -> std::io::Result<FileAccessLogger> {
        Ok(self.logger_to(files.open(&self.path)?, process))
    }

    /// A logger for the calling thread that writes to a file which is open already.
    #[must_use]
    pub fn logger_to(&self, file: Arc<LogFile>, process: Rc<ProcessInfo>) -> FileAccessLogger {
        let line = RefCell::new(Vec::with_capacity(512));
        FileAccessLogger {
            filter: self.filter.clone(),
            format: Arc::clone(&self.format),
            file,
            process,
            line,
        }
    }
}

fn destination(any: &Any) -> ConfigResult<(String, LineFormat)> {
    let malformed = |e: api_envoy::any::UnpackError| ConfigError::new(e.to_string());
    match message_name(&any.type_url) {
        "envoy.extensions.access_loggers.file.v3.FileAccessLog" => {
            let proto: FileAccessLog = unpack(any).map_err(malformed)?;
            if proto.path.is_empty() {
                return Err(ConfigError::at("path", "must not be empty"));
            }
            Ok((proto.path.clone(), file_format(&proto)?))
        }
        "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog" => {
            let proto: StdoutAccessLog = unpack(any).map_err(malformed)?;
            let format = match &proto.access_log_format {
                Some(stdout_access_log::AccessLogFormat::LogFormat(f)) => {
                    LineFormat::compile(f).within("log_format")?
                }
                None => LineFormat::default_text()?,
            };
            Ok(("/dev/stdout".to_owned(), format))
        }
        "envoy.extensions.access_loggers.stream.v3.StderrAccessLog" => {
            let proto: StderrAccessLog = unpack(any).map_err(malformed)?;
            let format = match &proto.access_log_format {
                Some(stderr_access_log::AccessLogFormat::LogFormat(f)) => {
                    LineFormat::compile(f).within("log_format")?
                }
                None => LineFormat::default_text()?,
            };
            Ok(("/dev/stderr".to_owned(), format))
        }
        other => Err(ConfigError::new(format!("no access logger {other}"))),
    }
}

#[allow(deprecated, reason = "Istio's older fields are still sent")]
fn file_format(proto: &FileAccessLog) -> ConfigResult<LineFormat> {
    match &proto.access_log_format {
        Some(AccessLogFormat::LogFormat(format)) => LineFormat::compile(format).within("log_format"),
        Some(AccessLogFormat::Format(text)) if !text.is_empty() => LineFormat::text(text).within("format"),
        Some(AccessLogFormat::JsonFormat(json)) => LineFormat::json(json).within("json_format"),
        Some(AccessLogFormat::TypedJsonFormat(json)) => LineFormat::json(json).within("typed_json_format"),
        _ => LineFormat::default_text(),
    }
}

/// One thread's logger. It formats into a buffer of its own and appends the line to the shared file.
#[derive(Debug)]
pub struct FileAccessLogger {
    filter: Option<Filter>,
    format: Arc<LineFormat>,
    file: Arc<LogFile>,
    process: Rc<ProcessInfo>,
    line: RefCell<Vec<u8>>,
}

impl AccessLogger for FileAccessLogger {
    fn log(
        &self,
        info: &StreamInfo<'_>,
        request: &RequestHead,
        response: Option<&ResponseHead>,
        trailers: Option<&Headers>,
    ) {
        if self.filter.as_ref().is_some_and(|f| !f.admits(info)) {
            return;
        }
        let context = Context {
            info,
            request: Some(request),
            response,
            trailers,
            process: &self.process,
        };
        let mut line = self.line.borrow_mut();
        line.clear();
        self.format.write(&context, &mut line);
        if line.len() > MAX_LINE_BYTES {
            line.truncate(MAX_LINE_BYTES - 1);
            line.push(b'\n');
        }
        self.file.append(&line);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::{Duration, Instant, UNIX_EPOCH};

    use api_envoy::json::{Schema, yaml_to_json};
    use proxy_core::connection::ConnectionInfo;
    use proxy_core::response_flags::ResponseFlag;

    use super::*;

    const FILE: &str = "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog";

    fn compile(yaml: &str) -> ConfigResult<AccessLog> {
        let json = yaml_to_json(yaml).unwrap();
        AccessLog::compile(&Schema::get().parse::<AccessLogProto>(&json).unwrap())
    }

    fn stream(status: u16, flag: Option<ResponseFlag>) -> StreamInfo<'static> {
        let address = |text: &str| text.parse::<SocketAddr>().unwrap().into();
        let connection = ConnectionInfo::new(1, address("10.0.0.1:1"), address("10.0.0.2:80"), UNIX_EPOCH);
        let mut info = StreamInfo::new(Rc::new(connection), UNIX_EPOCH, Instant::now());
        info.response_code = Some(status);
        info.timing.end = Some(Duration::from_millis(3));
        flag.into_iter().for_each(|f| info.flag(f));
        info
    }

    /// Logs the streams and returns what was written.
    fn written(log: &AccessLog, streams: &[StreamInfo<'_>]) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log").display().to_string();
        let files = LogFiles::start(Duration::from_secs(3600)).unwrap();
        let logger = log.logger_to(files.open(&path).unwrap(), Rc::new(ProcessInfo::default()));
        let request = RequestHead::with("GET", "http", "a \"b\"", "/x");
        streams.iter().for_each(|s| logger.log(s, &request, None, None));
        drop(files);
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn json_prints_numbers_as_numbers_and_missing_values_as_null() {
        let yaml = format!(
            r#"{{name: f, typed_config: {{"@type": {FILE}, path: /dev/null, log_format: {{json_format: {{b: "%RESPONSE_CODE%", a: "%REQ(:AUTHORITY)%", c: "%ROUTE_NAME%", d: "x %PROTOCOL%"}}}}}}}}"#
        );
        let line = written(&compile(&yaml).unwrap(), &[stream(200, None)]);
        assert_eq!(
            line,
            "{\"a\":\"a \\\"b\\\"\",\"b\":200,\"c\":null,\"d\":\"x -\"}\n"
        );
    }

    #[test]
    fn filters_choose_the_streams() {
        let yaml = format!(
            r#"
name: f
filter:
  or_filter:
    filters:
    - status_code_filter: {{comparison: {{op: GE, value: {{default_value: 500, runtime_key: k}}}}}}
    - response_flag_filter: {{flags: [NR]}}
typed_config: {{"@type": {FILE}, path: /dev/null, log_format: {{text_format_source: {{inline_string: "%RESPONSE_CODE% "}}}}}}
"#
        );
        let streams = [
            stream(200, None),
            stream(503, None),
            stream(404, Some(ResponseFlag::NoRouteFound)),
            stream(404, None),
        ];
        assert_eq!(written(&compile(&yaml).unwrap(), &streams), "503 404 ");
    }

    #[test]
    fn an_unknown_operator_is_refused_with_the_path_of_its_field() {
        let yaml = format!(
            r#"{{name: f, typed_config: {{"@type": {FILE}, path: /dev/null, log_format: {{json_format: {{a: "%NONSENSE%"}}}}}}}}"#
        );
        let error = compile(&yaml).unwrap_err().to_string();
        assert_eq!(
            error,
            "typed_config.log_format.json_format.a: unknown operator %NONSENSE%"
        );
    }
}
