//! What the API server is asked about others: whose a token is (`TokenReview`), and who may do what
//! (`SubjectAccessReview`).

use std::collections::BTreeMap;

use kube::Api;
use kube::api::{ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

use crate::{Client, limits};

/// Why a review has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// The API server has no such review.
    #[error("the API server does not answer reviews of this kind")]
    NotServed,
    /// It could not be asked, or refused.
    #[error("the API server was asked in vain")]
    Failed(#[source] Box<kube::Error>),
    /// It did not answer in time.
    #[error("the API server did not answer within {:?}", limits::REVIEW_TIMEOUT)]
    Late,
}

/// Whom a token is for (`status.user` of a TokenReview).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenUser {
    /// `username`.
    pub name: String,
    /// `groups`.
    pub groups: Vec<String>,
    /// `extra`.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What somebody wants to do with objects of a namespace.
#[derive(Clone, Copy, Debug)]
pub struct Access<'a> {
    /// Who: the user's name.
    pub user: &'a str,
    /// `list`, `get`, …
    pub verb: &'a str,
    /// `secrets`, … of Kubernetes' core group.
    pub resource: &'a str,
    /// Where.
    pub namespace: &'a str,
}

/// Whose `token` is, when it is good for one of these audiences; else why not.
///
/// # Errors
/// When there is no answer.
pub async fn token(
    client: &Client,
    token: &str,
    audiences: &[&str],
) -> Result<Result<TokenUser, String>, ReviewError> {
    let spec = json!({"token": token, "audiences": audiences});
    let status = review(client, "authentication.k8s.io", "TokenReview", spec).await?;
    Ok(token_user(&status, audiences))
}

fn token_user(status: &Value, audiences: &[&str]) -> Result<TokenUser, String> {
    if status["authenticated"] != true {
        let reason = status["error"].as_str().unwrap_or("the token is not valid");
        return Err(reason.to_owned());
    }
    // A server that knows nothing of audiences would take a token that was meant for somebody else.
    if !texts(&status["audiences"])
        .iter()
        .any(|a| audiences.contains(&a.as_str()))
    {
        return Err("the token is for another audience".to_owned());
    }
    let user = &status["user"];
    let extra = user["extra"].as_object().into_iter().flatten();
    Ok(TokenUser {
        name: user["username"].as_str().unwrap_or_default().to_owned(),
        groups: texts(&user["groups"]),
        extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
    })
}

/// Whether somebody may do something.
///
/// # Errors
/// When there is no answer.
pub async fn access(client: &Client, asked: Access<'_>) -> Result<bool, ReviewError> {
    let attributes = json!({"namespace": asked.namespace, "verb": asked.verb, "resource": asked.resource});
    let spec = json!({"user": asked.user, "resourceAttributes": attributes});
    let status = review(client, "authorization.k8s.io", "SubjectAccessReview", spec).await?;
    Ok(status["allowed"] == true)
}

async fn review(client: &Client, group: &str, kind: &str, spec: Value) -> Result<Value, ReviewError> {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
    let mut object = DynamicObject::new("", &resource).data(json!({"spec": spec}));
    object.metadata.name = None;
    let api: Api<DynamicObject> = Api::all_with(client.0.clone(), &resource);
    let params = PostParams::default();
    let asked = tokio::time::timeout(limits::REVIEW_TIMEOUT, api.create(&params, &object));
    match asked.await {
        Err(_) => Err(ReviewError::Late),
        Ok(Ok(answer)) => Ok(answer.data["status"].clone()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Err(ReviewError::NotServed),
        Ok(Err(error)) => Err(ReviewError::Failed(Box::new(error))),
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_for_the_audience_it_was_made_for_only() {
        let mut status = json!({
            "authenticated": true, "audiences": ["istio-ca"],
            "user": {"username": "system:serviceaccount:a:b", "groups": ["g"], "extra": {"k": ["v"]}},
        });
        let user = token_user(&status, &["istio-ca"]).expect("a good token");
        assert_eq!(
            (user.name.as_str(), user.groups.len()),
            ("system:serviceaccount:a:b", 1)
        );
        assert_eq!(user.extra["k"], ["v"]);
        assert!(token_user(&status, &["other"]).is_err());
        status["audiences"] = json!([]);
        assert!(token_user(&status, &["istio-ca"]).is_err());
        status = json!({"authenticated": false, "error": "expired"});
        assert_eq!(token_user(&status, &["istio-ca"]), Err("expired".to_owned()));
    }
}
