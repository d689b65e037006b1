//! kill -9 in the middle of writing: everything that was acknowledged is there afterwards.

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use control_apiserver::{ApiServer, Config, Handle};
use support::{CONFIG_MAPS, PATIENCE, Server, config_map};

/// Names the state directory for the child; without it the child test does nothing.
const DIRECTORY: &str = "LATEEN_CRASH_TEST_DIRECTORY";
/// Begins the lines in which the child acknowledges a write.
const ACKNOWLEDGED: &str = "acknowledged ";
/// Writes after which the child is killed.
const WRITES: usize = 60;

async fn open(directory: &Path) -> Handle {
    let config = Config {
        custom_resource_definitions: Vec::new(),
        ..Config::new(directory)
    };
    ApiServer::start(config).await.unwrap()
}

/// Not a test of its own: the process that is killed. It writes until then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[allow(clippy::print_stdout, reason = "the parent process reads it")]
async fn child_that_writes_until_it_is_killed() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let server = Server {
        handle: open(Path::new(&directory)).await,
        directory: tempfile::tempdir().unwrap(),
    };
    for round in 0.. {
        let names = [format!("a{round}"), format!("b{round}"), format!("c{round}")];
        let maps = names.clone().map(|name| config_map(&name));
        let writes = maps.iter().map(|map| server.post(CONFIG_MAPS, map));
        for (answer, name) in futures::future::join_all(writes).await.into_iter().zip(&names) {
            answer.ok();
            println!("{ACKNOWLEDGED}{name}");
        }
    }
}

/// A child that does not outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, &state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Killed(child);
    let output = BufReader::new(child.0.stdout.take().unwrap());
    let (sender, lines) = mpsc::sync_channel(WRITES);
    std::thread::spawn(move || {
        for line in output.lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    let mut acknowledged = Vec::new();
    // After the kill the pipe gives what it still holds, and then its end.
    while let Ok(line) = lines.recv_timeout(PATIENCE) {
        if let Some(name) = line.strip_prefix(ACKNOWLEDGED) {
            acknowledged.push(name.to_owned());
        }
        if acknowledged.len() == WRITES {
            child.0.kill().unwrap();
        }
    }
    drop(child);
    assert!(acknowledged.len() >= WRITES);

    let server = Server {
        handle: open(&state).await,
        directory,
    };
    for name in &acknowledged {
        assert_eq!(
            server.get(&format!("{CONFIG_MAPS}/{name}")).await.code,
            200,
            "{name} was acknowledged and is lost"
        );
    }
    server.post(CONFIG_MAPS, &config_map("afterwards")).await.ok();
}
