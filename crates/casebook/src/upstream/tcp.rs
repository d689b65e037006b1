//! The TCP upstream: answers each line with its own name and the line.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::limits::MAX_BODY_BYTES;

/// Answers connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, name: String) {
    while let Ok((connection, _)) = listener.accept().await {
        let name = name.clone();
        tokio::spawn(async move {
            // A connection that the proxy ends early is the proxy's business; the exchange shows what came of it.
            let _ = answer(connection, &name).await;
        });
    }
}

async fn answer(mut connection: TcpStream, name: &str) -> std::io::Result<()> {
    let (reader, mut writer) = connection.split();
    let mut lines = BufReader::new(reader.take(MAX_BODY_BYTES as u64)).lines();
    while let Some(line) = lines.next_line().await? {
        writer.write_all(format!("{name} {line}\n").as_bytes()).await?;
    }
    writer.shutdown().await
}
