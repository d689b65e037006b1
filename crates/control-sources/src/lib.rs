//! Kubernetes watches to Snapshot.
