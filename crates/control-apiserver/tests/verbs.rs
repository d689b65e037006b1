//! The verbs, as clients see them.

mod support;

use http::Method;
use serde_json::{Value, json};
use support::{CONFIG_MAPS, WIDGETS, config_map, start, start_with, widget, widgets};

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert_eq!(created["apiVersion"], "v1");
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string());
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.get(&path).await.ok(), created);

    let mut changed = created.clone();
    changed["data"]["key"] = "other".into();
    let updated = server.put(&path, &changed).await.ok();
    assert_eq!(updated["data"]["key"], "other");
    let (code, message) = server.put(&path, &changed).await.refusal();
    assert_eq!(code, 409);
    assert_eq!(
        message,
        "Operation cannot be fulfilled on configmaps \"a\": the object has been modified; please apply your changes to \
         the latest version and try again"
    );
    let deleted = server.delete(&path, &json!({})).await.ok();
    assert_eq!(
        (deleted["status"].as_str(), &deleted["details"]["uid"]),
        (Some("Success"), &created["metadata"]["uid"])
    );
    assert_eq!(
        server.get(&path).await.refusal(),
        (404, "configmaps \"a\" not found".to_owned())
    );
}

#[tokio::test]
async fn a_write_that_changes_nothing_makes_no_revision() {
    let server = start().await;
    let created = server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let again = server.put(&format!("{CONFIG_MAPS}/a"), &created).await.ok();
    assert_eq!(
        again["metadata"]["resourceVersion"],
        created["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn what_exists_or_has_no_place_is_refused() {
    let server = start().await;
    server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    assert_eq!(
        server.post(CONFIG_MAPS, &config_map("a")).await.refusal(),
        (409, "configmaps \"a\" already exists".to_owned())
    );
    let elsewhere = "/api/v1/namespaces/nowhere/configmaps";
    assert_eq!(
        server.post(elsewhere, &config_map("a")).await.refusal(),
        (404, "namespaces \"nowhere\" not found".to_owned())
    );
    let mut named = config_map("b");
    named["metadata"]["namespace"] = "other".into();
    let (code, message) = server.post(CONFIG_MAPS, &named).await.refusal();
    assert_eq!(
        (code, message.contains("does not match the namespace sent")),
        (400, true)
    );
    let (code, message) = server
        .post(CONFIG_MAPS, &config_map("Not_A_Name"))
        .await
        .refusal();
    assert_eq!(
        (
            code,
            message.starts_with("ConfigMap \"Not_A_Name\" is invalid: metadata.name: ")
        ),
        (422, true)
    );
    assert_eq!(server.get("/apis/nothing.org/v1/things").await.refusal().0, 404);
}

#[tokio::test]
async fn names_are_generated() {
    let server = start().await;
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "x-"}});
    let name = server.post(CONFIG_MAPS, &object).await.ok()["metadata"]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(name.starts_with("x-") && name.len() == 7, "{name}");
}

#[tokio::test]
async fn a_dry_run_answers_and_stores_nothing() {
    let server = start().await;
    let answer = server
        .post(&format!("{CONFIG_MAPS}?dryRun=All"), &config_map("a"))
        .await;
    assert_eq!(
        (answer.code, &answer.body["metadata"]["name"]),
        (201, &json!("a"))
    );
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
}

#[tokio::test]
async fn unknown_and_duplicate_fields_are_refused_warned_about_or_ignored() {
    let server = start_with(vec![widgets()]).await;
    let body = br#"{"apiVersion":"example.org/v1","kind":"Widget","metadata":{"name":"a"},"spec":{"size":1,"size":2,"bogus":true}}"#;
    let send = async |mode: &str| {
        let uri = format!("{WIDGETS}?dryRun=All&fieldValidation={mode}");
        server
            .send(Method::POST, &uri, "application/json", body.to_vec())
            .await
    };
    assert_eq!(
        send("Strict").await.refusal(),
        (
            400,
            "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: duplicate field \
             \"spec.size\", unknown field \"spec.bogus\""
                .to_owned()
        )
    );
    let warned = send("Warn").await;
    assert_eq!(
        warned.warnings,
        [
            "299 - \"duplicate field \\\"spec.size\\\"\"",
            "299 - \"unknown field \\\"spec.bogus\\\"\""
        ]
    );
    assert_eq!(warned.ok()["spec"], json!({"size": 2, "mode": "A"}));
    assert!(send("Ignore").await.warnings.is_empty());
}

