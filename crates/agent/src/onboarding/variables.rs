//! The agent's environment (`pilot/cmd/pilot-agent/options` of Istio), from `cluster.env` and from `proxyMetadata`.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use identity::KeyKind;
use serde_json::{Map, Value};

use super::OnboardingError;
use crate::limits::CERTIFICATE_LIFETIME;

/// Prefixes of variables that become the node's metadata, as texts and as JSON.
const METADATA: &str = "ISTIO_META_";
const METADATA_JSON: &str = "ISTIO_METAJSON_";

/// Variables that have an effect here, or none that could be missed: what they exclude from capture is not captured.
const KNOWN: &[&str] = &[
    "CANONICAL_REVISION",
    "CANONICAL_SERVICE",
    "CA_ADDR",
    "CA_PROVIDER",
    "CA_ROOT_CA",
    "CREDENTIAL_FETCHER_TYPE",
    "ECC_CURVE",
    "ECC_SIGNATURE_ALGORITHM",
    "FILE_MOUNTED_CERTS",
    "ISTIOD_SAN",
    "ISTIO_INBOUND_PORTS",
    "ISTIO_LOCAL_EXCLUDE_PORTS",
    "ISTIO_NAMESPACE",
    "ISTIO_SERVICE",
    "ISTIO_SERVICE_CIDR",
    "ISTIO_SVC_IP",
    "JWT_POLICY",
    "OUTPUT_CERTS",
    "POD_NAME",
    "POD_NAMESPACE",
    "PROV_CERT",
    "SECRET_TTL",
    "SERVICE_ACCOUNT",
    "TRUST_DOMAIN",
    "WORKLOAD_RSA_KEY_SIZE",
    "XDS_AUTH_PROVIDER",
    "XDS_ROOT_CA",
];

/// Variables by name; those of `cluster.env` come before those of `mesh.yaml`. An empty one is none.
#[derive(Debug, Default)]
pub(super) struct Variables(BTreeMap<String, String>);

/// What is wrong with a variable's value.
pub(super) fn unreadable(name: &str, why: &'static str) -> OnboardingError {
    OnboardingError::Content {
        file: "cluster.env",
        why: format!("{name}: {why}"),
    }
}

