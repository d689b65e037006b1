//! Material that comes and changes while connections are open.

use std::sync::Arc;

use tls::settings::{CertificateValidationContext, DownstreamTlsContext, Secret, TlsCertificate};
use tls::{Awaited, ClientContext, ConnectOptions, ContextError, Current, Rotation, ServerContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::{
    Authority, DAY, Leaf, Says, client, client_context, meet, mutual_server, now, server, trusting,
};

const BOTH: Awaited = Awaited {
    certificates: true,
    validation: true,
};

fn rotating(leaf: &Leaf) -> Rotation<DownstreamTlsContext> {
    Rotation::new(server(&[leaf]), Awaited::default(), now()).unwrap()
}

async fn presented(context: &ServerContext) -> String {
    let (_, connected) = meet(context, &client_context(&client(None)), ConnectOptions::default()).await;
    connected.unwrap().peer.unwrap().leaf().subject.clone()
}

#[tokio::test]
async fn new_handshakes_take_the_new_certificate_and_open_connections_go_on() {
    let authority = Authority::root("root");
    let [old, new] = ["old", "new"].map(|name| {
        authority.leaf(&Says {
            name,
            ..Says::default()
        })
    });
    let mut rotation = rotating(&old);
    let worker = Current::new(rotation.current().cloned());
    let listener = worker.clone();

    let (near, far) = tokio::io::duplex(64 * 1024);
    let (before, client) = (listener.get().unwrap(), client_context(&client(None)));
    let (served, connected) = tokio::join!(
        before.accept(far),
        client.connect(near, ConnectOptions::default())
    );
    let ((mut server_end, _), (mut client_end, _)) = (served.unwrap(), connected.unwrap());
    drop(before);

    let context = rotation.set_certificates(vec![new.material()], now()).unwrap();
    worker.replace(context.unwrap());
    assert_eq!(presented(&listener.get().unwrap()).await, "CN=new");

    client_end.write_all(b"still here").await.unwrap();
    client_end.flush().await.unwrap();
    let mut heard = [0; 10];
    server_end.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"still here");
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_and_roots_rotate() {
    const ROUNDS: usize = 40;
    let root = Authority::root("root");
    let leaf = root.leaf(&Says::default());
    let settings = mutual_server(&leaf, trusting(&[&root]));
    let mut rotation = Rotation::new(settings, Awaited::default(), now()).unwrap();
    let worker = Current::new(rotation.current().cloned());
    let mut authority = root;
    for round in 0..ROUNDS {
        let next = Authority::root("root");
        let both = trusting(&[&authority, &next]);
        let (mine, theirs) = (next.leaf(&Says::default()), next.leaf(&Says::default()));
        let old_client = client_context(&client(Some(&authority.leaf(&Says::default()))));
        let new_client = client_context(&client(Some(&theirs)));
        let nothing = ConnectOptions::default();
        let before = worker.get().unwrap();
        let rotate = async {
            worker.replace(rotation.set_validation(&both, now()).unwrap().unwrap());
            worker.replace(
                rotation
                    .set_certificates(vec![mine.material()], now())
                    .unwrap()
                    .unwrap(),
            );
        };
        let (outcome, ()) = tokio::join!(meet(&before, &old_client, nothing), rotate);
        assert!(
            outcome.0.is_ok() && outcome.1.is_ok(),
            "round {round}: {outcome:?}"
        );
        for client in [&old_client, &new_client] {
            let outcome = meet(&worker.get().unwrap(), client, nothing).await;
            assert!(
                outcome.0.is_ok() && outcome.1.is_ok(),
                "round {round}: {outcome:?}"
            );
        }
        authority = next;
    }
}

/// Material that is broken in one way each, with the beginning of what is said about it.
fn broken_material(authority: &Authority) -> Vec<(TlsCertificate, &'static str)> {
    let good = authority.leaf(&Says {
        name: "new",
        ..Says::default()
    });
    let other = authority.leaf(&Says::default());
    let (past, future) = (now() - 9 * DAY, now() + 9 * DAY);
    let expired = authority.leaf(&Says {
        from: past,
        to: past + DAY,
        ..Says::default()
    });
    let coming = authority.leaf(&Says {
        from: future,
        to: future + DAY,
        ..Says::default()
    });
    let with = |chain: &str, key: &str| TlsCertificate {
        certificate_chain: chain.as_bytes().to_vec(),
        private_key: Secret::new(key),
    };
    let half = good.chain.len() / 2;
    let last_line = good.chain.len() - 12;
    let key = "private_key is no readable private key";
    vec![
        (with("", &good.key), "certificate_chain is empty"),
        (with("no PEM at all", &good.key), "certificate_chain is empty"),
        (
            with(&good.chain[..half], &good.key),
            "certificate_chain is not whole PEM",
        ),
        (
            with(&good.chain[..last_line], &good.key),
            "certificate_chain is not whole PEM",
        ),
        (
            with(&format!("{}-----BEGIN CERT", good.chain), &good.key),
            "certificate_chain is not whole PEM",
        ),
        (
            with(&good.chain.replacen("MII", "MMM", 1), &good.key),
            "certificate_chain, number 1: ",
        ),
        (with(&good.key, &good.key), "certificate_chain is empty"),
        (with(&good.chain, ""), key),
        (with(&good.chain, &good.chain), key),
        (with(&good.chain, &good.key[..good.key.len() / 2]), key),
        (with(&good.chain, &other.key), "private_key does not belong"),
        (expired.material(), "certificate_chain expired 20"),
        (coming.material(), "certificate_chain is not valid before 20"),
    ]
}

#[tokio::test]
async fn broken_certificates_are_refused_whole_and_the_old_ones_stay() {
    let authority = Authority::root("root");
    let old = authority.leaf(&Says {
        name: "old",
        ..Says::default()
    });
    let new = authority.leaf(&Says {
        name: "new",
        ..Says::default()
    });
    let mut rotation = rotating(&old);
    for (material, words) in broken_material(&authority) {
        let before = Arc::clone(rotation.current().unwrap());
        // A good certificate beside it does not save it.
        let error = rotation
            .set_certificates(vec![new.material(), material], now())
            .unwrap_err();
        assert!(error.to_string().starts_with(words), "{error} / {words}");
        assert!(Arc::ptr_eq(&before, rotation.current().unwrap()));
    }
    assert_eq!(presented(rotation.current().unwrap()).await, "CN=old");
    assert!(rotation.set_certificates(Vec::new(), now()).is_err());
}

#[tokio::test]
async fn broken_bundles_are_refused_whole_and_the_old_one_stays() {
    let (root, other) = (Authority::root("root"), Authority::root("other"));
    let leaf = root.leaf(&Says::default());
    let settings = mutual_server(&leaf, trusting(&[&root]));
    let mut rotation = Rotation::new(settings, Awaited::default(), now()).unwrap();
    let expired = Authority::root_valid("expired", now() - 9 * DAY, now() - DAY);
    let with = |pem: &str| CertificateValidationContext {
        trusted_ca: Some(pem.as_bytes().to_vec()),
        ..CertificateValidationContext::default()
    };
    let two = format!("{}{}", other.pem(), root.pem());
    for (bundle, words) in [
        (with(""), "trusted_ca is empty"),
        (with(&leaf.key), "trusted_ca is empty"),
        (with(&two[..two.len() - 40]), "trusted_ca is not whole PEM"),
        (with(&two.replacen("MII", "MMM", 1)), "trusted_ca, number 1: "),
        (with(&expired.pem()), "trusted_ca expired 20"),
        (CertificateValidationContext::default(), "trusted_ca is empty"),
    ] {
        let before = Arc::clone(rotation.current().unwrap());
        let error = rotation.set_validation(&bundle, now()).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error} / {words}");
        assert!(Arc::ptr_eq(&before, rotation.current().unwrap()));
    }
    let member = client_context(&client(Some(&root.leaf(&Says::default()))));
    let meets =
        async |context: &ServerContext| meet(context, &member, ConnectOptions::default()).await.0.is_ok();
    assert!(meets(rotation.current().unwrap()).await);
    rotation.set_validation(&trusting(&[&other]), now()).unwrap();
    assert!(!meets(rotation.current().unwrap()).await);
    rotation.set_validation(&with(&two), now()).unwrap();
    assert!(meets(rotation.current().unwrap()).await);
}

