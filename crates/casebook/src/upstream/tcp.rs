//! The TCP upstream: answers each line with its own name, the caller's identity if it showed one, and the line.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;

use super::connection::{Connection, Front};
use crate::limits::MAX_BODY_BYTES;

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
    let mut lines = BufReader::new(reader.take(MAX_BODY_BYTES as u64)).lines();
    while let Some(line) = lines.next_line().await? {
        writer.write_all(format!("{name} {line}\n").as_bytes()).await?;
    }
    writer.shutdown().await
}
