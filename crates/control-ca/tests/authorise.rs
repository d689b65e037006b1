//! Who may have which identity: every caller, with everything that may be asked for, under every setting.

use std::collections::BTreeSet;

use control_ca::{
    BoundPod, Caller, Denied, Inventory, OidcRules, Pod, Request, ReviewedToken, Rules, authorise,
    identities, parse_node_accounts,
};
use identity::{ServiceAccount, SpiffeId, TrustDomain, TrustDomains};

/// One node with ztunnel and reviews, another with ratings; uid 1001 is reviews, uid 1002 is both, and uid 1003 was
/// registered by mistake for another trust domain. User 501 starts workloads; of those that are no pods there are
/// reviews and productpage.
struct World;

impl Inventory for World {
    fn pod(&self, namespace: &str, name: &str) -> Option<Pod> {
        let pod = |service_account: &str, node: &str| Pod {
            uid: format!("uid-of-{name}"),
            service_account: service_account.to_owned(),
            node: node.to_owned(),
        };
        match (namespace, name) {
            ("istio-system", "ztunnel-1") => Some(pod("ztunnel", "node-1")),
            ("istio-system", "ztunnel-pending") => Some(pod("ztunnel", "")),
            ("istio-system", "other") => Some(pod("default", "node-1")),
            ("default", "reviews-1") => Some(pod("reviews", "node-1")),
            _ => None,
        }
    }

    fn runs_on(&self, node: &str, account: &ServiceAccount) -> bool {
        matches!(
            (node, account.namespace.as_str(), account.name.as_str()),
            ("node-1", "default", "reviews")
                | ("node-1", "istio-system", "ztunnel")
                | ("node-2", "default", "ratings")
                | ("", "default", "pending")
        )
    }

    fn registered(&self, uid: u32) -> Vec<SpiffeId> {
        let ids: &[&str] = match uid {
            1001 => &["spiffe://cluster.local/ns/default/sa/reviews"],
            1002 => &[
                "spiffe://cluster.local/ns/default/sa/reviews",
                "spiffe://cluster.local/ns/default/sa/ratings",
            ],
            1003 => &["spiffe://elsewhere/ns/default/sa/reviews"],
            _ => &[],
        };
        ids.iter().map(|id| parse(id)).collect()
    }

    fn workload_accounts(&self) -> BTreeSet<ServiceAccount> {
        BTreeSet::from([
            account("default", "reviews"),
            account("default", "productpage"),
            account("default", "not an account"),
        ])
    }
}

fn parse(id: &str) -> SpiffeId {
    id.parse().expect("an id")
}

fn account(namespace: &str, name: &str) -> ServiceAccount {
    ServiceAccount {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    }
}

fn rules() -> Rules {
    let domain = |name: &str| TrustDomain::new(name).expect("a trust domain");
    Rules {
        trust_domains: TrustDomains::new(domain("cluster.local"), [domain("old.example.com")]),
        trusted_node_accounts: BTreeSet::from([account("istio-system", "ztunnel")]),
        oidc: Some(OidcRules {
            issuer: "https://issuer".to_owned(),
            audiences: vec!["istio-ca".to_owned()],
        }),
        host_users: BTreeSet::from([501]),
    }
}

fn certificate(id: &str) -> Caller {
    Caller::ClientCertificate { identity: parse(id) }
}

fn token(namespace: &str, name: &str, pod: Option<(&str, &str)>) -> Caller {
    Caller::TokenReview {
        account: account(namespace, name),
        pod: pod.map(|(name, uid)| BoundPod {
            name: name.to_owned(),
            uid: uid.to_owned(),
        }),
    }
}

fn jwt(issuer: &str, audience: &str, subject: &str) -> Caller {
    Caller::OidcToken {
        issuer: issuer.to_owned(),
        audiences: vec!["another".to_owned(), audience.to_owned()],
        subject: subject.to_owned(),
    }
}

