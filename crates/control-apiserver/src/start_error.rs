//! Why the server did not start.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use crate::store::StoreError;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file in the state directory could not be read or written.
    #[error("{path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What went wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The database cannot be opened: it is damaged, or another server has it open.
    #[error("the database in the state directory cannot be opened: {0}")]
    Store(String),
    /// Certificates could not be made.
    #[error("TLS")]
    Tls(#[from] tls::Error),
    /// Keys could not be made or read.
    #[error("{0}")]
    Crypto(&'static str),
}

impl StartError {
    pub(crate) fn file(path: &Path, source: std::io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }
}

impl From<StoreError> for StartError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}
