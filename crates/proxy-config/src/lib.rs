//! xDS to valid runtime configuration, or NACK; owns the filter tables.
