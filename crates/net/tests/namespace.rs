//! A namespace as a sidecar uses it, with real processes: this file starts itself again, inside.
//!
//! It runs without the test harness because user namespaces can only be entered by a process with one thread. As root
//! it runs each case twice: as root and as an ordinary user. Where the kernel refuses such namespaces the cases are
//! skipped, which fails in CI.
#![allow(clippy::print_stdout, reason = "this is a test harness of its own")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Child, Command, ExitCode};
use std::time::Duration;

use net::broker::serve_channel;
use net::descriptors::{self, Message};
use net::namespace::{NamespaceError, Settings, enter};
use net::socket::{self, PortSharing};

/// How long anything may take before a case fails.
const PATIENCE: Duration = Duration::from_secs(20);
const CHANNEL: i32 = 3;
const NOBODY: u32 = 65534;
const WORKLOAD: Ipv4Addr = Ipv4Addr::new(127, 66, 7, 8);
const OUTBOUND: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 15001);

type Case = fn(&Inside);

const CASES: &[(&str, Case)] = &[
    (
        "a_connection_to_the_outside_reaches_the_sidecar_with_its_original_destination",
        outbound_is_captured,
    ),
    (
        "a_connection_to_another_workload_is_captured_too",
        other_workloads_are_captured,
    ),
    ("a_connection_to_loopback_is_left_alone", loopback_is_left_alone),
    (
        "a_socket_from_inside_reaches_an_app_that_listens_on_loopback_only",
        app_is_reached_on_its_workload_address,
    ),
    ("the_hosts_file_is_private", hosts_file_is_private),
    ("the_user_inside_is_the_user_outside", user_is_the_same),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("inside") {
        inside(arguments.next().unwrap_or_default());
        return ExitCode::SUCCESS;
    }
    let root = rustix::process::geteuid().is_root();
    let program = Program::copied();
    let users: &[Option<u32>] = if root { &[None, Some(NOBODY)] } else { &[None] };
    let mut sum = Sum::default();
    for user in users {
        for (name, case) in CASES {
            let shown = user.unwrap_or(rustix::process::geteuid().as_raw());
            let outcome = sum.add(|| Inside::start(*user, &program).map(|inside| case(&inside)));
            println!("test {name} (user {shown}) ... {outcome}");
        }
    }
    let Sum {
        passed,
        failed,
        skipped,
    } = sum;
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What became of the cases.
#[derive(Default)]
struct Sum {
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Sum {
    /// Runs a case and counts it; what became of it, in words. The message of a panic has been printed by then.
    fn add(&mut self, case: impl FnOnce() -> Result<(), Refused>) -> String {
        match catch_unwind(AssertUnwindSafe(case)) {
            Ok(Ok(())) => {
                self.passed += 1;
                "ok".to_owned()
            }
            Ok(Err(Refused(reason))) if std::env::var_os("CI").is_none() => {
                self.skipped += 1;
                format!("skipped: this machine refuses {reason}")
            }
            Ok(Err(Refused(reason))) => {
                self.failed += 1;
                format!("FAILED: this machine refuses {reason}")
            }
            Err(_) => {
                self.failed += 1;
                "FAILED".to_owned()
            }
        }
    }
}

/// A step of entering that this machine does not grant to anybody: namespaces, or nf_tables.
struct Refused(String);

fn is_refused_by_machine(error: &NamespaceError) -> bool {
    error.step.starts_with("unshare") || error.step.contains("nf_tables")
}

/// This program where every user may run it: the folder it was built in may be closed to others.
struct Program {
    folder: tempfile::TempDir,
}

impl Program {
    fn copied() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::copy(std::env::current_exe().unwrap(), folder.path().join("inside")).unwrap();
        Self { folder }
    }
}

/// The process in the namespace, as seen from outside.
struct Inside {
    child: Child,
    channel: OwnedFd,
    user: u32,
    hosts: tempfile::NamedTempFile,
}

impl Inside {
    fn start(user: Option<u32>, program: &Program) -> Result<Self, Refused> {
        let (channel, theirs) = descriptors::channel().unwrap();
        descriptors::set_receive_timeout(&channel, PATIENCE).unwrap();
        let mut hosts = tempfile::NamedTempFile::new().unwrap();
        hosts.write_all(b"10.96.0.7 reviews\n").unwrap();
        std::fs::set_permissions(hosts.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
        let mut command = Command::new(program.folder.path().join("inside"));
        command.arg("inside").arg(hosts.path());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        net::process::die_with_parent(&mut command, rustix::process::Signal::KILL);
        net::process::inherit(&mut command, theirs, CHANNEL);
        let child = command.spawn().unwrap();
        let user = user.unwrap_or(rustix::process::geteuid().as_raw());
        let inside = Self {
            child,
            channel,
            user,
            hosts,
        };
        let answer = inside.ask("enter").text;
        match answer.strip_prefix("refused ") {
            Some(reason) => Err(Refused(reason.to_owned())),
            None => {
                assert_eq!(answer, "entered");
                Ok(inside)
            }
        }
    }

    fn ask(&self, question: &str) -> Message {
        descriptors::send(&self.channel, question, &[]).unwrap();
        descriptors::receive(&self.channel)
            .unwrap()
            .expect("the process inside ended")
    }

    fn listener(&self) -> TcpListener {
        let listener = TcpListener::from(self.ask("listen").descriptors.remove(0));
        listener.set_nonblocking(false).unwrap();
        // For a listener this is how long it waits for a connection.
        descriptors::set_receive_timeout(&listener, PATIENCE).unwrap();
        listener
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn outbound_is_captured(inside: &Inside) {
    check_captured(inside, "10.1.2.3:5432");
}

fn other_workloads_are_captured(inside: &Inside) {
    check_captured(inside, "127.66.9.9:9080");
}

fn check_captured(inside: &Inside, destination: &str) {
    let listener = inside.listener();
    assert_eq!(inside.ask(&format!("dial {destination}")).text, "connected");
    let (mut connection, _) = listener.accept().unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(
        socket::original_destination(&connection).unwrap().to_string(),
        destination
    );
    let mut greeting = [0; 5];
    connection.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"hello");
    connection.write_all(b"there").unwrap();
    assert_eq!(inside.ask("answer").text, "there");
}

fn loopback_is_left_alone(inside: &Inside) {
    assert_eq!(inside.ask("serve 127.0.0.1:9080").text, "serving");
    assert_eq!(inside.ask("dial 127.0.0.1:9080").text, "connected");
    assert_eq!(inside.ask("answer").text, "howdy");
}

fn app_is_reached_on_its_workload_address(inside: &Inside) {
    assert_eq!(inside.ask("serve 127.0.0.1:80").text, "serving");
    let socket = inside.ask("socket v4 1").descriptors.remove(0);
    let mut connection = connect(socket, SocketAddr::new(WORKLOAD.into(), 80));
    connection.write_all(b"hello").unwrap();
    let mut answer = [0; 5];
    connection.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"howdy");
}

fn connect(socket: OwnedFd, address: SocketAddr) -> TcpStream {
    rustix::io::ioctl_fionbio(&socket, false).unwrap();
    let connection = TcpStream::from(socket);
    // Before the connection is there this is how long it may take to make.
    connection.set_write_timeout(Some(PATIENCE)).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    rustix::net::connect(&connection, &address).unwrap();
    connection
}

fn hosts_file_is_private(inside: &Inside) {
    assert_eq!(inside.ask("hosts").text, "10.96.0.7 reviews\n");
    std::fs::write(inside.hosts.path(), "10.96.0.8 reviews\n").unwrap();
    assert_eq!(
        inside.ask("hosts").text,
        "10.96.0.8 reviews\n",
        "a new version is seen at once"
    );
    assert_ne!(
        std::fs::read_to_string("/etc/hosts").unwrap(),
        "10.96.0.8 reviews\n"
    );
}

fn user_is_the_same(inside: &Inside) {
    assert_eq!(inside.ask("user").text, inside.user.to_string());
}

/// The process inside: answers one line with another.
fn inside(hosts: String) {
    let channel = net::process::inherited(CHANNEL).unwrap();
    let mut connection: Option<TcpStream> = None;
    loop {
        // `socket` questions are answered by the code that a sidecar meets, so they are peeked at, not read.
        let mut line = [0; 512];
        let flags = rustix::net::RecvFlags::PEEK;
        let (length, _) = rustix::net::recv(&channel, &mut line[..], flags).unwrap();
        let line = String::from_utf8_lossy(&line[..length]).into_owned();
        if line.is_empty() {
            return;
        }
        if line.starts_with("socket ") {
            assert!(serve_channel(&channel).unwrap());
            continue;
        }
        descriptors::receive(&channel).unwrap();
        let (verb, argument) = line.split_once(' ').unwrap_or((&line, ""));
        let answer = match verb {
            "enter" => match enter(&settings(&hosts)) {
                Ok(()) => "entered".to_owned(),
                Err(error) if is_refused_by_machine(&error) => format!("refused {error}"),
                Err(error) => panic!("{error}"),
            },
            "listen" => {
                let listener = socket::listen(OUTBOUND, PortSharing::Exclusive).unwrap();
                descriptors::send(&channel, "listening", &[listener.as_fd()]).unwrap();
                continue;
            }
            "dial" => {
                let mut dialled = TcpStream::connect_timeout(&argument.parse().unwrap(), PATIENCE).unwrap();
                dialled.set_read_timeout(Some(PATIENCE)).unwrap();
                dialled.write_all(b"hello").unwrap();
                connection = Some(dialled);
                "connected".to_owned()
            }
            "answer" => {
                let mut answer = [0; 5];
                connection.take().unwrap().read_exact(&mut answer).unwrap();
                String::from_utf8_lossy(&answer).into_owned()
            }
            "serve" => {
                let listener = TcpListener::bind(argument).unwrap();
                std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"howdy"));
                "serving".to_owned()
            }
            "hosts" => std::fs::read_to_string("/etc/hosts").unwrap(),
            "user" => rustix::process::geteuid().as_raw().to_string(),
            other => panic!("no such verb: {other}"),
        };
        descriptors::send(&channel, &answer, &[]).unwrap();
    }
}

fn settings(hosts: &str) -> Settings {
    Settings {
        source: Ipv4Addr::new(10, 66, 7, 8),
        workload: WORKLOAD,
        workload_network: (Ipv4Addr::new(127, 66, 0, 0), 16),
        outbound_port: OUTBOUND.port(),
        files: vec![(hosts.into(), "/etc/hosts".into())],
    }
}
