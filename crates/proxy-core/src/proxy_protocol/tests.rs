//! Headers as the specification and Envoy read them, and what no input may do.

use proptest::prelude::*;

use super::*;

fn endpoints(source: &str, destination: &str) -> Endpoints {
    Endpoints {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
    }
}

fn header(bytes: &[u8]) -> Header {
    match parse(bytes) {
        Parsed::Header(header) => header,
        other => panic!("{other:?} of {:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A header of version 2 with this command, family and transport, and rest.
fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    [SIGNATURE_V2, &[0x20 | command, family], &length, rest].concat()
}

const IPV4: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187];

#[test]
fn a_line_of_version_1_tells_both_addresses() {
    let line = b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\nGET";
    let read = header(line);
    assert_eq!(read.endpoints, Some(endpoints("1.2.3.4:80", "5.6.7.8:443")));
    assert_eq!((read.version, &line[read.length..]), (Version::V1, &b"GET"[..]));
    let read = header(b"PROXY TCP6 1:2:3::4 fd00::1 65535 1\r\n");
    assert_eq!(read.endpoints, Some(endpoints("[1:2:3::4]:65535", "[fd00::1]:1")));
}

#[test]
fn a_line_that_says_unknown_tells_no_address_whatever_follows() {
    for line in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN 1 2 3 4\r\n"] {
        let read = header(line);
        assert_eq!((read.endpoints, read.length), (None, line.len()));
    }
}

#[test]
fn malformed_lines_are_refused() {
    for line in [
        "PROXY\r\n",
        "PROXY \r\n",
        "PROXY TCP4\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 80\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 80 443 1\r\n",
        "PROXY TCP4  1.2.3.4 5.6.7.8 80 443\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 80 65536\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7.8 +80 443\r\n",
        "PROXY TCP4 1.2.3.4 5.6.7 80 443\r\n",
        "PROXY TCP4 ::1 ::2 80 443\r\n",
        "PROXY TCP6 1.2.3.4 5.6.7.8 80 443\r\n",
        "PROXY UDP4 1.2.3.4 5.6.7.8 80 443\r\n",
        "PROXY tcp4 1.2.3.4 5.6.7.8 80 443\r\n",
        "PROXY TCP4 0.0.0.0 5.6.7.8 80 443\r\n",
        "PROXY TCP4 1.2.3.4 255.255.255.255 80 443\r\n",
        "PROXY TCP4 1.2.3.4 224.0.0.1 80 443\r\n",
        "PROXY TCP6 ff02::1 ::2 80 443\r\n",
        "OTHER\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Parsed::Malformed(Version::V1), "{line}");
    }
    let endless = [SIGNATURE_V1, &[b'x'; PROXY_PROTOCOL_V1_MAX_BYTES]].concat();
    assert_eq!(parse(&endless), Parsed::Absent);
}

#[test]
fn other_protocols_have_no_header() {
    assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Parsed::Absent);
    assert_eq!(parse(b"GET / HTTP/1.1"), Parsed::NeedMore);
    assert!(!may_begin(b"G", Version::V1) && !may_begin(b"G", Version::V2));
    assert!(may_begin(b"PRO", Version::V1) && !may_begin(b"PRO", Version::V2));
    assert!(may_begin(b"\r\n", Version::V2) && !may_begin(b"\r\n", Version::V1));
}

#[test]
fn version_2_tells_addresses_and_extensions() {
    let rest = [&IPV4[..], &[2, 0, 3, b'a', b'b', b'c', 0xe0, 0, 0]].concat();
    let read = header(&v2(COMMAND_PROXY, 0x11, &rest));
    assert_eq!(read.endpoints, Some(endpoints("1.2.3.4:80", "5.6.7.8:443")));
    let tlv = |kind, value: &[u8]| Tlv {
        kind,
        value: value.into(),
    };
    assert_eq!(read.tlvs, [tlv(2, b"abc"), tlv(0xe0, b"")]);
    let datagram = header(&v2(COMMAND_PROXY, 0x12, &IPV4));
    assert_eq!(datagram.endpoints, read.endpoints);
}

#[test]
fn a_local_header_tells_nothing_and_is_skipped_whole() {
    let bytes = v2(COMMAND_LOCAL, 0, &[1, 0xff, 0xff]);
    let read = header(&bytes);
    assert_eq!(
        (read.endpoints, read.tlvs.len(), read.length),
        (None, 0, bytes.len())
    );
}

