//! `watch`: changes as they happen, from the history, in one line of JSON each.

use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

use super::list::{Selection, revision, too_large, too_old};
use super::{Call, render};
use crate::limits;
use crate::request::Form;
use crate::response::{Body, with_type};
use crate::status::{Cause, Status};
use crate::store::{Event, EventKind, Object};

/// Where a watch begins.
enum Start {
    /// With the present objects as ADDED events; `announce_end` asks for the bookmark that ends them.
    Initial { announce_end: bool },
    /// After a revision.
    After(u64),
}

/// Answers with a stream of events.
pub(super) fn watch(call: &Call) -> Result<Response<Body>, Status> {
    let selection = Selection::of(call)?;
    let form = call.form()?;
    let start = start(call)?;
    let duration = call
        .query
        .number("timeoutSeconds")?
        .filter(|seconds| *seconds > 0);
    let (sender, receiver) = mpsc::channel(limits::RESPONSE_QUEUE);
    let watcher = Watcher {
        call: Call {
            api: call.api.clone(),
            caller: call.caller.clone(),
            target: call.target.clone(),
            path: call.path.clone(),
            query: call.query.clone(),
            headers: call.headers.clone(),
            body: Bytes::new(),
            warnings: parking_lot::Mutex::default(),
        },
        selection,
        bookmarks: call.query.flag("allowWatchBookmarks"),
        columns_sent: false,
        form,
        sender,
    };
    let ends = Instant::now() + duration.map_or(limits::WATCH_DURATION, Duration::from_secs);
    tokio::spawn(watcher.run(start, ends));
    let mut response = with_type(StatusCode::OK, "application/json", Bytes::new());
    *response.body_mut() = Body::stream(receiver);
    Ok(response)
}

fn start(call: &Call) -> Result<Start, Status> {
    let asked = call.query.get("resourceVersion");
    let matching = call.query.get("resourceVersionMatch");
    if call.query.flag("sendInitialEvents") {
        let bookmarks = call.query.flag("allowWatchBookmarks");
        if matching != "NotOlderThan" || !bookmarks {
            let message = if bookmarks {
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            } else {
                "sendInitialEvents is forbidden for watch unless allowWatchBookmarks is true"
            };
            let cause = Cause::forbidden("sendInitialEvents", message);
            return Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
        }
        if !asked.is_empty() && revision(asked)? > call.api.store.revision() {
            return Err(too_large(revision(asked)?, call.api.store.revision()));
        }
        return Ok(Start::Initial { announce_end: true });
    }
    if !matching.is_empty() && call.query.get("sendInitialEvents").is_empty() {
        let cause = Cause::forbidden(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        );
        return Err(Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause]));
    }
    match asked {
        "" | "0" => Ok(Start::Initial { announce_end: false }),
        text => Ok(Start::After(revision(text)?)),
    }
}

/// The client has gone, or the watch is over for another reason.
struct Ended;

struct Watcher {
    call: Call,
    selection: Selection,
    form: Form,
    bookmarks: bool,
    columns_sent: bool,
    sender: mpsc::Sender<Bytes>,
}

impl Watcher {
    async fn run(mut self, start: Start, ends: Instant) {
        let stopping = self.call.api.stopping.clone();
        let sender = self.sender.clone();
        tokio::select! {
            _ended = self.stream(start) => {}
            () = tokio::time::sleep_until(ends) => {}
            () = stopping.cancelled() => {}
            () = sender.closed() => {}
        }
    }

