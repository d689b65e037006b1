//! Answers from the configuration itself (`envoy.config.route.v3.DirectResponseAction`).

use api_envoy::envoy::config::core::v3::DataSource;
use api_envoy::envoy::config::core::v3::data_source::Specifier;
use api_envoy::envoy::config::route::v3 as pb;
use proxy_core::error::{ConfigContext as _, refuse_unsupported};
use proxy_core::{ConfigError, ConfigResult};

/// An answer that needs no upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Its status.
    pub status: u16,
    /// Its body; may be empty.
    pub body: Vec<u8>,
}

impl DirectResponse {
    /// Compiles an answer; a file is read now.
    ///
    /// # Errors
    /// A status outside 200 to 599, a body that cannot be read or is larger than `max_body_bytes`.
    pub fn compile(proto: &pb::DirectResponseAction, max_body_bytes: u32) -> ConfigResult<Self> {
        refuse_unsupported(&[("body_format", proto.body_format.is_some())])?;
        let status = u16::try_from(proto.status)
            .ok()
            .filter(|status| (200..600).contains(status));
        let status = status.ok_or_else(|| ConfigError::at("status", "must be between 200 and 599"))?;
        let body = proto
            .body
            .as_ref()
            .map(|body| read(body, max_body_bytes))
            .transpose()
            .within("body")?;
        Ok(Self {
            status,
            body: body.unwrap_or_default(),
        })
    }
}

fn read(source: &DataSource, max_bytes: u32) -> ConfigResult<Vec<u8>> {
    refuse_unsupported(&[("watched_directory", source.watched_directory.is_some())])?;
    let body = match &source.specifier {
        None => return Err(ConfigError::at("specifier", "missing")),
        Some(Specifier::InlineString(text)) => text.clone().into_bytes(),
        Some(Specifier::InlineBytes(bytes)) => bytes.to_vec(),
        Some(Specifier::EnvironmentVariable(name)) => std::env::var(name)
            .map_err(|_| ConfigError::at("environment_variable", format!("{name} is not set")))?
            .into_bytes(),
        Some(Specifier::Filename(path)) => read_file(path, max_bytes)?,
    };
    if body.len() > max_bytes as usize {
        return Err(ConfigError::new(format!(
            "{} bytes are more than the {max_bytes} allowed",
            body.len()
        )));
    }
    Ok(body)
}

fn read_file(path: &str, max_bytes: u32) -> ConfigResult<Vec<u8>> {
    let failed = |e: std::io::Error| ConfigError::at("filename", format!("{path}: {e}"));
    let length = std::fs::metadata(path).map_err(failed)?.len();
    if length > u64::from(max_bytes) {
        return Err(ConfigError::at(
            "filename",
            format!("{length} bytes are more than the {max_bytes} allowed"),
        ));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compile(status: u32, specifier: Specifier, max: u32) -> ConfigResult<DirectResponse> {
        let body = Some(DataSource {
            specifier: Some(specifier),
            ..Default::default()
        });
        DirectResponse::compile(
            &pb::DirectResponseAction {
                status,
                body,
                ..Default::default()
            },
            max,
        )
    }

    #[test]
    fn a_body_is_inline_or_from_a_file() {
        let inline = compile(418, Specifier::InlineString("short".into()), 10).unwrap();
        assert_eq!((inline.status, inline.body.as_slice()), (418, &b"short"[..]));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "from a file").unwrap();
        let path = file.path().to_str().unwrap().to_owned();
        assert_eq!(
            compile(200, Specifier::Filename(path.clone()), 11).unwrap().body,
            b"from a file"
        );
        assert_eq!(
            compile(200, Specifier::Filename(path), 10).unwrap_err().path(),
            "body.filename"
        );
    }

    #[test]
    fn an_impossible_status_and_a_large_body_are_refused() {
        assert_eq!(
            compile(199, Specifier::InlineString("".into()), 10)
                .unwrap_err()
                .path(),
            "status"
        );
        assert_eq!(
            compile(200, Specifier::InlineString("12345".into()), 4)
                .unwrap_err()
                .path(),
            "body"
        );
    }
}
