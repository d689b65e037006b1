//! Secrets that come and change while the proxy runs: from files, over ADS, and in what the admin interface tells.

use std::path::Path;

use api_envoy::type_url;

use crate::certificates::{Authority, Leaf, downstream, upstream};
use crate::harness::discovery::Discovery;
use crate::harness::secrets::Secrets;
use crate::harness::{Client, Proxy, cluster, connect, eventually, get, listener, socket};
use crate::world::{Program, access_log, client, http_with, lines, reflecting_upstream, secure_listener};

/// The discovery response of a file with one secret.
fn response(version: &str, secret: &str) -> String {
    format!(
        "version_info: \"{version}\"\nresources: [{{ \"@type\": {}, {secret} }}]\n",
        type_url::SECRET
    )
}

pub(crate) fn certificate_secret(name: &str, leaf: &Leaf) -> String {
    format!(
        "name: {name}, tls_certificate: {{ certificate_chain: {{ inline_string: {:?} }}, private_key: {{ inline_string: {:?} }} }}",
        leaf.chain, leaf.key
    )
}

pub(crate) fn roots_secret(name: &str, pem: &str) -> String {
    format!("name: {name}, validation_context: {{ trusted_ca: {{ inline_string: {pem:?} }} }}")
}

/// Moves a new version of a file into its place, as Envoy wants it.
fn put(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, path).unwrap();
}

/// Fields of a common context that take the certificate, or the authorities, from files of a directory.
fn from_files(directory: &Path, certificate: bool, roots: bool) -> String {
    let source = |file: &str| {
        let path = directory.join(file);
        format!("sds_config: {{ path_config_source: {{ path: {path:?} }}, initial_fetch_timeout: 2s }}")
    };
    let mut fields = Vec::new();
    if certificate {
        let source = source("default.yaml");
        fields.push(format!(
            "tls_certificate_sds_secret_configs: [{{ name: default, {source} }}]"
        ));
    }
    if roots {
        let source = source("ROOTCA.yaml");
        fields.push(format!(
            "combined_validation_context: {{ default_validation_context: {{}}, \
             validation_context_sds_secret_config: {{ name: ROOTCA, {source} }} }}"
        ));
    }
    fields.join(", ")
}

