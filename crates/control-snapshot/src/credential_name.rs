//! Names of credentials: as Gateways and DestinationRules write them, and as SDS resources (istiod's
//! `pilot/pkg/model/credentials`).
//!
//! | resource | means |
//! |---|---|
//! | `kubernetes://name` | the Secret of this name beside the proxy |
//! | `kubernetes://namespace/name` | the same, with the namespace said |
//! | `kubernetes-gateway://namespace/name` | a Secret anywhere, which a ReferenceGrant may allow |
//! | any of these with `-cacert` behind | the authorities in the Secret of that name, or of the name without the suffix |
//! | `configmap://namespace/name`, with `-cacert` or not | the authorities in a ConfigMap, found in the same way |

use crate::kind::Kind;

/// The prefix of Secrets beside the proxy.
const BESIDE: &str = "kubernetes://";
/// The prefix of Secrets of any namespace.
const ANYWHERE: &str = "kubernetes-gateway://";
/// The prefix of ConfigMaps.
const CONFIG_MAP: &str = "configmap://";
/// The suffix of names that mean the authorities.
const AUTHORITIES: &str = "-cacert";

/// What holds a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A Secret: a certificate with its key, authorities, or both.
    Secret,
    /// A ConfigMap: authorities.
    ConfigMap,
}

impl Holder {
    /// The kind of the object.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Self::Secret => Kind::Secret,
            Self::ConfigMap => Kind::ConfigMap,
        }
    }
}

/// An SDS resource, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialName<'n> {
    /// What holds it.
    pub holder: Holder,
    /// The holder's namespace; empty for the proxy's own.
    pub namespace: &'n str,
    /// The holder's name, without the suffix that asks for the authorities.
    pub name: &'n str,
    /// Whether the authorities are meant, and not the certificate.
    pub authorities: bool,
    /// Whether a grant may allow it where the namespace is not the proxy's.
    pub grantable: bool,
    /// The name as it is written.
    written: &'n str,
}

