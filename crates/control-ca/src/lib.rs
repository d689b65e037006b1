//! The mesh's certificate authority (Citadel's role): who may have which identity, and a signature on it.
//!
//! - [`Authority`] holds a key and signs: self-signed, kept in the Secret `istio-ca-secret`, or plugged in
//!   (`cacerts`).
//! - [`authorise`] is the one place that decides who may have which identity: a pure function.
//! - [`RootRotation`] decides when a self-signed root is renewed: pure as well.
//! - [`CertificateService`] answers `istio.v1.auth.IstioCertificateService/CreateCertificate`. How callers prove who
//!   they are comes from outside, as a list of [`Authenticator`]s.
//! - [`JwtKeys`] signs JWT-SVIDs, with keys of its own; [`SpireServices`] gives them to the same callers, and tells
//!   what to verify them with.
//!
//! Nothing here opens a file, a socket or a clock.
//!
//! Where it differs from istiod: a lifetime above the maximum is cut to it instead of refused, as an agent renews by
//! what it got; a leaf never outlives any certificate above it; a negative lifetime and a request to become an
//! authority are refused instead of overlooked; the chain in an answer has the authority's own certificate even where
//! `cert-chain.pem` lacks it, and no root twice; a node's proxy may ask for identities of the own trust domain only;
//! and the subject is always empty, without the common name that Istio copies for old clients.

mod authenticate;
mod authorise;
mod authority;
mod jwt_keys;
mod jwt_svid;
pub mod limits;
mod metrics;
mod oidc;
mod rotation;
mod secret;
mod service;
mod sign;
mod spire;
mod x509;

pub use authenticate::{
    Authenticator, Credentials, NotAuthenticated, PeerCertificates, PeerCredentials, PeerIdentity, Refusals,
    ReviewedToken, UnixPeer, authenticate, bearer_token,
};
pub use authorise::{
    AccountsError, BoundPod, Caller, Denied, Inventory, OidcRules, Pod, Request, Rules, authorise,
    identities, parse_node_accounts,
};
pub use authority::{Authority, AuthorityError, Origin, SelfSigned};
pub use jwt_keys::{JWT_KEYS_SECRET, JWT_KEYS_SECRET_TYPE, JwtKey, JwtKeys, JwtKeysError};
pub use jwt_svid::{JwtSvid, JwtSvidError};
pub use metrics::Metrics;
pub use oidc::{IssuerKeys, OidcError, OidcTokens};
pub use rotation::{Decision, RootRotation, Why};
pub use secret::{PLUGGED_IN_SECRET, SELF_SIGNED_SECRET, SELF_SIGNED_SECRET_TYPE, SecretData};
pub use service::{CertificateService, Settings};
pub use sign::{Issued, Lifetimes, SignError};
pub use spire::{SpireServices, SpireSettings};
