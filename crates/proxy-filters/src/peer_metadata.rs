//! `istio.metadata_exchange` on requests (`io.istio.http.peer_metadata.Config`): proxies tell each other of themselves in
//! the headers of requests and answers, so that their statistics can name both ends. What is told never reaches the
//! application or its client.

use api_envoy::udpa::r#type::v1::TypedStruct;
use api_envoy::{Any, Struct, any, type_url};
use prost_types::Value;
use prost_types::value::Kind;
use proxy_core::error::ConfigContext as _;
use proxy_core::{ConfigError, ConfigResult};

/// The message of the filter's configuration.
pub const MESSAGE: &str = "io.istio.http.peer_metadata.Config";

/// What is done with the headers of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerMetadataConfig {
    /// Whether what a client tells is taken out of its request (`downstream_discovery`).
    pub learns_of_client: bool,
    /// Whether what a host tells is taken out of its answer (`upstream_discovery`).
    pub learns_of_host: bool,
    /// Whether a client that told of itself is told of this proxy (`downstream_propagation`).
    pub tells_client: bool,
    /// Whether hosts are told of this proxy (`upstream_propagation`).
    pub tells_host: Option<TellsHost>,
}

/// Which hosts are told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TellsHost {
    /// None of clusters outside of the mesh (`skip_external_clusters`).
    pub not_external: bool,
}

impl PeerMetadataConfig {
    /// Reads the configuration, which Istio sends without its message.
    ///
    /// # Errors
    /// A field or method that is not known, or of another form.
    pub fn compile(typed: &Any) -> ConfigResult<Self> {
        let typed: TypedStruct = any::unpack(typed).map_err(|error| ConfigError::new(error.to_string()))?;
        if type_url::message_name(&typed.type_url) != MESSAGE {
            let reason = format!("is {}, not {MESSAGE}", typed.type_url);
            return Err(ConfigError::at("type_url", reason));
        }
        let mut config = Self::default();
        for (field, value) in typed.value.unwrap_or_default().fields {
            config.set(&field, &value).within("value")?;
        }
        Ok(config)
    }

    fn set(&mut self, field: &str, value: &Value) -> ConfigResult<()> {
        let methods = || methods(value).within(field);
        let tells = || propagation(&methods()?).within(field);
        match field {
            "downstream_discovery" => self.learns_of_client = discovery(&methods()?).within(field)?,
            "upstream_discovery" => self.learns_of_host = discovery(&methods()?).within(field)?,
            "downstream_propagation" => self.tells_client = tells()?.is_some(),
            "upstream_propagation" => self.tells_host = tells()?,
            // Both only say what statistics are made of.
            "shared_with_upstream" | "additional_labels" => {}
            other => return Err(ConfigError::unsupported(other)),
        }
        Ok(())
    }
}

/// The methods of a list by name, each with its settings.
fn methods(value: &Value) -> ConfigResult<Vec<(&str, &Struct)>> {
    let refused = || ConfigError::new("a list of methods, each with its name, is expected");
    let Some(Kind::ListValue(list)) = &value.kind else {
        return Err(refused());
    };
    let mut found = Vec::new();
    for value in &list.values {
        let Some(Kind::StructValue(method)) = &value.kind else {
            return Err(refused());
        };
        for (name, settings) in &method.fields {
            match &settings.kind {
                Some(Kind::StructValue(settings)) => found.push((name.as_str(), settings)),
                _ => return Err(refused()),
            }
        }
    }
    Ok(found)
}

/// Whether headers are read. The other methods find out about peers that tell nothing, for statistics.
fn discovery(methods: &[(&str, &Struct)]) -> ConfigResult<bool> {
    for (name, _) in methods {
        if !["istio_headers", "workload_discovery", "baggage"].contains(name) {
            return Err(ConfigError::unsupported(name));
        }
    }
    Ok(methods.iter().any(|(name, _)| *name == "istio_headers"))
}

fn propagation(methods: &[(&str, &Struct)]) -> ConfigResult<Option<TellsHost>> {
    let mut tells = None;
    for (name, settings) in methods {
        if *name != "istio_headers" {
            return Err(ConfigError::unsupported(name));
        }
        let mut told = TellsHost::default();
        for (field, value) in &settings.fields {
            match (field.as_str(), &value.kind) {
                ("skip_external_clusters", Some(Kind::BoolValue(skip))) => told.not_external = *skip,
                (other, _) => return Err(ConfigError::unsupported(other).within(name)),
            }
        }
        tells = Some(told);
    }
    Ok(tells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api_envoy::wkt;
    use serde_json::{Value as Json, json};

    fn compiled(value: Json) -> Result<PeerMetadataConfig, String> {
        let typed = TypedStruct {
            type_url: format!("type.googleapis.com/{MESSAGE}"),
            value: Some(wkt::structure(&value)),
        };
        PeerMetadataConfig::compile(&any::pack(&typed)).map_err(|error| error.to_string())
    }

    #[test]
    fn what_istio_sends_is_taken() {
        let discovery = json!([{ "istio_headers": {} }, { "workload_discovery": {} }]);
        let told = json!([{ "istio_headers": {} }]);
        let inbound = json!({ "downstream_discovery": discovery, "downstream_propagation": told });
        let expected = PeerMetadataConfig {
            learns_of_client: true,
            tells_client: true,
            ..PeerMetadataConfig::default()
        };
        assert_eq!(compiled(inbound), Ok(expected));
        let told = json!([{ "istio_headers": { "skip_external_clusters": true } }]);
        let outbound = json!({ "upstream_discovery": discovery, "upstream_propagation": told });
        let expected = PeerMetadataConfig {
            learns_of_host: true,
            tells_host: Some(TellsHost { not_external: true }),
            ..PeerMetadataConfig::default()
        };
        assert_eq!(compiled(outbound), Ok(expected));
        let only = compiled(json!({ "upstream_discovery": [{ "workload_discovery": {} }] }));
        assert_eq!(only, Ok(PeerMetadataConfig::default()));
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        for (value, at) in [
            (json!({ "elsewhere": [] }), "elsewhere"),
            (json!({ "downstream_discovery": {} }), "downstream_discovery"),
            (json!({ "upstream_discovery": [{ "guess": {} }] }), "guess"),
            (json!({ "upstream_propagation": [{ "baggage": {} }] }), "baggage"),
            (
                json!({ "upstream_propagation": [{ "istio_headers": { "twice": true } }] }),
                "twice",
            ),
        ] {
            let error = compiled(value).unwrap_err();
            assert!(error.contains(at), "{error}");
        }
    }
}
