//! The fifteen kinds: names, groups, versions, and what `kubectl get` shows of them.

use serde_json::Value;

use crate::extensions::{TrafficExtension, WasmPlugin};
use crate::networking::{
    DestinationRule, EnvoyFilter, Gateway, ProxyConfig, ServiceEntry, Sidecar, VirtualService, WorkloadEntry,
    WorkloadGroup,
};
use crate::schema::Schema;
use crate::security::{AuthorizationPolicy, PeerAuthentication, RequestAuthentication};
use crate::telemetry::Telemetry;

/// A kind of object in Istio's API.
#[derive(Debug)]
pub struct Kind {
    /// API group, such as `networking.istio.io`.
    pub group: &'static str,
    /// Name of the kind, such as `VirtualService`.
    pub kind: &'static str,
    /// Plural, in lower case, as in URLs.
    pub plural: &'static str,
    /// Short names for kubectl.
    pub short_names: &'static [&'static str],
    /// Served versions, the preferred one first; all have the same schema.
    pub versions: &'static [&'static str],
    /// Version that is stored.
    pub storage_version: &'static str,
    /// Whether an object must have a spec.
    pub spec_required: bool,
    /// What `kubectl get` shows.
    pub columns: &'static [Column],
    /// Makes the schema of the spec.
    pub spec: fn() -> Value,
}

/// A column of `kubectl get`.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// Heading.
    pub name: &'static str,
    /// Where its value is in an object.
    pub json_path: &'static str,
    /// OpenAPI type: string or date.
    pub kind: &'static str,
    /// What it means; may be empty.
    pub description: &'static str,
}

impl Kind {
    /// `plural.group`, the name of the CRD.
    pub fn crd_name(&self) -> String {
        format!("{}.{}", self.plural, self.group)
    }

    /// The kind of this name in this group, in whatever version.
    pub fn find(group: &str, kind: &str) -> Option<&'static Kind> {
        KINDS.iter().find(|k| k.group == group && k.kind == kind)
    }
}

const fn column(name: &'static str, json_path: &'static str, description: &'static str) -> Column {
    Column {
        name,
        json_path,
        kind: "string",
        description,
    }
}

const AGE: Column = Column {
    name: "Age",
    json_path: ".metadata.creationTimestamp",
    kind: "date",
    description: "Time since the object was created; see metadata.creationTimestamp.",
};

const V1_V1ALPHA3_V1BETA1: &[&str] = &["v1", "v1alpha3", "v1beta1"];

/// A row of [`KINDS`] with what most rows have in common.
const fn kind(group: &'static str, kind: &'static str, plural: &'static str, spec: fn() -> Value) -> Kind {
    Kind {
        group,
        kind,
        plural,
        short_names: &[],
        versions: V1_V1ALPHA3_V1BETA1,
        storage_version: "v1",
        spec_required: false,
        columns: &[],
        spec,
    }
}

const EXTENSIONS: &str = "extensions.istio.io";
const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const TELEMETRY: &str = "telemetry.istio.io";

/// Every kind, by group and name.
pub const KINDS: &[Kind] = &[
    Kind {
        versions: &["v1alpha1"],
        storage_version: "v1alpha1",
        spec_required: true,
        columns: &[AGE],
        ..kind(
            EXTENSIONS,
            "TrafficExtension",
            "trafficextensions",
            TrafficExtension::schema,
        )
    },
    Kind {
        versions: &["v1alpha1"],
        storage_version: "v1alpha1",
        spec_required: true,
        columns: &[AGE],
        ..kind(EXTENSIONS, "WasmPlugin", "wasmplugins", WasmPlugin::schema)
    },
    Kind {
        short_names: &["dr"],
        columns: &[column("Host", ".spec.host", "Service that the rule is for."), AGE],
        ..kind(
            NETWORKING,
            "DestinationRule",
            "destinationrules",
            DestinationRule::schema,
        )
    },
    Kind {
        versions: &["v1alpha3"],
        storage_version: "v1alpha3",
        ..kind(NETWORKING, "EnvoyFilter", "envoyfilters", EnvoyFilter::schema)
    },
    Kind {
        short_names: &["gw"],
        ..kind(NETWORKING, "Gateway", "gateways", Gateway::schema)
    },
    Kind {
        versions: &["v1beta1"],
        storage_version: "v1beta1",
        ..kind(NETWORKING, "ProxyConfig", "proxyconfigs", ProxyConfig::schema)
    },
    Kind {
        short_names: &["se"],
        spec_required: true,
        columns: &[
            column("Hosts", ".spec.hosts", "Names of the service."),
            column(
                "Location",
                ".spec.location",
                "Whether the service is inside the mesh or outside.",
            ),
            column(
                "Resolution",
                ".spec.resolution",
                "How addresses of endpoints are found.",
            ),
            AGE,
        ],
        ..kind(NETWORKING, "ServiceEntry", "serviceentries", ServiceEntry::schema)
    },
    kind(NETWORKING, "Sidecar", "sidecars", Sidecar::schema),
    Kind {
        short_names: &["vs"],
        columns: &[
            column("Gateways", ".spec.gateways", "Gateways that use the routes."),
            column("Hosts", ".spec.hosts", "Hosts that the routes are for."),
            AGE,
        ],
        ..kind(
            NETWORKING,
            "VirtualService",
            "virtualservices",
            VirtualService::schema,
        )
    },
    Kind {
        short_names: &["we"],
        spec_required: true,
        columns: &[
            AGE,
            column("Address", ".spec.address", "Address of the workload."),
        ],
        ..kind(NETWORKING, "WorkloadEntry", "workloadentries", workload_entry)
    },
    Kind {
        short_names: &["wg"],
        spec_required: true,
        columns: &[AGE],
        ..kind(
            NETWORKING,
            "WorkloadGroup",
            "workloadgroups",
            WorkloadGroup::schema,
        )
    },
    Kind {
        short_names: &["ap"],
        versions: &["v1", "v1beta1"],
        columns: &[
            column(
                "Action",
                ".spec.action",
                "What happens to a request that a rule matches.",
            ),
            AGE,
        ],
        ..kind(
            SECURITY,
            "AuthorizationPolicy",
            "authorizationpolicies",
            AuthorizationPolicy::schema,
        )
    },
    Kind {
        short_names: &["pa"],
        versions: &["v1", "v1beta1"],
        columns: &[
            column("Mode", ".spec.mtls.mode", "Whether mutual TLS is demanded."),
            AGE,
        ],
        ..kind(
            SECURITY,
            "PeerAuthentication",
            "peerauthentications",
            PeerAuthentication::schema,
        )
    },
    Kind {
        short_names: &["ra"],
        versions: &["v1", "v1beta1"],
        ..kind(
            SECURITY,
            "RequestAuthentication",
            "requestauthentications",
            RequestAuthentication::schema,
        )
    },
    Kind {
        short_names: &["telemetry"],
        versions: &["v1", "v1alpha1"],
        storage_version: "v1alpha1",
        columns: &[AGE],
        ..kind(TELEMETRY, "Telemetry", "telemetries", Telemetry::schema)
    },
];

/// A WorkloadEntry that stands by itself must have an address or a network; inside a WorkloadGroup it need not.
fn workload_entry() -> Value {
    use crate::schema::Rule::Cel;
    let mut schema = WorkloadEntry::schema();
    let rules = [
        Cel("has(self.address) || has(self.network)", "Address is required"),
        crate::networking::UDS_WITHOUT_PORTS,
    ];
    crate::schema::apply(&mut schema, &rules);
    schema
}
