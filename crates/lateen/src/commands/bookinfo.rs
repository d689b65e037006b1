//! `lateen bookinfo`: one of the demo's services.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use bookinfo::Settings;

use super::{Stop, on_this_thread};
use crate::cli::BookinfoArgs;

pub(crate) fn run(arguments: BookinfoArgs) -> anyhow::Result<ExitCode> {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_target(false)
        .init();
    on_this_thread(serve(arguments))
}

async fn serve(arguments: BookinfoArgs) -> anyhow::Result<ExitCode> {
    let mut stop = Stop::listen()?;
    let port = arguments.port.unwrap_or_else(|| arguments.service.default_port());
    let address = SocketAddr::new(arguments.bind, port);
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let settings = Settings::new(arguments.service, &arguments.version, &|name| {
        std::env::var(name).ok()
    });
    tracing::info!(service = ?arguments.service, version = arguments.version, %address, "serving");
    bookinfo::serve(listener, settings, async {
        stop.wait().await;
    })
    .await?;
    Ok(ExitCode::SUCCESS)
}
