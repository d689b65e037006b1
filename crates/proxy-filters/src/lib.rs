//! One module per filter, named as Envoy names it.
