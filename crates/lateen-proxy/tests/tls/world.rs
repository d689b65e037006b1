//! Proxies that speak TLS on one side, and what stands behind them.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;

use crate::certificates::{Authority, downstream};
pub(crate) use crate::harness::program::Program;
use crate::harness::{Proxy, cluster, http_filters, listener, socket, upstream_with};
pub(crate) use crate::harness::{access_log, lines};

/// An HTTP upstream that answers with the head that it got.
pub(crate) fn reflecting_upstream() -> SocketAddr {
    upstream_with(|mut stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            head.push(byte[0]);
            if head.ends_with(b"\r\n\r\n") {
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", head.len());
                if stream
                    .write_all(answer.as_bytes())
                    .and_then(|()| stream.write_all(&head))
                    .is_err()
                {
                    return;
                }
                head.clear();
            }
        }
    })
}

/// A listener `web` whose only chain is this.
pub(crate) fn secure_listener(chain: &str, more: &str) -> String {
    format!(
        "{{ name: web, address: {}, filter_chains: [{{ {chain} }}] {more} }}",
        socket("127.0.0.1:0".parse().unwrap())
    )
}

pub(crate) fn http_with(fields: &str) -> String {
    http_filters("app").replacen("stat_prefix: http", &format!("stat_prefix: http{fields}"), 1)
}

/// A cluster whose connections have this transport socket.
pub(crate) fn secure_cluster(address: SocketAddr, transport: &str, more: &str) -> String {
    let plain = cluster("app", address);
    let fields = plain.strip_suffix('}').unwrap();
    format!("{fields}, {transport} {more} }}")
}

pub(crate) fn proxy(listener: String, cluster: String) -> Proxy {
    Program::Lateen.start(listener, cluster)
}

/// A cluster whose requests ask for their own host.
pub(crate) const AUTO_SNI: &str = ", typed_extension_protocol_options: { \
                                   envoy.extensions.upstreams.http.v3.HttpProtocolOptions: { \"@type\": \
                                   type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, \
                                   upstream_http_protocol_options: { auto_sni: true, auto_san_validation: true }, \
                                   explicit_http_config: { http_protocol_options: {} } } }";

pub(crate) const PREFIX: &str = "listener.127.0.0.1_0.ssl";

/// A server proxy that wants its clients verified, in front of the reflecting upstream.
pub(crate) fn mutual_server(program: &Program, root: &Authority, server_name: &str) -> Proxy {
    let common = format!(
        "{}, {}",
        root.leaf("server", &[server_name, "spiffe://td/server"])
            .certificates(),
        root.validation("")
    );
    let fields =
        ", forward_client_cert_details: SANITIZE_SET, set_current_client_cert_details: { uri: true }";
    let log = access_log(
        "log",
        "%DOWNSTREAM_TLS_VERSION% %DOWNSTREAM_PEER_URI_SAN% %DOWNSTREAM_LOCAL_URI_SAN%",
    );
    let failed = access_log("failed", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%");
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        http_with(&format!("{fields} {log}"))
    );
    program.start(
        secure_listener(&chain, &failed),
        cluster("app", reflecting_upstream()),
    )
}

/// A client proxy with a plain listener and this transport socket towards `server`.
pub(crate) fn client(program: &Program, server: &Proxy, transport: &str, more: &str) -> Proxy {
    let log = "%RESPONSE_CODE% %RESPONSE_FLAGS% %UPSTREAM_TLS_VERSION% %UPSTREAM_PEER_URI_SAN% \
               %UPSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_CODE_DETAILS%";
    program.start(
        listener("plain", &http_with(&access_log("log", log))),
        secure_cluster(server.listener("web"), transport, more),
    )
}