#[tokio::test]
async fn yaml_bodies_are_read() {
    let server = start().await;
    let body = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  key: value\n";
    let answer = server
        .send(Method::POST, CONFIG_MAPS, "application/yaml", body.to_vec())
        .await;
    assert_eq!(answer.ok()["data"]["key"], "value");
    let (code, _) = server
        .send(Method::POST, CONFIG_MAPS, "text/plain", body.to_vec())
        .await
        .refusal();
    assert_eq!(code, 415);
}

#[tokio::test]
async fn custom_objects_are_validated_and_defaulted() {
    let server = start_with(vec![widgets()]).await;
    let created = server.post(WIDGETS, &widget("a", 3)).await.ok();
    assert_eq!(
        (&created["spec"]["mode"], &created["metadata"]["generation"]),
        (&json!("A"), &json!(1))
    );
    let (code, message) = server.post(WIDGETS, &widget("b", 11)).await.refusal();
    assert_eq!(code, 422);
    assert_eq!(
        message,
        "Widget.example.org \"b\" is invalid: spec.size: Invalid value: 11: spec.size in body should be less than or equal to 10"
    );
    let path = format!("{WIDGETS}/a");
    let (_, message) = server
        .patch(&path, "merge-patch", &json!({"spec": {"size": 2}}))
        .await
        .refusal();
    assert!(
        message.contains("spec: Invalid value: \"object\": may not shrink"),
        "{message}"
    );
    let grown = server
        .patch(&path, "merge-patch", &json!({"spec": {"size": 5}}))
        .await
        .ok();
    assert_eq!(grown["metadata"]["generation"], 2);
}

#[tokio::test]
async fn every_served_version_shows_the_same_objects() {
    let server = start_with(vec![widgets()]).await;
    server.post(WIDGETS, &widget("a", 3)).await.ok();
    let other = server
        .get("/apis/example.org/v1beta1/namespaces/default/widgets/a")
        .await;
    assert_eq!(
        other.warnings,
        ["299 - \"example.org/v1beta1 Widget is deprecated\""]
    );
    assert_eq!(other.ok()["apiVersion"], "example.org/v1beta1");
}

#[tokio::test]
async fn status_and_scale_are_endpoints_of_their_own() {
    let server = start_with(vec![widgets()]).await;
    let mut object = widget("a", 3);
    object["status"] = json!({"size": 9});
    let created = server.post(WIDGETS, &object).await.ok();
    let path = format!("{WIDGETS}/a");
    // The in-process caller is trusted and writes status with the object.
    assert_eq!(created["status"]["size"], 9);
    let patched = server
        .patch(
            &format!("{path}/status"),
            "merge-patch",
            &json!({"status": {"size": 2}, "spec": {"size": 7}}),
        )
        .await
        .ok();
    assert_eq!(
        (&patched["status"]["size"], &patched["spec"]["size"]),
        (&json!(2), &json!(3))
    );
    let scaled = server
        .patch(
            &format!("{path}/scale"),
            "merge-patch",
            &json!({"spec": {"replicas": 8}}),
        )
        .await
        .ok();
    assert_eq!(
        (
            &scaled["kind"],
            &scaled["spec"]["replicas"],
            &scaled["status"]["replicas"]
        ),
        (&json!("Scale"), &json!(8), &json!(2))
    );
    assert_eq!(server.get(&path).await.ok()["spec"]["size"], 8);
}

