//! Conformance with recorded CRDs and objects.
