//! `lateen`: a service mesh on one machine, in one binary. Argument parsing and assembly only.

mod certificate;
mod cli;
mod commands;
mod control_plane;
mod http;
mod limits;
mod load;
mod memory;
mod node_agent;
mod objects;
mod output;
mod ports;
mod reservation;
mod state;
mod supervisor;
mod terminal;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// The hidden subcommand of the process inside an application's namespace.
const INSIDE: &str = "internal-inside";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // Two commands bypass the parser: the process inside must not have started a thread, and the proxy has Envoy's flags.
    match arguments.nth(1) {
        Some(command) if command == INSIDE => return agent::capture::inside::main(arguments.collect()),
        Some(command) if command == "proxy" => return proxy(arguments.collect()),
        _ => {}
    }
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(arguments) => commands::demo::run(arguments),
        Command::Up(arguments) => commands::up::run(arguments),
        Command::Run(arguments) => commands::run::run(*arguments),
        Command::NodeAgent(arguments) => commands::node_agent::run(arguments),
        Command::Down(arguments) => commands::down::run(&arguments),
        Command::Ps(arguments) => commands::ps::run(&arguments),
        Command::ProxyStatus(arguments) => commands::proxy_status::run(&arguments),
        Command::Logs(arguments) => commands::logs::run(&arguments),
        Command::ProxyConfig(arguments) => commands::proxy_config::run(arguments.what),
        Command::Kubeconfig => commands::kubeconfig::run(),
        Command::Bookinfo(arguments) => commands::bookinfo::run(arguments),
        Command::ControlPlane(arguments) => control_plane::run(arguments),
        Command::Proxy { arguments } => Ok(proxy(arguments)),
    }
}

/// The data plane, with Envoy's flags. `lateen-proxy` is the same without the rest.
fn proxy(arguments: Vec<OsString>) -> ExitCode {
    proxy_server::main(std::iter::once(OsString::from("lateen proxy")).chain(arguments))
}