/// A server whose identity and authorities are files, and one for clients of the same authority.
fn server(directory: &Path) -> Proxy {
    let log = access_log("log", "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_SUBJECT%");
    let chain = format!(
        "{}, filters: {}",
        downstream(
            &from_files(directory, true, true),
            ", require_client_certificate: true"
        ),
        http_with(&log)
    );
    let failed = access_log("failed", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON%");
    let listener = secure_listener(&chain, &failed);
    Program::Lateen.start(listener, cluster("app", reflecting_upstream()))
}

#[test]
fn a_certificate_from_a_file_is_renewed_and_connections_go_on() {
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("default.yaml");
    put(
        &file,
        &response(
            "1",
            &certificate_secret("default", &root.leaf("old", &["a.test"])),
        ),
    );
    put(
        &directory.path().join("ROOTCA.yaml"),
        &response("1", &roots_secret("ROOTCA", &root.pem())),
    );
    let server = server(directory.path());
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let transport = upstream(
        &format!("{}, {}", identity.certificates(), root.validation("")),
        "",
    );
    let client = client(&Program::Lateen, &server, &transport, "");
    let mut kept = Client::connect(client.listener("plain")).unwrap();
    assert_eq!(kept.request("GET", "a", "/1").unwrap().0, 200);

    put(
        &file,
        &response(
            "2",
            &certificate_secret("default", &root.leaf("new", &["a.test"])),
        ),
    );
    eventually("the second version is taken", || {
        (server.stat("sds.default.update_success") == 2).then_some(())
    });
    assert_eq!(kept.request("GET", "a", "/2").unwrap().0, 200);
    assert_eq!(
        client.stat("cluster.app.upstream_cx_total"),
        1,
        "the connection goes on"
    );
    let again = self::client(&Program::Lateen, &server, &transport, "");
    assert_eq!(get(again.listener("plain"), "GET", "a", "/3").unwrap().0, 200);
    assert_eq!(
        lines(&server, "log", 3),
        ["CN=client CN=old", "CN=client CN=old", "CN=client CN=new"]
    );
    let factory = "listener.127.0.0.1_0.server_ssl_socket_factory.ssl_context_update_by_sds";
    assert_eq!(server.stat(factory), 3);
    assert_eq!(server.stat("sds.default.update_rejected"), 0);
}

#[test]
fn a_bad_version_is_refused_whole_and_the_old_one_stays() {
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let file = directory.path().join("default.yaml");
    let roots = directory.path().join("ROOTCA.yaml");
    let (good, other) = (root.leaf("good", &["a.test"]), root.leaf("other", &["a.test"]));
    put(&file, &response("1", &certificate_secret("default", &good)));
    put(&roots, &response("1", &roots_secret("ROOTCA", &root.pem())));
    let server = server(directory.path());
    let mismatch = Leaf {
        chain: other.chain.clone(),
        key: good.key.clone(),
    };
    put(&file, &response("2", &certificate_secret("default", &mismatch)));
    let half = &root.pem()[..200];
    put(&roots, &response("2", &roots_secret("ROOTCA", half)));
    eventually("both are refused", || {
        let refused = |name| server.stat(&format!("sds.{name}.update_rejected")) == 1;
        (refused("default") && refused("ROOTCA")).then_some(())
    });
    let dump = server.admin("GET", "/config_dump?resource=dynamic_active_secrets");
    assert!(
        dump.contains("private_key does not belong to the first certificate"),
        "{dump}"
    );
    assert!(dump.contains("trusted_ca is not whole PEM"), "{dump}");
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let transport = upstream(
        &format!("{}, {}", identity.certificates(), root.validation("")),
        "",
    );
    let client = client(&Program::Lateen, &server, &transport, "");
    assert_eq!(get(client.listener("plain"), "GET", "a", "/").unwrap().0, 200);
    assert_eq!(lines(&server, "log", 1), ["CN=client CN=good"]);
}

#[test]
fn files_that_a_secret_names_are_read_again_when_they_change() {
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| directory.path().join(name);
    root.leaf("old", &["a.test"]).write(directory.path(), "a");
    put(
        &path("default.yaml"),
        &response(
            "1",
            &format!(
                "name: default, tls_certificate: {{ certificate_chain: {{ filename: {:?} }}, private_key: {{ filename: {:?} }} }}",
                path("a.pem"),
                path("a.key")
            ),
        ),
    );
    put(
        &path("ROOTCA.yaml"),
        &response("1", &roots_secret("ROOTCA", &root.pem())),
    );
    let server = server(directory.path());
    let serial = |certs: &str| {
        let at = certs.find("\"cert_chain\"").unwrap();
        certs[at..].split('"').nth(9).unwrap().to_owned()
    };
    let before = serial(&server.admin("GET", "/certs"));
    std::fs::write(path("a.key"), "half a key").unwrap();
    eventually("the change is refused", || {
        (server.stat("sds.default.key_rotation_failed") > 0).then_some(())
    });
    assert_eq!(serial(&server.admin("GET", "/certs")), before);
    root.leaf("new", &["a.test"]).write(directory.path(), "a");
    eventually("the change is taken", || {
        (serial(&server.admin("GET", "/certs")) != before).then_some(())
    });
}

#[test]
fn a_listener_and_a_cluster_go_on_without_a_secret_that_does_not_come() {
    for program in programs("a_listener_and_a_cluster_go_on_without_a_secret_that_does_not_come") {
        check_missing(&program);
    }
}

/// Both programs, where there is an Envoy.
fn programs(test: &str) -> Vec<Program> {
    [Some(Program::Lateen), crate::harness::program::envoy(test)]
        .into_iter()
        .flatten()
        .collect()
}

fn check_missing(program: &Program) {
    let service = "{ api_type: GRPC, transport_api_version: V3, grpc_services: [{ envoy_grpc: { cluster_name: sds-grpc } }] }";
    let missing = format!(
        "tls_certificate_sds_secret_configs: [{{ name: default, sds_config: {{ initial_fetch_timeout: 0.5s, \
         resource_api_version: V3, api_config_source: {service} }} }}]"
    );
    // Nobody listens there.
    let nobody = cluster("sds-grpc", "127.0.0.1:1".parse().unwrap());
    let log = access_log("failed", "%DOWNSTREAM_TRANSPORT_FAILURE_REASON% %RESPONSE_FLAGS%");
    let chain = format!("{}, filters: {}", downstream(&missing, ""), http_with(""));
    let app = cluster("app", reflecting_upstream());
    let server = program.start(secure_listener(&chain, &log), format!("{app}, {nobody}"));
    assert_eq!(server.stat("sds.default.init_fetch_timeout"), 1);
    drop(connect(server.listener("web")).unwrap());
    let said = "TLS_error:_Secret_is_not_supplied_by_SDS";
    assert_eq!(lines(&server, "failed", 1), [format!("{said} -")]);
    let not_ready = "listener.127.0.0.1_0.server_ssl_socket_factory.downstream_context_secrets_not_ready";
    assert_eq!(server.stat(not_ready), 1);

    let client = client(
        program,
        &server,
        &upstream(&missing, ""),
        &format!("}}, {}", nobody.strip_suffix('}').unwrap()),
    );
    assert_eq!(get(client.listener("plain"), "GET", "a", "/").unwrap().0, 503);
    let details = format!("upstream_reset_before_response_started{{remote_connection_failure|{said}}}");
    assert_eq!(lines(&client, "log", 1), [format!("503 UF - - {said} {details}")]);
    let not_ready = "cluster.app.client_ssl_socket_factory.upstream_context_secrets_not_ready";
    assert_eq!(client.stat(not_ready), 1);
}

/// A cluster behind a Unix socket that gRPC is spoken to.
pub(crate) fn agent(socket: &Path) -> String {
    format!(
        "{{ name: sds-grpc, connect_timeout: 1s, type: STATIC, load_assignment: {{ cluster_name: sds-grpc, endpoints: \
         [{{ lb_endpoints: [{{ endpoint: {{ address: {{ pipe: {{ path: {socket:?} }} }} }} }}] }}] }}, \
         typed_extension_protocol_options: {{ envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {{ \"@type\": \
         type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {{ \
         http2_protocol_options: {{}} }} }} }} }}"
    )
}

/// A reference as Istio's bootstrap and istiod write it.
pub(crate) fn from_agent(name: &str, api_type: &str) -> String {
    format!(
        "{{ name: {name}, sds_config: {{ initial_fetch_timeout: 0s, resource_api_version: V3, api_config_source: {{ \
         api_type: {api_type}, set_node_on_first_message_only: true, transport_api_version: V3, grpc_services: \
         [{{ envoy_grpc: {{ cluster_name: sds-grpc }} }}] }} }} }}"
    )
}

#[test]
fn an_agent_gives_out_secrets_on_its_socket_and_renews_them() {
    for program in programs("an_agent_gives_out_secrets_on_its_socket_and_renews_them") {
        for api_type in ["GRPC", "DELTA_GRPC"] {
            check_agent(&program, api_type);
        }
    }
}

/// Both proxies have one agent, so that both sides of a hop change their identity.
fn check_agent(program: &Program, api_type: &str) {
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let socket = directory.path().join("sds");
    let secrets = Secrets::start(&socket);
    let put = |name: &str| {
        let leaf = root.leaf(name, &["spiffe://td/workload"]);
        secrets.put(&format!("{{ {} }}", certificate_secret("default", &leaf)));
    };
    put("first");
    secrets.put(&format!("{{ {} }}", roots_secret("ROOTCA", &root.pem())));
    let common = format!(
        "tls_certificate_sds_secret_configs: [{}], combined_validation_context: {{ default_validation_context: {{ \
         match_typed_subject_alt_names: [{{ san_type: URI, matcher: {{ exact: \"spiffe://td/workload\" }} }}] }}, \
         validation_context_sds_secret_config: {} }}",
        from_agent("default", api_type),
        from_agent("ROOTCA", api_type)
    );
    let log = access_log("log", "%DOWNSTREAM_PEER_SUBJECT% %DOWNSTREAM_LOCAL_SUBJECT%");
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        http_with(&log)
    );
    let app = cluster("app", reflecting_upstream());
    let server = program.start(secure_listener(&chain, ""), format!("{app}, {}", agent(&socket)));
    let sds = agent(&socket);
    let more = format!("}}, {}", sds.strip_suffix('}').unwrap());
    let client = client(program, &server, &upstream(&common, ""), &more);
    let ask = |count: usize| {
        assert_eq!(get(client.listener("plain"), "GET", "a", "/").unwrap().0, 200);
        lines(&server, "log", count).pop().unwrap()
    };
    assert_eq!(ask(1), "CN=first CN=first");

    put("second");
    eventually("both have the second version", || {
        let has = |proxy: &Proxy| proxy.stat("sds.default.update_success") == 2;
        (has(&server) && has(&client)).then_some(())
    });
    assert_eq!(ask(2), "CN=first CN=first", "the connection goes on");
    assert_eq!(client.stat("cluster.app.upstream_cx_total"), 1);

    secrets.put("{ name: default, tls_certificate: { certificate_chain: { inline_string: none }, private_key: { inline_string: none } } }");
    eventually("both refuse the third version", || {
        (secrets.nacks().len() >= 2).then_some(())
    });
    assert_eq!(client.stat("sds.default.update_rejected"), 1);
    put("fourth");
    eventually("both have the fourth version", || {
        let has = |proxy: &Proxy| proxy.stat("sds.default.update_success") == 3;
        (has(&server) && has(&client)).then_some(())
    });
    let fresh = self::client(program, &server, &upstream(&common, ""), &more);
    assert_eq!(get(fresh.listener("plain"), "GET", "a", "/").unwrap().0, 200);
    assert_eq!(lines(&server, "log", 3)[2], "CN=fourth CN=fourth");
}

