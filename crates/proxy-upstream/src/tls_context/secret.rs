//! `SdsSecretConfig`, which names a secret, and `Secret`, which is one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use api_envoy::envoy::config::core::v3::{
    ConfigSource, DataSource, PathConfigSource, config_source::ConfigSourceSpecifier, data_source::Specifier,
};
use api_envoy::envoy::extensions::transport_sockets::tls::v3 as pb;
use api_envoy::envoy::extensions::transport_sockets::tls::v3::secret::Type;
use api_envoy::wkt;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};
use tls::Identity;

use super::{certificate, source, validation};
use crate::grpc_source::GrpcSource;
use crate::limits::DEFAULT_INITIAL_FETCH_TIMEOUT;
use crate::secrets::{SecretFiles, SecretRef, SecretSource, SecretValue};

/// Reads a reference to a secret. Without a source it is to one of the bootstrap.
pub(super) fn reference(proto: &pb::SdsSecretConfig) -> ConfigResult<SecretRef> {
    if proto.name.is_empty() {
        return Err(ConfigError::at("name", "must not be empty"));
    }
    let (source, initial_fetch_timeout) = match &proto.sds_config {
        None => (SecretSource::Static, Duration::ZERO),
        Some(config) => source_of(config).within("sds_config")?,
    };
    Ok(SecretRef {
        name: proto.name.as_str().into(),
        source,
        initial_fetch_timeout,
    })
}

#[allow(deprecated, reason = "old configuration still names a file this way")]
fn source_of(proto: &ConfigSource) -> ConfigResult<(SecretSource, Duration)> {
    let source = match &proto.config_source_specifier {
        None => return Err(ConfigError::new("says nothing of where secrets come from")),
        Some(ConfigSourceSpecifier::Ads(_)) => SecretSource::Ads,
        Some(ConfigSourceSpecifier::ApiConfigSource(api)) => {
            let GrpcSource { delta, cluster } = GrpcSource::compile(api).within("api_config_source")?;
            SecretSource::Service { cluster, delta }
        }
        Some(ConfigSourceSpecifier::PathConfigSource(file)) => path(file).within("path_config_source")?,
        Some(ConfigSourceSpecifier::Path(path)) => SecretSource::File {
            path: existing(path).within("path")?,
            directory: None,
        },
        Some(ConfigSourceSpecifier::Self_(_)) => return Err(ConfigError::unsupported("self")),
    };
    let timeout = proto.initial_fetch_timeout.as_ref();
    Ok((
        source,
        timeout.map_or(DEFAULT_INITIAL_FETCH_TIMEOUT, wkt::std_duration),
    ))
}

fn path(proto: &PathConfigSource) -> ConfigResult<SecretSource> {
    let directory = proto.watched_directory.as_ref();
    let directory = directory.map(|watched| existing(&watched.path).within("path"));
    Ok(SecretSource::File {
        path: existing(&proto.path).within("path")?,
        directory: directory.transpose().within("watched_directory")?,
    })
}

/// As in Envoy a file must be there when it is named, whatever is in it.
fn existing(path: &str) -> ConfigResult<Arc<Path>> {
    match Path::new(path) {
        path if path.exists() => Ok(path.into()),
        path => Err(ConfigError::new(format!("{} does not exist", path.display()))),
    }
}

/// Reads a secret, and the files that it names.
///
/// # Errors
/// A field that is malformed or not enforced here, a file that cannot be read, a certificate that is not good at `now`,
/// or a kind of secret that nothing here uses.
pub fn secret(proto: &pb::Secret, now: SystemTime) -> ConfigResult<SecretValue> {
    match &proto.r#type {
        Some(Type::TlsCertificate(proto)) => {
            let source = certificate(proto).within("tls_certificate")?;
            let refused = |error: tls::ContextError| ConfigError::at("tls_certificate", error.to_string());
            Ok(SecretValue::Certificate {
                identity: Identity::load(&source, now).map_err(refused)?,
                source: Arc::new(source),
            })
        }
        Some(Type::ValidationContext(proto)) => {
            let context = validation::context(proto).within("validation_context")?;
            Ok(SecretValue::Validation(Arc::new(context)))
        }
        Some(Type::SessionTicketKeys(_)) => Err(ConfigError::unsupported("session_ticket_keys")),
        Some(Type::GenericSecret(_)) => Err(ConfigError::unsupported("generic_secret")),
        None => Err(ConfigError::new("holds no secret")),
    }
}

/// The files that a secret names, and the directory whose changes say that they have changed.
#[must_use]
pub fn secret_files(proto: &pb::Secret) -> SecretFiles {
    let (sources, watched) = match &proto.r#type {
        Some(Type::TlsCertificate(proto)) => (
            vec![proto.certificate_chain.as_ref(), proto.private_key.as_ref()],
            proto.watched_directory.as_ref(),
        ),
        Some(Type::ValidationContext(proto)) => (
            vec![proto.trusted_ca.as_ref(), proto.crl.as_ref()],
            proto.watched_directory.as_ref(),
        ),
        _ => (Vec::new(), None),
    };
    SecretFiles {
        files: sources
            .into_iter()
            .filter_map(source::file)
            .map(PathBuf::from)
            .collect(),
        directory: watched.map(|watched| PathBuf::from(&watched.path)),
    }
}

/// A secret as Envoy shows it: with what was in the files that it names, and without its key.
#[must_use]
pub fn shown_secret(proto: &pb::Secret, in_use: &SecretValue) -> pb::Secret {
    let inline = |bytes: &[u8]| DataSource {
        specifier: Some(Specifier::InlineBytes(bytes.to_vec().into())),
        ..DataSource::default()
    };
    let read = |field: &mut Option<DataSource>, bytes: Option<&[u8]>| {
        if source::file(field.as_ref()).is_some()
            && let Some(bytes) = bytes
        {
            *field = Some(inline(bytes));
        }
    };
    let mut shown = proto.clone();
    match (&mut shown.r#type, in_use) {
        (Some(Type::TlsCertificate(shown)), SecretValue::Certificate { source, .. }) => {
            read(&mut shown.certificate_chain, Some(&source.certificate_chain));
            read(&mut shown.private_key, Some(b"[redacted]"));
        }
        (Some(Type::ValidationContext(shown)), SecretValue::Validation(context)) => {
            read(&mut shown.trusted_ca, context.trusted_ca.as_deref());
            read(&mut shown.crl, context.crl.as_deref());
        }
        _ => {}
    }
    shown
}
