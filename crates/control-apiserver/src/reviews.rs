//! `authentication.k8s.io` and `authorization.k8s.io`: kinds that are asked and answered, and never stored.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use crate::api::Api;
use crate::auth::{Caller, ISSUER};
use crate::clock::timestamp;
use crate::decode;
use crate::response::{Body, json_value};
use crate::status::Status;

/// A kind that only knows `create`.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) definition: &'static str,
    answer: fn(&Api, &Caller, &Value) -> Value,
}

/// The version of all reviews.
pub(crate) const VERSION: &str = "v1";

/// Every review.
pub(crate) const ALL: &[Review] = &[
    Review {
        group: "authentication.k8s.io",
        plural: "selfsubjectreviews",
        kind: "SelfSubjectReview",
        definition: "io.k8s.api.authentication.v1.SelfSubjectReview",
        answer: |_, caller, _| json!({"userInfo": caller.user_info()}),
    },
    Review {
        group: "authentication.k8s.io",
        plural: "tokenreviews",
        kind: "TokenReview",
        definition: "io.k8s.api.authentication.v1.TokenReview",
        answer: token_review,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectaccessreviews",
        kind: "SelfSubjectAccessReview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectAccessReview",
        answer: access_review,
    },
    Review {
        group: "authorization.k8s.io",
        plural: "selfsubjectrulesreviews",
        kind: "SelfSubjectRulesReview",
        definition: "io.k8s.api.authorization.v1.SelfSubjectRulesReview",
        answer: rules_review,
    },
];

/// The review of this group and resource name.
pub(crate) fn find(group: &str, version: &str, plural: &str) -> Option<&'static Review> {
    ALL.iter()
        .find(|review| review.group == group && version == VERSION && review.plural == plural)
}

/// Answers a review.
pub(crate) fn create(
    review: &Review,
    api: &Api,
    caller: &Caller,
    body: &[u8],
    content_type: &str,
) -> Result<Response<Body>, Status> {
    let asked = decode::object(body, content_type)?.value;
    // Whoever may not do everything may still ask about himself, but not about others' tokens.
    if review.kind == "TokenReview" && !caller.is_administrator() {
        let why = format!(
            "User {} cannot create resource \"tokenreviews\"",
            crate::status::quoted(&caller.user)
        );
        return Err(Status::forbidden(review.group, review.plural, "", &why));
    }
    let mut metadata = asked["metadata"].clone();
    metadata["creationTimestamp"] = timestamp(api.now()).into();
    let mut answered = json!({
        "kind": review.kind,
        "apiVersion": format!("{}/{VERSION}", review.group),
        "metadata": metadata,
    });
    if asked["spec"].is_object() {
        answered["spec"] = asked["spec"].clone();
    }
    answered["status"] = (review.answer)(api, caller, &asked["spec"]);
    Ok(json_value(StatusCode::CREATED, &answered))
}

fn token_review(api: &Api, _: &Caller, spec: &Value) -> Value {
    let token = spec["token"].as_str().unwrap_or_default();
    let asked: Vec<&str> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let audiences = if asked.is_empty() { vec![ISSUER] } else { asked };
    for audience in audiences {
        if let Some(caller) = api.authenticator.verify(token, audience, &api.store, api.now()) {
            return json!({"authenticated": true, "user": caller.user_info(), "audiences": [audience]});
        }
    }
    json!({"authenticated": false, "error": "the token is not valid for any of the audiences", "user": {}})
}

fn access_review(_: &Api, caller: &Caller, spec: &Value) -> Value {
    if caller.is_administrator() {
        return json!({"allowed": true, "reason": "system:masters may do everything"});
    }
    let resource = &spec["resourceAttributes"];
    let own_review = find(
        resource["group"].as_str().unwrap_or_default(),
        VERSION,
        resource["resource"].as_str().unwrap_or_default(),
    )
    .is_some_and(|review| review.kind != "TokenReview");
    json!({"allowed": own_review})
}

fn rules_review(_: &Api, caller: &Caller, _: &Value) -> Value {
    let everything = json!([{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]);
    let everywhere = json!([{"verbs": ["*"], "nonResourceURLs": ["*"]}]);
    let resource_rules = if caller.is_administrator() {
        everything
    } else {
        json!([])
    };
    let other_rules = if caller.is_administrator() {
        everywhere
    } else {
        json!([])
    };
    json!({"resourceRules": resource_rules, "nonResourceRules": other_rules, "incomplete": false})
}
