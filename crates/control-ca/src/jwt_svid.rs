//! JWT-SVIDs: tokens that say who their bearer is, for whom they are meant, and until when (SPIFFE's JWT-SVID standard,
//! RFC 7515, RFC 7518 section 3.4, RFC 7519). Signed with ES256.

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::{KeyError, SpiffeId};
use serde_json::{Value, json};

use crate::jwt_keys::{JwtKeys, seconds};
use crate::limits::{DEFAULT_JWT_LIFETIME, MAX_AUDIENCE_BYTES, MAX_AUDIENCES, MAX_JWT_LIFETIME};

/// A signed token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSvid {
    /// In the compact form. Whoever has it can show it.
    pub token: String,
    /// When it was signed. Whole seconds.
    pub issued: SystemTime,
    /// The moment from which nobody believes it. Whole seconds.
    pub expires: SystemTime,
}

/// Why no token is signed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JwtSvidError {
    /// A token for nobody would be one for everybody.
    #[error("a token is for one audience at least")]
    NoAudience,
    /// There are too many audiences, or one is empty or too long.
    #[error("a token is for at most {MAX_AUDIENCES} audiences of 1 to {MAX_AUDIENCE_BYTES} bytes each")]
    Audience,
    /// The lifetime is negative.
    #[error("a token cannot be valid for {0} seconds")]
    Lifetime(i32),
    /// The id is a trust domain's.
    #[error("{0} names no workload")]
    NoWorkload(SpiffeId),
    /// There is no key whose time has come and that has not expired.
    #[error("the authority has no key that signs tokens now")]
    NoKey,
    /// The cryptographic library failed.
    #[error("the token could not be signed")]
    Key(#[from] KeyError),
    /// It made a signature of another form than it should.
    #[error("the signature is damaged")]
    Signature,
}

impl JwtKeys {
    /// Says that the bearer is `id`, to `audiences`, for `ttl_seconds`; zero asks for nothing in particular, and more
    /// than [`MAX_JWT_LIFETIME`] is cut to that.
    ///
    /// # Errors
    /// When an argument is out of bounds, or there is no key.
    pub fn sign(
        &self,
        id: &SpiffeId,
        audiences: &[String],
        ttl_seconds: i32,
        now: SystemTime,
    ) -> Result<JwtSvid, JwtSvidError> {
        check_audiences(audiences)?;
        if id.path().is_empty() {
            return Err(JwtSvidError::NoWorkload(id.clone()));
        }
        let lifetime = match u64::try_from(ttl_seconds) {
            Ok(0) => DEFAULT_JWT_LIFETIME,
            Ok(seconds) => Duration::from_secs(seconds).min(MAX_JWT_LIFETIME),
            Err(_) => return Err(JwtSvidError::Lifetime(ttl_seconds)),
        };
        let issued = crate::x509::whole_second(now);
        let key = self.signing(issued).ok_or(JwtSvidError::NoKey)?;
        let expires = (issued + lifetime).min(key.expires());
        let header = json!({ "alg": "ES256", "kid": key.id(), "typ": "JWT" });
        let claims = json!({
            "aud": audiences,
            "exp": seconds(expires),
            "iat": seconds(issued),
            "sub": id.to_string(),
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = fixed(&key.sign(signed.as_bytes())?).ok_or(JwtSvidError::Signature)?;
        Ok(JwtSvid {
            token: format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)),
            issued,
            expires,
        })
    }
}

fn check_audiences(audiences: &[String]) -> Result<(), JwtSvidError> {
    if audiences.is_empty() {
        return Err(JwtSvidError::NoAudience);
    }
    let wrong = |audience: &String| audience.is_empty() || audience.len() > MAX_AUDIENCE_BYTES;
    if audiences.len() > MAX_AUDIENCES || audiences.iter().any(wrong) {
        return Err(JwtSvidError::Audience);
    }
    Ok(())
}

/// Half of an ECDSA signature on P-256, in bytes.
const NUMBER_BYTES: usize = 32;

/// The two numbers of an ECDSA signature one after the other, each with all its leading zeros, from DER.
fn fixed(der: &[u8]) -> Option<[u8; 2 * NUMBER_BYTES]> {
    let numbers = yasna::parse_der(der, |reader| {
        reader.read_sequence(|reader| {
            let (first, _) = reader.next().read_bigint_bytes()?;
            let (second, _) = reader.next().read_bigint_bytes()?;
            Ok([first, second])
        })
    });
    let mut all = [0; 2 * NUMBER_BYTES];
    for (half, number) in all.chunks_mut(NUMBER_BYTES).zip(numbers.ok()?) {
        let leading = number.iter().take_while(|byte| **byte == 0).count();
        let digits = &number[leading..];
        let start = NUMBER_BYTES.checked_sub(digits.len())?;
        half[start..].copy_from_slice(digits);
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_numbers_of_a_signature_keep_their_place() {
        let der = [0x30, 0x07, 0x02, 0x01, 0x05, 0x02, 0x02, 0x00, 0x80];
        let all = fixed(&der).unwrap();
        assert_eq!((all[31], all[63]), (5, 0x80));
        assert!(all[..31].iter().chain(&all[32..63]).all(|byte| *byte == 0));
        assert_eq!(fixed(b"nonsense"), None);
        assert_eq!(fixed(&der[..7]), None);
    }
}
