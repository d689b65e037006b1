//! Pinned certificates and keys (`verify_certificate_hash`, `verify_certificate_spki`).

use base64::Engine as _;

use crate::certificate::Certificate;
use crate::refusal::ContextError;
use crate::settings::CertificateValidationContext;

/// SHA-256 digests, of which one must be the peer's.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pins {
    certificates: Vec<[u8; 32]>,
    public_keys: Vec<[u8; 32]>,
}

impl Pins {
    pub(crate) fn load(settings: &CertificateValidationContext) -> Result<Self, ContextError> {
        let hash = |text: &String| {
            digest_from_hex(text).ok_or_else(|| {
                ContextError::invalid(
                    "verify_certificate_hash",
                    format!("\"{text}\" is no SHA-256 in hexadecimal"),
                )
            })
        };
        let key = |text: &String| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).ok();
            bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
                ContextError::invalid(
                    "verify_certificate_spki",
                    format!("\"{text}\" is no SHA-256 in Base64"),
                )
            })
        };
        Ok(Self {
            certificates: settings
                .verify_certificate_hash
                .iter()
                .map(hash)
                .collect::<Result<_, _>>()?,
            public_keys: settings
                .verify_certificate_spki
                .iter()
                .map(key)
                .collect::<Result<_, _>>()?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.certificates.is_empty() && self.public_keys.is_empty()
    }

    /// Either list suffices, as in Envoy.
    pub(crate) fn matches(&self, certificate: &Certificate) -> bool {
        self.certificates.contains(&certificate.sha256)
            || self.public_keys.contains(&certificate.public_key_sha256)
    }
}

/// 64 digits, or pairs of digits with colons between them.
fn digest_from_hex(text: &str) -> Option<[u8; 32]> {
    let plain: Vec<u8> = match text.len() {
        95 => {
            let well_placed = text
                .bytes()
                .enumerate()
                .all(|(index, byte)| (byte == b':') == (index % 3 == 2));
            well_placed.then(|| text.bytes().filter(|byte| *byte != b':').collect())?
        }
        _ => text.bytes().collect(),
    };
    let mut digest = [0; 32];
    if plain.len() != 2 * digest.len() {
        return None;
    }
    for (out, pair) in digest.iter_mut().zip(plain.chunks_exact(2)) {
        let digit = |byte: u8| char::from(byte).to_digit(16);
        *out = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    Some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_read_with_colons_and_without() {
        let plain = "0aF0".repeat(16);
        let colons = ["0a", "F0"].repeat(16).join(":");
        let digest: [u8; 32] = [0x0a, 0xf0].repeat(16).try_into().unwrap();
        assert_eq!(digest_from_hex(&plain), Some(digest));
        assert_eq!(digest_from_hex(&colons), Some(digest));
        for broken in [
            "",
            &plain[1..],
            &colons.replacen(':', "0", 1),
            &plain.replace('F', "G"),
        ] {
            assert_eq!(digest_from_hex(broken), None, "{broken}");
        }
    }

    #[test]
    fn pins_that_are_no_digests_are_refused_by_field() {
        let mut settings = CertificateValidationContext {
            verify_certificate_hash: vec!["abc".into()],
            ..CertificateValidationContext::default()
        };
        assert!(
            Pins::load(&settings)
                .unwrap_err()
                .to_string()
                .starts_with("verify_certificate_hash")
        );
        settings.verify_certificate_hash.clear();
        settings.verify_certificate_spki = vec!["AAAA".into()];
        assert!(
            Pins::load(&settings)
                .unwrap_err()
                .to_string()
                .starts_with("verify_certificate_spki")
        );
    }
}
