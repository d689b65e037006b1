//! DNS clusters, in paused time and against a resolver that the test scripts.

mod support;

use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proxy_upstream::dns::{Answer, Resolve, ResolveFuture, Turns, run};
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
    published: Arc<Mutex<Vec<Arc<Assignment>>>>,
    _task: tokio::task::JoinHandle<()>,
}

impl Running {
    fn over(kind: &str, names: &[&str], fields: &str, resolver: Arc<dyn Resolve>) -> Self {
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
        let published = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&published);
        let task = tokio::spawn(run(config, resolver, || 0, move |a| sink.lock().unwrap().push(a)));
        Self {
            published,
            _task: task,
        }
    }

    fn start(kind: &str, names: &[&str], fields: &str, script: &Arc<Script>) -> Self {
        Self::over(kind, names, fields, Arc::clone(script) as Arc<dyn Resolve>)
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
    let script = Arc::new(Script::default());
    script.set("a.test", Some(&["10.0.0.1", "10.0.0.2"]));
    let running = Running::start("STRICT_DNS", &["a.test", "10.9.9.9"], "", &script);
    assert_eq!(
        running.after(1).await,
        [["10.0.0.1:80", "10.0.0.2:80", "10.9.9.9:80"]]
    );
    script.set("a.test", Some(&["10.0.0.2"]));
    assert_eq!(running.after(60).await[1..], [["10.0.0.2:80", "10.9.9.9:80"]]);
    assert_eq!(
        running.after(600).await.len(),
        2,
        "nothing is published without a change"
    );
    assert_eq!(script.lookups(), 12);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_failed_lookup_keeps_the_last_addresses_and_is_repeated_sooner() {
    let script = Arc::new(Script::default());
    script.set("a.test", Some(&["10.0.0.1"]));
    let fields = "dns_failure_refresh_rate: { base_interval: 2s, max_interval: 10s }";
    let running = Running::start("STRICT_DNS", &["a.test"], fields, &script);
    running.after(1).await;
    script.set("a.test", None);
    assert_eq!(running.after(60).await, [["10.0.0.1:80"]]);
    let failed = script.lookups();
    running.after(4).await;
    assert!(
        script.lookups() >= failed + 2,
        "{} after {failed}",
        script.lookups()
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_cluster_whose_name_does_not_resolve_is_published_without_hosts() {
    let running = Running::start("STRICT_DNS", &["none.test"], "", &Arc::default());
    assert_eq!(running.after(1).await, [Vec::<String>::new()]);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn logical_dns_is_one_host_at_the_first_address() {
    let script = Arc::new(Script::default());
    script.set("a.test", Some(&["10.0.0.1", "10.0.0.2"]));
    let running = Running::start("LOGICAL_DNS", &["a.test"], "", &script);
    assert_eq!(running.after(1).await, [["10.0.0.1:80"]]);
    script.set("a.test", Some(&["10.0.0.2"]));
    assert_eq!(running.after(60).await[1..], [["10.0.0.2:80"]]);
    let all = running.published.lock().unwrap();
    let keys: Vec<_> = all
        .iter()
        .map(|a| a.hosts().next().unwrap().key.to_string())
        .collect();
    assert_eq!(keys, ["a.test:80", "a.test:80"], "it stays the same host");
}

/// A resolver some of whose names never answer, or do so after a while.
#[derive(Default)]
struct Sluggish {
    takes: HashMap<String, Duration>,
    running: Mutex<HashMap<String, usize>>,
    asked: Mutex<Vec<String>>,
    most: AtomicUsize,
}

impl Sluggish {
    fn running(&self) -> usize {
        self.running.lock().unwrap().values().sum()
    }

    fn times_asked(&self, name: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == name).count()
    }
}

impl Resolve for Sluggish {
    fn resolve<'a>(&'a self, name: &'a str) -> ResolveFuture<'a> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(name.to_owned());
            *self.running.lock().unwrap().entry(name.to_owned()).or_default() += 1;
            let now = self.running();
            self.most.fetch_max(now, Ordering::Relaxed);
            match self.takes.get(name) {
                Some(time) => tokio::time::sleep(*time).await,
                None if name.starts_with("never") => std::future::pending().await,
                None => {}
            }
            *self.running.lock().unwrap().get_mut(name).unwrap() -= 1;
            let addresses = vec!["10.0.0.1".parse().unwrap()];
            Ok(Answer { addresses, ttl: None })
        })
    }
}

