//! Private keys: made, read, and never shown.

use std::fmt;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::limits::{MAX_KEY_PEM_BYTES, MAX_SINGLE_PEM_BLOCKS};
use crate::pem::{self, PemError};
use crate::public_key::{KeyType, PublicKey};

/// Which key to make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// ECDSA on P-256: fast on both ends, and what everybody understands.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA with 2048 bits.
    Rsa2048,
    /// RSA with 3072 bits.
    Rsa3072,
    /// RSA with 4096 bits.
    Rsa4096,
}

/// How a key signs: the one algorithm that belongs to its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureAlgorithm {
    /// ecdsa-with-SHA256.
    EcdsaSha256,
    /// ecdsa-with-SHA384.
    EcdsaSha384,
    /// sha256WithRSAEncryption.
    RsaSha256,
}

impl SignatureAlgorithm {
    /// The object identifier (RFC 5758, RFC 4055).
    pub fn object_identifier(self) -> &'static [u64] {
        match self {
            Self::EcdsaSha256 => &[1, 2, 840, 10045, 4, 3, 2],
            Self::EcdsaSha384 => &[1, 2, 840, 10045, 4, 3, 3],
            Self::RsaSha256 => &[1, 2, 840, 113_549, 1, 1, 11],
        }
    }

    /// Whether its parameters are NULL instead of absent.
    pub fn has_null_parameters(self) -> bool {
        self == Self::RsaSha256
    }
}

/// Why a private key is refused. No variant carries any part of the key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Its PEM text is damaged.
    #[error(transparent)]
    Pem(#[from] PemError),
    /// It is neither PKCS #8, nor SEC 1, nor PKCS #1, or of a kind that is not supported.
    #[error(
        "the private key is damaged or of an unsupported kind: ECDSA P-256, P-384, or RSA with 2048 bits or more"
    )]
    Unreadable,
    /// It is encrypted.
    #[error("the private key is encrypted, which is not supported")]
    Encrypted,
    /// There is more than one.
    #[error("the PEM text holds {0} private keys where one is expected")]
    Several(usize),
    /// It is weak.
    #[error("{0}")]
    Weak(String),
    /// It is another one's.
    #[error("the private key ({key}) does not belong to the certificate of {subject} ({certificate})")]
    Mismatch {
        /// What kind of key it is.
        key: KeyType,
        /// Whose certificate it was compared with.
        subject: String,
        /// What kind of key that one has.
        certificate: KeyType,
    },
    /// The library failed.
    #[error("the cryptographic library could not {0}")]
    Library(&'static str),
}

/// A private key. `Debug` shows its kind; its bytes are in the cryptographic library's own memory, which is wiped
/// when it is freed, and leave it only into wiped buffers.
pub struct PrivateKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Ec(EcdsaKeyPair, SignatureAlgorithm),
    Rsa(RsaKeyPair),
}

