//! Signings per CPU-second, with everything that one costs but the network: reading the request, checking its
//! signature, deciding who the caller is, signing, and writing the chain.
//!
//! `cargo run --release -p control-ca --example signings [requests]`

#![allow(clippy::print_stdout, reason = "this is a program")]

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use control_ca::{Authority, Caller, Inventory, Pod, Request, Rules, SelfSigned, authorise};
use identity::{
    CertificateRequest, KeyKind, PrivateKey, ServiceAccount, SpiffeId, SubjectName, TrustDomain,
    TrustDomains, request_certificate,
};

/// What the authority promises, for P-256 on both sides.
const PROMISED: f64 = 1_000.0;

struct Nobody;

impl Inventory for Nobody {
    fn pod(&self, _: &str, _: &str) -> Option<Pod> {
        None
    }

    fn runs_on(&self, _: &str, _: &ServiceAccount) -> bool {
        false
    }

    fn registered(&self, _: u32) -> Vec<SpiffeId> {
        Vec::new()
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        BTreeSet::new()
    }
}

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let requests: u32 = std::env::args().nth(1).map_or(Ok(5_000), |n| n.parse())?;
    let mut kept = true;
    for (authority, leaf) in [
        (KeyKind::EcdsaP256, KeyKind::EcdsaP256),
        (KeyKind::EcdsaP384, KeyKind::EcdsaP384),
        (KeyKind::Rsa2048, KeyKind::Rsa2048),
    ] {
        let rate = rate(authority, leaf, requests)?;
        println!("{leaf:?} signed by {authority:?}: {rate:.0} signings per CPU-second");
        kept &= authority != KeyKind::EcdsaP256 || rate >= PROMISED;
    }
    Ok(if kept {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn rate(authority: KeyKind, leaf: KeyKind, requests: u32) -> Result<f64, Box<dyn std::error::Error>> {
    let now = SystemTime::now();
    let trust_domain = TrustDomain::new("cluster.local")?;
    let settings = SelfSigned {
        key: authority,
        ..SelfSigned::for_trust_domain(&trust_domain)
    };
    let authority = Authority::self_signed(&settings, now)?;
    let account = ServiceAccount {
        namespace: "default".to_owned(),
        name: "reviews".to_owned(),
    };
    let text = request_certificate(
        &PrivateKey::generate(leaf)?,
        &[SubjectName::Uri(
            SpiffeId::workload(trust_domain.clone(), &account)?.to_string(),
        )],
    )?;
    let caller = Caller::TokenReview { account, pod: None };
    let rules = Rules {
        trust_domains: TrustDomains::new(trust_domain, []),
        trusted_node_accounts: BTreeSet::new(),
        oidc: None,
        host_users: BTreeSet::new(),
    };
    let before = cpu_time()?;
    for _ in 0..requests {
        let ids = authorise(&caller, &Request::default(), &rules, &Nobody)?;
        let names: Vec<SubjectName> = ids.iter().map(|id| SubjectName::Uri(id.to_string())).collect();
        let request = CertificateRequest::from_pem(text.as_bytes())?;
        let issued = authority.sign(&request, &names, Duration::from_secs(24 * 3600), now)?;
        std::hint::black_box(issued.into_pem_chain()?);
    }
    Ok(f64::from(requests) / (cpu_time()? - before).as_secs_f64())
}

/// How long this thread has run on a processor: the kernel counts it in nanoseconds.
fn cpu_time() -> Result<Duration, Box<dyn std::error::Error>> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}
