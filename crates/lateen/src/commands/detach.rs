//! `--detach`: the command goes on in the background, in a session of its own, and this process ends when it is ready.

use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::Context as _;

use crate::cli::OutputFormat;
use crate::limits::{CONTROL_PLANE_POLL, DETACH_TIMEOUT};
use crate::output;
use crate::state::{Home, MeshRecord};

/// Starts this program again, told to stay attached, and waits until its mesh is ready.
pub(super) fn run(home: &Home, command: &str, format: OutputFormat) -> anyhow::Result<ExitCode> {
    home.require_none()?;
    home.create()?;
    let _reservation = home.reserve_background()?;
    let log = home.log(command);
    let mut child = start(&log)?;
    let mesh = wait(home, &mut child, &log)?;
    if format == OutputFormat::Json {
        output::line(&format!("{:#}", mesh.summary));
        return Ok(ExitCode::SUCCESS);
    }
    // Steps and summary are what the background process printed.
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    for line in text.lines() {
        output::line(line);
    }
    output::hint("  running in the background; `lateen down` ends it");
    Ok(ExitCode::SUCCESS)
}

fn start(log: &std::path::Path) -> anyhow::Result<Child> {
    let context = || format!("write {}", log.display());
    // Emptied, then appended to: what writes by way of /dev/stdout has a position of its own and must not write over
    // what others wrote.
    std::fs::File::create(log).with_context(context)?;
    let output = std::fs::File::options().append(true).open(log);
    let output = output.with_context(context)?;
    let mut child = Command::new(std::env::current_exe()?);
    child
        .args(std::env::args_os().skip(1))
        .arg("--attached")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    net::process::new_session(&mut child);
    child.spawn().context("start in the background")
}

fn wait(home: &Home, child: &mut Child, log: &std::path::Path) -> anyhow::Result<MeshRecord> {
    let started = Instant::now();
    loop {
        let own = |mesh: &MeshRecord| mesh.ready && mesh.supervisor.pid == child.id();
        if let Some(mesh) = home.mesh().filter(own) {
            return Ok(mesh);
        }
        if let Some(status) = child.try_wait()? {
            let text = std::fs::read_to_string(log).unwrap_or_default();
            anyhow::bail!("it ended before it was ready ({status}):\n{}", text.trim_end());
        }
        if started.elapsed() > DETACH_TIMEOUT {
            anyhow::bail!(
                "not ready after {DETACH_TIMEOUT:?}; see {}, and end it with `lateen down`",
                log.display()
            );
        }
        std::thread::sleep(CONTROL_PLANE_POLL);
    }
}
