//! Refusals, in the words that people search for: those of kube-apiserver, or a pointer where this server differs.

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{CONFIG_MAPS, WIDGETS, config_map, start, start_with, widget, widgets};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": spec})
}

#[tokio::test]
async fn words_that_a_service_does_not_know_are_named_with_those_it_does() {
    let server = start().await;
    for (field, value, refused) in [
        (
            "sessionAffinity",
            json!("Sticky"),
            "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \"None\"",
        ),
        (
            "internalTrafficPolicy",
            json!("Near"),
            "spec.internalTrafficPolicy: Unsupported value: \"Near\": supported values: \"Cluster\", \"Local\"",
        ),
        (
            "ipFamilies",
            json!(["IPv5"]),
            "spec.ipFamilies[0]: Unsupported value: \"IPv5\": supported values: \"IPv4\", \"IPv6\"",
        ),
        (
            "externalIPs",
            json!(["outside"]),
            "spec.externalIPs[0]: Invalid value: \"outside\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)",
        ),
    ] {
        let mut spec = json!({"ports": [{"port": 80}]});
        spec[field] = value;
        let message = format!("Service \"a\" is invalid: {refused}");
        assert_eq!(
            server.post(SERVICES, &service(spec)).await.refusal(),
            (422, message)
        );
    }
}

#[tokio::test]
async fn node_ports_are_of_their_range_and_of_services_that_have_them() {
    let server = start().await;
    let refusal = async |kind: &str, node_port: u16| {
        let spec = json!({"type": kind, "ports": [{"port": 80, "nodePort": node_port}]});
        server.post(SERVICES, &service(spec)).await.refusal().1
    };
    assert_eq!(
        refusal("NodePort", 80).await,
        "Service \"a\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. \
         The range of valid ports is 30000-32767"
    );
    assert_eq!(
        refusal("ClusterIP", 30080).await,
        "Service \"a\" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"
    );
}

#[tokio::test]
async fn a_config_map_that_is_too_large_is_refused_as_a_whole() {
    let server = start().await;
    let mut large = config_map("a");
    large["data"]["key"] = "x".repeat(control_apiserver::limits::DATA_MAX_BYTES + 1).into();
    assert_eq!(
        server.post(CONFIG_MAPS, &large).await.refusal(),
        (
            422,
            "ConfigMap \"a\" is invalid: []: Too long: may not be more than 1048576 bytes".to_owned()
        )
    );
}

#[tokio::test]
async fn damaged_base64_is_located() {
    let server = start().await;
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "bm90 base64"}});
    assert_eq!(
        server
            .post("/api/v1/namespaces/default/secrets", &secret)
            .await
            .refusal(),
        (
            400,
            "Secret in version \"v1\" cannot be handled as a Secret: illegal base64 data at input byte 4"
                .to_owned()
        )
    );
}

#[tokio::test]
async fn unchecked_rules_are_mentioned_only_where_there_are_rules() {
    let mut without_rules = widgets();
    if let Some(spec) = without_rules
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec")
        .and_then(Value::as_object_mut)
    {
        spec.shift_remove("x-kubernetes-validations");
    }
    let mut wrong = widget("a", 1);
    wrong["spec"]["mode"] = "C".into();
    for (crd, mentioned) in [(widgets(), true), (without_rules, false)] {
        let server = start_with(vec![crd]).await;
        let (code, message) = server.post(WIDGETS, &wrong).await.refusal();
        assert_eq!(code, 422);
        assert_eq!(
            message.contains("some validation rules were not checked"),
            mentioned,
            "{message}"
        );
    }
}

#[tokio::test]
async fn logs_of_pods_point_at_the_command_that_prints_them() {
    let server = start().await;
    for (method, subresource) in [
        (Method::GET, "log"),
        (Method::POST, "exec"),
        (Method::GET, "portforward"),
    ] {
        let uri = format!("/api/v1/namespaces/default/pods/a/{subresource}");
        let (code, message) = server
            .send(method, &uri, "application/json", Vec::new())
            .await
            .refusal();
        assert_eq!(
            (code, message),
            (
                405,
                format!(
                    "pods/{subresource} is not served: pods show the processes that run in the mesh; `lateen ps` lists \
                     these and `lateen logs` prints what they write"
                )
            )
        );
    }
}

#[tokio::test]
async fn a_label_that_is_taken_off_leaves_nothing() {
    let server = start().await;
    let mut labelled = config_map("a");
    labelled["metadata"]["labels"] = json!({"team": "shop"});
    server.post(CONFIG_MAPS, &labelled).await.ok();
    let label_off = json!({"metadata": {"labels": {"team": null}}});
    let patched = server
        .patch(&format!("{CONFIG_MAPS}/a"), "merge-patch", &label_off)
        .await
        .ok();
    assert_eq!(patched["metadata"].get("labels"), None);
}