fn ztunnel() -> Caller {
    token("istio-system", "ztunnel", Some(("ztunnel-1", "uid-of-ztunnel-1")))
}

fn ask(identity: &str) -> Request {
    Request {
        identity: identity.to_owned(),
    }
}

const REVIEWS: &str = "spiffe://cluster.local/ns/default/sa/reviews";
const PRODUCTPAGE: &str = "spiffe://cluster.local/ns/default/sa/productpage";
const RATINGS: &str = "spiffe://cluster.local/ns/default/sa/ratings";
const ADMIN: &str = "system:serviceaccount:default:reviews";

/// Caller, what is asked for, and the identity or the reason in words.
fn table() -> Vec<(Caller, &'static str, Result<&'static str, &'static str>)> {
    let mut table = certificates();
    table.extend(tokens());
    table.extend(impersonations());
    table.extend(users());
    table
}

fn certificates() -> Vec<(Caller, &'static str, Result<&'static str, &'static str>)> {
    vec![
        (certificate(REVIEWS), "", Ok(REVIEWS)),
        (
            certificate("spiffe://old.example.com/ns/default/sa/reviews"),
            "",
            Ok("spiffe://old.example.com/ns/default/sa/reviews"),
        ),
        (
            certificate("spiffe://cluster.local/other/form"),
            "",
            Ok("spiffe://cluster.local/other/form"),
        ),
        (
            certificate("spiffe://elsewhere/ns/default/sa/reviews"),
            "",
            Err("spiffe://elsewhere/ns/default/sa/reviews is not of the trust domain cluster.local"),
        ),
        (
            certificate("spiffe://cluster.local"),
            "",
            Err("spiffe://cluster.local names no workload"),
        ),
        (
            certificate(REVIEWS),
            RATINGS,
            Err("a client certificate cannot ask on behalf of others"),
        ),
        (
            certificate(REVIEWS),
            REVIEWS,
            Err("a client certificate cannot ask on behalf of others"),
        ),
        (
            certificate("spiffe://cluster.local/ns/istio-system/sa/ztunnel"),
            REVIEWS,
            Err("a client certificate cannot ask on behalf of others"),
        ),
    ]
}

fn tokens() -> Vec<(Caller, &'static str, Result<&'static str, &'static str>)> {
    vec![
        (token("default", "reviews", None), "", Ok(REVIEWS)),
        (token("default", "reviews", Some(("any", "uid"))), "", Ok(REVIEWS)),
        (
            token("", "reviews", None),
            "",
            Err("the service account /reviews cannot be part of an identity"),
        ),
        (
            token("default/sa/admin", "reviews", None),
            "",
            Err("the service account default/sa/admin/reviews cannot be part of an identity"),
        ),
        (jwt("https://issuer", "istio-ca", ADMIN), "", Ok(REVIEWS)),
        (
            jwt("https://evil", "istio-ca", ADMIN),
            "",
            Err("the JWT's issuer is \"https://evil\", which is not the configured one"),
        ),
        (
            jwt("https://issuer", "vault", ADMIN),
            "",
            Err("the JWT is for [\"another\", \"vault\"], which is not this authority"),
        ),
        (
            jwt("https://issuer", "istio-ca", "alice"),
            "",
            Err("the JWT's subject \"alice\" is no Kubernetes service account"),
        ),
        (
            jwt("https://issuer", "istio-ca", "system:serviceaccount:default"),
            "",
            Err("the JWT's subject \"system:serviceaccount:default\" is no Kubernetes service account"),
        ),
        (
            jwt("https://issuer", "istio-ca", "system:serviceaccount:a:b:c"),
            "",
            Err("the JWT's subject \"system:serviceaccount:a:b:c\" is no Kubernetes service account"),
        ),
        (
            jwt("https://issuer", "istio-ca", "system:serviceaccount::b"),
            "",
            Err("the JWT's subject \"system:serviceaccount::b\" is no Kubernetes service account"),
        ),
        (
            jwt("https://issuer", "istio-ca", "system:serviceaccount:a/sa/x:b"),
            "",
            Err("the service account a/sa/x/b cannot be part of an identity"),
        ),
        (
            jwt(
                "https://issuer",
                "istio-ca",
                "system:serviceaccount:istio-system:ztunnel",
            ),
            REVIEWS,
            Err("a JWT cannot ask on behalf of others"),
        ),
    ]
}

