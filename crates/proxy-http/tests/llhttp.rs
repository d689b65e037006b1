//! The llhttp vectors: where our verdict is another one, ours is to refuse. Which those are, the oracle `llhttp` holds
//! against docs/differences.md. They lie outside the repository, so this test says by name when they are absent, and
//! fails then in CI, where nothing may be skipped in silence.

use std::path::PathBuf;

#[test]
fn no_llhttp_vector_is_taken_more_leniently() {
    let root = std::env::var_os("LATEEN_ORACLE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
        PathBuf::from,
    );
    let dir = root.join("llhttp");
    if !dir.is_dir() {
        let message = format!(
            "NOT RUN no_llhttp_vector_is_taken_more_leniently: {} is absent",
            dir.display()
        );
        assert!(std::env::var_os("CI").is_none(), "{message}");
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "{message}");
        return;
    }
    let results = proxy_http::conformance::run_llhttp(&dir).expect("the vectors can be read");
    let failed: Vec<String> = results
        .iter()
        .filter(|case| !case.passed && !case.refused)
        .map(|case| format!("{}\n    {}", case.name, case.detail))
        .collect();
    assert!(
        failed.is_empty(),
        "{} of {} vectors:\n{}",
        failed.len(),
        results.len(),
        failed.join("\n")
    );
    assert!(results.len() > 200, "only {} vectors were found", results.len());
}
