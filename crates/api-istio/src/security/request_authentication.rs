//! RequestAuthentication: `security/v1beta1/request_authentication.proto`.

use crate::proto::{Duration, message, proto_enum};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// Says which tokens workloads accept; a request with a wrong token is refused, one without passes.
    pub struct RequestAuthentication [
        Cel("(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or selector can be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// One gateway or service that this is for.
        pub target_ref: Option<PolicyTargetReference>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Issuers and where their tokens are found.
        pub jwt_rules: Vec<JwtRule> [MaxItems(4096)],
    }
}

message! {
    /// How tokens of one issuer are found and verified.
    pub struct JwtRule [
        Cel("(has(self.jwksUri) ? 1 : 0) + (has(self.jwks_uri) ? 1 : 0) + (has(self.jwks) ? 1 : 0) <= 1",
            "only one of jwks or jwksUri can be set"),
    ] {
        /// Issuer that a token must name.
        pub issuer: String [MinLength(1)],
        /// Audiences of which a token must name one; any by default.
        pub audiences: Vec<String> [Each(&[MinLength(1)])],
        /// Where the issuer's keys are fetched; found by OpenID Connect discovery when neither this nor jwks is set.
        pub jwks_uri: String as "jwksUri" or "jwks_uri" [
            MinLength(1), MaxLength(2048),
            Cel("url(self).getScheme() in [\"http\", \"https\"]", "url must have scheme http:// or https://"),
        ],
        /// The issuer's keys themselves.
        pub jwks: String,
        /// Headers that carry the token; Authorization with the prefix `Bearer ` by default.
        pub from_headers: Vec<JwtHeader>,
        /// Query parameters that carry the token; access_token by default.
        pub from_params: Vec<String> [Each(&[MinLength(1)])],
        /// Header that the token's payload is put into, in base64url.
        pub output_payload_to_header: String,
        /// Cookies that carry the token.
        pub from_cookies: Vec<String> [Each(&[MinLength(1)])],
        /// Whether the token goes on to the workload.
        pub forward_original_token: bool,
        /// Claims that are copied into headers.
        pub output_claim_to_headers: Vec<ClaimToHeader>,
        /// Longest time for fetching keys; 5 s by default.
        pub timeout: Option<Duration>,
        /// Claims that are lists separated by spaces; scope and permission always are.
        pub space_delimited_claims: Vec<String> [MaxItems(64), Each(&[MinLength(1)])],
        /// Whether a request must have a token of this issuer.
        pub presence: JwtPresence,
    }
}

proto_enum! {
    /// Whether a request must have a token.
    pub enum JwtPresence {
        /// It may come without.
        Optional = "OPTIONAL" = 0,
        /// It is refused without.
        Required = "REQUIRED" = 1,
    }
}

message! {
    /// A header that carries a token.
    pub struct JwtHeader {
        /// Its name.
        pub name: String [Required, MinLength(1)],
        /// What stands before the token, such as `Bearer ` with the space.
        pub prefix: String,
    }
}

message! {
    /// A claim that is copied into a header.
    pub struct ClaimToHeader {
        /// The header.
        pub header: String [Required, MinLength(1), Pattern("^[-_A-Za-z0-9]+$")],
        /// The claim; of type string, integer or boolean.
        pub claim: String [Required, MinLength(1)],
    }
}
