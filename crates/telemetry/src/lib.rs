//! Metric names as enums, counters per worker, logging.
