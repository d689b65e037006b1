//! Child processes that do not outlive their parent, and descriptors that they inherit.
#![allow(unsafe_code, reason = "what runs between fork and exec is unsafe by nature")]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::Signal;

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

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::process::Stdio;

    #[test]
    fn a_child_reads_the_descriptor_it_inherits() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello >&7"]).stdin(Stdio::null());
        inherit(&mut command, writer.into(), 7);
        let status = command.status().unwrap();
        assert!(status.success());
        drop(command);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\n");
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
        let status = child.wait().unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(9));
    }
}
