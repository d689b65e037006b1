//! With which scheme a peer signed its handshake. rustls tells it to the verifier alone, which all connections of a
//! context share; a handshake is polled by one thread at a time, so a cell of that thread brings it to its connection.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::Pin;

use rustls::SignatureScheme;

thread_local! {
    static HEARD: Cell<Option<SignatureScheme>> = const { Cell::new(None) };
}

/// The handshake that this thread polls has a signature of that scheme.
pub(super) fn tell(scheme: SignatureScheme) {
    HEARD.set(Some(scheme));
}

/// Does `handshake`; gives the scheme of the peer's signature with what comes of it. The caller pins it, so that it is
/// not kept twice.
pub(crate) async fn heard<F: Future>(mut handshake: Pin<&mut F>) -> (F::Output, Option<SignatureScheme>) {
    let mut scheme = None;
    let output = poll_fn(|context| {
        HEARD.set(scheme);
        let polled = handshake.as_mut().poll(context);
        scheme = HEARD.take();
        polled
    })
    .await;
    (output, scheme)
}
