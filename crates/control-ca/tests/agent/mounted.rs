//! Certificates that somebody else keeps in files.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use agent::certificates::State;
use agent::certificates::mounted::{MountedFiles, follow};
use agent::limits::FILE_POLL_INTERVAL;
use agent::metrics::Metrics;
use control_ca::{Authority, SelfSigned};
use identity::{KeyKind, PrivateKey, SubjectName, TrustDomain};
use tokio::sync::watch;

use crate::support::{REVIEWS, reviews};

const HOUR: Duration = Duration::from_secs(3600);

fn authority() -> Authority {
    let domain = TrustDomain::new("cluster.local").expect("a trust domain");
    Authority::self_signed(&SelfSigned::for_trust_domain(&domain), SystemTime::now()).expect("an authority")
}

/// Writes a certificate for `id` and its key; its serial number.
fn write(folder: &Path, authority: &Authority, id: &str, now: SystemTime) -> String {
    let key = PrivateKey::generate(KeyKind::default()).expect("a key");
    let names = [SubjectName::Uri(id.to_owned())];
    let issued = authority
        .certify(key.public_key(), &names, HOUR, now)
        .expect("a certificate");
    let leaf = issued.leaf().expect("a leaf");
    let files = MountedFiles::of_folder(folder);
    std::fs::write(files.chain, leaf.pem()).expect("written");
    std::fs::write(files.key, key.to_pem().expect("PEM").as_bytes()).expect("written");
    std::fs::write(files.roots, authority.roots_pem()).expect("written");
    leaf.serial().to_owned()
}

fn held(state: &State) -> Option<String> {
    state
        .held
        .as_ref()
        .map(|held| held.svid.leaf().serial().to_owned())
}

#[tokio::test(start_paused = true)]
async fn files_are_followed_and_what_does_not_hold_together_leaves_the_old_ones() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    let (sender, state) = watch::channel(State::default());
    let metrics = Arc::<Metrics>::default();
    let (clock, counted) = (Arc::new(SystemTime::now), Arc::clone(&metrics));
    let following = tokio::spawn(follow(
        MountedFiles::of_folder(path),
        reviews(),
        clock,
        counted,
        sender,
    ));
    let after_a_look = async || {
        tokio::time::sleep(2 * FILE_POLL_INTERVAL).await;
        state.borrow().clone()
    };
    assert!(
        after_a_look()
            .await
            .failure
            .expect("a reason")
            .contains("root-cert.pem")
    );
    let (authority, other) = (authority(), authority());
    let first = write(path, &authority, REVIEWS, SystemTime::now());
    let stands = after_a_look().await;
    assert_eq!((held(&stands), stands.failure), (Some(first), None));

    let second = write(path, &authority, REVIEWS, SystemTime::now());
    assert_eq!(held(&after_a_look().await).as_ref(), Some(&second));
    let refused = async |reason: &str| {
        let stands = after_a_look().await;
        let told = stands.failure.clone().expect("a reason");
        assert!(told.contains(reason), "{told}");
        assert_eq!(held(&stands).as_ref(), Some(&second), "the old one stays");
    };
    write(
        path,
        &authority,
        "spiffe://cluster.local/ns/default/sa/ratings",
        SystemTime::now(),
    );
    refused("not for the service account").await;
    write(path, &authority, REVIEWS, SystemTime::now() - 2 * HOUR);
    refused("not trusted").await;
    write(path, &authority, REVIEWS, SystemTime::now());
    std::fs::write(path.join("root-cert.pem"), other.roots_pem()).expect("written");
    refused("not trusted").await;
    write(path, &authority, REVIEWS, SystemTime::now());
    let key = PrivateKey::generate(KeyKind::default())
        .expect("a key")
        .to_pem()
        .expect("PEM");
    std::fs::write(path.join("key.pem"), key.as_bytes()).expect("written");
    refused("does not belong").await;
    std::fs::write(path.join("root-cert.pem"), "").expect("written");
    refused("roots").await;

    let third = write(path, &authority, REVIEWS, SystemTime::now());
    let stands = after_a_look().await;
    assert_eq!((held(&stands), stands.failures), (Some(third), 0));
    let printed = metrics.print(&stands.expiries(), SystemTime::now());
    assert!(printed.contains("num_file_secret_failures_total 6"), "{printed}");
    following.abort();
}
