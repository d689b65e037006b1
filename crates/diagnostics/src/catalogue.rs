//! The catalogue of codes: Istio's analysis messages (`IST…`), with their severities.

use serde::{Serialize, Serializer};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Probably not what was meant.
    Warning,
    /// Part of the input has no effect, or traffic fails because of it.
    Error,
}

macro_rules! catalogue {
    ($($(#[$doc:meta])* $name:ident = $id:literal, $severity:ident;)*) => {
        /// A kind of problem. Names and numbers are those of Istio's analysis messages.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        /// Every code, in numerical order.
        #[cfg(test)]
        const CATALOGUE: &[Code] = &[$(Code::$name,)*];

        impl Code {
            /// The identifier that users search for, for example `IST0101`.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => $id,)* }
            }

            /// The severity that findings of this kind normally have.
            #[must_use]
            pub const fn severity(self) -> Severity {
                match self { $(Self::$name => Severity::$severity,)* }
            }
        }
    };
}

catalogue! {
    /// IST0001: Internal error.
    InternalError = "IST0001", Error;
    /// IST0002: Deprecated.
    Deprecated = "IST0002", Warning;
    /// IST0101: Referenced resource not found.
    ReferencedResourceNotFound = "IST0101", Error;
    /// IST0102: Namespace not injected.
    NamespaceNotInjected = "IST0102", Info;
    /// IST0103: Pod missing proxy.
    PodMissingProxy = "IST0103", Warning;
    /// IST0106: Schema validation error.
    SchemaValidationError = "IST0106", Error;
    /// IST0107: Misplaced annotation.
    MisplacedAnnotation = "IST0107", Warning;
    /// IST0108: Unknown annotation.
    UnknownAnnotation = "IST0108", Warning;
    /// IST0109: Conflicting mesh gateway virtual service hosts.
    ConflictingMeshGatewayVirtualServiceHosts = "IST0109", Error;
    /// IST0110: Conflicting sidecar workload selectors.
    ConflictingSidecarWorkloadSelectors = "IST0110", Error;
    /// IST0111: Multiple sidecars without workload selectors.
    MultipleSidecarsWithoutWorkloadSelectors = "IST0111", Error;
    /// IST0112: Virtual service destination port selector required.
    VirtualServiceDestinationPortSelectorRequired = "IST0112", Error;
    /// IST0113: Mutual TLS policy conflict.
    MtlsPolicyConflict = "IST0113", Error;
    /// IST0116: Deployment associated to multiple services.
    DeploymentAssociatedToMultipleServices = "IST0116", Warning;
    /// IST0118: Port name is not under naming convention.
    PortNameIsNotUnderNamingConvention = "IST0118", Info;
    /// IST0123: Namespace multiple injection labels.
    NamespaceMultipleInjectionLabels = "IST0123", Warning;
    /// IST0125: Invalid annotation.
    InvalidAnnotation = "IST0125", Warning;
    /// IST0126: Unknown mesh networks service registry.
    UnknownMeshNetworksServiceRegistry = "IST0126", Error;
    /// IST0127: No matching workloads found.
    NoMatchingWorkloadsFound = "IST0127", Warning;
    /// IST0128: No server certificate verification destination level.
    NoServerCertificateVerificationDestinationLevel = "IST0128", Warning;
    /// IST0129: No server certificate verification port level.
    NoServerCertificateVerificationPortLevel = "IST0129", Warning;
    /// IST0130: Virtual service unreachable rule.
    VirtualServiceUnreachableRule = "IST0130", Warning;
    /// IST0131: Virtual service ineffective match.
    VirtualServiceIneffectiveMatch = "IST0131", Info;
    /// IST0132: Virtual service host not found in gateway.
    VirtualServiceHostNotFoundInGateway = "IST0132", Warning;
    /// IST0133: Schema warning.
    SchemaWarning = "IST0133", Warning;
    /// IST0134: Service entry addresses required.
    ServiceEntryAddressesRequired = "IST0134", Warning;
    /// IST0135: Deprecated annotation.
    DeprecatedAnnotation = "IST0135", Info;
    /// IST0136: Alpha annotation.
    AlphaAnnotation = "IST0136", Info;
    /// IST0137: Deployment conflicting ports.
    DeploymentConflictingPorts = "IST0137", Warning;
    /// IST0138: Gateway duplicate certificate.
    GatewayDuplicateCertificate = "IST0138", Warning;
    /// IST0139: Invalid webhook.
    InvalidWebhook = "IST0139", Error;
    /// IST0140: Ingress route rules not affected.
    IngressRouteRulesNotAffected = "IST0140", Warning;
    /// IST0141: Insufficient permissions.
    InsufficientPermissions = "IST0141", Error;
    /// IST0142: Unsupported kubernetes version.
    UnsupportedKubernetesVersion = "IST0142", Error;
    /// IST0143: Localhost listener.
    LocalhostListener = "IST0143", Error;
    /// IST0144: Invalid application uid.
    InvalidApplicationUID = "IST0144", Warning;
    /// IST0145: Conflicting gateways.
    ConflictingGateways = "IST0145", Error;
    /// IST0146: Image auto without injection warning.
    ImageAutoWithoutInjectionWarning = "IST0146", Warning;
    /// IST0147: Image auto without injection error.
    ImageAutoWithoutInjectionError = "IST0147", Error;
    /// IST0148: Namespace injection enabled by default.
    NamespaceInjectionEnabledByDefault = "IST0148", Info;
    /// IST0149: JWT claim based routing without request authentication.
    JwtClaimBasedRoutingWithoutRequestAuthN = "IST0149", Error;
    /// IST0150: External name service type invalid port name.
    ExternalNameServiceTypeInvalidPortName = "IST0150", Warning;
    /// IST0151: Envoy filter uses relative operation.
    EnvoyFilterUsesRelativeOperation = "IST0151", Warning;
    /// IST0152: Envoy filter uses replace operation incorrectly.
    EnvoyFilterUsesReplaceOperationIncorrectly = "IST0152", Error;
    /// IST0153: Envoy filter uses add operation incorrectly.
    EnvoyFilterUsesAddOperationIncorrectly = "IST0153", Error;
    /// IST0154: Envoy filter uses remove operation incorrectly.
    EnvoyFilterUsesRemoveOperationIncorrectly = "IST0154", Error;
    /// IST0155: Envoy filter uses relative operation with proxy version.
    EnvoyFilterUsesRelativeOperationWithProxyVersion = "IST0155", Warning;
    /// IST0156: Unsupported Gateway API version.
    UnsupportedGatewayAPIVersion = "IST0156", Error;
    /// IST0157: Invalid telemetry provider.
    InvalidTelemetryProvider = "IST0157", Warning;
    /// IST0158: Pods istio proxy image mismatch in namespace.
    PodsIstioProxyImageMismatchInNamespace = "IST0158", Warning;
    /// IST0159: Conflicting telemetry workload selectors.
    ConflictingTelemetryWorkloadSelectors = "IST0159", Error;
    /// IST0160: Multiple telemetries without workload selectors.
    MultipleTelemetriesWithoutWorkloadSelectors = "IST0160", Error;
    /// IST0161: Invalid gateway credential.
    InvalidGatewayCredential = "IST0161", Error;
    /// IST0162: Gateway port not defined on service.
    GatewayPortNotDefinedOnService = "IST0162", Warning;
    /// IST0163: Invalid external control plane config.
    InvalidExternalControlPlaneConfig = "IST0163", Warning;
    /// IST0164: External control plane address is not a hostname.
    ExternalControlPlaneAddressIsNotAHostname = "IST0164", Info;
    /// IST0165: Referenced internal gateway.
    ReferencedInternalGateway = "IST0165", Warning;
    /// IST0166: Ineffective selector.
    IneffectiveSelector = "IST0166", Warning;
    /// IST0167: Ineffective policy.
    IneffectivePolicy = "IST0167", Warning;
    /// IST0168: Unknown upgrade compatibility.
    UnknownUpgradeCompatibility = "IST0168", Warning;
    /// IST0169: Update incompatibility.
    UpdateIncompatibility = "IST0169", Warning;
    /// IST0170: Multi cluster inconsistent service.
    MultiClusterInconsistentService = "IST0170", Warning;
    /// IST0171: Negative condition status.
    NegativeConditionStatus = "IST0171", Warning;
    /// IST0172: Gateway API version that will not be supported.
    FutureUnsupportedGatewayAPIVersion = "IST0172", Warning;
    /// IST0173: Destination rule subset not select pods.
    DestinationRuleSubsetNotSelectPods = "IST0173", Error;
    /// IST0174: Unknown destination rule host.
    UnknownDestinationRuleHost = "IST0174", Warning;
    /// IST0175: Jwks uri fetch unrestricted.
    JwksUriFetchUnrestricted = "IST0175", Warning;
    /// IST0176: Gateway API CRD version below minimum.
    GatewayAPICRDVersionBelowMinimum = "IST0176", Warning;
    /// IST0177: Conflicting service entry protocol.
    ConflictingServiceEntryProtocol = "IST0177", Warning;
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_unique() {
        let mut ids: Vec<_> = CATALOGUE.iter().map(|c| c.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), CATALOGUE.len());
    }
}