#[test]
fn secrets_over_ads_warm_listeners_and_clusters_and_refusals_are_told() {
    let root = Authority::new();
    let ads =
        |name: &str| format!("{{ name: {name}, sds_config: {{ ads: {{}}, resource_api_version: V3 }} }}");
    let common = format!(
        "tls_certificate_sds_secret_configs: [{}], combined_validation_context: {{ default_validation_context: {{}}, \
         validation_context_sds_secret_config: {} }}",
        ads("default"),
        ads("ROOTCA")
    );
    let discovery = Discovery::start();
    let proxy = Proxy::start(&discovery.bootstrap(), &["--concurrency", "1"]);
    let chain = format!(
        "{}, filters: {}",
        downstream(&common, ", require_client_certificate: true"),
        http_with("")
    );
    discovery.put(type_url::LISTENER, &secure_listener(&chain, ""));
    discovery.put(type_url::CLUSTER, &cluster("app", reflecting_upstream()));
    let warming = eventually("the secrets are asked for", || {
        let dump = proxy.admin("GET", "/config_dump?resource=dynamic_warming_secrets");
        (dump.matches("\"uninitialized\"").count() == 2).then_some(dump)
    });
    assert!(warming.contains("\"name\": \"ROOTCA\""), "{warming}");
    assert_eq!(proxy.admin("GET", "/listeners"), "");

    let good = root.leaf("server", &["a.test"]);
    discovery.put(
        type_url::SECRET,
        &format!("{{ {} }}", certificate_secret("default", &good)),
    );
    discovery.put(
        type_url::SECRET,
        &format!("{{ {} }}", roots_secret("ROOTCA", &root.pem())),
    );
    let address = proxy.listener("web");
    let identity = root.leaf("client", &["spiffe://td/client"]);
    let transport = upstream(
        &format!("{}, {}", identity.certificates(), root.validation("")),
        "",
    );
    let plain = Program::Lateen.start(
        listener("plain", &http_with("")),
        crate::world::secure_cluster(address, &transport, ""),
    );
    assert_eq!(get(plain.listener("plain"), "GET", "a", "/").unwrap().0, 200);

    let empty = "{ name: ROOTCA, validation_context: {} }";
    discovery.put(type_url::SECRET, empty);
    let nack = eventually("it is refused", || discovery.nacks().first().cloned());
    assert!(
        nack.contains("ROOTCA") && nack.contains("trusted_ca is empty"),
        "{nack}"
    );
    assert_eq!(get(plain.listener("plain"), "GET", "a", "/").unwrap().0, 200);
}

