//! Fake clock, seeded randomness, fixtures, scripted upstreams.
