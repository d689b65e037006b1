//! The socket: TLS, tokens, the kubeconfig, restarts; and `kube` as a client over both ways in.

mod support;

use std::os::unix::fs::PermissionsExt;

use control_apiserver::{ApiServer, Config};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Error};
use serde_json::json;
use support::{PATIENCE, Server, config_map, start};

/// A client over the socket; `token` replaces the one in the kubeconfig.
async fn client(server: &Server, token: Option<&str>) -> Client {
    let mut kubeconfig = Kubeconfig::read_from(server.handle.kubeconfig_path()).unwrap();
    if let Some(token) = token {
        let user = kubeconfig.auth_infos[0].auth_info.as_mut().unwrap();
        user.token = Some(token.to_owned().into());
    }
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    Client::try_from(config).unwrap()
}

fn typed(name: &str) -> ConfigMap {
    serde_json::from_value(config_map(name)).unwrap()
}

async fn use_client(client: Client) {
    let maps: Api<ConfigMap> = Api::default_namespaced(client);
    let mut events = watcher(maps.clone(), watcher::Config::default().streaming_lists())
        .applied_objects()
        .boxed();
    let created = maps.create(&PostParams::default(), &typed("a")).await.unwrap();
    assert!(created.metadata.uid.is_some());
    let seen = tokio::time::timeout(PATIENCE, events.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(seen.metadata.name.as_deref(), Some("a"));
    let patch = Patch::Merge(json!({"data": {"key": "new"}}));
    maps.patch("a", &PatchParams::default(), &patch).await.unwrap();
    let changed = tokio::time::timeout(PATIENCE, events.try_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(changed.data.unwrap()["key"], "new");
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert_eq!(
        maps.list_metadata(&ListParams::default())
            .await
            .unwrap()
            .items
            .len(),
        1
    );
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_kube_client_works_in_process() {
    let server = start().await;
    use_client(Client::new(server.handle.service(), "default")).await;
}

#[tokio::test]
async fn a_kube_client_works_over_tls() {
    let server = start().await;
    use_client(client(&server, None).await).await;
}

#[tokio::test]
async fn a_wrong_token_is_unauthorized() {
    let server = start().await;
    for token in ["", "wrong"] {
        let maps: Api<ConfigMap> = Api::default_namespaced(client(&server, Some(token)).await);
        match maps.list(&ListParams::default()).await {
            Err(Error::Api(status)) => {
                assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"))
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn users_cannot_write_pods() {
    let server = start().await;
    let pods: Api<Pod> = Api::default_namespaced(client(&server, None).await);
    let pod: Pod =
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}]}}))
            .unwrap();
    match pods.create(&PostParams::default(), &pod).await {
        Err(Error::Api(status)) => {
            assert_eq!(status.code, 405);
            assert!(
                status.message.contains("written by the server only"),
                "{}",
                status.message
            );
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_service_account_knows_itself_and_may_do_nothing_else() {
    let server = start().await;
    let asked = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let answer = server
        .post("/api/v1/namespaces/default/serviceaccounts/default/token", &asked)
        .await
        .ok();
    let token = answer["status"]["token"].as_str().unwrap();
    let as_account = client(&server, Some(token)).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(as_account.clone());
    match maps.list(&ListParams::default()).await {
        Err(Error::Api(status)) => {
            assert_eq!(status.code, 403);
            assert_eq!(
                status.message,
                "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \
                 \"configmaps\" in API group \"\" in the namespace \"default\""
            );
        }
        other => panic!("{other:?}"),
    }
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
    let reviewed = server
        .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await
        .ok();
    assert_eq!(
        reviewed["status"]["user"]["username"],
        "system:serviceaccount:default:default"
    );
    // With the account its tokens die.
    server
        .delete("/api/v1/namespaces/default/serviceaccounts/default", &json!({}))
        .await
        .ok();
    let reviewed = server
        .post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
        .await
        .ok();
    assert_eq!(reviewed["status"]["authenticated"], false);
}

#[tokio::test]
async fn secrets_on_disk_are_their_owners_alone() {
    let server = start().await;
    let state = server.directory.path().join("state");
    for name in [
        "kubeconfig",
        "ca.key",
        "admin.token",
        "service-account.key",
        "apiserver.redb",
    ] {
        let mode = std::fs::metadata(state.join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    assert_eq!(
        std::fs::metadata(&state).unwrap().permissions().mode() & 0o777,
        0o700
    );
}

#[tokio::test]
async fn a_restart_keeps_objects_tokens_and_authority() {
    let server = start().await;
    let token = server.handle.admin_token().to_owned();
    let ca = server.handle.ca_pem().to_owned();
    let created = server.post(support::CONFIG_MAPS, &config_map("a")).await.ok();
    let Server { handle, directory } = server;
    handle.shutdown().await;
    let config = Config {
        custom_resource_definitions: Vec::new(),
        ..Config::new(directory.path().join("state"))
    };
    let handle = ApiServer::start(config).await.unwrap();
    assert_eq!(
        (handle.admin_token(), handle.ca_pem()),
        (token.as_str(), ca.as_str())
    );
    let server = Server { handle, directory };
    assert_eq!(
        server.get(&format!("{}/a", support::CONFIG_MAPS)).await.ok(),
        created
    );
    let maps: Api<ConfigMap> = Api::default_namespaced(client(&server, None).await);
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_taken_port_is_moved() {
    let first = start().await;
    let directory = tempfile::tempdir().unwrap();
    let config = Config {
        custom_resource_definitions: Vec::new(),
        bind: first.handle.address(),
        ..Config::new(directory.path().join("state"))
    };
    let second = ApiServer::start(config).await.unwrap();
    assert_ne!(second.address(), first.handle.address());
    assert!(second.url().starts_with("https://127.0.0.1:"));
    second.shutdown().await;
}

#[tokio::test]
async fn openapi_names_each_kind_and_its_patch() {
    let server = support::start_with(vec![support::widgets()]).await;
    let index = server.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/example.org/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document = server.get(url).await.ok();
    let patch = &document["paths"]["/apis/example.org/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|parameter| parameter["name"] == "fieldValidation")
    );
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Widget");
    let core = server.get("/openapi/v3/api/v1").await.ok();
    let service = &core["components"]["schemas"]["io.k8s.api.core.v1.ServiceSpec"];
    assert!(
        service["properties"]["clusterIP"]["description"]
            .as_str()
            .unwrap()
            .contains("IP address")
    );
}
