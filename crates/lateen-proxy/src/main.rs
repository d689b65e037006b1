//! lateen-proxy

fn main() {}
