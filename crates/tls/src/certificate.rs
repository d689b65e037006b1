//! What this crate reads of an X.509 certificate (RFC 5280), in the words in which Envoy prints it.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer as _;
use x509_parser::time::ASN1Time;

use crate::distinguished_name;

/// A certificate, read once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// Who it was issued to, as RFC 2253 writes names: `CN=reviews,O=example`.
    pub subject: String,
    /// Who issued it, written as [`Certificate::subject`].
    pub issuer: String,
    /// The serial number in lower-case hexadecimal digits, two for each byte.
    pub serial: String,
    /// Subject alternative names that are URIs, in the certificate's order; a SPIFFE identity is one.
    pub uris: Vec<String>,
    /// Subject alternative names that are DNS names, in the certificate's order.
    pub dns_names: Vec<String>,
    /// Subject alternative names that are addresses, in the certificate's order.
    pub addresses: Vec<IpAddr>,
    /// Subject alternative names that are e-mail addresses, in the certificate's order.
    pub emails: Vec<String>,
    /// The first moment at which it is valid.
    pub not_before: SystemTime,
    /// The last moment at which it is valid.
    pub not_after: SystemTime,
    /// SHA-256 over the certificate's DER.
    pub sha256: [u8; 32],
    /// SHA-1 over the certificate's DER. Access logs print it; nothing is decided by it.
    pub sha1: [u8; 20],
    /// The subject's common names, which stand in for DNS names when there are none.
    pub common_names: Vec<String>,
    /// Whether it may issue certificates: basic constraints, or the key usages `keyCertSign` and `cRLSign`.
    pub is_authority: bool,
    /// The identifier of its key, if it says one.
    pub subject_key_id: Option<Vec<u8>>,
    /// The identifier of its issuer's key, if it says one.
    pub authority_key_id: Option<Vec<u8>>,
    /// SHA-256 over the DER of the SubjectPublicKeyInfo.
    pub public_key_sha256: [u8; 32],
    names: Vec<String>,
    der: CertificateDer<'static>,
}

impl Certificate {
    /// Reads a certificate from its DER.
    ///
    /// # Errors
    /// In words, when the bytes are not one whole certificate.
    pub fn from_der(der: &CertificateDer<'_>) -> Result<Self, String> {
        let (rest, parsed) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes follow the certificate", rest.len()));
        }
        let mut certificate = Self {
            subject: distinguished_name::print(parsed.subject()),
            issuer: distinguished_name::print(parsed.issuer()),
            serial: serial(parsed.raw_serial()),
            uris: Vec::new(),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            emails: Vec::new(),
            names: Vec::new(),
            not_before: system_time(&parsed.validity().not_before)?,
            not_after: system_time(&parsed.validity().not_after)?,
            sha256: sha256(der),
            sha1: fingerprint(&digest::SHA1_FOR_LEGACY_USE_ONLY, der),
            common_names: distinguished_name::common_names(parsed.subject()),
            is_authority: is_authority(&parsed)?,
            subject_key_id: None,
            authority_key_id: None,
            public_key_sha256: sha256(parsed.public_key().raw),
            der: der.clone().into_owned(),
        };
        certificate.take_names(&parsed)?;
        certificate.take_key_ids(&parsed);
        Ok(certificate)
    }

    /// The certificate's DER.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// The certificate as PEM, encoded for a header as Envoy does it.
    pub fn url_encoded_pem(&self) -> String {
        url_encoded_pem(&self.der)
    }

    /// Every subject alternative name as text, in the certificate's order, in which Envoy lists them in a failure.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.names.iter().cloned()
    }

    /// Whether `now` lies in the validity.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    fn take_key_ids(&mut self, parsed: &X509Certificate<'_>) {
        for extension in parsed.iter_extensions() {
            match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(issuer) => {
                    self.authority_key_id = issuer.key_identifier.as_ref().map(|id| id.0.to_vec());
                }
                _ => {}
            }
        }
    }

    fn take_names(&mut self, parsed: &X509Certificate<'_>) -> Result<(), String> {
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            let (kind, text) = match name {
                GeneralName::URI(uri) => (&mut self.uris, *uri),
                GeneralName::DNSName(name) => (&mut self.dns_names, *name),
                GeneralName::RFC822Name(email) => (&mut self.emails, *email),
                GeneralName::IPAddress(bytes) => {
                    let address = address(bytes);
                    self.addresses.extend(address);
                    self.names.extend(address.map(|address| address.to_string()));
                    continue;
                }
                // The other kinds identify nobody in a mesh, and unreadable ones can match nothing.
                _ => continue,
            };
            kind.push(text.to_owned());
            self.names.push(text.to_owned());
        }
        Ok(())
    }
}

