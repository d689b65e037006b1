//! The immutable world, and who sees what of it.
