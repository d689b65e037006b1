//! A demo for tests: its own home folder, its own ports, gone when dropped.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub(crate) mod cases;
pub(crate) mod shop;

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

/// How long a command may take that is to end by itself; a demo on a busy machine takes some seconds.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(120);

/// A running demo.
pub(crate) struct Mesh {
    home: tempfile::TempDir,
    kubectl: PathBuf,
    /// What stands before the program: it runs in what these commands make.
    wrapper: Vec<OsString>,
    /// Flags of the demo beyond those that tests need.
    flags: Vec<&'static str>,
    facts: Value,
}

/// Tries until it holds.
pub(crate) fn within(limit: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    let mut last = None;
    while Instant::now() < end {
        match holds() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => last = Some(error),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    match last {
        Some(error) => Err(error.context(format!("not within {limit:?}"))),
        None => bail!("not within {limit:?}"),
    }
}

/// Whether a process runs (zombies do not).
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty()
        && !stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .trim_start()
            .starts_with('Z')
}

impl Mesh {
    /// Starts `lateen demo --detach` with more flags in a home of its own.
    pub(crate) fn start(flags: &[&'static str]) -> Result<Self> {
        Self::start_in(&[], flags)
    }

    /// The same, where every command of the mesh runs by way of a wrapper.
    pub(crate) fn start_in(wrapper: &[&str], flags: &[&'static str]) -> Result<Self> {
        let kubectl = std::env::var_os("LATEEN_KUBECTL")
            .context("LATEEN_KUBECTL does not name a kubectl")?
            .into();
        let mut mesh = Self {
            home: tempfile::tempdir()?,
            kubectl,
            wrapper: wrapper.iter().map(OsString::from).collect(),
            flags: flags.to_vec(),
            facts: Value::Null,
        };
        mesh.restart()?;
        Ok(mesh)
    }

    /// Starts the demo in the same home.
    pub(crate) fn restart(&mut self) -> Result<()> {
        let mut command = self.command();
        command
            .args(["demo", "--detach", "--output", "json"])
            .args(&self.flags);
        let text = finish(&mut command, &[0])?;
        self.facts = serde_json::from_str(&text).with_context(|| format!("demo printed {text}"))?;
        Ok(())
    }

    fn command(&self) -> Command {
        let program = OsString::from(env!("CARGO_BIN_EXE_lateen"));
        let mut words = self.wrapper.iter().chain([&program]);
        let mut command = Command::new(words.next().expect("there is the program"));
        command
            .args(words)
            .env("LATEEN_HOME", self.home.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs a lateen command and returns what it printed.
    pub(crate) fn lateen(&self, arguments: &[&str]) -> Result<String> {
        self.lateen_codes(arguments, &[0])
    }

    /// The same, for commands that are to end with another code.
    pub(crate) fn lateen_codes(&self, arguments: &[&str], codes: &[i32]) -> Result<String> {
        finish(self.command().args(arguments), codes)
    }

    /// Starts `lateen run` with the application's command.
    pub(crate) fn run(&self, flags: &[&str], application: &[&str]) -> Result<Background> {
        let mut command = self.command();
        command.arg("run").args(flags).arg("--").args(application);
        Background::start(&mut command)
    }

    /// Starts a lateen command that goes on until it is told to end.
    pub(crate) fn background(&self, arguments: &[&str]) -> Result<Background> {
        Background::start(self.command().args(arguments))
    }

    /// The same with another home, `stderr` in which is what it says.
    pub(crate) fn background_in(&self, home: &std::path::Path, arguments: &[&str]) -> Result<Background> {
        std::fs::create_dir_all(home)?;
        let errors = std::fs::File::create(home.join("stderr"))?;
        Background::start_with(
            self.command().args(arguments).env("LATEEN_HOME", home),
            errors.into(),
        )
    }

    /// The folder of the mesh.
    pub(crate) fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Runs kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_env(arguments, &[])
    }

    /// Runs kubectl with environment variables.
    pub(crate) fn kubectl_env(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
        let mut command = self.kubectl_command()?;
        finish(command.args(arguments).envs(environment.iter().copied()), &[0])
    }

    /// Runs kubectl with text on its standard input; `codes` are exit codes that count as success beside 0.
    pub(crate) fn kubectl_stdin(&self, arguments: &[&str], text: &str, codes: &[i32]) -> Result<String> {
        let mut command = self.kubectl_command()?;
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        command.args(arguments).stdin(file.reopen()?);
        let mut accepted = vec![0];
        accepted.extend(codes);
        finish(&mut command, &accepted)
    }

    /// `kubectl apply` of a text.
    pub(crate) fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl_stdin(&["apply", "-f", "-"], yaml, &[]).map(drop)
    }

    /// Applies a text that must be refused; returns kubectl's message.
    pub(crate) fn refused(&self, yaml: &str) -> Result<String> {
        match self.apply(yaml) {
            Ok(()) => bail!("was accepted:\n{yaml}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }

    /// Starts a kubectl that goes on printing.
    pub(crate) fn watch(&self, arguments: &[&str]) -> Result<Background> {
        Background::start(self.kubectl_command()?.args(arguments))
    }

    fn kubectl_command(&self) -> Result<Command> {
        let config = self.facts["kubeconfig"]
            .as_str()
            .context("the demo told no kubeconfig")?;
        let mut command = Command::new(&self.kubectl);
        command
            .env("KUBECONFIG", config)
            .env("HOME", self.home.path())
            .stdin(Stdio::null());
        Ok(command)
    }

    /// What the demo told when it was ready.
    pub(crate) fn facts(&self) -> &Value {
        &self.facts
    }

    /// The shop's page as a user sees it; an error for any status but 200.
    pub(crate) fn shop(&self, user: Option<&str>) -> Result<String> {
        let user = user
            .map(|u| format!("end-user: {u}\r\ncookie: user={u}; session={u}\r\n"))
            .unwrap_or_default();
        self.shop_path("/productpage", &user)
    }

    /// Another path of the shop, asked with these header lines.
    pub(crate) fn shop_path(&self, path: &str, headers: &str) -> Result<String> {
        get(
            self.facts["shop"].as_str().context("the demo told no shop")?,
            path,
            headers,
        )
    }

    /// A page of a sidecar's administration.
    pub(crate) fn admin(&self, workload: &str, path: &str) -> Result<String> {
        let list: Value = serde_json::from_str(&self.lateen(&["ps", "--output", "json"])?)?;
        let rows = list["workloads"].as_array().context("ps lists no workloads")?;
        let row = rows.iter().find(|row| row["name"] == workload);
        let url = row.and_then(|row| row["admin"].as_str());
        get(url.with_context(|| format!("no {workload} in {list}"))?, path, "")
    }

    /// The pids of everything that runs, the supervisor included.
    pub(crate) fn processes(&self) -> Result<Vec<u32>> {
        let list = self.lateen(&["ps", "--output", "json"])?;
        let list: Value = serde_json::from_str(&list)?;
        let mut pids = Vec::new();
        collect_pids(&list, &mut pids);
        ensure!(!pids.is_empty(), "ps lists nothing: {list}");
        Ok(pids)
    }

    /// The demo's own process.
    pub(crate) fn supervisor(&self) -> Result<u32> {
        let pid = self.facts["pid"].as_u64().context("the demo told no pid")?;
        Ok(u32::try_from(pid)?)
    }

    /// The pid of one part (`app`, `sidecar`, …) of a process group that `ps` lists by name.
    pub(crate) fn pid_of(&self, name: &str, part: &str) -> Result<u32> {
        let list: Value = serde_json::from_str(&self.lateen(&["ps", "--output", "json"])?)?;
        let rows = list["processes"].as_array().context("ps lists no processes")?;
        let row = rows.iter().find(|r| {
            r["name"].as_str().is_some_and(|n| n.starts_with(name)) && r["role"].as_str() == Some(part)
        });
        let pid = row
            .and_then(|r| r["pid"].as_u64())
            .with_context(|| format!("no {part} of {name} in {list}"))?;
        Ok(u32::try_from(pid)?)
    }

    /// Kill -9 of a process of this mesh.
    pub(crate) fn kill(&self, pid: u32) -> Result<()> {
        ensure!(alive(pid), "process {pid} does not run");
        finish(Command::new("kill").arg("-9").arg(pid.to_string()), &[0]).map(drop)
    }

    /// The last lines of every log, for a failed run.
    pub(crate) fn print_logs(&self) {
        let Ok(entries) = std::fs::read_dir(self.home.path().join("logs")) else {
            return;
        };
        for entry in entries.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            println!("--- {}", entry.path().display());
            lines
                .iter()
                .skip(lines.len().saturating_sub(10))
                .for_each(|l| println!("{l}"));
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.lateen(&["down"]);
    }
}

/// Gets a path from the server of a URL; an error for any status but 200.
fn get(url: &str, path: &str, headers: &str) -> Result<String> {
    let server = url.trim_start_matches("http://");
    let authority = server.split('/').next().unwrap_or_default();
    let mut stream = TcpStream::connect(authority)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {authority}\r\n{headers}connection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "{url} answered {}",
        answer.lines().next().unwrap_or("nothing")
    );
    Ok(answer)
}

fn collect_pids(value: &Value, into: &mut Vec<u32>) {
    match value {
        Value::Object(map) => {
            into.extend(
                map.get("pid")
                    .and_then(Value::as_u64)
                    .and_then(|p| u32::try_from(p).ok()),
            );
            map.values().for_each(|v| collect_pids(v, into));
        }
        Value::Array(items) => items.iter().for_each(|v| collect_pids(v, into)),
        _ => {}
    }
}

/// Runs a command to its end, within bounds. Its output goes to files, since nobody reads while it runs.
fn finish(command: &mut Command, codes: &[i32]) -> Result<String> {
    let (mut output, mut errors) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command.stdout(output.try_clone()?).stderr(errors.try_clone()?);
    let mut child = command.spawn().with_context(|| format!("start {command:?}"))?;
    let ended = within(COMMAND_TIMEOUT, || Ok(child.try_wait()?.is_some()));
    if ended.is_err() {
        child.kill()?;
    }
    let status = child.wait()?;
    let text = read_whole(&mut output)?;
    if ended.is_err() || !status.code().is_some_and(|c| codes.contains(&c)) {
        bail!("{command:?}: {status} {text}{}", read_whole(&mut errors)?);
    }
    Ok(text)
}

fn read_whole(file: &mut std::fs::File) -> Result<String> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A program that goes on, whose lines are collected.
pub(crate) struct Background {
    child: Child,
    lines: Receiver<String>,
}

impl Background {
    fn start(command: &mut Command) -> Result<Self> {
        Self::start_with(command, Stdio::inherit())
    }

    fn start_with(command: &mut Command, errors: Stdio) -> Result<Self> {
        let mut child = command.stdout(Stdio::piped()).stderr(errors).spawn()?;
        let output = BufReader::new(child.stdout.take().context("no output")?);
        let (sender, lines) = sync_channel(1024);
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { child, lines })
    }

    /// The next line that it prints.
    pub(crate) fn line(&self, limit: Duration) -> Result<String> {
        let line = self.lines.recv_timeout(limit);
        line.with_context(|| format!("nothing was printed within {limit:?}"))
    }

    /// Waits for its end, which is to be a good one.
    pub(crate) fn ended(&mut self, limit: Duration) -> Result<()> {
        within(limit, || match self.child.try_wait()? {
            Some(status) if !status.success() => bail!("it ended with {status}"),
            ended => Ok(ended.is_some()),
        })
    }

    /// Waits for a line that contains a text.
    pub(crate) fn expect(&self, text: &str, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        let mut seen = Vec::new();
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(text) => return Ok(()),
                Ok(line) => seen.push(line),
                Err(_) => break,
            }
        }
        bail!("{text:?} was not printed within {limit:?}, only {seen:?}")
    }

    /// SIGTERM, then waits for its end.
    pub(crate) fn terminate(&mut self) -> Result<()> {
        finish(Command::new("kill").arg(self.child.id().to_string()), &[0])?;
        within(Duration::from_secs(15), || Ok(self.child.try_wait()?.is_some()))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
