//! Who may have which identity: one pure function, [`authorise`].
//!
//! Everything that it knows is in its arguments. Whether a caller is who it says is decided before, by the
//! authenticators; how a certificate is signed, after, by the authority.

use std::collections::BTreeSet;

use identity::{ServiceAccount, SpiffeId, SpiffeIdError, TrustDomain, TrustDomains};

/// Somebody who has proven something about themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Has shown a certificate of this mesh, and its key: renews it.
    ClientCertificate {
        /// Whom the certificate is for.
        identity: SpiffeId,
    },
    /// Has shown a token that the Kubernetes API server vouches for.
    TokenReview {
        /// Whose token it is.
        account: ServiceAccount,
        /// The pod that the token is bound to, when it is bound to one.
        pod: Option<BoundPod>,
    },
    /// Has shown a JWT whose signature and time have been checked.
    OidcToken {
        /// `iss`.
        issuer: String,
        /// `aud`.
        audiences: Vec<String>,
        /// `sub`, as `system:serviceaccount:<namespace>:<name>`.
        subject: String,
    },
    /// Is a process of this host, as the kernel says (`SO_PEERCRED`).
    UnixPeer {
        /// Its user.
        uid: u32,
    },
}

/// The pod that a token is bound to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundPod {
    /// Its name; its namespace is the account's.
    pub name: String,
    /// Its unique id, by which a later pod of the same name is another one.
    pub uid: String,
}

/// What is asked for besides a signature.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The identity of somebody else, on whose behalf a node's proxy asks (`ImpersonatedIdentity`); or the one that
    /// is meant of several that a user of this host may have, who may also write `<namespace>/<account>` and leave the
    /// trust domain to the authority. Empty is nothing.
    pub identity: String,
}

/// The mesh's settings that decide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// What identities are issued in, and what renewals are accepted from.
    pub trust_domains: TrustDomains,
    /// Accounts of node proxies, which may ask on behalf of pods of their node (`CA_TRUSTED_NODE_ACCOUNTS`).
    pub trusted_node_accounts: BTreeSet<ServiceAccount>,
    /// The issuer of JWTs, when there is one.
    pub oidc: Option<OidcRules>,
    /// Users of this host whose processes start workloads, and therefore may have the identity of any workload that
    /// the mesh's objects name: root, and the user that the control plane runs as. Where users are not to be told
    /// apart by the kernel there are none.
    pub host_users: BTreeSet<u32>,
}

/// Whose JWTs count (`TOKEN_ISSUER`, `AUDIENCE`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OidcRules {
    /// `iss` must be this.
    pub issuer: String,
    /// `aud` must contain one of these.
    pub audiences: Vec<String>,
}

/// A pod, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Its unique id.
    pub uid: String,
    /// The name of its service account.
    pub service_account: String,
    /// Where it runs.
    pub node: String,
}

/// What runs where, as it is known now.
pub trait Inventory: Send + Sync {
    /// The pod of this name.
    fn pod(&self, namespace: &str, name: &str) -> Option<Pod>;
    /// Whether any pod of `account` runs on `node`.
    fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool;
    /// The identities that the node has registered for a user of this host.
    fn registered(&self, uid: u32) -> Vec<SpiffeId>;
    /// The accounts of workloads that are no pods, which WorkloadGroups and WorkloadEntries name.
    fn workload_accounts(&self) -> BTreeSet<ServiceAccount>;
}

