//! lateen

fn main() {}
