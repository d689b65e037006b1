//! AuthorizationPolicy: `security/v1beta1/authorization_policy.proto`.

use crate::proto::{message, proto_enum};
use crate::selector::{PolicyTargetReference, WorkloadSelector};

message! {
    /// Says which requests workloads accept; CUSTOM is asked first, then DENY, then ALLOW.
    pub struct AuthorizationPolicy [
        OneOf(&["provider"]),
        Cel("(has(self.selector) ? 1 : 0) + (has(self.targetRef) ? 1 : 0) + (has(self.targetRefs) ? 1 : 0) <= 1",
            "only one of targetRefs or selector can be set"),
    ] {
        /// Workloads that this is for; all of the namespace by default.
        pub selector: Option<WorkloadSelector>,
        /// One gateway or service that this is for.
        pub target_ref: Option<PolicyTargetReference>,
        /// Gateways or services that this is for.
        pub target_refs: Vec<PolicyTargetReference> [MaxItems(16)],
        /// Rules, any of which is enough; an ALLOW policy without rules denies everything.
        pub rules: Vec<Rule> [MaxItems(512)],
        /// What happens to a request that a rule matches.
        pub action: Action,
        /// Who is asked; for CUSTOM.
        pub provider: Option<ActionProvider>,
    }
}

proto_enum! {
    /// What happens to a request that a rule matches.
    pub enum Action {
        /// It is accepted; once a workload has an ALLOW policy, all else is refused.
        Allow = "ALLOW" = 0,
        /// It is refused.
        Deny = "DENY" = 1,
        /// It is marked for the audit log.
        Audit = "AUDIT" = 2,
        /// A provider decides.
        Custom = "CUSTOM" = 3,
    }
}

message! {
    /// Names a provider of MeshConfig.
    pub struct ActionProvider {
        /// Name among the extension providers.
        pub name: String,
    }
}

message! {
    /// Matches requests by where they come from, where they go, and other properties; all that are given must match.
    pub struct Rule {
        /// Where the request comes from, any of these; anywhere by default.
        pub from: Vec<RuleFrom> [MaxItems(512)],
        /// What the request does, any of these; anything by default.
        pub to: Vec<RuleTo>,
        /// Further conditions, all of these.
        pub when: Vec<Condition>,
    }
}

message! {
    /// Wraps a source.
    pub struct RuleFrom {
        /// The source.
        pub source: Option<Source>,
    }
}

message! {
    /// Wraps an operation.
    pub struct RuleTo {
        /// The operation.
        pub operation: Option<Operation>,
    }
}

message! {
    /// Where a request comes from; all that are given must match. A value may have `*` at its beginning or end.
    pub struct Source [
        Cel("(has(self.serviceAccounts) || has(self.notServiceAccounts)) ? (!has(self.principals) &&\n!has(self.notPrincipals) && !has(self.namespaces) && !has(self.notNamespaces)) : true",
            "Cannot set serviceAccounts with namespaces or principals"),
    ] {
        /// Identities of the client workload, such as `cluster.local/ns/default/sa/web`; needs mutual TLS.
        pub principals: Vec<String>,
        /// Identities that the client workload must not have.
        pub not_principals: Vec<String>,
        /// Identities of the request's token, as `issuer/subject`.
        pub request_principals: Vec<String>,
        /// Identities that the request's token must not have.
        pub not_request_principals: Vec<String>,
        /// Namespaces of the client workload; needs mutual TLS.
        pub namespaces: Vec<String>,
        /// Namespaces that the client workload must not be in.
        pub not_namespaces: Vec<String>,
        /// Service accounts of the client workload, as `namespace/name` or `name`; needs mutual TLS.
        pub service_accounts: Vec<String> [MaxItems(16), Each(&[MaxLength(320)])],
        /// Service accounts that the client workload must not have.
        pub not_service_accounts: Vec<String> [MaxItems(16), Each(&[MaxLength(320)])],
        /// Ranges of the address that the connection comes from.
        pub ip_blocks: Vec<String>,
        /// Ranges that the connection must not come from.
        pub not_ip_blocks: Vec<String>,
        /// Ranges of the original client's address, as x-forwarded-for or the PROXY protocol says.
        pub remote_ip_blocks: Vec<String>,
        /// Ranges that the original client must not be in.
        pub not_remote_ip_blocks: Vec<String>,
        /// Trust domains of the client workload; needs mutual TLS.
        pub trust_domains: Vec<String>,
        /// Trust domains that the client workload must not be in.
        pub not_trust_domains: Vec<String>,
    }
}

message! {
    /// What a request does; all that are given must match. A value may have `*` at its beginning or end.
    pub struct Operation {
        /// Hosts.
        pub hosts: Vec<String>,
        /// Hosts that it must not have.
        pub not_hosts: Vec<String>,
        /// Ports of the workload.
        pub ports: Vec<String>,
        /// Ports that it must not have.
        pub not_ports: Vec<String>,
        /// HTTP methods.
        pub methods: Vec<String>,
        /// HTTP methods that it must not have.
        pub not_methods: Vec<String>,
        /// Paths; `{*}` stands for one segment, `{**}` for any number.
        pub paths: Vec<String>,
        /// Paths that it must not have.
        pub not_paths: Vec<String>,
    }
}

message! {
    /// A condition on an attribute of the request.
    pub struct Condition {
        /// The attribute, such as `request.headers[x-token]` or `request.auth.claims[iss]`.
        pub key: String [Required],
        /// Values, any of which is enough.
        pub values: Vec<String>,
        /// Values that it must not have.
        pub not_values: Vec<String>,
    }
}
