//! What people see: steps with their time, tables, errors. Results go to stdout, everything else to stderr.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where the program prints"
)]

use std::io::Write as _;
use std::time::{Duration, Instant};

/// The width of the first column of a step.
const LABEL_WIDTH: usize = 17;

/// The width of the text of a step; its time stands after.
const TEXT_WIDTH: usize = 73;

/// Whether to colour: only on a terminal, and not against the user's wish (<https://no-color.org>).
fn coloured(stream: &impl std::io::IsTerminal) -> bool {
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !refused && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// The symbols for done and for attention; words where the locale has no such characters.
fn symbols() -> (&'static str, &'static str) {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|l| !l.is_empty()));
    let unicode = locale.is_none_or(|locale| {
        let locale = locale.to_ascii_lowercase();
        locale.contains("utf-8") || locale.contains("utf8")
    });
    if unicode {
        ("✔", "‼")
    } else {
        ("[ok]", "[warn]")
    }
}

/// Prints one line per step, with the time that it took; prints nothing when quiet.
#[derive(Debug)]
pub(crate) struct Steps {
    quiet: bool,
    started: Instant,
    last: Instant,
}

impl Steps {
    pub(crate) fn new(quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            quiet,
            started: now,
            last: now,
        }
    }

    /// A step is done; its time is that since the step before.
    pub(crate) fn done(&mut self, label: &str, text: &str) {
        let took = self.last.elapsed();
        self.last = Instant::now();
        if self.quiet {
            return;
        }
        let (tick, _) = symbols();
        let tick = if coloured(&std::io::stdout()) {
            format!("\x1b[32m{tick}\x1b[0m")
        } else {
            tick.to_owned()
        };
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        line(&format!(
            "  {tick} {label:LABEL_WIDTH$} {first:TEXT_WIDTH$} {:>6}",
            seconds(took)
        ));
        for more in lines {
            line(&format!("    {:LABEL_WIDTH$} {more}", ""));
        }
    }

    /// Something that the user should know, which is no failure.
    pub(crate) fn note(&self, text: &str) {
        if !self.quiet {
            let (_, mark) = symbols();
            let mark = if coloured(&std::io::stdout()) {
                format!("\x1b[33m{mark}\x1b[0m")
            } else {
                mark.to_owned()
            };
            line(&format!("  {mark} {text}"));
        }
    }

    /// A line as it is.
    pub(crate) fn plain(&self, text: &str) {
        if !self.quiet {
            line(text);
        }
    }

    /// The time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }
}

/// `0.41 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// Writes a line of results. A reader that went away (`lateen ps | head`) is no error; whether there is one is the
/// answer, for those who go on writing.
pub(crate) fn line(text: &str) -> bool {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush()).is_ok()
}

/// Writes a line for people beside the results.
pub(crate) fn hint(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An error with its causes, each on its own level, and the advice that it carries.
pub(crate) fn error(error: &anyhow::Error) {
    let mut text = format!("{error}");
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(&format!(": {cause}"));
        }
    }
    let label = if coloured(&std::io::stderr()) {
        "\x1b[31merror\x1b[0m"
    } else {
        "error"
    };
    hint(&format!("{label}: {text}"));
    let advice = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<agent::AgentError>());
    if let Some(advice) = advice.filter(|advice| !advice.mend.is_empty()) {
        hint(&format!("  {}", advice.mend));
    }
}

/// Prints rows in columns as wide as their widest cell.
pub(crate) fn table(header: &[&str], rows: &[Vec<String>]) {
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let print = |cells: &[String]| {
        let padded: Vec<String> = cells
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        line(padded.join("   ").trim_end());
    };
    print(&header.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    for row in rows {
        print(row);
    }
}
