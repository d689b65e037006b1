//! Who asks: bearer tokens of the administrator and of ServiceAccounts.
//!
//! There is no RBAC. The administrator may do everything; ServiceAccounts may look at themselves and at discovery,
//! and nothing else.

mod jwt;

use std::path::Path;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::files;
use crate::kinds::service_account;
use crate::start_error::StartError;
use crate::status::Status;
use crate::store::{Key, ResourcePrefix, Store};

pub(crate) use jwt::{Claims, Signer};

/// The issuer of ServiceAccount tokens, and the audience of those that this server accepts.
pub(crate) const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

/// The group that may do everything.
const ADMINISTRATORS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const ADMIN_TOKEN_FILE: &str = "admin.token";
const SIGNING_KEY_FILE: &str = "service-account.key";
const TOKEN_BYTES: usize = 32;

/// The identity behind a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) user: String,
    pub(crate) uid: String,
    pub(crate) groups: Vec<String>,
    /// Part of the server itself: may write what users may only read.
    pub(crate) trusted: bool,
}

impl Caller {
    /// The server's own components, over the in-process service.
    pub(crate) fn in_process() -> Self {
        Self::administrator("system:lateen", true)
    }

    fn administrator(user: &str, trusted: bool) -> Self {
        Self {
            user: user.to_owned(),
            uid: String::new(),
            groups: vec![ADMINISTRATORS.to_owned(), AUTHENTICATED.to_owned()],
            trusted,
        }
    }

    /// Whether the caller may do everything.
    pub(crate) fn is_administrator(&self) -> bool {
        self.groups.iter().any(|group| group == ADMINISTRATORS)
    }

    /// `authentication.k8s.io/v1 UserInfo`.
    pub(crate) fn user_info(&self) -> Value {
        let mut info = json!({"username": self.user, "groups": self.groups});
        if !self.uid.is_empty() {
            info["uid"] = self.uid.clone().into();
        }
        info
    }

    /// The user that the `Impersonate-*` headers name, which only an administrator may ask for (`kubectl --as`).
    pub(crate) fn impersonating(self, headers: &HeaderMap) -> Result<Self, Status> {
        let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_owned();
        let Some(user) = headers
            .get("impersonate-user")
            .map(text)
            .filter(|user| !user.is_empty())
        else {
            return Ok(self);
        };
        if !self.is_administrator() {
            let why = format!(
                "User {} cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
                crate::status::quoted(&self.user)
            );
            return Err(Status::forbidden("", "users", &user, &why));
        }
        let mut groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
        if let Some((namespace, _)) = user
            .strip_prefix("system:serviceaccount:")
            .and_then(|account| account.split_once(':'))
        {
            groups.push("system:serviceaccounts".to_owned());
            groups.push(format!("system:serviceaccounts:{namespace}"));
        }
        groups.push(AUTHENTICATED.to_owned());
        Ok(Self {
            user,
            uid: String::new(),
            groups,
            trusted: false,
        })
    }

    fn service_account(claims: &Claims) -> Self {
        Self {
            user: format!("system:serviceaccount:{}:{}", claims.namespace, claims.account),
            uid: claims.account_uid.clone(),
            groups: vec![
                "system:serviceaccounts".to_owned(),
                format!("system:serviceaccounts:{}", claims.namespace),
                AUTHENTICATED.to_owned(),
            ],
            trusted: false,
        }
    }
}

/// Checks tokens and issues them.
pub(crate) struct Authenticator {
    admin_token: String,
    signer: Signer,
}

impl Authenticator {
    /// Loads the secrets from `directory`, or makes them; the files are readable by their owner only.
    pub(crate) fn open(directory: &Path) -> Result<Self, StartError> {
        let admin_token = files::read_or_create(&directory.join(ADMIN_TOKEN_FILE), || {
            let mut bytes = [0_u8; TOKEN_BYTES];
            SystemRandom::new()
                .fill(&mut bytes)
                .map_err(|_| StartError::Crypto("no random numbers"))?;
            Ok(URL_SAFE_NO_PAD.encode(bytes).into_bytes())
        })?;
        let key = files::read_or_create(&directory.join(SIGNING_KEY_FILE), Signer::generate)?;
        let admin_token =
            String::from_utf8(admin_token).map_err(|_| StartError::Crypto("the stored token is damaged"))?;
        Ok(Self {
            admin_token: admin_token.trim().to_owned(),
            signer: Signer::load(&key)?,
        })
    }

    /// The administrator's token, for the kubeconfig.
    pub(crate) fn admin_token(&self) -> &str {
        &self.admin_token
    }

    pub(crate) fn signer(&self) -> &Signer {
        &self.signer
    }

    /// Finds out who sent these headers.
    pub(crate) fn authenticate(
        &self,
        headers: &HeaderMap,
        store: &Store,
        now: OffsetDateTime,
    ) -> Result<Caller, Status> {
        let header = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let token = match header.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
            _ => return Err(Status::unauthorized()),
        };
        self.verify(token, ISSUER, store, now)
            .ok_or_else(Status::unauthorized)
    }

    /// The owner of a token that is valid now, for `audience`.
    pub(crate) fn verify(
        &self,
        token: &str,
        audience: &str,
        store: &Store,
        now: OffsetDateTime,
    ) -> Option<Caller> {
        if verify_slices_are_equal(token.as_bytes(), self.admin_token.as_bytes()).is_ok() {
            return Some(Caller::administrator("kubernetes-admin", false));
        }
        let claims = self.signer.verify(token)?;
        let in_time = claims.expires > now.unix_timestamp() && claims.not_before <= now.unix_timestamp();
        if !in_time || !claims.audiences.iter().any(|known| known == audience) {
            return None;
        }
        // A token dies with its account.
        let key = Key::new(&service_accounts(), &claims.namespace, &claims.account);
        let account = store.get(&key)?;
        (account.uid() == claims.account_uid).then(|| Caller::service_account(&claims))
    }
}

/// Where ServiceAccounts are stored.
pub(crate) fn service_accounts() -> ResourcePrefix {
    ResourcePrefix::new("", service_account::PLURAL)
}