#[tokio::test]
async fn there_is_no_context_before_every_awaited_secret_has_come() {
    let root = Authority::root("root");
    let leaf = root.leaf(&Says::default());
    let mut settings = mutual_server(&leaf, CertificateValidationContext::default());
    settings.common.tls_certificates.clear();
    let mut rotation = Rotation::new(settings, BOTH, now()).unwrap();
    let worker: Current<ServerContext> = Current::default();
    assert!(rotation.current().is_none() && worker.get().is_none());

    let empty = CertificateValidationContext {
        trusted_ca: Some(Vec::new()),
        ..Default::default()
    };
    assert_eq!(
        rotation.set_validation(&empty, now()).unwrap_err(),
        ContextError::Empty { what: "trusted_ca" }
    );
    assert_eq!(rotation.awaited(), BOTH);
    assert!(
        rotation
            .set_validation(&trusting(&[&root]), now())
            .unwrap()
            .is_none()
    );
    assert!(rotation.current().is_none());
    let context = rotation
        .set_certificates(vec![leaf.material()], now())
        .unwrap()
        .unwrap();
    assert_eq!(rotation.awaited(), Awaited::default());
    worker.replace(context);
    assert_eq!(worker.get().unwrap().certificates().count(), 1);
}

#[tokio::test]
async fn a_secret_is_merged_into_the_defaults_each_time_anew() {
    use tls::settings::{SanType, StringPattern};
    let root = Authority::root("root");
    let leaf = root.leaf(&Says::uri(&["spiffe://a/b"]));
    let defaults = CertificateValidationContext {
        match_typed_subject_alt_names: vec![crate::support::expecting(
            SanType::Uri,
            StringPattern::Prefix("spiffe://a/".to_owned()),
        )],
        ..CertificateValidationContext::default()
    };
    let awaited = Awaited {
        validation: true,
        ..Awaited::default()
    };
    let mut rotation = Rotation::new(mutual_server(&leaf, defaults), awaited, now()).unwrap();
    let secret_with_pin = CertificateValidationContext {
        verify_certificate_hash: vec!["00".repeat(32)],
        ..trusting(&[&root])
    };
    let member = client_context(&client(Some(&leaf)));
    let stranger = client_context(&client(Some(&root.leaf(&Says::uri(&["spiffe://b/b"])))));
    let nothing = ConnectOptions::default();
    let context = rotation.set_validation(&secret_with_pin, now()).unwrap().unwrap();
    let failure = meet(&context, &member, nothing).await.0.unwrap_err();
    assert_eq!(failure.verification().unwrap().check(), "pins");
    let context = rotation
        .set_validation(&trusting(&[&root]), now())
        .unwrap()
        .unwrap();
    assert!(meet(&context, &member, nothing).await.0.is_ok());
    let failure = meet(&context, &stranger, nothing).await.0.unwrap_err();
    assert_eq!(failure.verification().unwrap().check(), "subject-alt-names");
}

#[tokio::test]
async fn a_clients_certificate_rotates_as_well() {
    let root = Authority::root("root");
    let [old, new] = ["old", "new"].map(|name| {
        root.leaf(&Says {
            name,
            ..Says::default()
        })
    });
    let server = ServerContext::new(&mutual_server(&old, trusting(&[&root])), now()).unwrap();
    let mut rotation = Rotation::new(client(Some(&old)), Awaited::default(), now()).unwrap();
    for (leaf, name) in [(&old, "CN=old"), (&new, "CN=new")] {
        rotation.set_certificates(vec![leaf.material()], now()).unwrap();
        let (served, _) = meet(&server, rotation.current().unwrap(), ConnectOptions::default()).await;
        assert_eq!(served.unwrap().peer.unwrap().leaf().subject, name);
    }
}

#[test]
fn contexts_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ServerContext>();
    shared::<ClientContext>();
}