/// More than may be looked up at once.
const MANY: usize = 256;

async fn in_time<T>(future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(Duration::from_secs(60), future).await.ok()
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_name_that_does_not_answer_is_looked_up_once_however_often_it_is_asked_for() {
    let sluggish = Arc::new(Sluggish::default());
    let turns = Turns::new(Arc::clone(&sluggish) as Arc<dyn Resolve>);
    for _ in 0..5 {
        assert!(in_time(turns.resolve("never.test")).await.is_none());
    }
    assert_eq!(sluggish.times_asked("never.test"), 1);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn names_that_never_answer_leave_room_for_those_that_do() {
    let sluggish = Arc::new(Sluggish::default());
    let turns = Turns::new(Arc::clone(&sluggish) as Arc<dyn Resolve>);
    in_time(turns.resolve("known.test")).await.unwrap().unwrap();
    let dead: Vec<_> = (0..MANY)
        .map(|number| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.resolve(&format!("never{number}.test")).await })
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(
        in_time(turns.resolve("known.test")).await.is_some(),
        "it is not kept waiting"
    );
    assert!(sluggish.most.load(Ordering::Relaxed) < MANY / 4);
    dead.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn names_that_were_slow_leave_room_for_new_ones() {
    let takes = |number| (format!("slow{number}.test"), Duration::from_secs(10));
    let sluggish = Arc::new(Sluggish {
        takes: (0..MANY).map(takes).collect(),
        ..Sluggish::default()
    });
    let turns = Turns::new(Arc::clone(&sluggish) as Arc<dyn Resolve>);
    let ask_all = || {
        let asked = (0..MANY).map(|number| {
            let turns = turns.clone();
            tokio::spawn(async move { turns.resolve(&format!("slow{number}.test")).await })
        });
        asked.collect::<Vec<_>>()
    };
    for asked in ask_all() {
        asked.await.unwrap().unwrap();
    }
    let again = ask_all();
    tokio::task::yield_now().await;
    let before = tokio::time::Instant::now();
    assert!(in_time(turns.resolve("new.test")).await.is_some());
    assert_eq!(before.elapsed(), Duration::ZERO, "it is not kept waiting");
    assert!(sluggish.running() > 0, "the others are still being looked up");
    again.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn who_asks_for_a_name_that_another_gave_up_is_answered() {
    let takes = [("slow.test".to_owned(), Duration::from_secs(30))].into();
    let turns = Turns::new(Arc::new(Sluggish {
        takes,
        ..Sluggish::default()
    }));
    let short = tokio::time::timeout(Duration::from_secs(10), turns.resolve("slow.test"));
    assert!(short.await.is_err());
    assert!(in_time(turns.resolve("slow.test")).await.unwrap().is_ok());
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn a_cluster_goes_on_without_a_late_answer_and_takes_it_when_it_comes() {
    let sluggish = Arc::new(Sluggish {
        takes: [("late.test".to_owned(), Duration::from_secs(40))].into(),
        ..Sluggish::default()
    });
    let running = Running::over(
        "STRICT_DNS",
        &["late.test", "10.9.9.9"],
        "",
        Arc::clone(&sluggish) as Arc<dyn Resolve>,
    );
    assert_eq!(
        running.after(21).await,
        [["10.9.9.9:80"]],
        "it is not waited for any longer"
    );
    let both = running.after(20).await;
    assert_eq!(both[1..], [["10.0.0.1:80", "10.9.9.9:80"]]);
    assert_eq!(sluggish.times_asked("late.test"), 1);
}