impl PrivateKey {
    /// Makes a new key with the system's randomness.
    ///
    /// # Errors
    /// When the library cannot.
    pub fn generate(kind: KeyKind) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Library("make a key");
        let pair = match kind {
            KeyKind::EcdsaP256 => Pair::Ec(
                EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?,
                SignatureAlgorithm::EcdsaSha256,
            ),
            KeyKind::EcdsaP384 => Pair::Ec(
                EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING).map_err(failed)?,
                SignatureAlgorithm::EcdsaSha384,
            ),
            KeyKind::Rsa2048 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?),
            KeyKind::Rsa3072 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa3072).map_err(failed)?),
            KeyKind::Rsa4096 => Pair::Rsa(RsaKeyPair::generate(KeySize::Rsa4096).map_err(failed)?),
        };
        Self::from_pair(pair)
    }

    /// Reads one key: PKCS #8 (`PRIVATE KEY`), SEC 1 (`EC PRIVATE KEY`) or PKCS #1 (`RSA PRIVATE KEY`).
    ///
    /// # Errors
    /// When there is none or more than one, or it is damaged, encrypted, weak, or of an unsupported kind.
    pub fn from_pem(text: &[u8]) -> Result<Self, KeyError> {
        let mut found = pem::blocks(text, MAX_KEY_PEM_BYTES, MAX_SINGLE_PEM_BLOCKS)?;
        // OpenSSL writes the curve before an elliptic key; the key names it as well.
        found.retain(|block| block.label != "EC PARAMETERS");
        match found.as_slice() {
            [] => Err(PemError::Empty("private key").into()),
            [block] => match block.label.as_str() {
                pem::PKCS8 | "EC PRIVATE KEY" | "RSA PRIVATE KEY" => Self::from_der(&block.der),
                "ENCRYPTED PRIVATE KEY" => Err(KeyError::Encrypted),
                other => Err(KeyError::Pem(PemError::Unexpected {
                    found: other.to_owned(),
                    expected: "private key",
                })),
            },
            several => Err(KeyError::Several(several.len())),
        }
    }

    /// Reads one key in DER, in any of the three forms.
    ///
    /// # Errors
    /// When it is damaged, weak, or of an unsupported kind.
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        let ec = |algorithm: &'static EcdsaSigningAlgorithm| {
            EcdsaKeyPair::from_private_key_der(algorithm, der).ok()
        };
        let pair = if let Some(pair) = ec(&ECDSA_P256_SHA256_ASN1_SIGNING) {
            Pair::Ec(pair, SignatureAlgorithm::EcdsaSha256)
        } else if let Some(pair) = ec(&ECDSA_P384_SHA384_ASN1_SIGNING) {
            Pair::Ec(pair, SignatureAlgorithm::EcdsaSha384)
        } else {
            let read = RsaKeyPair::from_pkcs8(der).or_else(|_| RsaKeyPair::from_der(der));
            Pair::Rsa(read.map_err(|_| KeyError::Unreadable)?)
        };
        Self::from_pair(pair)
    }

    fn from_pair(pair: Pair) -> Result<Self, KeyError> {
        let failed = |_| KeyError::Library("write a public key");
        let der: PublicKeyX509Der<'_> = match &pair {
            Pair::Ec(pair, _) => pair.public_key().as_der().map_err(failed)?,
            Pair::Rsa(pair) => pair.public_key().as_der().map_err(failed)?,
        };
        let (_, info) = SubjectPublicKeyInfo::from_der(der.as_ref())
            .map_err(|_| KeyError::Library("write a public key"))?;
        let public = PublicKey::read(&info);
        match public.kind().weakness() {
            Some(weakness) => Err(KeyError::Weak(weakness)),
            None => Ok(Self { pair, public }),
        }
    }

    /// The public half.
    pub fn public_key(&self) -> &PublicKey {
        &self.public
    }

    /// How this key signs.
    pub fn algorithm(&self) -> SignatureAlgorithm {
        match &self.pair {
            Pair::Ec(_, algorithm) => *algorithm,
            Pair::Rsa(_) => SignatureAlgorithm::RsaSha256,
        }
    }

    /// Signs `message` with [`PrivateKey::algorithm`].
    ///
    /// # Errors
    /// When the library cannot.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let failed = |_| KeyError::Library("sign");
        let random = SystemRandom::new();
        match &self.pair {
            Pair::Ec(pair, _) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .map_err(failed)?;
                Ok(signature)
            }
        }
    }

    /// Whether `certificate` is for this key.
    ///
    /// # Errors
    /// [`KeyError::Mismatch`] when it is not.
    pub fn check_belongs_to(&self, certificate: &Certificate) -> Result<(), KeyError> {
        if self.public == *certificate.public_key() {
            return Ok(());
        }
        Err(KeyError::Mismatch {
            key: self.public.kind().clone(),
            subject: certificate.subject().to_owned(),
            certificate: certificate.public_key().kind().clone(),
        })
    }

    /// The key in PKCS #8, unencrypted.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_pkcs8_der(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let failed = |_| KeyError::Library("write a private key");
        Ok(Zeroizing::new(match &self.pair {
            Pair::Ec(pair, _) => pair.to_pkcs8v1().map_err(failed)?.as_ref().to_vec(),
            Pair::Rsa(pair) => {
                let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
                der.as_ref().to_vec()
            }
        }))
    }

    /// The key in PKCS #8 and PEM, unencrypted. Whoever stores it keeps others from reading it.
    ///
    /// # Errors
    /// When the library cannot write it.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, KeyError> {
        Ok(pem::encode_secret(pem::PKCS8, &self.to_pkcs8_der()?))
    }

    /// The public key as rcgen wants it: a point, or the two numbers of RSA.
    pub(crate) fn raw_public(&self) -> &[u8] {
        match &self.pair {
            Pair::Ec(pair, _) => pair.public_key().as_ref(),
            Pair::Rsa(pair) => pair.public_key().as_ref(),
        }
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({})", self.public.kind())
    }
}