/// The PEM of `der`, with the characters encoded that may not stand in a header's element.
pub(crate) fn url_encoded_pem(der: &[u8]) -> String {
    use base64::Engine as _;
    const LINE: usize = 64;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::with_capacity(body.len() * 9 / 8 + 80);
    text.push_str("-----BEGIN%20CERTIFICATE-----%0A");
    for (index, character) in body.chars().enumerate() {
        if index > 0 && index % LINE == 0 {
            text.push_str("%0A");
        }
        match character {
            '+' => text.push_str("%2B"),
            '/' => text.push_str("%2F"),
            '=' => text.push_str("%3D"),
            other => text.push(other),
        }
    }
    text.push_str("%0A-----END%20CERTIFICATE-----%0A");
    text
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    fingerprint(&digest::SHA256, bytes)
}

fn fingerprint<const N: usize>(algorithm: &'static digest::Algorithm, bytes: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    out.copy_from_slice(digest::digest(algorithm, bytes).as_ref());
    out
}

/// A DER integer has a leading zero where its first bit would make it negative; the printed number has none.
fn serial(raw: &[u8]) -> String {
    let significant = match raw {
        [0, rest @ ..] if !rest.is_empty() => rest,
        other => other,
    };
    hex(significant)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(four).into());
    }
    let sixteen = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(sixteen).into())
}

fn system_time(time: &ASN1Time) -> Result<SystemTime, String> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let moment = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    moment.ok_or_else(|| format!("a validity of {seconds} s is out of range"))
}

fn is_authority(parsed: &X509Certificate<'_>) -> Result<bool, String> {
    let constraints = parsed.basic_constraints().map_err(|error| error.to_string())?;
    let usage = parsed.key_usage().map_err(|error| error.to_string())?;
    Ok(constraints.is_some_and(|extension| extension.value.ca)
        || usage.is_some_and(|extension| extension.value.key_cert_sign() || extension.value.crl_sign()))
}

#[cfg(test)]
mod tests {
    use super::{address, serial, url_encoded_pem};

    #[test]
    fn a_serial_number_is_printed_without_the_sign_byte() {
        assert_eq!(serial(&[0, 0x8f, 1]), "8f01");
        assert_eq!(serial(&[0x0a]), "0a");
        assert_eq!(serial(&[0]), "00");
    }

    #[test]
    fn pem_is_encoded_as_envoy_does_it_and_broken_after_64_characters() {
        let text = url_encoded_pem(&[0xfb; 50]);
        assert!(
            text.starts_with("-----BEGIN%20CERTIFICATE-----%0A%2B%2Fv7%2B%2Fv7"),
            "{text}"
        );
        assert!(
            text.ends_with("%2B%2Fs%3D%0A-----END%20CERTIFICATE-----%0A"),
            "{text}"
        );
        assert_eq!(text.matches("%0A").count(), 4, "{text}");
    }

    #[test]
    fn an_address_of_a_strange_length_is_nobody() {
        assert_eq!(address(&[127, 0, 0, 1]).unwrap().to_string(), "127.0.0.1");
        assert_eq!(address(&[1, 2, 3]), None);
    }
}
