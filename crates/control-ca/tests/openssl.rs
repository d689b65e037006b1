//! Another implementation's opinion of what we sign. Where openssl is absent, these tests say so by name, and fail in
//! CI, where nothing may be skipped in silence.

mod common;

use std::path::Path;
use std::process::Command;

use common::{DAY, REVIEWS, cacerts, now, self_signed, sign, trust_domain};
use control_ca::{Authority, SelfSigned};
use identity::KeyKind;

/// What `openssl` prints, if it is there and succeeds.
fn openssl(test: &str, dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = match Command::new("openssl").args(arguments).current_dir(dir).output() {
        Ok(output) => output,
        Err(error) => {
            let message = format!("NOT RUN {test}: openssl cannot be started: {error}");
            assert!(std::env::var_os("CI").is_none(), "{message}");
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "{message}");
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "openssl {arguments:?}: {text}{errors}");
    Some(text)
}

/// Writes what a workload would have, and has openssl verify it for both ends of a connection.
fn verify(test: &str, authority: &Authority) -> Option<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let issued = sign(authority, DAY, now());
    let chain = issued.into_pem_chain().expect("a chain");
    let (leaf, above) = chain.split_first().expect("a leaf");
    let intermediates = above.len() - 1;
    let write = |name: &str, text: String| std::fs::write(dir.path().join(name), text).expect("written");
    write("leaf.pem", leaf.clone());
    write("above.pem", above[..intermediates].concat());
    write("roots.pem", authority.roots_pem());
    for purpose in ["sslserver", "sslclient"] {
        let mut arguments = vec![
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            "roots.pem",
        ];
        if intermediates > 0 {
            arguments.extend(["-untrusted", "above.pem"]);
        }
        arguments.push("leaf.pem");
        let verdict = openssl(test, dir.path(), &arguments)?;
        assert_eq!(verdict.trim(), "leaf.pem: OK");
    }
    openssl(test, dir.path(), &["x509", "-in", "leaf.pem", "-noout", "-text"])
}

#[test]
fn openssl_verifies_and_prints_what_a_self_signed_authority_signs() {
    let test = "openssl_verifies_and_prints_what_a_self_signed_authority_signs";
    let Some(text) = verify(test, &self_signed(now())) else {
        return;
    };
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    for line in [
        "Version: 3 (0x2)",
        "Signature Algorithm: ecdsa-with-SHA256",
        "Issuer: O = cluster.local",
        "Subject:",
        "X509v3 Key Usage: critical",
        "Digital Signature, Key Encipherment",
        "X509v3 Extended Key Usage:",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "X509v3 Basic Constraints: critical",
        "CA:FALSE",
        "X509v3 Authority Key Identifier:",
        "X509v3 Subject Alternative Name: critical",
        &format!("URI:{REVIEWS}"),
    ] {
        assert!(text.contains(&line), "{line:?} is missing in {text:#?}");
    }
}

#[test]
fn openssl_verifies_what_authorities_with_other_keys_sign() {
    for key in [KeyKind::EcdsaP384, KeyKind::Rsa2048] {
        let settings = SelfSigned {
            key,
            ..SelfSigned::for_trust_domain(&trust_domain())
        };
        let authority = Authority::self_signed(&settings, now()).expect("an authority");
        verify(
            "openssl_verifies_what_authorities_with_other_keys_sign",
            &authority,
        );
    }
}

#[test]
fn openssl_verifies_under_both_roots_after_a_renewal() {
    let old = self_signed(now());
    let new = old.rotated(DAY * 3650, now()).expect("a renewed authority");
    verify("openssl_verifies_under_both_roots_after_a_renewal", &new);
}

#[test]
fn openssl_verifies_what_a_plugged_in_authority_signs() {
    let (.., data) = cacerts(now());
    let authority = Authority::from_plugged_in(&data, now()).expect("an authority");
    verify("openssl_verifies_what_a_plugged_in_authority_signs", &authority);
}

#[test]
fn openssl_prints_the_root_as_istios() {
    let test = "openssl_prints_the_root_as_istios";
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("root.pem"), self_signed(now()).roots_pem()).expect("written");
    let Some(text) = openssl(test, dir.path(), &["x509", "-in", "root.pem", "-noout", "-text"]) else {
        return;
    };
    let text: Vec<&str> = text.lines().map(str::trim).collect();
    for line in [
        "Issuer: O = cluster.local",
        "Subject: O = cluster.local",
        "X509v3 Key Usage: critical",
        "Certificate Sign",
        "X509v3 Basic Constraints: critical",
        "CA:TRUE",
        "X509v3 Subject Key Identifier:",
    ] {
        assert!(text.contains(&line), "{line:?} is missing in {text:#?}");
    }
}

#[test]
fn openssl_takes_a_chain_of_a_corporate_authority_with_a_name_of_many_parts() {
    let now = now();
    let entry = |name: &str, text: &[u8]| (name.to_owned(), text.to_vec());
    let data = control_ca::SecretData::from([
        entry("ca-cert.pem", include_bytes!("data/corp-ca.pem")),
        entry("ca-key.pem", include_bytes!("data/corp-ca-key.pem")),
        entry("root-cert.pem", include_bytes!("data/corp-ca.pem")),
    ]);
    let test = "openssl_takes_a_chain_of_a_corporate_authority_with_a_name_of_many_parts";
    match Authority::from_plugged_in(&data, now) {
        Ok(authority) => {
            verify(test, &authority);
        }
        // The file begins to be valid in November 2026.
        Err(error) => assert!(now < std::time::UNIX_EPOCH + DAY * 20_779, "{error}"),
    }
}
