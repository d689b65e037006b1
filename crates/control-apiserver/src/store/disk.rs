//! The database file (redb): objects by key, and the revision counter.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use super::{Key, Object, StoreError};
use crate::limits;

/// Key text to the object's JSON.
const OBJECTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("objects");
/// Counters by name.
const COUNTERS: TableDefinition<'_, &str, u64> = TableDefinition::new("counters");
/// The newest revision, in [`COUNTERS`].
const REVISION: &str = "revision";
/// The layout of this file, in [`COUNTERS`]; a different number is refused.
const FORMAT: &str = "format";
const FORMAT_VERSION: u64 = 1;

/// Opens the database, or makes it. Called again after an error, as redb refuses further work after one.
pub(crate) type OpenDatabase = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// Opens the file at `path`.
pub(super) fn file(path: &Path) -> OpenDatabase {
    let path: PathBuf = path.to_owned();
    Box::new(move || {
        let mut builder = Builder::new();
        builder.set_cache_size(limits::DISK_CACHE_BYTES);
        builder.create(&path)
    })
}

/// One object of a batch: its new bytes, or `None` when it is removed.
pub(super) type Row<'b> = (&'b str, Option<&'b Bytes>);

/// Everything that is on disk.
pub(super) struct Loaded {
    pub(super) revision: u64,
    pub(super) objects: BTreeMap<Key, Arc<Object>>,
}

/// The database, reopened when an error has closed it.
pub(crate) struct Disk {
    open: OpenDatabase,
    database: Option<Database>,
}

impl Disk {
    pub(super) fn open(open: OpenDatabase) -> Result<Self, StoreError> {
        let database = open().map_err(|error| classify(error.into()))?;
        let disk = Self {
            open,
            database: Some(database),
        };
        disk.prepare().map_err(classify)?;
        Ok(disk)
    }

    /// Makes the tables and checks the format.
    fn prepare(&self) -> Result<(), redb::Error> {
        let Some(database) = &self.database else {
            return Ok(());
        };
        let transaction = database.begin_write()?;
        {
            transaction.open_table(OBJECTS)?;
            let mut counters = transaction.open_table(COUNTERS)?;
            let format = counters.get(FORMAT)?.map(|found| found.value());
            match format {
                None => {
                    counters.insert(FORMAT, FORMAT_VERSION)?;
                }
                Some(FORMAT_VERSION) => {}
                Some(other) => {
                    let message =
                        format!("the state has format {other}, this version reads {FORMAT_VERSION}");
                    return Err(redb::Error::Io(io::Error::new(
                        io::ErrorKind::InvalidData,
                        message,
                    )));
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }

    /// Whether an error has closed the database.
    pub(super) fn is_closed(&self) -> bool {
        self.database.is_none()
    }

    /// Opens the database again after an error and reads what it holds.
    pub(super) fn reopen(&mut self) -> Result<Loaded, StoreError> {
        self.database = Some((self.open)().map_err(|error| classify(error.into()))?);
        let loaded = self.load();
        if loaded.is_err() {
            self.database = None;
        }
        loaded
    }

    pub(super) fn load(&self) -> Result<Loaded, StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        let read = || -> Result<(u64, Vec<(String, Bytes)>), redb::Error> {
            let transaction = database.begin_read()?;
            let revision = transaction
                .open_table(COUNTERS)?
                .get(REVISION)?
                .map_or(0, |found| found.value());
            let mut rows = Vec::new();
            for row in transaction.open_table(OBJECTS)?.iter()? {
                let (key, body) = row?;
                rows.push((key.value().to_owned(), Bytes::copy_from_slice(body.value())));
            }
            Ok((revision, rows))
        };
        let (revision, rows) = read().map_err(classify)?;
        let mut objects = BTreeMap::new();
        for (key, body) in rows {
            let key = Key::from_stored(&key);
            objects.insert(key.clone(), Arc::new(Object::load(key, body)?));
        }
        Ok(Loaded { revision, objects })
    }

    /// Writes a batch and waits until it is on the disk. After an error the database is closed.
    pub(super) fn commit(&mut self, revision: u64, rows: &[Row<'_>]) -> Result<(), StoreError> {
        let database = self.database.as_ref().ok_or(StoreError::Closed)?;
        let write = || -> Result<(), redb::Error> {
            let transaction = database.begin_write()?;
            {
                let mut objects = transaction.open_table(OBJECTS)?;
                for (key, body) in rows {
                    match body {
                        Some(body) => {
                            objects.insert(*key, &body[..])?;
                        }
                        None => {
                            objects.remove(*key)?;
                        }
                    }
                }
                transaction.open_table(COUNTERS)?.insert(REVISION, revision)?;
            }
            transaction.commit()?;
            Ok(())
        };
        let written = write().map_err(classify);
        if written.is_err() {
            self.database = None;
        }
        written
    }
}

/// Tells a full disk from a broken one.
fn classify(error: redb::Error) -> StoreError {
    if let redb::Error::Io(io_error) = &error {
        let full = matches!(
            io_error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
        );
        if full {
            return StoreError::Full(io_error.to_string());
        }
    }
    StoreError::Io(error.to_string())
}
