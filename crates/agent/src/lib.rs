//! Joins a process to the mesh: registration, bootstrap, capture, lifecycle.
