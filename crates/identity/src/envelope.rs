//! The outer form that certificates, requests and revocation lists share: content, algorithm, signature.
//!
//! Only the content is signed. The parser is lenient about the rest, so that one signed content would have several
//! spellings with several hashes; here exactly one is accepted.

use x509_parser::asn1_rs::BitString;
use x509_parser::oid_registry as oid;
use x509_parser::x509::AlgorithmIdentifier;
use yasna::models::ObjectIdentifier;

/// Whether `whole` is the one DER spelling of `content` with its signature, by an algorithm that is believed:
/// SHA-1 is not.
pub(crate) fn is_strict(
    whole: &[u8],
    content: &[u8],
    algorithm: &AlgorithmIdentifier<'_>,
    signature: &BitString<'_>,
) -> bool {
    let Some(identifier) = algorithm_der(whole, content, algorithm) else {
        return false;
    };
    let spelling = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(content);
            writer.next().write_der(&identifier);
            writer
                .next()
                .write_bitvec_bytes(&signature.data, signature.data.len() * 8);
        });
    });
    spelling == whole
}

fn algorithm_der(whole: &[u8], content: &[u8], algorithm: &AlgorithmIdentifier<'_>) -> Option<Vec<u8>> {
    let has_null =
        if [oid::OID_SIG_ECDSA_WITH_SHA256, oid::OID_SIG_ECDSA_WITH_SHA384].contains(&algorithm.algorithm) {
            false
        } else if [
            oid::OID_PKCS1_SHA256WITHRSA,
            oid::OID_PKCS1_SHA384WITHRSA,
            oid::OID_PKCS1_SHA512WITHRSA,
        ]
        .contains(&algorithm.algorithm)
        {
            true
        } else if algorithm.algorithm == oid::OID_PKCS1_RSASSAPSS {
            // Its parameters have many forms. Those in the content are signed: the outer ones have to be the same bytes,
            // and so are found there.
            return repeated_algorithm(whole, content);
        } else {
            return None;
        };
    let components: Vec<u64> = algorithm.algorithm.iter()?.collect();
    Some(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer
                .next()
                .write_oid(&ObjectIdentifier::from_slice(&components));
            if has_null {
                writer.next().write_null();
            }
        });
    }))
}

/// The algorithm after the content, when the content holds the same bytes. A signing request does not repeat it.
fn repeated_algorithm(whole: &[u8], content: &[u8]) -> Option<Vec<u8>> {
    let start = whole.windows(content.len()).take(8).position(|w| w == content)? + content.len();
    let rest = whole.get(start..)?;
    // Parameters of RSASSA-PSS take less than 128 bytes, so that the length is one byte.
    let length = 2 + usize::from(*rest.get(1).filter(|l| **l < 0x80)?);
    let found = rest.get(..length)?;
    content
        .windows(length)
        .any(|w| w == found)
        .then(|| found.to_vec())
}