    async fn stream(&mut self, start: Start) -> Result<(), Ended> {
        // Subscribed before the first look, so that no change falls between.
        let mut revisions = self.call.api.store.revisions();
        let mut position = match start {
            Start::Initial { announce_end } => self.initial(announce_end).await?,
            Start::After(revision) => revision,
        };
        let mut bookmark_timer = tokio::time::interval_at(
            Instant::now() + limits::BOOKMARK_INTERVAL,
            limits::BOOKMARK_INTERVAL,
        );
        bookmark_timer.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            revisions.borrow_and_update();
            position = self.catch_up(position).await?;
            tokio::select! {
                changed = revisions.changed() => changed.map_err(|_| Ended)?,
                _ = bookmark_timer.tick(), if self.bookmarks => self.bookmark(position, false).await?,
            }
        }
    }

    /// Sends the present objects as ADDED events.
    async fn initial(&mut self, announce_end: bool) -> Result<u64, Ended> {
        let listing = self
            .call
            .api
            .store
            .list(&self.call.target.resource.prefix, &self.call.path.namespace);
        let mut chunk = Vec::new();
        for (count, object) in listing.objects.iter().enumerate() {
            if self.selection.matches(&self.call, object) {
                self.write("ADDED", object, &mut chunk);
            }
            if count % limits::WATCH_EVENTS_PER_CHUNK == limits::WATCH_EVENTS_PER_CHUNK - 1 {
                self.send(&mut chunk).await?;
            }
        }
        self.send(&mut chunk).await?;
        if announce_end {
            self.bookmark(listing.revision, true).await?;
        }
        Ok(listing.revision)
    }

    /// Sends what happened after `position` and returns the new position.
    async fn catch_up(&mut self, position: u64) -> Result<u64, Ended> {
        let found = self
            .call
            .api
            .store
            .events_since(&self.call.target.resource.prefix, position);
        let (events, reached) = match found {
            Ok(found) => found,
            Err(expired) => {
                let status = too_old(position, expired.oldest).to_json();
                let mut line = json!({"type": "ERROR", "object": status})
                    .to_string()
                    .into_bytes();
                line.push(b'\n');
                self.send(&mut line).await?;
                return Err(Ended);
            }
        };
        let mut chunk = Vec::new();
        for (count, event) in events.iter().enumerate() {
            self.event(event, &mut chunk);
            if count % limits::WATCH_EVENTS_PER_CHUNK == limits::WATCH_EVENTS_PER_CHUNK - 1 {
                self.send(&mut chunk).await?;
            }
        }
        self.send(&mut chunk).await?;
        Ok(reached.max(position))
    }

    /// An object that begins to match is ADDED, one that no longer matches is DELETED.
    fn event(&mut self, event: &Event, chunk: &mut Vec<u8>) {
        let namespace = &self.call.path.namespace;
        if !namespace.is_empty() && event.object.namespace() != namespace {
            return;
        }
        let matched = |object: &Object| self.selection.matches(&self.call, object);
        let before = event.previous.as_deref().is_some_and(matched);
        let now = matched(&event.object);
        let kind = match (event.kind, before, now) {
            (EventKind::Added, _, true) | (EventKind::Modified, false, true) => "ADDED",
            (EventKind::Modified, true, true) => "MODIFIED",
            (EventKind::Deleted, true, _)
            | (EventKind::Deleted, _, true)
            | (EventKind::Modified, true, false) => "DELETED",
            _ => return,
        };
        self.write(kind, &event.object, chunk);
    }

    fn write(&mut self, kind: &str, object: &Object, chunk: &mut Vec<u8>) {
        chunk.extend_from_slice(b"{\"type\":\"");
        chunk.extend_from_slice(kind.as_bytes());
        chunk.extend_from_slice(b"\",\"object\":");
        render::write_form(&self.call, &self.form, object, !self.columns_sent, chunk);
        self.columns_sent = true;
        chunk.extend_from_slice(b"}\n");
    }

    async fn bookmark(&mut self, revision: u64, ends_initial_events: bool) -> Result<(), Ended> {
        let target = &self.call.target;
        let mut metadata = json!({"resourceVersion": revision.to_string(), "creationTimestamp": null});
        if ends_initial_events {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object =
            json!({"kind": target.resource.kind, "apiVersion": target.api_version(), "metadata": metadata});
        let object = match &self.form {
            Form::Object => object,
            Form::Metadata => crate::table::partial_metadata(&object),
            Form::Table { version, .. } => json!({
                "kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"),
                "metadata": {"resourceVersion": revision.to_string()},
                "columnDefinitions": if self.columns_sent { Vec::new() } else { crate::table::columns(target) },
                "rows": [{"cells": [], "object": crate::table::partial_metadata(&object)}],
            }),
        };
        self.columns_sent = true;
        let mut line = json!({"type": "BOOKMARK", "object": object})
            .to_string()
            .into_bytes();
        line.push(b'\n');
        self.send(&mut line).await
    }

    async fn send(&self, chunk: &mut Vec<u8>) -> Result<(), Ended> {
        if chunk.is_empty() {
            return Ok(());
        }
        self.sender
            .send(std::mem::take(chunk).into())
            .await
            .map_err(|_| Ended)
    }
}
