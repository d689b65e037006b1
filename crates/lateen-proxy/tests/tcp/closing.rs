//! How a connection's end on one side is told on the other.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use crate::harness::program::{Program, on_both};
use crate::harness::{Proxy, cluster, connect, eventually, lines, listener};
use crate::world::{accepting, reset, tcp, through};

const LOG: &str = "%RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT%";

/// A proxy between the client and the server of a check, with what it logs.
fn check_end(program: &Program, log: &str, talk: impl FnOnce(TcpStream, TcpStream)) -> Proxy {
    let (address, server) = accepting();
    let listener = listener("l", &tcp("app", "", LOG));
    let proxy = program.start(listener, cluster("app", address));
    let (client, server) = through(proxy.listener("l"), &server);
    talk(client, server);
    assert_eq!(lines(&proxy, "log", 1)[0], log);
    proxy
}

/// Everything up to the end.
fn rest(stream: &mut TcpStream) -> std::io::Result<String> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text)
}

#[test]
fn a_server_may_answer_after_the_client_has_finished() {
    on_both("a_server_may_answer_after_the_client_has_finished", |program| {
        check_end(program, "- 8 6", |mut client, mut server| {
            client.write_all(b"question").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut server).unwrap(), "question");
            server.write_all(b"answer").unwrap();
            drop(server);
            assert_eq!(rest(&mut client).unwrap(), "answer");
        });
    });
}

#[test]
fn a_client_may_go_on_after_the_server_has_finished() {
    on_both("a_client_may_go_on_after_the_server_has_finished", |program| {
        check_end(program, "- 4 8", |mut client, mut server| {
            server.write_all(b"greeting").unwrap();
            server.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut client).unwrap(), "greeting");
            client.write_all(b"last").unwrap();
            drop(client);
            assert_eq!(rest(&mut server).unwrap(), "last");
        });
    });
}

#[test]
fn a_reset_by_the_server_reaches_the_client_as_one() {
    on_both("a_reset_by_the_server_reaches_the_client_as_one", |program| {
        check_end(program, "UR 1 3", |mut client, mut server| {
            client.write_all(b"a").unwrap();
            server.read_exact(&mut [0]).unwrap();
            server.write_all(b"abc").unwrap();
            client.read_exact(&mut [0; 3]).unwrap();
            reset(server);
            assert_eq!(rest(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    });
}

#[test]
fn a_reset_by_the_client_reaches_the_server_as_one() {
    on_both("a_reset_by_the_client_reaches_the_server_as_one", |program| {
        check_end(program, "- 1 0", |mut client, mut server| {
            client.write_all(b"a").unwrap();
            server.read_exact(&mut [0]).unwrap();
            reset(client);
            assert_eq!(rest(&mut server).unwrap_err().kind(), ErrorKind::ConnectionReset);
        });
    });
}

#[test]
fn a_reset_reaches_the_other_side_in_the_midst_of_a_long_transfer() {
    on_both(
        "a_reset_reaches_the_other_side_in_the_midst_of_a_long_transfer",
        |program| {
            let (address, servers) = accepting();
            let proxy = program.start(
                listener("l", &tcp("app", "", "%RESPONSE_FLAGS%")),
                cluster("app", address),
            );
            let (mut client, mut server) = through(proxy.listener("l"), &servers);
            let writer = std::thread::spawn(move || {
                let chunk = vec![7; 1 << 16];
                while client.write_all(&chunk).is_ok() {}
                // What broke the write is told by the next read, if the write did not.
                client.read(&mut [0])
            });
            server.read_exact(&mut vec![0; 4 << 20]).unwrap();
            reset(server);
            let end = writer.join().unwrap();
            assert!(matches!(&end, Ok(0)) || end.is_err(), "{end:?}");
            assert_eq!(lines(&proxy, "log", 1)[0], "UR");
        },
    );
}

#[test]
fn every_byte_of_a_long_transfer_is_counted_once() {
    const BYTES: usize = 4 << 20;
    on_both("every_byte_of_a_long_transfer_is_counted_once", |program| {
        let expected = format!("- {BYTES} {}", BYTES + 3);
        let proxy = check_end(program, &expected, |mut client, mut server| {
            let echo = std::thread::spawn(move || {
                let mut reading = server.try_clone().unwrap();
                std::io::copy(&mut reading, &mut server).unwrap();
                server.write_all(b"end").unwrap();
            });
            let mut writing = client.try_clone().unwrap();
            let writer = std::thread::spawn(move || {
                writing.write_all(&vec![7; BYTES]).unwrap();
                writing.shutdown(Shutdown::Write).unwrap();
            });
            let mut received = Vec::new();
            client.read_to_end(&mut received).unwrap();
            assert_eq!((received.len(), &received[BYTES..]), (BYTES + 3, &b"end"[..]));
            writer.join().unwrap();
            echo.join().unwrap();
        });
        for (stat, bytes) in [
            ("tcp.tcp.downstream_cx_rx_bytes_total", BYTES),
            ("tcp.tcp.downstream_cx_tx_bytes_total", BYTES + 3),
            ("cluster.app.upstream_cx_rx_bytes_total", BYTES + 3),
            ("cluster.app.upstream_cx_tx_bytes_total", BYTES),
        ] {
            eventually(stat, || (proxy.stat(stat) == bytes as u64).then_some(()));
        }
    });
}

#[test]
fn a_connection_that_is_reset_before_it_is_taken_is_counted_and_recorded() {
    let test = "a_connection_that_is_reset_before_it_is_taken_is_counted_and_recorded";
    on_both(test, |program| {
        let (address, _servers) = accepting();
        let listener = listener("l", &tcp("app", "", "%DOWNSTREAM_REMOTE_ADDRESS%"));
        let proxy = program.start(listener, cluster("app", address));
        let listening = proxy.listener("l");
        let pid = rustix::process::Pid::from_raw(i32::try_from(proxy.pid()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let client = connect(listening).unwrap();
        let client_address = client.local_addr().unwrap();
        reset(client);
        rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
        assert_eq!(lines(&proxy, "log", 1), [client_address.to_string()]);
        for stat in [
            "listener.127.0.0.1_0.downstream_cx_total",
            "tcp.tcp.downstream_cx_total",
        ] {
            assert_eq!(proxy.stat(stat), 1, "{stat}");
        }
    });
}
