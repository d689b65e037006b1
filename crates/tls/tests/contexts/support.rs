//! Certificates made for a test, and two contexts that shake hands over a pipe.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SanType,
    SerialNumber,
};
use time::OffsetDateTime;
use tls::settings::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SanType as Kind, Secret,
    StringMatcher, StringPattern, SubjectAltNameMatcher, TlsCertificate, TlsParameters, TlsVersion,
    UpstreamTlsContext,
};
use tls::{ClientContext, ConnectOptions, ConnectionInfo, HandshakeFailure, ServerContext};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

pub(crate) const DAY: Duration = Duration::from_secs(24 * 3600);
/// No handshake takes so long.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The certificates between this authority and its root, this one's first; empty for a root.
    between: String,
}

pub(crate) struct Leaf {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) serial: Vec<u8>,
}

/// What a leaf certificate says.
#[derive(Clone)]
pub(crate) struct Says {
    pub(crate) name: &'static str,
    pub(crate) uris: &'static [&'static str],
    pub(crate) dns: &'static [&'static str],
    pub(crate) emails: &'static [&'static str],
    pub(crate) addresses: &'static [&'static str],
    pub(crate) from: SystemTime,
    pub(crate) to: SystemTime,
    pub(crate) purposes: Vec<ExtendedKeyUsagePurpose>,
    pub(crate) authority: bool,
    pub(crate) rsa: bool,
}

impl Default for Says {
    fn default() -> Self {
        Self {
            name: "leaf",
            uris: &[],
            dns: &[],
            emails: &[],
            addresses: &[],
            from: now() - DAY,
            to: now() + DAY,
            purposes: vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
            authority: false,
            rsa: false,
        }
    }
}

impl Says {
    pub(crate) fn uri(uri: &'static [&'static str]) -> Self {
        Self {
            uris: uri,
            ..Self::default()
        }
    }

    pub(crate) fn dns(dns: &'static [&'static str]) -> Self {
        Self {
            dns,
            ..Self::default()
        }
    }
}

fn authority_params(name: &str, from: SystemTime, to: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = OffsetDateTime::from(from);
    params.not_after = OffsetDateTime::from(to);
    params
}

impl Authority {
    pub(crate) fn root(name: &str) -> Self {
        Self::root_valid(name, now() - 2 * DAY, now() + 2 * DAY)
    }

    pub(crate) fn root_valid(name: &str, from: SystemTime, to: SystemTime) -> Self {
        let key = KeyPair::generate().unwrap();
        Self {
            issuer: CertifiedIssuer::self_signed(authority_params(name, from, to), key).unwrap(),
            between: String::new(),
        }
    }

