//! No key in any text that this crate makes.

use std::fmt::Write as _;
use std::sync::Mutex;

use base64::Engine as _;
use tls::settings::Secret;
use tls::{Awaited, ConnectOptions, Current, Rotation};

use crate::support::{
    Authority, Leaf, Says, client, client_context, meet, mutual_server, now, server, server_context, trusting,
};

static LOGGED: Mutex<String> = Mutex::new(String::new());

/// Keeps every line that any library logs.
struct Keeper;

impl log::Log for Keeper {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        let mut logged = LOGGED.lock().unwrap();
        writeln!(logged, "{} {}", record.target(), record.args()).unwrap();
    }

    fn flush(&self) {}
}

/// Looks for any twelve bytes of the key's secret part, in each form in which programs print bytes.
fn assert_no_key(text: &str, key: &Leaf, of: &str) {
    let body: String = key
        .key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    // PKCS #8 of a P-256 key: the 32 secret bytes begin at 36.
    let secret = &der[36..68];
    let unspaced: String = text.split_whitespace().collect();
    for window in secret.windows(12) {
        let list = |format: fn(&u8) -> String| window.iter().map(format).collect::<Vec<_>>();
        for form in [
            list(|byte| format!("{byte:02x}")).concat(),
            list(|byte| format!("{byte:02X}")).concat(),
            list(|byte| byte.to_string()).join(","),
            list(|byte| format!("0x{byte:02x}")).join(","),
        ] {
            assert!(!unspaced.contains(&form), "a key is in {of}");
        }
        let raw = String::from_utf8_lossy(window);
        assert!(!text.contains(&*raw), "a key is in {of}");
    }
    for part in body.as_bytes()[48..88].windows(12) {
        assert!(
            !text.contains(std::str::from_utf8(part).unwrap()),
            "a key is in {of}"
        );
    }
}

#[test]
fn the_search_finds_a_key_in_every_form() {
    let key = Authority::root("root").leaf(&Says::default());
    let body: String = key
        .key
        .lines()
        .filter(|line| !line.starts_with("-----"))
        .collect();
    let der = base64::engine::general_purpose::STANDARD.decode(&body).unwrap();
    let hex = der.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for text in [
        key.key.clone(),
        format!("{der:?}"),
        format!("{der:#?}"),
        hex,
        format!("{der:#04x?}"),
    ] {
        let found = std::panic::catch_unwind(|| assert_no_key(&text, &key, "it"));
        assert!(found.is_err(), "{text}");
    }
}

#[test]
fn nothing_that_can_be_printed_has_a_key() {
    let root = Authority::root("root");
    let leaf = root.leaf(&Says::default());
    let downstream = mutual_server(&leaf, trusting(&[&root]));
    let upstream = client(Some(&leaf));
    let server_rotation = Rotation::new(downstream.clone(), Awaited::default(), now()).unwrap();
    let client_rotation = Rotation::new(upstream.clone(), Awaited::default(), now()).unwrap();
    let current = Current::new(server_rotation.current().cloned());
    let mut texts = vec![
        format!("{:?} {:#?}", leaf.material(), leaf.material()),
        format!("{downstream:?} {downstream:#?} {upstream:?} {upstream:#?}"),
        format!("{server_rotation:?} {server_rotation:#?} {client_rotation:?} {client_rotation:#?}"),
        format!(
            "{:#?} {:#?}",
            server_context(&downstream),
            client_context(&upstream)
        ),
        format!("{current:?} {current:#?} {:?}", Secret::new(leaf.key.clone())),
    ];
    let mut narrowed = downstream;
    narrowed.common.tls_params.signature_algorithms = vec!["ecdsa_secp256r1_sha256".to_owned()];
    texts.push(format!("{:#?}", server_context(&narrowed)));
    for text in &texts {
        assert_no_key(text, &leaf, "a debug form");
    }
    assert!(texts[4].contains("[redacted]"));
}

#[test]
fn no_refusal_of_a_key_repeats_it() {
    let root = Authority::root("root");
    let leaf = root.leaf(&Says::default());
    let mut rotation = Rotation::new(server(&[&leaf]), Awaited::default(), now()).unwrap();
    let broken = [
        leaf.key.replace("-----END PRIVATE KEY-----", ""),
        leaf.key
            .replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY"),
        leaf.key
            .replace("-----BEGIN PRIVATE KEY-----\n", "-----BEGIN PRIVATE KEY----- "),
        leaf.key.replace("PRIVATE KEY", "CERTIFICATE"),
        leaf.key.replacen('M', "!", 1),
        leaf.key.replace("PRIVATE", "RSA PRIVATE"),
    ];
    for text in broken {
        let mut material = leaf.material();
        material.private_key = Secret::new(text.clone());
        let error = rotation
            .set_certificates(vec![material.clone()], now())
            .unwrap_err();
        assert_no_key(&format!("{error} {error:?} {error:#?}"), &leaf, "an error");
        // A key where the certificate should be.
        material.certificate_chain = text.clone().into_bytes();
        let error = rotation.set_certificates(vec![material], now()).unwrap_err();
        assert_no_key(&format!("{error} {error:?} {error:#?}"), &leaf, "an error");
        if let Err(error) = tls::server_acceptor(&leaf.chain, &text, &[]) {
            assert_no_key(&format!("{error} {error:?} {error:#?}"), &leaf, "an error");
        }
    }
}

#[tokio::test]
async fn no_handshake_logs_a_key() {
    log::set_logger(&Keeper).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
    let root = Authority::root("root");
    let (mine, theirs) = (root.leaf(&Says::default()), root.leaf(&Says::default()));
    let server = server_context(&mutual_server(&mine, trusting(&[&root])));
    let nothing = ConnectOptions::default();
    assert!(
        meet(&server, &client_context(&client(Some(&theirs))), nothing)
            .await
            .0
            .is_ok()
    );
    assert!(
        meet(&server, &client_context(&client(None)), nothing)
            .await
            .0
            .is_err()
    );
    let logged = LOGGED.lock().unwrap().clone();
    assert!(
        logged.contains("rustls"),
        "the libraries' lines are seen: {logged}"
    );
    for key in [&mine, &theirs] {
        assert_no_key(&logged, key, "a log");
    }
}
