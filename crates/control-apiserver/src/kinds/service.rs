//! `v1 Service`: defaults, ClusterIP allocation, validation.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};

use super::{BuiltInKind, Preparation, age, column, name, wide};
use crate::status::{Cause, Status};
use crate::store::ResourcePrefix;

/// The range of ClusterIPs, as kubeadm sets it.
const CLUSTER_IP_BASE: u32 = u32::from_be_bytes([10, 96, 0, 0]);
/// Addresses in 10.96.0.0/12.
const CLUSTER_IP_COUNT: u32 = 1 << 20;
/// Ports that a Service may claim on nodes, as kube-apiserver's default says.
const NODE_PORTS: std::ops::RangeInclusive<i64> = 30_000..=32_767;
/// Addresses at the beginning that are given only to those who ask for them, as the real allocator does.
const CLUSTER_IP_RESERVED: u32 = 256;

pub(super) const KIND: BuiltInKind = BuiltInKind {
    short_names: &["svc"],
    categories: &["all"],
    has_status: true,
    exclusive: true,
    columns: &[
        column("Name", "string"),
        column("Type", "string"),
        column("Cluster-IP", "string"),
        column("External-IP", "string"),
        column("Port(s)", "string"),
        column("Age", "string"),
        wide("Selector"),
    ],
    cells: |object, now| {
        let spec = &object["spec"];
        let cluster_ip = spec["clusterIP"]
            .as_str()
            .filter(|ip| !ip.is_empty())
            .unwrap_or("<none>");
        vec![
            name(object),
            spec["type"].clone(),
            cluster_ip.into(),
            external(object).into(),
            ports(spec).into(),
            age(object, now),
            selector(spec).into(),
        ]
    },
    selectable_fields: &["spec.clusterIP", "spec.type"],
    prepare,
    validate,
    ..BuiltInKind::plain(
        "",
        "v1",
        "services",
        "service",
        "Service",
        "io.k8s.api.core.v1.Service",
    )
};