#[test]
fn no_page_and_no_log_has_a_key() {
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let (first, second) = (root.leaf("first", &["a.test"]), root.leaf("second", &["a.test"]));
    let fixed = root.leaf("fixed", &["b.test"]);
    let file = directory.path().join("default.yaml");
    put(&file, &response("1", &certificate_secret("default", &first)));
    put(
        &directory.path().join("ROOTCA.yaml"),
        &response("1", &roots_secret("ROOTCA", &root.pem())),
    );
    let chain = format!(
        "{}, filters: {}",
        downstream(&from_files(directory.path(), true, true), ""),
        http_with("")
    );
    let inline = format!(
        "{{ name: inline, address: {}, filter_chains: [{{ {}, filters: {} }}] }}",
        socket("127.0.0.1:0".parse().unwrap()),
        downstream(&fixed.certificates(), ""),
        http_with("")
    );
    let bootstrap = format!(
        "static_resources: {{ listeners: [{}, {inline}], clusters: [{}], secrets: [{{ {} }}] }}",
        secure_listener(&chain, ""),
        cluster("app", reflecting_upstream()),
        certificate_secret("kept", &fixed),
    );
    let log = directory.path().join("proxy.log");
    let proxy = Proxy::start(
        &bootstrap,
        &[
            "--concurrency",
            "1",
            "-l",
            "trace",
            "--log-path",
            log.to_str().unwrap(),
        ],
    );
    proxy.wait_live();
    let mismatch = Leaf {
        chain: first.chain.clone(),
        key: second.key.clone(),
    };
    put(&file, &response("2", &certificate_secret("default", &mismatch)));
    eventually("it is refused", || {
        (proxy.stat("sds.default.update_rejected") == 1).then_some(())
    });
    put(&file, &response("3", "half: \"of a file"));
    eventually("it is refused", || {
        (proxy.stat("sds.default.update_failure") == 1).then_some(())
    });
    let keys: Vec<String> = [&first, &second, &fixed]
        .iter()
        .flat_map(|leaf| {
            leaf.key
                .lines()
                .filter(|line| !line.starts_with('-'))
                .map(str::to_owned)
        })
        .collect();
    assert!(keys.len() >= 6 && keys.iter().all(|line| line.len() >= 20));
    let mut said = std::fs::read_to_string(&log).unwrap();
    let help = proxy.admin("GET", "/help");
    let pages = help
        .lines()
        .filter_map(|line| line.trim().strip_prefix('/')?.split([':', ' ']).next());
    for page in pages.filter(|page| !["quitquitquit", "logging"].contains(page)) {
        said += &proxy.admin("GET", &format!("/{page}"));
    }
    said += &proxy.admin("GET", "/config_dump?include_eds");
    said += &proxy.admin("GET", "/stats?format=prometheus");
    assert!(said.contains("[redacted]") && said.contains("a secret is refused"));
    for line in keys {
        assert!(!said.contains(&line), "a line of a key is told");
    }
}

