//! The PROXY protocol's header: nothing makes it panic, a header stays the same when more bytes come, and a header
//! that is written of what was read says the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proxy_core::proxy_protocol::{Header, Parsed, Version, encode_v1, encode_v2, parse};

/// What is written of a header is read as a header that is written in the same way.
fn write_and_read(header: &Header) {
    let write = |header: &Header| match header.version {
        Version::V1 => encode_v1(header.endpoints),
        Version::V2 => encode_v2(header.endpoints, header.tlvs.iter()).expect("what was read has room"),
    };
    let written = write(header);
    let Parsed::Header(again) = parse(&written) else {
        panic!("what we wrote is no header: {written:?}");
    };
    assert_eq!(again.length, written.len());
    assert_eq!(again.endpoints.is_some(), header.endpoints.is_some());
    // Without addresses there is nothing to extend.
    if header.endpoints.is_some() {
        assert_eq!(again.tlvs, header.tlvs);
    }
    assert_eq!(write(&again), written);
}

fuzz_target!(|data: &[u8]| {
    let whole = parse(data);
    if let Parsed::Header(header) = &whole {
        assert!(header.length <= data.len());
        write_and_read(header);
    }
    // As a connection sees it: more and more bytes, until something is decided.
    for end in 0..=data.len() {
        let so_far = parse(&data[..end]);
        match so_far {
            Parsed::NeedMore => {}
            Parsed::Header(_) => {
                assert_eq!(so_far, whole, "more than {end} bytes made a difference");
                return;
            }
            // Whether it is malformed or none is told by what has come, as in Envoy; the connection decides once.
            _ => return,
        }
    }
});
