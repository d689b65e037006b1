//! What becomes of Secrets when the right to them changes.

use std::time::{Duration, SystemTime};

use api_envoy::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};
use api_envoy::wkt;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use control_ca::{Authority, SelfSigned};
use control_snapshot::Settings;
use identity::{KeyKind, PrivateKey, SubjectName, TrustDomain};
use serde_json::json;

use super::*;
use crate::world::World;

const NAME: &str = "kubernetes://door";

/// A gateway's stream that has asked for one Secret and may have it.
struct Gateway {
    world: Arc<World>,
    authority: Authority,
    session: Session,
    cache: Cache,
}

impl Gateway {
    fn new() -> Self {
        let domain = TrustDomain::new("cluster.local").unwrap();
        let world = World::new(Settings::default(), "test");
        let authority = Authority::self_signed(&SelfSigned::for_trust_domain(&domain), SystemTime::now());
        let node = Node {
            id: "router~127.66.0.9~door.shop~shop.svc.cluster.local".to_owned(),
            metadata: Some(wkt::structure(&json!({"NAMESPACE": "shop"}))),
            ..Node::default()
        };
        let proxy = Proxy::from_node(&node).unwrap();
        world.ready();
        world.publish();
        let session = Session::open("1", "test", proxy, world.current().unwrap());
        let mut gateway = Self {
            world,
            authority: authority.unwrap(),
            session,
            cache: Cache::default(),
        };
        assert_eq!(gateway.change_secret(), None, "nothing is asked for");
        gateway.session.set_secret_access(allowed());
        let request = DeltaDiscoveryRequest {
            node: Some(node),
            type_url: type_url::SECRET.to_owned(),
            resource_names_subscribe: vec![NAME.to_owned()],
            ..DeltaDiscoveryRequest::default()
        };
        let reply = gateway
            .session
            .receive::<Delta>(&request, &gateway.cache)
            .unwrap();
        assert_eq!(reply.responses.len(), 1);
        assert_eq!(gateway.session.owed_secrets::<Delta>(), None, "it was answered");
        gateway
    }

    /// Stores the Secret anew and pushes; what is sent.
    fn change_secret(&mut self) -> Option<DeltaDiscoveryResponse> {
        let key = PrivateKey::generate(KeyKind::EcdsaP256).unwrap();
        let names = [SubjectName::Dns("shop.example".to_owned())];
        let hour = Duration::from_secs(3600);
        let issued = self
            .authority
            .certify(key.public_key(), &names, hour, SystemTime::now());
        let chain = issued.unwrap().leaf().unwrap().pem();
        let key = key.to_pem().unwrap();
        let data = json!({"tls.crt": STANDARD.encode(chain), "tls.key": STANDARD.encode(key.as_bytes())});
        let object = json!({"metadata": {"name": "door", "namespace": "shop"}, "data": data});
        assert_eq!(self.world.apply(Kind::Secret, object), None);
        self.world.publish();
        let publication = self.world.current().unwrap();
        self.session.push::<Delta>(publication, &self.cache).pop()
    }
}

fn allowed() -> SecretAccess {
    SecretAccess::Namespace("shop".into())
}

fn denied() -> SecretAccess {
    SecretAccess::Authorities {
        namespace: "shop".into(),
        reason: "its role was taken back".into(),
    }
}

#[test]
fn a_right_that_was_taken_back_takes_the_secret_back() {
    let mut gateway = Gateway::new();
    assert_eq!(gateway.change_secret().unwrap().resources.len(), 1);
    gateway.session.set_secret_access(denied());
    let sent = gateway.session.owed_secrets::<Delta>().unwrap();
    assert_eq!(
        (sent.resources.len(), sent.removed_resources),
        (0, vec![NAME.to_owned()])
    );
    assert_eq!(gateway.session.owed_secrets::<Delta>(), None, "once");
    assert_eq!(gateway.change_secret(), None, "and no later one comes");
}

#[test]
fn as_long_as_nobody_knows_nothing_is_sent_and_nothing_taken_back() {
    let mut gateway = Gateway::new();
    gateway.session.set_secret_access(SecretAccess::Unknown);
    assert_eq!(gateway.change_secret(), None);
    assert_eq!(gateway.session.owed_secrets::<Delta>(), None);
    gateway.session.set_secret_access(allowed());
    let sent = gateway.session.owed_secrets::<Delta>().unwrap();
    assert_eq!(sent.resources.len(), 1, "what has changed meanwhile");
    assert_eq!(gateway.session.owed_secrets::<Delta>(), None, "once");
}
