//! The shop as tests see it: which version of reviews answers, and the samples that decide it.

use std::collections::BTreeMap;

use anyhow::Result;

use super::Mesh;

pub(crate) const SUBSETS: &str = include_str!("../../../../samples/bookinfo/destination-rule-all.yaml");
pub(crate) const JASON: &str =
    include_str!("../../../../samples/bookinfo/virtual-service-reviews-jason-v2.yaml");
pub(crate) const SPLIT: &str =
    include_str!("../../../../samples/bookinfo/virtual-service-reviews-90-10.yaml");

/// What a page of the shop shows of the reviews: which version answered.
pub(crate) fn version_of(page: &str) -> &'static str {
    if page.contains("<font color=\"red\">") {
        "v3"
    } else if page.contains("<font color=\"black\">") {
        "v2"
    } else if page.contains("reviews are currently unavailable") {
        "none"
    } else {
        "v1"
    }
}

/// How often each version answers in `n` requests.
pub(crate) fn versions(mesh: &Mesh, user: Option<&str>, n: usize) -> Result<BTreeMap<&'static str, usize>> {
    let mut seen = BTreeMap::new();
    for _ in 0..n {
        *seen.entry(version_of(&mesh.shop(user)?)).or_default() += 1;
    }
    Ok(seen)
}
