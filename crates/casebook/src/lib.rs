//! Runs the feature pages against our proxy and against Envoy.
