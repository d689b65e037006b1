//! `lateen logs`: what applications, and on request their proxies, have written.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::process::ExitCode;

use crate::cli::LogsArgs;
use crate::limits::{LOG_POLL, MAX_BODY_BYTES};
use crate::output;
use crate::state::Home;

/// The name that selects the control plane's log.
const CONTROL_PLANE: &str = "control-plane";

pub(crate) fn run(arguments: &LogsArgs) -> anyhow::Result<ExitCode> {
    let home = Home::find()?;
    home.require_mesh()?;
    let mut logs = logs(&home, arguments);
    if logs.is_empty() {
        match &arguments.name {
            Some(name) => anyhow::bail!("no workload is called \"{name}\"; `lateen ps` lists them"),
            None => anyhow::bail!(
                "no workload has a log; `lateen logs {CONTROL_PLANE}` shows the control plane's"
            ),
        }
    }
    let width = logs.iter().map(|log| log.name.len()).max().unwrap_or_default();
    let mut somebody_reads = true;
    for log in &mut logs {
        let lines = log.read();
        let skipped = lines.len().saturating_sub(arguments.tail);
        somebody_reads = somebody_reads && log.print(&lines[skipped..], width);
    }
    while arguments.follow && somebody_reads {
        std::thread::sleep(LOG_POLL);
        for log in &mut logs {
            let lines = log.read();
            somebody_reads = somebody_reads && log.print(&lines, width);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The logs that the arguments select.
fn logs(home: &Home, arguments: &LogsArgs) -> Vec<Log> {
    let wanted = |name: &str| arguments.name.as_deref().is_none_or(|wanted| wanted == name);
    let mut logs = Vec::new();
    if arguments.name.as_deref() == Some(CONTROL_PLANE) {
        logs.push(Log::new(CONTROL_PLANE.to_owned(), home.log(CONTROL_PLANE)));
    }
    for workload in home
        .workloads()
        .into_iter()
        .filter(|workload| wanted(&workload.name))
    {
        let file = format!("{}.{}", workload.name, workload.namespace);
        let is_gateway = workload.capture.is_none();
        if !is_gateway {
            logs.push(Log::new(workload.name.clone(), home.log(&file)));
        }
        if arguments.sidecar || (is_gateway && arguments.name.is_some()) {
            logs.push(Log::new(
                format!("{}/sidecar", workload.name),
                home.log(&format!("{file}.sidecar")),
            ));
        }
    }
    logs
}

/// A log file and how much of it has been read.
struct Log {
    name: String,
    path: PathBuf,
    offset: u64,
    /// The beginning of a line whose end is not written yet.
    partial: String,
}

impl Log {
    fn new(name: String, path: PathBuf) -> Self {
        Self {
            name,
            path,
            offset: 0,
            partial: String::new(),
        }
    }

    /// The lines that were written since the last call; of a long file only the end.
    fn read(&mut self) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else {
            return Vec::new();
        };
        let length = file.metadata().map_or(0, |metadata| metadata.len());
        if length < self.offset {
            self.offset = 0;
        }
        self.offset = self.offset.max(length.saturating_sub(MAX_BODY_BYTES as u64));
        let mut bytes = Vec::new();
        if file
            .seek(SeekFrom::Start(self.offset))
            .and_then(|_| file.read_to_end(&mut bytes))
            .is_err()
        {
            return Vec::new();
        }
        self.offset += bytes.len() as u64;
        let text = std::mem::take(&mut self.partial) + &String::from_utf8_lossy(&bytes);
        let (whole, partial) = text.rsplit_once('\n').unwrap_or(("", &text));
        self.partial = partial.to_owned();
        whole.lines().map(str::to_owned).collect()
    }

    /// Whether there is still a reader.
    fn print(&self, lines: &[String], width: usize) -> bool {
        let mut lines = lines.iter();
        lines.all(|line| output::line(&format!("{:width$} | {line}", self.name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_line_is_printed_when_it_is_whole() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::new("app".to_owned(), file.path().to_owned());
        file.write_all(b"one\ntw").unwrap();
        assert_eq!(log.read(), ["one"]);
        file.write_all(b"o\n").unwrap();
        assert_eq!(log.read(), ["two"]);
        assert!(log.read().is_empty());
    }
}
