//! Distinguished names as text (RFC 2253), with the escapes that OpenSSL's `XN_FLAG_RFC2253` makes, which is what
//! Envoy prints.

use std::fmt::Write as _;

use x509_parser::asn1_rs::{Oid, Tag, ToDer as _};
use x509_parser::oid_registry;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The attributes that OpenSSL prints by a short name; others are printed by their number.
const SHORT_NAMES: &[(Oid<'static>, &str)] = &[
    (oid_registry::OID_X509_COMMON_NAME, "CN"),
    (oid_registry::OID_X509_SURNAME, "SN"),
    (oid_registry::OID_X509_SERIALNUMBER, "serialNumber"),
    (oid_registry::OID_X509_COUNTRY_NAME, "C"),
    (oid_registry::OID_X509_LOCALITY_NAME, "L"),
    (oid_registry::OID_X509_STATE_OR_PROVINCE_NAME, "ST"),
    (oid_registry::OID_X509_STREET_ADDRESS, "street"),
    (oid_registry::OID_X509_ORGANIZATION_NAME, "O"),
    (oid_registry::OID_X509_ORGANIZATIONAL_UNIT, "OU"),
    (oid_registry::OID_X509_TITLE, "title"),
    (oid_registry::OID_X509_POSTAL_CODE, "postalCode"),
    (oid_registry::OID_X509_NAME, "name"),
    (oid_registry::OID_X509_GIVEN_NAME, "GN"),
    (oid_registry::OID_X509_INITIALS, "initials"),
    (oid_registry::OID_X509_GENERATION_QUALIFIER, "generationQualifier"),
    (oid_registry::OID_X509_DN_QUALIFIER, "dnQualifier"),
    (oid_registry::OID_PKCS9_EMAIL_ADDRESS, "emailAddress"),
    (oid_registry::OID_DOMAIN_COMPONENT, "DC"),
    (oid_registry::OID_USERID, "UID"),
];

/// The name as text, last component first.
pub(crate) fn print(name: &X509Name<'_>) -> String {
    let mut components: Vec<String> = name
        .iter_rdn()
        .map(|component| {
            let mut attributes: Vec<String> = component.iter().map(attribute).collect();
            attributes.reverse();
            attributes.join("+")
        })
        .collect();
    components.reverse();
    components.join(",")
}

/// The common names of `name`.
pub(crate) fn common_names(name: &X509Name<'_>) -> Vec<String> {
    name.iter_common_name().filter_map(text).collect()
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let kind = attribute.attr_type();
    let name = SHORT_NAMES.iter().find(|(oid, _)| oid == kind);
    match (name, text(attribute)) {
        (Some((_, name)), Some(value)) => format!("{name}={}", escape(&value)),
        (Some((_, name)), None) => format!("{name}={}", dump(attribute)),
        (None, _) => format!("{}={}", kind.to_id_string(), dump(attribute)),
    }
}

/// The value in UTF-8, or `None` when it is of a type that is no text.
fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let value = attribute.attr_value();
    match value.tag() {
        Tag::NumericString | Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => {
            String::from_utf8(value.data.to_vec()).ok()
        }
        // Latin-1: every byte is the code point of the same number.
        Tag::TeletexString => Some(value.data.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let units = value
                .data
                .chunks_exact(2)
                .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// `#` and the DER of the value in hexadecimal digits.
fn dump(attribute: &AttributeTypeAndValue<'_>) -> String {
    let der = attribute.attr_value().to_der_vec().unwrap_or_default();
    der.iter().fold("#".to_owned(), |mut out, byte| {
        write!(out, "{byte:02X}").expect("writing to a string does not fail");
        out
    })
}

fn escape(value: &str) -> String {
    let last = value.len().saturating_sub(1);
    let mut out = String::with_capacity(value.len());
    for (index, byte) in value.bytes().enumerate() {
        let edge_space = byte == b' ' && (index == 0 || index == last);
        let leading_hash = byte == b'#' && index == 0;
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            _ if edge_space || leading_hash => {
                out.push('\\');
                out.push(char::from(byte));
            }
            0x20..=0x7e => out.push(char::from(byte)),
            _ => write!(out, "\\{byte:02X}").expect("writing to a string does not fail"),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::escape;

    /// What a real Envoy printed for these values in `%DOWNSTREAM_PEER_SUBJECT%`.
    #[test]
    fn values_are_escaped_as_envoy_escapes_them() {
        for (value, printed) in [
            (" client#1", r"\ client#1"),
            ("Ä b <c>", r"\C3\84 b \<c\>"),
            ("Ac\"me, Inc.\\", r#"Ac\"me\, Inc.\\"#),
            ("#a ", r"\#a\ "),
            ("a+b;c", r"a\+b\;c"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(escape(value), printed);
        }
    }
}
