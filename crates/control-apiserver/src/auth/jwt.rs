//! ServiceAccount tokens: JSON Web Tokens (RFC 7519) signed with ES256 (RFC 7518).

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::ISSUER;
use crate::start_error::StartError;

/// What a token says; times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) namespace: String,
    pub(crate) account: String,
    pub(crate) account_uid: String,
    pub(crate) audiences: Vec<String>,
    pub(crate) issued: i64,
    pub(crate) not_before: i64,
    pub(crate) expires: i64,
    pub(crate) id: String,
}

impl Claims {
    fn to_json(&self) -> Value {
        json!({
            "aud": self.audiences,
            "exp": self.expires,
            "iat": self.issued,
            "iss": ISSUER,
            "jti": self.id,
            "kubernetes.io": {
                "namespace": self.namespace,
                "serviceaccount": {"name": self.account, "uid": self.account_uid},
            },
            "nbf": self.not_before,
            "sub": format!("system:serviceaccount:{}:{}", self.namespace, self.account),
        })
    }

    fn from_json(value: &Value) -> Option<Self> {
        if value["iss"] != ISSUER {
            return None;
        }
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let kubernetes = &value["kubernetes.io"];
        Some(Self {
            namespace: text(&kubernetes["namespace"])?,
            account: text(&kubernetes["serviceaccount"]["name"])?,
            account_uid: text(&kubernetes["serviceaccount"]["uid"])?,
            audiences: value["aud"].as_array()?.iter().filter_map(text).collect(),
            issued: value["iat"].as_i64()?,
            not_before: value["nbf"].as_i64()?,
            expires: value["exp"].as_i64()?,
            id: text(&value["jti"])?,
        })
    }
}

/// The key that signs and checks tokens.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    key_id: String,
}

impl Signer {
    /// A new key in PKCS #8.
    pub(crate) fn generate() -> Result<Vec<u8>, StartError> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)
            .map_err(|_| StartError::Crypto("the token key could not be made"))?;
        let document = key
            .to_pkcs8v1()
            .map_err(|_| StartError::Crypto("the token key could not be written"))?;
        Ok(document.as_ref().to_vec())
    }

    /// Takes up a key made by [`Signer::generate`].
    pub(crate) fn load(pkcs8: &[u8]) -> Result<Self, StartError> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8)
            .map_err(|_| StartError::Crypto("the stored token key is damaged"))?;
        let spki = key
            .public_key()
            .as_der()
            .map_err(|_| StartError::Crypto("the token key has no public part"))?;
        let key_id = URL_SAFE_NO_PAD.encode(digest(&SHA256, spki.as_ref()));
        Ok(Self { key, key_id })
    }

    /// Signs a token.
    pub(crate) fn sign(&self, claims: &Claims) -> Option<String> {
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims.to_json()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).ok()?;
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// The claims of a token that this key signed; expiry is the caller's to check.
    pub(crate) fn verify(&self, token: &str) -> Option<Claims> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(header).ok()?).ok()?;
        if header["alg"] != "ES256" {
            return None;
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.key.public_key().as_ref());
        public.verify(signed.as_bytes(), &signature).ok()?;
        let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        Claims::from_json(&payload)
    }

    /// The public key as a JSON Web Key Set (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        // The public key is 0x04, X, Y, each 32 bytes.
        let point = self.key.public_key().as_ref();
        let coordinate = |from: usize| URL_SAFE_NO_PAD.encode(point.get(from..from + 32).unwrap_or_default());
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": coordinate(1), "y": coordinate(33),
        }]})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Claims {
        Claims {
            namespace: "default".to_owned(),
            account: "a".to_owned(),
            account_uid: "u".to_owned(),
            audiences: vec!["istio-ca".to_owned()],
            issued: 1,
            not_before: 1,
            expires: 2,
            id: "i".to_owned(),
        }
    }

    #[test]
    fn a_signed_token_says_what_was_signed() {
        let signer = Signer::load(&Signer::generate().unwrap()).unwrap();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(signer.verify(&token), Some(claims()));
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let signer = Signer::load(&Signer::generate().unwrap()).unwrap();
        let stranger = Signer::load(&Signer::generate().unwrap()).unwrap();
        let token = signer.sign(&claims()).unwrap();
        assert_eq!(stranger.verify(&token), None);
        let mut parts: Vec<&str> = token.split('.').collect();
        let unsigned_header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        parts[0] = &unsigned_header;
        assert_eq!(signer.verify(&parts.join(".")), None);
        assert_eq!(signer.verify("a.b.c"), None);
    }
}
