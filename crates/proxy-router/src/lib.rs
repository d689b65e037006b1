//! Route matching and route actions.
