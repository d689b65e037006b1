//! Watches: what happened, in order, from any moment that is remembered.

mod support;

use serde_json::json;
use support::{CONFIG_MAPS, config_map, start};

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_what_happens_after_its_revision() {
    let server = start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let revision = created["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}"))
        .await;
    server.post(CONFIG_MAPS, &config_map("b")).await.ok();
    server
        .patch(
            &format!("{CONFIG_MAPS}/a"),
            "merge-patch",
            &json!({"data": {"key": "x"}}),
        )
        .await
        .ok();
    server.delete(&format!("{CONFIG_MAPS}/b"), &json!({})).await.ok();
    assert_eq!(watch.next_named().await, pair("ADDED", "b"));
    assert_eq!(watch.next_named().await, pair("MODIFIED", "a"));
    assert_eq!(watch.next_named().await, pair("DELETED", "b"));
}

#[tokio::test]
async fn a_watch_without_revision_begins_with_what_is_there() {
    let server = start().await;
    server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    assert_eq!(watch.next_named().await, pair("ADDED", "a"));
}

#[tokio::test]
async fn initial_events_end_with_a_bookmark() {
    let server = start().await;
    server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let uri = format!(
        "{CONFIG_MAPS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );
    let mut watch = server.watch(&uri).await;
    assert_eq!(watch.next_named().await, pair("ADDED", "a"));
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(
        bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
    let without = format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true");
    assert_eq!(server.get(&without).await.refusal().0, 422);
}

#[tokio::test]
async fn an_object_enters_and_leaves_a_selection() {
    let server = start().await;
    let uri = format!("{CONFIG_MAPS}?watch=true&resourceVersion=0&labelSelector=on");
    let mut watch = server.watch(&uri).await;
    server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let label = |value| json!({"metadata": {"labels": {"on": value}}});
    server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &label(json!("yes")))
        .await
        .ok();
    server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &label(json!(null)))
        .await
        .ok();
    assert_eq!(watch.next_named().await, pair("ADDED", "a"));
    assert_eq!(watch.next_named().await, pair("DELETED", "a"));
}

#[tokio::test]
async fn a_forgotten_revision_is_an_error_in_the_stream() {
    let server = start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let revision = created["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned();
    // Written together they share commits, which is quick.
    let names: Vec<String> = (0..=control_apiserver::limits::HISTORY_EVENTS_PER_RESOURCE)
        .map(|n| format!("x{n}"))
        .collect();
    let maps: Vec<_> = names.iter().map(|name| config_map(name)).collect();
    let written = futures::future::join_all(maps.iter().map(|map| server.post(CONFIG_MAPS, map))).await;
    assert!(written.iter().all(|answer| answer.code == 201));
    let mut watch = server
        .watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={revision}"))
        .await;
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "ERROR");
    assert_eq!(
        (&event["object"]["code"], &event["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert!(watch.next().await.is_none());
}

#[tokio::test]
async fn a_watch_ends_when_its_time_is_over() {
    let server = start().await;
    tokio::time::pause();
    let mut watch = server
        .watch(&format!(
            "{CONFIG_MAPS}?watch=true&resourceVersion=0&timeoutSeconds=5"
        ))
        .await;
    assert!(watch.next().await.is_none());
}
