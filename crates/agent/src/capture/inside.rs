//! The process inside the namespace: makes sockets for the sidecar and is the parent of the application. Without a
//! namespace it is only the parent, so that an application's life has one path.
//!
//! One thread, no runtime: user namespaces can only be entered that way, and six of these should cost nothing. It
//! answers `listen`, `datagram`, `channel`, `run`, `reap` and `signal` on its control channel, and `socket` on others
//! ([`net::broker`]). When the control channel closes, the agent is gone, and so is everything here.

use std::ffi::OsString;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode};

use net::descriptors::{self, Message};
use net::namespace;
use net::socket::PortSharing;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal};

use super::OUTBOUND_PORT;
use crate::address::NETWORK;

/// The number under which the control channel is inherited.
pub const CONTROL: i32 = 3;

/// The first argument when a namespace is to be entered.
pub(super) const NAMESPACE: &str = "namespace";

/// The first argument when the application stays on the host.
pub(super) const HOST: &str = "host";

/// Runs the process inside. The arguments are those that [`super::Capture::start`] gives: `host`, or `namespace`, source
/// address, workload address, hosts file, resolver file; then process group and command.
///
/// Must be called before the program starts any thread.
#[must_use]
pub fn main(arguments: Vec<OsString>) -> ExitCode {
    let Ok(control) = net::process::inherited(CONTROL) else {
        return ExitCode::from(64);
    };
    let Some((namespace, application)) = parse(arguments) else {
        let _ = descriptors::send(&control, "error 22 the arguments are not the agent's", &[]);
        return ExitCode::from(64);
    };
    if let Some(Err(error)) = namespace.as_ref().map(namespace::enter) {
        let _ = descriptors::send(&control, &refusal(0, &error), &[]);
        return ExitCode::FAILURE;
    }
    if descriptors::send(&control, "ok", &[]).is_err() {
        return ExitCode::FAILURE;
    }
    let mut inside = Inside {
        control,
        channels: Vec::new(),
        application,
        child: None,
    };
    let ended = inside.serve();
    inside.kill();
    if ended.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The application to run, and the process group that it joins (0 for one of its own).
struct Application {
    command: Vec<OsString>,
    group: i32,
}

fn parse(arguments: Vec<OsString>) -> Option<(Option<namespace::Settings>, Application)> {
    let mut arguments = arguments.into_iter();
    let mut text = || arguments.next()?.into_string().ok();
    let namespace = match text()?.as_str() {
        NAMESPACE => Some(parse_namespace(&mut text)?),
        HOST => None,
        _ => return None,
    };
    let group = text()?.parse().ok()?;
    Some((
        namespace,
        Application {
            command: arguments.collect(),
            group,
        },
    ))
}

fn parse_namespace(text: &mut impl FnMut() -> Option<String>) -> Option<namespace::Settings> {
    let source: Ipv4Addr = text()?.parse().ok()?;
    let workload = text()?.parse().ok()?;
    let hosts = PathBuf::from(text()?);
    let resolver = PathBuf::from(text()?);
    Some(namespace::Settings {
        source,
        workload,
        workload_network: NETWORK,
        outbound_port: OUTBOUND_PORT,
        files: vec![
            (hosts, PathBuf::from("/etc/hosts")),
            (resolver, PathBuf::from("/etc/resolv.conf")),
        ],
    })
}

struct Inside {
    control: OwnedFd,
    channels: Vec<OwnedFd>,
    application: Application,
    child: Option<Child>,
}

impl Inside {
    /// Answers until the agent is gone.
    fn serve(&mut self) -> io::Result<()> {
        loop {
            let ready = self.wait()?;
            if ready.first() == Some(&0) {
                let Some(message) = descriptors::receive(&self.control)? else {
                    return Ok(());
                };
                self.answer(message)?;
            }
            for index in ready.into_iter().filter(|index| *index > 0).rev() {
                if !net::broker::serve_channel(&self.channels[index - 1]).unwrap_or(false) {
                    self.channels.remove(index - 1);
                }
            }
        }
    }

    /// The channels that have something to read, in order; 0 is the control channel.
    fn wait(&self) -> io::Result<Vec<usize>> {
        let all = std::iter::once(&self.control).chain(&self.channels);
        let mut polled: Vec<PollFd<'_>> = all.map(|channel| PollFd::new(channel, PollFlags::IN)).collect();
        match poll(&mut polled, None) {
            Err(rustix::io::Errno::INTR) => return Ok(Vec::new()),
            other => other?,
        };
        let ready = polled
            .iter()
            .enumerate()
            .filter(|(_, channel)| !channel.revents().is_empty());
        Ok(ready.map(|(index, _)| index).collect())
    }

    fn answer(&mut self, message: Message) -> io::Result<()> {
        let (verb, argument) = message.text.split_once(' ').unwrap_or((&message.text, ""));
        let outcome = match verb {
            "listen" => self
                .listen(argument)
                .map(|listener| ("ok".to_owned(), Some(listener))),
            "datagram" => self
                .datagram(argument)
                .map(|socket| ("ok".to_owned(), Some(socket))),
            "channel" => {
                self.channels.extend(message.descriptors);
                Ok(("ok".to_owned(), None))
            }
            "run" => self.run().map(|pid| (format!("ok {pid}"), None)),
            "reap" => self.reap().map(|text| (text, None)),
            "signal" => self.signal(argument).map(|()| ("ok".to_owned(), None)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "no such question")),
        };
        match outcome {
            Ok((text, None)) => descriptors::send(&self.control, &text, &[]),
            Ok((text, Some(descriptor))) => descriptors::send(&self.control, &text, &[descriptor.as_fd()]),
            Err(error) => {
                let number = error.raw_os_error().unwrap_or_default();
                descriptors::send(&self.control, &refusal(number, &error), &[])
            }
        }
    }

    fn listen(&self, address: &str) -> io::Result<OwnedFd> {
        let address = address
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        net::socket::listen(address, PortSharing::Shared)
    }

    fn datagram(&self, address: &str) -> io::Result<OwnedFd> {
        let address = address
            .parse()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        net::socket::datagram(address)
    }

    fn run(&mut self) -> io::Result<u32> {
        let [program, arguments @ ..] = self.application.command.as_slice() else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "no command was given",
            ));
        };
        let mut command = Command::new(program);
        command.args(arguments).process_group(self.application.group);
        net::process::die_with_parent(&mut command, Signal::KILL);
        let child = command.spawn()?;
        let pid = child.id();
        self.child = Some(child);
        Ok(pid)
    }

    fn reap(&mut self) -> io::Result<String> {
        let mut child = self
            .child
            .take()
            .ok_or_else(|| io::Error::from_raw_os_error(libc_echild()))?;
        let status = child.wait()?;
        Ok(match (status.code(), status.signal()) {
            (Some(code), _) => format!("ok code {code}"),
            (None, signal) => format!("ok signal {}", signal.unwrap_or_default()),
        })
    }

    fn signal(&self, number: &str) -> io::Result<()> {
        let signal = number.parse().ok().and_then(Signal::from_named_raw);
        let signal = signal.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no such signal"))?;
        let child = self
            .child
            .as_ref()
            .ok_or_else(|| io::Error::from(rustix::io::Errno::SRCH))?;
        let pid = Pid::from_child(child);
        // In a group of its own the application's children hear the signal too. In the terminal's group everybody else
        // of that group would, so there it is for the application only.
        if self.application.group == 0 {
            rustix::process::kill_process_group(pid, signal)?;
        } else {
            rustix::process::kill_process(pid, signal)?;
        }
        Ok(())
    }

    fn kill(&mut self) {
        if self.child.is_some() {
            let _ = self.signal(&Signal::KILL.as_raw().to_string());
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
    }
}

fn libc_echild() -> i32 {
    rustix::io::Errno::CHILD.raw_os_error()
}

fn refusal(number: i32, error: &dyn std::fmt::Display) -> String {
    format!("error {number} {error}")
}
