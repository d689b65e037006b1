//! The files of istioctl, and what becomes of them.

use std::time::Duration;

use super::*;
use crate::certificates::authority::CertificateAuthority;

/// As istioctl writes them for a WorkloadGroup `ledger` of the namespace `bank`.
const CLUSTER_ENV: &str = r#"CANONICAL_REVISION=latest
CANONICAL_SERVICE=ledger
ISTIO_INBOUND_PORTS='*'
ISTIO_LOCAL_EXCLUDE_PORTS='22,15090,15021,15020'
ISTIO_METAJSON_LABELS='{"app":"ledger","service.istio.io/canonical-name":"ledger","service.istio.io/canonical-revision":"latest"}'
ISTIO_META_AUTO_REGISTER_GROUP=ledger
ISTIO_META_CLUSTER_ID=Kubernetes
ISTIO_META_DNS_CAPTURE=true
ISTIO_META_MESH_ID=''
ISTIO_META_NETWORK=vm-network
ISTIO_META_WORKLOAD_NAME=ledger
ISTIO_NAMESPACE=bank
ISTIO_SERVICE=ledger.bank
ISTIO_SERVICE_CIDR='*'
ISTIO_SVC_IP=10.10.10.10
POD_NAMESPACE=bank
SERVICE_ACCOUNT=clerk
TRUST_DOMAIN=cluster.local
"#;

const MESH: &str = "defaultConfig:
  discoveryAddress: istiod-canary.istio-system.svc:15012
  statusPort: 15020
  proxyMetadata:
    ISTIO_META_CLUSTER_ID: overridden
    SECRET_TTL: 1h30m
    NOVELTY: \"yes\"
";

/// A folder of these files.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        folder.write("cluster.env", CLUSTER_ENV);
        folder.write("mesh.yaml", MESH);
        folder.write(
            "hosts",
            "192.0.2.7 istiod-canary.istio-system.svc # the gateway\n",
        );
        folder
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.path().join(name), text).unwrap();
    }

    fn read(&self) -> Result<Onboarding, OnboardingError> {
        Onboarding::read(self.0.path())
    }

    /// With another line in `cluster.env`.
    fn with(&self, line: &str) -> Result<Onboarding, OnboardingError> {
        self.write("cluster.env", &format!("{CLUSTER_ENV}{line}\n"));
        self.read()
    }
}

#[test]
fn the_files_of_istioctl_make_a_workload() {
    let read = Folder::new().read().unwrap();
    let spec = read.spec(vec![4000], vec!["ledger".into()]).unwrap();
    assert_eq!((spec.namespace.as_str(), spec.name.as_str()), ("bank", "ledger"));
    assert_eq!(
        (spec.group.as_str(), spec.service_account.as_str()),
        ("ledger", "clerk")
    );
    assert_eq!(spec.labels["app"], "ledger");
    assert_eq!(spec.address, Some(Ipv4Addr::new(10, 10, 10, 10)));
    assert_eq!(spec.ports, [4000]);
    let address = spec.address.unwrap();
    let node = crate::bootstrap::Identity::new(&spec, address, None);
    assert_eq!(node.id, "sidecar~10.10.10.10~ledger.bank~bank.svc.cluster.local");
    assert_eq!(
        node.metadata["CLUSTER_ID"], "Kubernetes",
        "cluster.env comes first"
    );
    assert_eq!(node.metadata["NETWORK"], "vm-network");
    assert_eq!(node.metadata["AUTO_REGISTER_GROUP"], "ledger");
    assert_eq!(
        read.without_effect(),
        ["NOVELTY", "mesh.yaml: defaultConfig.statusPort"]
    );
}

#[tokio::test]
async fn the_authority_is_the_control_plane_and_is_shown_the_token() {
    let folder = Folder::new();
    let read = folder.read().unwrap();
    let identity = read.identity(None).await.unwrap();
    let CertificateSource::Authority(CertificateAuthority::Tls(authority)) = identity.source else {
        panic!("over TLS")
    };
    assert_eq!(authority.address, "192.0.2.7:15012", "the hosts file is believed");
    assert_eq!(authority.server_name, "istiod-canary.istio-system.svc");
    assert_eq!(authority.proof, Proof::Token(folder.0.path().join("istio-token")));
    assert_eq!(identity.roots, Some(folder.0.path().join("root-cert.pem")));
    assert_eq!(identity.lifetime, Duration::from_secs(5400));
    assert_eq!(identity.trust_domain.unwrap().as_str(), "cluster.local");
    let Xds { address, server_name } = read.xds().await.unwrap();
    assert_eq!(
        (address.to_string().as_str(), server_name.as_str()),
        ("192.0.2.7:15012", "istiod-canary.istio-system.svc")
    );
}

#[tokio::test]
async fn an_authority_by_its_address_is_called_istiod_unless_something_says_otherwise() {
    let folder = Folder::new();
    let name = async |read: Onboarding| match read.identity(None).await.unwrap().source {
        CertificateSource::Authority(CertificateAuthority::Tls(authority)) => authority.server_name,
        other => panic!("{other:?}"),
    };
    let read = folder.with("CA_ADDR=192.0.2.8:15012").unwrap();
    assert_eq!(name(read).await, "istiod.istio-system.svc");
    let read = folder
        .with("CA_ADDR=192.0.2.8:15012\nISTIOD_SAN=ca.example")
        .unwrap();
    assert_eq!(name(read).await, "ca.example");
}

