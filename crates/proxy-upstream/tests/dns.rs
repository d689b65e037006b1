//! DNS clusters, in paused time and against a resolver that the test scripts.

mod support;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_upstream::dns::{Answer, Resolve, ResolveFuture, run};
use proxy_upstream::{Assignment, ClusterConfig};
use telemetry::stats::Registry;

#[derive(Default)]
struct Script {
    answers: Mutex<HashMap<String, Option<Answer>>>,
    lookups: Mutex<Vec<String>>,
}

impl Script {
    fn set(&self, name: &str, addresses: Option<&[&str]>) {
        let addresses = addresses.map(|list| list.iter().map(|a| a.parse::<IpAddr>().unwrap()).collect());
        let answer = addresses.map(|addresses| Answer { addresses, ttl: None });
        self.answers.lock().unwrap().insert(name.to_owned(), answer);
    }

    fn lookups(&self) -> usize {
        self.lookups.lock().unwrap().len()
    }
}

impl Resolve for Script {
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a> {
        self.lookups.lock().unwrap().push(name.to_owned());
        let answer = self.answers.lock().unwrap().get(name).cloned().flatten();
        Box::pin(async move { answer.ok_or_else(|| std::io::Error::other("no such name")) })
    }
}

struct Running {
    script: Arc<Script>,
    published: Arc<Mutex<Vec<Arc<Assignment>>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn start(kind: &str, names: &[&str], fields: &str, script: Script) -> Self {
        let hosts = names.iter().map(|name| {
            format!(
                "{{ endpoint: {{ address: {{ socket_address: {{ address: {name}, port_value: 80 }} }} }} }}"
            )
        });
        let yaml = format!(
            "type: {kind}\ndns_refresh_rate: 60s\n{fields}\nload_assignment: {{ endpoints: [{{ lb_endpoints: [{}] }}] }}",
            hosts.collect::<Vec<_>>().join(", ")
        );
        let config: Arc<ClusterConfig> = Arc::new(support::config(&yaml, &Registry::new()).unwrap());
        let (script, published) = (Arc::new(script), Arc::new(Mutex::new(Vec::new())));
        let sink = Arc::clone(&published);
        let resolver: Arc<dyn Resolve> = Arc::clone(&script) as Arc<dyn Resolve>;
        let task = tokio::spawn(run(config, resolver, || 0, move |a| sink.lock().unwrap().push(a)));
        Self {
            script,
            published,
            _task: task,
        }
    }

    async fn after(&self, seconds: u64) -> Vec<Vec<String>> {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let all = self.published.lock().unwrap();
        all.iter()
            .map(|a| a.hosts().map(|h| h.address.to_string()).collect())
            .collect()
    }
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn strict_dns_uses_every_address_and_follows_changes() {
    let script = Script::default();
    script.set("a.test", Some(&["10.0.0.1", "10.0.0.2"]));
    let running = Running::start("STRICT_DNS", &["a.test", "10.9.9.9"], "", script);
    assert_eq!(
        running.after(1).await,
        [["10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:80"]]
    );
    running.script.set("a.test", Some(&["10.0.0.2"]));
    assert_eq!(running.after(60).await[1..], [["10.0.0.2:80", "10.9.9.9:80"]]);
    assert_eq!(
        running.after(600).await.len(),
        2,
        "nothing is published without a change"
    );
    assert_eq!(running.script.lookups(), 12);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_failed_lookup_keeps_the_last_addresses_and_is_repeated_sooner() {
    let script = Script::default();
    script.set("a.test", Some(&["10.0.0.1"]));
    let fields = "dns_failure_refresh_rate: { base_interval: 2s, max_interval: 10s }";
    let running = Running::start("STRICT_DNS", &["a.test"], fields, script);
    running.after(1).await;
    running.script.set("a.test", None);
    assert_eq!(running.after(60).await, [["10.0.0.1:80"]]);
    let failed = running.script.lookups();
    running.after(4).await;
    assert!(
        running.script.lookups() >= failed + 2,
        "{} after {failed}",
        running.script.lookups()
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_cluster_whose_name_does_not_resolve_is_published_without_hosts() {
    let running = Running::start("STRICT_DNS", &["none.test"], "", Script::default());
    assert_eq!(running.after(1).await, [Vec::<String>::new()]);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn logical_dns_is_one_host_at_the_first_address() {
    let script = Script::default();
    script.set("a.test", Some(&["10.0.0.1", "10.0.0.2"]));
    let running = Running::start("LOGICAL_DNS", &["a.test"], "", script);
    assert_eq!(running.after(1).await, [["10.0.0.1:80"]]);
    running.script.set("a.test", Some(&["10.0.0.2"]));
    assert_eq!(running.after(60).await[1..], [["10.0.0.2:80"]]);
    let all = running.published.lock().unwrap();
    let keys: Vec<_> = all
        .iter()
        .map(|a| a.hosts().next().unwrap().key.to_string())
        .collect();
    assert_eq!(keys, ["a.test:80", "a.test:80"], "it stays the same host");
}
