//! `serviceaccounts/token`: `kubectl create token`.

use std::time::Duration;

use http::{Response, StatusCode};
use serde_json::Value;
use time::OffsetDateTime;

use super::Call;
use crate::auth::{Claims, ISSUER};
use crate::clock::timestamp;
use crate::limits;
use crate::response::{Body, json_value};
use crate::status::{Cause, Status};

/// Issues a token for the account the call names.
pub(super) fn create(call: &Call) -> Result<Response<Body>, Status> {
    let account = call.require()?;
    let mut request = call.decode_body()?.value;
    let now = call.api.now();
    let lifetime = lifetime(&request["spec"]["expirationSeconds"])?;
    let audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    let claims = Claims {
        namespace: account.namespace().to_owned(),
        account: account.name().to_owned(),
        account_uid: account.uid().to_owned(),
        audiences: if audiences.is_empty() {
            vec![ISSUER.to_owned()]
        } else {
            audiences
        },
        issued: now.unix_timestamp(),
        not_before: now.unix_timestamp(),
        expires: (now + lifetime).unix_timestamp(),
        id: uuid::Uuid::new_v4().to_string(),
    };
    let token = call
        .api
        .authenticator
        .signer()
        .sign(&claims)
        .ok_or_else(|| Status::internal("the token could not be signed"))?;
    request["apiVersion"] = "authentication.k8s.io/v1".into();
    request["kind"] = "TokenRequest".into();
    request["metadata"]["name"] = account.name().into();
    request["metadata"]["namespace"] = account.namespace().into();
    request["metadata"]["creationTimestamp"] = timestamp(now).into();
    request["spec"]["audiences"] = claims.audiences.into();
    request["spec"]["expirationSeconds"] = lifetime.as_secs().into();
    let expires = OffsetDateTime::from_unix_timestamp(claims.expires).unwrap_or(now);
    request["status"] = serde_json::json!({"token": token, "expirationTimestamp": timestamp(expires)});
    Ok(json_value(StatusCode::CREATED, &request))
}

fn lifetime(asked: &Value) -> Result<Duration, Status> {
    let Some(seconds) = asked.as_i64().filter(|seconds| *seconds != 0) else {
        return Ok(limits::TOKEN_LIFETIME_DEFAULT);
    };
    let lifetime = Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    if lifetime < limits::TOKEN_LIFETIME_MIN {
        let cause = Cause::invalid(
            "spec.expirationSeconds",
            asked,
            "may not specify a duration less than 10 minutes",
        );
        return Err(Status::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            vec![cause],
        ));
    }
    Ok(lifetime.min(limits::TOKEN_LIFETIME_MAX))
}