#[tokio::test]
async fn patches_are_taken_in_the_types_that_fit_the_kind() {
    let server = start_with(vec![widgets()]).await;
    server.post(WIDGETS, &widget("a", 3)).await.ok();
    let path = format!("{WIDGETS}/a");
    let replace = json!([{"op": "replace", "path": "/spec/size", "value": 4}]);
    let patched = server
        .send(
            Method::PATCH,
            &path,
            "application/json-patch+json",
            replace.to_string().into_bytes(),
        )
        .await;
    assert_eq!(patched.ok()["spec"]["size"], 4);
    for kind in ["strategic-merge-patch", "apply-patch"] {
        let content_type = if kind == "apply-patch" {
            "application/apply-patch+yaml".to_owned()
        } else {
            format!("application/{kind}+json")
        };
        let (code, message) = server
            .send(Method::PATCH, &path, &content_type, b"{}".to_vec())
            .await
            .refusal();
        assert_eq!(code, 415);
        assert_eq!(
            message,
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json"
        );
    }
    let failing = json!([{"op": "test", "path": "/spec/size", "value": 99}]);
    let refused = server
        .send(
            Method::PATCH,
            &path,
            "application/json-patch+json",
            failing.to_string().into_bytes(),
        )
        .await;
    assert_eq!(refused.refusal().0, 422);
    let (code, message) = server
        .send(
            Method::PATCH,
            &format!("{path}?fieldValidation=Strict"),
            "application/merge-patch+json",
            br#"{"spec":{"x":1}}"#.to_vec(),
        )
        .await
        .refusal();
    assert_eq!(
        (
            code,
            message.contains("strict decoding error: unknown field \\\"spec.x\\\"")
                || message.contains("unknown field \"spec.x\"")
        ),
        (422, true),
        "{message}"
    );
}

#[tokio::test]
async fn services_get_addresses_and_keep_them() {
    let server = start().await;
    let service = |name: &str, port: Value| json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [port]}});
    let path = "/api/v1/namespaces/default/services";
    let (first, second) = (
        service("a", json!({"port": 80})),
        service("b", json!({"port": 80})),
    );
    let (first, second) = futures::future::join(server.post(path, &first), server.post(path, &second)).await;
    let (first, second) = (first.ok(), second.ok());
    assert_eq!(
        first["spec"]["ports"],
        json!([{"port": 80, "protocol": "TCP", "targetPort": 80}])
    );
    assert!(first["spec"]["clusterIP"].as_str().unwrap().starts_with("10.96."));
    assert_ne!(first["spec"]["clusterIP"], second["spec"]["clusterIP"]);
    let patched = server
        .patch(
            &format!("{path}/a"),
            "strategic-merge-patch",
            &json!({"spec": {"ports": [{"name": "x", "port": 80}]}}),
        )
        .await
        .ok();
    assert_eq!(patched["spec"]["clusterIP"], first["spec"]["clusterIP"]);
    assert_eq!(patched["spec"]["ports"][0]["name"], "x");
    let (code, message) = server
        .post(path, &service("c", json!({"port": "http"})))
        .await
        .refusal();
    assert_eq!(code, 400);
    assert_eq!(
        message,
        "Service in version \"v1\" cannot be handled as a Service: json: cannot unmarshal string into Go struct field \
         ServicePort.spec.ports.port of type int32"
    );
}

