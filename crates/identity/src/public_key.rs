//! Public keys: which kinds are known, and one spelling of each (RFC 5480, RFC 3279).

use std::fmt;

use x509_parser::oid_registry as oid;
use x509_parser::prelude::FromDer as _;
use x509_parser::x509::SubjectPublicKeyInfo;
use yasna::models::ObjectIdentifier;

use crate::limits::{MAX_RSA_BITS, MIN_RSA_BITS};

/// What kind of key a certificate or a request holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum KeyType {
    /// ECDSA on P-256.
    EcdsaP256,
    /// ECDSA on P-384.
    EcdsaP384,
    /// RSA.
    Rsa {
        /// Length of the modulus.
        bits: u32,
    },
    /// Something that this mesh neither signs nor signs with, by its object identifier.
    Other(String),
}

impl KeyType {
    /// Why a key of this kind gets no certificate, when it gets none.
    pub fn weakness(&self) -> Option<String> {
        match self {
            Self::EcdsaP256 | Self::EcdsaP384 => None,
            Self::Rsa { bits } if *bits < MIN_RSA_BITS => Some(format!(
                "an RSA key of {bits} bits is weak: {MIN_RSA_BITS} at least"
            )),
            Self::Rsa { bits } if *bits > MAX_RSA_BITS => Some(format!(
                "an RSA key of {bits} bits is too long: {MAX_RSA_BITS} at most"
            )),
            Self::Rsa { .. } => None,
            Self::Other(name) => Some(format!(
                "a key of the kind {name} is not supported: ECDSA P-256, P-384 or RSA"
            )),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EcdsaP256 => f.write_str("ECDSA P-256"),
            Self::EcdsaP384 => f.write_str("ECDSA P-384"),
            Self::Rsa { bits } => write!(f, "RSA {bits}"),
            Self::Other(name) => f.write_str(name),
        }
    }
}

/// A public key in one spelling: two are equal exactly when they are the same key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PublicKey {
    kind: KeyType,
    der: Vec<u8>,
}

const EC_PUBLIC_KEY: &[u64] = &[1, 2, 840, 10045, 2, 1];
const RSA_ENCRYPTION: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];
const P384: &[u64] = &[1, 3, 132, 0, 34];
/// The first byte of a point that is not compressed.
const UNCOMPRESSED: u8 = 4;

impl PublicKey {
    /// The kind.
    pub fn kind(&self) -> &KeyType {
        &self.kind
    }

    /// The SubjectPublicKeyInfo in DER, written anew from the key's numbers: no byte that its owner chose freely
    /// gets into a certificate.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Reads a SubjectPublicKeyInfo in DER; nothing when it is none, or more than one.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (rest, info) = SubjectPublicKeyInfo::from_der(der).ok()?;
        rest.is_empty().then(|| Self::read(&info))
    }

    /// The two coordinates of an elliptic key's point, each as long as the curve's field: `x` and `y` of a JSON Web Key
    /// (RFC 7518, section 6.2.1). Nothing of keys of other kinds.
    pub fn coordinates(&self) -> Option<(&[u8], &[u8])> {
        let field_bytes = match self.kind {
            KeyType::EcdsaP256 => 32,
            KeyType::EcdsaP384 => 48,
            KeyType::Rsa { .. } | KeyType::Other(_) => return None,
        };
        // The point is the last that is written of such a key.
        let both = self.der.get(self.der.len().checked_sub(2 * field_bytes)?..)?;
        Some(both.split_at(field_bytes))
    }

    pub(crate) fn read(info: &SubjectPublicKeyInfo<'_>) -> Self {
        Self::elliptic(info)
            .or_else(|| Self::rsa(info))
            .unwrap_or_else(|| Self {
                kind: KeyType::Other(info.algorithm.algorithm.to_id_string()),
                der: info.raw.to_vec(),
            })
    }

    fn elliptic(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if info.algorithm.algorithm != oid::OID_KEY_TYPE_EC_PUBLIC_KEY {
            return None;
        }
        let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
        let (kind, curve, size) = if curve == oid::OID_EC_P256 {
            (KeyType::EcdsaP256, P256, 65)
        } else if curve == oid::OID_NIST_EC_P384 {
            (KeyType::EcdsaP384, P384, 97)
        } else {
            return None;
        };
        let point = whole_bytes(info)?;
        if point.len() != size || point.first() != Some(&UNCOMPRESSED) {
            return None;
        }
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_sequence(|writer| {
                    writer
                        .next()
                        .write_oid(&ObjectIdentifier::from_slice(EC_PUBLIC_KEY));
                    writer.next().write_oid(&ObjectIdentifier::from_slice(curve));
                });
                writer.next().write_bitvec_bytes(point, point.len() * 8);
            });
        });
        Some(Self { kind, der })
    }

    fn rsa(info: &SubjectPublicKeyInfo<'_>) -> Option<Self> {
        if info.algorithm.algorithm != oid::OID_PKCS1_RSAENCRYPTION {
            return None;
        }
        whole_bytes(info)?;
        let Ok(x509_parser::public_key::PublicKey::RSA(numbers)) = info.parsed() else {
            return None;
        };
        let bits = bit_length(numbers.modulus)?;
        bit_length(numbers.exponent)?;
        let key = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_bigint_bytes(numbers.modulus, true);
                writer.next().write_bigint_bytes(numbers.exponent, true);
            });
        });
        let der = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_sequence(|writer| {
                    writer
                        .next()
                        .write_oid(&ObjectIdentifier::from_slice(RSA_ENCRYPTION));
                    writer.next().write_null();
                });
                writer.next().write_bitvec_bytes(&key, key.len() * 8);
            });
        });
        Some(Self {
            kind: KeyType::Rsa { bits },
            der,
        })
    }
}

fn whole_bytes<'i>(info: &'i SubjectPublicKeyInfo<'_>) -> Option<&'i [u8]> {
    let bits = &info.subject_public_key;
    (bits.unused_bits == 0).then_some(&bits.data)
}

/// Length of a positive DER integer in bits. A leading zero keeps it positive and does not count.
fn bit_length(number: &[u8]) -> Option<u32> {
    if number.first()? & 0x80 != 0 {
        return None;
    }
    let zeros = number.iter().take_while(|b| **b == 0).count();
    let first = number.get(zeros)?;
    let bytes = u32::try_from(number.len() - zeros).ok()?;
    Some(bytes * 8 - first.leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_number_ignores_leading_zeros() {
        assert_eq!(bit_length(&[0, 0x80, 0]), Some(16));
        assert_eq!(bit_length(&[0x7f, 0xff]), Some(15));
        assert_eq!(bit_length(&[1]), Some(1));
        assert_eq!(bit_length(&[0]), None);
        assert_eq!(bit_length(&[]), None);
        assert_eq!(bit_length(&[0x80]), None);
    }

    #[test]
    fn keys_that_are_short_too_long_or_unknown_are_weak_with_a_reason() {
        for good in [
            KeyType::EcdsaP256,
            KeyType::EcdsaP384,
            KeyType::Rsa { bits: 2048 },
        ] {
            assert_eq!(good.weakness(), None);
        }
        for (bad, word) in [
            (KeyType::Rsa { bits: 1024 }, "weak"),
            (KeyType::Rsa { bits: 2047 }, "weak"),
            (KeyType::Rsa { bits: 16384 }, "too long"),
            (KeyType::Other("1.3.101.112".to_owned()), "not supported"),
        ] {
            assert!(bad.weakness().is_some_and(|w| w.contains(word)), "{bad}");
        }
    }
}
