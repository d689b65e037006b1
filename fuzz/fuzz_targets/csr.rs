//! Signing requests, as any workload may send them: nothing makes the reader panic, in DER and in PEM.
#![no_main]

use identity::CertificateRequest;
use libfuzzer_sys::fuzz_target;

fn use_it(request: &CertificateRequest) {
    let _ = (
        request.names(),
        request.subject(),
        request.wants_authority(),
        request.public_key(),
    );
}

fuzz_target!(|data: &[u8]| {
    if let Ok(request) = CertificateRequest::from_der(data) {
        use_it(&request);
    }
    if let Ok(request) = CertificateRequest::from_pem(data) {
        use_it(&request);
    }
});
