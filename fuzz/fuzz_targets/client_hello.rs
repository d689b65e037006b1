//! The TLS inspector: nothing makes it panic, and how the bytes were cut makes no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tls::{Inspected, Inspector, inspect};

// The first byte says how long the pieces are.
fuzz_target!(|data: &[u8]| {
    let Some((length, bytes)) = data.split_first() else {
        return;
    };
    let whole = inspect(bytes);
    let mut inspector = Inspector::default();
    let mut last = Inspected::NeedMore;
    for piece in bytes.chunks(usize::from(*length).max(1)) {
        last = inspector.push(piece);
    }
    assert_eq!(whole, last, "the cuts made a difference");
});