    pub(crate) fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = authority_params(name, now() - 2 * DAY, now() + 2 * DAY);
        params.use_authority_key_identifier_extension = true;
        let issuer = CertifiedIssuer::signed_by(params, key, &self.issuer).unwrap();
        let between = format!("{}{}", issuer.as_ref().pem(), self.between);
        Self { issuer, between }
    }

    pub(crate) fn pem(&self) -> String {
        self.issuer.as_ref().pem()
    }

    pub(crate) fn leaf(&self, says: &Says) -> Leaf {
        let key = match says.rsa {
            true => KeyPair::generate_for(&rcgen::PKCS_RSA_SHA256).unwrap(),
            false => KeyPair::generate().unwrap(),
        };
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, says.name);
        let uris = says
            .uris
            .iter()
            .map(|text| SanType::URI((*text).try_into().unwrap()));
        let dns = says
            .dns
            .iter()
            .map(|text| SanType::DnsName((*text).try_into().unwrap()));
        let emails = says
            .emails
            .iter()
            .map(|text| SanType::Rfc822Name((*text).try_into().unwrap()));
        let addresses = says
            .addresses
            .iter()
            .map(|text| SanType::IpAddress(text.parse::<IpAddr>().unwrap()));
        params.subject_alt_names = uris.chain(dns).chain(emails).chain(addresses).collect();
        params.not_before = OffsetDateTime::from(says.from);
        params.not_after = OffsetDateTime::from(says.to);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = says.purposes.clone();
        if says.authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages.push(KeyUsagePurpose::KeyCertSign);
        }
        let serial: Vec<u8> = key
            .public_key_raw()
            .iter()
            .rev()
            .take(8)
            .map(|byte| byte & 0x7f | 1)
            .collect();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            chain: format!("{}{}", certificate.pem(), self.between),
            key: key.serialize_pem(),
            serial,
        }
    }

    /// A revocation list that names `revoked`, to be renewed by `next_update`.
    pub(crate) fn revocation_list(&self, revoked: &[&Leaf], next_update: SystemTime) -> String {
        self.revocation_list_of(now() - 2 * DAY, revoked, next_update)
    }

    /// The same, made at `this_update`.
    pub(crate) fn revocation_list_of(
        &self,
        this_update: SystemTime,
        revoked: &[&Leaf],
        next_update: SystemTime,
    ) -> String {
        let entry = |leaf: &&Leaf| RevokedCertParams {
            serial_number: SerialNumber::from_slice(&leaf.serial),
            revocation_time: OffsetDateTime::from(now() - DAY),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: OffsetDateTime::from(this_update),
            next_update: OffsetDateTime::from(next_update),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.iter().map(entry).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

impl Leaf {
    pub(crate) fn material(&self) -> TlsCertificate {
        TlsCertificate {
            certificate_chain: self.chain.clone().into_bytes(),
            private_key: Secret::new(self.key.clone()),
        }
    }
}

pub(crate) fn trusting(authorities: &[&Authority]) -> CertificateValidationContext {
    let pem: String = authorities.iter().map(|authority| authority.pem()).collect();
    CertificateValidationContext {
        trusted_ca: Some(pem.into_bytes()),
        ..CertificateValidationContext::default()
    }
}

pub(crate) fn expecting(san_type: Kind, pattern: StringPattern) -> SubjectAltNameMatcher {
    SubjectAltNameMatcher {
        san_type,
        matcher: StringMatcher {
            pattern,
            ignore_case: false,
        },
    }
}

fn up_to_1_3() -> TlsParameters {
    TlsParameters {
        maximum_version: Some(TlsVersion::V1_3),
        ..TlsParameters::default()
    }
}

/// Settings of a server with these certificates, and nothing else.
pub(crate) fn server(leaves: &[&Leaf]) -> DownstreamTlsContext {
    DownstreamTlsContext {
        common: CommonTlsContext {
            tls_params: up_to_1_3(),
            tls_certificates: leaves.iter().map(|leaf| leaf.material()).collect(),
            ..CommonTlsContext::default()
        },
        ..DownstreamTlsContext::default()
    }
}

/// Settings of a server that wants its clients verified.
pub(crate) fn mutual_server(leaf: &Leaf, validation: CertificateValidationContext) -> DownstreamTlsContext {
    let mut settings = server(&[leaf]);
    settings.common.validation_context = Some(validation);
    settings.require_client_certificate = true;
    settings
}

/// Settings of a client with this certificate, that verifies nothing.
pub(crate) fn client(leaf: Option<&Leaf>) -> UpstreamTlsContext {
    UpstreamTlsContext {
        common: CommonTlsContext {
            tls_params: up_to_1_3(),
            tls_certificates: leaf.into_iter().map(Leaf::material).collect(),
            ..CommonTlsContext::default()
        },
        ..UpstreamTlsContext::default()
    }
}

pub(crate) fn server_context(settings: &DownstreamTlsContext) -> ServerContext {
    ServerContext::new(settings, now()).unwrap()
}

pub(crate) fn client_context(settings: &UpstreamTlsContext) -> ClientContext {
    ClientContext::new(settings, now()).unwrap()
}

type Outcome = Result<ConnectionInfo, HandshakeFailure>;

/// What the server and the client have to say about one connection over which the server then sends a byte.
pub(crate) async fn meet(
    server: &ServerContext,
    client: &ClientContext,
    options: ConnectOptions<'_>,
) -> (Outcome, Outcome) {
    let (near, far) = tokio::io::duplex(64 * 1024);
    let serve = async {
        let (mut stream, info) = server.accept(far).await?;
        let sent = stream.write_all(b"x").await;
        let _ = stream.shutdown().await;
        sent.map_err(|error| HandshakeFailure::from_io(&error))?;
        Ok(info)
    };
    let connect = async {
        let (mut stream, info) = client.connect(near, options).await?;
        let read = stream.read_u8().await;
        read.map_err(|error| HandshakeFailure::from_io(&error))?;
        Ok(info)
    };
    tokio::time::timeout(PATIENCE, async { tokio::join!(serve, connect) })
        .await
        .expect("a handshake ends")
}

/// What a server says about a client that presents `leaf`.
pub(crate) async fn judged(
    validation: CertificateValidationContext,
    server_leaf: &Leaf,
    client_leaf: &Leaf,
) -> Outcome {
    let server = server_context(&mutual_server(server_leaf, validation));
    // A context refuses material that is not valid now, so a client with such material is made at its time.
    let settings = client(Some(client_leaf));
    let moments = [now(), now() - 10 * DAY, now() + 10 * DAY];
    let client = moments
        .iter()
        .find_map(|now| ClientContext::new(&settings, *now).ok());
    let (served, _) = meet(&server, &client.unwrap(), ConnectOptions::default()).await;
    served
}

/// The check that a peer failed.
pub(crate) fn failed_check(outcome: Outcome) -> &'static str {
    match outcome {
        Ok(_) => "none",
        Err(failure) => failure
            .verification()
            .unwrap_or_else(|| panic!("{failure:?}"))
            .check(),
    }
}
