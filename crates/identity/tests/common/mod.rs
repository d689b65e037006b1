//! Certificates by another hand (rcgen), so that what we read is not only what we wrote.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::time::{Duration, SystemTime};

use identity::{Certificate, PrivateKey};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    SanType,
};

/// The moment around which the certificates of a test are made.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub const HOUR: Duration = Duration::from_secs(3600);

/// Somebody with a key and a certificate.
pub struct Party {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub certificate: Certificate,
}

impl Party {
    pub fn private_key(&self) -> PrivateKey {
        PrivateKey::from_pem(self.key.serialize_pem().as_bytes()).expect("rcgen's key")
    }

    /// A certificate that this party has signed.
    pub fn sign(&self, params: CertificateParams) -> Party {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let signed = params.signed_by(&key, &issuer).expect("a certificate");
        Party {
            certificate: Certificate::from_der(signed.der()).expect("rcgen's certificate"),
            params,
            key,
        }
    }
}

/// What an authority's certificate says, valid for an hour around [`now`].
pub fn authority(name: &str) -> CertificateParams {
    let mut params = leaf(&[]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

/// What a leaf's certificate says, valid for an hour around [`now`].
pub fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = (now() - HOUR).into();
    params.not_after = (now() + HOUR).into();
    params.subject_alt_names = uris
        .iter()
        .map(|uri| SanType::URI((*uri).try_into().expect("ASCII")))
        .collect();
    params
}

/// A certificate that vouches for itself.
pub fn self_signed(params: CertificateParams) -> Party {
    let key = KeyPair::generate().expect("a key");
    let signed = params.self_signed(&key).expect("a certificate");
    Party {
        certificate: Certificate::from_der(signed.der()).expect("rcgen's certificate"),
        params,
        key,
    }
}
