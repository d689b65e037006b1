//! Which proxy plays a part: ours, or a real Envoy. `LATEEN_ENVOY` names its program; without it the tests with Envoy do
//! not run and say so, and fail in CI, where nothing may be skipped in silence.

use std::path::PathBuf;
use std::process::Command;

use super::{Proxy, bootstrap};

/// Who asks for secrets must say who it is.
const FLAGS: [&str; 6] = [
    "--concurrency",
    "1",
    "--service-node",
    "node",
    "--service-cluster",
    "test",
];

/// Which proxy plays a part.
#[derive(Clone, Debug)]
pub(crate) enum Program {
    Lateen,
    Envoy(PathBuf),
}

impl Program {
    /// Starts it, with one worker.
    pub(crate) fn start(&self, listener: String, cluster: String) -> Proxy {
        self.launch(&bootstrap(&[listener], &[cluster]))
    }

    /// Starts it with this bootstrap and one worker, and waits until it is live.
    pub(crate) fn launch(&self, bootstrap: &str) -> Proxy {
        self.launch_with(bootstrap, &[])
    }

    /// The same with further flags.
    pub(crate) fn launch_with(&self, bootstrap: &str, flags: &[&str]) -> Proxy {
        let flags = [&FLAGS[..], flags].concat();
        let proxy = match self {
            Self::Lateen => Proxy::start(bootstrap, &flags),
            Self::Envoy(path) => {
                let flags = [&flags[..], &["--disable-hot-restart", "-l", "error"]].concat();
                Proxy::launch(Command::new(path), bootstrap, &flags)
            }
        };
        proxy.wait_live();
        proxy
    }
}

/// A real Envoy for the test of that name.
#[allow(clippy::print_stderr, reason = "what did not run must be seen")]
pub(crate) fn envoy(test: &str) -> Option<Program> {
    let path = std::env::var_os("LATEEN_ENVOY").map(PathBuf::from);
    if let Some(path) = path.filter(|path| path.is_file()) {
        return Some(Program::Envoy(path));
    }
    let message = format!("NOT RUN {test}: LATEEN_ENVOY names no program");
    assert!(std::env::var_os("CI").is_none(), "{message}");
    eprintln!("{message}");
    None
}

/// Runs a check on our proxy, and on Envoy.
pub(crate) fn on_both(test: &str, check: impl Fn(&Program)) {
    check(&Program::Lateen);
    if let Some(envoy) = envoy(&format!("{test} on Envoy")) {
        check(&envoy);
    }
}
