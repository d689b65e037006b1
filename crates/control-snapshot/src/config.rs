//! One Istio object: its metadata and its parsed spec.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use diagnostics::ResourceRef;
use serde::Serialize;

use crate::kubernetes::{Labels, ObjectMeta};

/// The metadata of an Istio object that has any effect on configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigMeta {
    /// When the object was created, RFC 3339; first, because older objects win.
    pub created: String,
    /// The name; second, because ties are broken by name, then by namespace.
    pub name: String,
    /// The namespace.
    pub namespace: String,
    /// The kind, for example `VirtualService`.
    pub kind: &'static str,
    /// Labels.
    pub labels: Labels,
    /// Annotations.
    pub annotations: Labels,
}

/// An Istio object. Two of them are equal when their metadata and the canonical JSON of their specs are.
#[derive(Clone, Debug)]
pub struct Config<T> {
    /// Metadata.
    pub meta: ConfigMeta,
    /// The parsed spec.
    pub spec: T,
    /// The spec in canonical JSON: what equality and hash look at, since specs hold floating-point numbers.
    canonical: Arc<str>,
}

impl<T: Serialize> Config<T> {
    /// An object out of its parts.
    pub fn new(meta: ConfigMeta, spec: T) -> Self {
        let canonical = serde_json::to_string(&spec).unwrap_or_default();
        Self {
            meta,
            spec,
            canonical: canonical.into(),
        }
    }
}

impl<T> Config<T> {
    /// The spec in canonical JSON.
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// What a diagnostic about this object refers to.
    pub fn resource(&self) -> ResourceRef {
        ResourceRef::new(
            self.meta.kind,
            self.meta.namespace.as_str(),
            self.meta.name.as_str(),
        )
    }

    /// The path Istio puts into the metadata of what it generates, for example
    /// `/apis/networking.istio.io/v1/namespaces/default/virtual-service/reviews`.
    pub fn path(&self) -> String {
        let ConfigMeta {
            kind,
            namespace,
            name,
            ..
        } = &self.meta;
        format!(
            "/apis/networking.istio.io/v1/namespaces/{namespace}/{}/{name}",
            kebab_case(kind)
        )
    }
}

impl<T> PartialEq for Config<T> {
    fn eq(&self, other: &Self) -> bool {
        self.meta == other.meta && self.canonical == other.canonical
    }
}

impl<T> Eq for Config<T> {}

impl<T> Hash for Config<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.meta.hash(state);
        self.canonical.hash(state);
    }
}

impl ConfigMeta {
    /// The metadata of an object of this kind.
    #[must_use]
    pub fn new(kind: &'static str, meta: ObjectMeta) -> Self {
        Self {
            created: meta.creation_timestamp,
            name: meta.name,
            namespace: meta.namespace,
            kind,
            labels: meta.labels,
            annotations: meta.annotations,
        }
    }
}

/// `VirtualService` as `virtual-service`.
fn kebab_case(kind: &str) -> String {
    let mut out = String::with_capacity(kind.len() + 2);
    for (index, c) in kind.char_indices() {
        if c.is_ascii_uppercase() && index > 0 {
            out.push('-');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_names_kind_namespace_and_name_as_istio_does() {
        let meta = ConfigMeta {
            kind: "DestinationRule",
            namespace: "default".into(),
            name: "reviews".into(),
            ..ConfigMeta::default()
        };
        assert_eq!(
            Config::new(meta, ()).path(),
            "/apis/networking.istio.io/v1/namespaces/default/destination-rule/reviews"
        );
    }
}
