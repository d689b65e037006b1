//! Owners, finalizers, namespaces and CRDs: what goes when something goes.

mod support;

use serde_json::{Value, json};
use support::{CONFIG_MAPS, Server, WIDGETS, config_map, start, start_with, widget, widgets};

/// A ConfigMap `owner`, and a ConfigMap `owned` that belongs to it.
async fn owner_and_owned(server: &Server) {
    let owner = server.post(CONFIG_MAPS, &config_map("owner")).await.ok();
    let mut owned = config_map("owned");
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "blockOwnerDeletion": true,
    }]);
    server.post(CONFIG_MAPS, &owned).await.ok();
}

async fn delete_owner(server: &Server, policy: &str) -> Value {
    server
        .delete(
            &format!("{CONFIG_MAPS}/owner"),
            &json!({"propagationPolicy": policy}),
        )
        .await
        .ok()
}

#[tokio::test]
async fn background_deletion_takes_the_owned_objects_afterwards() {
    let server = start().await;
    owner_and_owned(&server).await;
    assert_eq!(delete_owner(&server, "Background").await["status"], "Success");
    server.gone(&format!("{CONFIG_MAPS}/owned")).await;
}

#[tokio::test]
async fn foreground_deletion_takes_the_owned_objects_first() {
    let server = start().await;
    owner_and_owned(&server).await;
    let waiting = delete_owner(&server, "Foreground").await;
    assert_eq!(waiting["metadata"]["finalizers"], json!(["foregroundDeletion"]));
    server.gone(&format!("{CONFIG_MAPS}/owner")).await;
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/owned")).await.code, 404);
}

#[tokio::test]
async fn orphans_stay() {
    let server = start().await;
    owner_and_owned(&server).await;
    delete_owner(&server, "Orphan").await;
    server.gone(&format!("{CONFIG_MAPS}/owner")).await;
    let orphan = server.get(&format!("{CONFIG_MAPS}/owned")).await.ok();
    assert!(
        orphan["metadata"]["ownerReferences"]
            .as_array()
            .is_none_or(Vec::is_empty),
        "{orphan}"
    );
}

#[tokio::test]
async fn a_finalizer_holds_an_object_until_it_is_taken_off() {
    let server = start().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.org/hold"]);
    server.post(CONFIG_MAPS, &object).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let waiting = server.delete(&path, &json!({})).await.ok();
    assert!(waiting["metadata"]["deletionTimestamp"].is_string());
    let (code, message) = server
        .patch(
            &path,
            "merge-patch",
            &json!({"metadata": {"finalizers": ["x.org/y"]}}),
        )
        .await
        .refusal();
    assert_eq!(
        (code, message.contains("no new finalizers can be added")),
        (422, true)
    );
    server
        .patch(&path, "merge-patch", &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn preconditions_protect_an_object() {
    let server = start().await;
    server.post(CONFIG_MAPS, &config_map("a")).await.ok();
    let path = format!("{CONFIG_MAPS}/a");
    let (code, message) = server
        .delete(&path, &json!({"preconditions": {"uid": "other"}}))
        .await
        .refusal();
    assert_eq!(
        (
            code,
            message.contains("Precondition failed: UID in precondition: other")
        ),
        (409, true)
    );
    assert_eq!(server.get(&path).await.code, 200);
}

#[tokio::test]
async fn a_namespace_takes_its_content_with_it() {
    let server = start().await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "x"}});
    server.post("/api/v1/namespaces", &namespace).await.ok();
    server
        .until("/api/v1/namespaces/x/serviceaccounts/default", |answer| {
            answer.code == 200
        })
        .await;
    let mut held = config_map("a");
    held["metadata"]["finalizers"] = json!(["example.org/hold"]);
    server.post("/api/v1/namespaces/x/configmaps", &held).await.ok();
    let going = server.delete("/api/v1/namespaces/x", &json!({})).await.ok();
    assert_eq!(going["status"]["phase"], "Terminating");
    let (code, message) = server
        .post("/api/v1/namespaces/x/configmaps", &config_map("b"))
        .await
        .refusal();
    assert_eq!(
        (code, message.contains("because it is being terminated")),
        (403, true)
    );
    let path = "/api/v1/namespaces/x/configmaps/a";
    server
        .until(path, |answer| {
            answer.body["metadata"]["deletionTimestamp"].is_string()
        })
        .await;
    server
        .patch(path, "merge-patch", &json!({"metadata": {"finalizers": null}}))
        .await
        .ok();
    server.gone("/api/v1/namespaces/x").await;
}

#[tokio::test]
async fn the_default_namespace_stays() {
    let server = start().await;
    let refused = server
        .delete("/api/v1/namespaces/default", &json!({}))
        .await
        .refusal();
    let message = "namespaces \"default\" is forbidden: this namespace may not be deleted";
    assert_eq!(refused, (403, message.to_owned()));
}

#[tokio::test]
async fn a_crd_serves_its_kind_while_it_exists() {
    let server = start().await;
    assert_eq!(server.get(WIDGETS).await.code, 404);
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let created = server.post(crds, &widgets()).await.ok();
    let established = created["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    assert!(established);
    server.post(WIDGETS, &widget("a", 1)).await.ok();
    server
        .delete(&format!("{crds}/widgets.example.org"), &json!({}))
        .await
        .ok();
    server.gone(WIDGETS).await;
    server.post(crds, &widgets()).await.ok();
    let list = server.get(WIDGETS).await.ok();
    assert_eq!(list["items"], json!([]), "the objects went with their definition");
}

#[tokio::test]
async fn a_broken_crd_is_refused_with_the_field() {
    let server = start_with(Vec::new()).await;
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let mut broken = widgets();
    broken["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]
        ["type"] = "int".into();
    let (code, message) = server.post(crds, &broken).await.refusal();
    assert_eq!(code, 422);
    assert!(message.contains("spec.versions[0].schema.openAPIV3Schema.properties[spec].properties[size].type: Unsupported value"), "{message}");
    let mut broken = widgets();
    broken["metadata"]["name"] = "other.example.org".into();
    assert_eq!(server.post(crds, &broken).await.refusal().0, 422);
}
