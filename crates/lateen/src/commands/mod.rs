//! The commands, one file each.

pub(crate) mod bookinfo;
pub(crate) mod demo;
mod detach;
pub(crate) mod down;
mod elsewhere;
pub(crate) mod kubeconfig;
pub(crate) mod logs;
mod mesh;
pub(crate) mod node_agent;
pub(crate) mod proxy_config;
pub(crate) mod proxy_status;
pub(crate) mod ps;
pub(crate) mod run;
pub(crate) mod up;

use std::future::Future;
use std::path::Path;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::LocalSet;

/// Runs a command on one thread. That thread is the parent of all processes, which end when it does.
fn on_this_thread<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, command)
}

/// Says in one line why applications are captured by ports, and how to mend it.
fn capture_by_ports(why: &str) -> String {
    format!("capture is by ports, since {why}. {}", agent::NAMESPACE_ADVICE)
}

/// Writes what the supervisor has to say to a file, since the terminal shows the steps.
fn log_to(path: &Path) -> anyhow::Result<()> {
    let file = std::fs::File::options().create(true).append(true).open(path)?;
    tracing_subscriber::fmt()
        .with_writer(file)
        .with_ansi(false)
        .init();
    Ok(())
}

/// SIGINT and SIGTERM, either of which takes a mesh down.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn wait(&mut self) -> rustix::process::Signal {
        tokio::select! {
            _ = self.interrupt.recv() => rustix::process::Signal::INT,
            _ = self.terminate.recv() => rustix::process::Signal::TERM,
            _ = self.hangup.recv() => rustix::process::Signal::HUP,
        }
    }
}