#[test]
fn malformed_binary_headers_are_refused() {
    let wrong_version = [SIGNATURE_V2, &[0x11, 0x11, 0, 12], &IPV4].concat();
    let cut_tlv = [&IPV4[..], &[2, 0, 9, 1]].concat();
    let cut_tlv_header = [&IPV4[..], &[2, 0]].concat();
    for bytes in [
        wrong_version,
        v2(2, 0x11, &IPV4),
        v2(COMMAND_PROXY, 0x00, &IPV4),
        v2(COMMAND_PROXY, 0x31, &[0; 216]),
        v2(COMMAND_PROXY, 0x10, &IPV4),
        v2(COMMAND_PROXY, 0x21, &IPV4),
        v2(COMMAND_PROXY, 0x11, &[0; 12]),
        v2(COMMAND_PROXY, 0x11, &cut_tlv),
        v2(COMMAND_PROXY, 0x11, &cut_tlv_header),
    ] {
        assert_eq!(parse(&bytes), Parsed::Malformed(Version::V2), "{bytes:?}");
    }
}

#[test]
fn addresses_of_two_families_are_both_written_as_ipv6() {
    let mixed = endpoints("1.2.3.4:80", "[fd00::1]:443");
    assert_eq!(
        encode_v1(Some(mixed)),
        b"PROXY TCP6 ::ffff:1.2.3.4 fd00::1 80 443\r\n"
    );
    let mapped = endpoints("[::ffff:1.2.3.4]:80", "5.6.7.8:443");
    assert_eq!(encode_v1(Some(mapped)), b"PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n");
}

#[test]
fn without_addresses_the_sender_speaks_for_itself() {
    assert_eq!(header(&encode_v1(None)).endpoints, None);
    let local = encode_v2(None, std::iter::empty()).unwrap();
    assert_eq!((local.len(), header(&local).endpoints), (FIXED_V2_BYTES, None));
}

#[test]
fn extensions_that_do_not_fit_are_an_error() {
    let tlv = Tlv {
        kind: 1,
        value: vec![0; 40_000].into(),
    };
    let addresses = endpoints("1.2.3.4:80", "5.6.7.8:443");
    assert!(encode_v2(Some(addresses), [&tlv].into_iter()).is_ok());
    assert_eq!(encode_v2(Some(addresses), [&tlv, &tlv].into_iter()), Err(TooLong));
}

fn unicast() -> impl Strategy<Value = Endpoints> {
    let v4 = (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    let v6 = (any::<[u8; 16]>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip.into(), port));
    let pair = prop_oneof![
        (v4.clone(), v4).prop_map(|(source, destination)| Endpoints { source, destination }),
        (v6.clone(), v6).prop_map(|(source, destination)| Endpoints { source, destination }),
    ];
    pair.prop_filter("unicast", |endpoints| endpoints.of_one_family().are_unicast())
}

fn extensions() -> impl Strategy<Value = Vec<Tlv>> {
    let tlv = (any::<u8>(), prop::collection::vec(any::<u8>(), 0..300));
    let tlv = tlv.prop_map(|(kind, value)| Tlv {
        kind,
        value: value.into(),
    });
    prop::collection::vec(tlv, 0..5)
}

proptest! {
    #[test]
    fn no_input_panics_or_claims_more_than_there_is(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Parsed::Header(header) = parse(&bytes) {
            prop_assert!(header.length <= bytes.len());
        }
    }

    #[test]
    fn no_input_behind_the_signature_panics(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        for signature in [SIGNATURE_V1, SIGNATURE_V2] {
            let bytes = [signature, &rest[..]].concat();
            if let Parsed::Header(header) = parse(&bytes) {
                prop_assert!(header.length <= bytes.len());
            }
        }
    }

    #[test]
    fn what_is_written_is_read(endpoints in unicast(), tlvs in extensions(), rest in any::<[u8; 3]>()) {
        let written = encode_v2(Some(endpoints), tlvs.iter()).unwrap();
        let read = header(&[&written[..], &rest].concat());
        prop_assert_eq!(read.length, written.len());
        prop_assert_eq!(read.endpoints, Some(endpoints.of_one_family()));
        prop_assert_eq!(read.tlvs, tlvs);
        let written = encode_v1(Some(endpoints));
        let read = header(&[&written[..], &rest].concat());
        prop_assert_eq!((read.length, read.endpoints), (written.len(), Some(endpoints.of_one_family())));
    }

    #[test]
    fn the_verdict_does_not_depend_on_how_the_bytes_arrive(endpoints in unicast(), tlvs in extensions()) {
        let v2 = encode_v2(Some(endpoints), tlvs.iter()).unwrap();
        for written in [v2, encode_v1(Some(endpoints))] {
            for end in 0..written.len() {
                prop_assert_eq!(parse(&written[..end]), Parsed::NeedMore);
            }
        }
    }
}
