//! Access logs and their command operators.
