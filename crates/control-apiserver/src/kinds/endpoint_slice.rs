//! `discovery.k8s.io/v1 EndpointSlice`.

use serde_json::{Value, json};

use super::{BuiltInKind, Preparation, age, column, name};
use crate::status::{Cause, Status};

/// Names and addresses a cell shows before it says how many more there are.
const SHOWN_PORTS: usize = 3;
const SHOWN_ADDRESSES: usize = 3;

pub(super) const KIND: BuiltInKind = BuiltInKind {
    columns: &[
        column("Name", "string"),
        column("AddressType", "string"),
        column("Ports", "string"),
        column("Endpoints", "string"),
        column("Age", "string"),
    ],
    cells: |object, now| {
        let ports = object["ports"].as_array().into_iter().flatten();
        let ports: Vec<String> = ports
            .map(|port| {
                port["port"]
                    .as_u64()
                    .map_or("*".to_owned(), |port| port.to_string())
            })
            .collect();
        let endpoints = object["endpoints"].as_array().into_iter().flatten();
        let addresses: Vec<String> = endpoints
            .flat_map(|endpoint| endpoint["addresses"].as_array().into_iter().flatten())
            .filter_map(|address| address.as_str().map(str::to_owned))
            .collect();
        vec![
            name(object),
            object["addressType"].clone(),
            shortened(&ports, SHOWN_PORTS).into(),
            shortened(&addresses, SHOWN_ADDRESSES).into(),
            age(object, now),
        ]
    },
    prepare,
    validate,
    ..BuiltInKind::plain(
        "discovery.k8s.io",
        "v1",
        "endpointslices",
        "endpointslice",
        "EndpointSlice",
        "io.k8s.api.discovery.v1.EndpointSlice",
    )
};

fn shortened(items: &[String], shown: usize) -> String {
    match items.len() {
        0 => "<unset>".to_owned(),
        len if len > shown => format!("{} + {} more...", items[..shown].join(","), len - shown),
        _ => items.join(","),
    }
}

/// Ports are TCP and unnamed unless they say otherwise.
fn prepare(object: &mut Value, _old: Option<&Value>, _: &Preparation<'_>) -> Result<(), Status> {
    for port in object["ports"].as_array_mut().into_iter().flatten() {
        if port["protocol"].is_null() {
            port["protocol"] = json!("TCP");
        }
        if port["name"].is_null() {
            port["name"] = json!("");
        }
    }
    if object["endpoints"].is_null() {
        object["endpoints"] = json!([]);
    }
    if object["ports"].is_null()
        && let Some(map) = object.as_object_mut()
    {
        map.shift_remove("ports");
    }
    Ok(())
}

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let kinds = ["FQDN", "IPv4", "IPv6"].map(str::to_owned);
    match object["addressType"].as_str() {
        None | Some("") => causes.push(Cause::required("addressType", "")),
        Some(kind) if kinds.iter().any(|known| known == kind) => {}
        Some(_) => causes.push(Cause::not_supported(
            "addressType",
            &object["addressType"],
            &kinds,
        )),
    }
    if let Some(old) = old
        && old["addressType"] != object["addressType"]
    {
        causes.push(Cause::invalid(
            "addressType",
            &object["addressType"],
            "field is immutable",
        ));
    }
    for (index, endpoint) in object["endpoints"].as_array().into_iter().flatten().enumerate() {
        if endpoint["addresses"].as_array().is_none_or(Vec::is_empty) {
            causes.push(Cause::required(
                format!("endpoints[{index}].addresses"),
                "must contain at least 1 address",
            ));
        }
    }
    causes
}