/// Why somebody does not get an identity. The words are for the log: callers are told less.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// The identity is another trust domain's.
    #[error("{identity} is not of the trust domain {domain}")]
    ForeignTrustDomain {
        /// What was asked for or shown.
        identity: SpiffeId,
        /// What is ours.
        domain: TrustDomain,
    },
    /// The certificate is a trust domain's, not a workload's.
    #[error("{0} names no workload")]
    NoWorkload(SpiffeId),
    /// An account's name cannot be part of an identity.
    #[error("the service account {account} cannot be part of an identity")]
    Account {
        /// The account.
        account: ServiceAccount,
        /// Why.
        #[source]
        source: SpiffeIdError,
    },
    /// No JWTs are accepted.
    #[error("no issuer of JWTs is configured")]
    OidcOff,
    /// The JWT is by somebody else.
    #[error("the JWT's issuer is {0:?}, which is not the configured one")]
    Issuer(String),
    /// The JWT is for somebody else.
    #[error("the JWT is for {0:?}, which is not this authority")]
    Audience(Vec<String>),
    /// The JWT's subject is no service account.
    #[error("the JWT's subject {0:?} is no Kubernetes service account")]
    Subject(String),
    /// The user has no identity.
    #[error("nothing is registered for the user {0}")]
    NotRegistered(u32),
    /// The user has several.
    #[error("{count} identities are registered for the user {uid}, and none was named")]
    Ambiguous {
        /// The user.
        uid: u32,
        /// How many there are.
        count: usize,
    },
    /// The user may have that of any workload, and there is no such workload.
    #[error("no WorkloadGroup or WorkloadEntry names the service account of {identity}")]
    NoSuchWorkload {
        /// What was asked for.
        identity: SpiffeId,
    },
    /// The user has another one.
    #[error("{identity} is not registered for the user {uid}")]
    RegisteredForOthers {
        /// The user.
        uid: u32,
        /// What was asked for.
        identity: SpiffeId,
    },
    /// What is asked for is no identity.
    #[error("{text:?} is no identity")]
    NotAnIdentity {
        /// What was asked for.
        text: String,
        /// Why; nothing when it is an id, but not a service account's.
        #[source]
        source: Option<SpiffeIdError>,
    },
    /// Somebody asks on behalf of another who cannot.
    #[error("{0} cannot ask on behalf of others")]
    NoImpersonation(&'static str),
    /// There are no trusted node accounts.
    #[error("nobody may ask on behalf of others: CA_TRUSTED_NODE_ACCOUNTS is empty")]
    ImpersonationOff,
    /// The account is not a trusted one.
    #[error("the service account {0} may not ask on behalf of others")]
    NotTrusted(ServiceAccount),
    /// The token is not bound to a pod.
    #[error("the token of {0} is not bound to a pod, so that its node is unknown")]
    NoPod(ServiceAccount),
    /// The pod is not known.
    #[error("the pod {namespace}/{name} is unknown")]
    UnknownPod {
        /// Where it should be.
        namespace: String,
        /// What it is called.
        name: String,
    },
    /// The pod was replaced by another of its name.
    #[error("the pod {name} is {now}, and the token is for {then}")]
    PodReplaced {
        /// What both are called.
        name: String,
        /// The present one's id.
        now: String,
        /// The token's.
        then: String,
    },
    /// The pod runs as somebody else.
    #[error("the pod {name} runs as {actual}, and the token is for {claimed}")]
    PodAccount {
        /// What it is called.
        name: String,
        /// As whom it runs.
        actual: String,
        /// As whom the token says it does.
        claimed: String,
    },
    /// Nobody of that identity is on the caller's node.
    #[error("no pod of {account} runs on the node {node}")]
    NotOnNode {
        /// Who was asked for.
        account: ServiceAccount,
        /// Where the caller is.
        node: String,
    },
}

impl Denied {
    /// Whether the proof was not good enough, rather than good and for something else. Istio answers
    /// `UNAUTHENTICATED` to both the first and every refused impersonation.
    pub fn is_authentication(&self) -> bool {
        !matches!(
            self,
            Self::ForeignTrustDomain { .. }
                | Self::NoWorkload(_)
                | Self::Account { .. }
                | Self::NotRegistered(_)
                | Self::Ambiguous { .. }
                | Self::NoSuchWorkload { .. }
                | Self::RegisteredForOthers { .. }
        )
    }
}

