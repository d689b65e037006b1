//! The `Headers` type: look-ups, mutations, and what is written.

use proxy_http::{HeadLimits, HeadParser, HeaderId, HeaderName, Headers, RequestHead, write_request_head};

fn parse(text: &str) -> RequestHead {
    let mut head = RequestHead::new();
    let parsed = HeadParser::new(HeadLimits::default()).request(text.as_bytes(), &mut head);
    assert!(parsed.expect("a valid head").complete, "an incomplete head");
    head
}

fn written(head: &RequestHead) -> String {
    let mut out = Vec::new();
    write_request_head(&mut out, head);
    String::from_utf8(out).expect("ASCII")
}

const HEAD: &str =
    "GET /a?b HTTP/1.1\r\nHost: shop\r\nX-One: 1\r\nAccept:*/*\r\nX-Two:   2  \r\nx-one: 3\r\n\r\n";

#[test]
fn an_untouched_head_goes_out_as_it_came_in_with_lower_case_names() {
    assert_eq!(
        written(&parse(HEAD)),
        "GET /a?b HTTP/1.1\r\nhost: shop\r\nx-one: 1\r\naccept: */*\r\nx-two: 2\r\nx-one: 3\r\n\r\n"
    );
}

#[test]
fn fields_are_found_by_name_by_id_and_by_compiled_name() {
    let head = parse(HEAD);
    assert_eq!(head.headers.get("x-one"), Some(&b"1"[..]));
    assert_eq!(head.headers.get(b"accept"), Some(&b"*/*"[..]));
    assert_eq!(head.headers.get(&HeaderId::Accept), Some(&b"*/*"[..]));
    assert_eq!(head.headers.get(&HeaderName::new("X-Two")), Some(&b"2"[..]));
    assert_eq!(head.headers.get("x-three"), None);
    assert_eq!(head.headers.get_all("x-one").collect::<Vec<_>>(), [b"1", b"3"]);
    assert_eq!(head.headers.len(), 4, "host is not counted among the fields");
}

#[test]
fn pseudo_header_fields_are_found_like_others_and_host_is_the_authority() {
    let head = parse(HEAD);
    for (name, value) in [
        (":method", "GET"),
        (":path", "/a?b"),
        (":authority", "shop"),
        ("host", "shop"),
    ] {
        assert_eq!(head.headers.get(name), Some(value.as_bytes()), "{name}");
    }
    assert_eq!(
        (head.path_without_query(), head.query()),
        (&b"/a"[..], Some(&b"b"[..]))
    );
    assert_eq!(head.headers.get(&HeaderName::new("Host")), Some(&b"shop"[..]));
}

#[test]
fn setting_keeps_the_place_and_removes_the_others_of_the_name() {
    let mut head = parse(HEAD);
    head.headers.set("x-one", b"9");
    head.headers.append("x-one", b"10");
    head.headers.remove("accept");
    assert!(
        !head.headers.insert("x-two", b"no"),
        "present fields are left alone"
    );
    assert_eq!(
        written(&head),
        "GET /a?b HTTP/1.1\r\nhost: shop\r\nx-one: 9\r\nx-two: 2\r\nx-one: 10\r\n\r\n"
    );
    assert_eq!(head.headers.len(), 3);
}

#[test]
fn removing_the_first_of_several_makes_the_next_one_the_first() {
    let mut headers = Headers::new();
    for value in ["a", "b", "c"] {
        headers.append(&HeaderId::Cookie, value.as_bytes());
    }
    headers.retain(|_, value| value != b"a");
    assert_eq!(headers.get(&HeaderId::Cookie), Some(&b"b"[..]));
    assert!(headers.remove(&HeaderId::Cookie));
    assert!(!headers.contains(&HeaderId::Cookie) && headers.is_empty());
    headers.append(&HeaderId::Cookie, b"d");
    assert_eq!(headers.get_all("cookie").collect::<Vec<_>>(), [b"d"]);
}

#[test]
fn appending_to_a_list_joins_the_values() {
    let mut head = parse("GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1\r\n\r\n");
    head.headers
        .append_to_list(&HeaderId::XForwardedFor, b",", b"2.2.2.2");
    head.headers.append_to_list(&HeaderId::Via, b",", b"1.1 me");
    assert_eq!(
        written(&head),
        "GET / HTTP/1.1\r\nhost: a\r\nx-forwarded-for: 1.1.1.1,2.2.2.2\r\nvia: 1.1 me\r\n\r\n"
    );
}

#[test]
fn an_absolute_target_gives_authority_and_path_and_outranks_host() {
    let head = parse("GET http://shop:81?q=1 HTTP/1.1\r\nhost: other\r\n\r\n");
    assert_eq!(
        (head.authority(), head.path(), head.scheme()),
        (&b"shop:81"[..], &b"/?q=1"[..], &b"http"[..])
    );
    assert_eq!(written(&head), "GET /?q=1 HTTP/1.1\r\nhost: shop:81\r\n\r\n");
}

#[test]
fn white_space_around_a_value_never_travels_on() {
    for value in [
        "\ta\tb\t",
        " a\tb ",
        "a\tb",
        "  a\tb",
        "\ta\tb",
        " a\tb\t\t",
        "a\tb ",
    ] {
        let mut head = parse(&format!(
            "GET / HTTP/1.1\r\nhost: a\r\nx:{value}\r\ny: 1\r\nz:\t\r\n\r\n"
        ));
        head.headers.append("w", b"2");
        let expected = "GET / HTTP/1.1\r\nhost: a\r\nx: a\tb\r\ny: 1\r\nz: \r\nw: 2\r\n\r\n";
        assert_eq!(written(&head), expected, "{value:?}");
    }
}