impl<'n> CredentialName<'n> {
    /// Reads the name of a resource; `None` for one that is nobody's.
    #[must_use]
    pub fn parse(resource: &'n str) -> Option<Self> {
        let prefixes = [
            (BESIDE, Holder::Secret, false),
            (ANYWHERE, Holder::Secret, true),
            (CONFIG_MAP, Holder::ConfigMap, false),
        ];
        let (path, holder, grantable) = prefixes.into_iter().find_map(|(prefix, holder, grantable)| {
            Some((resource.strip_prefix(prefix)?, holder, grantable))
        })?;
        let beside = holder == Holder::Secret && !grantable;
        let (namespace, written) = match path.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => (namespace, name),
            None if beside => ("", path),
            _ => return None,
        };
        if written.is_empty() || written.contains('/') {
            return None;
        }
        let stem = written.strip_suffix(AUTHORITIES).filter(|stem| !stem.is_empty());
        Some(Self {
            holder,
            namespace,
            name: stem.unwrap_or(written),
            authorities: stem.is_some() || holder == Holder::ConfigMap,
            grantable,
            written,
        })
    }

    /// The names under which the holder may be; the first that is there counts. Authorities may have an object of their
    /// own, whose name has the suffix.
    pub fn places(&self) -> impl Iterator<Item = &'n str> + use<'n> {
        let stem = (self.name != self.written).then_some(self.name);
        std::iter::once(self.written).chain(stem)
    }

    /// The resource that a Gateway or DestinationRule means by a name.
    ///
    /// # Errors
    /// Why there is none.
    pub fn resource(credential: &str) -> Result<String, String> {
        let resource = if credential.contains("://") {
            credential.to_owned()
        } else {
            format!("{BESIDE}{credential}")
        };
        if CredentialName::parse(&resource).is_some() {
            return Ok(resource);
        }
        Err(match resource.split_once("://") {
            Some(("configmap", _)) => format!("{credential:?} is not of the form configmap://namespace/name"),
            Some((scheme @ ("sds" | "builtin"), _)) => {
                format!(
                    "{credential}: {scheme}:// is not available in this version; Secrets and ConfigMaps are"
                )
            }
            _ => format!("{credential:?} is no name of a Secret"),
        })
    }

    /// The resource for a certificate with its key.
    ///
    /// # Errors
    /// Why there is none.
    pub fn key_pair_resource(credential: &str) -> Result<String, String> {
        let resource = Self::resource(credential)?;
        if resource.starts_with(CONFIG_MAP) {
            return Err(format!(
                "{credential}: a ConfigMap holds authorities, and no certificate with its key"
            ));
        }
        Ok(resource)
    }

    /// The resource for the authorities of a credential, however it is written.
    ///
    /// # Errors
    /// Why there is none.
    pub fn authorities_resource(credential: &str) -> Result<String, String> {
        let resource = Self::resource(credential)?;
        if resource.ends_with(AUTHORITIES) || resource.starts_with(CONFIG_MAP) {
            return Ok(resource);
        }
        Ok(format!("{resource}{AUTHORITIES}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_name_a_holder_and_what_of_it() {
        let read = |resource| {
            CredentialName::parse(resource).map(|n| (n.namespace, n.name, n.authorities, n.grantable))
        };
        assert_eq!(read("kubernetes://shop"), Some(("", "shop", false, false)));
        assert_eq!(
            read("kubernetes://ns/shop-cacert"),
            Some(("ns", "shop", true, false))
        );
        assert_eq!(
            read("kubernetes-gateway://ns/shop"),
            Some(("ns", "shop", false, true))
        );
        assert_eq!(read("kubernetes://-cacert"), Some(("", "-cacert", false, false)));
        assert_eq!(read("configmap://ns/roots"), Some(("ns", "roots", true, false)));
        assert_eq!(
            read("configmap://ns/roots-cacert"),
            Some(("ns", "roots", true, false))
        );
        for nothing in [
            "kubernetes://",
            "kubernetes://a/",
            "kubernetes:///a",
            "kubernetes://a/b/c",
            "kubernetes-gateway://a",
            "configmap://a",
            "configmap:///a",
            "configmap://a/b/c",
            "file:/a",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn authorities_may_have_an_object_of_their_own() {
        let places = |resource| {
            let name = CredentialName::parse(resource).expect("a name");
            name.places().collect::<Vec<_>>()
        };
        assert_eq!(places("kubernetes://shop"), ["shop"]);
        assert_eq!(places("kubernetes://shop-cacert"), ["shop-cacert", "shop"]);
        assert_eq!(places("configmap://ns/roots"), ["roots"]);
        assert_eq!(places("configmap://ns/roots-cacert"), ["roots-cacert", "roots"]);
    }

    #[test]
    fn a_plain_name_is_a_secret_beside_the_proxy() {
        let resource = CredentialName::resource;
        assert_eq!(resource("shop").as_deref(), Ok("kubernetes://shop"));
        assert_eq!(
            resource("kubernetes-gateway://ns/shop").as_deref(),
            Ok("kubernetes-gateway://ns/shop")
        );
        assert!(resource("configmap://roots").is_err_and(|reason| reason.contains("namespace/name")));
        assert!(resource("sds://vault").is_err_and(|reason| reason.contains("not available")));
        assert!(resource("a/b/c").is_err());
        let authorities = CredentialName::authorities_resource;
        assert_eq!(authorities("shop").as_deref(), Ok("kubernetes://shop-cacert"));
        assert_eq!(
            authorities("shop-cacert").as_deref(),
            Ok("kubernetes://shop-cacert")
        );
        assert_eq!(
            authorities("configmap://ns/roots").as_deref(),
            Ok("configmap://ns/roots")
        );
        let pair = CredentialName::key_pair_resource;
        assert_eq!(pair("shop").as_deref(), Ok("kubernetes://shop"));
        assert!(pair("configmap://ns/roots").is_err_and(|reason| reason.contains("no certificate")));
    }
}
