//! The running proxy: a main thread that takes configuration, and workers that carry traffic.
//!
//! - [`args`]: Envoy's command line. [`main`] runs it.
//! - `worker`: one thread's world; [`command`] is what reaches it. Of it connections see what is [`local`], and whoever
//!   takes connections the `handler` too: the `listeners`, and the `balancer` over all workers.
//! - Connections: `acceptor` → `connection` → [`listener_filters`] → a filter chain → [`http`] or `tcp_proxy`, which
//!   get a [`downstream::Downstream`].
//! - [`server`]: the main thread; `discovery` and `secrets` feed it, [`admin`] tells of it.
//! - [`drain`]: how connections end when configuration changes.

mod acceptor;
mod access_log;
pub mod admin;
mod admin_source;
mod ads_stats;
pub mod args;
mod balancer;
mod certificate_stats;
pub mod command;
mod connection;
mod copy;
mod dialer;
mod discovery;
pub mod downstream;
pub mod drain;
mod file_stats;
mod handler;
mod handshake_log;
mod held_certificates;
pub mod http;
pub mod limits;
pub mod listener_filters;
mod listeners;
pub mod local;
mod output;
mod run;
mod secret_stats;
mod secrets;
pub mod server;
mod server_stats;
mod sockets;
mod subscriptions;
mod tcp_proxy;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

/// Runs the proxy as its command line says, until it is told to stop. The first argument is the program's name.
pub fn main(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    net::memory::join_small_pieces_at_once();
    match args::Args::try_parse_from(args) {
        Ok(args) => run::run(args),
        Err(error) => {
            // Help and version go to standard output and are no failure.
            let _ = error.print();
            if error.use_stderr() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        }
    }
}
