//! The proxy process of a workload: start, readiness, end.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::bootstrap::ADMIN_PORT;
use crate::limits::{READY_ANSWER_TIMEOUT, READY_POLL_INTERVAL, SIDECAR_READY_TIMEOUT};

/// How to start a proxy.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// The program and the arguments before ours.
    pub(crate) program: Vec<OsString>,
    pub(crate) bootstrap: PathBuf,
    pub(crate) broker: PathBuf,
    pub(crate) log: PathBuf,
    pub(crate) address: Ipv4Addr,
}

/// A running proxy; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Sidecar {
    child: Child,
    address: Ipv4Addr,
}

impl Sidecar {
    pub(crate) fn start(settings: &Settings) -> io::Result<Self> {
        let log = File::options().create(true).append(true).open(&settings.log)?;
        let [program, arguments @ ..] = settings.program.as_slice() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "no proxy program"));
        };
        let mut command = std::process::Command::new(program);
        command
            .args(arguments)
            .arg("--config-path")
            .arg(&settings.bootstrap);
        command
            .arg("--socket-broker")
            .arg(&settings.broker)
            .args(["--concurrency", "1"]);
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        net::process::die_with_parent(&mut command, Signal::KILL);
        let child = Command::from(command).kill_on_drop(true).spawn()?;
        Ok(Self {
            child,
            address: settings.address,
        })
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until the proxy has its first complete configuration.
    pub(crate) async fn ready(&mut self) -> io::Result<()> {
        let address = SocketAddr::new(self.address.into(), ADMIN_PORT);
        let polling = async {
            while !matches!(is_ready(address).await, Ok(true)) {
                tokio::time::sleep(READY_POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            polled = tokio::time::timeout(SIDECAR_READY_TIMEOUT, polling) => polled.map_err(|_| {
                io::Error::new(io::ErrorKind::TimedOut, format!("not ready after {SIDECAR_READY_TIMEOUT:?}"))
            }),
            ended = self.child.wait() => {
                Err(io::Error::other(format!("the proxy ended before it was ready ({})", ended?)))
            }
        }
    }

    /// Waits until the proxy has ended.
    pub(crate) async fn ended(&mut self) -> io::Result<std::process::ExitStatus> {
        self.child.wait().await
    }

    /// Asks it to end; after a while it is made to.
    pub(crate) async fn stop(&mut self, grace: std::time::Duration) {
        if let Some(pid) = self
            .child
            .id()
            .and_then(|pid| rustix::process::Pid::from_raw(pid.cast_signed()))
        {
            let _ = rustix::process::kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(grace, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }
}

/// Asks the proxy's `/ready`.
async fn is_ready(address: SocketAddr) -> io::Result<bool> {
    let asked = async {
        let mut connection = TcpStream::connect(address).await?;
        connection
            .write_all(b"GET /ready HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        connection.read_exact(&mut head).await?;
        Ok(&head[8..12] == b" 200")
    };
    tokio::time::timeout(READY_ANSWER_TIMEOUT, asked).await?
}
