//! Files of secrets are looked at from time to time; one that has changed is read again.
//!
//! Envoy waits for files that are moved into a directory, and reads them then. Looking finds those too, also behind
//! symbolic links as Kubernetes mounts Secrets, and files that are written in place besides. Half-written ones are
//! refused, and read again when their writer is done.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use proxy_upstream::secrets::{SecretKey, SecretSource};

use super::file;
use crate::limits::SECRET_FILES_EVERY;
use crate::server::Server;

/// How files were when they were last read.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Files that secrets come from.
    sources: HashMap<SecretKey, Vec<Mark>>,
    /// Files that secrets name.
    data: HashMap<SecretKey, Vec<Mark>>,
}

/// What changes when a file does: device, inode, modification in nanoseconds, length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(Option<(u64, u64, i64, i64, u64)>);

impl Mark {
    fn of(path: &Path) -> Self {
        let metadata = std::fs::metadata(path).ok();
        Self(metadata.map(|m| (m.dev(), m.ino(), m.mtime(), m.mtime_nsec(), m.len())))
    }
}

/// Looks after the files of secrets for as long as the process lives, and lets go of secrets that nobody uses.
pub(super) fn start(server: &Rc<Server>, seen: &Rc<RefCell<Seen>>) {
    let (server, seen) = (Rc::clone(server), Rc::clone(seen));
    tokio::task::spawn_local(async move {
        let mut interval = tokio::time::interval(SECRET_FILES_EVERY);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            look(&server, &seen);
        }
    });
}

fn look(server: &Rc<Server>, seen: &RefCell<Seen>) {
    let let_go = server.state.borrow_mut().collect_secrets();
    if let_go {
        server.pump();
    }
    for key in changed_sources(server, &mut seen.borrow_mut()) {
        file::read(server, &key);
    }
    for key in changed_data(server, &mut seen.borrow_mut()) {
        let result = server.state.borrow_mut().reread_secret(&key);
        match result {
            Ok(true) => {
                tracing::info!(name = %key.name, kind = %key.kind, "a secret is renewed from its files")
            }
            Ok(false) => {}
            Err(error) => {
                server.secret_stats.of(&key.name).rotation_failed(&server.shard);
                tracing::warn!(name = %key.name, kind = %key.kind, %error, "changed files of a secret are refused");
            }
        }
    }
}

impl Seen {
    /// The file of a secret is about to be read.
    pub(super) fn see(&mut self, key: &SecretKey) {
        if let Some(mark) = mark_of_source(key) {
            self.sources.insert(key.clone(), vec![mark]);
        }
    }
}

fn mark_of_source(key: &SecretKey) -> Option<Mark> {
    match &key.source {
        SecretSource::File { path, directory } => Some(Mark::of(directory.as_deref().unwrap_or(path))),
        _ => None,
    }
}

/// The secrets whose file holds something else than before.
fn changed_sources(server: &Server, seen: &mut Seen) -> Vec<SecretKey> {
    let state = server.state.borrow();
    let watched = state
        .secrets()
        .keys()
        .filter_map(|key| Some((key, vec![mark_of_source(key)?])));
    changed(&mut seen.sources, watched.collect())
}

/// The secrets whose own files hold something else than before.
fn changed_data(server: &Server, seen: &mut Seen) -> Vec<SecretKey> {
    let state = server.state.borrow();
    let watched = state.secrets().iter().filter_map(|(key, entry)| {
        let files = match &entry.files.directory {
            Some(directory) => std::slice::from_ref(directory),
            None => entry.files.files.as_slice(),
        };
        let marks = |files: &[PathBuf]| files.iter().map(|file| Mark::of(file)).collect();
        (!files.is_empty() && !entry.files.files.is_empty()).then(|| (key, marks(files)))
    });
    changed(&mut seen.data, watched.collect())
}

fn changed(seen: &mut HashMap<SecretKey, Vec<Mark>>, now: Vec<(&SecretKey, Vec<Mark>)>) -> Vec<SecretKey> {
    seen.retain(|key, _| now.iter().any(|(watched, _)| *watched == key));
    let mut changed = Vec::new();
    for (key, marks) in now {
        match seen.insert(key.clone(), marks.clone()) {
            Some(before) if before == marks => {}
            // What is new may have changed since it was read.
            _ => changed.push(key.clone()),
        }
    }
    changed
}