#[tokio::test]
async fn certificates_may_be_in_files() {
    let folder = Folder::new();
    let files = |identity: MeshIdentity| match identity.source {
        CertificateSource::Files(files) => files.chain,
        CertificateSource::Authority(_) => panic!("an authority"),
    };
    let read = folder.with("FILE_MOUNTED_CERTS=true").unwrap();
    assert_eq!(
        files(read.identity(None).await.unwrap()),
        Path::new("/etc/certs/cert-chain.pem")
    );
    let elsewhere = read.identity(Some(Path::new("/certs"))).await.unwrap();
    assert_eq!(files(elsewhere), Path::new("/certs/cert-chain.pem"));
    let read = folder.with("PROV_CERT=/prov").unwrap();
    let CertificateSource::Authority(CertificateAuthority::Tls(authority)) =
        read.identity(None).await.unwrap().source
    else {
        panic!("an authority")
    };
    let Proof::Certificate { key, .. } = authority.proof else {
        panic!("a certificate")
    };
    assert_eq!(key, Path::new("/prov/key.pem"));
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let folder = Folder::new();
    for (line, named) in [
        ("CA_PROVIDER=GkeWorkloadCertificate", "CA_PROVIDER"),
        ("OUTPUT_CERTS=/etc/certs", "OUTPUT_CERTS"),
        (
            "CREDENTIAL_FETCHER_TYPE=GoogleComputeEngine",
            "CREDENTIAL_FETCHER_TYPE",
        ),
        ("XDS_AUTH_PROVIDER=gcp", "XDS_AUTH_PROVIDER"),
        ("ISTIO_SERVICE_CIDR=10.0.0.0/8", "ISTIO_SERVICE_CIDR"),
        (
            "ISTIO_META_INTERCEPTION_MODE=TPROXY",
            "ISTIO_META_INTERCEPTION_MODE",
        ),
        ("CA_ROOT_CA=SYSTEM", "CA_ROOT_CA"),
        ("XDS_ROOT_CA=/other.pem", "XDS_ROOT_CA"),
        ("not an assignment", "not an assignment"),
        ("TRUST_DOMAIN='open", "TRUST_DOMAIN"),
    ] {
        let refused = folder.with(line).expect_err(line).to_string();
        assert!(refused.contains(named), "{refused}");
    }
    let spec = |line: &str| folder.with(line).unwrap().spec(Vec::new(), Vec::new());
    assert!(spec("ISTIO_INBOUND_PORTS=80,x").is_err());
    assert!(spec("ISTIO_METAJSON_LABELS='[]'").is_err());
    assert!(spec("ISTIO_METAJSON_OTHER='{'").is_err());
    assert!(spec("ISTIO_SVC_IP=ledger").is_err());
    assert_eq!(spec("ISTIO_INBOUND_PORTS=80,443").unwrap().ports, [80, 443]);
    folder.write("mesh.yaml", "defaultConfig: [1]");
    assert!(folder.read().is_err());
}

#[test]
fn a_missing_file_is_named() {
    let folder = Folder::new();
    std::fs::remove_file(folder.0.path().join("hosts")).unwrap();
    assert!(folder.read().is_ok(), "hosts may be absent");
    std::fs::remove_file(folder.0.path().join("mesh.yaml")).unwrap();
    assert!(folder.read().unwrap_err().to_string().contains("mesh.yaml"));
}

#[test]
fn quotes_are_read_as_a_shell_reads_them() {
    let folder = Folder::new();
    let network = |line: &str| {
        let read = folder.with(line).unwrap();
        read.spec(Vec::new(), Vec::new()).unwrap().metadata["NETWORK"].clone()
    };
    assert_eq!(network(r#"ISTIO_META_NETWORK='it'"'"'s'"#), "it's");
    assert_eq!(network(r#"export ISTIO_META_NETWORK="a\"b""#), "a\"b");
    assert_eq!(network("ISTIO_META_NETWORK=bare"), "bare");
}

#[test]
fn a_name_that_would_lead_to_a_foreign_folder_is_refused() {
    let folder = Folder::new();
    for (line, named) in [
        ("POD_NAME='.'", "POD_NAME"),
        ("POD_NAME=../../other", "POD_NAME"),
        ("POD_NAMESPACE='/../..'", "POD_NAMESPACE"),
        ("POD_NAMESPACE=a.b", "POD_NAMESPACE"),
        ("ISTIO_META_WORKLOAD_NAME=a/b", "ISTIO_META_WORKLOAD_NAME"),
        (
            "ISTIO_META_AUTO_REGISTER_GROUP=..",
            "ISTIO_META_AUTO_REGISTER_GROUP",
        ),
        ("SERVICE_ACCOUNT=a/../b", "SERVICE_ACCOUNT"),
    ] {
        let refused = folder.with(line).unwrap().spec(Vec::new(), Vec::new());
        let refused = refused.expect_err(line).to_string();
        assert!(refused.contains(named), "{refused}");
    }
    let named = folder.with("POD_NAME=ledger.one").unwrap();
    assert_eq!(named.spec(Vec::new(), Vec::new()).unwrap().name, "ledger.one");
}
