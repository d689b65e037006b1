//! Clients that mean harm: each ends its own connection, and no other.

use crate::harness::{Proxy, eventually, get};
use crate::peer::http2_proxy;
use crate::raw::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, End, GET, HEADERS, PING, POST, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, end_after, frame, open,
};

/// Sends these frames; the connection ends with `ENHANCE_YOUR_CALM`, and others are served.
fn check_refused(attack: &[u8]) -> Proxy {
    let (proxy, _) = http2_proxy("", "");
    let end = end_after(open(proxy.listener("web")), attack);
    // A reset may overtake the last words.
    assert!(
        matches!(end, End::GoAway(ENHANCE_YOUR_CALM) | End::Closed),
        "{end:?}"
    );
    assert_eq!(get(proxy.listener("web"), "GET", "a", "/echo").unwrap().0, 200);
    eventually("the connection is gone", || {
        (proxy.stat("http.http.downstream_cx_http2_active") == 0).then_some(())
    });
    proxy
}

fn request(stream: u32, head: &[u8], flags: u8) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | flags, stream, head)
}

/// Odd stream numbers from 1.
fn streams(count: u32) -> impl Iterator<Item = u32> {
    (0..count).map(|number| 2 * number + 1)
}

#[test]
fn frames_without_payload_are_refused() {
    let mut attack = request(1, POST, 0);
    (0..3).for_each(|_| attack.extend(frame(DATA, 0, 1, &[])));
    let proxy = check_refused(&attack);
    assert_eq!(proxy.stat("http2.inbound_empty_frames_flood"), 1);
}

#[test]
fn priorities_are_refused() {
    let attack = frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 1]).repeat(200);
    let proxy = check_refused(&attack);
    assert_eq!(proxy.stat("http2.inbound_priority_frames_flood"), 1);
}

#[test]
fn window_updates_are_refused() {
    let attack = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(100);
    let proxy = check_refused(&attack);
    assert_eq!(proxy.stat("http2.inbound_window_update_frames_flood"), 1);
}

/// CVE-2023-44487.
#[test]
fn rapid_resets_are_refused() {
    let mut attack = Vec::new();
    for stream in streams(5000) {
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET));
        attack.extend(frame(RST_STREAM, 0, stream, &[0, 0, 0, 8]));
    }
    check_refused(&attack);
}

/// The same from a client that lets each request begin first.
#[test]
fn slow_rapid_resets_are_refused() {
    let (proxy, upstream) = http2_proxy("", "");
    let address = proxy.listener("web");
    crate::peer::run(async {
        let mut client = crate::peer::client(address).await;
        for _ in 0..2000 {
            let Ok(ready) = client.clone().ready().await else {
                return;
            };
            client = ready;
            let hanging = crate::peer::request("GET", "/hang", &[]);
            let Ok((response, _)) = client.send_request(hanging, true) else {
                return;
            };
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            drop(response);
        }
        panic!("the connection goes on");
    });
    assert_eq!(proxy.stat("http.http.downstream_rq_too_many_premature_resets"), 1);
    assert_eq!(get(address, "GET", "a", "/echo").unwrap().0, 200);
    drop(upstream);
}

/// CVE-2025-8671: the client makes us reset its streams, which then do not count as open.
#[test]
fn streams_that_we_are_made_to_reset_are_refused() {
    let mut attack = Vec::new();
    for stream in streams(5000) {
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, GET));
        // A window that overflows is an error of the stream.
        attack.extend(frame(WINDOW_UPDATE, 0, stream, &[0x7f, 0xff, 0xff, 0xff]));
    }
    check_refused(&attack);
}

/// CVE-2024-27316.
#[test]
fn endless_heads_are_refused() {
    let mut attack = frame(HEADERS, 0, 1, GET);
    for number in 0..5000 {
        let field = format!("x-{number:05}");
        let mut block = vec![0, u8::try_from(field.len()).unwrap()];
        block.extend_from_slice(field.as_bytes());
        block.extend([1, b'v']);
        attack.extend(frame(CONTINUATION, 0, 1, &block));
    }
    check_refused(&attack);
}

/// A small head that says a large one by its table again and again.
#[test]
fn heads_that_grow_are_refused() {
    let mut attack = Vec::new();
    for stream in streams(50) {
        let mut head = GET.to_vec();
        if stream == 1 {
            // A field of 3900 bytes for the table.
            head.extend([0x40, 1, b'x', 0x7f, 0xbd, 0x1d]);
            head.extend([b'a'; 3900]);
        }
        head.extend([0xbe; 15_000 / 2]);
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &head));
    }
    let (proxy, upstream) = http2_proxy("", "");
    let end = end_after(open(proxy.listener("web")), &attack);
    assert_ne!(end, End::Open);
    assert_eq!(upstream.requests.load(std::sync::atomic::Ordering::SeqCst), 0);
    assert_eq!(get(proxy.listener("web"), "GET", "a", "/echo").unwrap().0, 200);
}

/// Bytes of memory that a process has in use.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// CVE-2019-9512 and CVE-2019-9515: a client that wants answers and does not read them.
#[test]
fn pings_and_settings_that_nobody_reads_the_answers_of_cost_no_memory() {
    let (proxy, _) = http2_proxy("", "");
    for attack in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
        let stream = open(proxy.listener("web"));
        let before = resident(proxy.pid());
        let mut writer = stream.try_clone().unwrap();
        writer
            .set_write_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let many = attack.repeat(10_000);
        let mut sent = 0;
        // 64 MiB, or until the proxy takes no more because its answers are not read.
        while sent < 64 << 20 && std::io::Write::write_all(&mut writer, &many).is_ok() {
            sent += many.len();
        }
        let grown = resident(proxy.pid()).saturating_sub(before);
        assert!(grown < 8 << 20, "{grown} bytes");
        assert_eq!(get(proxy.listener("web"), "GET", "a", "/echo").unwrap().0, 200);
    }
}