impl Variables {
    /// Those in `proxyMetadata`.
    pub(super) fn of_mesh(mesh: &Map<String, Value>) -> Result<Self, OnboardingError> {
        let wrong = |name: &str| OnboardingError::Content {
            file: "mesh.yaml",
            why: format!("defaultConfig.proxyMetadata.{name} is no text"),
        };
        let mut all = BTreeMap::new();
        for (name, value) in mesh
            .get("proxyMetadata")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            let text = value.as_str().ok_or_else(|| wrong(name))?;
            all.insert(name.clone(), text.to_owned());
        }
        if let Some(id) = mesh.get("meshId").and_then(Value::as_str) {
            all.entry("ISTIO_META_MESH_ID".to_owned())
                .or_insert_with(|| id.to_owned());
        }
        Ok(Self(all))
    }

    /// Adds those of a file of shell assignments, one a line.
    pub(super) fn add_environment(&mut self, text: &str) -> Result<(), OnboardingError> {
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.strip_prefix("export ").unwrap_or(line);
            let assignment = line.split_once('=').filter(|(name, _)| is_name(name));
            let (name, value) = assignment.ok_or_else(|| unreadable(line, "it is no NAME=VALUE"))?;
            let value = unquote(value).ok_or_else(|| unreadable(name, "its quotes do not end"))?;
            self.0.insert(name.to_owned(), value);
        }
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| ["true", "1", "t"].contains(&value.to_ascii_lowercase().as_str()))
    }

    /// Refuses what would be another security or other traffic than is asked for.
    pub(super) fn check(&self) -> Result<(), OnboardingError> {
        let only = |name: &str, allowed: &[&str], why: &'static str| match self.get(name) {
            Some(value) if !allowed.contains(&value) => Err(OnboardingError::Unsupported {
                name: name.to_owned(),
                value: value.to_owned(),
                why,
            }),
            _ => Ok(()),
        };
        only(
            "CA_PROVIDER",
            &["Citadel"],
            "only Istio's certificate service is spoken here",
        )?;
        only(
            "CREDENTIAL_FETCHER_TYPE",
            &["JWT"],
            "the proof is a token in a file, or a certificate",
        )?;
        only("OUTPUT_CERTS", &[], "keys are never written to files here")?;
        only(
            "XDS_AUTH_PROVIDER",
            &[],
            "the workload's certificate is the only proof to the control plane",
        )?;
        only("ISTIO_SERVICE_CIDR", &["*"], "everything is captured here")?;
        only(
            "ISTIO_META_INTERCEPTION_MODE",
            &["REDIRECT"],
            "connections are redirected here",
        )?;
        let system = "the roots are in a file here";
        for name in ["CA_ROOT_CA", "XDS_ROOT_CA"] {
            if self.get(name) == Some("SYSTEM") {
                only(name, &[], system)?;
            }
        }
        // The configuration is believed by the same roots as the certificates are.
        if self.get("XDS_ROOT_CA") != self.get("CA_ROOT_CA") {
            only("XDS_ROOT_CA", &[], "it has to be the same as CA_ROOT_CA")?;
        }
        Ok(())
    }

    pub(super) fn without_effect(&self) -> Vec<String> {
        let names = self.0.keys().filter(|name| {
            !KNOWN.contains(&name.as_str()) && !name.starts_with(METADATA) && !name.starts_with(METADATA_JSON)
        });
        names.cloned().collect()
    }

    /// The node's metadata.
    pub(super) fn metadata(&self) -> Result<Map<String, Value>, OnboardingError> {
        let mut metadata = Map::new();
        for (name, value) in self.0.iter().filter(|(_, value)| !value.is_empty()) {
            if let Some(field) = name.strip_prefix(METADATA) {
                metadata.insert(field.to_owned(), value.clone().into());
            } else if let Some(field) = name.strip_prefix(METADATA_JSON) {
                let read = serde_json::from_str(value).map_err(|_| unreadable(name, "it is no JSON"))?;
                metadata.insert(field.to_owned(), read);
            }
        }
        Ok(metadata)
    }

    /// The ports that the workload serves, where they are named.
    pub(super) fn ports(&self) -> Result<Vec<u16>, OnboardingError> {
        let named = self.get("ISTIO_INBOUND_PORTS").filter(|ports| *ports != "*");
        let ports = named.into_iter().flat_map(|ports| ports.split(','));
        let number = |port: &str| {
            let port = port.trim().parse().ok().filter(|port| *port > 0);
            port.ok_or_else(|| unreadable("ISTIO_INBOUND_PORTS", "a port is a number from 1 to 65535"))
        };
        ports.map(number).collect()
    }

    pub(super) fn address(&self) -> Result<Option<Ipv4Addr>, OnboardingError> {
        let address = self.get("ISTIO_SVC_IP").map(str::parse);
        address
            .transpose()
            .map_err(|_| unreadable("ISTIO_SVC_IP", "it is no IPv4 address"))
    }

    /// The kind of the workload's keys. Where nothing is asked for it is ours, elliptic, and not Istio's, RSA.
    pub(super) fn key(&self) -> Result<KeyKind, OnboardingError> {
        let unknown = |name: &str, why| Err(unreadable(name, why));
        match (self.get("ECC_SIGNATURE_ALGORITHM"), self.get("ECC_CURVE")) {
            (Some("ECDSA"), None | Some("P256")) => return Ok(KeyKind::EcdsaP256),
            (Some("ECDSA"), Some("P384")) => return Ok(KeyKind::EcdsaP384),
            (Some("ECDSA"), Some(_)) => return unknown("ECC_CURVE", "P256 and P384 are known"),
            (Some(_), _) => return unknown("ECC_SIGNATURE_ALGORITHM", "ECDSA is known"),
            (None, _) => {}
        }
        match self.get("WORKLOAD_RSA_KEY_SIZE") {
            None => Ok(KeyKind::default()),
            Some("2048") => Ok(KeyKind::Rsa2048),
            Some("3072") => Ok(KeyKind::Rsa3072),
            Some("4096") => Ok(KeyKind::Rsa4096),
            Some(_) => unknown("WORKLOAD_RSA_KEY_SIZE", "2048, 3072 and 4096 are known"),
        }
    }

    pub(super) fn lifetime(&self) -> Result<Duration, OnboardingError> {
        match self.get("SECRET_TTL") {
            None => Ok(CERTIFICATE_LIFETIME),
            Some(text) => duration(text)
                .ok_or_else(|| unreadable("SECRET_TTL", "it is no duration, 24h0m0s for instance")),
        }
    }
}

fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// A word as a shell reads it: bare, in single or in double quotes, or parts of these one after the other. Nothing in
/// it is expanded.
fn unquote(word: &str) -> Option<String> {
    let mut text = String::new();
    let mut characters = word.chars();
    let mut quote = None;
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, '\'' | '"') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => text.push(characters.next()?),
            (_, character) => text.push(character),
        }
    }
    quote.is_none().then_some(text)
}

/// A duration as Go writes it, in hours, minutes and seconds.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut all = Duration::ZERO;
    while !rest.is_empty() {
        let unit = rest.find(|character: char| !character.is_ascii_digit())?;
        let number: u32 = rest[..unit].parse().ok()?;
        let (seconds, unit_bytes) = match rest.as_bytes()[unit] {
            b'h' => (3600, 1),
            b'm' => (60, 1),
            b's' => (1, 1),
            _ => return None,
        };
        all = all.checked_add(Duration::from_secs(seconds) * number)?;
        rest = &rest[unit + unit_bytes..];
    }
    (all > Duration::ZERO).then_some(all)
}
