//! Writes what the fuzz targets begin with: `seeds FOLDER ORACLE`, where FOLDER is the corpora's and ORACLE holds the
//! recordings of a real istiod.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use api_envoy::json::Schema;
use identity::{KeyKind, PrivateKey, SubjectName, request_certificate};
use tls::settings::{CommonTlsContext, UpstreamTlsContext};
use tls::{CertificateAuthority, ClientContext, ConnectOptions};
use tokio::io::AsyncReadExt as _;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const MESSAGES: &[&str] = &[
    "\0\x05\x10\x05\x10GET /a?b=c HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\n",
    "\0\x02\x20\x01\x40POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
    "\0\x02\x20\x01\x40POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: t\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    "\0\x02\x20\x01\x40CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n\x16\x03\x01",
    "\0\x02\x20\x01\x40GET http://a:80/b HTTP/1.1\r\nHost: c\r\nConnection: upgrade, x\r\nUpgrade: websocket\r\n\r\n",
    "\x01\x05\x10\x05\x10HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c\r\n\r\nok",
    "\x01\x02\x20\x01\x40HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 304 \r\nETag: \"x\"\r\n\r\n",
    "\x01\x02\x20\x01\x40HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "\x01\x02\x20\x01\x40HTTP/1.0 500 x y z\r\n\r\nuntil the end",
];

/// Heads of both versions, the kind before each.
const BRIDGED: &[&[u8]] = &[
    b"\0GET /a?b=c HTTP/1.1\r\nHost: a\r\nCookie: x=1; y=2\r\nTE: trailers\r\nAccept: */*\r\n\r\n",
    b"\0POST http://a:80/b HTTP/1.1\r\nHost: c\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n",
    b"\0CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
    b"\x01HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: a=b\r\nSet-Cookie: c\r\n\r\n",
    b"\x02POST\na:80\n/b?c=d\ncookie:x=1\nx-a: b\nte:trailers",
    b"\x03\0\0content-type:text/plain\nset-cookie:a",
];

/// Headers of the PROXY protocol.
const PROXIED: &[&[u8]] = &[
    b"PROXY TCP4 192.0.2.1 192.0.2.2 4321 80\r\nGET /",
    b"PROXY TCP6 2001:db8::1 2001:db8::2 4321 80\r\n",
    b"PROXY UNKNOWN\r\n",
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10\xc0\0\x02\x01\xc0\0\x02\x02\x10\xe1\0\x50\x01\0\x01x",
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0",
];

/// The kinds of the `xds` target, by file of a recording.
const RECORDED: [(&str, u8); 4] = [("cds.json", 0), ("eds.json", 1), ("lds.json", 2), ("rds.json", 3)];

fn main() -> Outcome {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [corpora, oracle] = arguments.as_slice() else {
        return Err("seeds FOLDER ORACLE".into());
    };
    for (number, text) in MESSAGES.iter().enumerate() {
        write(corpora, "http1", &format!("message-{number}"), text.as_bytes())?;
    }
    for (number, head) in BRIDGED.iter().enumerate() {
        write(corpora, "bridging", &format!("head-{number}"), head)?;
    }
    for (number, header) in PROXIED.iter().enumerate() {
        write(corpora, "proxy_protocol", &format!("header-{number}"), header)?;
    }
    identities(corpora)?;
    hellos(corpora)?;
    recordings(corpora, &oracle.join("istiod-xds"))
}

fn write(corpora: &Path, target: &str, name: &str, bytes: &[u8]) -> Outcome {
    let folder = corpora.join(target);
    fs::create_dir_all(&folder)?;
    Ok(fs::write(folder.join(name), bytes)?)
}

fn identities(corpora: &Path) -> Outcome {
    let authority = CertificateAuthority::generate("seeds", SystemTime::now())?;
    let issued = authority.issue_server(&["a.example", "127.0.0.1"], SystemTime::now())?;
    write(
        corpora,
        "certificates",
        "root.pem",
        authority.certificate_pem().as_bytes(),
    )?;
    write(
        corpora,
        "certificates",
        "chain.pem",
        issued.certificate_pem.as_bytes(),
    )?;
    write(corpora, "certificates", "key.pem", authority.key_pem().as_bytes())?;
    let root = identity::Certificate::from_pem(authority.certificate_pem().as_bytes())?;
    write(corpora, "certificates", "root.der", root.der())?;
    let names = [
        SubjectName::Uri("spiffe://cluster.local/ns/a/sa/b".to_owned()),
        SubjectName::Dns("b.a.svc".to_owned()),
    ];
    for kind in [KeyKind::default(), KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let request = request_certificate(&PrivateKey::generate(kind)?, &names)?;
        write(corpora, "csr", &format!("{kind:?}.pem"), request.as_bytes())?;
    }
    Ok(())
}

/// What our own client says first.
fn hellos(corpora: &Path) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    for (name, sni, alpn) in [
        ("plain", "", &[][..]),
        ("mesh", "outbound_.80_._.a.b.svc.cluster.local", &["istio", "h2"]),
    ] {
        let settings = UpstreamTlsContext {
            sni: sni.to_owned(),
            common: CommonTlsContext {
                alpn_protocols: alpn.iter().map(|p| (*p).to_owned()).collect(),
                ..CommonTlsContext::default()
            },
            ..UpstreamTlsContext::default()
        };
        let context = ClientContext::new(&settings, SystemTime::now())?;
        let hello = runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(64 * 1024);
            let mut hello = vec![64_u8; 1];
            tokio::select! {
                _ = context.connect(ours, ConnectOptions::default()) => Err("the handshake ended"),
                read = theirs.read_buf(&mut hello) => read.map(|_| hello).map_err(|_| "nothing was sent"),
            }
        })?;
        write(corpora, "client_hello", name, &hello)?;
    }
    Ok(())
}

/// Every resource of the recordings by itself, and every proxy's listeners after its clusters.
fn recordings(corpora: &Path, oracle: &Path) -> Outcome {
    let schema = Schema::get();
    let mut found = 0;
    for scenario in fs::read_dir(oracle)? {
        let scenario = scenario?.path();
        let Some(proxies) = fs::read_dir(&scenario).ok() else {
            continue;
        };
        for proxy in proxies {
            let proxy = proxy?.path();
            for (file, kind) in RECORDED {
                let Ok(text) = fs::read(proxy.join(file)) else {
                    continue;
                };
                let resources: Vec<serde_json::Value> = serde_json::from_slice(&text)?;
                for resource in &resources {
                    // Those of ambient mode have extensions that nobody here knows.
                    let Ok(any) = schema.parse_any(resource) else {
                        continue;
                    };
                    let body = any.value;
                    let Ok(length) = u16::try_from(body.len()) else {
                        continue;
                    };
                    let mut bytes = vec![kind];
                    bytes.extend(length.to_be_bytes());
                    bytes.extend(body.iter());
                    found += 1;
                    write(corpora, "xds", &format!("{found}"), &bytes)?;
                }
            }
        }
    }
    match found {
        0 => Err(format!("no recordings under {}", oracle.display()).into()),
        _ => Ok(()),
    }
}
