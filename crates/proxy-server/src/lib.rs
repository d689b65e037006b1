//! Workers, listeners, drain, admin endpoints.
