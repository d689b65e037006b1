//! The TCP upstream: answers each line with its own name, the caller's identity if it showed one, and the line; lines
//! that begin with `finally` when the client has ended its side. To who says nothing it says that it is ready.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::connection::{Connection, Front};
use crate::limits::{BEFORE_GREETING, MAX_BODY_BYTES};

/// Answers connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, front: Front, name: String) {
    while let Ok((connection, _)) = listener.accept().await {
        let (name, front) = (name.clone(), front.clone());
        tokio::spawn(async move {
            // A connection that fails or ends early is the proxy's business; the exchange shows what came of it.
            let Ok((connection, caller)) = front.accept(connection).await else {
                return;
            };
            let said_by = match caller.identity {
                Some(identity) => format!("{name} {identity}"),
                None => name,
            };
            let _ = answer(connection, &said_by).await;
        });
    }
}

async fn answer(connection: Box<dyn Connection>, name: &str) -> std::io::Result<()> {
    let (reader, mut writer) = tokio::io::split(connection);
    let mut reader = BufReader::new(reader.take(MAX_BODY_BYTES as u64));
    if timeout(BEFORE_GREETING, reader.fill_buf()).await.is_err() {
        writer.write_all(format!("{name} ready\n").as_bytes()).await?;
    }
    let (mut lines, mut finally) = (reader.lines(), String::new());
    while let Some(line) = lines.next_line().await? {
        let answer = format!("{name} {line}\n");
        match line.starts_with("finally") {
            true => finally.push_str(&answer),
            false => writer.write_all(answer.as_bytes()).await?,
        }
    }
    writer.write_all(finally.as_bytes()).await?;
    writer.shutdown().await
}
