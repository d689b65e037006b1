//! Runs many pages, each in a process of its own, and adds up.

use std::collections::VecDeque;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde::de::DeserializeOwned;

use crate::DataPlane;
use crate::limits::{CONCURRENT_PAGES, PAGE_TIME};
use crate::page::Page;
use crate::play::Report;

/// What came of all pages.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Pages by slug, in order.
    pub pages: Vec<(String, Report, Duration)>,
}

impl Summary {
    /// Pages without a problem.
    pub fn passed(&self) -> usize {
        self.pages
            .iter()
            .filter(|(_, report, _)| report.problems.is_empty())
            .count()
    }

    /// Pages with one.
    pub fn failed(&self) -> usize {
        self.pages.len() - self.passed()
    }
}

/// The pages of a folder, by slug; all when `filter` is empty.
///
/// # Errors
/// A slug of the filter that no page has, or a page that cannot be read.
pub fn pages(folder: &Path, filter: &[String]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut paths: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry?.path().join("README.md");
        let slug = path
            .parent()
            .and_then(Path::file_name)
            .map(|slug| slug.to_string_lossy().into_owned());
        let wanted = filter.is_empty() || slug.is_some_and(|slug| filter.contains(&slug));
        if path.is_file() && wanted {
            paths.push(path);
        }
    }
    paths.sort();
    if paths.is_empty() || (!filter.is_empty() && paths.len() != filter.len()) {
        bail!(
            "{} has not all of these pages: {}",
            folder.display(),
            filter.join(" ")
        );
    }
    Ok(paths)
}

/// Runs pages on a data plane. `program` is the proxy; `itself` is this program, which plays a page when called with
/// `play PAGE --data-plane NAME --program PATH`. `done` hears of each page as it ends.
///
/// # Errors
/// The folder cannot be read, or lacks a page of the filter.
pub fn run(
    folder: &Path,
    data_plane: DataPlane,
    filter: &[String],
    program: &Path,
    itself: &Path,
    done: &(dyn Fn(&str, &Report, Duration) + Sync),
) -> Result<Summary> {
    let summary = Mutex::new(Summary::default());
    side_by_side(pages(folder, filter)?, &|path: PathBuf| {
        let start = Instant::now();
        let slug = path
            .parent()
            .and_then(Path::file_name)
            .unwrap_or_default()
            .to_string_lossy();
        let report = match one(&path, data_plane, program, itself) {
            Ok(report) => report,
            Err(error) => Report {
                problems: vec![format!("{error:#}")],
                ..Report::default()
            },
        };
        done(&slug, &report, start.elapsed());
        if let Ok(mut summary) = summary.lock() {
            summary.pages.push((slug.into_owned(), report, start.elapsed()));
        }
    });
    let mut summary = summary.into_inner().unwrap_or_default();
    summary.pages.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    Ok(summary)
}

/// Does jobs in order, [`CONCURRENT_PAGES`] at a time, and returns when all are done.
pub fn side_by_side<J: Send>(jobs: Vec<J>, work: &(dyn Fn(J) + Sync)) {
    let waiting: Mutex<VecDeque<J>> = Mutex::new(jobs.into());
    let next = || waiting.lock().ok()?.pop_front();
    std::thread::scope(|scope| {
        for _ in 0..CONCURRENT_PAGES {
            scope.spawn(|| {
                while let Some(job) = next() {
                    work(job);
                }
            });
        }
    });
}

/// Plays one page in a process of its own.
fn one(path: &Path, data_plane: DataPlane, program: &Path, itself: &Path) -> Result<Report> {
    // A page that does not parse is reported from here, without a process.
    Page::read(path)?;
    let mut command = Command::new(itself);
    command
        .arg("play")
        .arg(path)
        .arg("--data-plane")
        .arg(data_plane.to_string())
        .arg("--program")
        .arg(program);
    apart(command)
}

/// Runs a command that prints a report in JSON, as pages do in a process of their own; it is killed at the time limit.
///
/// # Errors
/// It cannot be started, takes too long, or prints no report.
pub fn apart<T: DeserializeOwned>(command: Command) -> Result<T> {
    apart_within(command, PAGE_TIME)
}

/// The same with another time limit.
///
/// # Errors
/// As [`apart`].
pub fn apart_within<T: DeserializeOwned>(mut command: Command, limit: Duration) -> Result<T> {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    net::process::die_with_parent(&mut command, rustix::process::Signal::KILL);
    let program = command.get_program().to_string_lossy().into_owned();
    let child = command
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let (ended, output, errors) = wait(child, limit)?;
    if !ended {
        bail!("it takes longer than {limit:?}");
    }
    serde_json::from_str(output.trim()).with_context(|| format!("no report: {}", errors.trim()))
}

/// Waits for a process, whose output is small; kills it at the time limit. Whether it ended by itself, and what it said.
fn wait(mut child: Child, limit: Duration) -> Result<(bool, String, String)> {
    let read = |stream: Option<Box<dyn std::io::Read + Send>>| {
        std::thread::spawn(move || {
            let mut text = Vec::new();
            // What cannot be read is missing in the report, and that is reported.
            let _ = stream.map(|mut stream| stream.read_to_end(&mut text));
            String::from_utf8_lossy(&text).into_owned()
        })
    };
    let output = read(child.stdout.take().map(|stream| Box::new(stream) as _));
    let errors = read(child.stderr.take().map(|stream| Box::new(stream) as _));
    let deadline = Instant::now() + limit;
    let ended = loop {
        if child.try_wait()?.is_some() {
            break true;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            break false;
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let joined = |thread: std::thread::JoinHandle<String>| thread.join().unwrap_or_default();
    Ok((ended, joined(output), joined(errors)))
}
