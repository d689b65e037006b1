//! Runs the embedded API server alone, in a temporary directory or the one given, until it is interrupted.
//!
//! `cargo run -p control-apiserver --example apiserver [DIR]`, then `export KUBECONFIG=<the path it prints>`.

use std::path::PathBuf;

use control_apiserver::{ApiServer, Config};

#[tokio::main]
#[allow(
    clippy::print_stdout,
    reason = "the kubeconfig's path is this program's output"
)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let temporary = std::env::temp_dir().join(format!("lateen-apiserver-{}", std::process::id()));
    let directory = std::env::args_os().nth(1).map_or(temporary, PathBuf::from);
    let server = ApiServer::start(Config::new(directory)).await?;
    println!("{}", server.kubeconfig_path().display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
