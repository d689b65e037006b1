//! The llhttp vectors. They lie outside the repository, so this test says by name when they are absent, and
//! fails then in CI, where nothing may be skipped in silence.

use std::path::PathBuf;

#[test]
fn every_llhttp_vector_gets_the_strict_verdict() {
    let root = std::env::var_os("LATEEN_ORACLE").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/oracle"),
        PathBuf::from,
    );
    let dir = root.join("llhttp");
    if !dir.is_dir() {
        let message = format!(
            "NOT RUN every_llhttp_vector_gets_the_strict_verdict: {} is absent",
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
        .filter(|case| !case.passed)
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
