//! The TCP upstream: answers each line with its own name and the line, and lines that begin with `finally` when the
//! client has ended its side. To who says nothing it says that it is ready.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::limits::{BEFORE_GREETING, MAX_BODY_BYTES};

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
