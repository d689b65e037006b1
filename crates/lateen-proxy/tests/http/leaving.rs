//! Clients that are reset while their host takes nothing: their requests end at once. A real Envoy does not notice.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::program::Program;
use crate::harness::{
    access_log, cluster, connect, eventually, http_filters, lines, listener, upstream_with,
};

/// How long a client waits for its bytes to be taken, before it knows that they are not.
const FULL: Duration = Duration::from_millis(200);

/// Writes a request body until nobody takes any more of it.
fn fill(stream: &mut TcpStream) {
    let head = b"POST /upload HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
    stream.write_all(head).unwrap();
    stream.set_write_timeout(Some(FULL)).unwrap();
    let piece = vec![b'x'; 1 << 20];
    let full = loop {
        if let Err(error) = stream.write(&piece) {
            break error.kind();
        }
    };
    assert_eq!(full, ErrorKind::WouldBlock);
}

fn check(answer: &'static str, log: &str) {
    let (over, is_over) = std::sync::mpsc::sync_channel::<()>(1);
    let is_over = std::sync::Arc::new(std::sync::Mutex::new(is_over));
    let upstream = upstream_with(move |mut stream: TcpStream| {
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(answer.as_bytes());
        // No more is read as long as the test runs.
        let _ = is_over.lock().unwrap().recv();
    });
    let format = access_log("log", "%RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS%");
    let filters =
        http_filters("app").replacen("stat_prefix: http", &format!("stat_prefix: http {format}"), 1);
    let filters = filters.replacen("cluster: app", "cluster: app, timeout: 0s", 1);
    let proxy = Program::Lateen.start(listener("web", &filters), cluster("app", upstream));
    let mut client = connect(proxy.listener("web")).unwrap();
    fill(&mut client);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    assert_eq!(lines(&proxy, "log", 1), [log]);
    for gauge in ["cluster.app.upstream_rq_active", "http.http.downstream_cx_active"] {
        eventually(gauge, || (proxy.stat(gauge) == 0).then_some(()));
    }
    drop(over);
}

#[test]
fn a_client_that_is_reset_while_its_body_is_not_taken_is_seen_to_go() {
    check("", "0 DC downstream_remote_disconnect");
}

#[test]
fn a_client_that_is_reset_while_it_is_answered_and_its_body_is_not_taken_is_seen_to_go() {
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    check(answer, "200 DC downstream_remote_disconnect");
}