/// A page of the admin interface as data, without the moments at which something happened.
fn page(proxy: &Proxy, path: &str) -> serde_json::Value {
    fn forget_times(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.remove("last_updated");
                fields.values_mut().for_each(forget_times);
            }
            serde_json::Value::Array(items) => {
                items.iter_mut().for_each(forget_times);
                items.sort_by_key(ToString::to_string);
            }
            _ => {}
        }
    }
    let mut found = serde_json::from_str(&proxy.admin("GET", path)).unwrap();
    forget_times(&mut found);
    found
}

#[test]
fn the_admin_interface_tells_of_secrets_what_envoys_tells() {
    let both = programs("the_admin_interface_tells_of_secrets_what_envoys_tells");
    let (root, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let path = |name: &str| directory.path().join(name);
    root.leaf("file", &["b.test"]).write(directory.path(), "file");
    std::fs::write(path("root.pem"), root.pem()).unwrap();
    let leaf = root.leaf("server", &["a.test", "spiffe://td/server"]);
    put(
        &path("default.yaml"),
        &response("one", &certificate_secret("default", &leaf)),
    );
    let roots = format!(
        "name: ROOTCA, validation_context: {{ trusted_ca: {{ filename: {:?} }} }}",
        path("root.pem")
    );
    put(&path("ROOTCA.yaml"), &response("one", &roots));
    let pair = format!(
        "certificate_chain: {{ filename: {:?} }}, private_key: {{ filename: {:?} }}",
        path("file.pem"),
        path("file.key")
    );
    let secret = format!("name: pair, tls_certificate: {{ {pair} }}");
    put(&path("pair.yaml"), &response("one", &secret));
    let from_pair = format!(
        "tls_certificate_sds_secret_configs: [{{ name: pair, sds_config: {{ path_config_source: {{ path: {:?} }} }} }}]",
        path("pair.yaml")
    );
    let nobody = cluster("sds-grpc", "127.0.0.1:1".parse().unwrap());
    let missing = "tls_certificate_sds_secret_configs: [{ name: missing, sds_config: { initial_fetch_timeout: 0.2s, \
                   resource_api_version: V3, api_config_source: { api_type: GRPC, transport_api_version: V3, \
                   grpc_services: [{ envoy_grpc: { cluster_name: sds-grpc } }] } } }]";
    let files = format!(
        "tls_certificates: [{{ {pair} }}], validation_context: {{ trusted_ca: {{ filename: {:?} }} }}",
        path("root.pem")
    );
    let secure = |name: &str, common: &str| {
        let fields = format!("{}, filters: {}", downstream(common, ""), http_with(""));
        let address = socket("127.0.0.1:0".parse().unwrap());
        format!(
            "{{ name: {name}, stat_prefix: {name}, address: {address}, filter_chains: [{{ {fields} }}] }}"
        )
    };
    let listeners = [
        secure("sds", &from_files(directory.path(), true, true)),
        secure("files", &files),
        secure("pair", &from_pair),
        secure("missing", missing),
    ];
    let app = cluster("app", reflecting_upstream());
    let told = both.iter().map(|program| {
        let proxy = program.start(listeners.join(", "), format!("{app}, {nobody}"));
        eventually("the first secrets are there", || {
            (proxy.stat("sds.ROOTCA.update_success") == 1).then_some(())
        });
        let pages = [
            "/certs",
            "/config_dump?resource=dynamic_active_secrets",
            "/config_dump?resource=dynamic_warming_secrets",
        ];
        let pages = pages.map(|path| page(&proxy, path));
        let stats = [
            "sds.default.version",
            "sds.default.update_attempt",
            "sds.missing.init_fetch_timeout",
            "listener.sds.server_ssl_socket_factory.ssl_context_update_by_sds",
            "listener.pair.server_ssl_socket_factory.ssl_context_update_by_sds",
            "server.days_until_first_cert_expiring",
            "listener.sds.ssl.certificate.default.expiration_unix_time_seconds",
            "listener.sds.ssl.certificate.ROOTCA.expiration_unix_time_seconds",
            "listener.pair.ssl.certificate.pair.expiration_unix_time_seconds",
            "listener.files.ssl.certificate.unnamed_cert_e3b0c442.expiration_unix_time_seconds",
            "listener.files.ssl.certificate.unnamed_ca_cert_e3b0c442.expiration_unix_time_seconds",
        ];
        (pages, stats.map(|stat| (stat, proxy.stat(stat))))
    });
    let told: Vec<_> = told.collect();
    let ([certs, active, warming], stats) = &told[0];
    assert_eq!(certs["certificates"].as_array().unwrap().len(), 3);
    assert_eq!(active["configs"].as_array().unwrap().len(), 3);
    assert_eq!(warming["configs"].as_array().unwrap().len(), 1);
    assert!(stats.iter().all(|(_, value)| *value > 0), "{stats:?}");
    for other in &told[1..] {
        assert_eq!(&told[0], other);
    }
}
