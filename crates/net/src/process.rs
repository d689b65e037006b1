//! Child processes that do not outlive their parent, descriptors that they inherit, and waiting for processes.
#![allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, PidfdFlags, Signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Sends `signal` to the child when the thread that starts it ends, however it ends (`PR_SET_PDEATHSIG`).
///
/// The signal follows the *thread*, so start such children from a thread that lives as long as the process.
pub fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = rustix::process::getpid();
    // SAFETY: the closure makes two system calls and touches no memory of the parent beyond two copied integers.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(signal))?;
            // A parent that died before the call above will never be reported.
            if rustix::process::getppid() == Some(parent) {
                Ok(())
            } else {
                Err(io::Error::from_raw_os_error(libc::ESRCH))
            }
        });
    }
}

/// Starts the child in a session of its own (setsid(2)), away from the terminal, so that closing that does not end it.
pub fn new_session(command: &mut Command) {
    // SAFETY: the closure makes one system call and touches no memory.
    unsafe {
        command.pre_exec(|| Ok(rustix::process::setsid().map(drop)?));
    }
}

/// Gives the child `descriptor` under the number `number`, which should be 3 or more.
pub fn inherit(command: &mut Command, descriptor: OwnedFd, number: RawFd) {
    // SAFETY: dup2 and fcntl are async-signal-safe; the descriptor lives as long as the closure, thus the command.
    unsafe {
        command.pre_exec(move || {
            let outcome = if descriptor.as_raw_fd() == number {
                libc::fcntl(number, libc::F_SETFD, 0)
            } else {
                libc::dup2(descriptor.as_raw_fd(), number)
            };
            if outcome < 0 {
                Err(io::Error::last_os_error())
            } else {
                Ok(())
            }
        });
    }
}

/// Takes ownership of a descriptor that the parent passed with [`inherit`].
///
/// # Errors
/// `InvalidInput` when no descriptor of that number is open, which means that the process was not started by us.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    use std::os::fd::FromRawFd;
    // SAFETY: F_GETFD only asks whether the descriptor is open.
    if number < 3 || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("descriptor {number} was not inherited"),
        ));
    }
    // SAFETY: the descriptor is open and, by the agreement with the parent, nobody else in this process owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    Ok(descriptor)
}

/// A process that is watched through a descriptor (pidfd_open(2)), so that its number cannot come to mean another one.
#[derive(Debug)]
pub struct Watched {
    descriptor: OwnedFd,
}

impl Watched {
    /// Watches a process. It need not be a child.
    ///
    /// # Errors
    /// `NotFound`-like (`ESRCH`) when there is no such process.
    pub fn open(pid: Pid) -> io::Result<Self> {
        Ok(Self {
            descriptor: rustix::process::pidfd_open(pid, PidfdFlags::empty())?,
        })
    }

    /// Waits until the process has ended. A child still has to be reaped by its parent.
    ///
    /// # Errors
    /// Only when the runtime cannot watch the descriptor.
    pub async fn ended(&self) -> io::Result<()> {
        readable(&self.descriptor).await
    }

    /// Sends a signal to it, and only to it.
    ///
    /// # Errors
    /// `ESRCH` when it has ended, `PermissionDenied` when it is somebody else's.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.descriptor, signal)?)
    }
}

/// Waits until a descriptor has something to read, or its other side is closed. Nothing is read.
///
/// # Errors
/// Only when the runtime cannot watch the descriptor, as with regular files.
pub async fn readable(descriptor: impl AsFd) -> io::Result<()> {
    // SAFETY: the borrow outlives the registration, which ends with this function.
    let watched = unsafe { AsyncFd::register_with_interest(descriptor.as_fd(), Interest::READABLE) }?;
    watched.readable().await?.retain_ready();
    Ok(())
}

/// Allows this process as many open descriptors as an administrator may (`RLIMIT_NOFILE`): a proxy needs two for each
/// connection, and the usual soft limit of 1024 is meant for programs that use select(2). The new limit.
///
/// # Errors
/// What `setrlimit` reports.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: hard,
            maximum: hard,
        },
    )?;
    Ok(hard)
}

/// Sends what this process writes to standard error to `file` from now on.
///
/// # Errors
/// What `dup2` reports.
pub fn redirect_stderr(file: impl AsFd) -> io::Result<()> {
    Ok(rustix::stdio::dup2_stderr(file)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{PATIENCE, within};
    use std::io::Read;
    use std::process::Stdio;

    #[test]
    fn a_child_reads_the_descriptor_it_inherits() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello >&7"]).stdin(Stdio::null());
        inherit(&mut command, writer.into(), 7);
        let (status, text) = within(move || {
            let status = command.status().unwrap();
            drop(command);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            (status, text)
        });
        assert!(status.success());
        assert_eq!(text, "hello\n");
    }

    #[tokio::test]
    async fn a_watched_process_is_seen_to_end() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let watched = Watched::open(Pid::from_child(&child)).unwrap();
        let waiting = tokio::time::timeout(std::time::Duration::from_millis(20), watched.ended()).await;
        assert!(waiting.is_err(), "it is still running");
        watched.signal(Signal::TERM).unwrap();
        tokio::time::timeout(PATIENCE, watched.ended())
            .await
            .expect("in time")
            .unwrap();
        assert!(!within(move || child.wait()).unwrap().success());
    }

    #[test]
    fn a_child_dies_with_the_thread_that_started_it() {
        let mut child = std::thread::spawn(|| {
            let mut command = Command::new("sleep");
            command.arg("600");
            die_with_parent(&mut command, Signal::KILL);
            command.spawn().unwrap()
        })
        .join()
        .unwrap();
        let status = within(move || child.wait()).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
