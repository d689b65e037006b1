//! ProxyView to listeners, routes, clusters and endpoints.