fn external(object: &Value) -> String {
    let spec = &object["spec"];
    let listed = |value: &Value| -> Vec<String> {
        value
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let fixed = listed(&spec["externalIPs"]);
    match spec["type"].as_str() {
        Some("ExternalName") => spec["externalName"].as_str().unwrap_or_default().to_owned(),
        Some("LoadBalancer") => {
            let ingress = object["status"]["loadBalancer"]["ingress"]
                .as_array()
                .into_iter()
                .flatten();
            let given = ingress.filter_map(|entry| {
                entry["ip"]
                    .as_str()
                    .or(entry["hostname"].as_str())
                    .map(str::to_owned)
            });
            let all: Vec<String> = given.chain(fixed).collect();
            if all.is_empty() {
                "<pending>".to_owned()
            } else {
                all.join(",")
            }
        }
        _ if fixed.is_empty() => "<none>".to_owned(),
        _ => fixed.join(","),
    }
}

fn ports(spec: &Value) -> String {
    let ports = spec["ports"].as_array().into_iter().flatten();
    let shown: Vec<String> = ports
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_u64().filter(|node_port| *node_port > 0) {
                Some(node_port) => format!("{}:{node_port}/{protocol}", port["port"]),
                None => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    if shown.is_empty() {
        "<none>".to_owned()
    } else {
        shown.join(",")
    }
}

fn selector(spec: &Value) -> String {
    let pairs = spec["selector"].as_object().into_iter().flatten();
    let shown: Vec<String> = pairs
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if shown.is_empty() {
        "<none>".to_owned()
    } else {
        shown.join(",")
    }
}

fn default(target: &mut Value, field: &str, value: impl Into<Value>) {
    let absent = match &target[field] {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        _ => false,
    };
    if absent {
        target[field] = value.into();
    }
}

fn prepare(object: &mut Value, old: Option<&Value>, preparation: &Preparation<'_>) -> Result<(), Status> {
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let spec = &mut object["spec"];
    if spec.is_null() {
        *spec = json!({});
    }
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    if spec["sessionAffinity"] == "ClientIP" && spec["sessionAffinityConfig"].is_null() {
        spec["sessionAffinityConfig"] = json!({"clientIP": {"timeoutSeconds": 10_800}});
    }
    for port in spec["ports"].as_array_mut().into_iter().flatten() {
        default(port, "protocol", "TCP");
        if port["targetPort"].is_null() || port["targetPort"] == "" || port["targetPort"] == 0 {
            port["targetPort"] = port["port"].clone();
        }
    }
    if spec["type"] != "ExternalName" {
        default(spec, "internalTrafficPolicy", "Cluster");
        keep_cluster_ip(spec, old.map(|old| &old["spec"]));
        allocate_cluster_ip(spec, old, &name, preparation)?;
        default(spec, "ipFamilyPolicy", "SingleStack");
        if spec["ipFamilies"].is_null() {
            let family = if spec["clusterIP"].as_str().is_some_and(|ip| ip.contains(':')) {
                "IPv6"
            } else {
                "IPv4"
            };
            spec["ipFamilies"] = json!([family]);
        }
    }
    if spec["type"] == "NodePort" || spec["type"] == "LoadBalancer" {
        default(spec, "externalTrafficPolicy", "Cluster");
    }
    if spec["type"] == "LoadBalancer" && spec["allocateLoadBalancerNodePorts"].is_null() {
        spec["allocateLoadBalancerNodePorts"] = true.into();
    }
    if object["status"].is_null() {
        object["status"] = json!({"loadBalancer": {}});
    }
    Ok(())
}

/// An update that leaves the address out means the address it has.
fn keep_cluster_ip(spec: &mut Value, old: Option<&Value>) {
    let Some(old) = old.filter(|old| old["type"] != "ExternalName") else {
        return;
    };
    if spec["clusterIP"].as_str().is_none_or(str::is_empty) {
        spec["clusterIP"] = old["clusterIP"].clone();
    }
    if spec["clusterIPs"].as_array().is_none_or(Vec::is_empty) {
        spec["clusterIPs"] = old["clusterIPs"].clone();
    }
}

fn allocate_cluster_ip(
    spec: &mut Value,
    old: Option<&Value>,
    name: &str,
    preparation: &Preparation<'_>,
) -> Result<(), Status> {
    match spec["clusterIP"]
        .as_str()
        .filter(|ip| !ip.is_empty())
        .map(str::to_owned)
    {
        None => {
            let address = free_address(preparation)
                .ok_or_else(|| Status::internal("failed to allocate a serviceIP: range is full"))?;
            spec["clusterIP"] = address.to_string().into();
        }
        Some(asked) if asked != "None" => {
            let unchanged = old.is_some_and(|old| old["spec"]["clusterIP"] == asked.as_str());
            if !unchanged && used_addresses(preparation).contains(&asked) {
                let detail = "failed to allocate IP: provided IP is already allocated";
                let cause = Cause::invalid("spec.clusterIPs", &json!([asked]), detail);
                return Err(Status::invalid("", "Service", name, vec![cause]));
            }
        }
        Some(_) => {}
    }
    spec["clusterIPs"] = json!([spec["clusterIP"]]);
    Ok(())
}

fn used_addresses(preparation: &Preparation<'_>) -> HashSet<String> {
    let services = preparation.store.list(&ResourcePrefix::new("", "services"), "");
    let address = |object: &std::sync::Arc<crate::store::Object>| {
        object.value()["spec"]["clusterIP"].as_str().map(str::to_owned)
    };
    services.objects.iter().filter_map(address).collect()
}

/// The lowest free address. Writes of Services are exclusive, so nobody else takes it meanwhile.
fn free_address(preparation: &Preparation<'_>) -> Option<Ipv4Addr> {
    let used = used_addresses(preparation);
    let mut candidates =
        (CLUSTER_IP_RESERVED..CLUSTER_IP_COUNT - 1).map(|offset| Ipv4Addr::from(CLUSTER_IP_BASE + offset));
    candidates.find(|address| !used.contains(&address.to_string()))
}

const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &object["spec"];
    let kinds = ["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].map(str::to_owned);
    if !kinds.iter().any(|known| spec["type"] == known.as_str()) {
        causes.push(Cause::not_supported("spec.type", &spec["type"], &kinds));
    }
    let ports = spec["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    if ports.is_empty() && spec["type"] != "ExternalName" && spec["clusterIP"] != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if spec["type"] == "ExternalName" && spec["externalName"].as_str().is_none_or(str::is_empty) {
        causes.push(Cause::required("spec.externalName", ""));
    }
    check_ports(spec, ports, &mut causes);
    check_choices(spec, &mut causes);
    if let Some(address) = spec["clusterIP"].as_str()
        && !address.is_empty()
        && address != "None"
        && address.parse::<IpAddr>().is_err()
    {
        causes.push(Cause::invalid(
            "spec.clusterIPs[0]",
            &spec["clusterIP"],
            NOT_AN_ADDRESS,
        ));
    }
    if let Some(old) = old {
        let both_have_one = old["spec"]["type"] != "ExternalName" && spec["type"] != "ExternalName";
        if both_have_one && old["spec"]["clusterIP"] != spec["clusterIP"] {
            let shown = json!([spec["clusterIP"]]);
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &shown,
                "may not change once set",
            ));
        }
    }
    causes
}

