//! ADS server: debounce, push queue, subscriptions, cache, debug endpoints.
