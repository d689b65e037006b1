//! The store's promises: durability, one order of revisions, a bounded past, and reads that outlive the disk.

use std::io;
use std::sync::atomic::Ordering;

use serde_json::json;

use super::breakable::breakable;
use super::*;

fn things() -> ResourcePrefix {
    ResourcePrefix::new("example.org", "things")
}

fn key(name: &str) -> Key {
    Key::new(&things(), "default", name)
}

fn thing(name: &str, size: u64) -> Value {
    json!({"metadata": {"namespace": "default", "name": name, "uid": name}, "size": size})
}

async fn put(store: &Store, name: &str, expected: Expected, size: u64) -> Result<u64, StoreError> {
    let object = store
        .write(key(name), expected, Change::Put(thing(name, size)))
        .await?;
    Ok(object.revision())
}

#[tokio::test]
async fn what_was_written_is_there_after_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = Store::open(&path).unwrap();
    put(&store, "a", Expected::Absent, 1).await.unwrap();
    let second = put(&store, "b", Expected::Absent, 2).await.unwrap();
    store.close().await;

    let store = Store::open(&path).unwrap();
    assert_eq!(store.revision(), second);
    assert_eq!(store.get(&key("a")).unwrap().value()["size"], 1);
    let third = put(&store, "c", Expected::Absent, 3).await.unwrap();
    assert!(third > second, "revisions go on where they were");
    store.close().await;
}

#[tokio::test]
async fn a_write_based_on_an_old_revision_is_refused() {
    let (store, _) = breakable(io::ErrorKind::Other);
    let first = put(&store, "a", Expected::Absent, 1).await.unwrap();
    put(&store, "a", Expected::Revision(first), 2).await.unwrap();
    assert_eq!(
        put(&store, "a", Expected::Revision(first), 3).await,
        Err(StoreError::Conflict)
    );
    assert_eq!(
        put(&store, "a", Expected::Absent, 3).await,
        Err(StoreError::Exists)
    );
    assert_eq!(
        put(&store, "b", Expected::Revision(first), 3).await,
        Err(StoreError::Missing)
    );
    assert_eq!(store.get(&key("a")).unwrap().value()["size"], 2);
}

#[tokio::test]
async fn writes_that_share_a_commit_see_each_other() {
    let (store, _) = breakable(io::ErrorKind::Other);
    let both = futures::future::join(
        put(&store, "a", Expected::Absent, 1),
        put(&store, "a", Expected::Absent, 2),
    );
    let (first, second) = both.await;
    assert!(first.is_ok());
    assert_eq!(second, Err(StoreError::Exists));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_goes_on_reading_and_recovers() {
    let (store, broken) = breakable(io::ErrorKind::StorageFull);
    let first = put(&store, "a", Expected::Absent, 1).await.unwrap();
    broken.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let refused = put(&store, "b", Expected::Absent, 2).await;
        assert!(matches!(refused, Err(StoreError::Full(_))), "{refused:?}");
    }
    assert_eq!(store.get(&key("a")).unwrap().revision(), first);
    assert!(store.get(&key("b")).is_none());
    broken.store(false, Ordering::SeqCst);
    put(&store, "b", Expected::Absent, 2).await.unwrap();
    assert_eq!(store.list(&things(), "default").objects.len(), 2);
}

#[tokio::test]
async fn a_broken_disk_is_told_from_a_full_one() {
    let (store, broken) = breakable(io::ErrorKind::PermissionDenied);
    broken.store(true, Ordering::SeqCst);
    assert!(matches!(
        put(&store, "a", Expected::Absent, 1).await,
        Err(StoreError::Io(_))
    ));
}

#[tokio::test]
async fn the_past_can_be_listed_until_it_is_forgotten() {
    let (store, _) = breakable(io::ErrorKind::Other);
    put(&store, "a", Expected::Absent, 1).await.unwrap();
    let then = put(&store, "b", Expected::Absent, 2).await.unwrap();
    let last = store.get(&key("a")).unwrap();
    store
        .write(
            key("a"),
            Expected::Revision(last.revision()),
            Change::Remove(last.value()),
        )
        .await
        .unwrap();
    put(&store, "b", Expected::Revision(then), 7).await.unwrap();
    put(&store, "c", Expected::Absent, 3).await.unwrap();

    let past = store.list_at(&things(), "", then).unwrap();
    let seen: Vec<(String, u64)> = past
        .objects
        .iter()
        .map(|object| (object.name().to_owned(), object.value()["size"].as_u64().unwrap()))
        .collect();
    assert_eq!(seen, [("a".to_owned(), 1), ("b".to_owned(), 2)]);

    let mut revision = store.get(&key("c")).unwrap().revision();
    for round in 0..limits::HISTORY_EVENTS_PER_RESOURCE as u64 {
        revision = put(&store, "c", Expected::Revision(revision), round)
            .await
            .unwrap();
    }
    assert!(store.list_at(&things(), "", then).is_err());
    assert!(store.events_since(&things(), then).is_err());
    assert_eq!(store.events_since(&things(), revision - 1).unwrap().0.len(), 1);
}

#[tokio::test]
async fn revisions_of_an_earlier_life_are_expired() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("state.redb");
    let store = Store::open(&path).unwrap();
    let first = put(&store, "a", Expected::Absent, 1).await.unwrap();
    let second = put(&store, "b", Expected::Absent, 1).await.unwrap();
    store.close().await;
    let store = Store::open(&path).unwrap();
    assert_eq!(
        store.events_since(&things(), first).unwrap_err(),
        Expired { oldest: second }
    );
    assert!(store.events_since(&things(), second).is_ok());
}
