//! `envoy.config.core.v3.DataSource`: where PEM text comes from.

use std::io::Read as _;

use api_envoy::envoy::config::core::v3::{DataSource, data_source::Specifier};
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

use crate::limits::MAX_TLS_SOURCE_BYTES;

/// Reads the source called `field`, which must be there.
pub(super) fn needed(field: &str, proto: Option<&DataSource>) -> ConfigResult<Vec<u8>> {
    match proto {
        Some(proto) => read(proto).within(field),
        None => Err(ConfigError::at(field, "is needed")),
    }
}

/// Reads the source called `field`, if it is there.
pub(super) fn optional(field: &str, proto: Option<&DataSource>) -> ConfigResult<Option<Vec<u8>>> {
    proto.map(read).transpose().within(field)
}

/// Where a source is, as Envoy's `/certs` names it: a path, or `<inline>`.
pub(super) fn origin(proto: Option<&DataSource>) -> String {
    match proto.and_then(|proto| proto.specifier.as_ref()) {
        None => String::new(),
        Some(Specifier::Filename(path)) => path.clone(),
        Some(_) => crate::secrets::INLINE.to_owned(),
    }
}

/// The file of a source, if it is one.
pub(super) fn file(proto: Option<&DataSource>) -> Option<&str> {
    match proto?.specifier.as_ref()? {
        Specifier::Filename(path) => Some(path),
        _ => None,
    }
}

/// Errors say where the bytes should have come from, and nothing of the bytes.
fn read(proto: &DataSource) -> ConfigResult<Vec<u8>> {
    refuse_unsupported(&[("watched_directory", proto.watched_directory.is_some())])?;
    let bytes = match &proto.specifier {
        None => return Err(ConfigError::at("specifier", "missing")),
        Some(Specifier::InlineString(text)) => text.clone().into_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes.to_vec(),
        Some(Specifier::EnvironmentVariable(name)) => std::env::var(name)
            .map_err(|_| ConfigError::at("environment_variable", format!("{name} is not set")))?
            .into_bytes(),
        Some(Specifier::Filename(path)) => read_file(path)?,
    };
    if bytes.len() as u64 > MAX_TLS_SOURCE_BYTES {
        return Err(ConfigError::new(format!(
            "more than {MAX_TLS_SOURCE_BYTES} bytes"
        )));
    }
    Ok(bytes)
}

fn read_file(path: &str) -> ConfigResult<Vec<u8>> {
    let failed = |error: std::io::Error| ConfigError::at("filename", format!("{path}: {error}"));
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    file.take(MAX_TLS_SOURCE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
