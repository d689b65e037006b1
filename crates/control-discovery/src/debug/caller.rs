//! Who may see the debug pages: processes of this host. They show the configuration of every namespace; istiod wants a
//! token from everybody else, here nobody else is served.

use std::net::SocketAddr;

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::serve::IncomingStream;
use tokio::net::TcpListener;

const REFUSAL: &str = "The debug pages are for this host only: ask from where the control plane runs, or forward a port \
                       to it (kubectl port-forward, ssh -L).\n";

/// Where a request comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A process of this host.
    ThisHost,
    /// Another host.
    Elsewhere,
}

impl Caller {
    /// Whoever comes from loopback is of this host, and whoever comes from the very address that it connects to.
    fn of(remote: SocketAddr, local: Option<SocketAddr>) -> Self {
        let itself = local.is_some_and(|local| local.ip() == remote.ip());
        match remote.ip().to_canonical().is_loopback() || itself {
            true => Self::ThisHost,
            false => Self::Elsewhere,
        }
    }
}

impl Connected<IncomingStream<'_, TcpListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self::of(*stream.remote_addr(), stream.io().local_addr().ok())
    }
}

/// Lets nobody in of whom it is not known that it is of this host.
pub(super) async fn of_this_host(request: Request, next: Next) -> Response {
    match request.extensions().get::<ConnectInfo<Caller>>() {
        Some(ConnectInfo(Caller::ThisHost)) => next.run(request).await,
        Some(ConnectInfo(Caller::Elsewhere)) | None => (StatusCode::FORBIDDEN, REFUSAL).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_is_loopback_and_the_address_itself() {
        for (remote, local, caller) in [
            ("127.0.0.1:40000", "127.0.0.1:15014", Caller::ThisHost),
            ("127.66.1.2:40000", "127.0.0.1:15014", Caller::ThisHost),
            ("[::1]:40000", "[::1]:15014", Caller::ThisHost),
            (
                "[::ffff:127.0.0.1]:40000",
                "[::ffff:127.0.0.1]:15014",
                Caller::ThisHost,
            ),
            ("192.0.2.7:40000", "192.0.2.7:15014", Caller::ThisHost),
            ("192.0.2.8:40000", "192.0.2.7:15014", Caller::Elsewhere),
            ("[2001:db8::1]:40000", "[2001:db8::2]:15014", Caller::Elsewhere),
        ] {
            let local = Some(local.parse().unwrap());
            assert_eq!(Caller::of(remote.parse().unwrap(), local), caller, "{remote}");
        }
        assert_eq!(
            Caller::of("192.0.2.7:1".parse().unwrap(), None),
            Caller::Elsewhere
        );
    }
}
