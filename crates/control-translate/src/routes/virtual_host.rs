//! Virtual hosts as the parts that a route configuration is put together from. Most are the same for all proxies of the
//! mesh, so they are encoded once ([`ServiceHost`]), and copied into each route configuration that has them.

use std::sync::Arc;

use api_envoy::envoy::config::route::v3::{
    Decorator, Route, RouteAction, RouteConfiguration, VirtualHost, route::Action, route_action,
};
use api_envoy::{Any, Message, type_url};
use control_snapshot::{Mesh, ProxyView, ServiceView, Shared};
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::{domains, everything};
use crate::features::{consistent_hash, retry, timeout};
use crate::names;
use crate::packed::Packed;

/// `VirtualHost.name` and `RouteConfiguration.name`.
const NAME: u32 = 1;
/// `VirtualHost.domains`.
const DOMAINS: u32 = 2;
/// `RouteConfiguration.virtual_hosts`.
const VIRTUAL_HOSTS: u32 = 2;

/// The virtual host of a service on one of its ports, by all that it is made of. Its routes are those that it has
/// without any VirtualService.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ServiceHost {
    service: Shared<ServiceView>,
    port: u32,
    /// The client's namespace, where the service has names that are shorter there.
    near: Option<Arc<str>>,
    domain: Arc<str>,
    mesh: Shared<Mesh>,
    /// Whether the client's retries can prefer other localities.
    retries_elsewhere: bool,
}

/// What comes of that.
#[derive(Debug)]
pub(crate) struct MadeHost {
    /// The names under which requests ask for the service.
    pub(super) domains: Vec<String>,
    /// The routes, where no VirtualService gives others.
    pub(super) routes: Routes,
}

impl ServiceHost {
    pub(super) fn new(view: &ProxyView, service: &Shared<ServiceView>, port: u32) -> Self {
        let (namespace, domain) = (&view.profile.namespace, &view.profile.domain);
        Self {
            near: domains::shorter_in(&service.service, namespace, domain).then(|| Arc::clone(namespace)),
            service: service.clone(),
            port,
            domain: Arc::clone(domain),
            mesh: view.mesh.clone(),
            retries_elsewhere: view.profile.retries_elsewhere,
        }
    }

    pub(super) fn make(&self) -> MadeHost {
        MadeHost {
            domains: domains::of_service(&self.service.service, self.near.as_deref(), &self.domain),
            routes: Routes::new(vec![self.default_route()]),
        }
    }

    /// The route of a service that no VirtualService is for.
    fn default_route(&self) -> Route {
        let hostname = &self.service.service.hostname;
        let hash = consistent_hash::of_destination(&self.service, "", self.port);
        let mut action = RouteAction {
            cluster_specifier: Some(route_action::ClusterSpecifier::Cluster(names::outbound(
                self.port, "", hostname,
            ))),
            retry_policy: retry::of_route(None, &self.mesh, hash.is_some(), self.retries_elsewhere),
            hash_policy: hash.into_iter().collect(),
            ..RouteAction::default()
        };
        timeout::apply(&mut action, None);
        Route {
            name: "default".to_owned(),
            r#match: Some(everything()),
            decorator: Some(Decorator {
                operation: format!("{hostname}:{}/*", self.port),
                ..Decorator::default()
            }),
            action: Some(Action::Route(action)),
            ..Route::default()
        }
    }
}

/// What a virtual host has beside its name and domains, encoded.
#[derive(Clone, Debug)]
pub(super) struct Routes(Arc<[u8]>);

impl Routes {
    pub(super) fn new(routes: Vec<Route>) -> Self {
        let host = VirtualHost {
            routes,
            include_request_attempt_count: true,
            ..VirtualHost::default()
        };
        Self(host.encode_to_vec().into())
    }
}

/// A virtual host of a route configuration.
#[derive(Clone, Debug)]
pub(super) struct Host<'a> {
    pub(super) name: String,
    pub(super) domains: Vec<&'a str>,
    pub(super) routes: Routes,
}

impl Host<'_> {
    fn len(&self) -> usize {
        let domains = self.domains.iter().map(|domain| field_len(DOMAINS, domain.len()));
        field_len(NAME, self.name.len()) + domains.sum::<usize>() + self.routes.0.len()
    }

    fn encode(&self, buffer: &mut Vec<u8>) {
        encode_key(VIRTUAL_HOSTS, WireType::LengthDelimited, buffer);
        encode_varint(self.len() as u64, buffer);
        put_field(NAME, self.name.as_bytes(), buffer);
        for domain in &self.domains {
            put_field(DOMAINS, domain.as_bytes(), buffer);
        }
        buffer.extend_from_slice(&self.routes.0);
    }
}

/// Puts a route configuration together: the frame, which has no virtual hosts yet, with these and then a last one.
pub(super) fn configuration(
    frame: RouteConfiguration,
    hosts: &[Host<'_>],
    last: Option<&VirtualHost>,
) -> Packed {
    let name: Arc<str> = frame.name.as_str().into();
    // Fields are in the order of their numbers, as everybody writes them: the name, the virtual hosts, the rest.
    let rest = RouteConfiguration {
        name: String::new(),
        ..frame
    };
    let last = last.map(VirtualHost::encode_to_vec);
    let listed = hosts.iter().map(|host| field_len(VIRTUAL_HOSTS, host.len()));
    let length = field_len(NAME, name.len())
        + listed.sum::<usize>()
        + last
            .as_ref()
            .map_or(0, |last| field_len(VIRTUAL_HOSTS, last.len()))
        + rest.encoded_len();
    let mut value = Vec::with_capacity(length);
    put_field(NAME, name.as_bytes(), &mut value);
    hosts.iter().for_each(|host| host.encode(&mut value));
    if let Some(last) = last {
        put_field(VIRTUAL_HOSTS, &last, &mut value);
    }
    rest.encode_raw(&mut value);
    debug_assert_eq!(value.len(), length, "the lengths are those of what is written");
    Packed {
        name,
        body: Arc::new(Any {
            type_url: type_url::ROUTE.to_owned(),
            value,
        }),
    }
}

/// The length of a field of bytes with its key.
fn field_len(tag: u32, bytes: usize) -> usize {
    key_len(tag) + encoded_len_varint(bytes as u64) + bytes
}

fn put_field(tag: u32, bytes: &[u8], buffer: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, buffer);
    encode_varint(bytes.len() as u64, buffer);
    buffer.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_is_what_the_whole_message_encodes_to() {
        let route = || Route {
            name: "r".repeat(300),
            ..Route::default()
        };
        let host = |name: &str, domains: &[&str], routes| VirtualHost {
            name: name.to_owned(),
            domains: domains.iter().map(|d| (*d).to_owned()).collect(),
            routes,
            include_request_attempt_count: true,
            ..VirtualHost::default()
        };
        let catch_all = host("any", &["*"], Vec::new());
        let frame = super::super::configuration("80", Vec::new());
        let whole = RouteConfiguration {
            virtual_hosts: vec![
                host("a:80", &["a", "a."], vec![route()]),
                host("b:80", &["b"], vec![]),
                catch_all.clone(),
            ],
            ..frame.clone()
        };
        let parts = [
            Host {
                name: "a:80".to_owned(),
                domains: vec!["a", "a."],
                routes: Routes::new(vec![route()]),
            },
            Host {
                name: "b:80".to_owned(),
                domains: vec!["b"],
                routes: Routes::new(Vec::new()),
            },
        ];
        let packed = configuration(frame, &parts, Some(&catch_all));
        assert_eq!(packed, Packed::new("80", &whole));
    }
}
