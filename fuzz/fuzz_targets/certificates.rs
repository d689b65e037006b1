//! Certificates, bundles, keys and revocation lists, as users and peers hand them over: nothing makes the readers panic,
//! and what is read is written as something that is read the same.
#![no_main]

use identity::{Certificate, PrivateKey, RevocationList};
use libfuzzer_sys::fuzz_target;

fn use_it(certificate: &Certificate) {
    let again = Certificate::from_pem(certificate.pem().as_bytes()).expect("our own PEM is read");
    assert_eq!(&again, certificate);
    let _ = certificate.spiffe_id();
    let _ = (
        certificate.is_authority(),
        certificate.may_sign_certificates(),
        certificate.path_length(),
    );
    let _ = (
        certificate.names(),
        certificate.subject(),
        certificate.issuer(),
        certificate.serial(),
    );
    let _ = certificate.check_issued_by(certificate);
    let _ = identity::path_to_root(certificate, &[], &[certificate.clone()], certificate.not_before());
}

fuzz_target!(|data: &[u8]| {
    if let Ok(certificate) = Certificate::from_der(data) {
        use_it(&certificate);
    }
    let _ = PrivateKey::from_der(data);
    let _ = PrivateKey::from_pem(data);
    let chain = Certificate::chain_from_pem(data).unwrap_or_default();
    chain.iter().for_each(use_it);
    let _ = Certificate::bundle_from_pem(data);
    let _ = RevocationList::from_pem(data, &chain);
});
