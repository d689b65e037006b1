//! `lateen kubeconfig`: where the running mesh's kubeconfig is, for `export KUBECONFIG=$(lateen kubeconfig)`.

use std::process::ExitCode;

use crate::output;
use crate::state::Home;

pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let mesh = Home::find()?.require_mesh()?;
    output::line(&mesh.kubeconfig.display().to_string());
    Ok(ExitCode::SUCCESS)
}
