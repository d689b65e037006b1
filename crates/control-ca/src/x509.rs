//! Writes certificates (RFC 5280, section 4.1).
//!
//! The issuer's name is copied from its certificate byte by byte. Names have many spellings, an issuer is found by
//! comparing bytes, and corporate authorities have names (`DC=example, DC=com`) that a library which takes names
//! apart and writes them anew does not reproduce.

use std::time::{Duration, SystemTime};

use aws_lc_rs::rand::{SecureRandom as _, SystemRandom};
use identity::{KeyError, PrivateKey, PublicKey, SignatureAlgorithm, SubjectName};
use time::OffsetDateTime;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, DERWriterSeq, Tag};

const ORGANIZATION: &[u64] = &[2, 5, 4, 10];
const SUBJECT_KEY_ID: &[u64] = &[2, 5, 29, 14];
const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
const BASIC_CONSTRAINTS: &[u64] = &[2, 5, 29, 19];
const AUTHORITY_KEY_ID: &[u64] = &[2, 5, 29, 35];
const EXTENDED_KEY_USAGE: &[u64] = &[2, 5, 29, 37];
const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
/// The year from which on dates have four digits.
const FOUR_DIGIT_YEAR: i32 = 2050;

/// What a certificate says.
pub(crate) struct Content<'c> {
    /// Positive, and never the same again.
    pub(crate) serial: [u8; 16],
    /// Whole names in DER.
    pub(crate) issuer: &'c [u8],
    pub(crate) subject: &'c [u8],
    pub(crate) not_before: SystemTime,
    pub(crate) not_after: SystemTime,
    pub(crate) public_key: &'c PublicKey,
    pub(crate) purpose: Purpose<'c>,
    pub(crate) authority_key_id: Option<&'c [u8]>,
}

/// What its key is for.
pub(crate) enum Purpose<'c> {
    /// Signing certificates; the key has this identifier.
    Authority { key_id: &'c [u8] },
    /// Being one of these on either end of a connection.
    Leaf { names: &'c [SubjectName] },
}

/// The name with one organization, or with nothing when it is empty.
pub(crate) fn name(organization: &str) -> Vec<u8> {
    yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            if organization.is_empty() {
                return;
            }
            writer.next().write_set(|writer| {
                writer.next().write_sequence(|writer| {
                    writer
                        .next()
                        .write_oid(&ObjectIdentifier::from_slice(ORGANIZATION));
                    writer.next().write_utf8_string(organization);
                });
            });
        });
    })
}

/// The certificate in DER, signed by `key`.
pub(crate) fn sign(content: &Content<'_>, key: &PrivateKey) -> Result<Vec<u8>, KeyError> {
    let algorithm = key.algorithm();
    let signed = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer
                .next()
                .write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(&content.serial, true);
            write_algorithm(writer.next(), algorithm);
            writer.next().write_der(content.issuer);
            writer.next().write_sequence(|writer| {
                write_time(writer.next(), content.not_before);
                write_time(writer.next(), content.not_after);
            });
            writer.next().write_der(content.subject);
            writer.next().write_der(content.public_key.der());
            writer.next().write_tagged(Tag::context(3), |writer| {
                writer.write_sequence(|writer| write_extensions(writer, content));
            });
        });
    });
    let signature = key.sign(&signed)?;
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&signed);
            write_algorithm(writer.next(), algorithm);
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    }))
}

fn write_algorithm(writer: DERWriter<'_>, algorithm: SignatureAlgorithm) {
    writer.write_sequence(|writer| {
        let identifier = ObjectIdentifier::from_slice(algorithm.object_identifier());
        writer.next().write_oid(&identifier);
        if algorithm.has_null_parameters() {
            writer.next().write_null();
        }
    });
}