#[tokio::test]
async fn lists_come_in_pages_of_one_moment() {
    let server = start().await;
    for name in ["a", "b", "c"] {
        server.post(CONFIG_MAPS, &config_map(name)).await.ok();
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(
        (
            first["items"].as_array().unwrap().len(),
            &first["metadata"]["remainingItemCount"]
        ),
        (2, &json!(1))
    );
    server.delete(&format!("{CONFIG_MAPS}/c"), &json!({})).await.ok();
    server.post(CONFIG_MAPS, &config_map("d")).await.ok();
    let token = first["metadata"]["continue"].as_str().unwrap();
    let rest = server
        .get(&format!("{CONFIG_MAPS}?limit=2&continue={token}"))
        .await
        .ok();
    let names: Vec<&Value> = rest["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| &item["metadata"]["name"])
        .collect();
    assert_eq!(names, ["c"], "the page shows what was there when the list began");
    assert_eq!(
        rest["metadata"]["resourceVersion"],
        first["metadata"]["resourceVersion"]
    );
}

#[tokio::test]
async fn selectors_choose() {
    let server = start().await;
    for (name, label) in [("a", "x"), ("b", "y")] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"l": label});
        server.post(CONFIG_MAPS, &object).await.ok();
    }
    let names = async |query: &str| -> Vec<String> {
        let list = server.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names("labelSelector=l%3Dx").await, ["a"]);
    assert_eq!(names("labelSelector=l+notin+(x)").await, ["b"]);
    assert_eq!(names("fieldSelector=metadata.name%3Db").await, ["b"]);
    let (code, message) = server
        .get(&format!("{CONFIG_MAPS}?fieldSelector=data.key%3Dv"))
        .await
        .refusal();
    assert_eq!(
        (code, message.as_str()),
        (400, "field label not supported: data.key")
    );
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = start().await;
    for name in ["a", "b"] {
        server.post(CONFIG_MAPS, &config_map(name)).await.ok();
    }
    server
        .delete(
            &format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Da"),
            &json!({}),
        )
        .await
        .ok();
    let left = server.get(CONFIG_MAPS).await.ok();
    assert_eq!(left["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn tables_have_the_columns_of_the_crd() {
    let server = start_with(vec![widgets()]).await;
    server.post(WIDGETS, &widget("a", 3)).await.ok();
    let accept = [(
        "accept",
        "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
    )];
    let response = server.open(Method::GET, WIDGETS, &accept, Vec::new()).await;
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    let table: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(
        (&table["kind"], &table["apiVersion"]),
        (&json!("Table"), &json!("meta.k8s.io/v1"))
    );
    let columns: Vec<&Value> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| &column["name"])
        .collect();
    assert_eq!(columns, ["Name", "Size"]);
    assert_eq!(table["rows"][0]["cells"], json!(["a", 3]));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn pods_are_written_by_the_server_side_only() {
    let server = start().await;
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "app", "image": "local"}]}, "status": {"phase": "Running", "podIP": "127.66.0.1"}});
    let written = server.handle.store().put(&pod).await.unwrap();
    assert_eq!(written["status"]["podIP"], "127.66.0.1");
    let again = server.handle.store().put(&pod).await.unwrap();
    assert_eq!(
        again["metadata"]["resourceVersion"], written["metadata"]["resourceVersion"],
        "nothing changed"
    );
    server
        .handle
        .store()
        .delete("v1", "Pod", "default", "p")
        .await
        .unwrap();
    assert!(
        server
            .handle
            .store()
            .get("v1", "Pod", "default", "p")
            .unwrap()
            .is_none()
    );
}

#[tokio::test]
async fn events_are_the_same_in_both_groups() {
    let server = start().await;
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "note": "hello", "reason": "Started", "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Start", "reportingController": "test", "reportingInstance": "1"});
    server
        .post("/apis/events.k8s.io/v1/namespaces/default/events", &event)
        .await
        .ok();
    let list = server
        .get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.name%3Dp")
        .await
        .ok();
    assert_eq!(list["items"][0]["message"], "hello");
    let back = server
        .get("/apis/events.k8s.io/v1/namespaces/default/events/e")
        .await
        .ok();
    assert_eq!(
        (&back["note"], &back["regarding"]["name"]),
        (&json!("hello"), &json!("p"))
    );
}

#[tokio::test]
async fn an_impersonated_user_may_no_more_than_himself() {
    let server = start().await;
    let headers = [("impersonate-user", "jane")];
    let response = server.open(Method::GET, CONFIG_MAPS, &headers, Vec::new()).await;
    assert_eq!(response.status(), 403);
    let review = br#"{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}"#.to_vec();
    let headers = [("impersonate-user", "jane"), ("content-type", "application/json")];
    let response = server
        .open(
            Method::POST,
            "/apis/authentication.k8s.io/v1/selfsubjectreviews",
            &headers,
            review,
        )
        .await;
    let bytes = http_body_util::BodyExt::collect(response.into_body())
        .await
        .unwrap()
        .to_bytes();
    let answer: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(answer["status"]["userInfo"]["username"], "jane");
}
