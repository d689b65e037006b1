//! Where a body ends is told by the body that there is, whatever became of the fields on the way.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::PATIENCE;
use crate::{answer, connect, exchange, proxy, read_until, scripted};

/// A request inside of a body, which nobody may take for one.
const HIDDEN: &str = "GET /admin HTTP/1.1\r\nhost: hidden\r\n\r\n";

/// Extra fields of the test's route, beside its action.
fn of_route(fields: &str) -> String {
    format!(" }}, {fields}, metadata: {{")
}

#[test]
fn a_request_whose_length_was_removed_goes_on_in_chunks() {
    let removes = of_route("request_headers_to_remove: [content-length]");
    for (route, fields) in [("", "connection: content-length\r\n"), (&removes, "")] {
        let (seen, requests) = mpsc::sync_channel(4);
        let (upstream, _) = scripted(move |_, stream| {
            let _ = seen.send(read_until(stream, "\r\n0\r\n\r\n"));
            answer(stream, "");
        });
        let proxy = proxy(upstream, route, "");
        let mut client = connect(&proxy);
        let length = HIDDEN.len();
        let head = format!("POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n{fields}\r\n");
        client.write_all(format!("{head}{HIDDEN}").as_bytes()).unwrap();
        let seen = requests.recv_timeout(PATIENCE).unwrap();
        let (head, body) = seen.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("transfer-encoding: chunked"), "{head}");
        assert!(!head.contains("content-length"), "{head}");
        assert_eq!(body, format!("{length:x}\r\n{HIDDEN}\r\n0\r\n\r\n"));
    }
}

#[test]
fn a_host_may_not_be_nominated_away() {
    let (upstream, connections) = scripted(|_, stream| answer(stream, "reached"));
    let proxy = proxy(upstream, "", "");
    let response = exchange(&proxy, "GET / HTTP/1.1\r\nhost: a\r\nconnection: host\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn an_answer_whose_length_was_removed_goes_on_in_chunks() {
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "\r\n\r\n");
        answer(stream, "hello");
    });
    let route = of_route("response_headers_to_remove: [content-length]");
    let proxy = proxy(upstream, &route, "");
    let response = exchange(&proxy, "GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("transfer-encoding: chunked"), "{head}");
    assert!(!head.contains("content-length"), "{head}");
    assert_eq!(body, "5\r\nhello\r\n0\r\n\r\n");
}

#[test]
fn an_empty_body_of_unknown_length_is_whole_at_the_second_try() {
    let (seen, requests) = mpsc::sync_channel(4);
    let (upstream, _) = scripted(move |number, stream| {
        if number == 0 {
            read_until(stream, "\r\n0\r\n\r\n");
            return;
        }
        let _ = seen.send(read_until(stream, "\r\n\r\n"));
        answer(stream, "second try");
    });
    let route = ", retry_policy: { retry_on: reset, num_retries: 1 }";
    let proxy = proxy(upstream, route, "");
    let request = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n";
    let response = exchange(&proxy, request);
    assert!(response.ends_with("second try"), "{response}");
    let head = requests.recv_timeout(PATIENCE).unwrap();
    assert!(head.contains("content-length: 0"), "{head}");
    assert!(!head.contains("transfer-encoding"), "{head}");
}

#[test]
fn a_host_that_answers_early_gets_the_whole_body() {
    const BODY: usize = 8 << 20;
    const PIECE: usize = 128 << 10;
    let (upstream, _) = scripted(|_, stream| {
        read_until(stream, "\r\n\r\n");
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n");
        let (mut piece, mut received) = (vec![0; PIECE], 0);
        while received < BODY {
            match stream.read(&mut piece) {
                Ok(0) | Err(_) => break,
                Ok(count) => received += count,
            }
            // Slower than the client, so that something waits in the proxy when the client has sent everything.
            std::thread::sleep(Duration::from_millis(1));
        }
        let _ = stream.write_all(format!("{received:8}").as_bytes());
    });
    let proxy = proxy(upstream, "", "");
    let mut client = connect(&proxy);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {BODY}\r\n\r\n");
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&vec![b'x'; BODY]).unwrap();
    assert!(read_until(&mut client, "\r\n\r\n").starts_with("HTTP/1.1 200 "));
    let mut count = [0; 8];
    client.read_exact(&mut count).unwrap();
    assert_eq!(
        String::from_utf8_lossy(&count).trim(),
        BODY.to_string(),
        "all of it arrived"
    );
}