fn write_time(writer: DERWriter<'_>, time: SystemTime) {
    let time = OffsetDateTime::from(time);
    let time = time.replace_nanosecond(0).unwrap_or(time);
    if time.year() < FOUR_DIGIT_YEAR {
        writer.write_utctime(&UTCTime::from_datetime(time));
    } else {
        writer.write_generalized_time(&GeneralizedTime::from_datetime(time));
    }
}

fn write_extensions(writer: &mut DERWriterSeq<'_>, content: &Content<'_>) {
    match &content.purpose {
        Purpose::Authority { key_id } => {
            // keyCertSign, the sixth bit.
            extension(writer, KEY_USAGE, true, |w| {
                w.write_bitvec_bytes(&[0b0000_0100], 6)
            });
            extension(writer, BASIC_CONSTRAINTS, true, |w| {
                w.write_sequence(|w| w.next().write_bool(true));
            });
            extension(writer, SUBJECT_KEY_ID, false, |w| w.write_bytes(key_id));
        }
        Purpose::Leaf { .. } => {
            // digitalSignature and keyEncipherment, the first and the third bit.
            extension(writer, KEY_USAGE, true, |w| {
                w.write_bitvec_bytes(&[0b1010_0000], 3)
            });
            extension(writer, EXTENDED_KEY_USAGE, false, |w| {
                w.write_sequence(|w| {
                    w.next().write_oid(&ObjectIdentifier::from_slice(SERVER_AUTH));
                    w.next().write_oid(&ObjectIdentifier::from_slice(CLIENT_AUTH));
                });
            });
            extension(writer, BASIC_CONSTRAINTS, true, |w| w.write_sequence(|_| {}));
        }
    }
    if let Some(id) = content.authority_key_id {
        extension(writer, AUTHORITY_KEY_ID, false, |w| {
            w.write_sequence(|w| {
                w.next()
                    .write_tagged_implicit(Tag::context(0), |w| w.write_bytes(id));
            });
        });
    }
    if let Purpose::Leaf { names } = &content.purpose {
        // The subject is empty, so that the names are all there is, and critical.
        extension(writer, SUBJECT_ALT_NAME, true, |w| {
            w.write_sequence(|w| names.iter().for_each(|name| write_name(w.next(), name)));
        });
    }
}

fn extension(
    writer: &mut DERWriterSeq<'_>,
    identifier: &[u64],
    critical: bool,
    content: impl FnOnce(DERWriter<'_>),
) {
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(identifier));
        if critical {
            writer.next().write_bool(true);
        }
        writer.next().write_bytes(&yasna::construct_der(content));
    });
}

fn write_name(writer: DERWriter<'_>, name: &SubjectName) {
    match name {
        SubjectName::Email(text) => {
            writer.write_tagged_implicit(Tag::context(1), |w| w.write_ia5_string(text))
        }
        SubjectName::Dns(text) => writer.write_tagged_implicit(Tag::context(2), |w| w.write_ia5_string(text)),
        SubjectName::Uri(text) => writer.write_tagged_implicit(Tag::context(6), |w| w.write_ia5_string(text)),
        SubjectName::Ip(std::net::IpAddr::V4(address)) => {
            writer.write_tagged_implicit(Tag::context(7), |w| w.write_bytes(&address.octets()));
        }
        SubjectName::Ip(std::net::IpAddr::V6(address)) => {
            writer.write_tagged_implicit(Tag::context(7), |w| w.write_bytes(&address.octets()));
        }
    }
}

/// Serial numbers are random, so that nobody has to remember the last one, and positive.
pub(crate) fn random_serial() -> Result<[u8; 16], KeyError> {
    let mut serial = [0; 16];
    SystemRandom::new()
        .fill(&mut serial)
        .map_err(|_| KeyError::Library("make a random number"))?;
    // A leading one keeps every serial number 16 bytes long and different from zero.
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

/// Certificates know whole seconds only.
pub(crate) fn whole_second(time: SystemTime) -> SystemTime {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()),
        Err(_) => SystemTime::UNIX_EPOCH,
    }
}
