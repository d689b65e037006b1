//! Revocation lists (RFC 5280, section 5): which of them a chain is held against.
//!
//! webpki holds a certificate against the first list that has its issuer's name and scope. Which one that is, is decided
//! here, as BoringSSL does: of the lists of one authority and scope the newest counts, the others are dropped. Authorities
//! of one name with several keys are told apart by the keys that the chain names; a list by another key would not verify.

use std::cmp::Reverse;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use webpki::{
    BorrowedCertRevocationList, CertRevocationList, Error, ExpirationPolicy, OwnedCertRevocationList,
    RevocationCheckDepth, RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::extensions::ParsedExtension;
use x509_parser::oid_registry::OID_X509_EXT_ISSUER_DISTRIBUTION_POINT;
use x509_parser::revocation_list::CertificateRevocationList;

use super::failure::VerificationFailure;
use crate::certificate::Certificate;
use crate::pem;
use crate::refusal::ContextError;

const WHAT: &str = "crl";

/// The lists of one context, the newest first, and how far they reach.
pub(super) struct Revocation {
    lists: Vec<(Source, CertRevocationList<'static>)>,
    earliest_next_update: Option<SystemTime>,
    depth: RevocationCheckDepth,
    /// Whether there are lists by several keys of one name.
    ambiguous: bool,
}

/// Whose list it is, and of what.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Source {
    issuer: Vec<u8>,
    /// The scope, as DER; nothing when it is everything.
    distribution_point: Option<Vec<u8>>,
    authority_key_id: Option<Vec<u8>>,
}

/// What is read of a list beside what webpki reads.
struct Facts {
    source: Source,
    /// Seconds since 1970.
    this_update: i64,
    number: Vec<u8>,
    next_update: Option<SystemTime>,
}

impl Revocation {
    pub(super) fn load(pem: &[u8], depth: RevocationCheckDepth) -> Result<Self, ContextError> {
        let mut read = Vec::new();
        for (index, der) in pem::revocation_lists(WHAT, pem)?.iter().enumerate() {
            let unreadable = |reason: String| ContextError::Unreadable {
                what: WHAT,
                number: index + 1,
                reason,
            };
            let webpki = |error: Error| unreadable(format!("{error:?}"));
            BorrowedCertRevocationList::from_der(der).map_err(webpki)?;
            let list = OwnedCertRevocationList::from_der(der).map_err(webpki)?;
            let facts = Facts::of(der).map_err(unreadable)?;
            read.push((facts, CertRevocationList::Owned(list)));
        }
        read.sort_by_key(|(facts, _)| {
            let newest = (facts.this_update, facts.number.len(), facts.number.clone());
            Reverse(newest)
        });
        let mut this = Self {
            lists: Vec::new(),
            earliest_next_update: None,
            depth,
            ambiguous: false,
        };
        for (facts, list) in read {
            let mut known = this.lists.iter().map(|(source, _)| source);
            if known.clone().any(|source| *source == facts.source) {
                continue;
            }
            this.ambiguous |= known.any(|source| source.issuer == facts.source.issuer);
            this.earliest_next_update = this
                .earliest_next_update
                .into_iter()
                .chain(facts.next_update)
                .min();
            this.lists.push((facts.source, list));
        }
        Ok(this)
    }

    /// The lists in the order in which they count for a chain.
    pub(super) fn for_chain(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
    ) -> Vec<&CertRevocationList<'static>> {
        let mut lists: Vec<_> = self.lists.iter().collect();
        if self.ambiguous {
            let presented = std::iter::once(leaf).chain(intermediates);
            let read = presented.filter_map(|der| Certificate::from_der(der).ok());
            let named: Vec<Vec<u8>> = read.filter_map(|read| read.authority_key_id).collect();
            let foreign = |source: &Source| {
                let key = source.authority_key_id.as_ref();
                key.is_some_and(|key| !named.contains(key))
            };
            lists.sort_by_key(|(source, _)| foreign(source));
        }
        lists.into_iter().map(|(_, list)| list).collect()
    }

    /// webpki asks whether the lists are still good at the moment that it is given; where that is not now, `now` is
    /// looked at here.
    pub(super) fn options<'a>(
        &self,
        lists: &'a [&'a CertRevocationList<'a>],
        now: Option<SystemTime>,
    ) -> Result<RevocationOptions<'a>, VerificationFailure> {
        let outdated = |end: SystemTime| now.is_some_and(|now| end < now);
        if self.earliest_next_update.is_some_and(outdated) {
            return Err(VerificationFailure::RevocationList(
                "it is past its next update".to_owned(),
            ));
        }
        let builder = RevocationOptionsBuilder::new(lists)
            .map_err(|_| VerificationFailure::RevocationList("there is none".to_owned()))?;
        Ok(builder
            .with_depth(self.depth)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Enforce)
            .build())
    }
}

impl Facts {
    fn of(der: &[u8]) -> Result<Self, String> {
        let (_, list) = x509_parser::parse_x509_crl(der).map_err(|error| error.to_string())?;
        let scope = list
            .extensions()
            .iter()
            .find(|extension| extension.oid == OID_X509_EXT_ISSUER_DISTRIBUTION_POINT);
        Ok(Self {
            source: Source {
                issuer: list.issuer().as_raw().to_vec(),
                distribution_point: scope.map(|extension| extension.value.to_vec()),
                authority_key_id: authority_key_id(&list),
            },
            this_update: list.last_update().timestamp(),
            number: list
                .crl_number()
                .map(|number| number.to_bytes_be())
                .unwrap_or_default(),
            next_update: list.next_update().and_then(|end| {
                let seconds = u64::try_from(end.timestamp()).ok()?;
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
            }),
        })
    }
}

fn authority_key_id(list: &CertificateRevocationList<'_>) -> Option<Vec<u8>> {
    let mut extensions = list
        .extensions()
        .iter()
        .map(|extension| extension.parsed_extension());
    extensions.find_map(|extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(issuer) => Some(issuer.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}
