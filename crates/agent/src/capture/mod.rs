//! The application's surroundings, as the agent sees them: a process inside that answers over a channel.
//!
//! The process inside is this same program, started again with a hidden subcommand ([`inside`]); it is the parent of
//! the application. It ends when the agent ends, and takes the application with it. Inside is a network namespace, or,
//! where that is refused, just the host.

pub mod inside;

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use net::descriptors::{self, Message};
use rustix::process::{Pid, Signal};

use crate::limits::CAPTURE_TIMEOUT;

/// The sidecar's outbound port inside the namespace (Istio's).
pub const OUTBOUND_PORT: u16 = 15001;

/// What is private to an application that has a network namespace.
#[derive(Debug)]
pub struct Namespace {
    /// See [`net::namespace::Settings::source`].
    pub source: Ipv4Addr,
    /// See [`net::namespace::Settings::workload`].
    pub workload: Ipv4Addr,
    /// The file that the application sees as `/etc/hosts`.
    pub hosts: PathBuf,
    /// The file that the application sees as `/etc/resolv.conf`.
    pub resolver: PathBuf,
}

/// The application, and where it will run.
#[derive(Debug)]
pub struct Settings {
    /// The program and the arguments before ours that start [`inside::main`].
    pub program: Vec<OsString>,
    /// Its namespace; without one it stays on the host.
    pub namespace: Option<Namespace>,
    /// The application's command and arguments.
    pub command: Vec<OsString>,
    /// Environment variables beyond the agent's own.
    pub environment: Vec<(String, String)>,
    /// Where the application's output goes.
    pub output: Output,
}

/// Where an application's output goes.
#[derive(Debug)]
pub enum Output {
    /// Where this process writes to; the application also keeps the terminal's input.
    Inherited,
    /// Into a file.
    File(std::fs::File),
}

/// How an application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
}

impl Exit {
    /// The code that a shell would report: 128 and the signal's number for signals.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128_u8.saturating_add(signal),
        }
    }
}

impl std::fmt::Display for Exit {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit code {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// A running process inside. Dropping it ends the application and, if there is one, the namespace.
#[derive(Debug)]
pub struct Capture {
    control: OwnedFd,
    process: Child,
}

impl Capture {
    /// Starts the process that will be inside. Call [`Capture::entered`] before anything else.
    ///
    /// # Errors
    /// What starting a process reports.
    pub fn start(settings: Settings) -> io::Result<Self> {
        let (control, theirs) = descriptors::channel()?;
        descriptors::set_receive_timeout(&control, CAPTURE_TIMEOUT)?;
        let [program, arguments @ ..] = settings.program.as_slice() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no program to be the application's parent",
            ));
        };
        let mut command = Command::new(program);
        command.args(arguments);
        let tty = matches!(settings.output, Output::Inherited) && rustix::termios::isatty(std::io::stdin());
        match settings.namespace {
            Some(namespace) => command
                .arg(inside::NAMESPACE)
                .arg(namespace.source.to_string())
                .arg(namespace.workload.to_string())
                .arg(namespace.hosts)
                .arg(namespace.resolver),
            None => command.arg(inside::HOST),
        };
        let group = if tty {
            rustix::process::getpgrp().as_raw_nonzero().get()
        } else {
            0
        };
        command
            .arg(group.to_string())
            .args(settings.command)
            .envs(settings.environment);
        if let Output::File(file) = settings.output {
            command
                .stdin(Stdio::null())
                .stdout(file.try_clone()?)
                .stderr(file);
        }
        // A group of its own, so that Ctrl-C in a terminal reaches the application and not the process that holds it.
        command.process_group(0);
        net::process::inherit(&mut command, theirs, inside::CONTROL);
        let process = command.spawn()?;
        Ok(Self { control, process })
    }

    /// Waits until the process inside is ready to answer.
    ///
    /// # Errors
    /// The step that the kernel refused, in one line; `TimedOut` when it is too slow.
    pub async fn entered(&self) -> io::Result<()> {
        let waited = tokio::time::timeout(CAPTURE_TIMEOUT, net::process::readable(&self.control)).await;
        waited.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.answer().map(drop)
    }

    /// Opens a listener inside; several may share a port.
    ///
    /// # Errors
    /// What `bind` reports there.
    pub fn listen(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        self.descriptor(&format!("listen {address}"))
    }

    /// Opens a UDP socket inside.
    ///
    /// # Errors
    /// What `bind` reports there.
    pub fn datagram(&self, address: SocketAddr) -> io::Result<OwnedFd> {
        self.descriptor(&format!("datagram {address}"))
    }

    /// Opens a channel on which sockets are made inside, for [`net::broker`].
    ///
    /// # Errors
    /// `BrokenPipe` when the namespace is gone.
    pub fn namespace_channel(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = descriptors::channel()?;
        self.ask("channel", &[theirs.as_fd()])?;
        Ok(ours)
    }

    /// Starts the application.
    ///
    /// # Errors
    /// `NotFound` when there is no such program, `PermissionDenied` when it is not executable.
    pub fn run(&self) -> io::Result<Pid> {
        let answer = self.ask("run", &[])?;
        let pid = answer.text.strip_prefix("ok ").and_then(|pid| pid.parse().ok());
        pid.and_then(Pid::from_raw)
            .ok_or_else(|| protocol_error(&answer.text))
    }

    /// How the application ended; call it only when it has, since it waits for that.
    ///
    /// # Errors
    /// `BrokenPipe` when the process inside was killed too.
    pub fn reap(&self) -> io::Result<Exit> {
        let answer = self.ask("reap", &[])?;
        let mut words = answer.text.split(' ').skip(1);
        match (words.next(), words.next().and_then(|number| number.parse().ok())) {
            (Some("code"), Some(code)) => Ok(Exit::Code(code)),
            (Some("signal"), Some(signal)) => Ok(Exit::Signal(signal)),
            _ => Err(protocol_error(&answer.text)),
        }
    }

    /// Sends a signal to the application and the processes of its group.
    ///
    /// # Errors
    /// `ESRCH` when it has ended.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.ask(&format!("signal {}", signal.as_raw()), &[]).map(drop)
    }

    /// The process inside.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn descriptor(&self, question: &str) -> io::Result<OwnedFd> {
        let mut answer = self.ask(question, &[])?;
        answer
            .descriptors
            .pop()
            .ok_or_else(|| protocol_error(&answer.text))
    }

    fn ask(&self, question: &str, descriptors: &[BorrowedFd<'_>]) -> io::Result<Message> {
        descriptors::send(&self.control, question, descriptors)?;
        self.answer()
    }

    fn answer(&self) -> io::Result<Message> {
        let gone = || {
            io::Error::new(
                io::ErrorKind::BrokenPipe,
                "the application's parent process ended",
            )
        };
        let message = descriptors::receive(&self.control)?.ok_or_else(gone)?;
        let Some((number, text)) = message
            .text
            .strip_prefix("error ")
            .and_then(|rest| rest.split_once(' '))
        else {
            return Ok(message);
        };
        let kind = match number.parse() {
            Ok(0) | Err(_) => io::ErrorKind::Other,
            Ok(number) => io::Error::from_raw_os_error(number).kind(),
        };
        Err(io::Error::new(kind, text.to_owned()))
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // The process inside kills the application's group when the channel closes; it is reaped here.
        let (closed, _) = match descriptors::channel() {
            Ok(pair) => pair,
            Err(_) => return drop(self.process.kill()),
        };
        drop(std::mem::replace(&mut self.control, closed));
        let _ = self.process.wait();
    }
}

fn protocol_error(text: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the application's parent process answered \"{text}\""),
    )
}