fn impersonations() -> Vec<(Caller, &'static str, Result<&'static str, &'static str>)> {
    let pod = |name, uid| token("istio-system", "ztunnel", Some((name, uid)));
    vec![
        (
            ztunnel(),
            "",
            Ok("spiffe://cluster.local/ns/istio-system/sa/ztunnel"),
        ),
        (ztunnel(), REVIEWS, Ok(REVIEWS)),
        (
            ztunnel(),
            RATINGS,
            Err("no pod of default/ratings runs on the node node-1"),
        ),
        (
            ztunnel(),
            "spiffe://elsewhere/ns/default/sa/reviews",
            Err("spiffe://elsewhere/ns/default/sa/reviews is not of the trust domain cluster.local"),
        ),
        (
            ztunnel(),
            "spiffe://old.example.com/ns/default/sa/reviews",
            Err("spiffe://old.example.com/ns/default/sa/reviews is not of the trust domain cluster.local"),
        ),
        (ztunnel(), "reviews", Err("\"reviews\" is no identity")),
        (
            ztunnel(),
            "spiffe://cluster.local/reviews",
            Err("\"spiffe://cluster.local/reviews\" is no identity"),
        ),
        (
            token("default", "reviews", Some(("reviews-1", "uid-of-reviews-1"))),
            REVIEWS,
            Err("the service account default/reviews may not ask on behalf of others"),
        ),
        (
            token("istio-system", "ztunnel", None),
            REVIEWS,
            Err("the token of istio-system/ztunnel is not bound to a pod, so that its node is unknown"),
        ),
        (
            pod("gone", "uid-of-gone"),
            REVIEWS,
            Err("the pod istio-system/gone is unknown"),
        ),
        (
            pod("ztunnel-1", "uid-of-its-forebear"),
            REVIEWS,
            Err("the pod ztunnel-1 is uid-of-ztunnel-1, and the token is for uid-of-its-forebear"),
        ),
        (
            pod("other", "uid-of-other"),
            REVIEWS,
            Err("the pod other runs as default, and the token is for ztunnel"),
        ),
        (
            pod("ztunnel-pending", "uid-of-ztunnel-pending"),
            "spiffe://cluster.local/ns/default/sa/pending",
            Err("the pod istio-system/ztunnel-pending is unknown"),
        ),
    ]
}