/// Fields of the spec that take one of a few words.
const CHOICES: &[(&str, &[&str])] = &[
    ("sessionAffinity", &["ClientIP", "None"]),
    ("internalTrafficPolicy", &["Cluster", "Local"]),
    ("externalTrafficPolicy", &["Cluster", "Local"]),
    (
        "ipFamilyPolicy",
        &["PreferDualStack", "RequireDualStack", "SingleStack"],
    ),
];

fn check_choices(spec: &Value, causes: &mut Vec<Cause>) {
    let owned = |words: &[&str]| -> Vec<String> { words.iter().map(|word| (*word).to_owned()).collect() };
    let is_one_of = |value: &Value, words: &[&str]| value.as_str().is_none_or(|word| words.contains(&word));
    for (field, words) in CHOICES {
        if !is_one_of(&spec[*field], words) {
            let path = format!("spec.{field}");
            causes.push(Cause::not_supported(path, &spec[*field], &owned(words)));
        }
    }
    let families = &["IPv4", "IPv6"];
    for (index, family) in spec["ipFamilies"].as_array().into_iter().flatten().enumerate() {
        if !is_one_of(family, families) {
            let path = format!("spec.ipFamilies[{index}]");
            causes.push(Cause::not_supported(path, family, &owned(families)));
        }
    }
    for (index, address) in spec["externalIPs"].as_array().into_iter().flatten().enumerate() {
        if address
            .as_str()
            .is_none_or(|text| text.parse::<IpAddr>().is_err())
        {
            causes.push(Cause::invalid(
                format!("spec.externalIPs[{index}]"),
                address,
                NOT_AN_ADDRESS,
            ));
        }
    }
}

fn check_ports(spec: &Value, ports: &[Value], causes: &mut Vec<Cause>) {
    let mut names = HashSet::new();
    let mut numbers = HashSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        let name = port["name"].as_str().unwrap_or_default();
        if name.is_empty() {
            if ports.len() > 1 {
                causes.push(Cause::required(format!("{path}.name"), ""));
            }
        } else {
            if let Err(detail) = crate::names::dns_label(name) {
                causes.push(Cause::invalid(format!("{path}.name"), &port["name"], detail));
            }
            if !names.insert(name.to_owned()) {
                causes.push(Cause::duplicate(format!("{path}.name"), &port["name"]));
            }
        }
        check_port_number(&port["port"], &format!("{path}.port"), causes);
        match &port["targetPort"] {
            number @ Value::Number(_) => check_port_number(number, &format!("{path}.targetPort"), causes),
            Value::String(name) => {
                if let Err(detail) = crate::names::port_name(name) {
                    causes.push(Cause::invalid(
                        format!("{path}.targetPort"),
                        &port["targetPort"],
                        detail,
                    ));
                }
            }
            _ => {}
        }
        let protocols = ["SCTP", "TCP", "UDP"].map(str::to_owned);
        if !protocols.iter().any(|known| port["protocol"] == known.as_str()) {
            causes.push(Cause::not_supported(
                format!("{path}.protocol"),
                &port["protocol"],
                &protocols,
            ));
        }
        check_node_port(spec, port, &format!("{path}.nodePort"), causes);
        let identity = format!("{}/{}", port["port"], port["protocol"]);
        if !numbers.insert(identity) {
            let key = json!({"port": port["port"], "protocol": port["protocol"]});
            causes.push(Cause::duplicate(path, &key));
        }
    }
}

fn check_node_port(spec: &Value, port: &Value, path: &str, causes: &mut Vec<Cause>) {
    let Some(number) = port["nodePort"].as_i64().filter(|number| *number != 0) else {
        return;
    };
    if spec["type"] == "ClusterIP" {
        causes.push(Cause::forbidden(
            path,
            "may not be used when `type` is 'ClusterIP'",
        ));
    } else if !NODE_PORTS.contains(&number) {
        let detail = format!(
            "provided port is not in the valid range. The range of valid ports is {}-{}",
            NODE_PORTS.start(),
            NODE_PORTS.end()
        );
        causes.push(Cause::invalid(path, &number.into(), detail));
    }
}

fn check_port_number(value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let number = value.as_i64().unwrap_or(0);
    if !(1..=65535).contains(&number) {
        causes.push(Cause::invalid(
            path,
            &number.into(),
            "must be between 1 and 65535, inclusive",
        ));
    }
}
