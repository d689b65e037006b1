//! `docs/support.md` is printed from the filter tables. `LATEEN_WRITE_DOCS=1 cargo test -p proxy-config --test
//! support_table` writes it; without the variable this test says when it is stale.

use std::fmt::Write as _;
use std::path::Path;

use proxy_config::filters::{Maturity, TABLES};

const HEAD: &str = "# What the proxy supports of Envoy's extensions\n\nGenerated from `crates/proxy-config/src/filters.rs`. \
What is not here is refused (NACK) with the name of the field; so are fields of these that would change traffic or security and are \
not enforced.\n";

fn page() -> String {
    let mut page = HEAD.to_owned();
    for (category, table) in TABLES {
        let _ = write!(
            page,
            "\n## {}\n\n| extension | how much | what |\n|---|---|---|\n",
            category.name()
        );
        for extension in *table {
            let maturity = match extension.maturity {
                Maturity::Complete => "complete",
                Maturity::Partial => "partial",
                Maturity::NoEffect => "accepted, no effect",
            };
            let _ = writeln!(page, "| `{}` | {maturity} | {} |", extension.name, extension.doc);
        }
    }
    page
}

#[test]
fn the_page_is_what_the_tables_say() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/support.md");
    if std::env::var_os("LATEEN_WRITE_DOCS").is_some() {
        std::fs::write(&file, page()).unwrap();
    }
    let written = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        written == page(),
        "docs/support.md is stale: LATEEN_WRITE_DOCS=1 cargo test -p proxy-config --test support_table"
    );
}