fn users() -> Vec<(Caller, &'static str, Result<&'static str, &'static str>)> {
    let user = |uid| Caller::UnixPeer { uid };
    vec![
        (user(1001), "", Ok(REVIEWS)),
        (user(1001), REVIEWS, Ok(REVIEWS)),
        (user(1002), RATINGS, Ok(RATINGS)),
        (user(0), "", Err("nothing is registered for the user 0")),
        (
            user(1002),
            "",
            Err("2 identities are registered for the user 1002, and none was named"),
        ),
        (
            user(1001),
            RATINGS,
            Err("spiffe://cluster.local/ns/default/sa/ratings is not registered for the user 1001"),
        ),
        (
            user(0),
            RATINGS,
            Err("spiffe://cluster.local/ns/default/sa/ratings is not registered for the user 0"),
        ),
        (user(1001), "ratings", Err("\"ratings\" is no identity")),
        (user(1001), "default/reviews", Ok(REVIEWS)),
        (
            user(1001),
            "default/ratings",
            Err("spiffe://cluster.local/ns/default/sa/ratings is not registered for the user 1001"),
        ),
        (
            user(1001),
            PRODUCTPAGE,
            Err("spiffe://cluster.local/ns/default/sa/productpage is not registered for the user 1001"),
        ),
        (user(501), PRODUCTPAGE, Ok(PRODUCTPAGE)),
        (user(501), "default/reviews", Ok(REVIEWS)),
        (
            user(501),
            "",
            Err("2 identities are registered for the user 501, and none was named"),
        ),
        (
            user(501),
            "default/ratings",
            Err(
                "no WorkloadGroup or WorkloadEntry names the service account of spiffe://cluster.local/ns/default/sa/ratings",
            ),
        ),
        (
            user(501),
            "spiffe://elsewhere/ns/default/sa/reviews",
            Err(
                "no WorkloadGroup or WorkloadEntry names the service account of spiffe://elsewhere/ns/default/sa/reviews",
            ),
        ),
        (
            user(1003),
            "",
            Err("spiffe://elsewhere/ns/default/sa/reviews is not of the trust domain cluster.local"),
        ),
    ]
}

#[test]
fn every_caller_gets_its_identity_or_the_reason_why_not() {
    for (caller, asked, expected) in table() {
        let got = authorise(&caller, &ask(asked), &rules(), &World)
            .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|denied| denied.to_string());
        let expected = expected.map(|id| vec![id.to_owned()]).map_err(ToOwned::to_owned);
        assert_eq!(got, expected, "{caller:?} asks for {asked:?}");
    }
}

#[test]
fn settings_that_are_off_deny() {
    let mut rules = rules();
    rules.trusted_node_accounts.clear();
    rules.oidc = None;
    assert_eq!(
        authorise(&ztunnel(), &ask(REVIEWS), &rules, &World),
        Err(Denied::ImpersonationOff)
    );
    let jwt = jwt("https://issuer", "istio-ca", ADMIN);
    assert_eq!(authorise(&jwt, &ask(""), &rules, &World), Err(Denied::OidcOff));
    rules.oidc = Some(OidcRules {
        issuer: "https://issuer".to_owned(),
        audiences: Vec::new(),
    });
    assert!(matches!(
        authorise(&jwt, &ask(""), &rules, &World),
        Err(Denied::Audience(_))
    ));
}

/// The rules said once more, by what may never happen, over every combination of what the table names.
#[test]
fn no_combination_gives_anybody_an_identity_that_is_not_theirs() {
    let callers: Vec<Caller> = table().into_iter().map(|(caller, ..)| caller).collect();
    let asks: BTreeSet<&str> = table().into_iter().map(|(_, asked, _)| asked).collect();
    let mut off = rules();
    off.trusted_node_accounts.clear();
    let mut granted = 0;
    for rules in [rules(), off] {
        for caller in &callers {
            for asked in &asks {
                let Ok(ids) = authorise(caller, &ask(asked), &rules, &World) else {
                    continue;
                };
                granted += 1;
                let [id] = ids.as_slice() else {
                    panic!("{caller:?} gets {ids:?}")
                };
                assert!(
                    is_theirs(caller, id, &rules),
                    "{caller:?} asks for {asked:?} and gets {id}"
                );
                assert!(
                    asked.is_empty() || id.to_string() == *asked || asked_by_account(asked, id),
                    "{caller:?} did not ask for {id}"
                );
                assert!(rules.trust_domains.contains(id.trust_domain()), "{id}");
            }
        }
    }
    assert!(granted > 20, "only {granted} combinations were granted");
}

fn asked_by_account(asked: &str, id: &SpiffeId) -> bool {
    id.service_account()
        .is_some_and(|account| account.to_string() == asked)
}

