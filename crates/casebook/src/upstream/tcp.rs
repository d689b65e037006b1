//! The TCP upstream: answers each line with its own name and the line.

use std::sync::Arc;

use tls::ServerContext;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader,
};
use tokio::net::TcpListener;

use crate::limits::MAX_BODY_BYTES;

/// Answers connections until the runtime ends.
pub(super) async fn serve(listener: TcpListener, tls: Option<Arc<ServerContext>>, name: String) {
    while let Ok((connection, _)) = listener.accept().await {
        let (name, tls) = (name.clone(), tls.clone());
        tokio::spawn(async move {
            // A connection that the proxy ends early is the proxy's business; the exchange shows what came of it.
            let _ = match tls {
                None => answer(connection, &name).await,
                Some(tls) => match tls.accept(connection).await {
                    Ok((connection, _)) => answer(connection, &name).await,
                    Err(_) => Ok(()),
                },
            };
        });
    }
}

async fn answer(connection: impl AsyncRead + AsyncWrite, name: &str) -> std::io::Result<()> {
    let (reader, mut writer) = tokio::io::split(connection);
    let mut lines = BufReader::new(reader.take(MAX_BODY_BYTES as u64)).lines();
    while let Some(line) = lines.next_line().await? {
        writer.write_all(format!("{name} {line}\n").as_bytes()).await?;
    }
    writer.shutdown().await
}
