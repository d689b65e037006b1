//! Watches, writes and registration against the embedded API server, in process and over HTTPS.

use std::path::Path;
use std::time::Duration;

use control_apiserver::{ApiServer, Config, Handle};
use control_snapshot::Kind;
use control_sources::registration::{Announcement, Belonging, Registrar, Settings, StreamEvent};
use control_sources::watch::{Change, watch_all};
use control_sources::write::{self, Applied, ObjectRef, WriteError};
use control_sources::{Client, apply, client};
use serde_json::{Value, json};
use tokio::sync::mpsc;

async fn start(directory: &Path) -> (Handle, [Client; 2]) {
    let handle = ApiServer::start(Config::new(directory))
        .await
        .expect("the API server starts");
    let in_process = client::in_process(handle.service());
    let over_https = client::from_kubeconfig(handle.kubeconfig_path())
        .await
        .expect("a usable kubeconfig");
    (handle, [in_process, over_https])
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), future)
        .await
        .expect("in time")
}

fn virtual_service(timeout: &str) -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
        "metadata": {"name": "reviews", "namespace": "default"},
        "spec": {
            "hosts": ["reviews"],
            "http": [{"timeout": timeout, "route": [{"destination": {"host": "reviews"}}]}],
        },
    })
}

fn reference(kind: &str, name: &str) -> ObjectRef {
    ObjectRef {
        api_version: "networking.istio.io/v1".into(),
        kind: kind.into(),
        namespace: "default".into(),
        name: name.into(),
    }
}

/// The next change of this kind.
async fn next(changes: &mut mpsc::Receiver<Change>, wanted: Kind) -> Change {
    loop {
        let change = within(changes.recv()).await.expect("the watches go on");
        let (Change::Apply { kind, .. } | Change::Delete { kind, .. } | Change::Synced { kind }) = &change;
        if *kind == wanted {
            return change;
        }
    }
}

#[tokio::test]
async fn changes_are_seen_in_process_and_over_https() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, clients) = start(directory.path()).await;
    for client in &clients {
        let (mut changes, _watches) = watch_all(client, "istio-system");
        assert_eq!(
            next(&mut changes, Kind::VirtualService).await,
            Change::Synced {
                kind: Kind::VirtualService
            }
        );
        apply(client, &[virtual_service("1s")]).await.expect("stored");
        let Change::Apply { object, .. } = next(&mut changes, Kind::VirtualService).await else {
            panic!("not a new object")
        };
        assert_eq!(object["spec"]["http"][0]["timeout"], "1s");
        write::delete(client, &reference("VirtualService", "reviews"))
            .await
            .expect("deleted");
        let (namespace, name) = ("default".to_owned(), "reviews".to_owned());
        let deleted = Change::Delete {
            kind: Kind::VirtualService,
            namespace,
            name,
        };
        assert_eq!(next(&mut changes, Kind::VirtualService).await, deleted);
    }
    handle.shutdown().await;
}

#[tokio::test]
async fn applying_twice_creates_and_then_patches() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, clients) = start(directory.path()).await;
    for client in &clients {
        let key = "VirtualService/reviews.default";
        assert_eq!(
            apply(client, &[virtual_service("1s")]).await.expect("stored")[key],
            Applied::Created
        );
        assert_eq!(
            apply(client, &[virtual_service("2s")]).await.expect("stored")[key],
            Applied::Patched
        );
        let found = write::get(client, &reference("VirtualService", "reviews"))
            .await
            .expect("there");
        assert_eq!(found["spec"]["http"][0]["timeout"], "2s");
        let refused = apply(client, &[virtual_service("soon")])
            .await
            .expect_err("not a duration");
        assert!(matches!(refused, WriteError::Refused { .. }), "{refused}");
        write::delete(client, &reference("VirtualService", "reviews"))
            .await
            .expect("deleted");
    }
    handle.shutdown().await;
}

/// Reads the workload's entry until it is as wanted.
async fn entry_when(
    client: &Client,
    wanted: impl Fn(&Result<Value, WriteError>) -> bool,
) -> Result<Value, WriteError> {
    within(async {
        loop {
            let found = write::get(client, &reference("WorkloadEntry", "reviews-v1-127.66.0.4")).await;
            if wanted(&found) {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
}

fn condition(entry: &Result<Value, WriteError>) -> Option<&str> {
    entry.as_ref().ok()?["status"]["conditions"][0]["status"].as_str()
}

fn announcement() -> Announcement {
    Announcement {
        namespace: "default".into(),
        belonging: Belonging::Group("reviews-v1".into()),
        address: "127.66.0.4".into(),
        ..Announcement::default()
    }
}

fn group() -> Value {
    json!({
        "apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup",
        "metadata": {"name": "reviews-v1", "namespace": "default"},
        "spec": {"template": {"ports": {"http": 9080}}, "probe": {"tcpSocket": {"port": 9080}}},
    })
}

#[tokio::test]
async fn a_workload_that_waits_for_its_group_is_registered_while_others_come_and_go() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, clients) = start(directory.path()).await;
    let client = &clients[0];
    let (registrar, task) = Registrar::start(client.clone(), Settings::default());
    tokio::spawn(task);
    let first = StreamEvent::Connected {
        stream: 1,
        announcement: announcement(),
    };
    registrar.report(first).await;
    let others = tokio::spawn(async move {
        loop {
            registrar.report(StreamEvent::Disconnected { stream: 99 }).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    apply(client, &[group()]).await.expect("stored");
    entry_when(client, Result::is_ok).await.expect("registered");
    others.abort();
    handle.shutdown().await;
}

#[tokio::test]
async fn a_workload_is_registered_reports_its_health_and_is_removed_after_its_last_stream() {
    let directory = tempfile::tempdir().expect("a directory");
    let (handle, clients) = start(directory.path()).await;
    let client = &clients[0];
    let settings = Settings {
        grace: Duration::from_millis(50),
        ..Settings::default()
    };
    let (registrar, task) = Registrar::start(client.clone(), settings);
    tokio::spawn(task);
    // The workload comes before its group: it is registered once the group is there.
    registrar
        .report(StreamEvent::Connected {
            stream: 1,
            announcement: announcement(),
        })
        .await;
    apply(client, &[group()]).await.expect("stored");
    let entry = entry_when(client, Result::is_ok).await.expect("registered");
    assert_eq!(entry["spec"]["address"], "127.66.0.4");
    assert_eq!(
        entry["metadata"]["annotations"]["istio.io/autoRegistrationGroup"],
        "reviews-v1"
    );
    registrar
        .report(StreamEvent::Connected {
            stream: 2,
            announcement: announcement(),
        })
        .await;
    registrar
        .report(StreamEvent::Health {
            stream: 2,
            healthy: true,
            message: String::new(),
        })
        .await;
    entry_when(client, |entry| condition(entry) == Some("True"))
        .await
        .expect("healthy");
    registrar
        .report(StreamEvent::Health {
            stream: 2,
            healthy: false,
            message: "gone".into(),
        })
        .await;
    entry_when(client, |entry| condition(entry) == Some("False"))
        .await
        .expect("unhealthy");
    registrar.report(StreamEvent::Disconnected { stream: 2 }).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    entry_when(client, |_| true)
        .await
        .expect("one stream is still open");
    registrar.report(StreamEvent::Disconnected { stream: 1 }).await;
    let gone = entry_when(client, Result::is_err).await.expect_err("removed");
    assert!(matches!(gone, WriteError::NotFound(_)), "{gone}");
    handle.shutdown().await;
}
