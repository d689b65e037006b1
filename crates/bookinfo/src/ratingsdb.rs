//! ratingsdb: what ratings remember, kept in memory and served over TCP in the protocol of Redis (RESP 2), as far as
//! `GET`, `SET`, `PING` and `QUIT` go. `redis-cli` can talk to it.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::limits::{MAX_COMMAND_WORD_BYTES, MAX_COMMAND_WORDS, MAX_CONNECTIONS, MAX_RATED_PRODUCTS};

/// The store.
#[derive(Debug, Default)]
struct Store {
    values: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// What is said to a command.
#[derive(Debug, PartialEq)]
enum Answer {
    Simple(&'static str),
    Error(&'static str),
    Bulk(Vec<u8>),
    /// There is no such key.
    Null,
}

impl Answer {
    fn write(&self) -> Vec<u8> {
        match self {
            Answer::Simple(text) => format!("+{text}\r\n").into_bytes(),
            Answer::Error(text) => format!("-ERR {text}\r\n").into_bytes(),
            Answer::Bulk(value) => [format!("${}\r\n", value.len()).as_bytes(), value, b"\r\n"].concat(),
            Answer::Null => b"$-1\r\n".to_vec(),
        }
    }
}

impl Store {
    fn answer(&self, command: &[Vec<u8>]) -> Answer {
        let words: Vec<&[u8]> = command.iter().map(Vec::as_slice).collect();
        let name = words
            .first()
            .map(|word| word.to_ascii_uppercase())
            .unwrap_or_default();
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        match (name.as_slice(), &words[1.min(words.len())..]) {
            (b"PING", []) => Answer::Simple("PONG"),
            (b"QUIT", []) => Answer::Simple("OK"),
            (b"GET", [key]) => values.get(*key).cloned().map_or(Answer::Null, Answer::Bulk),
            (b"SET", [key, value]) => {
                if values.len() >= MAX_RATED_PRODUCTS && !values.contains_key(*key) {
                    return Answer::Error("no more keys can be remembered");
                }
                values.insert(key.to_vec(), value.to_vec());
                Answer::Simple("OK")
            }
            (b"PING" | b"QUIT" | b"GET" | b"SET", _) => Answer::Error("wrong number of arguments"),
            _ => Answer::Error("unknown command"),
        }
    }
}

/// Serves until `shutdown`. Connections that are open then end with their runtime: each answer is whole or not there.
pub(crate) async fn run(listener: TcpListener, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let store = Arc::new(Store::default());
    let permits = Arc::new(tokio::sync::Semaphore::new(MAX_CONNECTIONS));
    let accepting = async {
        loop {
            let permit = Arc::clone(&permits)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            match listener.accept().await {
                Ok((connection, _)) => {
                    let store = Arc::clone(&store);
                    tokio::spawn(async move {
                        if let Err(error) = serve(connection, &store).await {
                            tracing::debug!(%error, "connection ended");
                        }
                        drop(permit);
                    });
                }
                // Out of descriptors, or a client that left while it waited: the listener itself is fine.
                Err(error) => {
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    };
    tokio::select! {
        ended = accepting => ended,
        () = shutdown => Ok(()),
    }
}

async fn serve(connection: TcpStream, store: &Store) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let mut connection = BufReader::new(connection);
    while let Some(command) = read_command(&mut connection).await? {
        connection.write_all(&store.answer(&command).write()).await?;
        if command
            .first()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"QUIT"))
        {
            break;
        }
    }
    connection.shutdown().await
}

/// Reads an array of strings; `None` at the end of the connection.
async fn read_command(connection: &mut BufReader<TcpStream>) -> io::Result<Option<Vec<Vec<u8>>>> {
    let Some(count) = read_length(connection, b'*', MAX_COMMAND_WORDS).await? else {
        return Ok(None);
    };
    let mut words = Vec::with_capacity(count);
    for _ in 0..count {
        let length = read_length(connection, b'$', MAX_COMMAND_WORD_BYTES).await?;
        let length = length.ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut word = vec![0; length + 2];
        connection.read_exact(&mut word).await?;
        word.truncate(length);
        words.push(word);
    }
    Ok(Some(words))
}

/// Reads `*2` or `$5`; `None` at the end of the connection.
pub(crate) async fn read_length(
    connection: &mut BufReader<TcpStream>,
    kind: u8,
    most: usize,
) -> io::Result<Option<usize>> {
    let line = read_line(connection).await?;
    if line.is_empty() {
        return Ok(None);
    }
    let length = line.strip_prefix(&[kind]).and_then(|digits| {
        let digits = std::str::from_utf8(digits).ok()?;
        digits.parse().ok().filter(|length| *length <= most)
    });
    length.map(Some).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// A line without its end; empty at the end of the connection.
pub(crate) async fn read_line(connection: &mut BufReader<TcpStream>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    let most = MAX_COMMAND_WORD_BYTES as u64;
    (&mut *connection).take(most).read_until(b'\n', &mut line).await?;
    if line.is_empty() {
        return Ok(line);
    }
    match line.strip_suffix(b"\r\n") {
        Some(text) => Ok(text.to_vec()),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(store: &Store, words: &[&str]) -> Answer {
        let command: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        store.answer(&command)
    }

    #[test]
    fn what_is_set_is_got_and_nonsense_is_an_error() {
        let store = Store::default();
        assert_eq!(ask(&store, &["get", "a"]), Answer::Null);
        assert_eq!(ask(&store, &["SET", "a", "1"]), Answer::Simple("OK"));
        assert_eq!(ask(&store, &["GET", "a"]), Answer::Bulk(b"1".to_vec()));
        assert_eq!(Answer::Bulk(b"1".to_vec()).write(), b"$1\r\n1\r\n");
        for nonsense in [&["GET"][..], &["FLUSHALL"], &[]] {
            assert!(matches!(ask(&store, nonsense), Answer::Error(_)));
        }
    }

    #[test]
    fn memory_is_bounded() {
        let store = Store::default();
        for key in 0..MAX_RATED_PRODUCTS {
            ask(&store, &["SET", &key.to_string(), "1"]);
        }
        assert!(matches!(ask(&store, &["SET", "more", "1"]), Answer::Error(_)));
        assert_eq!(ask(&store, &["SET", "0", "2"]), Answer::Simple("OK"));
    }
}
