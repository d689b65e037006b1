//! What the tests of this crate share.

#![allow(dead_code, unreachable_pub, reason = "each test file uses a part")]

use std::time::{Duration, SystemTime};

use control_ca::{Authority, Issued, SecretData, SelfSigned};
use identity::{
    Certificate, CertificateRequest, KeyKind, PrivateKey, SpiffeId, SubjectName, TrustDomain,
    request_certificate,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);
pub const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

/// A moment that every certificate of these tests is made around. It is the real one, as openssl knows no other.
pub fn now() -> SystemTime {
    let seconds = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

pub fn trust_domain() -> TrustDomain {
    TrustDomain::new("cluster.local").expect("a trust domain")
}

pub fn self_signed(now: SystemTime) -> Authority {
    Authority::self_signed(&SelfSigned::for_trust_domain(&trust_domain()), now).expect("an authority")
}

pub fn uri(id: &str) -> SubjectName {
    let id: SpiffeId = id.parse().expect("an id");
    SubjectName::Uri(id.to_string())
}

/// A request of somebody with a fresh key.
pub fn request(wishes: &[SubjectName]) -> (PrivateKey, String) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let text = request_certificate(&key, wishes).expect("a request");
    (key, text)
}

/// A certificate for [`REVIEWS`].
pub fn sign(authority: &Authority, lifetime: Duration, now: SystemTime) -> Issued {
    let (_, text) = request(&[]);
    let request = CertificateRequest::from_pem(text.as_bytes()).expect("our request");
    authority
        .sign(&request, &[uri(REVIEWS)], lifetime, now)
        .expect("a certificate")
}

/// A party by another hand.
pub struct Party {
    pub params: CertificateParams,
    pub key: KeyPair,
    pub pem: String,
}

impl Party {
    pub fn certificate(&self) -> Certificate {
        Certificate::from_pem(self.pem.as_bytes()).expect("rcgen's certificate")
    }

    pub fn sign(&self, params: CertificateParams) -> Party {
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let pem = params.signed_by(&key, &issuer).expect("a certificate").pem();
        Party { params, key, pem }
    }
}

pub fn params(name: &str, now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * 30).into();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

pub fn root(params: CertificateParams) -> Party {
    let key = KeyPair::generate().expect("a key");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    Party { params, key, pem }
}

/// A root, an intermediate, and the authority that an operator plugs in, as the content of `cacerts`.
pub fn cacerts(now: SystemTime) -> (Party, Party, Party, SecretData) {
    let root = root(params("corporate root", now));
    let middle = root.sign(params("department", now));
    let signing = middle.sign(params("mesh", now));
    let data = SecretData::from([
        ("ca-cert.pem".to_owned(), signing.pem.clone().into_bytes()),
        ("ca-key.pem".to_owned(), signing.key.serialize_pem().into_bytes()),
        ("root-cert.pem".to_owned(), root.pem.clone().into_bytes()),
        (
            "cert-chain.pem".to_owned(),
            format!("{}{}{}", signing.pem, middle.pem, root.pem).into_bytes(),
        ),
    ]);
    (root, middle, signing, data)
}