/// Who `caller` may be: the identities for one certificate, one at least.
///
/// - A certificate is renewed for the same identity, if it is of this mesh or of an alias of it.
/// - A token of Kubernetes, or a JWT of the configured issuer for a configured audience, is worth its service account.
/// - A process of this host is worth what was registered for its user, and one of a user who starts workloads
///   ([`Rules::host_users`]) any workload that the mesh's objects name; which one, it says when there are several.
/// - A node's proxy of a trusted account may ask for the identity of any pod that runs on its own node.
///
/// # Errors
/// Everything else is denied, with the reason.
pub fn authorise(
    caller: &Caller,
    asked: &Request,
    rules: &Rules,
    inventory: &dyn Inventory,
) -> Result<Vec<SpiffeId>, Denied> {
    let for_other = !asked.identity.is_empty();
    let identity = match caller {
        Caller::ClientCertificate { .. } if for_other => {
            Err(Denied::NoImpersonation("a client certificate"))?
        }
        Caller::OidcToken { .. } if for_other => Err(Denied::NoImpersonation("a JWT"))?,
        Caller::ClientCertificate { identity } => renewed(identity, rules)?,
        Caller::OidcToken {
            issuer,
            audiences,
            subject,
        } => of_account(&of_jwt(issuer, audiences, subject, rules)?, rules)?,
        Caller::TokenReview { account, pod } if for_other => {
            impersonated(account, pod.as_ref(), &asked.identity, rules, inventory)?
        }
        Caller::TokenReview { account, .. } => of_account(account, rules)?,
        Caller::UnixPeer { uid } => registered(*uid, &asked.identity, rules, inventory)?,
    };
    Ok(vec![identity])
}

fn renewed(identity: &SpiffeId, rules: &Rules) -> Result<SpiffeId, Denied> {
    if !rules.trust_domains.contains(identity.trust_domain()) {
        return Err(Denied::ForeignTrustDomain {
            identity: identity.clone(),
            domain: rules.trust_domains.own().clone(),
        });
    }
    if identity.path().is_empty() {
        return Err(Denied::NoWorkload(identity.clone()));
    }
    Ok(identity.clone())
}

fn of_account(account: &ServiceAccount, rules: &Rules) -> Result<SpiffeId, Denied> {
    SpiffeId::workload(rules.trust_domains.own().clone(), account).map_err(|source| Denied::Account {
        account: account.clone(),
        source,
    })
}

fn of_jwt(
    issuer: &str,
    audiences: &[String],
    subject: &str,
    rules: &Rules,
) -> Result<ServiceAccount, Denied> {
    let expected = rules.oidc.as_ref().ok_or(Denied::OidcOff)?;
    if issuer != expected.issuer {
        return Err(Denied::Issuer(issuer.to_owned()));
    }
    if !audiences.iter().any(|a| expected.audiences.contains(a)) {
        return Err(Denied::Audience(audiences.to_vec()));
    }
    service_account_of(subject).ok_or_else(|| Denied::Subject(subject.to_owned()))
}

/// The account in Kubernetes' name for it as a user: `system:serviceaccount:<namespace>:<name>`.
pub(crate) fn service_account_of(user: &str) -> Option<ServiceAccount> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then(|| ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    })
}

/// Every identity that `caller` may act as, for what does not ask for one of them: more than one only for users of this
/// host.
///
/// # Errors
/// As [`authorise`].
pub fn identities(
    caller: &Caller,
    rules: &Rules,
    inventory: &dyn Inventory,
) -> Result<Vec<SpiffeId>, Denied> {
    let Caller::UnixPeer { uid } = caller else {
        return authorise(caller, &Request::default(), rules, inventory);
    };
    let mut all = of_user(*uid, rules, inventory);
    all.retain(|identity| identity.trust_domain() == rules.trust_domains.own());
    match all.is_empty() {
        true => Err(Denied::NotRegistered(*uid)),
        false => Ok(all),
    }
}

/// The identities that a user of this host may have, each once.
fn of_user(uid: u32, rules: &Rules, inventory: &dyn Inventory) -> Vec<SpiffeId> {
    let mut all = inventory.registered(uid);
    if rules.host_users.contains(&uid) {
        // An account that cannot be part of an identity is nobody's here, and no reason to refuse the others.
        let accounts = inventory.workload_accounts().into_iter();
        for identity in accounts.filter_map(|account| of_account(&account, rules).ok()) {
            if !all.contains(&identity) {
                all.push(identity);
            }
        }
    }
    all
}

