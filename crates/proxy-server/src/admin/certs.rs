//! `/certs`: the certificates that TLS contexts hold (`envoy.admin.v3.Certificates`).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::reply::{Reply, pretty};
use super::source::{AdminSource, ContextCertificates, ShownCertificate};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// `/certs`.
#[must_use]
pub fn certs(source: &dyn AdminSource) -> Reply {
    let now = SystemTime::now();
    let contexts = source.certificates();
    let shown: Vec<Value> = contexts.iter().map(|context| printed(context, now)).collect();
    Reply::json(pretty(&json!({ "certificates": shown })))
}

/// Whole days until the certificate that expires first does; what Envoy says where there is none is the largest number
/// of its type.
#[must_use]
pub fn days_left(first: Option<SystemTime>, now: SystemTime) -> u64 {
    let left = first.map(|first| first.duration_since(now).unwrap_or_default());
    left.map_or(u64::from(u32::MAX), |left| left.as_secs() / DAY.as_secs())
}

fn printed(context: &ContextCertificates, now: SystemTime) -> Value {
    let details = |shown: &ShownCertificate| details(shown, now);
    json!({
        "ca_cert": context.authority.iter().map(details).collect::<Vec<_>>(),
        "cert_chain": context.chain.iter().map(details).collect::<Vec<_>>(),
    })
}

fn details(shown: &ShownCertificate, now: SystemTime) -> Value {
    let certificate = &shown.certificate;
    let names = certificate.dns_names.iter().map(|name| json!({ "dns": name }));
    let uris = certificate.uris.iter().map(|uri| json!({ "uri": uri }));
    let addresses = certificate
        .addresses
        .iter()
        .map(|ip| json!({ "ip_address": ip.to_string() }));
    json!({
        "path": shown.path,
        "serial_number": certificate.serial,
        "subject_alt_names": names.chain(uris).chain(addresses).collect::<Vec<_>>(),
        // As JSON has 64-bit numbers of protobuf.
        "days_until_expiration": days_left(Some(certificate.not_after), now).to_string(),
        "valid_from": moment(certificate.not_before),
        "expiration_time": moment(certificate.not_after),
    })
}

fn moment(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let time = i64::try_from(seconds)
        .ok()
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    time.and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tls::{CertificateAuthority, read_certificates};

    #[test]
    fn a_certificate_is_printed_in_envoys_words() {
        let now = UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        let authority = CertificateAuthority::generate("root", now).unwrap();
        let issued = authority.issue_server(&["a.test", "127.0.0.1"], now).unwrap();
        let certificate = read_certificates(issued.certificate_pem.as_bytes())
            .unwrap()
            .remove(0);
        let days = days_left(Some(certificate.not_after), now);
        let shown = ShownCertificate {
            path: "<inline>".to_owned(),
            name: "default".into(),
            certificate,
        };
        let printed = details(&shown, now);
        let names = json!([{ "dns": "a.test" }, { "ip_address": "127.0.0.1" }]);
        assert_eq!(printed["subject_alt_names"], names);
        assert_eq!(printed["days_until_expiration"], days.to_string());
        assert!(printed["expiration_time"].as_str().unwrap().ends_with('Z'));
        assert_eq!(days_left(None, now), 4_294_967_295);
        assert_eq!(days_left(Some(now - DAY), now), 0);
        assert_eq!(days_left(Some(now + 3 * DAY / 2), now), 1);
    }
}