fn is_theirs(caller: &Caller, id: &SpiffeId, rules: &Rules) -> bool {
    let own = |account: &ServiceAccount| {
        id.service_account().as_ref() == Some(account) && id.trust_domain() == rules.trust_domains.own()
    };
    match caller {
        Caller::ClientCertificate { identity } => identity == id,
        Caller::OidcToken { issuer, subject, .. } => {
            let user = |a: ServiceAccount| format!("system:serviceaccount:{}:{}", a.namespace, a.name);
            issuer == "https://issuer"
                && id.trust_domain() == rules.trust_domains.own()
                && id.service_account().map(user).as_ref() == Some(subject)
        }
        Caller::UnixPeer { uid: 501 } => [REVIEWS, PRODUCTPAGE].contains(&id.to_string().as_str()),
        Caller::UnixPeer { uid } => World.registered(*uid).contains(id),
        Caller::TokenReview { account, pod } => {
            let node_proxy = rules.trusted_node_accounts.contains(account)
                && pod.as_ref().is_some_and(|pod| pod.uid == "uid-of-ztunnel-1")
                && id
                    .service_account()
                    .is_some_and(|other| World.runs_on("node-1", &other));
            own(account) || node_proxy
        }
    }
}

#[test]
fn the_list_of_node_accounts_is_read_or_refused() {
    let read = parse_node_accounts(" istio-system/ztunnel , kube-system/cni,").expect("accounts");
    assert_eq!(
        read,
        BTreeSet::from([account("istio-system", "ztunnel"), account("kube-system", "cni")])
    );
    assert_eq!(parse_node_accounts(""), Ok(BTreeSet::new()));
    for wrong in ["ztunnel", "a/b/c", "/b", "a/"] {
        assert!(parse_node_accounts(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn a_reviewed_token_is_worth_its_service_account_and_its_pod() {
    let mut reviewed = ReviewedToken {
        username: "system:serviceaccount:istio-system:ztunnel".to_owned(),
        groups: vec![
            "system:serviceaccounts".to_owned(),
            "system:authenticated".to_owned(),
        ],
        ..ReviewedToken::default()
    };
    assert_eq!(reviewed.caller(), Ok(token("istio-system", "ztunnel", None)));
    for (key, value) in [("pod-name", "ztunnel-1"), ("pod-uid", "uid-of-ztunnel-1")] {
        let key = format!("authentication.kubernetes.io/{key}");
        reviewed.extra.insert(key, vec![value.to_owned()]);
    }
    assert_eq!(reviewed.caller(), Ok(ztunnel()));
    reviewed.groups = vec!["system:masters".to_owned()];
    assert!(reviewed.caller().is_err());
    let person = ReviewedToken {
        username: "alice".to_owned(),
        groups: vec!["system:serviceaccounts".to_owned()],
        ..ReviewedToken::default()
    };
    assert!(person.caller().is_err());
}

#[test]
fn whoever_does_not_ask_for_one_identity_has_all_of_theirs() {
    let all = |caller: Caller| {
        identities(&caller, &rules(), &World)
            .map(|ids| ids.iter().map(ToString::to_string).collect::<Vec<_>>())
            .map_err(|denied| denied.to_string())
    };
    let user = |uid| Caller::UnixPeer { uid };
    assert_eq!(
        all(user(501)),
        Ok(vec![PRODUCTPAGE.to_owned(), REVIEWS.to_owned()])
    );
    assert_eq!(all(user(1002)), Ok(vec![REVIEWS.to_owned(), RATINGS.to_owned()]));
    assert_eq!(
        all(user(0)),
        Err("nothing is registered for the user 0".to_owned())
    );
    assert_eq!(
        all(user(1003)),
        Err("nothing is registered for the user 1003".to_owned()),
        "what is registered is another mesh's"
    );
    assert_eq!(all(certificate(REVIEWS)), Ok(vec![REVIEWS.to_owned()]));
    assert_eq!(
        all(token("default", "reviews", None)),
        Ok(vec![REVIEWS.to_owned()])
    );
}
