//! Names of credentials: as Gateways write them, and as SDS resources (istiod's `pilot/pkg/model/credentials`).
//!
//! | resource | means |
//! |---|---|
//! | `kubernetes://name` | the Secret of this name beside the proxy |
//! | `kubernetes://namespace/name` | the same, with the namespace said |
//! | `kubernetes-gateway://namespace/name` | a Secret anywhere, which a ReferenceGrant may allow |
//! | any of these with `-cacert` behind | the authorities in the Secret of that name, or of the name without the suffix |

/// The prefix of Secrets beside the proxy.
const BESIDE: &str = "kubernetes://";
/// The prefix of Secrets of any namespace.
const ANYWHERE: &str = "kubernetes-gateway://";
/// The suffix of names that mean the authorities.
const AUTHORITIES: &str = "-cacert";

/// An SDS resource, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialName<'n> {
    /// The Secret's namespace; empty for the proxy's own.
    pub namespace: &'n str,
    /// The Secret's name, without the suffix that asks for the authorities.
    pub name: &'n str,
    /// Whether the authorities are meant, and not the certificate.
    pub authorities: bool,
    /// Whether a grant may allow it where the namespace is not the proxy's.
    pub grantable: bool,
}

impl<'n> CredentialName<'n> {
    /// Reads the name of a resource; `None` for one that is no Secret's.
    #[must_use]
    pub fn parse(resource: &'n str) -> Option<Self> {
        let (path, grantable) = match resource.strip_prefix(BESIDE) {
            Some(path) => (path, false),
            None => (resource.strip_prefix(ANYWHERE)?, true),
        };
        let (namespace, whole) = match path.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() => (namespace, name),
            None if !grantable => ("", path),
            _ => return None,
        };
        let stem = whole.strip_suffix(AUTHORITIES).filter(|stem| !stem.is_empty());
        if whole.is_empty() || whole.contains('/') {
            return None;
        }
        Some(Self {
            namespace,
            name: stem.unwrap_or(whole),
            authorities: stem.is_some(),
            grantable,
        })
    }

    /// The name of the Secret that holds authorities and nothing else.
    #[must_use]
    pub fn of_authorities_alone(&self) -> String {
        format!("{}{AUTHORITIES}", self.name)
    }
}

/// The resource that a Gateway or DestinationRule means by a name.
///
/// # Errors
/// Why there is none.
pub(crate) fn resource_name(credential: &str) -> Result<String, String> {
    let resource = if credential.contains("://") {
        credential.to_owned()
    } else {
        format!("{BESIDE}{credential}")
    };
    if CredentialName::parse(&resource).is_some() {
        return Ok(resource);
    }
    Err(match resource.split_once("://") {
        Some(("configmap" | "sds" | "builtin", _)) => {
            format!("{credential}: of references, those to Secrets are available in this version")
        }
        _ => format!("{credential:?} is no name of a Secret"),
    })
}

/// The resource for the authorities of a credential.
pub(crate) fn of_authorities(resource: &str) -> String {
    if resource.ends_with(AUTHORITIES) {
        resource.to_owned()
    } else {
        format!("{resource}{AUTHORITIES}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_name_a_secret_and_what_of_it() {
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
        for nothing in [
            "kubernetes://",
            "kubernetes://a/",
            "kubernetes:///a",
            "kubernetes://a/b/c",
            "kubernetes-gateway://a",
            "file:/a",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }

    #[test]
    fn a_plain_name_is_a_secret_beside_the_proxy() {
        assert_eq!(resource_name("shop").as_deref(), Ok("kubernetes://shop"));
        assert_eq!(
            resource_name("kubernetes-gateway://ns/shop").as_deref(),
            Ok("kubernetes-gateway://ns/shop")
        );
        assert!(resource_name("configmap://ns/roots").is_err_and(|reason| reason.contains("Secrets")));
        assert!(resource_name("a/b/c").is_err());
        assert_eq!(of_authorities("kubernetes://shop"), "kubernetes://shop-cacert");
        assert_eq!(
            of_authorities("kubernetes://shop-cacert"),
            "kubernetes://shop-cacert"
        );
    }
}
