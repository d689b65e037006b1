//! For tests: a store whose disk can be broken and mended.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redb::backends::InMemoryBackend;
use redb::{Builder, StorageBackend};

use super::{OpenDatabase, Store};

/// A backend in memory that refuses writes while its switch is on.
#[derive(Debug)]
struct Breakable {
    memory: Arc<InMemoryBackend>,
    broken: Arc<AtomicBool>,
    kind: io::ErrorKind,
}

impl Breakable {
    fn check(&self) -> io::Result<()> {
        if self.broken.load(Ordering::SeqCst) {
            Err(self.kind.into())
        } else {
            Ok(())
        }
    }
}

impl StorageBackend for Breakable {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.check()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.memory.write(offset, data)
    }
}

/// A store in memory, and the switch that makes its writes fail with `kind`.
pub(crate) fn breakable(kind: io::ErrorKind) -> (Store, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let memory = Arc::new(InMemoryBackend::new());
    let switch = Arc::clone(&broken);
    let open: OpenDatabase = Box::new(move || {
        let (memory, broken) = (Arc::clone(&memory), Arc::clone(&switch));
        Builder::new().create_with_backend(Breakable { memory, broken, kind })
    });
    (Store::open_database(open).unwrap(), broken)
}
