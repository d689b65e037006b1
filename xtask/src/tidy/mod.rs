//! `cargo xtask tidy`: what the compiler does not check of the house's order.

mod documents;
mod layers;
mod modules;
mod sizes;

use anyhow::Result;

/// Returns what is wrong.
type Check = fn() -> Result<Vec<String>>;

/// Every check and its name.
const CHECKS: &[(&str, Check)] = &[
    ("wings and layers", layers::check),
    ("module cycles", modules::check),
    ("file sizes", sizes::check),
    ("documents", documents::check),
    ("limits page", crate::limits::check),
];

/// Runs every check and prints what is wrong.
pub(crate) fn run(_: &[String]) -> Result<bool> {
    let mut clean = true;
    for (name, check) in CHECKS {
        let findings = check()?;
        println!(
            "{name:<18} {}",
            if findings.is_empty() {
                "ok".to_owned()
            } else {
                format!("{} wrong", findings.len())
            }
        );
        for finding in &findings {
            println!("  {finding}");
        }
        clean &= findings.is_empty();
    }
    Ok(clean)
}
