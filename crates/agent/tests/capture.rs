//! An application in its namespace, with real processes: this file starts itself again as the process inside.
//!
//! It runs without the test harness because user namespaces can only be entered by a process with one thread. As root
//! the namespaces need no user namespace; the tests of crate `net` also run as an ordinary user.
#![allow(clippy::print_stdout, reason = "this is a test harness of its own")]

use std::ffi::OsString;
use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use agent::capture::{Capture, Exit, Namespace, Output, Settings, inside};
use net::broker::{Family, Sockets};
use net::process::Watched;
use rustix::process::{Pid, Signal};

const WORKLOAD: Ipv4Addr = Ipv4Addr::new(127, 66, 251, 7);

/// How long anything here may take before its test fails.
const PATIENCE: Duration = Duration::from_secs(20);

type Case = fn(&Shell);

const CASES: &[(&str, &str, Case)] = &[
    ("an_application_ends_with_its_code", "exit 3", |shell| {
        assert_eq!(shell.run_to_end(), Exit::Code(3));
    }),
    (
        "a_signal_reaches_the_application_and_its_children",
        "sleep 600; exit 1",
        |shell| {
            let (_, watched) = shell.run();
            shell.capture.signal(Signal::TERM).unwrap();
            shell.wait(&watched);
            assert_eq!(shell.capture.reap().unwrap(), Exit::Signal(15));
        },
    ),
    (
        "an_application_that_ended_can_be_started_again",
        "exit 4",
        |shell| {
            assert_eq!(shell.run_to_end(), Exit::Code(4));
            assert_eq!(shell.run_to_end(), Exit::Code(4));
        },
    ),
    (
        "the_application_sees_its_own_hosts_file_and_environment",
        "cat /etc/hosts; echo $GREETING",
        |shell| {
            assert_eq!(shell.run_to_end(), Exit::Code(0));
            assert_eq!(shell.output(), "10.96.0.7 reviews\nhello\n");
        },
    ),
    (
        "a_captured_connection_reaches_a_listener_from_inside",
        "exec 5<>/dev/tcp/10.96.0.7/9080; echo hi >&5",
        |shell| {
            let listener = shell.listen("127.0.0.1:15001");
            shell.run();
            let mut connection = accept(&listener);
            assert_eq!(
                net::socket::original_destination(&connection)
                    .unwrap()
                    .to_string(),
                "10.96.0.7:9080"
            );
            let mut text = String::new();
            connection.read_to_string(&mut text).unwrap();
            assert_eq!(text, "hi\n");
        },
    ),
    ("a_socket_of_the_channel_lives_inside", "sleep 600", |shell| {
        let sockets = Sockets::new(shell.capture.namespace_channel().unwrap());
        let listener = shell.listen("127.0.0.1:9080");
        let socket = sockets.socket(Family::V4).unwrap();
        rustix::io::ioctl_fionbio(&socket, false).unwrap();
        rustix::net::connect(&socket, &SocketAddr::new(WORKLOAD.into(), 9080)).unwrap();
        TcpStream::from(socket).write_all(b"x").unwrap();
        let mut byte = [0];
        accept(&listener).read_exact(&mut byte).unwrap();
    }),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == "inside") {
        return inside::main(arguments.collect());
    }
    for (name, script, case) in CASES {
        case(&Shell::start(&["bash", "-c", script], true));
        println!("test {name} ... ok");
    }
    for in_namespace in [true, false] {
        dropping_a_capture_ends_the_application(in_namespace);
    }
    println!("test dropping_a_capture_ends_the_application ... ok");
    on_the_host_the_application_sees_the_host();
    println!("test on_the_host_the_application_sees_the_host ... ok");
    a_command_that_does_not_exist_is_reported();
    println!("test a_command_that_does_not_exist_is_reported ... ok");
    ExitCode::SUCCESS
}

/// A shell command in a namespace.
struct Shell {
    runtime: tokio::runtime::Runtime,
    capture: Capture,
    folder: tempfile::TempDir,
}

impl Shell {
    fn start(command: &[&str], in_namespace: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        std::fs::write(&hosts, "10.96.0.7 reviews\n").unwrap();
        let program = vec![std::env::current_exe().unwrap().into_os_string(), "inside".into()];
        let namespace = Namespace {
            source: Ipv4Addr::new(10, 66, 251, 7),
            workload: WORKLOAD,
            resolver: hosts.clone(),
            hosts,
        };
        let settings = Settings {
            program,
            namespace: in_namespace.then_some(namespace),
            command: command.iter().map(OsString::from).collect(),
            environment: vec![("GREETING".to_owned(), "hello".to_owned())],
            output: Output::File(File::create(folder.path().join("log")).unwrap()),
        };
        let capture = runtime.block_on(async {
            let capture = Capture::start(settings).unwrap();
            capture.entered().await.unwrap();
            capture
        });
        Self {
            runtime,
            capture,
            folder,
        }
    }

    fn run(&self) -> (Pid, Watched) {
        let pid = self.capture.run().unwrap();
        (pid, Watched::open(pid).unwrap())
    }

    fn wait(&self, watched: &Watched) {
        let ended = async { tokio::time::timeout(PATIENCE, watched.ended()).await };
        self.runtime
            .block_on(ended)
            .expect("the application ends")
            .unwrap();
    }

    fn listen(&self, address: &str) -> TcpListener {
        TcpListener::from(self.capture.listen(address.parse().unwrap()).unwrap())
    }

    fn run_to_end(&self) -> Exit {
        let (_, watched) = self.run();
        self.wait(&watched);
        self.capture.reap().unwrap()
    }

    fn output(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

/// Accepts a connection that reads with a bound, within a bound.
fn accept(listener: &TcpListener) -> TcpStream {
    let end = Instant::now() + PATIENCE;
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(false).unwrap();
                connection.set_read_timeout(Some(PATIENCE)).unwrap();
                return connection;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => panic!("no connection came: {error}"),
        }
    }
}

fn on_the_host_the_application_sees_the_host() {
    let shell = Shell::start(
        &["bash", "-c", "cat /etc/hosts; readlink /proc/self/ns/net; exit 5"],
        false,
    );
    assert_eq!(shell.run_to_end(), Exit::Code(5));
    let hosts = std::fs::read_to_string("/etc/hosts").unwrap();
    let network = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_eq!(shell.output(), format!("{hosts}{}\n", network.display()));
}

fn dropping_a_capture_ends_the_application(in_namespace: bool) {
    let shell = Shell::start(&["sleep", "600"], in_namespace);
    let (pid, _) = shell.run();
    drop(shell);
    assert!(Watched::open(pid).is_err(), "{pid:?} still runs");
}

fn a_command_that_does_not_exist_is_reported() {
    let shell = Shell::start(&["/nonexistent/program"], true);
    assert_eq!(
        shell.capture.run().unwrap_err().kind(),
        std::io::ErrorKind::NotFound
    );
}
