//! Who is at the other end of a Unix socket, as the kernel says (`SO_PEERCRED`, `SO_PEERPIDFD`; unix(7)).
#![allow(
    unsafe_code,
    reason = "rustix does not know SO_PEERPIDFD, and takes no process for one whose number is not seen"
)]

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags};

/// The process that connected a Unix socket, or listened on it.
///
/// A process's number says who it is only as long as the process lives. This value holds the process itself, so that
/// what was read about a number can be checked to have been about this process: read, then ask [`Peer::is_alive`].
#[derive(Debug)]
pub struct Peer {
    /// Its effective user when it connected.
    pub uid: u32,
    /// Its effective group when it connected.
    pub gid: u32,
    /// Its number in this process's namespace of processes.
    pub pid: u32,
    process: OwnedFd,
}

impl Peer {
    /// The peer of a connected socket.
    ///
    /// Kernels before 6.5 do not hand over the process, so that it is found by its number; a process that has ended
    /// since, and whose number another one has got, is taken for that one if both have the same user.
    ///
    /// # Errors
    /// When the socket is not a Unix socket, or its peer has ended or is in a namespace of processes that is not seen
    /// from here.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let unknown = libc::ucred {
            pid: 0,
            uid: u32::MAX,
            gid: u32::MAX,
        };
        let credentials = option(socket, libc::SO_PEERCRED, unknown)?;
        // A peer in a namespace of processes that is not seen from here has no number, and no socket of another kind a
        // peer.
        let pid = Pid::from_raw(credentials.pid).ok_or(io::Error::from_raw_os_error(libc::ESRCH))?;
        let process = match process_of(socket) {
            Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => {
                rustix::process::pidfd_open(pid, PidfdFlags::empty())?
            }
            handed => handed?,
        };
        let peer = Self {
            uid: credentials.uid,
            gid: credentials.gid,
            pid: pid.as_raw_nonzero().get().cast_unsigned(),
            process,
        };
        match peer.is_alive() {
            true => Ok(peer),
            false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
        }
    }

    /// Whether the process has not ended, so that its number is still its own.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let mut ended = [PollFd::new(&self.process, PollFlags::IN)];
        let now = Timespec::try_from(Duration::ZERO).ok();
        // A process's descriptor becomes readable when it ends.
        matches!(poll(&mut ended, now.as_ref()), Ok(0))
    }
}

/// Numbers of which the kernel may write any value.
trait Plain: Copy {}

impl Plain for libc::c_int {}
impl Plain for libc::ucred {}

/// A socket's option, written over `value`.
fn option<T: Plain>(socket: &impl AsFd, name: libc::c_int, mut value: T) -> io::Result<T> {
    let mut size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the kernel writes at most `size` bytes, which is the size of `value`; both outlive the call, and any bytes
    // are a value of a plain type.
    let outcome = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut size,
        )
    };
    match outcome {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

fn process_of(socket: &impl AsFd) -> io::Result<OwnedFd> {
    let descriptor: libc::c_int = option(socket, libc::SO_PEERPIDFD, -1)?;
    if descriptor < 0 {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    // SAFETY: the call has succeeded, so `descriptor` is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn the_peer_is_the_process_that_connected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = UnixStream::connect(&path).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let peer = Peer::of(&accepted).unwrap();
        assert_eq!(peer.pid, std::process::id());
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert_eq!(peer.gid, rustix::process::getegid().as_raw());
        assert!(peer.is_alive());
    }

    #[test]
    fn a_socket_without_a_peer_is_refused() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Peer::of(&listener).is_err());
        let lonely = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(Peer::of(&lonely).is_err());
    }

    #[test]
    fn a_peer_that_has_ended_is_not_alive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let script =
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.recv(1)";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let peer = Peer::of(&accepted).unwrap();
        assert_eq!(peer.pid, child.id());
        assert!(peer.is_alive());
        drop(accepted);
        child.wait().unwrap();
        assert!(!peer.is_alive());
    }

    #[test]
    fn a_peer_that_ended_before_it_was_asked_for_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(&path)
            .spawn()
            .unwrap();
        child.wait().unwrap();
        let (accepted, _) = listener.accept().unwrap();
        assert!(Peer::of(&accepted).is_err());
    }
}