fn registered(uid: u32, asked: &str, rules: &Rules, inventory: &dyn Inventory) -> Result<SpiffeId, Denied> {
    let all = of_user(uid, rules, inventory);
    let identity = if asked.is_empty() {
        match all.as_slice() {
            [] => return Err(Denied::NotRegistered(uid)),
            [one] => one.clone(),
            several => {
                return Err(Denied::Ambiguous {
                    uid,
                    count: several.len(),
                });
            }
        }
    } else {
        let identity = named(asked, rules)?;
        if !all.contains(&identity) {
            return Err(match rules.host_users.contains(&uid) {
                true => Denied::NoSuchWorkload { identity },
                false => Denied::RegisteredForOthers { uid, identity },
            });
        }
        identity
    };
    own_domain(identity, rules)
}

/// An identity as it is, or as `<namespace>/<account>` of our trust domain.
fn named(text: &str, rules: &Rules) -> Result<SpiffeId, Denied> {
    match text.split_once('/') {
        Some((namespace, name))
            if !namespace.is_empty() && !namespace.contains(':') && !name.contains('/') =>
        {
            let account = ServiceAccount {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            of_account(&account, rules)
        }
        _ => parse(text),
    }
}

fn impersonated(
    caller: &ServiceAccount,
    pod: Option<&BoundPod>,
    asked: &str,
    rules: &Rules,
    inventory: &dyn Inventory,
) -> Result<SpiffeId, Denied> {
    if rules.trusted_node_accounts.is_empty() {
        return Err(Denied::ImpersonationOff);
    }
    if !rules.trusted_node_accounts.contains(caller) {
        return Err(Denied::NotTrusted(caller.clone()));
    }
    let identity = own_domain(parse(asked)?, rules)?;
    let account = identity.service_account().ok_or_else(|| Denied::NotAnIdentity {
        text: asked.to_owned(),
        source: None,
    })?;
    let bound = pod.ok_or_else(|| Denied::NoPod(caller.clone()))?;
    let node = node_of(caller, bound, inventory)?;
    if !inventory.runs_on(&node, &account) {
        return Err(Denied::NotOnNode { account, node });
    }
    Ok(identity)
}

/// The node of the pod that a token is bound to, if the pod is still the one that the token was made for.
fn node_of(caller: &ServiceAccount, bound: &BoundPod, inventory: &dyn Inventory) -> Result<String, Denied> {
    let name = bound.name.clone();
    let Some(pod) = inventory.pod(&caller.namespace, &name) else {
        return Err(Denied::UnknownPod {
            namespace: caller.namespace.clone(),
            name,
        });
    };
    if pod.uid != bound.uid {
        return Err(Denied::PodReplaced {
            name,
            now: pod.uid,
            then: bound.uid.clone(),
        });
    }
    if pod.service_account != caller.name {
        return Err(Denied::PodAccount {
            name,
            actual: pod.service_account,
            claimed: caller.name.clone(),
        });
    }
    // A pod without a node has not been started, and two of them share nothing.
    if pod.node.is_empty() {
        return Err(Denied::UnknownPod {
            namespace: caller.namespace.clone(),
            name,
        });
    }
    Ok(pod.node)
}

fn parse(text: &str) -> Result<SpiffeId, Denied> {
    text.parse().map_err(|source| Denied::NotAnIdentity {
        text: text.to_owned(),
        source: Some(source),
    })
}

fn own_domain(identity: SpiffeId, rules: &Rules) -> Result<SpiffeId, Denied> {
    if identity.trust_domain() == rules.trust_domains.own() {
        return Ok(identity);
    }
    Err(Denied::ForeignTrustDomain {
        identity,
        domain: rules.trust_domains.own().clone(),
    })
}

/// Why a list of node accounts is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no service account: <namespace>/<name> is expected")]
pub struct AccountsError(String);

/// Reads `CA_TRUSTED_NODE_ACCOUNTS`: `<namespace>/<name>`, separated by commas; empty is nobody.
///
/// # Errors
/// When an entry is something else.
pub fn parse_node_accounts(text: &str) -> Result<BTreeSet<ServiceAccount>, AccountsError> {
    text.split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .map(|entry| match entry.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(ServiceAccount {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err(AccountsError(entry.to_owned())),
        })
        .collect()
}
