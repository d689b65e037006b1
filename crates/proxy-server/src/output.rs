//! What the command prints outside its log: the verdict of `--mode validate`, and why it does not start.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where the command speaks to its user"
)]

/// The configuration is good.
pub(crate) fn valid(what: &str) {
    println!("configuration '{what}' OK");
}

/// The command ends because of an error.
pub(crate) fn failed(error: &str) {
    eprintln!("error: {error}");
}
