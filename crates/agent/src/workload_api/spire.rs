//! What is asked of the control plane besides certificates, in the words of SPIRE's server API: the bundle
//! (`spire.api.server.bundle.v1`), and tokens (`spire.api.server.svid.v1`).

use std::time::{Duration, SystemTime};

use api_spiffe::spire::api::server::bundle::v1::GetBundleRequest;
use api_spiffe::spire::api::server::bundle::v1::bundle_client::BundleClient;
use api_spiffe::spire::api::server::svid::v1::MintJwtsvidRequest;
use api_spiffe::spire::api::server::svid::v1::svid_client::SvidClient;
use api_spiffe::spire::api::types;
use identity::{SpiffeId, Svid};
use tonic::{Code, Status};

use super::Settings;
use super::token::Token;
use crate::certificates::AuthorityError;
use crate::limits::{CA_CALL_TIMEOUT, MAX_ANSWER_BYTES};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpireError {
    #[error(transparent)]
    Connection(#[from] AuthorityError),
    #[error("{0}: {1}")]
    Refused(Code, String),
    #[error("it does not answer within {CA_CALL_TIMEOUT:?}")]
    Late,
    #[error("its answer holds no token")]
    Empty,
    #[error("its answer is for {0:?}, which was not asked for")]
    Other(String),
}

impl From<Status> for SpireError {
    fn from(status: Status) -> Self {
        Self::Refused(status.code(), status.message().to_owned())
    }
}

/// Asks for the bundle of the trust domain.
pub(super) async fn bundle(settings: &Settings) -> Result<types::Bundle, SpireError> {
    let asking = async {
        let channel = settings.authority.connect_unproven((settings.clock)()).await?;
        let mut client = BundleClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let request = GetBundleRequest { output_mask: None };
        Ok(client.get_bundle(request).await?.into_inner())
    };
    let asked = tokio::time::timeout(CA_CALL_TIMEOUT, asking).await;
    asked.map_err(|_| SpireError::Late)?
}

/// Asks for a token that says to `audiences` that its bearer is `id`. `held` is what the workload holds already.
pub(super) async fn token(
    settings: &Settings,
    held: &Svid,
    audiences: &[String],
) -> Result<Token, SpireError> {
    let id = held.id();
    let asking = async {
        let (channel, proof) = settings.authority.connect(Some(held), (settings.clock)()).await?;
        let mut client = SvidClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
        let mut call = tonic::Request::new(MintJwtsvidRequest {
            id: Some(written(id)),
            audience: audiences.to_vec(),
            ttl: 0,
        });
        proof.show(&mut call);
        let answer = client.mint_jwtsvid(call).await?.into_inner();
        let svid = answer.svid.ok_or(SpireError::Empty)?;
        if svid.id.as_ref() != Some(&written(id)) {
            let other = svid.id.unwrap_or_default();
            return Err(SpireError::Other(format!("{}{}", other.trust_domain, other.path)));
        }
        let moment = |seconds: i64| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default())
        };
        Ok(Token {
            text: svid.token,
            issued: moment(svid.issued_at),
            expires: moment(svid.expires_at),
        })
    };
    let asked = tokio::time::timeout(CA_CALL_TIMEOUT, asking).await;
    asked.map_err(|_| SpireError::Late)?
}

fn written(id: &SpiffeId) -> types::Spiffeid {
    types::Spiffeid {
        trust_domain: id.trust_domain().to_string(),
        path: id.path().to_owned(),
    }
}
