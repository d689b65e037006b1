//! How ratings ask ratingsdb: one connection, in the protocol of Redis, opened again when it breaks.

use std::io;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use crate::limits::{DATABASE_TIMEOUT, MAX_COMMAND_WORD_BYTES};
use crate::ratingsdb::read_line;

/// A database, by `host:port`.
#[derive(Debug)]
pub(crate) struct Database {
    address: String,
    connection: Mutex<Option<BufReader<TcpStream>>>,
}

/// The database did not answer, or not as it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unavailable;

impl Database {
    pub(crate) fn new(address: String) -> Self {
        Self {
            address,
            connection: Mutex::new(None),
        }
    }

    /// The ratings of a product, if there are any.
    pub(crate) async fn get(&self, id: u64) -> Result<Option<Value>, Unavailable> {
        let found = self.ask(&["GET", &key(id)]).await?;
        Ok(found.and_then(|text| serde_json::from_slice(&text).ok()))
    }

    /// Remembers the ratings of a product.
    pub(crate) async fn set(&self, id: u64, ratings: &Value) -> Result<(), Unavailable> {
        self.ask(&["SET", &key(id), &ratings.to_string()]).await.map(drop)
    }

    async fn ask(&self, words: &[&str]) -> Result<Option<Vec<u8>>, Unavailable> {
        let mut command = format!("*{}\r\n", words.len());
        for word in words {
            command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        let mut kept = self.connection.lock().await;
        // A connection that was kept may have ended meanwhile; a new one is tried once.
        let had_one = kept.is_some();
        for _ in 0..=u8::from(had_one) {
            let mut connection = kept.take();
            match tokio::time::timeout(DATABASE_TIMEOUT, self.exchange(&mut connection, &command)).await {
                Ok(Ok(answer)) => {
                    *kept = connection;
                    return Ok(answer);
                }
                Ok(Err(error)) => {
                    tracing::warn!(address = self.address, %error, "no answer from the database")
                }
                Err(_elapsed) => {
                    tracing::warn!(address = self.address, "no answer from the database in time");
                    return Err(Unavailable);
                }
            }
        }
        Err(Unavailable)
    }

    async fn exchange(
        &self,
        connection: &mut Option<BufReader<TcpStream>>,
        command: &str,
    ) -> io::Result<Option<Vec<u8>>> {
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let stream = TcpStream::connect(&self.address).await?;
                stream.set_nodelay(true)?;
                connection.insert(BufReader::new(stream))
            }
        };
        connection.write_all(command.as_bytes()).await?;
        let line = read_line(connection).await?;
        match line.split_first() {
            Some((b'+', text)) => Ok(Some(text.to_vec())),
            Some((b'$', b"-1")) => Ok(None),
            Some((b'$', length)) => {
                let length = std::str::from_utf8(length)
                    .ok()
                    .and_then(|text| text.parse().ok());
                let length: usize = length
                    .filter(|length| *length <= MAX_COMMAND_WORD_BYTES)
                    .ok_or(io::ErrorKind::InvalidData)?;
                let mut value = vec![0; length + 2];
                connection.read_exact(&mut value).await?;
                value.truncate(length);
                Ok(Some(value))
            }
            Some((b'-', text)) => Err(io::Error::other(String::from_utf8_lossy(text).into_owned())),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn key(id: u64) -> String {
    format!("ratings:{id}")
}
