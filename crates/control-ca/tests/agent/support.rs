//! An authority that signs, or is away, or answers something else; a clock that follows tokio's.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use agent::certificates::{
    Authority, AuthorityError, Clock, Keeper, Settings, SigningRequest, State, roots::Roots,
};
use agent::metrics::Metrics;
use control_ca::{Authority as Signer, SelfSigned};
use identity::{CertificateRequest, KeyKind, PrivateKey, ServiceAccount, SubjectName, TrustDomain};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long anything here may take before its test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

pub(crate) fn reviews() -> ServiceAccount {
    ServiceAccount {
        namespace: "default".to_owned(),
        name: "reviews".to_owned(),
    }
}

pub(crate) fn signer(now: SystemTime) -> Signer {
    let domain = TrustDomain::new("cluster.local").expect("a trust domain");
    Signer::self_signed(&SelfSigned::for_trust_domain(&domain), now).expect("an authority")
}

/// Time that passes as tokio's does, from a moment of today on.
pub(crate) fn clock() -> Clock {
    let (began, now) = (Instant::now(), SystemTime::now());
    Arc::new(move || now + began.elapsed())
}

/// What an authority does with a request.
pub(crate) type Answer = Box<dyn Fn(&Signer, &SigningRequest<'_>) -> Vec<String> + Send + Sync>;

/// Signs for whoever asks; counts, and can be away or changed.
pub(crate) struct Ca {
    pub(crate) signer: Mutex<Signer>,
    pub(crate) answer: Mutex<Option<Answer>>,
    pub(crate) away: AtomicBool,
    pub(crate) asked: AtomicU32,
    /// When it was asked.
    pub(crate) times: Mutex<Vec<Instant>>,
    /// The keys it has signed for.
    pub(crate) keys: Mutex<BTreeSet<Vec<u8>>>,
}

impl Ca {
    pub(crate) fn new(signer: Signer) -> Arc<Self> {
        Arc::new(Self {
            signer: Mutex::new(signer),
            answer: Mutex::default(),
            away: AtomicBool::new(false),
            asked: AtomicU32::new(0),
            times: Mutex::default(),
            keys: Mutex::default(),
        })
    }

    pub(crate) fn answer(
        &self,
        with: impl Fn(&Signer, &SigningRequest<'_>) -> Vec<String> + Send + Sync + 'static,
    ) {
        *self.answer.lock() = Some(Box::new(with));
    }

    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn set_away(&self, away: bool) {
        self.away.store(away, Ordering::Relaxed);
    }
}

/// The honest answer to a request for `identity`.
pub(crate) fn sign(signer: &Signer, request: &SigningRequest<'_>, identity: &str) -> Vec<String> {
    let csr = CertificateRequest::from_pem(request.csr.as_bytes()).expect("a signing request");
    let names = [SubjectName::Uri(identity.to_owned())];
    let issued = signer.sign(&csr, &names, request.lifetime, request.now);
    issued.expect("a certificate").into_pem_chain().expect("PEM")
}

pub(crate) struct Asked(pub(crate) Arc<Ca>);

impl Authority for Asked {
    async fn sign(&self, request: SigningRequest<'_>) -> Result<Vec<String>, AuthorityError> {
        let ca = &self.0;
        ca.asked.fetch_add(1, Ordering::Relaxed);
        ca.times.lock().push(Instant::now());
        if ca.away.load(Ordering::Relaxed) {
            return Err(AuthorityError::Unreachable(
                "ca".to_owned(),
                "it is away".to_owned(),
            ));
        }
        let csr = CertificateRequest::from_pem(request.csr.as_bytes()).expect("a signing request");
        ca.keys.lock().insert(csr.public_key().der().to_vec());
        let signer = ca.signer.lock();
        match &*ca.answer.lock() {
            Some(answer) => Ok(answer(&signer, &request)),
            None => Ok(sign(&signer, &request, REVIEWS)),
        }
    }
}

/// A running keeper.
pub(crate) struct Kept {
    pub(crate) ca: Arc<Ca>,
    pub(crate) state: watch::Receiver<State>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kept {
    pub(crate) fn start(ca: &Arc<Ca>, settings: Settings, roots: Roots) -> Self {
        let clock = clock();
        let metrics = Arc::<Metrics>::default();
        let random = Box::new(|| 0.5);
        let (keeper, state) = Keeper::new(
            Asked(Arc::clone(ca)),
            settings,
            Arc::clone(&clock),
            random,
            Arc::clone(&metrics),
            roots,
        );
        Self {
            ca: Arc::clone(ca),
            state,
            metrics,
            clock,
            task: tokio::spawn(keeper.run()),
        }
    }

    pub(crate) fn new(settings: Settings) -> Self {
        Self::start(&Ca::new(signer(SystemTime::now())), settings, Roots::none())
    }

    /// Waits for a state; time jumps to the next thing that happens.
    pub(crate) async fn until(&mut self, mut what: impl FnMut(&State) -> bool) -> State {
        let day = Duration::from_secs(10 * 24 * 3600);
        let state = tokio::time::timeout(day, self.state.wait_for(|state| what(state))).await;
        state.expect("it comes").expect("the keeper runs").clone()
    }

    pub(crate) fn printed(&self) -> String {
        self.metrics
            .print(&self.state.borrow().expiries(), (self.clock)())
    }
}

/// Writes a chain and its key for somebody whom an authority certifies.
pub(crate) fn write_pair(folder: &Path, name: &str, signer: &Signer, identity: &str) -> (String, String) {
    let key = PrivateKey::generate(KeyKind::EcdsaP256).expect("a key");
    let names = [SubjectName::Uri(identity.to_owned())];
    let hour = Duration::from_secs(3600);
    let issued = signer.certify(key.public_key(), &names, hour, SystemTime::now());
    let chain = issued.expect("a certificate").leaf().expect("a leaf").pem();
    let write = |suffix: &str, text: &str| {
        let path = folder.join(format!("{name}.{suffix}"));
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    (
        write("pem", &chain),
        write("key", key.to_pem().expect("PEM").as_str()),
    )
}
